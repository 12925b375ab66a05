"""Compare the exact solver with LIBLINEAR at every class, cost and fold of the protocol.

    python benchmarks/agreement.py TRAIN.npy TRAIN.tsv TEST.npy TEST.tsv [ITERATIONS]
    python benchmarks/agreement.py      # 5,011 x 8,192 generated, 2,000 to test (10 minutes)

LIBLINEAR stops after 2,000 ITERATIONS, as in train-svm, or after others, on one core. Writes a
table on standard output; RESULTS.md keeps what it said.
"""

import os
import pathlib
import sys
import tempfile

import numpy as np
from bench import made, write_manifest
from sklearn.model_selection import StratifiedKFold

from ssl_common.data.manifest import DIFFICULT, POSITIVE
from ssl_common.evaluation.metrics import average_precision
from ssl_common.evaluation.svm import liblinear
from ssl_common.evaluation.svm.classifiers import COSTS, FOLDS, choose, rarer_signs, solving
from ssl_common.evaluation.svm.examples import read_labelled


def objective(squared, scores, signs, cost):
    """Return SQUARED / 2 + COST x the weighted squared hinge of SCORES (P, N), (P,): LIBLINEAR's.

    SQUARED (P,) is |w|^2.
    """
    share = np.where(signs == 1, liblinear.POSITIVE_WEIGHT, np.abs(signs))  # 0: takes no part
    return squared / 2 + cost * (share * (1 - signs * scores).clip(0) ** 2).sum(axis=1)


def compare(train, test, workers):
    """Yield (what, exact's, LIBLINEAR's, with WORKERS) on the Examples TRAIN and TEST."""
    signs = np.where(train.labels.T == POSITIVE, 1, -1).astype(np.int8)
    rarer = rarer_signs(signs)
    signs = signs[kept := rarer >= FOLDS]
    tests = [part for sign in signs for _, part in StratifiedKFold(FOLDS).split(sign, sign)]
    folds = np.repeat(signs, FOLDS, axis=0)
    for sign, part in zip(folds, tests, strict=True):
        sign[part] = 0
    excess, ap, weights = [], np.empty((2, len(tests), len(COSTS))), []
    solvers = [solving(name, train, 0, workers, None) for name in ("exact", "liblinear")]
    with solvers[0] as ours, solvers[1] as theirs:
        paths = (each.path(folds, COSTS, lambda _costs: None) for each in (ours, theirs))
        for k, both in enumerate(zip(*paths, strict=True)):
            values = [objective(each.squared_norms, each.scores, folds, COSTS[k]) for each in both]
            excess.append(np.array(values) / np.min(values, axis=0) - 1)
            for each, solutions in zip(ap, both, strict=True):
                for p, part in enumerate(tests):
                    truth = signs[p // FOLDS, part] == 1
                    each[p, k] = average_precision(solutions.scores[p, part], truth, "steps")
        ap = 100 * ap.reshape(2, len(signs), FOLDS, -1).mean(axis=2)  # (2, C, K)
        costs = [choose(each, rarer[kept])[0] for each in ap]
        for backend, cost in zip((ours, theirs), costs, strict=True):
            weights.append(backend.fit(signs, cost, lambda _costs: None)[0])
    excess = np.array(excess)  # (K, 2, P)
    yield "problems", excess[:, 0].size, excess[:, 1].size
    yield "the other's objective is less, most (relative)", *excess.max(axis=(0, 2))
    for limit in (1e-6, 1e-4):
        yield f"... by more than {limit:g}, problems", *(excess > limit).sum(axis=(0, 2))
    yield "mAP in the folds, best cost", *ap.max(axis=2).mean(axis=1)
    places = [np.searchsorted(COSTS, cost) for cost in costs]
    same, every = (places[0] == places[1]).sum(), len(signs)
    yield "classes with the cost of the other, of all", same, every
    lost = [e.max(1) - e[range(every), other] for e, other in zip(ap, places[::-1], strict=True)]
    yield "AP lost in the folds with the other's cost, most", *(each.max() for each in lost)
    at = [test.classes.index(name) for name in np.array(train.classes)[kept]]
    data = np.concatenate(list(test.normalised()))
    mean = []
    for each in weights:
        scores, labels = data @ each[:, :-1].T + each[:, -1], test.labels[:, at]
        clear = labels != DIFFICULT
        columns = zip(scores.T, labels.T == POSITIVE, clear.T, strict=True)
        mean.append(np.nanmean([average_precision(s[c], p[c]) for s, p, c in columns]))
    yield "mAP in test", *(100 * each for each in mean)


def generated(folder):
    """Write features and manifests to train and to test below FOLDER; return their four paths."""
    labels = made(7011, 8192, 20, folder / "all.npy")
    rows = np.load(folder / "all.npy", mmap_mode="r")
    for name, part in (("train", slice(5011)), ("test", slice(5011, None))):
        np.save(folder / f"{name}.npy", rows[part])
        write_manifest(folder / f"{name}.tsv", labels[part])
    return [str(folder / f"{name}.{end}") for name in ("train", "test") for end in ("npy", "tsv")]


def main():
    with tempfile.TemporaryDirectory(prefix="agreement-") as folder:
        paths = sys.argv[1:5] or generated(pathlib.Path(folder))
        workers = len(os.sched_getaffinity(0))
        if sys.argv[5:]:  # here alone, not in processes
            liblinear.MAX_ITERATIONS, workers = int(sys.argv[5]), 1
        train, test = (read_labelled(*pair, {}) for pair in (paths[:2], paths[2:]))
        for what, *values in compare(train, test, workers):
            sys.stdout.write("\t".join([what, *(f"{value:.6g}" for value in values)]) + "\n")


if __name__ == "__main__":
    main()
