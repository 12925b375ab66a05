"""Features with the manifest they were made from: what SVMs are trained and measured on."""

import os
from typing import NamedTuple

import numpy as np

from ssl_common import formats, records, stored, streams
from ssl_common.data import identity
from ssl_common.data.identity import Images
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
    images: Images  # by what they are known

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
        return records.data_set(self.manifest.path, self.fields, fields)

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


def read_examples(features, manifest, tags):
    """Read FEATURES (.npy or pipe) and MANIFEST; raise DataError where they do not fit together."""
    name, sidecar = streams.name(features), records.read_sidecar(features)
    sidecar = records.tagged(sidecar, tags, records.sidecar(features))
    array, rows = formats.FEATURES.read(features)["features"], Manifest(manifest)
    if len(array) != len(rows):
        other = streams.name(manifest)
        raise DataError(f"{name}: {len(array)} rows, but {other} has {len(rows)} lines")
    if sidecar.get("manifest") not in (None, rows.digest()):
        message = f"made from another manifest than {streams.name(manifest)}: extract them again"
        raise DataError(f"{name}: {message}")
    classes, labels = label_matrix(rows)
    fields = {k: v for k, v in sidecar.items() if k not in ("format", "manifest")}
    images = Images(identity.paths(rows), contents=_contents(features, len(rows)))
    return Examples(name, array, rows, classes, labels, fields, images)


def _contents(features, count):
    """Return by what the files of the COUNT images of FEATURES are known, None if nobody says."""
    path = records.contents(features)
    if features == "-" or not os.path.exists(path):
        return None
    found = np.asarray(formats.CONTENTS.read(path)["contents"])
    if len(found) != count:
        message = (
            f"{len(found)} images, but {features} has {count}: extract them again, or remove it"
        )
        raise DataError(f"{path}: {message}")
    return found


def read_labelled(features, manifest, tags):
    """Read examples to train on; raise DataError where none has a label."""
    examples = read_examples(features, manifest, tags)
    if not examples.classes:
        message = f"{streams.name(manifest)}: no labels: write path<TAB>label,label"
        raise DataError(message)
    return examples
