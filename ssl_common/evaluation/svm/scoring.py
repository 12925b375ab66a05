"""What eval-svm tells of classifiers of either kind, train-svm's own and low-shot's, on images."""

import os
from collections.abc import Mapping
from typing import Any, BinaryIO

from ssl_common import containers, records, streams
from ssl_common.data import identity
from ssl_common.evaluation.svm import classifiers, lowshot
from ssl_common.evaluation.svm.examples import read_examples
from ssl_common.fields import Record
from ssl_common.streams import DataError


def evaluate(
    path: str,
    features: str,
    manifest: str,
    tags: Mapping[str, str],
    *,
    train_features: str | None = None,
    scores: BinaryIO | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    allow_seen: bool = False,
) -> list[dict[str, Any]]:
    """Return the records of the classifiers in the file PATH on the files FEATURES and MANIFEST.

    They lack their provenance. Low-shot classifiers need TRAIN_FEATURES, what they were trained on,
    and give a record each k and metric; others take SCORES, BOOTSTRAP and SEED as
    classifiers.evaluate() does. Raises DataError for features the classifiers were not made for,
    and for images that they were trained on unless ALLOW_SEEN.
    """
    arrays, examples = containers.read_arrays(path), read_examples(features, manifest, tags)
    few = "lowshot_format" in arrays
    if few != (train_features is not None):
        kind = "low-shot classifiers: add" if few else "not low-shot classifiers: leave out"
        raise DataError(f"{streams.name(path)}: {kind} --train-features")
    if few and (scores or bootstrap):
        option = "--scores" if scores else "--bootstrap"
        raise DataError(f"{streams.name(path)}: low-shot classifiers: leave out {option}")
    trained: lowshot.LowShot | classifiers.Classifiers
    if few:
        trained = lowshot.load(arrays, streams.name(path))
    else:
        trained = classifiers.load(arrays, streams.name(path))
    # The test may have a data set of its own; it is of the same network and layer.
    of_training = {name: text for name, text in tags.items() if name != "data_set"}
    records.tagged(trained.fields, of_training, streams.name(path))
    seen = identity.check_unseen(
        examples.manifest, examples.images, trained.images, streams.name(path), allow_seen
    )
    if isinstance(trained, lowshot.LowShot):
        assert train_features is not None
        results = list(lowshot.evaluate(path, trained, train_features, examples))
    else:
        results = [classifiers.evaluate(path, trained, examples, scores, bootstrap, seed)]
    same = trained.fields | {k: v for k, v in examples.fields.items() if v is not None}
    same.pop("drawn", None)  # of all k: each record has its own
    inputs = {
        "svm": _digest(path),
        "features": _digest(features),
        "manifest": examples.manifest.digest_of_rows(),  # its labels too, unlike test_manifest
    }
    same |= {
        "unseen": [name for name in examples.classes if name not in trained.classes],
        "dtype": examples.features.dtype.name,
        "test_images": len(examples.features),
        "test_manifest": examples.manifest.digest(),
        "inputs": inputs,
    }
    return [same | seen | result for result in results]


def summary(results: list[Record]) -> str:
    """Return what eval-svm says of the records RESULTS, of which there are some."""
    first = results[0]
    texts = [
        f"{record['value']:.2f} {record['metric']}"
        + (f" at k = {record['k']}" if "k" in record else "")
        + ("" if "interval" not in record else " ({:.2f} to {:.2f})".format(*record["interval"]))
        for record in results
    ]
    over = f"over {first['classes']} of {len(first['per_class'])} classes"
    text = f"{', '.join(texts)} {over}, {first['test_images']} images"
    return text + (f"; not trained: {', '.join(first['unseen'])}" if first["unseen"] else "")


def _digest(path: str) -> str | None:
    """Return the digest of the file PATH, None for a pipe."""
    return streams.file_digest(path) if os.path.isfile(path) else None
