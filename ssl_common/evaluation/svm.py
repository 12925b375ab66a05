"""One linear SVM per class on frozen features, as Goyal et al. measure VOC07 and COCO2014.

Cost chosen per class by 3-fold cross-validation; protocol and where the published code departs:
train-svm(1).
"""

import contextlib
import hashlib
import io
import itertools
import json
import os
import tempfile
from typing import NamedTuple

import numpy as np

from ssl_common import records, streams
from ssl_common.cli import born_deaf
from ssl_common.data.manifest import DIFFICULT, POSITIVE, Manifest, label_matrix
from ssl_common.evaluation.metrics import average_precision
from ssl_common.streams import DataError

FORMAT = 1
# The published command line asks for the powers of ten, the published code adds those of a half.
COSTS = np.array(sorted([float(f"1e{e}") for e in range(-7, 3)] + [0.5**e for e in range(4, 20)]))
FOLDS = 3
POSITIVE_WEIGHT = 2
MAX_ITERATIONS = 2000
LONELY_COST = 1.0  # of a class that cannot be cross-validated, where no other class was
BLOCK = 1024  # rows normalised at a time


class Examples(NamedTuple):
    """Features with the manifest they were made from, and what is known of them."""

    name: str
    features: np.ndarray  # (N, D), any real type
    manifest: Manifest
    classes: list  # of the manifest, in the order of their bytes
    labels: np.ndarray  # (N, C): POSITIVE, DIFFICULT or NEGATIVE
    fields: dict  # sidecar and tags

    def normalised(self):
        """Yield the rows as x / (||x|| + 1e-5), float64, a block at a time.

        Raises DataError naming the line of a row that holds NaN or infinity.
        """
        for start in range(0, len(self.features), BLOCK):
            rows = self.features[start : start + BLOCK].astype(np.float64)
            norms = np.linalg.norm(rows, axis=1, keepdims=True)
            bad = np.flatnonzero(~np.isfinite(norms))
            if len(bad):
                line = start + bad[0] + 1
                where = f"row {line}, line {line} of {streams.name(self.manifest.path)}"
                raise DataError(f"{self.name}: NaN or infinity in {where}: extract it again")
            yield rows / (norms + 1e-5)


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
            said.append(f"{fits} stopped at {MAX_ITERATIONS} iterations")
        return "; ".join(said)


class Problem(NamedTuple):
    """A binary SVM: SIGNS (N,) int8 is 1 and -1, and 0 for a row that takes no part."""

    signs: np.ndarray
    cost: float


def read_examples(features, manifest, tags):
    """Read FEATURES (.npy or pipe) and MANIFEST; raise DataError where they do not fit together."""
    name, sidecar = streams.name(features), records.read_sidecar(features)
    for key, value in records.typed(tags).items():
        if sidecar.get(key) not in (None, value):
            raise DataError(f"--tag {key}={value}: {records.sidecar(features)} says {sidecar[key]}")
        sidecar[key] = value
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


def train(features, manifest, tags, seed, workers, progress):
    """Train a classifier per class on the files FEATURES and MANIFEST; return Classifiers.

    WORKERS processes solve the problems; PROGRESS is called with (problems done, in all).
    """
    examples = read_examples(features, manifest, tags)
    if not examples.classes:
        message = f"{streams.name(manifest)}: no labels: write path<TAB>label,label"
        raise DataError(message)
    # A difficult image is a negative here, as in the published code.
    signs = np.where(examples.labels == POSITIVE, 1, -1).astype(np.int8)
    rarer = np.minimum((signs == 1).sum(axis=0), (signs == -1).sum(axis=0))
    if not rarer.any():
        raise DataError(f"{streams.name(manifest)}: no class has both positives and negatives")
    validated, trained = np.flatnonzero(rarer >= FOLDS), np.flatnonzero(rarer)
    fits = len(validated) * FOLDS * len(COSTS) + len(trained)
    count = itertools.count(1)
    rows, basis = compact(examples)
    with sharing(rows, workers) as rows:

        def solve(problems):
            return liblinear(rows, problems, seed, workers, lambda: progress(next(count), fits))

        ap = np.full((len(examples.classes), len(COSTS)), np.nan)
        ap[validated], early = cross_validate(rows, signs[:, validated], solve)
        cost, chosen = choose(ap, rarer)
        problems = [Problem(np.ascontiguousarray(signs[:, c]), cost[c]) for c in trained]
        found, late = solve(problems)
    weights = np.full((len(examples.classes), examples.features.shape[1] + 1), np.nan)
    weights[trained, :-1] = found[:, :-1] if basis is None else found[:, :-1] @ basis.T
    weights[trained, -1] = found[:, -1]
    fields = examples.fields | {
        "train_images": len(rows),
        "train_manifest": examples.manifest.digest(),
        "svm_seed": seed,
        "fits": fits,
        "unconverged": early + late,
    }
    paths = np.sort(path_hashes(examples.manifest))
    return Classifiers(examples.classes, weights, cost, chosen, ap, paths, fields)


