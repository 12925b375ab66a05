"""Data sets: the images of a manifest, one by one, as a network is to be given them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from torch.utils.data import default_collate

from ssl_common import streams
from ssl_common.data import identity, images, jpegs
from ssl_common.data.lines import Lines
from ssl_common.data.order import Item, draws
from ssl_common.data.stores import Store, store
from ssl_common.objective import Objective
from ssl_common.streams import DataError

MANY = 5000  # images that repay what jpegs.hasten() takes
JUDGED_FROM = 1000  # images
MAX_UNREADABLE = 100  # lines in a row; then it is the folder that is wrong, not the images


class Dataset(Protocol):
    """A data set that batches() reads, in this process or in workers; it can be pickled.

    `manifest` is the list that it reads, which errors name. `prepare` is called once before any
    item is read, in the process that starts the workers. `self[item]` is a number, an array or a
    tensor, or a tuple of these, of the same shapes for all items; item is what the sampler yields:
    a line of the manifest from 0, or (epoch, line) in training.

    Two more methods it may have: __getitems__(items), a list, where several items are read faster
    at once; and collate(list of what items are), a batch: lists, tuples and dicts with tensors,
    where items have different shapes, as images of several sizes or boxes.
    """

    @property
    def manifest(self) -> Lines: ...

    def prepare(self) -> None: ...

    def __getitem__(self, item: Any, /) -> Any: ...


class Gathered(list[Any]):
    """COUNT items, each (..., pixels), of READ; their pixels are rows of one tensor, `pixels`.

    A crop is part of a larger image: copied at once, it lets the next image have that memory, which
    is in the processor's cache still; and nothing is left to be stacked.
    """

    def __init__(self, read: Iterable[tuple[Any, ...]], count: int) -> None:
        super().__init__()
        for place, (*numbers, pixels) in enumerate(read):
            shown = np.asarray(pixels)
            if not place:
                room = np.empty((count, *shown.shape), shown.dtype)  # of large pages: torch's not
                self.pixels = torch.from_numpy(room)
            room[place] = shown
            self.append((*numbers, self.pixels[place]))


class RandomCrops:
    """OBJECTIVE.crop(image, numbers) of a manifest's images, for training.

    Items are (epoch, index); the numbers are the draws() of SEED for that item. An image that
    cannot be read gives its place to the next readable line. What comes back of an item is (lines
    passed over, epoch, index, pixels).
    """

    one_size = True  # that all show() gives is tensors of one shape

    def __init__(self, manifest: Lines, root: str | Store, objective: Objective, seed: int):
        self.manifest, self.store = manifest, store(root)
        self.objective, self.seed = objective, seed

    def prepare(self) -> None:
        """Find a fast decoder, in the process that starts the workers."""
        jpegs.hasten()

    def __getitem__(self, item: Item) -> tuple[int, int, int, torch.Tensor]:
        return self.__getitems__([item])[0]

    def __getitems__(self, items: Sequence[Item]) -> list[tuple[int, int, int, torch.Tensor]]:
        """Return ITEMS; drawing for all at once takes no longer than for one image."""
        epochs, indices = zip(*items, strict=True)
        numbers = draws(self.seed, epochs, indices, self.objective.draws)
        read = (self._read(*each) for each in zip(epochs, indices, numbers, strict=True))
        several = self.one_size and len(items) > 1
        return Gathered(read, len(items)) if several else list(read)

    def collate(self, items: Sequence[tuple[int, int, int, Any]]) -> list[Any]:
        """Return the batch of ITEMS, as default_collate() makes it: their pixels are there."""
        if not isinstance(items, Gathered):
            return default_collate(list(items))
        passed, epochs, indices, _rows = zip(*items, strict=True)
        return [*map(torch.tensor, (passed, epochs, indices)), items.pixels]

    def show(self, line: int, image: torch.Tensor, numbers: Any) -> Any:
        """Return what the network is given of IMAGE, that of LINE, by its NUMBERS."""
        return self.objective.crop(image, numbers)

    def _read(self, epoch: int, index: int, numbers: Any) -> tuple[int, int, int, torch.Tensor]:
        reason = None
        for passed in range(min(MAX_UNREADABLE, len(self.manifest))):
            line = (index + passed) % len(self.manifest)
            try:
                image = images.read(self.manifest[line].path, self.store)
            except images.Unreadable as error:
                reason = reason or error
                continue
            return passed, epoch, index, self.show(line, image, numbers)
        message = f"no image can be read here or in the {passed} lines after (is --root right?)"
        advice = _space_advice(self.manifest, self.store, index)
        raise self.manifest.error(index + 1, f"{message}: {reason}{advice}")


class SequentialImages:
    """TRANSFORM(image) of each line of a manifest, in order; an unreadable image is an error.

    Items are lines, from 0.
    """

    def __init__(
        self, manifest: Lines, root: str | Store, transform: Callable[[torch.Tensor], Any]
    ):
        self.manifest, self.store, self.transform = manifest, store(root), transform

    def __len__(self) -> int:
        return len(self.manifest)

    def prepare(self) -> None:
        """Find a fast decoder if there are enough images to repay the search."""
        if len(self) > MANY:
            jpegs.hasten()

    def __getitem__(self, index: int) -> Any:
        return self.read(index)

    def read(self, index: int, hook: Callable[[BinaryIO], object] = lambda stream: None) -> Any:
        """Return the image of line INDEX, transformed; HOOK is as images.read() takes it."""
        try:
            return self.transform(images.read(self.manifest[index].path, self.store, hook))
        except images.Unreadable as error:
            advice = _space_advice(self.manifest, self.store, index)
            advice = advice or ": mend the file or drop the line"
            raise self.manifest.error(index + 1, f"{error}{advice}") from None


class FingerprintedImages(SequentialImages):
    """The same, each with the fingerprint of its file, int64: see identity."""

    def __getitem__(self, index: int) -> tuple[Any, int]:
        fingerprints: list[int] = []
        image = self.read(index, lambda file: fingerprints.append(identity.file_fingerprint(file)))
        return image, fingerprints[0]


def _space_advice(manifest: Lines, place: Store, index: int) -> str:
    """Return what to say where line INDEX is "path label", with a space, as other lists have it."""
    path, space, label = manifest[index].path.rpartition(" ")
    if space and place.exists(path):
        return f": write a TAB, not a space, between {path} and its label {label}"
    return ""


def too_many(unreadable: int, seen: int, most: float, count: int, whole: bool) -> bool:
    """Tell whether, of the images SEEN, more than the share MOST are UNREADABLE.

    That is judged from JUDGED_FROM images on. A list of COUNT images that is shorter is judged
    where it has been seen WHOLE, so that the share is that of the list at any shuffle.
    """
    judged = whole or (seen >= JUDGED_FROM and count > JUDGED_FROM)
    return judged and unreadable > most * seen


def unreadable_error(
    manifest: Lines, unreadable: int, seen: int, most: float, lines: Sequence[int]
) -> DataError:
    """Return the error for too_many() images, which names the first of LINES, from 0."""
    named = f"line {lines[0] + 1}: {manifest[lines[0]].path}" if lines else "the log names them"
    share = f"{unreadable:,} of {seen:,} images cannot be read ({named})"
    message = f"{share}, more than --max-bad {most:.3%}: mend them, check --root, or raise it"
    return DataError(f"{streams.name(manifest.path)}: {message}")
