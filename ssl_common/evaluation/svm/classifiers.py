"""One linear SVM per class on frozen features, as Goyal et al. measure VOC07 and COCO2014.

Cost chosen per class by 3-fold cross-validation; protocol and where the published code departs:
train-svm(1).
"""

import contextlib
import json
import threading
from typing import NamedTuple

import numpy as np

from ssl_common import containers, formats, streams, threads
from ssl_common.data import identity
from ssl_common.data.identity import Images
from ssl_common.data.manifest import DIFFICULT, POSITIVE
from ssl_common.evaluation.metrics import average_precision, levels
from ssl_common.evaluation.svm.examples import BLOCK, read_labelled
from ssl_common.streams import DataError

# The published command line asks for the powers of ten, the published code adds those of a half.
COSTS = np.array(sorted([float(f"1e{e}") for e in range(-7, 3)] + [0.5**e for e in range(4, 20)]))
FOLDS = 3
LONELY_COST = 1.0  # of a class that cannot be cross-validated, where no other class was
DRAWS, COUNTS = 100, 1 << 21  # bootstrap samples, and numbers of theirs, at a time
SCORES = 1 << 28  # bytes of decision values at a time


class Classifiers(NamedTuple):
    """What svm.npz holds; C classes, D features, K costs."""

    classes: list
    weights: np.ndarray  # (C, D + 1), the bias last; NaN for a class that could not be trained
    cost: np.ndarray  # (C,), NaN likewise
    chosen: list  # how each cost was: "folds", "others", "default"; "none" without a classifier
    ap: np.ndarray  # (C, K) mean over the folds, in [0, 1]; NaN where there were none
    images: Images  # of the training, sorted
    fields: dict

    def summary(self):
        """Return what train-svm says of its work."""
        said = [f"{len(self.classes)} classes, {len(self.images.paths)} images"]
        if "folds" in self.chosen:
            best = self.ap[[how == "folds" for how in self.chosen]].max(axis=1)
            said.append(f"{100 * best.mean():.2f} mAP in the folds")
        for how, text in (
            ("others", "cost taken from the other classes (fewer than 3 images) for"),
            ("default", f"cost {LONELY_COST:g} (no class has 3 images for the folds) for"),
            ("none", "no classifier (no positive, or no negative) for"),
        ):
            names = [
                name for name, each in zip(self.classes, self.chosen, strict=True) if each == how
            ]
            if names:
                said.append(f"{text} {', '.join(names)}")
        if self.fields["unconverged"]:
            fits = f"{self.fields['unconverged']} of {self.fields['fits']} fits"
            said.append(f"{fits} stopped before they converged")
        return "; ".join(said)


def train(features, manifest, tags, seed, workers, progress, *, solver="exact", device=None):
    """Train a classifier per class on the files FEATURES and MANIFEST; return Classifiers.

    SOLVER "exact" has WORKERS threads, on DEVICE; "liblinear" as many processes. PROGRESS is called
    with (work done, in all, note).
    """
    examples = read_labelled(features, manifest, tags)
    # A difficult image is a negative here, as in the published code.
    signs = np.where(examples.labels.T == POSITIVE, 1, -1).astype(np.int8)  # (C, N)
    rarer = np.minimum((signs == 1).sum(axis=1), (signs == -1).sum(axis=1))
    if not rarer.any():
        raise DataError(f"{streams.name(manifest)}: no class has both positives and negatives")
    validated, trained = np.flatnonzero(rarer >= FOLDS), np.flatnonzero(rarer)
    ap = np.full((len(examples.classes), len(COSTS)), np.nan)
    weights = np.full((len(examples.classes), examples.features.shape[1] + 1), np.nan)
    fits = len(validated) * FOLDS * len(COSTS) + len(trained)
    advance = Work(len(validated) * FOLDS * effort(COSTS).sum(), fits, progress)
    with solving(solver, examples, seed, workers, device) as solve:
        ap[validated], early = cross_validate(signs[validated], solve, advance)
        cost, chosen = choose(ap, rarer)
        advance.total += effort(cost[trained]).sum()
        weights[trained], late = solve.fit(signs[trained], cost[trained], advance)
    fields = examples.fields | {
        "train_images": len(examples.features),
        "train_manifest": examples.manifest.digest(),
        "train_labels": examples.manifest.digest_of_rows(),
        "train_dtype": examples.features.dtype.name,
        "svm_seed": seed,
        "solver": solver,
        "fits": fits,
        "unconverged": early + late,
    }
    images = identity.sort(examples.images)
    return Classifiers(examples.classes, weights, cost, chosen, ap, images, fields)


