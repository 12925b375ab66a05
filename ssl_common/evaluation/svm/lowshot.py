"""Low-shot classification: a linear SVM per sample, k, class and cost; the test decides the cost.

As Goyal et al. and their tools/svm/train_svm_low_shot.py have it; train-svm(1) and eval-svm(1)
say what that means.
"""

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ssl_common import containers, formats, stored, streams
from ssl_common.data import identity
from ssl_common.data.identity import Images
from ssl_common.data.manifest import DIFFICULT, NEGATIVE, POSITIVE
from ssl_common.data.samples import Sample, provenance
from ssl_common.data.samples import read as read_samples
from ssl_common.evaluation.metrics import average_precision
from ssl_common.evaluation.svm.backend import BLOCK
from ssl_common.evaluation.svm.classifiers import COSTS, Work
from ssl_common.evaluation.svm.examples import Examples, read_labelled
from ssl_common.progress import Progress
from ssl_common.stored import Stored
from ssl_common.streams import DataError

PRODUCTS = 1 << 30  # bytes of inner products of training and test rows
SCORES = 1 << 28  # bytes of decision values, or of weights, together


class Group(NamedTuple):
    """C classes of one sample that have the same rows."""

    key: tuple[int, int]  # (k, sample)
    classes: list[int]
    rows: np.ndarray  # (n,) int32
    signs: np.ndarray  # (C, n) int8, 1 or -1


