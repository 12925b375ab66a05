"""Features with the manifest they were made from: what SVMs are trained and measured on."""

from typing import NamedTuple

import numpy as np

from ssl_common import records, stored, streams
from ssl_common.data.manifest import Manifest, label_matrix
from ssl_common.streams import DataError

BLOCK = 1024  # rows normalised at a time


class Examples(NamedTuple):
    """Features with the manifest they were made from, and what is known of them."""

    name: str
    features: np.ndarray  # or Stored, (N, D), any real type
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
        for part, rows in stored.blocks(self.features, BLOCK):
            rows = rows.astype(np.float64, order="C")
            norms = np.linalg.norm(rows, axis=1)
            bad = np.flatnonzero(~np.isfinite(norms))
            if len(bad):
                line = part.start + bad[0] + 1
                where = f"row {line}, line {line} of {streams.name(self.manifest.path)}"
                raise DataError(f"{self.name}: NaN or infinity in {where}: extract it again")
            yield rows, 1 / (norms + 1e-5)

    def data_set(self, fields):
        """Return the data set in records: what tags or FIELDS of the training say, or the file."""
        said = self.fields.get("data_set") or fields.get("data_set")
        return said or streams.stem(self.manifest.path)

    def check_fit(self, path, trained, width):
        """Raise DataError where they are not for the classifiers TRAINED, read from PATH.

        WIDTH is how many numbers an image they take.
        """
        for key in ("layer", "model"):
            ours, theirs = trained.fields.get(key), self.fields.get(key)
            if None not in (ours, theirs) and ours != theirs:
                message = f"{key} {theirs}, but {streams.name(path)} was trained on {key} {ours}"
                raise DataError(f"{self.name}: {message}")
        if self.features.shape[1] != width:
            message = f"{self.features.shape[1]} numbers an image, but {streams.name(path)} takes"
            raise DataError(f"{self.name}: {message} {width}")
        self.manifest.check_unseen(trained.paths, streams.name(path))


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
