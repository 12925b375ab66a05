"""JSON-lines results with provenance, and the sidecars that say what a feature file is."""

import contextlib
import datetime
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from ssl_common import containers, formats, legible, results, streams
from ssl_common.fields import TEXT, Record
from ssl_common.streams import DataError


def line(record: Record) -> bytes:
    """Return RECORD as one line of JSON, bytes with their newline; NaN is refused."""
    return (legible.dumps(record) + "\n").encode()


def provenance(command: str) -> dict[str, Any]:
    """Return where a record comes from: the command line and the version."""
    return {"argv": [command, *map(streams.utf8, sys.argv[1:])], "version": version()}


def stamp(command: str) -> dict[str, Any]:
    """Return what a result says last: where it comes from, and when it was made."""
    now = datetime.datetime.now(datetime.UTC)
    return provenance(command) | {"time_utc": now.isoformat(timespec="seconds")}


def version() -> str:
    """Return the version of ssl-bench."""
    from importlib import metadata  # here: --help of a command is quicker without

    return metadata.version("ssl-bench")


def read(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, record) for each line of the .jsonl file or pipe PATH.

    Raises DataError at a line that is not one JSON object.
    """
    with streams.reading(path) as stream:
        for number, text in enumerate(stream, 1):
            yield number, containers.json_object(text, f"{streams.name(path)}:{number}")


def read_records(path: str) -> list[Record]:
    """Return the records in the file PATH, checked; raise DataError that names the line."""
    lines = list(read(path))
    for number, record in lines:
        results.check(record, f"{streams.name(path)}:{number}")
    return [record for _number, record in lines]


def sidecar(path: str) -> str:
    """Return the name of the file that says what the feature file PATH is."""
    return f"{path}.json"


def sidecar_text(content: Mapping[str, Any]) -> bytes:
    """Return CONTENT as a sidecar has it, bytes."""
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"


def contents(path: str) -> str:
    """Return the name of the file that says what the images of the feature file PATH held."""
    return f"{path}.images"


@contextlib.contextmanager
def writing_features(
    output: str, fields: Mapping[str, Mapping[str, Any]], known: bool = True
) -> Iterator[list[BinaryIO]]:
    """Open OUTPUT for the features of the layers FIELDS names; yield a stream for each.

    FIELDS is {layer: what its sidecar says}. A folder, DIR/, gets DIR/<layer>.npy for each; another
    OUTPUT takes the only layer. After these comes a stream for the contents() of each, where they
    are KNOWN. Those and sidecars go beside files, not beside standard output or devices.
    """
    folder = streams.is_folder(output)
    if streams.is_special(output) and not folder:
        with streams.writing(output) as stream:
            yield [stream]
        return
    paths = [os.path.join(output, f"{layer}.npy") if folder else output for layer in fields]
    held, sidecars = [contents(path) for path in paths if known], list(map(sidecar, paths))
    with (
        streams.making_folder(output) if folder else streams.naming(output),
        # Whatever stops us between two renames, no features have the sidecar of others: the old
        # ones are gone before, the new ones come after. Without one, nothing is claimed.
        streams.writing_together([*paths, *held, *sidecars], removed=[*held, *sidecars]) as opened,
    ):
        for stream, content in zip(opened[-len(paths) :], fields.values(), strict=True):
            stream.write(sidecar_text(content))
        yield list(opened[: -len(paths)])


def read_sidecar(path: str) -> dict[str, Any]:
    """Return what the sidecar of the feature file PATH says; {} where there is none."""
    if path == "-" or not os.path.exists(sidecar(path)):
        return {}
    return formats.SIDECAR.read(sidecar(path))


def tagged(record: Record, tags: Mapping[str, str], source: str) -> dict[str, Any]:
    """Return RECORD, of SOURCE, with the TAGS of a command line, {field: text}.

    Raises DataError where a field is not of its type, and for a tag that says what the command
    does, or something else than the source; what is "inferred" the source does not say.
    """
    results.check(record, source)
    values = {name: _tag(name, text) for name, text in tags.items()}
    inferred = record.get("inferred") or []
    for name, value in values.items():
        if record.get(name) not in (None, value) and name not in inferred:
            raise DataError(f"--tag {name}={tags[name]}: {source} says {record[name]}")
    left = [name for name in inferred if name not in values]
    rest = {name: value for name, value in record.items() if name != "inferred"}
    return rest | values | ({"inferred": left} if left else {})


def _tag(name: str, text: str) -> Any:
    """Return what `--tag NAME=TEXT` says: JSON for a field that is not text."""
    option = streams.utf8(f"--tag {name}={text}")
    if option != f"--tag {name}={text}":
        raise DataError(f"{option}: not UTF-8")
    if name in results.COMMANDS_OWN or name.startswith("time_"):
        raise DataError(f"{option}: {name} is set by the command itself: leave it out")
    if not text:
        raise DataError(f"{option}: nothing after the =: say what it is, or leave it out")
    kind = results.FIELDS.get(name, TEXT)
    value: Any = text
    if kind is not TEXT and text == text.strip():
        with contextlib.suppress(ValueError):
            value = containers.parse(text)
    if not kind.holds(value):
        raise DataError(f"{option}: not {kind.words}")
    return value


def data_set(manifest: str, *records: Record) -> str | None:
    """Return the name of a data set: the first that RECORDS hold, or that of MANIFEST."""
    names = (record.get("data_set") for record in records)
    return next(filter(None, names), None) or streams.stem(manifest)
