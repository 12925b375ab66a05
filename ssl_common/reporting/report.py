"""Records of results gathered into rows, one a network and task, with the paper's beside them."""

import json
import math
from importlib import resources
from typing import NamedTuple

from ssl_common import records, streams
from ssl_common.streams import DataError

# What makes two records the same measurement, but for the layer: the last one counts.
IDENTITY = ("task", "data_set", "metric", "model", "arch", "pretext", "data_name", "images")
IDENTITY += (*records.SIZES, "seed", "svm_seed", "k", "samples")
IDENTITY += ("linear_seed", "recipe", "steps", "cache")
NO_LAYER = "-"  # the column of a value that belongs to no layer
BEST = "best"  # where a published row gives only the best layer
TOLERANCE = 0.05  # of the number of images of a data set: copies of it lose a few


class Row(NamedTuple):
    """A line of the report: VALUES {layer: number}, RECORDS {layer: what it was taken from}.

    A published one has a SOURCE, where it was read, and the setting it was published for as record.
    """

    task: str
    data_set: str
    metric: str
    label: str
    values: dict
    records: dict
    source: str | None = None

    def best(self):
        """Return (layer, value) of the best layer, the first of equals; no layer: (None, value)."""
        layers = {k: value for k, value in self.values.items() if k not in (NO_LAYER, BEST)}
        if not layers:
            return None, max(self.values.values())
        layer = max(layers, key=layers.get)
        return layer, layers[layer]


def gather(paths):
    """Return (rows, records read, records replaced) of the .jsonl files or pipes PATHS.

    Rows stand in the order of their first record, a published one below the row it matches.
    Raises DataError at a line that is not a result.
    """
    found, count = {}, 0
    for path in paths:
        for number, record in records.read(path):
            _check(record, f"{streams.name(path)}:{number}")
            key = tuple(_plain(record.get(name)) for name in IDENTITY)
            if not any(record.get(name) for name in ("layer", "model", "arch", "pretext")):
                key += (count,)  # says nothing of itself: not known to equal any other
            found.setdefault(key, []).append(record)
            count += 1
    if not count:
        raise DataError(f"{streams.name(paths[0])}: no record: write some with eval-svm")
    rows, kept = [], 0
    for same in found.values():
        taken = {str(record.get("layer") or NO_LAYER): record for record in same}
        values = {layer: record["value"] for layer, record in taken.items()}
        kept += len(values)
        last = same[-1]
        about = (last["task"], last.get("data_set") or "?", last.get("metric") or "?")
        rows.append((Row(*about, label(last), values, taken), last))
    groups = {}
    for row, record in _told_apart(rows):
        published = paper_row(row, record)
        groups.setdefault(row[:3], []).extend([row] + [published] * (published is not None))
    return [row for group in groups.values() for row in group], count, count - kept


def _check(record, where):
    """Raise DataError, naming WHERE, if RECORD is not a result."""
    task, value = record.get("task"), record.get("value")
    if not isinstance(task, str) or "value" not in record:
        raise DataError(f"{where}: not a result: it has no task and value, as eval-svm writes them")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{where}: the value is {value}, not a finite number: delete the line")


def _plain(value):
    """Return VALUE as something that can be a key."""
    return value if isinstance(value, str | int | float | None) else json.dumps(value)


def label(record):
    """Return how the report calls the network of RECORD: alexnet jigsaw P=100 (2,686 images)."""
    said = [str(record[name]) for name in ("arch", "pretext") if record.get(name)]
    if not said:
        said = [str(record.get("model") or "?")]
    for name, mark in records.SIZES.items():
        if record.get(name) is not None:
            said.append(f"{mark.strip('|')}={record[name]}")
    data = [str(record["data_name"])] if record.get("data_name") else []
    if isinstance(record.get("images"), int):
        data.append(f"{record['images']:,} images")
    if data:
        said.append(f"({', '.join(data)})")
    if record.get("seed") is not None:
        said.append(f"seed {record['seed']}")
    if record.get("svm_seed"):
        said.append(f"svm seed {record['svm_seed']}")
    if record.get("steps") is not None:
        said.append(f"{record['steps']:,} steps" + (", cached" if record.get("cache") else ""))
    if record.get("linear_seed"):
        said.append(f"linear seed {record['linear_seed']}")
    if record.get("k") is not None:
        said.append(f"k={record['k']} ({record.get('samples', '?')} samples)")
    return " ".join(said)


def _told_apart(rows):
    """Yield ROWS, (Row, record), with the digest of the network where two share a label."""
    labels = [row[:4] for row, _record in rows]
    for row, record in rows:
        if labels.count(row[:4]) > 1 and record.get("model"):
            row = row._replace(label=f"{row.label} {str(record['model'])[:8]}")
        yield row, record


def paper_row(row, record):
    """Return the published Row of the setting of RECORD, or None; the first in published.json."""
    for published in _published():
        if all(_agrees(record, *item) for item in published["setting"].items()):
            source = f"{published['source']} ({published['how']})"
            source += f"; {published['note']}" if "note" in published else ""
            values = published["values"]
            said = dict.fromkeys(values, published["setting"])
            return row._replace(label="paper", values=values, records=said, source=source)
    return None


def _agrees(record, name, wanted):
    """Return whether field NAME of RECORD is what a published setting says."""
    value = record.get(name)
    if name == "images" and isinstance(value, int):
        return abs(value - wanted) <= TOLERANCE * wanted
    if isinstance(wanted, str):
        return isinstance(value, str) and value.lower() == wanted
    return value == wanted


def _published():
    text = resources.files("ssl_common.reporting").joinpath("published.json").read_text("utf-8")
    return json.loads(text)["rows"]
