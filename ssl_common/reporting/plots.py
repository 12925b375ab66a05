"""The panels of a report as a picture."""

import importlib.util
import io
import logging
import math
import os
import re
import statistics
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from ssl_common import legible, schema, tasks
from ssl_common.reporting import tables
from ssl_common.reporting.panels import Intervals, Line, Panel, Place, Points, panels
from ssl_common.reporting.rows import BEST, NO_LAYER, UNKNOWN, Row
from ssl_common.streams import DataError
from ssl_common.tasks import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Suffix -> what not to write into the file: dates and versions, which change its bytes.
FORMS: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
DECADE = 10  # an axis is logarithmic where its greatest value is this many times the least, or more
# Okabe and Ito's colours, which the colour-blind tell apart, less the yellow, too light for a line.
# 7 of them and 8 markers: 56 lines before a pair comes again. What is more has one look, OTHERS.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
LOOKS = len(COLOURS) * len(MARKERS)
OTHERS: dict[str, Any] = {"color": "#b0b0b0", "marker": "."}
PANELS = 60  # of a picture that can be looked at
TICKS, WIDEST = 40, 24  # layers that an axis names, characters of each
STYLE: dict[str, Any] = {
    **{"font.size": 9, "axes.titlesize": 10, "savefig.dpi": 150, "text.parse_math": False},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True},
    **{"axes.grid": True, "grid.color": "#e6e6e6", "legend.frameon": False},
    **{"svg.fonttype": "none", "svg.hashsalt": "ssl-bench", "pdf.fonttype": 42},
}

T = TypeVar("T")
Style = dict[str, Any]  # how a line is drawn: colour and marker


