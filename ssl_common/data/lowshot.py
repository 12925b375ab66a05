"""Low-shot samples: k positives of each class, and the negatives to tell them from."""

import os
import re

import numpy as np

from ssl_common import containers, formats, streams
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
                    containers.write_array(stream, chosen)
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
    """Return {(k, number): matrix (N, C)} of the files in FOLDER, in that order.

    Raises DataError where one is not a sample of LABELS (N, C), which are those of MANIFEST.
    """
    found, where = {}, streams.name(manifest.path)
    words = zip("NC", labels.shape, ("lines", "classes"), strict=True)
    shape = {letter: (number, f"{word} of {where}") for letter, number, word in words}
    for name in os.listdir(folder):
        if match := re.fullmatch(r"sample(\d+)_k(\d+)\.npy", name):
            path = os.path.join(folder, name)
            matrix = np.asarray(formats.SAMPLE.read(path, **shape)["sample"])
            _check(path, matrix, labels, where)
            found[int(match[2]), int(match[1])] = matrix
    if not found:
        raise DataError(f"{folder}: no sampleS_kK.npy: write some with sample-low-shot")
    return dict(sorted(found.items()))


def _check(path, matrix, labels, where):
    """Raise DataError, naming PATH, where MATRIX is no sample of LABELS of the manifest WHERE."""
    wrong = (matrix == 1) & (labels != POSITIVE) | (matrix == 0) & (labels == POSITIVE)
    if wrong.any():
        line = int(np.flatnonzero(wrong.any(axis=1))[0]) + 1
        raise DataError(f"{path}: row {line} contradicts line {line} of {where}: sample it again")
    sides = (matrix == 1).any(axis=0) == (matrix == 0).any(axis=0)
    if not sides.all() or not (matrix == 1).any():
        raise DataError(f"{path}: a class has positives or negatives alone: sample it again")
