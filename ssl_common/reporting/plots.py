"""Rows of a report as a picture: the metric by layer, or that of the best layer against a field."""

import contextlib
import importlib.util
import io
import logging
import math
import os
import re
import statistics
import textwrap
import warnings
from typing import NamedTuple

from ssl_common import containers, legible, results
from ssl_common.reporting import report, tables
from ssl_common.reporting.report import BEST, NO_LAYER
from ssl_common.streams import DataError

# Suffix -> what not to write into the file: dates and versions, which change its bytes.
FORMS = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
SEEDS = ("seed", "svm_seed", "linear_seed", "sample_seed")
# What may be another with another seed.
OF_A_SEED = (*SEEDS, "samples_digest", "inputs.model", *report.OF_A_LAYER, "version", "where")
# What goes with a number that the plot is against.
GOES_WITH = {
    "images": ("data",),
    "epochs": ("steps", "bn_momentum"),
    "steps": ("epochs", "bn_momentum"),
    "batch": ("micro_batch", "steps", "warm_up"),
    "k": ("samples",),
    "train_images": ("train_manifest", "train_labels"),
    "test_images": ("test_manifest", "inputs.manifest"),
}
DECADE = 10  # an axis is logarithmic where its greatest value is this many times the least, or more
# Okabe and Ito's colours, which the colour-blind tell apart, less the yellow, too light for a line.
# 7 of them and 8 markers: 56 lines before a pair comes again. What is more has one look, OTHERS.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
LOOKS = len(COLOURS) * len(MARKERS)
OTHERS = {"color": "#b0b0b0", "marker": "."}
PANELS = 60  # of a picture that can be looked at
TICKS, WIDEST = 40, 24  # layers that an axis names, characters of each
STYLE = {
    **{"font.size": 9, "axes.titlesize": 10, "savefig.dpi": 150, "text.parse_math": False},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True},
    **{"axes.grid": True, "grid.color": "#e6e6e6", "legend.frameon": False},
    **{"svg.fonttype": "none", "svg.hashsalt": "ssl-bench", "pdf.fonttype": 42},
}


class Line(NamedTuple):
    """A line of a panel: POINTS and PAPER are {layer or number: [a value for each seed]}."""

    label: str
    points: dict
    paper_label: str
    paper: dict


def panels(rows, against=None):
    """Return {(task, data set, metric): [Line]} of ROWS, and how many records were left out.

    By layer, a line is a network; AGAINST a field, it is all that differs in nothing else, a point
    is the best layer, and a record without a number there is left out. What differs only in its
    seeds is one line. Raises DataError where no record has the field.
    """
    families, left_out = {}, 0
    for row in (row for row in rows if not row.source):
        paper = report.paper_row(row)
        if against:
            said = {layer: _number(record.get(against)) for layer, record in row.records.items()}
            kept = {k: v for k, v in row.values.items() if said[k] is not None}
            left_out += len(row.values) - len(kept)
            row = row._replace(values=kept)
        if row.values:
            about = _about(row, against)
            less = (*OF_A_SEED, "model") if about.get("arch") or about.get("pretext") else OF_A_SEED
            key = {name: value for name, value in about.items() if name not in less}
            if against == "images":
                key["data_name"] = _sampled(about.get("data_name"))
            families.setdefault((row[:3], report.frozen(key)), []).append((row, paper))
    if not families:
        found = (record for row in rows for record in row.records.values())
        known = {k for record in found for k, v in record.items() if _number(v) is not None}
        there = ", ".join(sorted(known - {"value"})) or "none"
        raise DataError(f"no record has a number in {against!r} (numbers: {there})")
    found = {}
    for (panel, _key), family in families.items():
        drawn = [_drawn(row, against) for row, _paper in family]
        # A seed twice: they differ in more than the records say, and have no mean.
        apart = len(set(drawn)) < len(drawn)
        lines = [[member] for member in family] if apart else [family]
        found.setdefault(panel, []).extend(_line(members, against) for members in lines)
    return {panel: _labelled(lines) for panel, lines in found.items()}, left_out


