"""One linear SVM per class on frozen features, as Goyal et al. measure VOC07 and COCO2014.

The cost of each class is the best in 3-fold cross-validation, as in the paper and its authors'
tools/svm/train_svm_kfold.py; train-svm(1) says where the two differ, and where we do.
"""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from ssl_common import containers, formats, streams
from ssl_common.data import identity
from ssl_common.data.identity import Images
from ssl_common.data.manifest import DIFFICULT, POSITIVE
from ssl_common.evaluation.metrics import average_precision, levels
from ssl_common.evaluation.svm.backend import BLOCK, FOLDS, Advance, Backend, ScaledFeatures
from ssl_common.evaluation.svm.examples import Examples, read_labelled
from ssl_common.progress import Progress
from ssl_common.streams import DataError

# The published command line asks for the powers of ten, the published code adds those of a half.
COSTS = np.array(sorted([float(f"1e{e}") for e in range(-7, 3)] + [0.5**e for e in range(4, 20)]))
LONELY_COST = 1.0  # of a class that cannot be cross-validated, where no other class was
DRAWS, COUNTS = 100, 1 << 21  # bootstrap samples, and numbers of theirs, at a time
SCORES = 1 << 28  # bytes of decision values at a time

Solver = Literal["exact", "liblinear"]


class Classifiers(NamedTuple):
    """What svm.npz holds; C classes, D features, K costs."""

    classes: list[str]
    weights: np.ndarray  # (C, D + 1), the bias last; NaN for a class that could not be trained
    cost: np.ndarray  # (C,), NaN likewise
    # Where each cost is from: "folds", "others", "default"; "none" without a classifier. In the
    # file it is "chosen".
    cost_from: list[str]
    ap: np.ndarray  # (C, K) mean over the folds, in [0, 1]; NaN where there were none
    images: Images  # of the training, sorted
    fields: dict[str, Any]  # of the training

    def summary(self) -> str:
        """Return what train-svm says of its work."""
        parts = [f"{len(self.classes)} classes, {len(self.images.paths)} images"]
        if "folds" in self.cost_from:
            best = self.ap[[each == "folds" for each in self.cost_from]].max(axis=1)
            parts.append(f"{100 * best.mean():.2f} mAP in the folds")
        for origin, text in (
            ("others", "cost taken from the other classes (fewer than 3 images) for"),
            ("default", f"cost {LONELY_COST:g} (no class has 3 images for the folds) for"),
            ("none", "no classifier (no positive, or no negative) for"),
        ):
            pairs = zip(self.classes, self.cost_from, strict=True)
            if names := [name for name, each in pairs if each == origin]:
                parts.append(f"{text} {', '.join(names)}")
        if self.fields["unconverged"]:
            fits = f"{self.fields['unconverged']} of {self.fields['fits']} fits"
            parts.append(f"{fits} stopped before they converged")
        return "; ".join(parts)


def train(
    features: str,
    manifest: str,
    tags: Mapping[str, str],
    seed: int,
    workers: int,
    progress: Progress,
    *,
    solver: Solver = "exact",
    device: str | None = None,
) -> Classifiers:
    """Return Classifiers, one per class, trained on the files FEATURES and MANIFEST.

    TAGS {field: text} add to their fields. SOLVER "exact" has WORKERS threads, on DEVICE;
    "liblinear" as many processes. Raises DataError where the files do not belong together, and
    where no class has both positives and negatives.
    """
    examples = read_labelled(features, manifest, tags)
    # A difficult image is a negative here, as in the published code.
    signs = np.where(examples.labels.T == POSITIVE, 1, -1).astype(np.int8)  # (C, N)
    if not rarer_signs(signs).any():
        raise DataError(f"{streams.name(manifest)}: no class has both positives and negatives")
    fit = fit_all(signs, examples, seed, workers, progress, solver=solver, device=device)
    fields = examples.fields | {
        "train_images": len(examples.features),
        "train_manifest": examples.manifest.digest(),
        "train_labels": examples.manifest.digest_of_rows(),
        "train_dtype": examples.features.dtype.name,
        "svm_seed": seed,
        "solver": solver,
        "fits": fit.fits,
        "unconverged": fit.unconverged,
    }
    return Classifiers(
        examples.classes,
        fit.weights,
        fit.cost,
        fit.cost_from,
        fit.ap,
        identity.sort(examples.images),
        fields,
    )