class Legend:
    """What the figure names below its panels: a drawn line for each label, and notes on marks."""

    def __init__(self) -> None:
        self.lines: dict[str, Line2D] = {}
        self.notes: set[str] = set()

    def add(self, label: str, line: "Line2D") -> None:
        """Name LINE by LABEL, if no line of that label is named yet."""
        self.lines.setdefault(label, line)

    def draw(self, figure: "Figure") -> None:
        """Draw it below the panels of FIGURE, which grows; the highest line is named first."""
        room = round(figure.get_figwidth() * 11)  # characters
        texts = {label: textwrap.fill(legible.text(label), room) for label in self.lines}
        heights = {
            label: cast(Sequence[float], line.get_ydata())[-1] for label, line in self.lines.items()
        }
        order = sorted(self.lines, key=lambda label: -heights[label])
        columns = max(1, min(3, room // (max(len(text) for text in texts.values()) + 8)))
        height = sum(text.count("\n") + 1 for text in texts.values()) / columns + bool(self.notes)
        figure.set_figheight(figure.get_figheight() + 0.19 * math.ceil(height))
        figure.legend(
            [self.lines[label] for label in order],
            [texts[label] for label in order],
            title="; ".join(sorted(self.notes)) or None,
            loc="outside lower left",
            ncols=columns,
            alignment="left",
            handlelength=3,
        )


def figure(rows: Iterable[Row], against: str | None = None) -> "tuple[Figure, int]":
    """Return (Figure of ROWS, a panel a task, data set and metric; records panels() leaves out)."""
    content, left_out = panels(rows, against)
    if len(content) > PANELS:
        message = f"--plot: {len(content)} tasks and data sets, a panel each, but {PANELS} at most"
        raise DataError(f"{message}: choose among the records, with grep for example")
    sheet, axes = _sheet(len(content))
    legend, styles = Legend(), _styles(content)
    for ax, panel in zip(axes, content, strict=True):
        _draw_panel(ax, panel, against, styles, legend)
    legend.draw(sheet)
    return sheet, left_out


def _sheet(count: int) -> "tuple[Figure, list[Axes]]":
    """Return (an empty Figure, its Axes) for COUNT panels."""
    from matplotlib.figure import Figure

    columns = 1 if count == 1 else 2 if count < 5 else 3
    rows = math.ceil(count / columns)
    width, height = (6.8, 3.8) if count == 1 else (4.4, 3.0)  # of a panel, inches
    sheet = Figure((columns * width, rows * height), layout="constrained")
    axes = sheet.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[count:]:
        unused.remove()
    return sheet, list(axes[:count])


def _styles(content: Sequence[Panel]) -> dict[str, Style]:
    """Return {label: how it is drawn} of the lines of panels.

    Of more than LOOKS, those that come first in a panel have a look of their own, the rest OTHERS.
    """
    rank: dict[str, int] = {}
    for panel in content:
        for place, line in enumerate(sorted(panel.lines, key=lambda line: -_merit(line, panel))):
            rank[line.label] = min(place, rank.get(line.label, place))
    labels = list(dict.fromkeys(line.label for panel in content for line in panel.lines))
    named = sorted(labels, key=rank.__getitem__)[:LOOKS] if len(labels) > LOOKS else labels
    styles = dict.fromkeys(labels, OTHERS)
    for index, label in enumerate(named):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        styles[label] = {"color": colour, "marker": marker}
    return styles


def _merit(line: Line, panel: Panel) -> float:
    """Return how good the best point of LINE is by the metric of PANEL: more is better."""
    return max(map(panel.metric.merit, line.means.values()))


def _draw_panel(
    ax: "Axes", panel: Panel, against: str | None, styles: Mapping[str, Style], legend: Legend
) -> None:
    """Draw PANEL into AX: crowded lines in gray, then the others, each with the paper's beside."""
    ax.set_title(_wrapped(ax, f"{panel.task}, {panel.data_set}"))
    known = panel.metric.name != UNKNOWN
    metric = panel.metric if known else replace(panel.metric, name="value")
    ax.set_ylabel(legible.text(metric.caption(" of the best layer" if against else "")))
    place = _field_axis(ax, panel.lines, against) if against else _layer_axis(ax, panel.lines)
    crowd = [line for line in panel.lines if styles[line.label] is OTHERS]
    if crowd:
        legend.add(f"{len(styles) - LOOKS:,} others", _draw_crowd(ax, crowd, place))
    papers = []
    for line in panel.lines:
        style = styles[line.label]
        if style is not OTHERS:
            drawn = _draw(ax, line.points, place, style, legend.notes, line.intervals)
            legend.add(line.label, drawn)
            if not against and len(line.points) > 1:
                _ring(ax, line.means, panel.metric, place, style)
                legend.notes.add("ring: best layer")
        if line.paper and (line.paper_label, line.paper) not in papers:  # once for two lines
            papers.append((line.paper_label, line.paper))
            dashed = style | {"linestyle": "--", "markerfacecolor": "white"}
            legend.add(line.paper_label, _draw(ax, line.paper, place, dashed, legend.notes, {}))


def _wrapped(ax: "Axes", text: str) -> str:
    """Return TEXT, a title, in lines that fit AX."""
    return textwrap.fill(legible.text(text), round(_width(ax) * 11))


def _width(ax: "Axes") -> float:
    """Return the width of the panel AX, in inches."""
    place = ax.get_subplotspec()
    return ax.figure.bbox.width / ax.figure.dpi / (place.get_gridspec().ncols if place else 1)


def _layer_axis(ax: "Axes", lines: Sequence[Line]) -> dict[Place, float]:
    """Lay the layers of LINES along the axis in network order; return {layer: place}.

    A ResNet's res3 stands where an AlexNet's conv3 does.
    """
    layers = {layer for line in lines for layer in (*line.points, *line.paper)} - {BEST}
    stage = {layer: re.sub(r"^res(?=\d$)", "conv", layer) for layer in layers}
    place = {each: i for i, each in enumerate(tables.in_order(set(stage.values())))}
    names = [""] * len(place)
    for layer in tables.in_order(layers):
        name = "no layer" if layer == NO_LAYER else _cut(legible.text(layer), WIDEST)
        names[place[stage[layer]]] += f"\n{name}" if names[place[stage[layer]]] else name
    ticks = range(0, len(names), math.ceil(len(names) / TICKS))
    names = [names[i] for i in ticks]
    ax.set_xticks(ticks, names)
    ax.set_xlim(-0.4, len(place) - 0.6)
    if sum(map(len, names)) > 11 * _width(ax):
        ax.tick_params("x", labelrotation=45)
    ax.set_xlabel("layer")
    return {layer: place[stage[layer]] for layer in layers}


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"


def _field_axis(ax: "Axes", lines: Sequence[Line], against: str) -> dict[Place, float]:
    """Give AX the numbers of LINES, on a log axis where they span a decade; return {x: x}."""
    from matplotlib import ticker

    numbers = sorted({x for line in lines for x in (*line.points, *line.paper)})
    low, high = numbers[0], numbers[-1]
    decades = low >= 1 / schema.FARTHEST and high >= DECADE * low
    ax.set_xscale("log" if decades else "linear")
    scaled = [math.log(x) if decades else x for x in numbers]
    apart = [b - a for a, b in zip(scaled, scaled[1:], strict=False)]
    if not apart or min(apart) >= (scaled[-1] - scaled[0]) / 10:  # room to name each
        ax.xaxis.set_major_locator(ticker.FixedLocator(numbers))
    elif decades:
        subs = (1,) if high >= 1000 * low else (1, 2, 5)
        ax.xaxis.set_major_locator(ticker.LogLocator(subs=subs))
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _place: short(x)))
    symbols = [f" {size.symbol}" for size in tasks.PRETEXT_SIZES if size.field == against]
    ax.set_xlabel(legible.text("".join([against, *symbols, " (log scale)" * decades])))
    return {x: x for x in numbers}


