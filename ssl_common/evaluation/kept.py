"""What a frozen network gives for every image of a list, kept on the disk: --cache DIR.

It stays in a folder until somebody removes it, float16, one block after the other in the order of
the list, in a file that is called by what it is of: a run with the same network, list and sizes
takes it as it is. A digest of each block, by which it is known again when a run first reads it,
stands in a file beside it.
"""

import abc
import contextlib
import math
import os
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ssl_common import containers, records, streams
from ssl_common.data.batches import batches
from ssl_common.data.lines import Lines
from ssl_common.evaluation import features
from ssl_common.progress import Progress
from ssl_common.ranks.placement import LOCAL_RANKS, RANK, RANKS
from ssl_common.stored import Filled
from ssl_common.streams import DataError

FORMAT = 1
LEFT = 1 << 30  # bytes that are left free on the disk
Shape = tuple[int, ...]
Blocks = Generator[tuple[int, Sequence[np.ndarray]], None, None]  # (line from 0, those of it)


class Kept(abc.ABC):
    """Blocks of numbers in FOLDER, several for each of IMAGES, of SHAPES; what FIELDS say they are.

    SHAPES has those of each image, as many for all. What the blocks of an image are together is
    said by EACH in messages, and what to do where the disk has no room for them by ADVICE.
    `places` says where each block begins, in numbers.
    """

    def __init__(
        self,
        folder: str,
        images: Lines[Any],
        shapes: Sequence[Sequence[Shape]],
        fields: Mapping[str, Any],
        each: str,
        advice: str,
    ) -> None:
        self.folder, self.images, self.shapes = folder, images, shapes
        self.each, self.advice = each, advice
        numbers = [math.prod(shape) for several in shapes for shape in several]
        self.places = np.cumsum([0, *numbers], dtype=np.int64)
        self.several = len(shapes[0])
        name = streams.digest(records.line({"format": FORMAT, **fields}))
        self.path = os.path.join(folder, f"maps-{name}.npy")
        self.digests = os.path.join(folder, f"maps-{name}.digests.npy")

    @property
    def size(self) -> int:
        """Bytes that the blocks take."""
        return int(self.places[-1]) * 2

    def there(self) -> bool:
        """Tell whether all blocks exist."""
        return os.path.exists(self.path) and os.path.exists(self.digests)

    def notice(self) -> str:
        """Return how large the blocks are; raise DataError where the disk has no room for them."""
        said = f"{len(self.images):,} images{self.each}, {self.size / 1e9:,.2f} GB"
        if self.there():
            return f"{self.path}: the maps of {said} are there"
        os.makedirs(self.folder, exist_ok=True)
        disk = os.statvfs(self.folder)
        free = disk.f_bavail * disk.f_frsize
        both = f"the maps of {said}; {free / 1e9:,.2f} GB are free"
        if self.size + LEFT > free:
            advice = f"name a folder on a larger disk, or {self.advice}"
            raise DataError(f"--cache {self.folder}: no room for {both}: {advice}")
        return f"{self.path}: {both}"

    @abc.abstractmethod
    def maps(self, device: torch.device, workers: int) -> Blocks:
        """Yield the blocks of the images of this rank; WORKERS read, the network is on DEVICE."""

    def make(self, device: torch.device, workers: int, progress: Progress) -> None:
        """Write all blocks, on all ranks, from maps(); PROGRESS is told how many images.

        Raises Stopped on all ranks where PROGRESS does on any, and DataError for numbers that
        float16 does not hold.
        """
        with contextlib.closing(self.maps(device, workers)) as blocks:
            features.fill(self._reserve, lambda arrays: self._write(arrays, blocks, progress))

    def _reserve(self, stack: contextlib.ExitStack) -> list[str]:
        """Return the names of the new files, at full size; they get their own names with STACK."""
        os.makedirs(self.folder, exist_ok=True)
        writing = streams.writing_together([self.digests, self.path], removed=[self.digests])
        files = stack.enter_context(writing)
        arrays = [("uint64", (len(self.images), self.several)), ("float16", (len(self),))]
        return features.begin(zip(files, arrays, strict=True), True)

    def __len__(self) -> int:
        return int(self.places[-1])

    def _write(self, arrays: Sequence[Filled], blocks: Blocks, progress: Progress) -> None:
        digests, maps = arrays
        for line, several in blocks:
            for shape, block in zip(self.shapes[line], several, strict=True):
                self._check(line, shape, block)
            whole = np.concatenate([block.reshape(-1) for block in several])
            maps.write(int(self.places[line * self.several]), whole)
            found = [self.digest(line, block) for block in several]
            digests.write(line, np.array([found], np.uint64))
            progress(line + 1, len(self.images))

    def _check(self, line: int, shape: Shape, block: np.ndarray) -> None:
        """Refuse BLOCK, of LINE, that is not of SHAPE, or not of finite numbers."""
        if block.dtype != np.float16 or block.shape != shape:
            message = f"its map is {block.shape}, not {shape}: another size than its header says"
            raise self.images.error(line + 1, f"{message}: leave out --cache")
        if not np.isfinite(block).all():
            message = "its map is NaN, or too large for float16: leave out --cache"
            raise self.images.error(line + 1, message)

    def digest(self, line: int, block: np.ndarray) -> int:
        """Return the digest, a number, of BLOCK, float16, of the image of LINE, from 0."""
        return int(streams.digest([b"%d " % line, block.tobytes()]), 16)


class Reading:
    """The blocks of KEPT, as they are on the disk: self(line, which), a float16 array."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.maps, self.digests = (
            containers.read_array(path) for path in (kept.path, kept.digests)
        )
        both = (len(kept.images), kept.several)
        for path, array, kind, shape in (
            (kept.path, self.maps, "<f2", (len(kept),)),
            (kept.digests, self.digests, "<u8", both),
        ):
            if (array.dtype, array.shape) != (np.dtype(kind), shape):
                raise DataError(f"{path}: not {shape} numbers: remove it, and it is made anew")
        self.seen = np.zeros(both, bool)

    def __call__(self, line: int, which: int) -> np.ndarray:
        """Return block WHICH of LINE, from 0; raise DataError if it is not what was written."""
        kept = self.kept
        begin, end = (int(each) for each in kept.places[line * kept.several + which :][:2])
        found = np.asarray(self.maps[begin:end]).reshape(kept.shapes[line][which])
        if not self.seen[line, which]:
            if kept.digest(line, found) != int(self.digests[line][which]):
                message = f"map {line + 1} is not what was written there: remove it, and"
                raise DataError(f"{kept.path}: {message} it is made anew")
            self.seen[line, which] = True
        return found


def of_this_rank(
    dataset: Any, count: int, device: torch.device, workers: int
) -> Generator[tuple[int, Any], None, None]:
    """Yield (line, item) of every RANKS-th of the COUNT lines of DATASET, in order, one by one.

    All WORKERS of a machine read, for a network on DEVICE.
    """
    order = ([line] for line in range(RANK, count, RANKS))
    reading = batches(dataset, order, -(-workers // LOCAL_RANKS), device.type == "cuda")
    with contextlib.closing(reading) as loaded:
        yield from zip(range(RANK, count, RANKS), loaded, strict=True)
