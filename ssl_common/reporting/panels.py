"""Rows of a report as the panels of a plot: the value by layer, or of the best layer by a field."""

import contextlib
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ssl_common import containers, fields, tasks
from ssl_common.fields import Record
from ssl_common.reporting.labels import label, told_apart
from ssl_common.reporting.published import paper_row
from ssl_common.reporting.report import frozen
from ssl_common.reporting.rows import Row
from ssl_common.streams import DataError
from ssl_common.tasks import Metric

# What changes along with a field that a plot is against, in any task.
COMPANIONS: dict[str, tuple[str, ...]] = {
    "images": ("data",),
    "epochs": ("steps", "bn_momentum"),
    "steps": ("epochs", "bn_momentum"),
    "batch": ("micro_batch", "steps", "warm_up"),
    "train_images": ("train_manifest", "train_labels"),
    "test_images": ("test_manifest", "inputs.manifest"),
    "visits": ("steps", "batch", "micro_batch", "epochs", "warm_up"),
    "hours": ("steps", "batch", "micro_batch", "epochs", "warm_up"),
}
NAMED = ("arch",)  # fields that a plot may be against though they hold names
OF_THE_NETWORK = ("svm", "low-shot")  # whose steps and batch are those of the pre-training

Place = Any  # of a point on the x axis: the name of a layer, or a number
Points = Mapping[Place, Sequence[float]]  # {place: a value for each seed}
Intervals = dict[Place, tuple[float, float]]  # {place: (least, most) that a value may be}


class Line(NamedTuple):
    """A line of a panel: the POINTS of a network, and the published ones, PAPER, beside them.

    INTERVALS are those of 95% of the points of a single seed whose records have one. SETTING is
    what all its points have in common of what decided them, PLACES are where the records of each
    stand.
    """

    label: str
    points: Points
    paper_label: str
    paper: Points
    intervals: Intervals
    setting: Mapping[str, Any] = {}
    places: Mapping[Place, Sequence[str]] = {}

    @property
    def means(self) -> dict[Place, float]:
        """Return the mean over seeds at each place."""
        return {place: statistics.fmean(values) for place, values in self.points.items()}


class Panel(NamedTuple):
    """What was measured of a task on a data set, by one metric."""

    task: str
    data_set: str
    metric: Metric
    lines: Sequence[Line]


class _Member(NamedTuple):
    """A row that a line is made of, and the PAPER's for its setting."""

    row: Row
    paper: Row | None


def panels(rows: Iterable[Row], against: str | None = None) -> tuple[list[Panel], int]:
    """Return (the panels of ROWS, how many records were left out).

    A line has a point for each layer of a network. AGAINST a field, it has one for each number in
    that field, the value of the best layer; it joins networks that differ in nothing else, and
    records without a number there are left out. Networks that differ in their seeds alone are one
    line. Raises DataError where no record has the field.
    """
    rows = list(rows)
    members, left_out = _members(rows, against)
    if not members:
        known = {k for row in rows for record in row.records.values() for k in _numbers(record)}
        names = ", ".join(sorted(known - {"value"})) or "none"
        raise DataError(f"no record has a number in {against!r} (numbers: {names})")
    groups: dict[tuple, list[list[_Member]]] = {}
    for group in _but_for_seeds(members, against):
        groups.setdefault(group[0].row.panel, []).append(group)
    return [_panel(each, against) for each in groups.values()], left_out


def _members(rows: Iterable[Row], against: str | None) -> tuple[list[_Member], int]:
    """Return (ROWS with the paper's beside them, how many of their records lack AGAINST)."""
    members, left_out = [], 0
    for row in rows:
        if row.source:
            continue
        values = {
            layer: value
            for layer, value in row.values.items()
            if not against or place_of(row.records[layer], against) is not None
        }
        left_out += len(row.values) - len(values)
        if values:
            members.append(_Member(row._replace(values=values), paper_row(row)))
    return members, left_out


def place_of(record: Record, against: str) -> Place | None:
    """Return where RECORD stands on an axis of AGAINST, None where it does not say.

    The image visits of a network are its steps times the images of each.
    """
    if against in NAMED:
        return record.get(against)
    if against == "visits" and record.get("task") in OF_THE_NETWORK:
        steps, batch = number(record.get("steps")), number(record.get("batch"))
        return steps * batch if steps and batch else number(record.get(against))
    return number(record.get(against))


