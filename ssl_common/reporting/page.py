"""A report as one HTML page that loads nothing and runs nothing.

It holds no script, style, image or address of another file, so a policy that forbids all of them
(default-src 'none') changes nothing. Each number leads to the record that it is from.
"""

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from ssl_common import fields, legible, records, results, schema, streams, tasks
from ssl_common.fields import PERCENT, Record
from ssl_common.reporting import charts, mosaic, scaling, tables
from ssl_common.reporting.labels import label
from ssl_common.reporting.panels import Line, Panel, panels, place_of
from ssl_common.reporting.plots import short
from ssl_common.reporting.rows import BEST, NO_LAYER, Row
from ssl_common.streams import DataError
from ssl_common.tasks import Metric

# What the curves are over: the field, and how the page calls it.
AXES = {
    "images": "Pre-training images",
    "arch": "Network",
    "permutations": "Permutations of Jigsaw, |P|",
    "neighbors": "Neighbours of Colorization, K",
    "k": "Low-shot: examples of each class, k",
    "visits": "Cost: image visits of the pre-training",
    "hours": "Cost: hours of the pre-training",
}
FITTED = 8  # curves whose laws are fitted for a page; the rest is fit-scaling's
DRAWS = 1000
CHARTS = 60  # of one axis
POINTS = 60  # of a training curve
PICTURES = 120_000  # pixels, of all pictures
Laws = dict[tuple[tuple[str, str, str], str], dict[str, Any]]  # of (panel, label of a line)
FIGURE_SPACE = "\u2007"  # as wide as a digit: it stands in for a right alignment
# Fields of a record that its entry shows elsewhere, or that are long.
SHOWN_APART = {"task", "data_set", "metric", "value", "interval", "argv", "version", "per_class"}


def page(
    rows: Sequence[Row], summary: str, logs: Iterable[str] = (), pictures: Sequence[str] = ()
) -> str:
    """Return ROWS, with a SUMMARY of them, as a page.

    LOGS are files that pretrain wrote of its training, PICTURES those that show-pretext and
    show-detections made. Raises DataError for a log or picture that is none.
    """
    anchors = _anchors(rows)
    curves = {against: _panels(rows, against) for against in (None, *AXES)}
    found = _fitted(curves["images"])
    sections = {
        "Results": list(_tables(rows, anchors)),
        "Curves": list(_curves(curves, found, anchors)),
        "Laws": list(_laws(curves["images"], found)),
        "Cost": list(_cost(rows, anchors)),
        "Training": list(_training(logs)),
        "Pictures": list(_pictures(pictures)),
        "Published numbers": list(_sources(rows)),
        "Records": list(_records(rows, anchors)),
    }
    there = {name: parts for name, parts in sections.items() if parts}
    links = "".join(f'<li><a href="#{_id(name)}">{name}</a></li>\n' for name in there)
    body = "".join(
        f'<section id="{_id(name)}">\n<h2>{name}</h2>\n{"".join(parts)}</section>\n'
        for name, parts in there.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<title>Report of ssl-bench</title>\n'
        f"</head>\n<body>\n<header>\n<h1>Report of ssl-bench</h1>\n<p>{_text(summary)}; ssl-bench "
        f"{_text(records.version())}. A number leads to its record.</p>\n</header>\n"
        f'<nav aria-label="Sections">\n<ul>\n{links}</ul>\n</nav>\n<main>\n{body}</main>\n'
        "</body>\n</html>\n"
    )


def _id(name: str) -> str:
    return name.lower().replace(" ", "-")


def _text(value: object) -> str:
    """Return VALUE as text of the page."""
    return escape(legible.text(value))


# ---- Records -------------------------------------------------------------------------------------


def _anchors(rows: Iterable[Row]) -> dict[str, str]:
    """Return {file:line: id} of the records of ROWS."""
    places = (row.places[layer] for row in rows for layer in row.values if layer in row.places)
    return {place: f"r{number}" for number, place in enumerate(dict.fromkeys(places), 1)}


def _linked(text: str, place: str, anchors: Mapping[str, str]) -> str:
    """Return TEXT, HTML, as a link to the record at PLACE; unlinked where there is none."""
    return f'<a href="#{anchors[place]}">{text}</a>' if place in anchors else text


def _records(rows: Iterable[Row], anchors: Mapping[str, str]) -> Iterator[str]:
    """Yield the records of ROWS: where each stands, what made it, and what decided it."""
    shown: set[str] = set()
    for row in rows:
        entries = []
        for layer, record in row.records.items():
            place = row.place(layer)
            if place in anchors and place not in shown:
                shown.add(place)
                entries.append(_record(record, place, anchors[place]))
        if entries:
            heading = f"{row.task}, {row.data_set}: {row.label}"
            yield f"<h3>{_text(heading)}</h3>\n<ul>\n{''.join(entries)}</ul>\n"


