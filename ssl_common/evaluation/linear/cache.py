"""Features of every layer for every image, on the disk for one run: train-linear --cache.

A folder of arrays LAYER.npy, a row an image, with their sidecars; digests.npy has a digest of each
row of each layer, by which it is known again, in its layer and line, when a run reads it first.
"""

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ssl_common import containers, records, streams
from ssl_common.data.manifest import Manifest
from ssl_common.evaluation import features
from ssl_common.stored import Filled
from ssl_common.streams import DataError

DIGESTS = "digests"
BATCH = 64  # images


class Cache:
    """The features of IMAGES at LAYERS, in FOLDER; SHOWN says how an image is shown."""

    def __init__(
        self, folder: str, layers: features.Layers, images: Manifest, shown: Mapping[str, Any]
    ) -> None:
        self.folder, self.layers, self.images = folder, layers, images
        of_all = {"manifest": images.digest(), **shown}
        self.fields = {
            name: layers.of_the_model | {"layer": name, "shape": list(shape)} | of_all
            for name, shape in layers.shapes.items()
        }
        # What the digest of a row binds it to, besides its line.
        self.belonging = {n: json.dumps(f, sort_keys=True).encode() for n, f in self.fields.items()}
        self.fields[DIGESTS] = {"format": 1, "layers": layers.names} | of_all
        self.widths = [math.prod(shape) for shape in layers.shapes.values()]

    def path(self, name: str) -> str:
        """Return the file of the layer NAME."""
        return os.path.join(self.folder, f"{name}.npy")

    def there(self) -> bool:
        """Tell whether all features exist, by their sidecars."""
        return all(os.path.exists(self.path(name)) and self._is_ours(name) for name in self.fields)

    def _is_ours(self, name: str) -> bool:
        return records.read_sidecar(self.path(name)) == self.fields[name]

    def remove(self) -> None:
        """Remove the files of make()."""
        for name in filter(self._is_ours, self.fields):
            for path in (self.path(name), records.sidecar(self.path(name))):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        with contextlib.suppress(OSError):  # none there, or somebody else put something in it
            os.rmdir(self.folder)

    def make(
        self,
        transform: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device,
        reading: features.Reading,
    ) -> None:
        """Write the features, on all ranks; the arguments are those of features.rows().

        Raises Stopped on all ranks where the progress of READING does on any.
        """
        features.fill(self._reserve, lambda arrays: self._write(arrays, transform, device, reading))

    def _reserve(self, stack: contextlib.ExitStack) -> list[str]:
        """Return the names of the new files, at full size; they get their own names with STACK."""
        self.remove()  # what 0.2.0 left, which had no digests
        os.makedirs(self.folder, exist_ok=True)
        writing = records.writing_features(f"{self.folder}/", self.fields, known=False)
        files, count = stack.enter_context(writing), len(self.images)
        arrays = [("float32", (count, width)) for width in self.widths]
        arrays.append(("uint64", (count, len(arrays))))  # of the digests
        return features.begin(zip(files, arrays, strict=True), True)

    def _write(
        self,
        arrays: Sequence[Filled],
        transform: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device,
        reading: features.Reading,
    ) -> None:
        for first, blocks, contents in features.rows(
            self.layers, self.images, transform, device, reading
        ):
            lines, digests = range(first, first + len(contents)), []
            for array, (name, block) in zip(arrays, blocks.items(), strict=False):
                array.write(first, block)
                digests.append(list(map(self.digest, [name] * len(block), lines, block)))
            arrays[-1].write(first, np.array(digests, np.uint64).T)

    def digest(self, name: str, line: int, row: np.ndarray) -> int:
        """Return the digest, a number, of ROW, the features of LINE (from 0) at the layer NAME."""
        return int(streams.digest([self.belonging[name], b" %d " % line, row.tobytes()]), 16)


class Cached(Dataset):
    """The features in CACHE, one row an image, in the place of the pixels of RandomCrops."""

    def __init__(self, cache: Cache) -> None:
        self.cache, self.manifest = cache, cache.images
        count, names = len(self.manifest), cache.layers.names
        self.rows = {
            name: _rows(cache.path(name), "<f4", count, width)
            for name, width in zip(names, cache.widths, strict=True)
        }
        self.digests = _rows(cache.path(DIGESTS), "<u8", count, len(names))
        self.seen = np.zeros(count, bool)

    def prepare(self) -> None:
        """Do nothing: these need no preparation for reading."""

    def __getitem__(self, item: tuple[int, int]) -> tuple[int, int, int, np.ndarray]:
        epoch, index = item
        found = {name: rows[index] for name, rows in self.rows.items()}
        if not self.seen[index]:
            self._check(index, found)
            self.seen[index] = True
        return 0, epoch, index, np.concatenate(list(found.values()))

    def _check(self, index: int, features: Mapping[str, np.ndarray]) -> None:
        for (name, row), digest in zip(features.items(), self.digests[index], strict=True):
            if self.cache.digest(name, index, row) != digest:
                message = f"row {index + 1} is not what was written there: remove the folder, and"
                raise DataError(f"{self.cache.path(name)}: {message} it is made anew")


def _rows(path: str, dtype: str, count: int, width: int) -> Any:
    """Return the array of DTYPE, COUNT rows of WIDTH numbers, in the file PATH, where it stays."""
    array = containers.read_array(path)
    if (array.dtype, array.shape) != (np.dtype(dtype), (count, width)):
        raise DataError(f"{path}: not {count} rows of {width} numbers: remove the folder")
    return array