class Machines(NamedTuple):
    """The classifiers of one sample and k, sums of coefficient x row over T pairs (class, row).

    Those of class c are COUNTS[c] pairs that follow each other, in the order of the classes.
    """

    counts: np.ndarray  # (C,) int64; 0 for a class left out
    rows: np.ndarray  # (T,) int32
    coefficients: np.ndarray  # (K, T) float32, of each cost

    def parts(self) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Return (class, rows (n,), coefficients (K, n)) of each class that has some."""
        ends = np.cumsum(self.counts)
        parts = [
            (c, slice(ends[c] - self.counts[c], ends[c]))
            for c in np.flatnonzero(self.counts).tolist()
        ]
        return [(c, self.rows[at], self.coefficients[:, at]) for c, at in parts]


class LowShot(NamedTuple):
    """What lowshot.npz holds."""

    classes: list[str]
    machines: dict[tuple[int, int], Machines]  # by k and the number of the sample
    costs: np.ndarray  # (K,)
    scale: np.ndarray  # (N,) float64: the training rows are features x this
    images: Images  # as in Classifiers
    fields: dict[str, Any]  # of the training

    def summary(self) -> str:
        """Return what train-svm says of its work."""
        ks = sorted({k for k, _sample in self.machines})
        classes = f"{len(self.classes)} classes, k = {', '.join(map(str, ks))}"
        fits = f"{self.fields['fits']:,} fits"
        early = self.fields["unconverged"]
        return f"{classes}, {fits}" + (f"; {early} stopped before they converged" if early else "")


def train(
    features: str,
    manifest: str,
    folder: str,
    tags: Mapping[str, str],
    seed: int,
    workers: int,
    progress: Progress,
    device: str | None = None,
) -> LowShot:
    """Return LowShot, trained on each sample in FOLDER of the files FEATURES and MANIFEST.

    TAGS {field: text} add to its fields; WORKERS threads solve it, on DEVICE. Raises DataError
    where the files or the samples do not belong together.
    """
    from ssl_common.evaluation.svm import exact

    examples = read_labelled(features, manifest, tags)
    samples = read_samples(folder, examples.labels, examples.manifest)
    groups = [group for key, sample in samples.items() for group in _groups(key, sample)]
    used = np.unique(np.concatenate([group.rows for group in groups]))
    most = max(len(group.rows) for group in groups)
    fits = len(COSTS) * sum(len(group.classes) for group in groups)
    work = Work(sum(map(_size, groups)), fits, progress)

    def solve(group: Group) -> tuple[np.ndarray, int]:
        solutions = solver.solve(group.rows, group.signs, COSTS)
        work.add(_size(group), len(COSTS) * len(group.classes))
        return solutions

    solved: dict[tuple[int, int], list[tuple[int, np.ndarray, np.ndarray]]]
    solved, unconverged = {key: [] for key in samples}, 0
    with (
        exact.solving_parts(examples, used, most, seed, max(1, workers), device) as solver,
        contextlib.closing(solver.map(solve, groups, _size)) as solutions,
    ):
        for group, (coefficients, early) in zip(groups, solutions, strict=True):
            for c, some in zip(group.classes, coefficients.astype(np.float32), strict=True):
                solved[group.key].append((c, group.rows, some))
            unconverged += early
    machines = {}
    for key, parts in solved.items():
        counts = np.zeros(len(examples.classes), np.int64)
        for c, rows, _coefficients in parts:
            counts[c] = len(rows)
        machines[key] = Machines(
            counts,
            np.concatenate([rows for _c, rows, _coefficients in parts]),
            np.concatenate([coefficients for _c, _rows, coefficients in parts], axis=1),
        )
    fields = examples.fields | {
        "train_images": len(examples.features),
        "train_manifest": examples.manifest.digest(),
        "train_labels": examples.manifest.digest_of_rows(),
        "train_dtype": examples.features.dtype.name,
        "drawn": provenance(folder, samples),
        "train_features": _digest(examples.features),
        "svm_seed": seed,
        "solver": "exact",
        "fits": fits,
        "unconverged": unconverged,
    }
    images = identity.sort(examples.images)
    return LowShot(examples.classes, machines, COSTS, examples.scale(), images, fields)


def _groups(key: tuple[int, int], sample: Sample) -> list[Group]:
    """Return the classes of SAMPLE, of that KEY; those that share their rows are together."""
    groups = []
    for _rows, some in itertools.groupby(sample.classes, lambda each: each[1].tobytes()):
        classes, rows, signs = zip(*some, strict=True)
        groups.append(Group(key, list(classes), rows[0], np.stack(signs)))
    return groups


def _size(group: Group) -> int:
    """Return about how much work GROUP is: its products grow with the square of its rows."""
    return len(group.classes) * len(group.rows) ** 2


def _digest(features: np.ndarray | Stored) -> str:
    return streams.digest(rows.tobytes() for _part, rows in stored.blocks(features, BLOCK))


def save(stream: BinaryIO, trained: LowShot) -> None:
    """Write the classifiers TRAINED as .npz."""
    arrays = {}
    for (k, number), machines in trained.machines.items():
        sample = f"sample{number}_k{k}"
        arrays[f"counts_{sample}"] = machines.counts
        arrays[f"rows_{sample}"] = machines.rows
        arrays[f"coefficients_{sample}"] = machines.coefficients
    containers.write_arrays(
        stream,
        lowshot_format=np.int64(formats.LOW_SHOT.version),
        classes=np.array(trained.classes),
        costs=trained.costs,
        scale=trained.scale,
        **trained.images.arrays(),
        samples=np.array([(number, k) for k, number in trained.machines]),
        fields=np.array(json.dumps(trained.fields, sort_keys=True)),
        **arrays,
    )


def load(arrays: Mapping[str, np.ndarray], path: str) -> LowShot:
    """Return the LowShot of the ARRAYS that save wrote, read from the file PATH.

    Raises DataError for any others.
    """
    content = formats.LOW_SHOT.check(arrays, path)
    machines = {
        (k, number): Machines(each["counts"], each["rows"], each["coefficients"])
        for (number, k), each in content["machines"].items()
    }
    return LowShot(
        classes=content["classes"],
        machines=machines,
        costs=content["costs"],
        scale=content["scale"],
        images=Images(content["paths"], contents=content.get("contents")),
        fields=content["fields"],
    )


def evaluate(
    path: str, trained: LowShot, train_features: str, examples: Examples
) -> Iterator[dict[str, Any]]:
    """Yield a record for each k and metric of the classifiers TRAINED, from PATH, on EXAMPLES.

    TRAIN_FEATURES is the file that TRAINED was made from. The cost is the one with the highest mean
    over the samples, on these same EXAMPLES; the smallest of equals. Raises DataError where the
    files do not belong together, and where the examples show none of the classes.
    """
    features = formats.FEATURES.read(train_features)["features"]
    if _digest(features) != trained.fields["train_features"]:
        message = f"not the features that {streams.name(path)} was trained on"
        raise DataError(f"{streams.name(train_features)}: {message}")
    examples.check_fit(path, trained.fields, features.shape[1])
    known = [name for name in trained.classes if name in examples.classes]
    columns = [examples.classes.index(name) for name in known]
    labels = np.full((len(examples.features), len(trained.classes)), NEGATIVE, np.int8)
    labels[:, [trained.classes.index(name) for name in known]] = examples.labels[:, columns]
    # An image that shows no class is asked for none, and changes nothing.
    single = len(known) > 1 and bool(((examples.labels != NEGATIVE).sum(axis=1) <= 1).all())
    single = single and not (examples.labels == DIFFICULT).any()
    decisions = Decisions(trained, features, examples)
    for k in sorted({k for k, _number in trained.machines}):
        some = [machines for (each, _number), machines in trained.machines.items() if each == k]
        results = [_measure(decisions(machines), len(trained.costs), labels) for machines in some]
        aps = np.stack([ap for ap, _top1 in results])  # (S, C, K)
        seen = ~np.isnan(aps).any(axis=(0, 2))
        if not seen.any():
            where = streams.name(examples.manifest.path)
            raise DataError(f"{where}: shows no class of {streams.name(path)}: see its labels")
        record, best = _summary(aps[:, seen].mean(axis=1), trained.costs)
        means = aps[:, :, best].mean(axis=0)
        values = [100 * ap if here else None for ap, here in zip(means.tolist(), seen, strict=True)]
        same = {
            "task": "low-shot",
            "data_set": examples.data_set(trained.fields),
            "k": k,
            "samples": len(results),
            **trained.fields.get("drawn", {}).get(str(k), {}),
            "classes": int(seen.sum()),
        }
        per_class = dict(zip(trained.classes, values, strict=True))
        yield same | {"metric": "mAP"} | record | {"per_class": per_class}
        if single:
            shares = np.stack([top1 for _ap, top1 in results])
            yield same | {"metric": "top-1"} | _summary(shares, trained.costs)[0]


def _summary(values: np.ndarray, costs: np.ndarray) -> tuple[dict[str, Any], int]:
    """Return what a record says of VALUES (S, K) at COSTS, and the index of the best cost."""
    best = int(np.argmax(values.mean(axis=0)))  # the first of equals: costs ascend
    percents = 100 * values[:, best]
    return {
        "value": float(percents.mean()),
        "min": float(percents.min()),
        "max": float(percents.max()),
        "std": float(percents.std()),
        "cost": float(costs[best]),
        "cost_from": "test",
    }, best


class Decisions:
    """The decision values of Machines of TRAINED, on rows of FEATURES, for those of EXAMPLES.

    From the inner products of all rows that are used, float64, where they take no more than
    PRODUCTS; or else from weights, of some classes at a time, which takes more work.
    """

    def __init__(self, trained: LowShot, features: np.ndarray | Stored, examples: Examples) -> None:
        import torch

        from ssl_common.evaluation.svm import solver

        self.features, self.scale = features, torch.from_numpy(trained.scale)
        scale = torch.from_numpy(examples.scale())
        self.test = solver.Rows(examples.features, scale, "cpu")
        used = np.unique(np.concatenate([each.rows for each in trained.machines.values()]))
        self.index = np.full(len(features), -1)
        self.products: np.ndarray | None = None
        self.index[used] = np.arange(len(used))
        if 8 * len(used) * self.test.count <= PRODUCTS:
            self.products = solver.cross_gram(
                features, self.scale, used, examples.features, scale
            ).numpy()

    def __call__(self, machines: Machines) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (class, values (K, N)) of each class that has a classifier."""
        costs = len(machines.coefficients)
        together = max(1, SCORES // (8 * costs * max(self.test.count, self.test.width)))
        parts = machines.parts()
        for first in range(0, len(parts), together):
            some = parts[first : first + together]
            if self.products is not None:
                values = [a.astype(float) @ self.products[self.index[r]] for _c, r, a in some]
            else:
                weights = np.concatenate([self._weights(rows, a) for _c, rows, a in some])
                values = list(self._image(weights).reshape(len(some), costs, -1))
            yield from zip([c for c, _rows, _a in some], values, strict=True)

    def _image(self, weights: np.ndarray) -> np.ndarray:
        import torch

        return self.test.image(torch.from_numpy(weights)).numpy()

    def _weights(self, rows: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """Return sum_i a_i (x_i, 1), (K, D + 1), of COEFFICIENTS (K, n) of ROWS."""
        coefficients = coefficients.astype(float)
        weights = np.zeros((len(coefficients), self.test.width))
        weights[:, -1] = coefficients.sum(axis=1)
        for start in range(0, len(rows), BLOCK):
            some = slice(start, start + BLOCK)
            read = self.features[rows[some]] * self.scale[rows[some], None].numpy()
            weights[:, :-1] += coefficients[:, some] @ read
        return weights


def _measure(
    decisions: Iterable[tuple[int, np.ndarray]], costs: int, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the average precision (C, K) and the top-1 (K,) of DECISIONS at so many COSTS.

    DECISIONS are (class, values (K, N)), LABELS is int8 (N, C). NaN where there is none. The top-1
    is over the images that show a class with a classifier.
    """
    ap = np.full((labels.shape[1], costs), np.nan)
    best = np.full((costs, len(labels)), -np.inf)
    right, asked = np.zeros(best.shape, bool), np.zeros(len(labels), bool)
    for c, scores in decisions:
        clear, shown = labels[:, c] != DIFFICULT, labels[:, c] == POSITIVE
        ap[c] = [average_precision(each[clear], shown[clear]) for each in scores]
        asked |= shown
        higher = scores > best  # of equal scores the first class has it
        right = np.where(higher, shown, right)
        best = np.maximum(best, scores)
    return ap, right[:, asked].mean(axis=1) if asked.any() else np.full(costs, np.nan)
