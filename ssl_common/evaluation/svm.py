"""One linear SVM per class on frozen features, as Goyal et al. measure VOC07 and COCO2014.

Cost chosen per class by 3-fold cross-validation; protocol and where the published code departs:
train-svm(1).
"""

import contextlib
import io
import json
import os
import threading
from typing import NamedTuple

import numpy as np

from ssl_common import records, streams
from ssl_common.data.manifest import DIFFICULT, POSITIVE, Manifest, label_matrix
from ssl_common.evaluation.metrics import average_precision
from ssl_common.streams import DataError

FORMAT = 1
# The published command line asks for the powers of ten, the published code adds those of a half.
COSTS = np.array(sorted([float(f"1e{e}") for e in range(-7, 3)] + [0.5**e for e in range(4, 20)]))
FOLDS = 3
GRAM = 20_000  # rows up to which their products, 12 N^2 bytes, are held
LONELY_COST = 1.0  # of a class that cannot be cross-validated, where no other class was
BLOCK = 1024  # rows normalised at a time
DRAWS = 100  # bootstrap samples at a time


class Examples(NamedTuple):
    """Features with the manifest they were made from, and what is known of them."""

    name: str
    features: np.ndarray  # (N, D), any real type
    manifest: Manifest
    classes: list  # of the manifest, in the order of their bytes
    labels: np.ndarray  # (N, C): POSITIVE, DIFFICULT or NEGATIVE
    fields: dict  # sidecar and tags

    def normalised(self):
        """Yield the rows as x / (||x|| + 1e-5), float64, a block at a time."""
        for rows, scale in self._blocks():
            yield rows * scale[:, None]

    def scale(self):
        """Return 1 / (||x|| + 1e-5) of each row, (N,) float64."""
        return np.concatenate([scale for _rows, scale in self._blocks()])

    def _blocks(self):
        """Yield rows, float64, and their scale, a block at a time.

        Raises DataError naming the line of a row that holds NaN or infinity.
        """
        for start in range(0, len(self.features), BLOCK):
            rows = self.features[start : start + BLOCK].astype(np.float64)
            norms = np.linalg.norm(rows, axis=1)
            bad = np.flatnonzero(~np.isfinite(norms))
            if len(bad):
                line = start + bad[0] + 1
                where = f"row {line}, line {line} of {streams.name(self.manifest.path)}"
                raise DataError(f"{self.name}: NaN or infinity in {where}: extract it again")
            yield rows, 1 / (norms + 1e-5)


class Classifiers(NamedTuple):
    """What svm.npz holds; C classes, D features, K costs."""

    classes: list
    weights: np.ndarray  # (C, D + 1), the bias last; NaN for a class that could not be trained
    cost: np.ndarray  # (C,), NaN likewise
    chosen: list  # how each cost was: "folds", "others", "default"; "none" without a classifier
    ap: np.ndarray  # (C, K) mean over the folds, in [0, 1]; NaN where there were none
    paths: np.ndarray  # uint64 hashes of the training paths, sorted
    fields: dict

    def summary(self):
        """Return what train-svm says of its work."""
        said = [f"{len(self.classes)} classes, {len(self.paths)} images"]
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


def read_examples(features, manifest, tags):
    """Read FEATURES (.npy or pipe) and MANIFEST; raise DataError where they do not fit together."""
    name, sidecar = streams.name(features), records.read_sidecar(features)
    sidecar = records.tagged(sidecar, tags, records.sidecar(features))
    array, rows = streams.read_array(features), Manifest(manifest)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        shape = " x ".join(map(str, array.shape)) or "a single number"
        raise DataError(f"{name}: {shape} of {array.dtype}: features are images x numbers")
    if len(array) != len(rows):
        other = streams.name(manifest)
        raise DataError(f"{name}: {len(array)} rows, but {other} has {len(rows)} lines")
    if sidecar.get("manifest") not in (None, rows.digest()):
        message = f"made from another manifest than {streams.name(manifest)}: extract them again"
        raise DataError(f"{name}: {message}")
    classes, labels = label_matrix(rows)
    fields = {k: v for k, v in sidecar.items() if k not in ("format", "manifest")}
    return Examples(name, array, rows, classes, labels, fields)


