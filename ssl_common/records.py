"""JSON-lines results with provenance, and the sidecars that say what a feature file is."""

import contextlib
import datetime
import json
import os
import sys

from ssl_common import streams
from ssl_common.streams import DataError

# The field that tells how large the puzzle of a pretext task was, and what the paper calls it.
SIZES = {"permutations": "|P|", "neighbors": "K"}
INTEGERS = (*SIZES, "images", "seed")  # the fields that are numbers


def line(record):
    """Return RECORD as one line of JSON, bytes with their newline; NaN is refused."""
    return (json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n").encode()


def provenance(command):
    """Return where a record comes from: the command line and the version."""
    return {"argv": [command, *sys.argv[1:]], "version": version()}


def stamp(command):
    """Return what a result says last: where it comes from, and when it was made."""
    now = datetime.datetime.now(datetime.UTC)
    return provenance(command) | {"time_utc": now.isoformat(timespec="seconds")}


def version():
    """Return the version of ssl-bench."""
    from importlib import metadata  # here: --help of a command is quicker without

    return metadata.version("ssl-bench")


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


@contextlib.contextmanager
def writing_features(output, fields):
    """Open OUTPUT for the features of the layers FIELDS names; yield a stream for each.

    FIELDS is {layer: what its sidecar says}. A folder, DIR/, gets DIR/<layer>.npy for each; another
    OUTPUT takes the only layer. Sidecars go beside files, not beside standard output or devices.
    """
    folder = streams.is_folder(output)
    if streams.is_special(output) and not folder:
        with streams.writing(output) as stream:
            yield [stream]
        return
    paths = [os.path.join(output, f"{layer}.npy") if folder else output for layer in fields]
    sidecars = [sidecar(path) for path in paths]
    with (
        streams.making_folder(output) if folder else streams.naming(output),
        # Whatever stops us between two renames, no features have the sidecar of others: the old
        # ones are gone before, the new ones come after. Without one, nothing is claimed.
        streams.writing_together([*paths, *sidecars], removed=sidecars) as opened,
    ):
        for stream, said in zip(opened[len(paths) :], fields.values(), strict=True):
            stream.write(json.dumps(said, indent=1, ensure_ascii=False).encode() + b"\n")
        yield opened[: len(paths)]


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


def tagged(fields, tags, source):
    """Return FIELDS with the TAGS of a command line, the numbers among them as int.

    Raises DataError where SOURCE, which the fields are of, says something else; what is "inferred"
    it does not say.
    """
    try:
        said = {key: int(value) if key in INTEGERS else value for key, value in tags.items()}
    except ValueError as error:
        raise DataError(f"--tag: {', '.join(INTEGERS)} are whole numbers ({error})") from error
    inferred = fields.get("inferred", ())
    for key, value in said.items():
        if fields.get(key) not in (None, value) and key not in inferred:
            raise DataError(f"--tag {key}={value}: {source} says {fields[key]}")
    left = [key for key in inferred if key not in said]
    fields = {key: value for key, value in fields.items() if key != "inferred"}
    return fields | said | ({"inferred": left} if left else {})
