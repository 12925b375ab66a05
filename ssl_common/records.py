"""JSON-lines results with provenance, and the sidecars that say what a feature file is."""

import json
import os
import sys

from ssl_common import streams
from ssl_common.streams import DataError


def line(record):
    """Return RECORD as one line of JSON, bytes with their newline; NaN is refused."""
    return (json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n").encode()


def provenance(command):
    """Return where a record comes from: the command line and the version."""
    from importlib.metadata import version

    return {"argv": [command, *sys.argv[1:]], "version": version("ssl-bench")}


def read(path):
    """Yield (line number, record) for each line of the .jsonl file or pipe PATH.

    Raises DataError at a line that is not one JSON object.
    """
    with streams.reading(path) as stream:
        for number, text in enumerate(stream, 1):
            try:
                record = json.loads(text)
            except ValueError as error:
                raise DataError(f"{streams.name(path)}:{number}: not JSON ({error})") from error
            if not isinstance(record, dict):
                raise DataError(f"{streams.name(path)}:{number}: not a JSON object")
            yield number, record


def sidecar(path):
    """Return the name of the file that says what the feature file PATH is."""
    return f"{path}.json"


def write_sidecar(path, fields):
    """Write FIELDS beside the feature file PATH."""
    with streams.writing(sidecar(path), binary=False) as stream:
        stream.write(json.dumps(fields, indent=1, ensure_ascii=False).encode() + b"\n")


def read_sidecar(path):
    """Return what the sidecar of the feature file PATH says; {} where there is none."""
    if path == "-" or not os.path.exists(sidecar(path)):
        return {}
    try:
        with open(sidecar(path), encoding="utf-8") as stream:
            fields = json.load(stream)
    except ValueError as error:
        raise DataError(f"{sidecar(path)}: not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise DataError(f"{sidecar(path)}: not a JSON object")
    return fields
