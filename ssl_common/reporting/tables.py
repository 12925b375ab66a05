"""Rows of a report as Markdown, TSV or JSON."""

import re
from collections.abc import Callable, Iterable, Sequence

from ssl_common import legible
from ssl_common.reporting.rows import BEST, NO_LAYER, Row

DIGITS = "0123456789"
NETWORK_ORDER = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5"]
NETWORK_ORDER += ["res2", "res3", "res4", "res5", "pool5", "fc6", "fc7"]


def columns(rows: Iterable[Row]) -> list[str]:
    """Return the layers of ROWS in the order of the network, others by name, and NO_LAYER last."""
    return in_order({layer for row in rows for layer in row.values} - {BEST})


def in_order(layers: set[str]) -> list[str]:
    """Return the set LAYERS in the order of the network, others by name, and NO_LAYER last."""
    known = [layer for layer in NETWORK_ORDER if layer in layers]
    others = sorted(layers - {*known, NO_LAYER}, key=_in_numbers)
    return known + others + [NO_LAYER] * (NO_LAYER in layers)


def _in_numbers(layer: str) -> list[tuple[int, str]]:
    """Return what sorts LAYER by name, but by its numbers: blocks.2 comes before blocks.10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", layer)
    return [(len(part) if part[0] in DIGITS else 0, part) for part in parts]


def markdown(rows: Sequence[Row]) -> str:
    """Return ROWS as a table, with the intervals that records have; sources are below.

    The best of several layers is bold, unless its interval and that of the best layer of an
    untrained network, of the same task and data set, overlap.
    """
    layers, sources = columns(rows), dict[str, int]()
    lines = [["task", "data set", "metric", "model", *map(legible.cell, layers), "best"]]
    lines.append(["---"] * 4 + ["---:"] * (len(layers) + 1))
    bold = standing_out(rows)
    for row in rows:
        best, value = row.best()
        label = row.label
        if row.source:
            label += f" [{sources.setdefault(row.source, len(sources) + 1)}]"
        cells = [
            _cell(row, layer, id(row) in bold and layer == best) if layer in row.values else ""
            for layer in layers
        ]
        names = row.task, row.data_set, row.measure.caption(), label
        lines.append([*map(legible.cell, names), *cells, f"{value:.2f}"])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    notes = "".join(f"{i}. {legible.cell(source)}\n" for source, i in sources.items())
    return table + (f"\n{notes}" if notes else "")


def standing_out(rows: Iterable[Row]) -> set[int]:
    """Return the id() of those of ROWS whose best layer is to be bold: what may be chance is not.

    It is the best of several, and better than the best of each untrained network of the same panel,
    beyond both intervals.
    """
    rows = list(rows)
    untrained: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.untrained:
            untrained.setdefault(row.panel, []).append(row)
    return {
        id(row)
        for row in rows
        if len(row.values) > 1
        and all(row.beats(row.best()[0], each) for each in untrained.get(row.panel, ()))
    }


def tsv(rows: Sequence[Row]) -> str:
    """Return ROWS with a header line; numbers in full, empty where there is none."""
    layers = columns(rows)
    lines = [["task", "data_set", "metric", "model", *layers, "best_layer", "best", "source"]]
    for row in rows:
        layer, value = row.best()
        values = [repr(row.values[name]) if name in row.values else "" for name in layers]
        lines.append([*row[:4], *values, layer or "", repr(value), row.source or ""])
    return "".join("\t".join(map(legible.text, line)) + "\n" for line in lines)


def json_text(rows: Iterable[Row]) -> str:
    """Return ROWS as a JSON array of objects."""
    return legible.dumps([_object(row) for row in rows], indent=1) + "\n"


def _object(row: Row) -> dict[str, object]:
    """Return ROW as an object of JSON."""
    layer, value = row.best()
    unit = row.measure.unit
    return {
        "task": row.task,
        "data_set": row.data_set,
        "metric": row.metric,
        "unit": unit.name if unit else None,
        "better": row.measure.better,
        "label": row.label,
        "values": {
            name: row.values[name] for name in (*columns([row]), BEST) if name in row.values
        },
        "source": row.source,
        "best_layer": layer,
        "best": value,
    }


FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    "markdown": markdown,
    "tsv": tsv,
    "json": json_text,
}


def _cell(row: Row, layer: str, bold: bool) -> str:
    """Return the value of ROW at LAYER, and its interval where there is one."""
    text = f"**{row.values[layer]:.2f}**" if bold else f"{row.values[layer]:.2f}"
    interval = row.interval(layer)
    return text if interval is None else f"{text} ({interval[0]:.2f} to {interval[1]:.2f})"