@contextlib.contextmanager
def solving(solver, examples, seed, workers, device):
    """Yield the SOLVER of that name for EXAMPLES."""
    if solver == "exact":
        from ssl_common.evaluation.svm.exact import Exact

        count = max(1, workers)
        with threads.sharing(count):
            yield Exact(examples, seed, count, device).on_all()
    else:
        from ssl_common.evaluation.svm.liblinear import Liblinear

        rows = np.empty(examples.features.shape)
        for index, block in enumerate(examples.normalised()):
            rows[index * BLOCK : index * BLOCK + len(block)] = block
        yield Liblinear(rows, seed, workers)


def effort(costs):
    """Return about how much work a fit at COSTS is: great costs take many more products."""
    return 4 + 20 * np.sqrt(costs)


class Work:
    """Tells PROGRESS (work done, TOTAL, fits done of FITS), called with the costs of fits done."""

    def __init__(self, total, fits, progress):
        self.total, self.fits, self.progress = total, fits, progress
        self.done, self.count, self.lock = 0, 0, threading.Lock()

    def __call__(self, costs):
        with self.lock:
            self.done, self.count = self.done + effort(costs).sum(), self.count + len(costs)
            note = f"{self.count:,} of {self.fits:,} fits"
            self.progress(int(100 * self.done / self.total), 100, note)


