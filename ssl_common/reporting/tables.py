"""Rows of a report as Markdown, TSV or JSON."""

from ssl_common import legible
from ssl_common.reporting.report import BEST, NO_LAYER

NETWORK_ORDER = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5"]
NETWORK_ORDER += ["res2", "res3", "res4", "res5", "pool5", "fc6", "fc7"]


def columns(rows):
    """Return the layers of ROWS in the order of the network, others by name, and NO_LAYER last."""
    return in_order({layer for row in rows for layer in row.values} - {BEST})


def in_order(layers):
    """Return the set LAYERS in the order of the network, others by name, and NO_LAYER last."""
    known = [layer for layer in NETWORK_ORDER if layer in layers]
    return known + sorted(layers - {*known, NO_LAYER}) + [NO_LAYER] * (NO_LAYER in layers)


def markdown(rows):
    """Return ROWS as a table; the best of several layers is bold, sources are below."""
    layers, sources = columns(rows), []
    lines = [["task", "data set", "metric", "model", *map(legible.cell, layers), "best"]]
    lines.append(["---"] * 4 + ["---:"] * (len(layers) + 1))
    for row in rows:
        best, value = row.best()
        marked = best if len(row.values) > 1 else None
        label = row.label
        if row.source:
            if row.source not in sources:
                sources.append(row.source)
            label += f" [{sources.index(row.source) + 1}]"
        cells = [
            f"**{row.values[layer]:.2f}**" if layer == marked else _number(row.values.get(layer))
            for layer in layers
        ]
        lines.append([*map(legible.cell, (*row[:3], label)), *cells, f"{value:.2f}"])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    notes = "".join(f"{i}. {legible.cell(source)}\n" for i, source in enumerate(sources, 1))
    return table + (f"\n{notes}" if notes else "")


def tsv(rows):
    """Return ROWS with a header line; numbers in full, empty where there is none."""
    layers = columns(rows)
    lines = [["task", "data_set", "metric", "model", *layers, "best_layer", "best", "source"]]
    for row in rows:
        layer, value = row.best()
        values = [repr(row.values[name]) if name in row.values else "" for name in layers]
        lines.append([*row[:4], *values, layer or "", repr(value), row.source or ""])
    return "".join("\t".join(map(legible.text, line)) + "\n" for line in lines)


def json_text(rows):
    """Return ROWS as a JSON array of objects."""
    objects = []
    for row in rows:
        layer, value = row.best()
        values = {name: row.values[name] for name in (*columns([row]), BEST) if name in row.values}
        said = row._asdict() | {"values": values, "best_layer": layer, "best": value}
        objects.append(
            {name: part for name, part in said.items() if name not in ("records", "about")}
        )
    return legible.dumps(objects, indent=1) + "\n"


FORMATS = {"markdown": markdown, "tsv": tsv, "json": json_text}


def _number(value):
    return "" if value is None else f"{value:.2f}"