def _number(value):
    """Return the number VALUE, or that which the text VALUE spells, as --tag does; else None."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = containers.parse(value)
    return float(value) if results.is_number(value) else None


def _drawn(row, against):
    """Return where in a line ROW stands, and for which seeds."""
    record = _record(row)
    return _number(record.get(against)), *map(record.get, SEEDS)


def _record(row):
    """Return the record of the best layer of ROW."""
    layer, _value = row.best()
    return row.records.get(layer) or next(iter(row.records.values()))


def _about(row, against):
    """Return what decided the values of ROW, less the field AGAINST and what goes with it."""
    less = (against, *GOES_WITH.get(against, ()))
    return {name: value for name, value in row.about.items() if name not in less}


def _sampled(name):
    """Return what the data set NAME is a sample of: yfcc for yfcc-1m and yfcc-100m."""
    return re.sub(r"-\d+[km]?$", "", str(name), flags=re.IGNORECASE)


def _line(members, against):
    """Return (Line, what its rows have in common) of MEMBERS, (Row, published Row or None).

    These are one network's seeds, or AGAINST a field.
    """
    points, paper = {}, {}
    for row, published in members:
        values, theirs = row.values, published.values if published else {}
        if against:
            x = _number(_record(row)[against])
            values = {x: row.best()[1]}
            if published:  # 1,281,167 images where ours are a few less
                theirs = {_record(published).get(against, x): published.best()[1]}
        for place, value in values.items():
            points.setdefault(place, []).append(value)
        paper |= {place: [value] for place, value in theirs.items()}
    about = _common([row for row, _published in members], against)
    published = [row for _row, row in members if row]
    named = f"paper: {report.label(_common(published, against))}" if published else ""
    return Line(report.label(about), points, named, paper), about


def _common(rows, against):
    """Return what all of ROWS say of themselves."""
    first, *others = (_about(row, against) for row in rows)
    common = {k: v for k, v in first.items() if all(o.get(k) == v for o in others)}
    if first.get("data_name"):
        common.setdefault("data_name", _sampled(first["data_name"]))
    return common


def _labelled(lines):
    """Return LINES, (Line, about) of one panel, with labels that tell them apart."""
    labels = report.told_apart([line.label for line, _ in lines], [about for _, about in lines])
    named = []
    for (line, _about), label in zip(lines, labels, strict=True):
        fewest, most = (f(map(len, line.points.values())) for f in (min, max))
        if most > 1:
            label += f", {most} seeds" if fewest == most else f", {fewest} to {most} seeds"
        named.append(line._replace(label=label))
    return named


def figure(rows, against=None):
    """Return the matplotlib Figure of ROWS, a panel a task and data set, and panels()' left out."""
    from matplotlib.figure import Figure

    found, left_out = panels(rows, against)
    if len(found) > PANELS:
        message = f"--plot: {len(found)} tasks and data sets, a panel each, but {PANELS} at most"
        raise DataError(f"{message}: choose among the records, with grep for example")
    columns = 1 if len(found) == 1 else 2 if len(found) < 5 else 3
    deep = math.ceil(len(found) / columns)
    width, height = (6.8, 3.8) if len(found) == 1 else (4.4, 3.0)  # of a panel, inches
    drawn = Figure((columns * width, deep * height), layout="constrained")
    axes = drawn.subplots(deep, columns, squeeze=False).ravel()
    for unused in axes[len(found) :]:
        unused.remove()
    entries, notes, styles = {}, set(), _styles(found)
    others = f"{len(styles) - LOOKS:,} others"
    for ax, ((task, data_set, metric), lines) in zip(axes, found.items(), strict=False):
        ax.set_title(textwrap.fill(legible.text(f"{task}, {data_set}"), round(width * 11)))
        metric = "value" if metric == report.UNKNOWN else metric
        ax.set_ylabel(legible.text(f"{metric} of the best layer" if against else metric))
        place = _against_axis(ax, lines, against) if against else _layer_axis(ax, lines)
        shown = []
        crowd = [line for line in lines if styles[line.label] is OTHERS]
        if crowd:
            entries.setdefault(others, _draw_crowd(ax, crowd, place))
        for line in lines:
            style = styles[line.label]
            if style is not OTHERS:
                entries.setdefault(line.label, _draw(ax, line.points, place, style, notes))
            if not against and len(line.points) > 1 and style is not OTHERS:
                _ring(ax, line.points, place, style, notes)
            if line.paper and (line.paper_label, line.paper) not in shown:  # once for two lines
                shown.append((line.paper_label, line.paper))
                dashed = style | {"linestyle": "--", "markerfacecolor": "white"}
                entries.setdefault(line.paper_label, _draw(ax, line.paper, place, dashed, notes))
    _legend(drawn, entries, notes, columns * width)
    return drawn, left_out


def _styles(found):
    """Return {label: how it is drawn} of the lines FOUND; beyond LOOKS, that of the best ones."""
    best = {}
    for line in (line for lines in found.values() for line in lines):
        value = max(map(statistics.fmean, line.points.values()))
        best[line.label] = max(value, best.get(line.label, value))
    named = sorted(best, key=best.get, reverse=True)[:LOOKS] if len(best) > LOOKS else best
    styles = dict.fromkeys(best, OTHERS)
    for index, label in enumerate(named):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        styles[label] = {"color": colour, "marker": marker}
    return styles


def _layer_axis(ax, lines):
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
    shown = range(0, len(names), math.ceil(len(names) / TICKS))
    names = [names[i] for i in shown]
    ax.set_xticks(shown, names)
    ax.set_xlim(-0.4, len(place) - 0.6)
    if sum(map(len, names)) > 11 * ax.figure.get_figwidth() / ax.get_gridspec().ncols:
        ax.tick_params("x", labelrotation=45)
    ax.set_xlabel("layer")
    return {layer: place[stage[layer]] for layer in layers}


def _cut(text, length):
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"