def read_labelled(features, manifest, tags):
    """Read examples to train on; raise DataError where none has a label."""
    examples = read_examples(features, manifest, tags)
    if not examples.classes:
        message = f"{streams.name(manifest)}: no labels: write path<TAB>label,label"
        raise DataError(message)
    return examples


class Exact:
    """Solves the problems of EXAMPLES together, with THREADS on DEVICE: see solver."""

    name = "exact"

    def __init__(self, examples, seed, threads, device):
        import torch

        from ssl_common.evaluation import solver

        self.solver, self.torch, self.threads = solver, torch, max(1, threads)
        torch.set_num_threads(self.threads)
        self.features = examples.features
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.scale = torch.from_numpy(examples.scale())
        self.seed, self.all = seed, None

    def on_all(self):
        """Get ready for problems on all rows; return self."""
        if len(self.features) <= min(self.features.shape[1], GRAM):
            space, self.block = self._gram(slice(None)), 10
        else:  # a pass over all features is to serve many problems
            space, self.block = self.solver.Rows(self.features, self.scale, self.device), 80
        self.all = space, self.solver.Preconditioner(space, self.seed)
        return self

    def on_parts(self, used):
        """Return a function that solves on some of the rows USED, at each of COSTS.

        It takes the rows and their signs (K, n), and returns (coefficients (K, n), unconverged).
        """
        whole = self._gram(used) if len(used) <= GRAM else None

        def solve(rows, signs):
            if len(rows) > self.features.shape[1]:
                space = self.solver.Rows(self.features[rows], self.scale[rows], self.device)
            elif whole:
                space = whole.part(np.searchsorted(used, rows))
            else:
                space = self._gram(rows)
            preconditioner = self.solver.Preconditioner(space, self.seed)
            weights, images, gaps = self._solve(space, preconditioner, signs, COSTS)
            if isinstance(space, self.solver.Rows):
                signs, costs = (self.torch.from_numpy(a).to(self.device) for a in (signs, COSTS))
                weights = self.solver.coefficients(signs, costs, images)
            return weights.cpu().numpy(), self._unconverged(gaps)

        return solve

    def map(self, function, items):
        """Yield FUNCTION(item) of ITEMS in their order, several at a time where there are several.

        Small products gain little from threads of their own, and lose much on a busy machine.
        """
        from concurrent.futures import ThreadPoolExecutor

        items = list(items)
        side_by_side = min(self.threads, len(items)) if self.device == "cpu" else 1
        each = self.threads // side_by_side
        with ThreadPoolExecutor(side_by_side, "", self.torch.set_num_threads, (each,)) as pool:
            try:
                yield from pool.map(function, items)
            except BaseException:
                if self.all:
                    self.all[0].halted = True
                pool.shutdown(cancel_futures=True)
                raise

    def _gram(self, rows):
        part = self.features[rows], self.scale[rows]
        return self.solver.Gram(self.solver.gram(*part, self.device))

    def path(self, signs, costs, advance):
        """Yield (scores of all rows (P, N), unconverged) of SIGNS (P, N) at each of COSTS."""
        start = None
        for cost in costs:
            costs = np.full(len(signs), cost)
            start = self._solve(*self.all, signs, costs, start[:2] if start else None)
            advance(np.full(len(signs), cost))
            yield start[1].cpu().numpy(), self._unconverged(start[2])

    def fit(self, signs, costs, advance):
        """Return (weights (P, D + 1) with the bias last, unconverged) at COSTS (P,)."""
        weights, _images, gaps = self._solve(*self.all, signs, costs)
        if isinstance(self.all[0], self.solver.Gram):
            rows = self.solver.Rows(self.features, self.scale, self.device)
            weights = rows.combination(weights)
        advance(costs)
        return weights.cpu().numpy(), self._unconverged(gaps)

    def _solve(self, space, preconditioner, signs, costs, start=None):
        signs, costs = (self.torch.from_numpy(a).to(self.device) for a in (signs, costs))
        return self.solver.solve(space, preconditioner, signs, costs, start)

    def _unconverged(self, gaps):
        return int((gaps > self.solver.TOLERANCE).sum())


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
        "svm_seed": seed,
        "solver": solver,
        "fits": fits,
        "unconverged": early + late,
    }
    paths = np.sort(examples.manifest.path_hashes())
    return Classifiers(examples.classes, weights, cost, chosen, ap, paths, fields)


