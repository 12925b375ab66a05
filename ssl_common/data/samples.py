"""Low-shot samples: k positives of each class, and their negatives."""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ssl_common import containers, formats, records, streams
from ssl_common.data.manifest import POSITIVE, ClassRows, Manifest, class_rows
from ssl_common.streams import DataError

ABOUT = "samples.json"  # beside the samples: the seed that drew them, and the digest of each
UNUSED = -1  # in a sample, where 1 is a positive and 0 a negative
NEGATIVES = 19  # per positive, where an image may show several classes
SINGLE, SEVERAL = "single", "several"  # classes that an image may show: the two rules
MEANING = {
    SINGLE: "k images a class, which are negatives of all others",
    SEVERAL: "k positives and 19k negatives a class",
}
BLOCK = 1 << 13  # rows at a time


def sample(
    rows_of: ClassRows, rule: str, k: int, seed: int, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return sample NUMBER of K positives a class: the rows used, int64 (U,), and their values.

    Those are int8 (U, C): 1, 0, or UNUSED. By the RULE "single" it is k images a class, each
    negative for all other classes; by "several" k positives and 19k negatives of each class by
    itself, none of them difficult. A class with fewer is UNUSED. What is drawn depends on (SEED,
    NUMBER, K, class) alone.
    """
    parts: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # class -> (positives, negatives)
    both = zip(rows_of.positive, rows_of.difficult, strict=True)
    for c, (positive, difficult) in enumerate(both):
        draw = np.random.default_rng((seed, number, k, c))
        known = np.union1d(positive, difficult)
        count, rest = 0 if rule == SINGLE else NEGATIVES * k, rows_of.images - len(known)
        if len(positive) < k or rest < count:
            continue
        positives = positive[draw.choice(len(positive), k, replace=False)]
        negatives = np.empty(0, np.int64)
        if count:
            negatives = _outside(known, draw.choice(rest, count, replace=False))
        parts[c] = positives, negatives
    used = [part for pair in parts.values() for part in pair]
    rows = np.unique(np.concatenate(used)) if used else np.empty(0, np.int64)
    values = np.full((len(rows), len(rows_of.classes)), UNUSED, np.int8)
    for c, (positives, negatives) in parts.items():
        values[slice(None) if rule == SINGLE else np.searchsorted(rows, negatives), c] = 0
        values[np.searchsorted(rows, positives), c] = 1
    return rows, values


def _outside(members, places):
    """Return the rows at PLACES among those that are not MEMBERS, which ascend."""
    before = members - np.arange(len(members))  # how many that are not come before each
    return places + np.searchsorted(before, places, side="right")


def rule_of(manifest: Manifest, rows_of: ClassRows, wanted: str | None = None) -> tuple[str, int]:
    """Return the rule for ROWS_OF, the rows of each class of MANIFEST, and how many have no label.

    It is the one WANTED, or else SEVERAL where a row has several classes, one that is difficult or
    there is one class alone, and SINGLE where each row has one. Raises DataError where the rows do
    not tell the rule, and for SINGLE where a row has more than one.
    """
    labels = np.zeros(rows_of.images, np.int32)
    for rows in rows_of.positive:
        labels[rows] += 1
    for rows in rows_of.difficult:
        labels[rows] += 2
    without = np.flatnonzero(labels == 0)
    if (labels > 1).any():
        if wanted == SINGLE:
            message = "several classes, or a difficult one, which --labels single does not allow"
            raise manifest.error(int(labels.argmax()) + 1, message)
        return SEVERAL, len(without)
    if wanted is None and len(without) and len(rows_of.classes) > 1:
        message = "no label, where other images have one class each: --labels single leaves out"
        advice = "such images, --labels several takes them as negatives"
        raise manifest.error(int(without[0]) + 1, f"{message} {advice} ({len(without)} lines)")
    if wanted is None:
        wanted = SEVERAL if len(without) or len(rows_of.classes) == 1 else SINGLE
    return wanted, len(without)


def write(
    manifest: Manifest, ks: list[int], samples: int, seed: int, folder: str, wanted: str | None
) -> tuple[list[str], str]:
    """Write SAMPLES samples of each of KS positives of MANIFEST into the new FOLDER.

    WANTED is as rule_of() takes it. Return the names of the files, and what they are in words.
    Raises DataError for a manifest without labels, and where no class has enough for the least k.
    """
    rows_of = class_rows(manifest)
    where = streams.name(manifest.path)
    if not rows_of.classes:
        raise DataError(f"{where}: no labels: write path<TAB>label,label")
    rule, without = rule_of(manifest, rows_of, wanted)
    names: list[str] = []
    small: dict[int, list[str]] = {}  # k -> the classes that have too few
    with streams.writing_folder(folder) as partial:
        for k in ks:
            for number in range(1, samples + 1):
                rows, values = sample(rows_of, rule, k, seed, number)
                kept = (values != UNUSED).any(axis=0)
                small[k] = [n for n, there in zip(rows_of.classes, kept, strict=True) if not there]
                if not kept.any():
                    break
                names.append(file_name(number, k))
                with streams.writing(os.path.join(partial, names[-1])) as stream:
                    _write_matrix(stream, rows_of.images, rows, values)
        if not names:
            k = min(ks)
            needed = (
                f"{k} images" if rule == SINGLE else f"{k} positives and {NEGATIVES * k} negatives"
            )
            advice = "take a lower k" if k > 1 else "list more images"
            raise DataError(f"{where}: no class has {needed}: {advice}")
        paths = {name: os.path.join(partial, name) for name in names}
        digests = {name: _digest(containers.read_array(path)) for name, path in paths.items()}
        about = {"seed": seed, "rule": rule, "digests": digests}
        with streams.writing(os.path.join(partial, ABOUT)) as stream:
            stream.write(records.line({"format": 1} | about))
    return names, _in_words(names, rule, without, small)


def _in_words(names, rule, without, small):
    """Return the last message of sample-low-shot."""
    parts = [f"{len(names)} samples, {MEANING[rule]}"]
    if without and rule == SINGLE:
        parts.append(f"{without:,} images without a label are left out")
    parts += [f"k={k} without {', '.join(classes)}" for k, classes in small.items() if classes]
    return "; ".join(parts)


def _write_matrix(stream, count, rows, values):
    """Write as .npy the matrix, int8 (COUNT, C), that holds VALUES in ROWS and else UNUSED."""
    containers.write_array_header(stream, np.int8, (count, values.shape[1]))
    for start in range(0, count, BLOCK):
        block = np.full((min(BLOCK, count - start), values.shape[1]), UNUSED, np.int8)
        first, last = np.searchsorted(rows, (start, start + len(block)))
        block[rows[first:last] - start] = values[first:last]
        stream.write(block.data)


def file_name(number: int, k: int) -> str:
    """Return the file name of sample NUMBER of K positives."""
    return f"sample{number}_k{k}.npy"


class Sample(NamedTuple):
    """A sample as it is used: (class, rows int32 (n,), signs int8, 1 or -1) of each it has."""

    classes: list[tuple[int, np.ndarray, np.ndarray]]
    digest: str  # of its matrix


def read(folder: str, labels: np.ndarray, manifest: Manifest) -> dict[tuple[int, int], Sample]:
    """Return {(k, number): Sample} of the files in FOLDER, in that order.

    Raises DataError where one is not a sample of LABELS (N, C), which are those of MANIFEST, or
    not of the k that its name says.
    """
    samples: dict[tuple[int, int], Sample] = {}
    paths: dict[tuple[int, int], str] = {}
    for name in sorted(os.listdir(folder)):
        if match := re.fullmatch(r"(?:.*_)?sample([0-9]{1,9})_k([0-9]{1,9})\.npy", name):
            path, key = os.path.join(folder, name), (int(match[2]), int(match[1]))
            if key in paths:
                message = f"sample {key[1]} of k = {key[0]}, as {paths[key]} is: remove one of them"
                raise DataError(f"{path}: {message}")
            samples[key], paths[key] = _read(path, key[0], labels, manifest), path
    if not samples:
        raise DataError(f"{folder}: no sampleS_kK.npy: write some with sample-low-shot")
    return dict(sorted(samples.items()))


def _read(path, k, labels, manifest):
    """Return what read() says of the one file PATH."""
    if not os.path.isfile(path):  # nobody may ever write into a FIFO
        raise DataError(f"{path}: not a regular file, which a sample is: remove it")
    where = streams.name(manifest.path)
    words = zip("NC", labels.shape, ("lines", "classes"), strict=True)
    shape = {letter: (number, f"{word} of {where}") for letter, number, word in words}
    matrix = np.asarray(formats.SAMPLE.read(path, **shape)["sample"])
    _check(path, matrix, labels, where)
    positives = (matrix == 1).sum(axis=0)
    for c in np.flatnonzero((positives > 0) & (positives != k)):
        message = f"{positives[c]} positives in column {c + 1}, but its name says {k}"
        raise DataError(f"{path}: {message}: name it as it was, or sample again")
    classes = [
        (int(c), rows.astype(np.int32), np.where(matrix[rows, c] == 1, 1, -1).astype(np.int8))
        for c in np.flatnonzero(positives)
        for rows in [np.flatnonzero(matrix[:, c] != UNUSED)]
    ]
    return Sample(classes, _digest(matrix))


def provenance(
    folder: str, samples: Mapping[tuple[int, int], Sample]
) -> dict[str, dict[str, object]]:
    """Return how SAMPLES, those that read() returns of FOLDER, were drawn.

    That is {k, as text: fields of a record}. The seed and the rule are those of the folder's
    samples.json, if it has the digests of these very samples. Without it the seed is None, and the
    rule is "single" where all classes have the same images.
    """
    path = os.path.join(folder, ABOUT)
    about: dict[str, Any] = {}
    digests: dict[int, dict[str, str]] = {}  # k -> those of its samples, by name
    if os.path.exists(path):
        about = formats.SAMPLES.read(path)
    for (k, number), sample in samples.items():
        digests.setdefault(k, {})[file_name(number, k)] = sample.digest
    fields: dict[str, dict[str, object]] = {}
    for k, each in digests.items():
        origin = about if each.items() <= about.get("digests", {}).items() else {}
        fields[str(k)] = {
            "sample_seed": origin.get("seed"),
            "sample_rule": origin.get("rule") or _rule(samples, k),
            "samples_digest": streams.digest(repr(sorted(each.items())).encode()),
        }
    return fields


def _rule(samples, k):
    """Return the rule by which SAMPLES of K appear to be drawn."""
    for (each, _number), sample in samples.items():
        rows = [rows for _c, rows, _signs in sample.classes]
        if each == k and (len(rows) < 2 or any(not np.array_equal(r, rows[0]) for r in rows)):
            return SEVERAL
    return SINGLE


def _digest(matrix):
    """Return the digest of a MATRIX of samples, whatever the type and order of its numbers."""
    blocks = (matrix[start : start + BLOCK] for start in range(0, len(matrix), BLOCK))
    return streams.digest(np.asarray(block, np.int8, "C").tobytes() for block in blocks)


def _check(path, matrix, labels, where):
    """Raise DataError, naming PATH, where MATRIX is no sample of LABELS of the manifest WHERE."""
    wrong = (matrix == 1) & (labels != POSITIVE) | (matrix == 0) & (labels == POSITIVE)
    if wrong.any():
        line = int(np.flatnonzero(wrong.any(axis=1))[0]) + 1
        raise DataError(f"{path}: row {line} contradicts line {line} of {where}: sample it again")
    sides = (matrix == 1).any(axis=0) == (matrix == 0).any(axis=0)
    if not sides.all() or not (matrix == 1).any():
        raise DataError(f"{path}: a class has positives or negatives alone: sample it again")