def cross_validate(signs, solve, advance):
    """Return the average precision of each class and cost, (C, K), and the unconverged fits.

    SIGNS (C, N) of all rows. Unshuffled stratified folds in row order; the mean over folds of
    scikit-learn's average precision (not interpolated), as in the published code.
    """
    from sklearn.model_selection import StratifiedKFold

    def validate(some):
        tests = [test for sign in some for _, test in StratifiedKFold(FOLDS).split(sign, sign)]
        kept = np.repeat(some, FOLDS, axis=0)
        for sign, test in zip(kept, tests, strict=True):
            sign[test] = 0
        ap, unconverged = np.empty((len(kept), len(COSTS))), 0
        for k, (scores, early) in enumerate(solve.path(kept, COSTS, advance)):
            unconverged += early
            for p, test in enumerate(tests):
                truth = some[p // FOLDS, test] == 1
                ap[p, k] = average_precision(levels(scores[p, test]), truth, "steps")
        return ap.reshape(len(some), FOLDS, -1).mean(axis=1), unconverged

    blocks = [signs[first : first + solve.block] for first in range(0, len(signs), solve.block)]
    found = list(solve.map(validate, blocks))
    if not found:
        return np.empty((0, len(COSTS))), 0
    return np.concatenate([ap for ap, _ in found]), sum(early for _, early in found)


def choose(ap, rarer):
    """Return the cost of each class, (C,), and how it was chosen.

    The best in the folds, the smallest of equals. A class whose RARER sign has fewer images than
    there are folds takes the cost chosen most often by the others, again the smallest of equals.
    """
    validated = rarer >= FOLDS
    best = np.argmax(ap[validated], axis=1)  # the first of equals: COSTS ascend
    others = COSTS[np.argmax(np.bincount(best))] if len(best) else LONELY_COST
    cost = np.where(rarer > 0, others, np.nan)
    cost[validated] = COSTS[best]
    few = "others" if len(best) else "default"
    return cost, ["folds" if n >= FOLDS else few if n else "none" for n in rarer]


def save(stream, trained):
    """Write TRAINED as .npz."""
    containers.write_arrays(
        stream,
        format=np.int64(formats.SVM.version),
        classes=np.array(trained.classes),
        coef=trained.weights[:, :-1],
        intercept=trained.weights[:, -1],
        cost=trained.cost,
        chosen=np.array(trained.chosen),
        costs=COSTS,
        ap=trained.ap,
        **trained.images.arrays(),
        fields=np.array(json.dumps(trained.fields, sort_keys=True)),
    )


def load(arrays, path):
    """Return the Classifiers of the ARRAYS that save wrote, read from the file PATH."""
    found = formats.SVM.check(arrays, path)
    weights = np.column_stack([found["coef"], found["intercept"]])
    names = ("cost", "chosen", "ap")
    images = Images(found["paths"], contents=found.get("contents"))
    told = (found[name] for name in names)
    return Classifiers(found["classes"], weights, *told, images, found["fields"])


def evaluate(path, trained, examples, scores=None, bootstrap=0, seed=0):
    """Return what a record says of the classifiers TRAINED, read from PATH, on EXAMPLES.

    Average precision per class over its not difficult images; its mean, in percent, over the
    classes that have one. SCORES, a stream, gets the decision values (N, C) as .npy; BOOTSTRAP
    samples, drawn from SEED, add an interval of the mean.
    """
    examples.check_fit(path, trained, trained.weights.shape[1] - 1)
    images, classes = len(examples.features), len(trained.classes)
    if scores:
        containers.write_array_header(scores, np.float64, (images, classes))
        for values in decisions(trained.weights, examples):
            scores.write(values.data)
    per_class, draws = dict.fromkeys(trained.classes), Draws(images, bootstrap, seed)
    together = max(1, SCORES // (8 * images))
    for first in range(0, classes, together):
        some = slice(first, first + together)
        values = np.concatenate(list(decisions(trained.weights[some], examples)))
        measured = []
        for name, how, own in zip(
            trained.classes[some], trained.chosen[some], values.T, strict=True
        ):
            if name not in examples.classes or how == "none":
                continue
            labels = examples.labels[:, examples.classes.index(name)]
            ranked = own, labels == POSITIVE, labels != DIFFICULT
            ap = _average_precision(*ranked)
            if not np.isnan(ap):
                per_class[name] = 100 * ap
                measured.append(ranked)
        draws.add(measured)
    found = [ap for ap in per_class.values() if ap is not None]
    if not found:
        where = streams.name(examples.manifest.path)
        raise DataError(f"{where}: shows no class of {streams.name(path)}: see its labels")
    record = {
        "task": "svm",
        "data_set": examples.data_set(trained.fields),
        "metric": "mAP",
        "value": float(np.mean(found)),
        "classes": len(found),
        "per_class": per_class,
    }
    return record | (draws.interval() if bootstrap else {})


def decisions(weights, examples):
    """Yield the decision values of WEIGHTS (C, D + 1) on EXAMPLES, (n, C), a block at a time."""
    for rows in examples.normalised():
        yield rows @ weights[:, :-1].T + weights[:, -1]


def _average_precision(scores, positive, clear, weights=None):
    """Return average_precision() over the images that are CLEAR, (N,), of a class."""
    weights = None if weights is None else weights[:, clear]
    return average_precision(scores[clear], positive[clear], weights=weights)


class Draws:
    """The mean average precision in each of COUNT draws of as many IMAGES, with replacement."""

    def __init__(self, images, count, seed):
        self.images, self.count, self.seed = images, count, seed
        self.sums, self.classes = np.zeros(count), np.zeros(count, int)

    def add(self, classes):
        """Take in CLASSES, each as _average_precision takes it."""
        together = max(1, min(DRAWS, COUNTS // self.images))
        for first in range(0, self.count if classes else 0, together):
            numbers = np.arange(first, min(first + together, self.count))
            counts = np.stack([self._counts(number) for number in numbers])
            for ranked in classes:
                ap = _average_precision(*ranked, weights=counts)  # NaN where it has no positive
                self.sums[numbers] += np.nan_to_num(ap)
                self.classes[numbers] += ~np.isnan(ap)

    def _counts(self, number):
        """Return how often each image is in draw NUMBER, (N,)."""
        drawn = np.random.default_rng((self.seed, int(number))).integers(
            self.images, size=self.images
        )
        return np.bincount(drawn, minlength=self.images)

    def interval(self):
        """Return what a record says of the draws; those without a positive of any class have none.

        Raises DataError where no draw has one.
        """
        some = self.classes > 0
        if not some.any():
            raise DataError(f"--bootstrap {self.count}: no draw has a positive: draw more")
        means = 100 * self.sums[some] / self.classes[some]
        return {
            "interval": np.percentile(means, [2.5, 97.5]).tolist(),
            "bootstrap": self.count,
            "bootstrap_left_out": int((~some).sum()),
            "bootstrap_seed": self.seed,
        }
