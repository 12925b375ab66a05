"""The fields of a result: their types, who says them, and which of them decide what it measured.

ssl-formats(5) has the same table in words.
"""

from ssl_common.schema import (
    FARTHEST,
    Either,
    Flag,
    Letters,
    Mapping,
    Table,
    Texts,
    Wrong,
    integers,
    numbers,
)
from ssl_common.streams import DataError

SLACK = 1e-9  # of a percentage: a mean of hundreds may be a bit more than a hundred


def is_number(value):
    """Tell whether VALUE is a number, and neither NaN nor too large to count with."""
    is_numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return is_numeric and abs(value) <= FARTHEST


# Null, as if the field were not there, may stand for any of them.
TEXT, FLAG = Texts(maybe=True), Flag(maybe=True)
NUMBER, POSITIVE = numbers(maybe=True), numbers(above=0, maybe=True)
_PERCENT = {"least": -SLACK, "most": 100 + SLACK, "called": "a percentage, 0 to 100"}
PERCENT = numbers(**_PERCENT, maybe=True)
COUNT, INDEX = integers(least=1, maybe=True), integers(least=0, maybe=True)
DIGESTS = Mapping(TEXT, maybe=True)
TEXTS = Texts("*", maybe=True)
MOMENTUM = Either((numbers(), numbers("*")), maybe=True)

# The field that tells how large the puzzle of a pretext task was, and what the paper calls it.
SIZES = {"permutations": "|P|", "neighbors": "K"}


def _fields(names):
    return {name: kind for kind, text in names.items() for name in text.split()}


# What was measured: --tag may say it, where no file does.
SAID = _fields({
    TEXT: "data_set layer model arch pretext data data_name manifest",
    COUNT: " ".join([*SIZES, "images"]),
    INDEX: "seed",
    integers("*", least=1, maybe=True): "shape",
})  # fmt: skip
# How something was trained: the classifiers of train-linear, or what --tag says of a network.
SETTINGS = _fields({
    TEXT: "recipe precision optimizer crop",
    POSITIVE: "lr epochs",
    COUNT: "batch steps micro_batch synced_ranks",
    NUMBER: "weight_decay bn_momentum jitter lighting",
    FLAG: "cache nesterov decay_biases bn_affine warp flip",
    MOMENTUM: "momentum",
    numbers("*", maybe=True): "warm_up",
    numbers("* 2", maybe=True): "drops",
})  # fmt: skip
# What follows from all the rest: the measurement.
MEASURED = _fields({
    NUMBER: "value",
    PERCENT: "top_5 min max std",
    Mapping(PERCENT, maybe=True): "per_class",
    numbers("*", **_PERCENT, maybe=True): "interval",
    COUNT: "bootstrap",
    INDEX: "classes fits unconverged bootstrap_left_out bootstrap_seed",
    POSITIVE: "cost",
    TEXTS: "unseen",
    TEXT: "seen_by",
})  # fmt: skip
# Where a record comes from, and which of its fields nobody said; time_* are of it too.
PROVENANCE = _fields({TEXTS: "argv inferred", TEXT: "version time_utc"})
# What a command finds in its input, or is told by its options.
FOUND = _fields({
    TEXT: "task metric cost_from solver train_manifest train_labels train_features train_dtype"
    " dtype test_manifest sample_rule samples_digest",
    COUNT: "train_images test_images seen k samples",
    INDEX: "svm_seed linear_seed sample_seed",
    DIGESTS: "inputs",
})  # fmt: skip
FIELDS = SAID | SETTINGS | MEASURED | PROVENANCE | FOUND
# What --tag cannot say: that, and what is of a file rather than of a result.
OURS = {*MEASURED, *PROVENANCE, *FOUND, "format", "converted", "left_out", "drawn"}


TABLE = Table(FIELDS)


def check(record, where):
    """Raise DataError, naming WHERE, for a field of RECORD that is not of its type; null is."""
    try:
        TABLE.read("", record, Letters(), {})
    except Wrong as wrong:
        raise DataError(f"{where}: {wrong}") from None


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
