"""Records gathered into rows, one for each network and task, with the paper's rows."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ssl_common import records, results, streams, tasks
from ssl_common.fields import Record
from ssl_common.reporting import tables
from ssl_common.reporting.labels import hashable, label, told_apart
from ssl_common.reporting.published import paper_row, with_usual_names
from ssl_common.reporting.rows import BEST, NO_LAYER, UNKNOWN, Row
from ssl_common.streams import DataError

Place = tuple[Record, str]  # a record, and where it stands: file:line


def gather(paths: Sequence[str]) -> tuple[list[Row], str]:
    """Return (rows, a line about them) of the records in the .jsonl files or pipes PATHS.

    A record replaces an earlier one of the same identity. Rows stand in the order of their first
    record, a published one below the last of those that it is for. Raises DataError at a line that
    is no result.
    """
    networks: dict[frozenset, dict[frozenset, Place]] = {}
    count = changed = 0
    for path in paths:
        for number, record in records.read(path):
            where = f"{streams.name(path)}:{number}"
            _check(record, where)
            count += 1
            record = with_usual_names(record)
            network, layer = _keys(record, where)
            layers = networks.setdefault(network, {})
            changed += layer in layers and layers[layer][0]["value"] != record["value"]
            layers[layer] = record, where
    if not count:
        raise DataError(f"{streams.name(paths[0])}: no record: write some with eval-svm")
    panels: dict[tuple, list[Row]] = {}
    for layers in networks.values():
        for aligned in _aligned(list(layers.values())):
            row = _row(aligned)
            panels.setdefault(row.panel, []).append(row)
    rows = [row for panel in panels.values() for row in _with_the_paper(panel)]
    replaced = count - sum(map(len, networks.values()))
    summary = f"{count} records, {len(rows)} rows"
    summary += f"; {replaced} replaced by a later one" if replaced else ""
    summary += f", {changed} of them by another value" if changed else ""
    return rows, summary


def write(
    paths: Sequence[str],
    form: str,
    plot: str | None,
    against: str | None,
    html: str | None,
    logs: Sequence[str],
    pictures: Sequence[str],
    output: str,
) -> str:
    """Write the table in FORM of the records in PATHS to OUTPUT; return what was done, in words.

    And a picture of them to the file PLOT, if given, AGAINST a field or by layer; and a page with
    LOGS and PICTURES to the file HTML. Raises DataError as plots.render() and page.page() do.
    """
    with streams.writing(output, binary=False) as stream, contextlib.ExitStack() as stack:
        rows, summary = gather(paths)
        made, told = _files(rows, summary, plot, against, html, logs, pictures)
        for path, content in made.items():
            stack.enter_context(streams.writing(path)).write(content)
        stream.write(tables.FORMATS[form](rows).encode())
        stream.flush()  # a full disk leaves the files that were there
    return told


def tabulate(*paths: str, form: str = "markdown") -> str:
    """Return the table of the records in the files PATHS, as report --format FORM writes it."""
    return tables.FORMATS[form](gather(paths)[0])


def _files(
    rows: Sequence[Row],
    summary: str,
    plot: str | None,
    against: str | None,
    html: str | None,
    logs: Sequence[str],
    pictures: Sequence[str],
) -> tuple[dict[str, bytes], str]:
    """Return ({path: its bytes} of the files PLOT and HTML, the line about all).

    SUMMARY is that about the records; LOGS and PICTURES are for the page. Raises DataError as
    plots.render() and page.page() do.
    """
    from ssl_common.reporting import page, plots  # they use the rows of this module

    made, told = {}, summary
    if plot:
        made[plot], left_out = plots.render(rows, plot, against)
        told += f"; {plot}"
        told += f" without {left_out} that lack {against}" if left_out else ""
    if html:
        made[html] = page.page(rows, summary, logs, pictures).encode()
        told += f"; {html}"
    return made, told


def _check(record: Record, where: str) -> None:
    """Raise DataError, naming WHERE, if RECORD is not a result."""
    if not isinstance(record.get("task"), str) or record.get("value") is None:
        raise DataError(f"{where}: not a result: it has no task and value, as eval-svm writes them")
    results.check(record, where)
    unit = tasks.find(record["task"]).metric(record.get("metric") or UNKNOWN).unit
    if unit and not unit.entry().holds(record["value"]):
        message = f"value is {record['value']}, not {unit.words}"
        raise DataError(f"{where}: {message}: delete the line")
    if record.get("layer") in (BEST, NO_LAYER):
        raise DataError(f"{where}: the layer {record['layer']} has the name of another column")


def _keys(record: Record, where: str) -> tuple[frozenset, frozenset]:
    """Return what decides RECORD, which stands WHERE: that of its row, and that of its layer."""
    identity = results.identity(record)
    subject = ("layer", "model", "arch", "pretext")
    if not any(name in subject or name.startswith("inputs.") for name in identity):
        identity["where"] = where  # says nothing of itself: not known to equal any other
    of_a_layer = tasks.find(record["task"]).of_a_layer
    shared = {name: value for name, value in identity.items() if name not in of_a_layer}
    return frozen(shared), frozen({n: identity[n] for n in of_a_layer if n in identity})


def frozen(fields: Mapping[str, Any]) -> frozenset:
    """Return FIELDS as something that can be a key."""
    return frozenset((name, hashable(value)) for name, value in fields.items())


def _aligned(places: Sequence[Place]) -> Iterator[dict[str, Place]]:
    """Yield {layer: place} of PLACES, of one network: mostly one.

    Where a layer was measured several times, from other files, the n-th of each layer stand
    together, first those of one version of ssl-bench.
    """
    named = [(str(place[0].get("layer") or NO_LAYER), place) for place in places]
    once = len(dict(named)) == len(named)
    versions: dict[str | None, list[tuple[str, Place]]] = {}
    for layer, place in named:
        version = None if once else place[0].get("version")
        versions.setdefault(version, []).append((layer, place))
    for version_places in versions.values():
        rows: list[dict[str, Place]] = []
        times: Counter[str] = Counter()
        for layer, place in version_places:
            if times[layer] == len(rows):
                rows.append({})
            rows[times[layer]][layer] = place
            times[layer] += 1
        yield from rows


def _row(places: Mapping[str, Place]) -> Row:
    """Return the Row of PLACES, by layer."""
    first, where = next(iter(places.values()))
    return Row(
        task=first["task"],
        data_set=tasks.find(first["task"]).data(first),
        metric=first.get("metric") or UNKNOWN,
        label=label(first),
        values={layer: record["value"] for layer, (record, _where) in places.items()},
        records={layer: record for layer, (record, _where) in places.items()},
        identity={"seen": 0}
        | results.identity(first)
        | {"version": first.get("version"), "where": where},
        places={layer: place for layer, (_record, place) in places.items()},
    )


def _with_the_paper(panel: Sequence[Row]) -> Iterator[Row]:
    """Yield the rows of PANEL, told apart, each published one below the last that it is for."""
    task = tasks.find(panel[0].task)
    labels = told_apart([row.label for row in panel], [row.identity for row in panel], task)
    papers = [paper_row(row) for row in panel]
    last = {id(paper): i for i, paper in enumerate(papers) if paper}
    for i, (row, text, paper) in enumerate(zip(panel, labels, papers, strict=True)):
        yield row._replace(label=text)
        if paper and last[id(paper)] == i:
            yield paper
