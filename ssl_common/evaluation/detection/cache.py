"""The maps of a frozen body for every image of a list and its mirror image: train-detector --cache.

They are kept in a folder until somebody removes them, float16, one after the other in the order of
the list, in a file that is called by what they are of: a run with the same body, list and size
takes them as they are. A digest of each, by which it is known again when a run first reads it,
stands in a file beside it.
"""

import contextlib
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ssl_common import containers, records, streams
from ssl_common.data.order import Item, draws
from ssl_common.data.targets import ObjectList
from ssl_common.evaluation import features
from ssl_common.evaluation.detection.networks import Made
from ssl_common.evaluation.detection.recipes import Design
from ssl_common.evaluation.detection.showing import collated, of_this_rank, view
from ssl_common.models import states
from ssl_common.progress import Progress
from ssl_common.stored import Filled
from ssl_common.streams import DataError

FORMAT = 1
LEFT = 1 << 30  # bytes that are left free on the disk


class Cache:
    """The maps in FOLDER of the body of MADE, of DESIGN, for IMAGES below ROOT.

    `places` says where each pair of maps begins, int64 (N + 1,), in numbers, and `shapes` how high
    and wide they are.
    """

    def __init__(
        self, folder: str, made: Made, design: Design, images: ObjectList, root: str
    ) -> None:
        self.folder, self.made, self.images, self.root = folder, made, images, root
        self.design = design
        sizes = [(each.height, each.width) for each in images]
        self.shapes = [self._shape(*size) for size in sizes]
        numbers = [2 * made.channels * height * width for height, width in self.shapes]
        self.places = np.cumsum([0, *numbers], dtype=np.int64)
        self.fields: dict[str, Any] = {
            "format": FORMAT,
            "body": states.digest(made.frozen),
            "size": [design.size, design.max_size],
            "manifest": images.digest(),
            "sizes": streams.digest(np.array(sizes, np.int64).tobytes()),
            "root": streams.utf8(os.path.realpath(root)),
        }
        name = streams.digest(records.line(self.fields))
        self.path = os.path.join(folder, f"maps-{name}.npy")
        self.digests = os.path.join(folder, f"maps-{name}.digests.npy")

    def _shape(self, height: int, width: int) -> tuple[int, int]:
        shown = view(height, width, self.design.size, self.design.max_size).size
        return -(-shown[0] // self.made.stride), -(-shown[1] // self.made.stride)

    @property
    def size(self) -> int:
        """Bytes that the maps take."""
        return int(self.places[-1]) * 2

    def there(self) -> bool:
        """Tell whether all maps exist."""
        return os.path.exists(self.path) and os.path.exists(self.digests)

    def notice(self) -> str:
        """Return how large the maps are; raise DataError where the disk has no room for them."""
        said = f"{len(self.images):,} images and their mirror images, {self.size / 1e9:,.2f} GB"
        if self.there():
            return f"{self.path}: the maps of {said} are there"
        os.makedirs(self.folder, exist_ok=True)
        disk = os.statvfs(self.folder)
        free = disk.f_bavail * disk.f_frsize
        both = f"the maps of {said}; {free / 1e9:,.2f} GB are free"
        if self.size + LEFT > free:
            advice = "name a folder on a larger disk, or lower --size"
            raise DataError(f"--cache {self.folder}: no room for {both}: {advice}")
        return f"{self.path}: {both}"

    def make(self, device: torch.device, workers: int, progress: Progress) -> None:
        """Write the maps, on all ranks; WORKERS read, and PROGRESS is told how many images.

        Raises Stopped on all ranks where PROGRESS does on any.
        """
        features.fill(self._reserve, lambda arrays: self._write(arrays, device, workers, progress))

    def _reserve(self, stack: contextlib.ExitStack) -> list[str]:
        """Return the names of the new files, at full size; they get their own names with STACK."""
        writing = streams.writing_together([self.digests, self.path], removed=[self.digests])
        files = stack.enter_context(writing)
        arrays = [("uint64", (len(self.images), 2)), ("float16", (int(self.places[-1]),))]
        return features.begin(zip(files, arrays, strict=True), True)

    def _write(
        self, arrays: Sequence[Filled], device: torch.device, workers: int, progress: Progress
    ) -> None:
        digests, maps = arrays
        reading = of_this_rank(self.images, self.root, self.design, device, workers)
        with contextlib.closing(reading) as pictures:
            for line, picture, _height, _width in pictures:
                both = [self._map(line, each) for each in (picture, picture.flip(2))]
                maps.write(int(self.places[line]), np.stack(both).reshape(-1))
                digests.write(line, np.array([[self.digest(line, each) for each in both]], "u8"))
                progress(line + 1, len(self.images))

    def _map(self, line: int, picture: torch.Tensor) -> np.ndarray:
        """Return the map of PICTURE, the image of LINE, float16 C x h x w; refuse a bad one."""
        found = self.made.features(picture).half().cpu()
        if tuple(found.shape) != (self.made.channels, *self.shapes[line]):
            raise AssertionError(f"a map of {tuple(found.shape)}, not of {self.shapes[line]}")
        if not found.isfinite().all():
            message = "its map is NaN, or too large for float16: leave out --cache"
            raise self.images.error(line + 1, message)
        return found.contiguous().numpy()

    def digest(self, line: int, feature_map: np.ndarray) -> int:
        """Return the digest, a number, of FEATURE_MAP, float16, of the image of LINE, from 0."""
        return int(streams.digest([b"%d " % line, feature_map.tobytes()]), 16)


class Cached:
    """The maps in CACHE, in the place of pictures, of which SEED says which are mirrored.

    With the objective's place FLIP of that in its DRAWS numbers.
    """

    def __init__(self, cache: Cache, seed: int, draws: int, flip: int) -> None:
        self.cache, self.manifest, self.seed = cache, cache.images, seed
        self.draws, self.flip = draws, flip
        self.maps, self.digests = (
            containers.read_array(path) for path in (cache.path, cache.digests)
        )
        count = int(cache.places[-1])
        for path, array, kind, shape in (
            (cache.path, self.maps, "<f2", (count,)),
            (cache.digests, self.digests, "<u8", (len(cache.images), 2)),
        ):
            if (array.dtype, array.shape) != (np.dtype(kind), shape):
                raise DataError(f"{path}: not {shape} numbers: remove it, and it is made anew")
        self.seen = np.zeros((len(cache.images), 2), bool)

    def prepare(self) -> None:
        """Do nothing: these need no preparation for reading."""

    def collate(self, items: Sequence[tuple[int, int, int, Any]]) -> list[Any]:
        """Return the batch of ITEMS."""
        return collated(items)

    def __getitem__(self, item: Item) -> tuple[int, int, int, Any]:
        epoch, index = item
        drawn = draws(self.seed, [epoch], [index], self.draws)[0]
        which = int(drawn[self.flip] < 0.5)  # the mirror image comes second
        cache = self.cache
        shape = (cache.made.channels, *cache.shapes[index])
        begin = int(cache.places[index]) + which * math.prod(shape)
        found = np.asarray(self.maps[begin : begin + math.prod(shape)]).reshape(shape)
        if not self.seen[index, which]:
            if cache.digest(index, found) != int(self.digests[index][which]):
                message = f"map {index + 1} is not what was written there: remove it, and"
                raise DataError(f"{cache.path}: {message} it is made anew")
            self.seen[index, which] = True
        image = self.manifest[index]
        return 0, epoch, index, (torch.from_numpy(found), image.height, image.width)
