"""Panels of a report as inline SVG: presentation attributes alone, no style and no script.

So a page may be read where a policy forbids both. Ink and text have the colour of the page's text,
which is light in dark mode; the colours of lines can be seen on white and on black.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from ssl_common import legible, tasks
from ssl_common.reporting import tables
from ssl_common.reporting.panels import Line, Panel, Place
from ssl_common.reporting.plots import DECADE, short
from ssl_common.reporting.rows import BEST, NO_LAYER, UNKNOWN

COLOURS = ["#0a7cc4", "#d55e00", "#009e73", "#cc79a7", "#c28a00", "#7f6ad6", "#8c8c8c"]
SHAPES = ["circle", "square", "triangle", "diamond"]
NAMED = len(COLOURS) * 2  # lines with a look of their own; others are thin and gray
SIZE = 620, 300  # of a chart with its axes, without the legend
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 10, 46
TEXT = 'font-family="sans-serif" font-size="12" fill="currentColor"'
# Networks in the order of their capacity.
CAPACITY = ["alexnet-half", "alexnet", "caffenet", "resnet18", "resnet34", "resnet50"]
CAPACITY += ["resnet101", "resnet152"]


class Axes(NamedTuple):
    """Where the numbers of a chart stand: PLACES {place: x}, TICKS [(x, text)], values to y."""

    width: float
    height: float
    places: Mapping[Place, float]
    ticks: Sequence[tuple[float, str]]
    low: float
    high: float

    def y(self, value: float) -> float:
        """Return where VALUE stands, in pixels from the top."""
        share = (value - self.low) / (self.high - self.low)
        return TOP + (1 - share) * (self.height - TOP - BOTTOM)


def chart(
    panel: Panel,
    against: str | None,
    title: str,
    fits: Mapping[str, Mapping[str, Any]] | None = None,
    span: tuple[float, float] | None = None,
    width: float = SIZE[0],
    ranked: bool = True,
) -> str:
    """Return PANEL as an <svg>, called TITLE, its lines over layers or AGAINST a field.

    FITS {label: fit} have a law and a forecast, which are dotted. SPAN is of the values, that of
    the panel if None. Lines stand in the order of their best values, or, not RANKED, as they are.
    """
    fits = fits or {}
    lines = sorted(panel.lines, key=lambda line: -_merit(line, panel) * ranked)
    axes = _axes(lines, against, fits, span or extent(lines, fits), width)
    named, others = lines[:NAMED], lines[NAMED:]
    drawn = [_frame(axes, panel, against)]
    drawn += [_path(axes, line.means, "#8c8c8c", "0.6") for line in others]
    papers: list[tuple[str, Any]] = []
    legend = []
    for index, line in enumerate(named):
        colour, shape = _look(index)
        drawn.append(_line(axes, line, colour, shape))
        legend.append((colour, shape, False, line.label))
        if line.label in fits and "law" in fits[line.label]:
            drawn.append(_law(axes, fits[line.label], panel, colour))
        if line.paper and (line.paper_label, line.paper) not in papers:
            papers.append((line.paper_label, line.paper))
            drawn.append(_paper(axes, line, colour, shape))
            legend.append((colour, shape, True, line.paper_label))
    entries, height = _legend(legend, len(others), axes)
    about = f"{title}. {len(lines)} lines; the values stand in the table below."
    return (
        f'<svg role="img" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
        f' aria-label="{_text(about)}">{"".join(drawn)}{entries}</svg>'
    )


def extent(
    lines: Iterable[Line], fits: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[float, float]:
    """Return (least, greatest) of what is drawn of LINES and the forecasts of FITS."""
    values: list[float] = []
    for line in lines:
        for group in (line.points, line.paper):
            values += [value for each in group.values() for value in each]
        values += [value for each in line.intervals.values() for value in each]
        if forecast := (fits or {}).get(line.label, {}).get("forecast"):
            values += [forecast["value"], *forecast["interval"]]
    return min(values), max(values)


def _merit(line: Line, panel: Panel) -> float:
    return max(map(panel.metric.merit, line.means.values()))


def _look(index: int) -> tuple[str, str]:
    return COLOURS[index % len(COLOURS)], SHAPES[(index + index // len(COLOURS)) % len(SHAPES)]


def _axes(
    lines: Sequence[Line],
    against: str | None,
    fits: Mapping[str, Mapping[str, Any]],
    span: tuple[float, float],
    width: float,
) -> Axes:
    """Return the Axes of LINES, their values in SPAN."""
    every = {place for line in lines for place in (*line.points, *line.paper)} - {BEST}
    inner = width - LEFT - RIGHT
    ticks: list[tuple[float, str]]
    if against is None or against == "arch":
        order, names = _layers(every) if against is None else _networks(every)
        step = inner / max(len(names), 1)
        places = {place: LEFT + (order[place] + 0.5) * step for place in order}
        ticks = [(LEFT + (i + 0.5) * step, name) for i, name in enumerate(names)]
    else:
        ahead = [fits[line.label]["forecast"]["at"] for line in lines if _has_law(fits, line)]
        numbers = sorted({float(each) for each in every} | set(map(float, ahead)))
        places, ticks = _numbers(numbers, inner)
    low, high = span
    room = (high - low) * 0.06 or max(abs(high) * 0.05, 0.5)
    return Axes(width, SIZE[1], places, ticks, low - room, high + room)


def _has_law(fits: Mapping[str, Mapping[str, Any]], line: Line) -> bool:
    return "law" in fits.get(line.label, {})


def _layers(every: set[Place]) -> tuple[dict[Place, int], list[str]]:
    """Return ({layer: number of its place}, names); a ResNet's res3 is where conv3 is."""
    stage = {layer: re.sub(r"^res(?=\d$)", "conv", layer) for layer in every}
    order = {each: i for i, each in enumerate(tables.in_order(set(stage.values())))}
    names = [""] * len(order)
    for layer in tables.in_order(set(every)):
        name = "no layer" if layer == NO_LAYER else layer
        names[order[stage[layer]]] += f", {name}" if names[order[stage[layer]]] else name
    return {layer: order[stage[layer]] for layer in every}, names


