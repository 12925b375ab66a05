"""The fields of a result: their types, who says them, and which of them decide what it measured.

ssl-formats(5) has the same table in words.
"""

import json
from collections.abc import Callable
from typing import NamedTuple

from ssl_common.streams import DataError

LARGEST = 2**63 - 1  # of a whole number
FARTHEST = 1e300  # from 0 that a number may be: sums of them are finite
SLACK = 1e-9  # of a percentage: a mean of hundreds may be a bit more than a hundred


class Kind(NamedTuple):
    """A type of field: what messages call it, and whether a value that JSON has is of it."""

    words: str
    holds: Callable[[object], bool]


def is_number(value):
    """Tell whether VALUE is a number, and neither NaN nor too large to count with."""
    is_numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return is_numeric and abs(value) <= FARTHEST


def _whole(least):
    return Kind(
        f"a whole number from {least} on",
        lambda value: type(value) is int and least <= value <= LARGEST,
    )


def _list_of(kind):
    return Kind(
        f"a list, each {kind.words}",
        lambda value: isinstance(value, list) and all(map(kind.holds, value)),
    )


def _object_of(kind):
    return Kind(
        f"an object, each {kind.words} or null",
        lambda value: (
            isinstance(value, dict)
            and all(each is None or kind.holds(each) for each in value.values())
        ),
    )


TEXT = Kind("text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind(f"a number within {FARTHEST:g}", is_number)
POSITIVE = Kind("a number above 0", lambda value: is_number(value) and value > 0)
PERCENT = Kind(
    "a percentage, 0 to 100", lambda value: is_number(value) and -SLACK <= value <= 100 + SLACK
)
COUNT, INDEX = _whole(1), _whole(0)
DIGESTS = _object_of(TEXT)
MOMENTUM = Kind(
    "a number, or two", lambda value: NUMBER.holds(value) or _list_of(NUMBER).holds(value)
)

# The field that tells how large the puzzle of a pretext task was, and what the paper calls it.
SIZES = {"permutations": "|P|", "neighbors": "K"}


def _fields(names):
    return {name: kind for kind, text in names.items() for name in text.split()}


# What was measured: --tag may say it, where no file does.
SAID = _fields({
    TEXT: "data_set layer model arch pretext data data_name manifest",
    COUNT: " ".join([*SIZES, "images"]),
    INDEX: "seed",
    _list_of(COUNT): "shape",
})  # fmt: skip
# How something was trained: the classifiers of train-linear, or what --tag says of a network.
SETTINGS = _fields({
    TEXT: "recipe precision optimizer crop",
    POSITIVE: "lr epochs",
    COUNT: "batch steps micro_batch synced_ranks",
    NUMBER: "weight_decay bn_momentum jitter lighting",
    FLAG: "cache nesterov decay_biases bn_affine warp flip",
    MOMENTUM: "momentum",
    _list_of(NUMBER): "warm_up",
    _list_of(_list_of(NUMBER)): "drops",
})  # fmt: skip
# What follows from all the rest: the measurement.
MEASURED = _fields({
    NUMBER: "value",
    PERCENT: "top_5 min max std",
    _object_of(PERCENT): "per_class",
    _list_of(PERCENT): "interval",
    COUNT: "bootstrap",
    INDEX: "classes fits unconverged bootstrap_seed",
    POSITIVE: "cost",
    _list_of(TEXT): "unseen",
})  # fmt: skip
# Where a record comes from, and which of its fields nobody said; time_* are of it too.
PROVENANCE = _fields({_list_of(TEXT): "argv inferred", TEXT: "version time_utc"})
# What a command finds in its input, or is told by its options.
FOUND = _fields({
    TEXT: "task metric cost_from solver train_manifest train_labels train_features train_dtype"
    " dtype test_manifest sample_rule samples_digest",
    COUNT: "train_images test_images k samples",
    INDEX: "svm_seed linear_seed sample_seed",
    DIGESTS: "inputs",
})  # fmt: skip
FIELDS = SAID | SETTINGS | MEASURED | PROVENANCE | FOUND
# What --tag cannot say: that, and what is of a file rather than of a result.
OURS = {*MEASURED, *PROVENANCE, *FOUND, "format", "converted", "left_out", "drawn"}


def check(record, where):
    """Raise DataError, naming WHERE, for a field of RECORD that is not of its type; null is."""
    for name, value in record.items():
        kind = FIELDS.get(name)
        if kind and value is not None and not kind.holds(value):
            raise DataError(f"{where}: {name} is {shown(value)}, not {kind.words}")


def shown(value):
    """Return VALUE as messages show it: as JSON has it, cut short."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}\u2026"


def identity(record):
    """Return {field: value} of what decided the value of RECORD, a null as if it were not there.

    That is all but the measurement itself and where the record comes from. A field of an object is
    one by itself, inputs.svm.
    """
    found = {}
    for name, value in record.items():
        if name in MEASURED or name in PROVENANCE or name.startswith("time_"):
            continue
        inner = value if isinstance(value, dict) else {"": value}
        for key, each in inner.items():
            if each is not None:
                found[f"{name}.{key}" if key else name] = each
    return found