class Fit(NamedTuple):
    """The SVMs of C classes on rows of D features; see Classifiers."""

    weights: np.ndarray  # (C, D + 1)
    cost: np.ndarray  # (C,)
    cost_from: list[str]
    ap: np.ndarray  # (C, K)
    fits: int
    unconverged: int


def rarer_signs(signs: np.ndarray) -> np.ndarray:
    """Return how many rows of each of SIGNS (C, N), 1 or -1, have the rarer one, (C,)."""
    return np.minimum((signs == 1).sum(axis=1), (signs == -1).sum(axis=1))


def fit_all(
    signs: np.ndarray,
    rows: ScaledFeatures,
    seed: int,
    workers: int,
    progress: Progress,
    *,
    solver: Solver = "exact",
    device: str | None = None,
) -> Fit:
    """Return the Fit of SIGNS (C, N), int8 1 or -1, on ROWS; the rest is as for train().

    A class whose rows have one sign is left out.
    """
    rarer = rarer_signs(signs)
    validated, trained = np.flatnonzero(rarer >= FOLDS), np.flatnonzero(rarer)
    ap = np.full((len(signs), len(COSTS)), np.nan)
    weights = np.full((len(signs), rows.features.shape[1] + 1), np.nan)
    fits = len(validated) * FOLDS * len(COSTS) + len(trained)
    advance = Work(len(validated) * FOLDS * effort(COSTS).sum(), fits, progress)
    with solving(solver, rows, seed, workers, device) as backend:
        ap[validated], early = cross_validate(signs[validated], backend, advance)
        cost, cost_from = choose(ap, rarer)
        advance.total += effort(cost[trained]).sum()
        weights[trained], late = backend.fit(signs[trained], cost[trained], advance)
    return Fit(weights, cost, cost_from, ap, fits, early + late)


@contextlib.contextmanager
def solving(
    solver: Solver, rows: ScaledFeatures, seed: int, workers: int, device: str | None
) -> Iterator[Backend]:
    """Yield the Backend SOLVER for all ROWS; the rest is as for train()."""
    if solver == "exact":
        from ssl_common.evaluation.svm import exact

        with exact.solving(rows, seed, max(1, workers), device) as backend:
            yield backend
    else:
        from ssl_common.evaluation.svm.liblinear import Liblinear

        array = np.empty(rows.features.shape)
        for index, block in enumerate(rows.normalised()):
            array[index * BLOCK : index * BLOCK + len(block)] = block
        yield Liblinear(array, seed, workers)


def effort(costs: np.ndarray) -> np.ndarray:
    """Return about how much work a fit at each of COSTS is: great costs take many more products."""
    return 4 + 20 * np.sqrt(costs)


class Work:
    """An Advance that tells PROGRESS how much is done: of TOTAL, in a unit of work, and of FITS."""

    def __init__(self, total: float, fits: int, progress: Progress) -> None:
        self.total, self.fits, self.progress = total, fits, progress
        self.done, self.count, self.lock = 0.0, 0, threading.Lock()

    def __call__(self, costs: np.ndarray) -> None:
        self.add(effort(costs).sum(), len(costs))

    def add(self, work: float, fits: int) -> None:
        """Tell that WORK and so many FITS are done as well; any thread may."""
        with self.lock:
            self.done, self.count = self.done + work, self.count + fits
            note = f"{self.count:,} of {self.fits:,} fits"
            self.progress(int(100 * self.done / self.total), 100, note)