def compact(examples):
    """Return the normalised rows in as few coordinates as hold them, and the basis of these.

    The solver sees only inner products, so fewer images than features lose nothing by moving to
    the space they span: (N, N) coordinates and a basis (D, N). Else (N, D) and None.
    """
    rows = np.empty(examples.features.shape)
    for index, block in enumerate(examples.normalised()):
        rows[index * BLOCK : index * BLOCK + len(block)] = block
    if rows.shape[0] >= rows.shape[1]:
        return rows, None
    basis, coordinates = np.linalg.qr(rows.T)
    return np.ascontiguousarray(coordinates.T), basis


@contextlib.contextmanager
def sharing(rows, workers):
    """Yield ROWS (N, D), once for all where WORKERS share them: mapped from a file."""
    if workers < 2:
        yield rows
        return
    with tempfile.TemporaryDirectory(prefix="train-svm-") as folder:
        path = f"{folder}/rows.npy"
        with streams.writing(path) as stream:
            streams.write_array(stream, rows)
        yield np.load(path, mmap_mode="r")


def cross_validate(rows, signs, solve):
    """Return the average precision of each class and cost, (C, K), and the unconverged fits.

    Unshuffled stratified folds in row order; the mean over folds of scikit-learn's average
    precision (not interpolated), as in the published code.
    """
    from sklearn.metrics import average_precision_score
    from sklearn.model_selection import StratifiedKFold

    problems, held_out = [], []
    for sign in signs.T:
        for _fit, test in StratifiedKFold(FOLDS).split(sign, sign):
            kept = sign.copy()
            kept[test] = 0
            held_out.append(test)
            problems += [Problem(kept, cost) for cost in COSTS]
    weights, unconverged = solve(problems)
    weights = weights.reshape(signs.shape[1], FOLDS, len(COSTS), -1)
    ap = np.empty(weights.shape[:3])
    for c, f in np.ndindex(ap.shape[:2]):
        test = held_out[c * FOLDS + f]
        scores = rows[test] @ weights[c, f, :, :-1].T + weights[c, f, :, -1]
        ap[c, f] = [average_precision_score(signs[test, c] == 1, column) for column in scores.T]
    return ap.mean(axis=1), unconverged


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


def liblinear(rows, problems, seed, workers, advance):
    """Solve PROBLEMS on ROWS (N, D); return weights (P, D + 1), the bias last, and the unconverged.

    Each minimises 1/2 |w|^2 + cost * sum_i c_i max(0, 1 - s_i w.[x_i, 1])^2 with c = 2 for the
    positives and 1 for the negatives; the bias is regularised like any weight. Calls ADVANCE once
    a problem.
    """
    from joblib import Parallel, delayed

    state = int(np.random.default_rng(seed).integers(2**32))  # scikit-learn takes 32 bits
    weights, unconverged = np.empty((len(problems), rows.shape[1] + 1)), 0
    # Processes, as liblinear draws from one global generator; mapped ROWS travel by file name.
    parallel = Parallel(n_jobs=max(1, workers), return_as="generator", max_nbytes=None)
    with born_deaf():
        solutions = parallel(delayed(_liblinear)(rows, *problem, state) for problem in problems)
    for index, (solution, converged) in enumerate(solutions):
        weights[index] = solution
        unconverged += not converged
        advance()
    return weights, unconverged