def number(value: Any) -> float | None:
    """Return the number VALUE, or that which the text VALUE spells, as --tag does; else None."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = containers.parse(value)
    return float(value) if fields.is_number(value) else None


def _numbers(record: Record) -> list[str]:
    """Return the fields of RECORD that hold a number."""
    return [name for name, value in record.items() if number(value) is not None]


def _but_for_seeds(members: Iterable[_Member], against: str | None) -> list[list[_Member]]:
    """Return MEMBERS in groups, each of one line: they differ in seeds and in AGAINST alone.

    Members that have a seed in common differ in more than the records say. They have no mean, so
    each of their group stands alone.
    """
    families: dict[tuple, list[_Member]] = {}
    for member in members:
        row = member.row
        families.setdefault((row.panel, frozen(_seedless(row, against))), []).append(member)
    groups = []
    for family in families.values():
        points = [_point(member.row, against) for member in family]
        have_a_mean = len(set(points)) == len(points)
        groups += [family] if have_a_mean else [[member] for member in family]
    return groups


def _seedless(row: Row, against: str | None) -> dict[str, Any]:
    """Return what decided the values of ROW but for AGAINST and what may differ with a seed."""
    task, identity = tasks.find(row.task), _identity(row, against)
    less = {*task.seeds, *task.of_a_seed, *task.of_a_layer, "version", "where"}
    if identity.get("arch") or identity.get("pretext"):
        less.add("model")
    rest = {name: value for name, value in identity.items() if name not in less}
    if against == "images":
        rest["data_name"] = _sampled(identity.get("data_name"))
    return rest


def _point(row: Row, against: str | None) -> tuple:
    """Return where in a line ROW stands, and for which seeds."""
    record = _best_record(row)
    x = place_of(record, against) if against else None
    return x, *map(record.get, tasks.find(row.task).seeds)


def _best_record(row: Row) -> Record:
    """Return the record of the best layer of ROW."""
    layer, _value = row.best()
    return row.records.get(layer or "") or next(iter(row.records.values()))


def _identity(row: Row, against: str | None) -> dict[str, Any]:
    """Return what decided the values of ROW, less the field AGAINST and what changes with it."""
    if not against:
        return dict(row.identity)
    companions = COMPANIONS | dict(tasks.find(row.task).companions)
    less = (against, *companions.get(against, ()))
    return {name: value for name, value in row.identity.items() if name not in less}


def _sampled(name: str | None) -> str:
    """Return what the data set NAME is a sample of: yfcc for yfcc-1m and yfcc-100m."""
    return re.sub(r"-\d+[km]?$", "", str(name), flags=re.IGNORECASE)


def _panel(groups: Sequence[Sequence[_Member]], against: str | None) -> Panel:
    """Return the panel of GROUPS, a line each, with labels that tell the lines apart."""
    row = groups[0][0].row
    line_of: Callable = _line_by_field if against else _line_by_layer
    common = [_common([member.row for member in group], against) for group in groups]
    labels = told_apart([label(each) for each in common], common, tasks.find(row.task))
    lines = []
    for group, text, setting in zip(groups, labels, common, strict=True):
        papers = [member.paper for member in group if member.paper]
        paper_label = f"paper: {label(_common(papers, against))}" if papers else ""
        points, paper = line_of(group, against)
        known = _intervals([member.row for member in group], points, against)
        where = _places([member.row for member in group], against)
        lines.append(Line(text + _seeds(points), points, paper_label, paper, known, setting, where))
    return Panel(row.task, row.data_set, row.measure, lines)


def _intervals(rows: Iterable[Row], points: Points, against: str | None) -> Intervals:
    """Return the Intervals of POINTS, those of ROWS by layer or AGAINST a field."""
    found: Intervals = {}
    for row in rows:
        layers = [row.best()[0]] if against else list(row.values)
        for layer in layers:
            place = place_of(_best_record(row), against) if against else layer
            if (interval := row.interval(layer)) and len(points[place]) == 1:
                found[place] = interval
    return found


def _places(rows: Iterable[Row], against: str | None) -> dict[Place, list[str]]:
    """Return {place of a point: where the records of its values stand} of ROWS."""
    found: dict[Place, list[str]] = {}
    for row in rows:
        for layer in [row.best()[0]] if against else list(row.values):
            place = place_of(_best_record(row), against) if against else layer
            found.setdefault(place, []).append(row.place(layer))
    return found


def _line_by_layer(members: Iterable[_Member], _against: None) -> tuple[Points, Points]:
    """Return (points, published points) of MEMBERS, one network's seeds, by layer."""
    points: dict[Place, list[float]] = {}
    paper: dict[Place, list[float]] = {}
    for row, published in members:
        for layer, value in row.values.items():
            points.setdefault(layer, []).append(value)
        if published:
            paper |= {layer: [value] for layer, value in published.values.items()}
    return points, paper


def _line_by_field(members: Iterable[_Member], against: str) -> tuple[Points, Points]:
    """Return (points, published points) of the best layer of MEMBERS, by the field AGAINST."""
    points: dict[Place, list[float]] = {}
    paper: dict[Place, list[float]] = {}
    for row, published in members:
        x = place_of(_best_record(row), against)
        points.setdefault(x, []).append(row.best()[1])
        if published:  # its own number: 1,281,167 images where ours are a few less
            paper[_best_record(published).get(against, x)] = [published.best()[1]]
    return points, paper


def _common(rows: Iterable[Row], against: str | None) -> dict[str, Any]:
    """Return what all of ROWS have in common of what decided their values."""
    first, *others = (_identity(row, against) for row in rows)
    common = {k: v for k, v in first.items() if all(o.get(k) == v for o in others)}
    if first.get("data_name"):
        common.setdefault("data_name", _sampled(first["data_name"]))
    return common


def _seeds(points: Points) -> str:
    """Return what the label of a line with POINTS says of the number of its seeds."""
    counts = [len(values) for values in points.values()]
    if max(counts) == 1:
        return ""
    few = "" if min(counts) == max(counts) else f"{min(counts)} to "
    return f", {few}{max(counts)} seeds"