def short(number: float) -> str:
    """Return NUMBER in a few characters: 701, 2,686, 1.28M."""
    if abs(number) < 100_000:
        return f"{number:,.6g}"
    number = float(f"{number:.3g}")
    size, mark = next(s for s in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if abs(number) >= s[0])
    return f"{number / size:.3g}{mark}"


def _draw(
    ax: "Axes",
    points: Points,
    place: Mapping[Place, float],
    style: Style,
    notes: set[str],
    intervals: Intervals,
) -> "Line2D":
    """Draw POINTS, {layer or number: values}: their means, joined, and bars from least to greatest.

    Where there is one value, the bar is its interval, of INTERVALS, or none. A published value of
    the best layer, whichever it is, is a level line. Returns the line.
    """
    if list(points) == [BEST]:
        notes.add("level line: best layer of the paper")
        return ax.axhline(points[BEST][0], linewidth=1.4, **style | {"marker": ""})
    order = sorted(points, key=place.__getitem__)
    xs, means = [place[k] for k in order], [statistics.fmean(points[k]) for k in order]
    (line,) = ax.plot(xs, means, linewidth=1.6, markersize=6, **style)
    seeds = {k: (min(points[k]), max(points[k])) for k in order if len(points[k]) > 1}
    for bars, note in (
        (seeds, "bars: least to greatest of the seeds"),
        (intervals, "bars of one seed: 95% interval"),
    ):
        if ends := [(place[k], *bars[k]) for k in order if k in bars and bars[k][0] < bars[k][1]]:
            notes.add(note)
            at, low, high = map(np.array, zip(*ends, strict=True))
            middle, half = (low + high) / 2, (high - low) / 2
            ax.errorbar(at, middle, half, fmt="none", ecolor=style["color"], capsize=3)
    return line


def _draw_crowd(ax: "Axes", lines: Iterable[Line], place: Mapping[Place, float]) -> "Line2D":
    """Draw the means of LINES alike, below all others, as one: it has gaps. Returns it."""
    xs, means = [], []
    for line in lines:
        line_means = line.means
        for key in sorted(line_means, key=place.__getitem__):
            xs.append(place[key])
            means.append(line_means[key])
        xs.append(math.nan)
        means.append(math.nan)
    (drawing,) = ax.plot(xs[:-1], means[:-1], linewidth=0.8, markersize=4, zorder=1, **OTHERS)
    return drawing


def _ring(
    ax: "Axes",
    means: Mapping[Place, float],
    metric: Metric,
    place: Mapping[Place, float],
    style: Style,
) -> None:
    """Draw a ring around the best of MEANS by METRIC, the first layer of equals."""
    best = metric.best({layer: means[layer] for layer in sorted(means, key=place.__getitem__)})
    ring = {"marker": "o", "markersize": 13, "markerfacecolor": "none", "label": "best"}
    ax.plot(place[best], means[best], **style | ring)


def _matplotlib() -> ModuleType:
    """Return matplotlib as it is installed; raise DataError where it is not.

    When it is first imported it reads the matplotlibrc of the current folder, and MPLBACKEND.
    """
    spec = importlib.util.find_spec("matplotlib")
    if not spec or not spec.origin:
        raise DataError("--plot needs matplotlib: pip install matplotlib")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # else it talks of its font cache
    here, backend = os.open(os.curdir, os.O_PATH), os.environ.pop("MPLBACKEND", None)
    try:
        os.chdir(os.path.join(os.path.dirname(spec.origin), "mpl-data"))  # to its own matplotlibrc
        import matplotlib
    finally:
        os.fchdir(here)
        os.close(here)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return matplotlib


def render(rows: Iterable[Row], path: str, against: str | None = None) -> tuple[bytes, int]:
    """Return (picture of ROWS in the form of the suffix of PATH, records left out by panels()).

    Raises DataError where there is no matplotlib, and as panels() does.
    """
    return drawn(path, lambda: figure(rows, against))


def drawn(path: str, draw: Callable[[], "tuple[Figure, T]"]) -> tuple[bytes, T]:
    """Return (the picture that DRAW() gives, in the form of the suffix of PATH, what else it does).

    Raises DataError where there is no matplotlib.
    """
    matplotlib = _matplotlib()
    suffix = os.path.splitext(path)[1].lower()
    stream = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in letters that the font lacks
        matplotlib.rcdefaults()  # whatever a matplotlibrc says
        matplotlib.rcParams.update(STYLE)
        sheet, said = draw()
        sheet.savefig(stream, format=suffix[1:], metadata=FORMS[suffix])
    return stream.getvalue(), said
