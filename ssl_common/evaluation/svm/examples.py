"""Features with the manifest they were made from: what SVMs are trained and measured on."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ssl_common import formats, records, streams
from ssl_common.data import identity
from ssl_common.data.identity import Images
from ssl_common.data.manifest import Manifest, label_matrix
from ssl_common.evaluation.svm.backend import scaled_blocks
from ssl_common.fields import Record
from ssl_common.stored import Stored
from ssl_common.streams import DataError


class Examples(NamedTuple):
    """Features with the manifest they were made from, and what is known of them."""

    name: str  # of the file of features
    features: np.ndarray | Stored  # (N, D), any real type
    manifest: Manifest
    classes: list[str]  # of the manifest, in the order of their bytes
    labels: np.ndarray  # (N, C) int8: POSITIVE, DIFFICULT or NEGATIVE
    fields: dict[str, Any]  # of the sidecar and the tags
    images: Images

    def normalised(self) -> Iterator[np.ndarray]:
        """Yield the rows as x / (||x|| + 1e-5), float64, a block at a time."""
        for rows, scale in self._blocks():
            yield rows * scale[:, None]

    def scale(self) -> np.ndarray:
        """Return 1 / (||x|| + 1e-5) of each row, (N,) float64."""
        return np.concatenate([scale for _rows, scale in self._blocks()])

    def _blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows and their scale; raise DataError naming the line of one that is not finite."""
        return scaled_blocks(self.features, self._refusal)

    def _refusal(self, row: int) -> DataError:
        where = f"row {row + 1}, line {row + 1} of {streams.name(self.manifest.path)}"
        return DataError(f"{self.name}: NaN or infinity in {where}: extract it again")

    def data_set(self, fields: Record) -> str | None:
        """Return the data set in records: of the tags, of FIELDS, or of the manifest's name.

        FIELDS are those of the training.
        """
        return records.data_set(self.manifest.path, self.fields, fields)

    def check_fit(self, path: str, training: Record, width: int) -> None:
        """Raise DataError where they are not for classifiers of WIDTH features, read from PATH.

        TRAINING are the fields of their training.
        """
        for key in ("layer", "model"):
            ours, theirs = training.get(key), self.fields.get(key)
            if None not in (ours, theirs) and ours != theirs:
                message = f"{key} {theirs}, but {streams.name(path)} was trained on {key} {ours}"
                raise DataError(f"{self.name}: {message}")
        if self.features.shape[1] != width:
            message = f"{self.features.shape[1]} numbers an image, but {streams.name(path)} takes"
            raise DataError(f"{self.name}: {message} {width}")


def read_examples(features: str, manifest: str, tags: Mapping[str, str]) -> Examples:
    """Return the Examples of the files FEATURES and MANIFEST; TAGS {field: text} add to the fields.

    Raises DataError where they do not belong together.
    """
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


def _contents(features: str, count: int) -> np.ndarray | None:
    """Return the fingerprints, uint64 (COUNT,), of the files of the images of FEATURES.

    None where they have no such file beside them.
    """
    path = records.contents(features)
    if features == "-" or not os.path.exists(path):
        return None
    contents = np.asarray(formats.CONTENTS.read(path)["contents"])
    if len(contents) != count:
        message = f"{len(contents)} images, but {features} has {count}"
        raise DataError(f"{path}: {message}: extract them again, or remove it")
    return contents


def read_labelled(features: str, manifest: str, tags: Mapping[str, str]) -> Examples:
    """Return what read_examples() does; raise DataError where no image has a label."""
    examples = read_examples(features, manifest, tags)
    if not examples.classes:
        message = f"{streams.name(manifest)}: no labels: write path<TAB>label,label"
        raise DataError(message)
    return examples
