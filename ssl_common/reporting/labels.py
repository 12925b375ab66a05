"""Labels of the rows of a report: the name of the network, and what distinguishes two rows."""

import functools
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ssl_common import results, schema, tasks
from ssl_common.fields import Record
from ssl_common.tasks import NETWORK, Task

DIGITS = 8  # of a digest in a label

# The examples of training and test. Networks are compared on the same, so what differs in a task
# and data set is shown, as far as it tells more of these apart than what is before it.
EXAMPLES = (
    *("seen", "train_images", "train_manifest", "train_labels"),
    *("test_images", "test_manifest", "inputs.manifest"),
)
# Settings that as a rule follow from others: shown only if no others tell two rows apart.
MINOR_SETTINGS = (
    *("epochs", "micro_batch", "synced_ranks", "optimizer", "momentum", "nesterov"),
    *("weight_decay", "decay_biases", "bn_momentum", "bn_affine", "warm_up", "drops"),
    *("warp", "crop", "flip", "jitter", "lighting"),
)


def label(record: Record) -> str:
    """Return how the report calls the network of RECORD: alexnet jigsaw P=100 (2,686 images)."""
    parts = (*NETWORK, *tasks.find(record.get("task")).label)
    return " ".join(filter(None, (part.text(record) for part in parts)))


@functools.cache
def _labelled(task: Task) -> frozenset[str]:
    """Return the fields that label() shows for a record of TASK."""
    return frozenset(name for part in (*NETWORK, *task.label) for name in part.fields)


@functools.cache
def _minor(task: Task) -> tuple[str, ...]:
    """Return the fields of TASK that are shown last, those that say most to people first.

    They are settings that follow from others, and digests.
    """
    last = ("version", "model", "data", *task.of_a_seed, *task.of_a_layer)
    return (*MINOR_SETTINGS, *task.minor, *last)


def told_apart(
    labels: Iterable[str], identities: Sequence[Mapping[str, Any]], task: Task = tasks.OTHER
) -> list[str]:
    """Return LABELS, of one TASK and data set, each with what tells it from the others.

    IDENTITIES are {field: value}, for each label. Added is what differs: the examples, over all;
    and any other field where labels would else be the same.
    """
    labels, every = list(labels), range(len(identities))
    labelled, minor = _labelled(task), _minor(task)

    def add(indices: Iterable[int], names: Collection[str]) -> None:
        values = _values(identities[i] for i in indices)
        short = {name for name in names if _are_digests(values[name])}
        for i in indices:
            for name, value in identities[i].items():
                if name in names and value is not None:
                    text = value if isinstance(value, str) else schema.display(value)
                    labels[i] += f" {name}={text[:DIGITS] if name in short else text}"

    def equal() -> list[list[int]]:
        groups: dict[str, list[int]] = {}
        for i, text in enumerate(labels):
            groups.setdefault(text, []).append(i)
        return [group for group in groups.values() if len(group) > 1]

    values = _values(identities)
    examples = [name for name in EXAMPLES if len(values.get(name, ())) > 1]
    add(every, _splitting(identities, every, examples))
    for group in equal():
        names = _differing([identities[i] for i in group])
        add(group, names.difference(labelled, EXAMPLES, minor, ["where"]))
    rest = [name for name in results.FIELDS if name not in (*labelled, *EXAMPLES, *minor)]
    for group in equal():
        add(group, _splitting(identities, group, (*EXAMPLES, *minor, *rest, "where")))
    return labels


def _values(identities: Iterable[Mapping[str, Any]]) -> dict[str, set]:
    """Return {field: its values in IDENTITIES}."""
    values: dict[str, set] = {}
    for identity in identities:
        for name, value in identity.items():
            if value is not None:
                values.setdefault(name, set()).add(hashable(value))
    return values


def hashable(value: Any) -> Any:
    """Return VALUE as something that can be a key."""
    is_plain = value is None or type(value) in (str, int, float)
    return value if is_plain else (json.dumps(value, sort_keys=True),)


def _differing(identities: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the fields that are not the same in all of IDENTITIES.

    One of ours that is missing is no difference here: records of older versions have fewer.
    """
    count = Counter(
        name for each in identities for name, value in each.items() if value is not None
    )
    values = _values(identities)
    differing = {name for name in values if len(values[name]) > 1}
    return differing | {n for n in values if count[n] < len(identities)} - set(results.FIELDS)


def _are_digests(values: Collection[Any]) -> bool:
    """Return whether VALUES are digests that their first DIGITS tell apart."""
    digests = all(re.fullmatch("[0-9a-f]{16}", str(value)) for value in values)
    return digests and len({value[:DIGITS] for value in values}) == len(values)


def _splitting(
    identities: Sequence[Mapping[str, Any]], indices: Iterable[int], names: Iterable[str]
) -> list[str]:
    """Return those of NAMES that tell apart more of IDENTITIES[INDICES] than the ones before."""
    group, count, useful = dict.fromkeys(indices, 0), 1, []
    for name in names:
        finer: dict[int, int] = {}
        numbers: dict[tuple, int] = {}
        for i in group:
            key = (group[i], hashable(identities[i].get(name)))
            finer[i] = numbers.setdefault(key, len(numbers))
        if len(numbers) > count:
            group, count = finer, len(numbers)
            useful.append(name)
    return useful
