"""Low-shot classification: a linear SVM per sample, k, class and cost, the cost chosen on the test.

As the published protocol has it; train-svm(1) and eval-svm(1) say what that means.
"""

import json
from typing import NamedTuple

import numpy as np

from ssl_common import stored, streams
from ssl_common.data import lowshot
from ssl_common.data.manifest import DIFFICULT, POSITIVE
from ssl_common.evaluation.examples import BLOCK, read_labelled
from ssl_common.evaluation.metrics import average_precision
from ssl_common.evaluation.svm import COSTS
from ssl_common.streams import DataError

FORMAT = 1


class Machines(NamedTuple):
    """The classifiers of one sample and k, sums of coefficient x row over T pairs (class, row).

    Those of class c are COUNTS[c] pairs that follow each other, in the order of the classes.
    """

    counts: np.ndarray  # (C,) int64; 0 for a class left out
    rows: np.ndarray  # (T,) int32
    coefficients: np.ndarray  # (K, T) float32, of each cost


class LowShot(NamedTuple):
    """What lowshot.npz holds."""

    classes: list
    machines: dict  # {(k, sample): Machines}
    scale: np.ndarray  # (N,) float64: the training rows are features x this
    paths: np.ndarray  # as in Classifiers
    fields: dict

    def summary(self):
        """Return what train-svm says of its work."""
        ks = sorted({k for k, _sample in self.machines})
        said = f"{len(self.classes)} classes, k = {', '.join(map(str, ks))}"
        fits = f"{self.fields['fits']:,} fits"
        early = self.fields["unconverged"]
        return f"{said}, {fits}" + (f"; {early} stopped before they converged" if early else "")


def train(features, manifest, folder, tags, seed, threads, progress, device=None):
    """Train on each sample in FOLDER of the files FEATURES and MANIFEST; return LowShot."""
    from ssl_common.evaluation.exact import Exact

    examples = read_labelled(features, manifest, tags)
    samples = lowshot.read(folder, examples.labels, examples.manifest)
    used = np.unique(np.concatenate([np.flatnonzero((m >= 0).any(1)) for m in samples.values()]))
    exact = Exact(examples, seed, threads, device)
    solve = exact.on_parts(used, COSTS)
    fits = len(COSTS) * sum(int((m == 1).any(axis=0).sum()) for m in samples.values())
    # The products of a fit grow with the square of its rows.
    total = sum(((m >= 0).sum(axis=0, dtype=float) ** 2).sum() for m in samples.values())
    groups = _groups(samples)

    def solve_one(group):
        key, chosen, index = group
        signs = np.where(samples[key][chosen, index] == 1, 1, -1).astype(np.int8)
        return solve(chosen, np.repeat(signs[None], len(COSTS), axis=0))

    found, unconverged, done = {key: [] for key in samples}, 0, 0
    for (key, chosen, index), solved in zip(groups, exact.map(solve_one, groups), strict=True):
        coefficients, early = solved
        found[key].append((index, chosen, coefficients.astype(np.float32)))
        unconverged += early
        done += len(chosen) ** 2
        progress(int(100 * done / total), 100, f"k = {key[0]}, {fits:,} fits in all")
    machines = {}
    for key, parts in found.items():
        indices, rows, coefficients = zip(*parts, strict=True)
        counts = np.zeros(len(examples.classes), np.int64)
        counts[list(indices)] = [len(each) for each in rows]
        rows = np.concatenate(rows).astype(np.int32)
        machines[key] = Machines(counts, rows, np.concatenate(coefficients, axis=1))
    fields = examples.fields | {
        "train_images": len(examples.features),
        "train_manifest": examples.manifest.digest(),
        "train_labels": examples.manifest.digest_of_rows(),
        "train_dtype": examples.features.dtype.name,
        "drawn": lowshot.drawn(folder, samples),
        "train_features": _digest(examples.features),
        "svm_seed": seed,
        "solver": "exact",
        "fits": fits,
        "unconverged": unconverged,
    }
    paths = np.sort(examples.manifest.path_hashes())
    return LowShot(examples.classes, machines, examples.scale(), paths, fields)


def _groups(samples):
    """Return (key, rows, class) of each class of SAMPLES, {key: matrix (N, C)}."""
    return [
        (key, np.flatnonzero(matrix[:, c] >= 0), c)
        for key, matrix in samples.items()
        for c in np.flatnonzero((matrix == 1).any(axis=0))
    ]


def _digest(features):
    return streams.digest(rows.tobytes() for _part, rows in stored.blocks(features, BLOCK))


def save(stream, trained):
    """Write TRAINED as .npz."""
    arrays = {}
    for (k, number), machines in trained.machines.items():
        for name, array in machines._asdict().items():
            arrays[f"{name}_sample{number}_k{k}"] = array
    streams.write_arrays(
        stream,
        lowshot_format=np.int64(FORMAT),
        classes=np.array(trained.classes),
        costs=COSTS,
        scale=trained.scale,
        paths=trained.paths,
        samples=np.array([(number, k) for k, number in trained.machines]),
        fields=np.array(json.dumps(trained.fields, sort_keys=True)),
        **arrays,
    )