def _against_axis(ax, lines, against):
    """Give AX the numbers of LINES, on a log axis where they span a decade; return {x: x}."""
    from matplotlib import ticker

    numbers = sorted({x for line in lines for x in (*line.points, *line.paper)})
    low, high = numbers[0], numbers[-1]
    decades = low >= 1 / results.FARTHEST and high >= DECADE * low
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
    name = f"{against} {results.SIZES.get(against, '')}".rstrip()
    ax.set_xlabel(legible.text(name + (" (log scale)" if decades else "")))
    return {x: x for x in numbers}


def short(number):
    """Return NUMBER in a few characters: 701, 2,686, 1.28M."""
    if abs(number) < 100_000:
        return f"{number:,.6g}"
    number = float(f"{number:.3g}")
    size, mark = next(s for s in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if abs(number) >= s[0])
    return f"{number / size:.3g}{mark}"


def _draw(ax, points, place, style, notes):
    """Draw POINTS, {layer or number: values}: their means, joined, and bars from least to greatest.

    A published value of the best layer, whichever it is, is a level line. Returns the line.
    """
    if list(points) == [BEST]:
        notes.add("level line: best layer of the paper")
        return ax.axhline(points[BEST][0], linewidth=1.4, **style | {"marker": ""})
    order = sorted(points, key=place.get)
    xs, means = [place[k] for k in order], [statistics.fmean(points[k]) for k in order]
    (line,) = ax.plot(xs, means, linewidth=1.6, markersize=6, **style)
    spread = [
        (x, mean, mean - min(points[k]), max(points[k]) - mean)
        for x, mean, k in zip(xs, means, order, strict=True)
        if min(points[k]) < max(points[k])
    ]
    if spread:
        notes.add("bars: least to greatest of the seeds")
        at, mean, below, above = zip(*spread, strict=True)
        ax.errorbar(at, mean, (below, above), fmt="none", ecolor=style["color"], capsize=3)
    return line


def _draw_crowd(ax, lines, place):
    """Draw the means of LINES alike, below all others, as one: it has gaps. Returns it."""
    xs, means = [], []
    for line in lines:
        for key in sorted(line.points, key=place.get):
            xs.append(place[key])
            means.append(statistics.fmean(line.points[key]))
        xs.append(math.nan)
        means.append(math.nan)
    (line,) = ax.plot(xs[:-1], means[:-1], linewidth=0.8, markersize=4, zorder=1, **OTHERS)
    return line


def _ring(ax, points, place, style, notes):
    """Mark the best of the layers in POINTS, the first of equals."""
    notes.add("ring: best layer")
    means = {layer: statistics.fmean(points[layer]) for layer in sorted(points, key=place.get)}
    best = max(means, key=means.get)
    ring = {"marker": "o", "markersize": 13, "markerfacecolor": "none", "label": "best"}
    ax.plot(place[best], means[best], **style | ring)


def _legend(drawn, entries, notes, width):
    """Name ENTRIES, {label: line}, below the panels of a figure WIDTH inches wide, which grows."""
    room = round(width * 11)  # characters
    names = {label: textwrap.fill(legible.text(label), room) for label in entries}
    order = sorted(entries, key=lambda label: -entries[label].get_ydata()[-1])
    columns = max(1, min(3, room // (max(len(name) for name in names.values()) + 8)))
    lines = sum(name.count("\n") + 1 for name in names.values()) / columns + bool(notes)
    drawn.set_figheight(drawn.get_figheight() + 0.19 * math.ceil(lines))
    drawn.legend(
        [entries[label] for label in order],
        [names[label] for label in order],
        title="; ".join(sorted(notes)) or None,
        loc="outside lower left",
        ncols=columns,
        alignment="left",
        handlelength=3,
    )


def _matplotlib():
    """Return matplotlib as it is installed; raise DataError where it is not.

    When it is first imported it reads the matplotlibrc of the current folder, and MPLBACKEND.
    """
    found = importlib.util.find_spec("matplotlib")
    if not found:
        raise DataError("--plot needs matplotlib: pip install matplotlib")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # else it talks of its font cache
    here, backend = os.open(os.curdir, os.O_PATH), os.environ.pop("MPLBACKEND", None)
    try:
        os.chdir(os.path.join(os.path.dirname(found.origin), "mpl-data"))  # to its own matplotlibrc
        import matplotlib
    finally:
        os.fchdir(here)
        os.close(here)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return matplotlib


def render(rows, path, against=None):
    """Return the picture of ROWS as bytes, in the form that the suffix of PATH names, and left out.

    Raises DataError where there is no matplotlib, and as panels() does.
    """
    matplotlib = _matplotlib()
    suffix = os.path.splitext(path)[1].lower()
    stream = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in letters that the font lacks
        matplotlib.rcdefaults()  # whatever a matplotlibrc says
        matplotlib.rcParams.update(STYLE)
        drawn, left_out = figure(rows, against)
        drawn.savefig(stream, format=suffix[1:], metadata=FORMS[suffix])
    return stream.getvalue(), left_out