def _liblinear(rows, signs, cost, state):
    """Return the weights (D + 1,) of one problem and whether the solver converged."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC
    from threadpoolctl import threadpool_limits

    svm = LinearSVC(
        C=cost,
        class_weight={1: POSITIVE_WEIGHT, -1: 1},
        dual=True,
        max_iter=MAX_ITERATIONS,
        random_state=state,
    )  # squared hinge, l2, tolerance 1e-4 and intercept scaling 1 are its defaults
    part = np.flatnonzero(signs)
    rows = rows if len(part) == len(rows) else rows[part]
    # One thread: the order of a sum would otherwise depend on the number of workers.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead
        svm.fit(rows, signs[part])
    return np.append(svm.coef_[0], svm.intercept_), svm.n_iter_ < MAX_ITERATIONS


def path_hashes(manifest):
    """Return the first 8 bytes of the SHA-256 of each path, uint64 (N,)."""
    digests = (hashlib.sha256(row.path.encode()).digest()[:8] for row in manifest)
    return np.frombuffer(b"".join(digests), "<u8")


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


def load(path):
    """Read what save wrote."""
    arrays = streams.read_arrays(path)
    try:
        if arrays["format"] != FORMAT:
            message = f"{streams.name(path)}: format {arrays['format']}: train it with this version"
            raise DataError(message)
        weights = np.column_stack([arrays["coef"], arrays["intercept"]])
        fields = json.loads(str(arrays["fields"]))
        names = ("cost", "chosen", "ap", "paths")
        cost, chosen, ap, paths = (arrays[name] for name in names)
        return Classifiers(
            arrays["classes"].tolist(), weights, cost, chosen.tolist(), ap, paths, fields
        )
    except (KeyError, ValueError) as error:
        raise DataError(f"{streams.name(path)}: not written by train-svm ({error})") from error


def evaluate(svm, features, manifest, tags):
    """Return the record of the file SVM on the files FEATURES and MANIFEST, less its provenance.

    Average precision per class over its not difficult images; its mean, in percent, over the
    classes that have one. Raises DataError for features the SVM was not made for, or made from.
    """
    trained, examples = load(svm), read_examples(features, manifest, tags)
    _check_fit(svm, trained, examples)
    scores = np.concatenate([r @ trained.weights[:, :-1].T for r in examples.normalised()])
    scores += trained.weights[:, -1]
    per_class = {}
    for index, name in enumerate(trained.classes):
        per_class[name] = None
        if name in examples.classes and trained.chosen[index] != "none":
            labels = examples.labels[:, examples.classes.index(name)]
            clear = labels != DIFFICULT
            ap = average_precision(scores[clear, index], labels[clear] == POSITIVE)
            per_class[name] = None if np.isnan(ap) else 100 * ap
    measured = [ap for ap in per_class.values() if ap is not None]
    if not measured:
        where = streams.name(manifest)
        raise DataError(f"{where}: shows no class of {streams.name(svm)}: see its labels")
    fields = trained.fields | {k: v for k, v in examples.fields.items() if v is not None}
    inputs = {
        "svm": _digest(svm),
        "features": _digest(features),
        # Its labels too, unlike test_manifest; and the same from a pipe.
        "manifest": streams.digest(repr(tuple(row)).encode() for row in examples.manifest),
    }
    return fields | {
        "task": "svm",
        "data_set": fields.get("data_set", streams.stem(manifest)),
        "metric": "mAP",
        "value": float(np.mean(measured)),
        "classes": len(measured),
        "per_class": per_class,
        "unseen": [name for name in examples.classes if name not in trained.classes],
        "test_images": len(examples.features),
        "test_manifest": examples.manifest.digest(),
        "inputs": inputs,
    }


def _digest(path):
    """Return the digest of the file PATH, None for a pipe."""
    return streams.file_digest(path) if os.path.isfile(path) else None


def _check_fit(svm, trained, examples):
    """Raise DataError where EXAMPLES are not for the classifiers TRAINED, read from SVM."""
    for key in ("layer", "model"):
        ours, theirs = trained.fields.get(key), examples.fields.get(key)
        if None not in (ours, theirs) and ours != theirs:
            message = f"{key} {theirs}, but {streams.name(svm)} was trained on {key} {ours}"
            raise DataError(f"{examples.name}: {message}")
    width = trained.weights.shape[1] - 1
    if examples.features.shape[1] != width:
        message = (
            f"{examples.features.shape[1]} numbers an image, but {streams.name(svm)} takes {width}"
        )
        raise DataError(f"{examples.name}: {message}")
    known = np.flatnonzero(np.isin(path_hashes(examples.manifest), trained.paths))
    if len(known):
        line = int(known[0]) + 1
        path = examples.manifest[known[0]].path
        message = f"{streams.name(svm)} was trained on {path} ({len(known)} such lines)"
        raise examples.manifest.error(line, f"{message}: evaluate on others")