def cross_validate(signs: np.ndarray, backend: Backend, advance: Advance) -> tuple[np.ndarray, int]:
    """Return the average precision of each class and cost, (C, K), and how many fits ended early.

    SIGNS (C, N) are those of all rows of the BACKEND. Unshuffled stratified folds in row order; the
    mean over folds of scikit-learn's average precision (not interpolated), as in the authors' code.
    """
    from sklearn.model_selection import StratifiedKFold

    def validate(some: np.ndarray) -> tuple[np.ndarray, int]:
        tests = [test for sign in some for _, test in StratifiedKFold(FOLDS).split(sign, sign)]
        kept = np.repeat(some, FOLDS, axis=0)
        for sign, test in zip(kept, tests, strict=True):
            sign[test] = 0
        ap, unconverged = np.empty((len(kept), len(COSTS))), 0
        for k, solutions in enumerate(backend.path(kept, COSTS, advance)):
            unconverged += solutions.unconverged
            for p, test in enumerate(tests):
                truth = some[p // FOLDS, test] == 1
                ap[p, k] = average_precision(levels(solutions.scores[p, test]), truth, "steps")
        return ap.reshape(len(some), FOLDS, -1).mean(axis=1), unconverged

    step = backend.block
    blocks = [signs[first : first + step] for first in range(0, len(signs), step)]
    results = list(backend.map(validate, blocks))
    if not results:
        return np.empty((0, len(COSTS))), 0
    return np.concatenate([ap for ap, _ in results]), sum(early for _, early in results)


def choose(ap: np.ndarray, rarer: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the cost of each class, (C,), and where it is from, as in Classifiers.

    AP (C, K) is that of the folds; RARER (C,) is how many images have the rarer sign. The cost is
    the best in the folds, the smallest of equals. A class with fewer rare images than there are
    folds takes the cost that most of the others take, again the smallest of equals.
    """
    validated = rarer >= FOLDS
    best = np.argmax(ap[validated], axis=1)  # the first of equals: COSTS ascend
    others = COSTS[np.argmax(np.bincount(best))] if len(best) else LONELY_COST
    cost = np.where(rarer > 0, others, np.nan)
    cost[validated] = COSTS[best]
    few = "others" if len(best) else "default"
    return cost, ["folds" if n >= FOLDS else few if n else "none" for n in rarer]


def save(stream: BinaryIO, trained: Classifiers) -> None:
    """Write the classifiers TRAINED as .npz."""
    containers.write_arrays(
        stream,
        format=np.int64(formats.SVM.version),
        classes=np.array(trained.classes),
        coef=trained.weights[:, :-1],
        intercept=trained.weights[:, -1],
        cost=trained.cost,
        chosen=np.array(trained.cost_from),
        costs=COSTS,
        ap=trained.ap,
        **trained.images.arrays(),
        fields=np.array(json.dumps(trained.fields, sort_keys=True)),
    )


def load(arrays: Mapping[str, np.ndarray], path: str) -> Classifiers:
    """Return the Classifiers of the ARRAYS that save wrote, read from the file PATH.

    Raises DataError for any others.
    """
    content = formats.SVM.check(arrays, path)
    return Classifiers(
        classes=content["classes"],
        weights=np.column_stack([content["coef"], content["intercept"]]),
        cost=content["cost"],
        cost_from=content["chosen"],
        ap=content["ap"],
        images=Images(content["paths"], contents=content.get("contents")),
        fields=content["fields"],
    )


def evaluate(
    path: str,
    trained: Classifiers,
    examples: Examples,
    scores: BinaryIO | None = None,
    bootstrap: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what a record says of the classifiers TRAINED, read from PATH, on EXAMPLES.

    Average precision per class over its not difficult images; its mean, in percent, over the
    classes that have one. SCORES, a stream, gets the decision values (N, C) as .npy; BOOTSTRAP
    samples of the images, drawn from SEED, add an interval of the mean. Raises DataError where the
    examples are not for these classifiers, and where they show none of the classes.
    """
    examples.check_fit(path, trained.fields, trained.weights.shape[1] - 1)
    images, classes = len(examples.features), len(trained.classes)
    if scores:
        containers.write_array_header(scores, np.float64, (images, classes))
        for values in decisions(trained.weights, examples):
            scores.write(values.data)
    per_class: dict[str, float | None] = dict.fromkeys(trained.classes)
    draws = Draws(images, bootstrap, seed)
    together = max(1, SCORES // (8 * images))
    for first in range(0, classes, together):
        some = slice(first, first + together)
        values = np.concatenate(list(decisions(trained.weights[some], examples)))
        rankings = []
        for name, origin, own in zip(
            trained.classes[some], trained.cost_from[some], values.T, strict=True
        ):
            if name not in examples.classes or origin == "none":
                continue
            labels = examples.labels[:, examples.classes.index(name)]
            ranking = Ranking(own, labels == POSITIVE, labels != DIFFICULT)
            ap = ranking.average_precision()
            if not np.isnan(ap):
                per_class[name] = 100 * ap
                rankings.append(ranking)
        draws.add(rankings)
    percents = [ap for ap in per_class.values() if ap is not None]
    if not percents:
        where = streams.name(examples.manifest.path)
        raise DataError(f"{where}: shows no class of {streams.name(path)}: see its labels")
    record = {
        "task": "svm",
        "data_set": examples.data_set(trained.fields),
        "metric": "mAP",
        "value": float(np.mean(percents)),
        "classes": len(percents),
        "per_class": per_class,
    }
    return record | (draws.interval() if bootstrap else {})


def decisions(weights: np.ndarray, examples: Examples) -> Iterator[np.ndarray]:
    """Yield the decision values of WEIGHTS (C, D + 1) on EXAMPLES, (n, C), a block at a time."""
    for rows in examples.normalised():
        yield rows @ weights[:, :-1].T + weights[:, -1]


class Ranking(NamedTuple):
    """All N images as the classifier of a class ranks them."""

    scores: np.ndarray  # (N,) decision values
    positive: np.ndarray  # (N,) bool: the image shows the class
    clear: np.ndarray  # (N,) bool: it is not difficult

    def average_precision(self) -> float:
        """Return the average precision over the images that are clear, NaN without a positive."""
        return average_precision(self.scores[self.clear], self.positive[self.clear])

    def average_precisions(self, counts: np.ndarray) -> np.ndarray:
        """Return it, (B,), for each of COUNTS (B, N) of how often an image is there."""
        scores, positive = self.scores[self.clear], self.positive[self.clear]
        return average_precision(scores, positive, weights=counts[:, self.clear])


class Draws:
    """The mean average precision in each of COUNT draws of as many IMAGES, with replacement."""

    def __init__(self, images: int, count: int, seed: int) -> None:
        self.images, self.count, self.seed = images, count, seed
        self.sums, self.classes = np.zeros(count), np.zeros(count, int)

    def add(self, rankings: list[Ranking]) -> None:
        """Take in some classes, by their RANKINGS."""
        together = max(1, min(DRAWS, COUNTS // self.images))
        for first in range(0, self.count if rankings else 0, together):
            numbers = np.arange(first, min(first + together, self.count))
            counts = np.stack([self._counts(number) for number in numbers.tolist()])
            for ranking in rankings:
                ap = ranking.average_precisions(counts)  # NaN where there is no positive
                self.sums[numbers] += np.nan_to_num(ap)
                self.classes[numbers] += ~np.isnan(ap)

    def _counts(self, number: int) -> np.ndarray:
        """Return how often each image is in draw NUMBER, (N,)."""
        generator = np.random.default_rng((self.seed, number))
        rows = generator.integers(self.images, size=self.images)
        return np.bincount(rows, minlength=self.images)

    def interval(self) -> dict[str, Any]:
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
