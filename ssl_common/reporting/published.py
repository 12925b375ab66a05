"""The numbers that the paper published, and which of them a row is to be compared with."""

import functools
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

from ssl_common.fields import Record
from ssl_common.reporting.rows import Row

TOLERANCE = 0.05  # of the number of images of a data set: copies of it lose a few


class Publication(NamedTuple):
    """What published.json holds.

    SPELLINGS are {squeezed spelling of a data set: its name there}, ENTRIES {_key(): [entry]}.
    """

    spellings: dict[str, str]
    entries: dict[tuple, list[dict[str, Any]]]


@functools.cache
def publication() -> Publication:
    """Return what published.json holds."""
    text = resources.files("ssl_common.reporting").joinpath("published.json").read_text("utf-8")
    content = json.loads(text)
    spellings: dict[str, str] = {}
    entries: dict[tuple, list[dict[str, Any]]] = {}
    for name, others in content["spellings"].items():
        spellings |= {squeezed(each): name for each in (name, *others)}
    for entry in content["rows"]:
        entries.setdefault(_key(entry["setting"]), []).append(entry)
    return Publication(spellings, entries)


def squeezed(name: str) -> str:
    """Return NAME without what spellings differ in: voc2007 for VOC-2007."""
    return re.sub("[-_ ]", "", name).lower()


def with_usual_names(record: Record) -> dict[str, Any]:
    """Return RECORD with its data sets called what published.json calls them."""
    spellings = publication().spellings
    usual = {}
    for name in ("data_set", "data_name"):
        if (spelling := squeezed(record.get(name) or "")) in spellings:
            usual[name] = spellings[spelling]
    return {**record, **usual}


def paper_row(row: Row) -> Row | None:
    """Return the published row of the setting of ROW, or None; the first in published.json.

    It is the same object for all rows of one task, data set and metric that it is for.
    """
    identity = row.identity
    for number, entry in enumerate(publication().entries.get(_key(identity), ())):
        if all(_agrees(identity, *item) for item in entry["setting"].items()):
            return _row(*row.panel, _key(identity), number)
    return None


@functools.cache
def _row(task: str, data_set: str, metric: str, key: tuple, number: int) -> Row:
    """Return entry NUMBER under KEY as a row."""
    entry = publication().entries[key][number]
    source = f"{entry['source']} ({entry['how']})"
    source += f"; {entry['note']}" if "note" in entry else ""
    values, setting = entry["values"], entry["setting"]
    records = dict.fromkeys(values, setting)
    return Row(task, data_set, metric, "paper", values, records, setting, source)


def _key(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what tells most settings apart, of a record or an entry."""
    return tuple(str(fields.get(name)).lower() for name in ("task", "data_set", "arch", "pretext"))


def _agrees(record: Record, name: str, published: Any) -> bool:
    """Return whether field NAME of RECORD is what a setting that was PUBLISHED says."""
    value = record.get(name)
    if name == "images" and value is not None:
        return abs(value - published) <= TOLERANCE * published
    if isinstance(published, str):
        return isinstance(value, str) and value.lower() == published
    return value == published