def load(arrays, name):
    """Return the LowShot of the ARRAYS that save wrote, read from the file NAME."""
    try:
        if arrays["lowshot_format"] != FORMAT:
            message = f"{name}: format {arrays['lowshot_format']}: train it with this version"
            raise DataError(message)
        machines = {}
        for number, k in arrays["samples"].tolist():
            found = (arrays[f"{part}_sample{number}_k{k}"] for part in Machines._fields)
            machines[k, number] = Machines(*found)
        classes, fields = arrays["classes"].tolist(), json.loads(str(arrays["fields"]))
        return LowShot(classes, machines, arrays["scale"], arrays["paths"], fields)
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{name}: not written by train-svm ({error})") from error


def evaluate(path, trained, train_features, examples):
    """Yield a record of each k and metric of TRAINED, read from PATH, on EXAMPLES.

    TRAIN_FEATURES is the file that TRAINED was made from. The cost is the one with the highest mean
    over the samples, on these same EXAMPLES; the smallest of equals.
    """
    features = streams.read_array(train_features)
    if _digest(features) != trained.fields["train_features"]:
        message = f"not the features that {streams.name(path)} was trained on"
        raise DataError(f"{streams.name(train_features)}: {message}")
    examples.check_fit(path, trained, features.shape[1])
    known = [name for name in trained.classes if name in examples.classes]
    columns = [examples.classes.index(name) for name in known]
    labels = np.full((len(examples.features), len(trained.classes)), -1, np.int8)
    labels[:, [trained.classes.index(name) for name in known]] = examples.labels[:, columns]
    products = _products(trained, features, examples)
    for k in sorted({k for k, _number in trained.machines}):
        found = [
            _measure(machines, products, labels)
            for (each, _number), machines in trained.machines.items()
            if each == k
        ]
        aps = np.stack([ap for ap, _top1 in found])  # (S, C, K)
        seen = ~np.isnan(aps).any(axis=(0, 2))
        if not seen.any():
            where = streams.name(examples.manifest.path)
            raise DataError(f"{where}: shows no class of {streams.name(path)}: see its labels")
        record, best = _summary(aps[:, seen].mean(axis=1))
        means = aps[:, :, best].mean(axis=0)
        values = [100 * ap if here else None for ap, here in zip(means.tolist(), seen, strict=True)]
        same = {
            "task": "low-shot",
            "data_set": examples.data_set(trained.fields),
            "k": k,
            "samples": len(found),
            **trained.fields.get("drawn", {}).get(str(k), {}),
            "classes": int(seen.sum()),
        }
        per_class = dict(zip(trained.classes, values, strict=True))
        yield same | {"metric": "mAP"} | record | {"per_class": per_class}
        if lowshot.is_single(examples.labels):
            yield same | {"metric": "top-1"} | _summary(np.stack([t for _ap, t in found]))[0]


def _summary(values):
    """Return what a record says of VALUES (S, K), and the index of the best cost."""
    best = int(np.argmax(values.mean(axis=0)))  # the first of equals: COSTS ascend
    chosen = 100 * values[:, best]
    return {
        "value": float(chosen.mean()),
        **{"min": float(chosen.min()), "max": float(chosen.max()), "std": float(chosen.std())},
        **{"cost": float(COSTS[best]), "cost_from": "test"},
    }, best


def _products(trained, features, examples):
    """Return x_i.y_j + 1 of all training rows that are used and test rows: {row: (N,)} as arrays.

    The first is the index of each training row among the used, -1 for the others; the second is
    (used, N) float64.
    """
    import torch

    from ssl_common.evaluation import solver

    used = np.unique(np.concatenate([machines.rows for machines in trained.machines.values()]))
    index = np.full(len(features), -1)
    index[used] = np.arange(len(used))
    scales = (torch.from_numpy(scale) for scale in (trained.scale[used], examples.scale()))
    ours, theirs = scales
    found = solver.gram(features[used], ours, "cpu", examples.features, theirs)
    return index, found.numpy()


def _measure(machines, products, labels):
    """Return the average precision (C, K) and the top-1 (K,) of the MACHINES of one sample.

    NaN where there is none. The top-1 is over the images that show a class with a classifier.
    """
    index, found = products
    scores = np.full((len(COSTS), labels.shape[1], len(labels)), -np.inf)
    ap = np.full((labels.shape[1], len(COSTS)), np.nan)
    start = 0
    for c in np.flatnonzero(machines.counts):
        part = slice(start, start := start + machines.counts[c])
        rows = found[index[machines.rows[part]]]
        scores[:, c] = machines.coefficients[:, part].astype(np.float64) @ rows
        clear = labels[:, c] != DIFFICULT
        truth = labels[clear, c] == POSITIVE
        ap[c] = [average_precision(each, truth) for each in scores[:, c, clear]]
    asked = (labels[:, machines.counts > 0] == POSITIVE).any(axis=1)
    right = labels[np.arange(len(labels)), scores.argmax(axis=1)] == POSITIVE  # (K, N)
    return ap, right[:, asked].mean(axis=1) if asked.any() else np.zeros(len(COSTS))