def _record(record: Record, place: str, anchor: str) -> str:
    """Return the entry of RECORD, which stands at PLACE."""
    value = schema.display(record["value"])
    interval = record.get("interval")
    told = f"{record.get('metric') or tasks.UNKNOWN} {value}"
    told += f" ({interval[0]:g} to {interval[1]:g})" if interval else ""
    argv = record.get("argv")
    command = f"<code>{_text(shlex.join(map(str, argv)))}</code>; " if argv else ""
    version = f"version {_text(record['version'])}; " if record.get("version") else ""
    decided = {k: v for k, v in results.identity(record).items() if k not in SHOWN_APART}
    decided |= {k: record[k] for k in ("time_utc", *results.COST) if record.get(k) is not None}
    texts = (
        f"{name}={value if isinstance(value, str) else schema.display(value)}"
        for name, value in sorted(decided.items())
    )
    return (
        f'<li id="{anchor}"><b>{_text(place)}</b>: {_text(told)}; {command}{version}'
        f"{_text(', '.join(texts))}</li>\n"
    )


# ---- Tables --------------------------------------------------------------------------------------


def _tables(rows: Sequence[Row], anchors: Mapping[str, str]) -> Iterator[str]:
    """Yield a table a task, data set and metric; then which tasks have no record."""
    bold, sources = tables.standing_out(rows), _numbered(rows)
    together: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        together.setdefault(row.panel, []).append(row)
    for panel in together.values():
        first = panel[0]
        title = f"{first.task}, {first.data_set}: {first.measure.caption()}"
        layers = tables.columns(panel)
        heads = [_text("value" if layer == NO_LAYER else layer) for layer in layers]
        heads += ["best"] * any(BEST in row.values or len(row.values) > 1 for row in panel)
        cells = [_cells(row, layers, bold, anchors) for row in panel]
        yield f"<h3>{_text(title)}</h3>\n"
        yield _table(
            ["network", *heads],
            [
                [_named(row, sources), *each[: len(heads)]]
                for row, each in zip(panel, cells, strict=True)
            ],
        )
    if missing := [name for name in tasks.TASKS if name not in {row.task for row in rows}]:
        yield f"<p>Without a record: {_text(', '.join(missing))}.</p>\n"


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table of HTML cells, a line's first being its heading."""
    head = "".join(f'<th scope="col">{each}</th>' for each in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{each}</td>" for each in rest)}</tr>\n'
        for first, *rest in lines
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"


def _named(row: Row, sources: Mapping[str, int]) -> str:
    """Return the label of ROW, with a link to where a published one was read."""
    if not row.source:
        return _text(row.label)
    number = sources[row.source]
    return f'{_text(row.label)} [<a href="#s{number}">{number}</a>]'


def _cells(
    row: Row, layers: Sequence[str], bold: set[int], anchors: Mapping[str, str]
) -> list[str]:
    """Return the cells of ROW: its value at each of LAYERS, and the best."""
    best, value = row.best()
    cells = []
    for layer in layers:
        if layer not in row.values:
            cells.append("")
            continue
        number = f"{row.values[layer]:.2f}"
        number = FIGURE_SPACE * (5 - len(number)) + number
        if id(row) in bold and layer == best:
            number = f"<b>{number}</b>"
        interval = row.interval(layer)
        span = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
        cells.append(_linked(number, row.place(layer), anchors) + span)
    return [*cells, _linked(f"{value:.2f}", row.place(best), anchors)]


def _numbered(rows: Iterable[Row]) -> dict[str, int]:
    """Return {source: number} of the published ones of ROWS."""
    sources = dict.fromkeys(row.source for row in rows if row.source)
    return {source: number for number, source in enumerate(sources, 1)}


def _sources(rows: Iterable[Row]) -> Iterator[str]:
    """Yield where the published ones of ROWS were read."""
    items = [
        f'<li id="s{number}">{_text(source)}</li>\n' for source, number in _numbered(rows).items()
    ]
    if items:
        yield f"<ol>\n{''.join(items)}</ol>\n"


# ---- Curves --------------------------------------------------------------------------------------


def _curves(
    curves: Mapping[str | None, Sequence[Panel]], found: Laws, anchors: Mapping[str, str]
) -> Iterator[str]:
    """Yield the CURVES, {axis: panels}: the layers, each axis, and all axes at once."""
    for against, content in curves.items():
        name = AXES[against] if against else "Layers"
        yield from _axis(content, against, name, found if against == "images" else {}, anchors)
        if against == "images":
            yield from _grid(content)


def _panels(rows: Sequence[Row], against: str | None) -> list[Panel]:
    """Return the panels of ROWS in which a line has two points, less the lines of one."""
    try:
        found, _left_out = panels(rows, against)
    except DataError:
        return []  # no record has the field
    kept = []
    for panel in found:
        lines = [line for line in panel.lines if len(line.points) > 1]
        if lines:
            kept.append(panel._replace(lines=lines))
    return kept


def _axis(
    content: Sequence[Panel],
    against: str | None,
    name: str,
    found: Laws,
    anchors: Mapping[str, str],
) -> Iterator[str]:
    """Yield the charts of CONTENT over AGAINST, called NAME, each with its values as a table.

    FOUND are the laws of lines.
    """
    if content:
        yield f"<h3>{_text(name)}</h3>\n"
    for panel in content[:CHARTS]:
        title = f"{panel.task}, {panel.data_set}: {panel.metric.name} by {name}"
        fits = {label: fit for (key, label), fit in found.items() if key == _key(panel)}
        drawing = charts.chart(panel, against, title, fits)
        notes = _notes(panel, against, fits)
        yield (
            f"<figure>\n{drawing}\n<figcaption>{_text(title)}. {_text(notes)}</figcaption>\n"
            f"</figure>\n<details>\n<summary>The values of this chart</summary>\n"
            f"{_values(panel, against, anchors)}</details>\n"
        )
    if len(content) > CHARTS:
        yield f"<p>{len(content) - CHARTS} more tasks and data sets have such a curve.</p>\n"


def _key(panel: Panel) -> tuple[str, str, str]:
    return panel.task, panel.data_set, panel.metric.name


def _notes(panel: Panel, against: str | None, fits: Mapping[str, Any]) -> str:
    """Return what the marks of the chart of PANEL mean, of those that it has."""
    several = any(len(each) > 1 for line in panel.lines for each in line.points.values())
    notes = ["Of the best layer."] if against else []
    notes += ["Bars: from the least to the greatest of the seeds."] * several
    notes += ["Bars of one seed: 95% interval."] * any(line.intervals for line in panel.lines)
    notes += ["Hollow and dashed: published."] * any(line.paper for line in panel.lines)
    has_law = any("law" in fit for fit in fits.values())
    notes += ["Dotted: the law, and its forecast with the 95% interval."] * has_law
    return " ".join(notes)


def _values(panel: Panel, against: str | None, anchors: Mapping[str, str]) -> str:
    """Return the values of the chart of PANEL as a table: a column a place, a line a curve."""
    every = {place for line in panel.lines for place in (*line.points, *line.paper)}
    order = tables.in_order(every) if against is None else sorted(every, key=_in_axis)
    heads = [_text(short(each) if isinstance(each, float) else each) for each in order]
    lines, papers = [], []
    for line in panel.lines:
        cells = [_point(line, place, anchors) for place in order]
        lines.append([_text(line.label), *cells])
        if line.paper and (line.paper_label, line.paper) not in papers:
            papers.append((line.paper_label, line.paper))
            published = [f"{line.paper[p][0]:.2f}" if p in line.paper else "" for p in order]
            lines.append([_text(line.paper_label), *published])
    return _table(["network", *heads], lines)


def _in_axis(place: Any) -> tuple[int, float, str]:
    return (1, 0.0, place) if isinstance(place, str) else (0, float(place), "")


def _point(line: Line, place: Any, anchors: Mapping[str, str]) -> str:
    """Return the mean of LINE at PLACE, and each value of several, with links to their records."""
    if place not in line.points:
        return ""
    values, places = line.points[place], line.places.get(place, [])
    texts = [
        _linked(f"{value:.2f}", where, anchors) for value, where in zip(values, places, strict=True)
    ]
    return texts[0] if len(texts) == 1 else f"{line.means[place]:.2f} = mean({', '.join(texts)})"


def _grid(content: Iterable[Panel]) -> Iterator[str]:
    """Yield charts of all three axes: a chart a network, a line |P| or K, over images.

    Where a pretext has several networks and several |P| or K; the charts have one span, so they can
    be compared.
    """
    for panel in content:
        for pretext in dict.fromkeys(line.setting.get("pretext") for line in panel.lines):
            lines = [line for line in panel.lines if line.setting.get("pretext") == pretext]
            networks = list(dict.fromkeys(str(line.setting.get("arch")) for line in lines))
            sizes = {_size(line.setting) for line in lines} - {None}
            if pretext is None or len(networks) < 2 or len(sizes) < 2:
                continue
            title = f"{panel.task}, {panel.data_set}: {pretext} over all three axes"
            span = charts.extent(lines)
            parts = []
            for arch in [each for each in charts.CAPACITY if each in networks] + [
                each for each in networks if each not in charts.CAPACITY
            ]:
                own = [line for line in lines if str(line.setting.get("arch")) == arch]
                one = panel._replace(lines=sorted(own, key=lambda line: _size(line.setting) or 0))
                parts.append(
                    charts.chart(
                        one, "images", f"{title}, {arch}", span=span, width=480, ranked=False
                    )
                )
            yield (
                f"<figure>\n{''.join(parts)}\n<figcaption>{_text(title)}: a chart a network, a"
                " line a hardness, on one scale. Of the best layer.</figcaption>\n</figure>\n"
            )


def _size(setting: Mapping[str, Any]) -> Any:
    return next((setting[s.field] for s in tasks.PRETEXT_SIZES if s.field in setting), None)


# ---- Laws ----------------------------------------------------------------------------------------


def _fitted(content: Iterable[Panel]) -> Laws:
    """Return the laws of the first FITTED curves of CONTENT, over images, that have 4 sizes."""
    found: Laws = {}
    for panel, line in _long(content)[:FITTED]:
        fit = scaling.of_line(panel, line, "images", None, DRAWS, 0)
        found[_key(panel), line.label] = fit
    return found


def _long(content: Iterable[Panel]) -> list[tuple[Panel, Line]]:
    """Return the lines of CONTENT that have the sizes of a law, each with its panel."""
    pairs = ((panel, line) for panel in content for line in panel.lines)
    return [(panel, line) for panel, line in pairs if len(line.points) >= scaling.FEWEST]


def _laws(content: Iterable[Panel], found: Laws) -> Iterator[str]:
    """Yield what the laws FOUND of the curves of CONTENT say, in words."""
    if not found:
        return
    yield (
        "<p>error = E + A n<sup>-a</sup> over n images; 95% intervals. The limit is E, as the value"
        " that endless images would give.</p>\n"
    )
    lines = [
        [_text(f"{', '.join(key)}: {label}"), _text(fit["text"])]
        for (key, label), fit in found.items()
    ]
    yield _table(["curve", "what it says"], lines)
    if more := len(_long(content)) - len(found):
        yield f"<p>{more} more curves have 4 sizes: fit-scaling has their laws.</p>\n"


# ---- Cost, training, pictures --------------------------------------------------------------------


def _cost(rows: Sequence[Row], anchors: Mapping[str, str]) -> Iterator[str]:
    """Yield what the networks of ROWS took to train, as far as their records say."""
    lines = []
    for row in rows:
        best, value = row.best()
        record = row.records.get(best or NO_LAYER) or next(iter(row.records.values()), {})
        visits, hours = place_of(record, "visits"), record.get("hours")
        if row.source or not (visits or hours):
            continue
        lines.append(
            [
                _text(f"{row.task}, {row.data_set}: {row.label}"),
                _text(f"{visits:,.0f}" if visits else ""),
                _text(f"{hours:.3g}" if hours else ""),
                _text(record.get("hardware") or ""),
                _linked(f"{value:.2f}", row.place(best), anchors),
            ]
        )
    if lines:
        yield _table(["network", "image visits", "hours", "hardware", "best"], lines)


def _training(logs: Iterable[str]) -> Iterator[str]:
    """Yield the curve of each of LOGS."""
    for path in logs:
        lines = [record for _number, record in records.read(path)]
        steps = [line for line in lines if fields.is_number(line.get("step"))]
        by = "accuracy" if any(fields.is_number(line.get("accuracy")) for line in steps) else "loss"
        points = {
            float(line["step"]): [float(line[by]) * (100 if by == "accuracy" else 1)]
            for line in steps
            if fields.is_number(line.get(by))
        }
        if len(points) < 2:
            raise DataError(f"{streams.name(path)}: no log of pretrain: it has no two steps")
        every = -(-len(points) // POINTS)
        kept = dict(list(points.items())[:-1:every]) | dict(list(points.items())[-1:])
        metric = Metric(by, PERCENT if by == "accuracy" else None)
        settings = next((line for line in lines if line.get("pretext")), {})
        line = Line(label(settings) or os.path.basename(path), kept, "", {}, {})
        title = f"{os.path.basename(streams.name(path))}: {by} of the training"
        drawing = charts.chart(Panel("training", "", metric, [line]), "step", title)
        chance = settings.get("permutations")
        note = f" Guessing: {100 / chance:g}%." if by == "accuracy" and chance else ""
        caption = _text(f"{title}.{note}")
        yield f"<figure>\n{drawing}\n<figcaption>{caption}</figcaption>\n</figure>\n"


def _pictures(paths: Sequence[str]) -> Iterator[str]:
    """Yield the pictures in the files PATHS, in few colours."""
    for path in paths:
        name = os.path.basename(streams.name(path))
        drawing = mosaic.svg(path, _text(f"{name}, a picture"), PICTURES // len(paths))
        yield f"<figure>\n{drawing}\n<figcaption>{_text(name)}</figcaption>\n</figure>\n"