def _networks(every: set[Place]) -> tuple[dict[Place, int], list[str]]:
    names = [name for name in CAPACITY if name in every]
    names += sorted(every - set(names))
    return {name: i for i, name in enumerate(names)}, names


def _numbers(
    numbers: Sequence[float], inner: float
) -> tuple[dict[Place, float], list[tuple[float, str]]]:
    """Return ({number: x}, ticks) of NUMBERS, on a log axis where they span a decade."""
    low, high = numbers[0], numbers[-1]
    decades = low > 0 and high >= DECADE * low

    def scaled(number: float) -> float:
        return math.log(number) if decades else number

    reach = (scaled(high) - scaled(low)) or 1
    first = scaled(low) - 0.05 * reach if high > low else scaled(low) - 0.5
    reach = 1.1 * reach if high > low else 1

    def x(number: float) -> float:
        return LEFT + inner * (scaled(number) - first) / reach

    ticks: list[tuple[float, str]] = []
    for number in numbers:  # those that have room for their name
        name = short(number)
        if not ticks or x(number) - ticks[-1][0] > 4 * (len(name) + len(ticks[-1][1])):
            ticks.append((x(number), name))
    return {number: x(number) for number in numbers}, ticks


def _frame(axes: Axes, panel: Panel, against: str | None) -> str:
    """Return the axes with their names, and a grid."""
    bottom, right = axes.height - BOTTOM, axes.width - RIGHT
    parts = []
    for value in _round(axes.low, axes.high):
        y = axes.y(value)
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{right:g}" stroke="currentColor" stroke-opacity="0.15"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" {TEXT}>{value:g}</text>'
        )
    for x, name in axes.ticks:
        parts.append(
            f'<path d="M{x:.1f} {bottom:g}v4" stroke="currentColor"/><text x="{x:.1f}"'
            f' y="{bottom + 17:g}" text-anchor="middle" {TEXT}>{_text(name)}</text>'
        )
    parts.append(
        f'<path d="M{LEFT} {TOP}V{bottom:g}H{right:g}" fill="none" stroke="currentColor"/>'
    )
    symbols = {size.field: f" {size.symbol}" for size in tasks.PRETEXT_SIZES}
    name = "layer" if against is None else "network" if against == "arch" else against
    middle = (LEFT + right) / 2
    metric = panel.metric.caption() if panel.metric.name != UNKNOWN else "value"
    parts.append(
        f'<text x="{middle:g}" y="{bottom + 36:g}" text-anchor="middle" {TEXT}>'
        f"{_text(name + symbols.get(name, ''))}</text>"
        f'<text transform="translate(14 {(TOP + bottom) / 2:g}) rotate(-90)"'
        f' text-anchor="middle" {TEXT}>{_text(metric)}</text>'
    )
    return "".join(parts)


def _round(low: float, high: float) -> list[float]:
    """Return about five round numbers from LOW to HIGH."""
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * 0.999)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]


def _line(axes: Axes, line: Line, colour: str, shape: str) -> str:
    """Return LINE: means, joined, with bars from the least to the greatest, or of the interval."""
    means = line.means
    parts = [_path(axes, means, colour, "1.8")]
    for place in _ordered(axes, means):
        x, values = axes.places[place], line.points[place]
        ends = (min(values), max(values)) if len(values) > 1 else line.intervals.get(place)
        if ends and ends[0] < ends[1]:
            parts.append(_bar(axes, x, ends, colour))
        parts.append(_mark(x, axes.y(means[place]), colour, shape, hollow=False))
    return "".join(parts)


