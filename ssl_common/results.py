"""The fields of a result: their types, who sets them, and which decide its value.

ssl-formats(5) has the same table in words. What a single task adds stands in its declaration, in
tasks.
"""

import functools
from typing import Any

from ssl_common import tasks
from ssl_common.fields import (
    COUNT,
    DIGESTS,
    FLAG,
    INDEX,
    MOMENTUM,
    NUMBER,
    PERCENT,
    POSITIVE,
    TEXT,
    TEXTS,
    Fields,
    Record,
    Unit,
    table,
)
from ssl_common.schema import Letters, Mapping, Table, Wrong, integers, numbers
from ssl_common.streams import DataError

# What was measured: --tag may set it, where no file does.
SUBJECT = table({
    TEXT: "data_set layer model arch pretext data data_name manifest",
    COUNT: " ".join([*(size.field for size in tasks.PRETEXT_SIZES), "images"]),
    INDEX: "seed",
    integers("*", least=1, maybe=True): "shape",
})  # fmt: skip
# How something was trained: the classifiers of train-linear, or what --tag says of a network.
SETTINGS = table({
    TEXT: "recipe precision optimizer crop head freeze pool",
    POSITIVE: "lr epochs",
    COUNT: "batch steps micro_batch synced_ranks",
    NUMBER: "weight_decay bn_momentum jitter lighting",
    FLAG: "cache nesterov decay_biases bn_affine warp flip",
    MOMENTUM: "momentum",
    numbers("*", maybe=True): "warm_up",
    numbers("* 2", maybe=True): "drops",
})  # fmt: skip


def in_unit(unit: Unit | None) -> Fields:
    """Return {field: type} of the fields that are in UNIT, that of the metric, as `value` is."""
    one, several = (unit.entry(), unit.entry("*")) if unit else (NUMBER, numbers("*", maybe=True))
    return {
        **dict.fromkeys(("min", "max", "std"), one),
        "per_class": Mapping(one, maybe=True),
        "interval": several,
    }


# What follows from all the rest: the measurement.
MEASUREMENT = (
    table({NUMBER: "value", INDEX: "classes", TEXTS: "unseen", TEXT: "seen_by"})
    | in_unit(PERCENT)
    | tasks.OTHER.measured
)
# Where a record comes from, and which of its fields are inferred; time_* are of it too.
PROVENANCE = table({TEXTS: "argv inferred", TEXT: "version time_utc"})
# What the network took to train, as --tag says it: neither measured here nor part of what decides.
COST = table({POSITIVE: "hours", TEXT: "hardware"})
# What a command finds in its input, or its options decide.
CONDITIONS = tasks.OTHER.conditions | table({
    TEXT: "task metric train_manifest train_labels dtype test_manifest",
    COUNT: "train_images test_images seen",
    DIGESTS: "inputs",
})  # fmt: skip
FIELDS = SUBJECT | SETTINGS | MEASUREMENT | PROVENANCE | COST | CONDITIONS
# What --tag cannot set: that, and what is of a file rather than of a result.
COMMANDS_OWN = {*MEASUREMENT, *PROVENANCE, *CONDITIONS, "format", "converted", "left_out", "drawn"}


@functools.cache
def _types(unit: Unit | None) -> Table:
    """Return the types of the fields of a record whose metric is in UNIT, or has none."""
    return Table(FIELDS | in_unit(unit))


def check(record: Record, where: str) -> None:
    """Raise DataError, naming WHERE, for a field of RECORD that is not of its type; null is."""
    task, metric = record.get("task"), record.get("metric")
    unit: Unit | None = PERCENT
    if isinstance(task, str) and isinstance(metric, str):
        known = (*tasks.find(task).metrics, *tasks.OTHER.metrics)
        unit = next((each.unit for each in known if each.name == metric), PERCENT)
    try:
        _types(unit).read("", record, Letters(), {})
    except Wrong as wrong:
        raise DataError(f"{where}: {wrong}") from None


def identity(record: Record) -> dict[str, Any]:
    """Return {field: value} of what decided the value of RECORD, a null as if it were not there.

    That is all but the measurement itself, as its task declares it, what the network took to train,
    and where the record comes from. A field of an object is one by itself, inputs.svm.
    """
    measured, fields = tasks.find(record.get("task")).measured, {}
    for name, value in record.items():
        if name in MEASUREMENT or name in measured:
            continue
        if name in PROVENANCE or name in COST or name.startswith("time_"):
            continue
        inner = value if isinstance(value, dict) else {"": value}
        for key, each in inner.items():
            if each is not None:
                fields[f"{name}.{key}" if key else name] = each
    return fields