def solving(solver, examples, seed, workers, device):
    """Return a context that yields the SOLVER of that name for EXAMPLES."""
    if solver == "exact":
        return contextlib.nullcontext(Exact(examples, seed, workers, device).on_all())
    from ssl_common.evaluation.liblinear import Liblinear

    rows = np.empty(examples.features.shape)
    for index, block in enumerate(examples.normalised()):
        rows[index * BLOCK : index * BLOCK + len(block)] = block
    return Liblinear(rows, seed, workers)


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
                ap[p, k] = average_precision(scores[p, test], truth, "steps")
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
    """Write TRAINED as .npz, the same bytes to a file and a pipe."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        format=np.int64(FORMAT),
        classes=np.array(trained.classes),
        coef=trained.weights[:, :-1],
        intercept=trained.weights[:, -1],
        cost=trained.cost,
        chosen=np.array(trained.chosen),
        costs=COSTS,
        ap=trained.ap,
        paths=trained.paths,
        fields=np.array(json.dumps(trained.fields, sort_keys=True)),
    )
    stream.write(buffer.getvalue())


def load(arrays, name):
    """Return the Classifiers of the ARRAYS that save wrote, read from the file NAME."""
    try:
        if arrays["format"] != FORMAT:
            raise DataError(f"{name}: format {arrays['format']}: train it with this version")
        weights = np.column_stack([arrays["coef"], arrays["intercept"]])
        fields = json.loads(str(arrays["fields"]))
        names = ("cost", "chosen", "ap", "paths")
        cost, chosen, ap, paths = (arrays[each] for each in names)
        return Classifiers(
            arrays["classes"].tolist(), weights, cost, chosen.tolist(), ap, paths, fields
        )
    except (KeyError, ValueError) as error:
        raise DataError(f"{name}: not written by train-svm ({error})") from error


def evaluate(
    path, features, manifest, tags, *, train_features=None, scores=None, bootstrap=0, seed=0
):
    """Return the records of the classifiers in the file PATH on the files FEATURES and MANIFEST.

    They lack their provenance. Average precision per class over its not difficult images; its mean,
    in percent, over the classes that have one. Low-shot classifiers need TRAIN_FEATURES, what they
    were trained on, and give a record each k and metric. SCORES, a stream, gets the decision values
    (N, C) as .npy; BOOTSTRAP samples, drawn from SEED, add an interval of the mean. Raises
    DataError for features the classifiers were not made for, or made from.
    """
    from ssl_common.evaluation import lowshot

    arrays, examples = streams.read_arrays(path), read_examples(features, manifest, tags)
    few = "lowshot_format" in arrays
    if few != (train_features is not None):
        kind = "low-shot classifiers: add" if few else "not low-shot classifiers: leave out"
        raise DataError(f"{streams.name(path)}: {kind} --train-features")
    if few and (scores or bootstrap):
        option = "--scores" if scores else "--bootstrap"
        raise DataError(f"{streams.name(path)}: low-shot classifiers: leave out {option}")
    if few:
        trained = lowshot.load(arrays, streams.name(path))
        found = list(lowshot.evaluate(path, trained, train_features, examples))
    else:
        trained = load(arrays, streams.name(path))
        found = [_measure(path, trained, examples, scores, bootstrap, seed)]
    same = trained.fields | {k: v for k, v in examples.fields.items() if v is not None}
    inputs = {
        "svm": _digest(path),
        "features": _digest(features),
        "manifest": examples.manifest.digest_of_rows(),  # its labels too, unlike test_manifest
    }
    same |= {
        "unseen": [name for name in examples.classes if name not in trained.classes],
        "test_images": len(examples.features),
        "test_manifest": examples.manifest.digest(),
        "inputs": inputs,
    }
    return [same | record for record in found]


def said(found):
    """Return what eval-svm says of the records FOUND."""
    first = found[0]
    texts = [
        f"{record['value']:.2f} {record['metric']}"
        + (f" at k = {record['k']}" if "k" in record else "")
        + ("" if "interval" not in record else " ({:.2f} to {:.2f})".format(*record["interval"]))
        for record in found
    ]
    over = f"over {first['classes']} of {len(first['per_class'])} classes"
    text = f"{', '.join(texts)} {over}, {first['test_images']} images"
    return text + (f"; not trained: {', '.join(first['unseen'])}" if first["unseen"] else "")


def data_set(fields, examples):
    """Return the data set in records: what tags of EXAMPLES or the training say, or its file."""
    said = examples.fields.get("data_set") or fields.get("data_set")
    return said or streams.stem(examples.manifest.path)


def _measure(path, trained, examples, scores, bootstrap, seed):
    """Return what a record says of the classifiers TRAINED, read from PATH, on EXAMPLES."""
    check_fit(path, trained, trained.weights.shape[1] - 1, examples)
    values = np.concatenate([r @ trained.weights[:, :-1].T for r in examples.normalised()])
    values += trained.weights[:, -1]
    if scores:
        streams.write_array(scores, values)
    counts = _counts(len(values), bootstrap, seed)
    per_class, drawn = dict.fromkeys(trained.classes), []
    for index, name in enumerate(trained.classes):
        if name in examples.classes and trained.chosen[index] != "none":
            labels = examples.labels[:, examples.classes.index(name)]
            clear = labels != DIFFICULT
            truth = labels[clear] == POSITIVE
            ap = average_precision(values[clear, index], truth)
            if not np.isnan(ap):
                per_class[name] = 100 * ap
                drawn += [
                    100 * average_precision(values[clear, index], truth, weights=some[:, clear])
                    for some in counts()
                ]
    measured = [ap for ap in per_class.values() if ap is not None]
    if not measured:
        where = streams.name(examples.manifest.path)
        raise DataError(f"{where}: shows no class of {streams.name(path)}: see its labels")
    record = {
        "task": "svm",
        "data_set": data_set(trained.fields, examples),
        "metric": "mAP",
        "value": float(np.mean(measured)),
        "classes": len(measured),
        "per_class": per_class,
    }
    if bootstrap:
        means = np.nanmean(np.concatenate(drawn).reshape(len(measured), bootstrap), axis=0)
        record["interval"] = np.percentile(means, [2.5, 97.5]).tolist()
        record |= {"bootstrap": bootstrap, "bootstrap_seed": seed}
    return record


def _counts(images, samples, seed):
    """Return a function that yields how often each of IMAGES is in each of SAMPLES, (b, N) each.

    A sample draws as many images as there are, with replacement; each call yields the same.
    """

    def counts():
        for start in range(0, samples, DRAWS):
            numbers = range(start, min(start + DRAWS, samples))
            yield np.stack([
                np.bincount(
                    np.random.default_rng((seed, number)).integers(images, size=images),
                    minlength=images,
                )
                for number in numbers
            ])  # fmt: skip

    return counts


def _digest(path):
    """Return the digest of the file PATH, None for a pipe."""
    return streams.file_digest(path) if os.path.isfile(path) else None


def check_fit(path, trained, width, examples):
    """Raise DataError where EXAMPLES are not for the classifiers TRAINED, read from PATH.

    WIDTH is how many numbers an image they take.
    """
    for key in ("layer", "model"):
        ours, theirs = trained.fields.get(key), examples.fields.get(key)
        if None not in (ours, theirs) and ours != theirs:
            message = f"{key} {theirs}, but {streams.name(path)} was trained on {key} {ours}"
            raise DataError(f"{examples.name}: {message}")
    if examples.features.shape[1] != width:
        message = (
            f"{examples.features.shape[1]} numbers an image, but {streams.name(path)} takes {width}"
        )
        raise DataError(f"{examples.name}: {message}")
    examples.manifest.check_unseen(trained.paths, streams.name(path))
