"""Low-shot samples: k positives of each class, and the negatives to tell them from."""

import os
import re

import numpy as np

from ssl_common import streams
from ssl_common.data.manifest import NEGATIVE, POSITIVE, label_matrix
from ssl_common.streams import DataError

UNUSED = -1  # in a sample, where 1 is a positive and 0 a negative
NEGATIVES = 19  # per positive, where an image may show several classes


def sample(labels, single, k, seed, number):
    """Return sample NUMBER of K positives a class, int8 (N, C): 1, 0, or UNUSED.

    LABELS (N, C) are of label_matrix, SINGLE says that each row has one class. Then the sample is k
    images a class, each negative for all other classes; else k positives and 19k negatives of each
    class by itself, none of them difficult. A class with fewer is UNUSED. What is drawn depends on
    (SEED, NUMBER, K, class) alone.
    """
    chosen = np.full(labels.shape, UNUSED, np.int8)
    drawn = {}
    for c in range(labels.shape[1]):
        draw = np.random.default_rng((seed, number, k, c))
        positive, negative = (np.flatnonzero(labels[:, c] == v) for v in (POSITIVE, NEGATIVE))
        if len(positive) < k or (not single and len(negative) < NEGATIVES * k):
            continue
        drawn[c] = draw.choice(positive, k, replace=False)
        if not single:
            chosen[draw.choice(negative, NEGATIVES * k, replace=False), c] = 0
    if single and drawn:
        chosen[np.ix_(np.concatenate(list(drawn.values())), list(drawn))] = 0
    for c, rows in drawn.items():
        chosen[rows, c] = 1
    return chosen


def is_single(labels):
    """Tell whether each row of LABELS (N, C) has one class and no difficult one."""
    return bool(((labels != NEGATIVE).sum(axis=1) == 1).all() and (labels != 0).all())


def write(manifest, ks, samples, seed, folder):
    """Write SAMPLES samples of each of KS positives of MANIFEST into the new FOLDER.

    Return (names of files, {k: classes too small for it}). Raises DataError where no class has
    enough for the smallest k.
    """
    classes, labels = label_matrix(manifest)
    single, names, small = is_single(labels), [], {}
    with streams.writing_folder(folder) as partial:
        for k in ks:
            for number in range(1, samples + 1):
                chosen = sample(labels, single, k, seed, number)
                kept = (chosen != UNUSED).any(axis=0)
                small[k] = [name for name, there in zip(classes, kept, strict=True) if not there]
                if not kept.any():
                    break
                names.append(file_name(number, k))
                with streams.writing(os.path.join(partial, names[-1])) as stream:
                    streams.write_array(stream, chosen)
        if not names:
            k = min(ks)
            needed = f"{k} images" if single else f"{k} positives and {NEGATIVES * k} negatives"
            advice = "take a lower k" if k > 1 else "list more images"
            raise DataError(f"{streams.name(manifest.path)}: no class has {needed}: {advice}")
    return names, small


def file_name(number, k):
    """Return what the file of sample NUMBER of K positives is called."""
    return f"sample{number}_k{k}.npy"


def read(folder, labels, manifest):
    """Return {(k, number): [(class, rows, signs), ...]} of the files in FOLDER, in that order.

    Of each class that a sample has, rows are its images, int32 (n,), and signs, int8, 1 or -1.
    Raises DataError where one is not a sample of LABELS (N, C), which are those of MANIFEST, or
    not of the k that its name says.
    """
    found, paths = {}, {}
    for name in sorted(os.listdir(folder)):
        if match := re.fullmatch(r"(?:.*_)?sample([0-9]{1,9})_k([0-9]{1,9})\.npy", name):
            path, key = os.path.join(folder, name), (int(match[2]), int(match[1]))
            if key in paths:
                message = f"sample {key[1]} of k = {key[0]}, as {paths[key]} is: remove one of them"
                raise DataError(f"{path}: {message}")
            found[key], paths[key] = _read(path, key[0], labels, manifest), path
    if not found:
        raise DataError(f"{folder}: no sampleS_kK.npy: write some with sample-low-shot")
    return dict(sorted(found.items()))


def _read(path, k, labels, manifest):
    """Return what read() says of the one file PATH."""
    if not os.path.isfile(path):
        raise DataError(f"{path}: not a regular file: samples are")
    matrix = np.asarray(streams.read_array(path))
    _check(path, matrix, labels, manifest)
    positives = (matrix == 1).sum(axis=0)
    for c in np.flatnonzero((positives > 0) & (positives != k)):
        message = f"{positives[c]} positives in column {c + 1}, but its name says {k}"
        raise DataError(f"{path}: {message}: name it as it was, or sample again")
    return [
        (int(c), rows.astype(np.int32), np.where(matrix[rows, c] == 1, 1, -1).astype(np.int8))
        for c in np.flatnonzero(positives)
        for rows in [np.flatnonzero(matrix[:, c] != UNUSED)]
    ]


def _check(path, matrix, labels, manifest):
    """Raise DataError, naming PATH, where MATRIX is not a sample of LABELS of MANIFEST."""
    where = streams.name(manifest.path)
    if matrix.shape != labels.shape or matrix.dtype.kind != "i":
        shape = " x ".join(map(str, matrix.shape))
        message = f"{shape} of {matrix.dtype}, but {where} has {labels.shape[0]} lines and"
        raise DataError(f"{path}: {message} {labels.shape[1]} classes: sample it again")
    wrong = ~np.isin(matrix, (UNUSED, 0, 1))
    wrong |= (matrix == 1) & (labels != POSITIVE) | (matrix == 0) & (labels == POSITIVE)
    if wrong.any():
        line = int(np.flatnonzero(wrong.any(axis=1))[0]) + 1
        raise DataError(f"{path}: row {line} contradicts line {line} of {where}: sample it again")
    sides = (matrix == 1).any(axis=0) == (matrix == 0).any(axis=0)
    if not sides.all() or not (matrix == 1).any():
        raise DataError(f"{path}: a class has positives or negatives alone: sample it again")