def _paper(axes: Axes, line: Line, colour: str, shape: str) -> str:
    """Return the published points beside LINE, hollow and dashed; a level line for a best layer."""
    values = {place: each[0] for place, each in line.paper.items()}
    if list(values) == [BEST]:
        y = axes.y(values[BEST])
        return (
            f'<path d="M{LEFT} {y:.1f}H{axes.width - RIGHT:g}" fill="none" stroke="{colour}"'
            ' stroke-width="1.4" stroke-dasharray="6 4"/>'
        )
    values.pop(BEST, None)
    marks = [
        _mark(axes.places[place], axes.y(value), colour, shape, hollow=True)
        for place, value in values.items()
    ]
    return _path(axes, values, colour, "1.4", dashes="6 4") + "".join(marks)


def _law(axes: Axes, fit: Mapping[str, Any], panel: Panel, colour: str) -> str:
    """Return the law of FIT as a dotted curve to its forecast, which has its interval."""
    law, first, last = fit["law"], fit["sizes"][0], fit["forecast"]["at"]
    most = panel.metric.unit.most if panel.metric.unit else 100
    start, end = axes.places[float(first)], axes.places[float(last)]
    points = []
    for i in range(41):
        size = first * (last / first) ** (i / 40)
        error = law["limit"] + law["scale"] * (size / law["unit"]) ** -law["exponent"]
        value = error if panel.metric.better == "lower" else most - error
        points.append(f"{start + (end - start) * i / 40:.1f} {axes.y(value):.1f}")
    forecast = fit["forecast"]
    return (
        f'<path d="M{"L".join(points)}" fill="none" stroke="{colour}" stroke-width="1.4"'
        ' stroke-dasharray="2 3"/>'
        + _bar(axes, end, forecast["interval"], colour)
        + _mark(end, axes.y(forecast["value"]), colour, "cross", hollow=True)
    )


def _ordered(axes: Axes, values: Iterable[Place]) -> list[Place]:
    return sorted((place for place in values if place in axes.places), key=axes.places.__getitem__)


def _path(
    axes: Axes, values: Mapping[Place, float], colour: str, width: str, dashes: str = ""
) -> str:
    order = _ordered(axes, values)
    if len(order) < 2:
        return ""
    points = "L".join(f"{axes.places[p]:.1f} {axes.y(values[p]):.1f}" for p in order)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="M{points}" fill="none" stroke="{colour}" stroke-width="{width}"{dashed}/>'


def _bar(axes: Axes, x: float, ends: Sequence[float], colour: str) -> str:
    low, high = axes.y(ends[0]), axes.y(ends[1])
    return (
        f'<path d="M{x - 4:.1f} {low:.1f}h8m-4 0V{high:.1f}m-4 0h8" fill="none" stroke="{colour}"/>'
    )


def _mark(x: float, y: float, colour: str, shape: str, hollow: bool) -> str:
    """Return a mark of SHAPE at X, Y; the inside of a HOLLOW one shows what is behind."""
    paths = {
        "circle": f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        "square": f"M{x - 3.6:.1f} {y - 3.6:.1f}h7.2v7.2h-7.2z",
        "triangle": f"M{x:.1f} {y - 4.6:.1f}l4.4 8h-8.8z",
        "diamond": f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z",
        "cross": f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8",
    }
    fill = "none" if hollow else colour
    return f'<path d="{paths[shape]}" fill="{fill}" stroke="{colour}" stroke-width="1.4"/>'


def _legend(
    entries: Sequence[tuple[str, str, bool, str]], others: int, axes: Axes
) -> tuple[str, float]:
    """Return (the legend below the axes, the height of the chart with it)."""
    y, parts = axes.height + 8, []
    for colour, shape, hollow, label in entries:
        dashed = ' stroke-dasharray="6 4"' if hollow else ""
        parts.append(
            f'<path d="M{LEFT - 40} {y}h28" stroke="{colour}" stroke-width="1.8"{dashed}/>'
            + _mark(LEFT - 26, y, colour, shape, hollow)
        )
        room = int((axes.width - LEFT) / 6.2)
        shown = label if len(label) <= room else f"{label[: room - 1]}\u2026"
        parts.append(f'<text x="{LEFT - 4}" y="{y + 4}" {TEXT}>{_text(shown)}</text>')
        y += 18
    if others:
        parts.append(f'<text x="{LEFT - 4}" y="{y + 4}" {TEXT}>thin: {others:,} others</text>')
        y += 18
    return "".join(parts), y


def _text(value: object) -> str:
    """Return VALUE as text of the page."""
    return escape(legible.text(value))
