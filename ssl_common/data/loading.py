"""Images of a manifest in batches: any order and worker count give the same, from any step on."""

import contextlib
import functools
import os

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from ssl_common import streams
from ssl_common.crew import side_by_side
from ssl_common.data import identity, images, jpegs
from ssl_common.data.mixing import GOLDEN, mix
from ssl_common.streams import DataError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB
MANY = 5000  # images that repay what jpegs.hasten() takes
JUDGED_FROM = 1000  # images
MAX_UNREADABLE = 100  # lines in a row; then it is the folder that is wrong, not the images


def shuffled(positions, count, seed, epoch):
    """Return where the epoch's shuffle of 0 .. COUNT-1 has what stands at POSITIONS, int64.

    A Feistel network keyed by (SEED, EPOCH) permutes the numbers of 2k bits; one that lands at
    COUNT or above is sent through again until it lands below. So any part of the order of 100
    million images is had without drawing or keeping the rest.
    """
    half = np.uint64(max(1, (int(count - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = np.random.SeedSequence([seed, epoch]).generate_state(6, np.uint64)

    def permute(values):
        left, right = values >> half, values & mask
        for key in keys:
            mixed = (right ^ key) * GOLDEN
            mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
            left, right = right, left ^ ((mixed >> np.uint64(32)) & mask)
        return left << half | right

    values = permute(np.asarray(positions, np.uint64))
    while (outside := values >= count).any():
        values[outside] = permute(values[outside])
    return values.astype(np.int64)


class Shuffled:
    """Batches of (epoch, index) over COUNT images, from step START of STEPS on; whole ones only.

    Each is cut into PARTS micro-batches, of which rank RANK of RANKS is given every RANKS-th: which
    images a micro-batch has depends on PARTS alone.
    """

    def __init__(self, count, batch, steps, start, seed, parts=1, rank=0, ranks=1):
        self.count, self.batch, self.steps, self.start, self.seed = count, batch, steps, start, seed
        self.parts, self.rank, self.ranks = parts, rank, ranks

    def __len__(self):
        return (self.steps - self.start) * self.parts // self.ranks

    def __iter__(self):
        for step in range(self.start, self.steps):
            epoch, place = divmod(step, self.count // self.batch)
            positions = np.arange(place * self.batch, (place + 1) * self.batch)
            parts = positions.reshape(self.parts, -1)[self.rank :: self.ranks]
            for order in shuffled(parts, self.count, self.seed, epoch):
                yield [(epoch, int(index)) for index in order]


def draws(seed, epochs, indices, count):
    """Return COUNT numbers in [0, 1) for each of the images INDICES in EPOCHS, float64 (N, COUNT).

    They depend on (SEED, epoch, index) alone: a worker draws for one image, the loop for a batch.
    """
    state = np.full((len(indices), 1), seed, np.uint64)
    for part in (epochs, indices):
        state = mix(state + GOLDEN) ^ np.asarray(part, np.uint64)[:, None]
    steps = np.arange(2, count + 2, dtype=np.uint64) * GOLDEN
    return (mix(mix(state + GOLDEN) + steps) >> np.uint64(11)) * 2.0**-53


def _spaced(dataset, index):
    """Return what to say where line INDEX of a DATASET is "path label", as other lists have it."""
    path, space, label = dataset.manifest[index].path.rpartition(" ")
    if space and os.path.exists(os.path.join(dataset.root, path)):
        return f": write a TAB, not a space, between {path} and its label {label}"
    return ""


class Drawn(Dataset):
    """PRETEXT.crop(image, draws) of a manifest's images, uint8 pixels, for training.

    That gets the PRETEXT.draws numbers of draws(). An image that cannot be read gives its
    place to the next readable line; each item is (lines passed over, epoch, index, pixels).
    """

    def __init__(self, manifest, root, pretext, seed):
        self.manifest, self.root, self.pretext, self.seed = manifest, root, pretext, seed

    def prepare(self):
        """Make ready for reading many images, in the process that is to read them."""
        jpegs.hasten()

    def __getitem__(self, item):
        return self.__getitems__([item])[0]

    def __getitems__(self, items):
        """Return a batch: drawn for at once, which takes no longer than for one image."""
        epochs, indices = zip(*items, strict=True)
        drawn = draws(self.seed, epochs, indices, self.pretext.draws)
        return [self._read(*each) for each in zip(epochs, indices, drawn, strict=True)]

    def _read(self, epoch, index, drawn):
        reason = None
        for passed in range(min(MAX_UNREADABLE, len(self.manifest))):
            line = (index + passed) % len(self.manifest)
            try:
                image = images.read(self.manifest[line].path, self.root)
            except images.Unreadable as error:
                reason = reason or error
                continue
            return passed, epoch, index, self.pretext.crop(image, drawn)
        message = f"no image can be read here or in the {passed} lines after (is --root right?)"
        raise self.manifest.error(index + 1, f"{message}: {reason}{_spaced(self, index)}")


class InOrder(Dataset):
    """TRANSFORM(image) of a manifest's images, line by line; an unreadable one is an error."""

    def __init__(self, manifest, root, transform):
        self.manifest, self.root, self.transform = manifest, root, transform

    def __len__(self):
        return len(self.manifest)

    def prepare(self):
        """Make ready for reading, in the process that is to read: it must pay off."""
        if len(self) > MANY:
            jpegs.hasten()

    def __getitem__(self, index):
        return self.read(index)

    def read(self, index, seen=lambda stream: None):
        """Return the image of line INDEX, transformed; SEEN is as images.read() takes it."""
        try:
            return self.transform(images.read(self.manifest[index].path, self.root, seen))
        except images.Unreadable as error:
            advice = _spaced(self, index) or ": mend the file or drop the line"
            raise self.manifest.error(index + 1, f"{error}{advice}") from None


class Known(InOrder):
    """The same, each image with by what the bytes of its file are known, int64: see identity."""

    def __getitem__(self, index):
        contents = []
        image = self.read(index, lambda stream: contents.append(identity.known_file(stream)))
        return image, contents[0]


def too_many(unreadable, seen, most, count, whole):
    """Tell whether more than the share MOST of the images SEEN are UNREADABLE.

    That is judged from JUDGED_FROM images on. A list of COUNT images that is shorter is judged
    where it has been seen WHOLE, so that the share is that of the list at any shuffle.
    """
    judged = whole or (seen >= JUDGED_FROM and count > JUDGED_FROM)
    return judged and unreadable > most * seen


def unreadable_error(manifest, unreadable, seen, most, lines):
    """Return the error of too_many() images; the first of LINES, from 0, is named."""
    named = f"line {lines[0] + 1}: {manifest[lines[0]].path}" if lines else "the log names them"
    share = f"{unreadable:,} of {seen:,} images cannot be read ({named})"
    message = f"{share}, more than --max-bad {most:.3%}: mend them, check --root, or raise it"
    return DataError(f"{streams.name(manifest.path)}: {message}")


def standardize(pixels, mean=MEAN, deviation=STD):
    """Return uint8 RGB PIXELS (... x 3 x H x W) as float: /255, less MEAN, by DEVIATION."""
    mean, deviation = _statistics(pixels.device, mean, deviation)
    return (pixels.float() / 255 - mean) / deviation


@functools.cache  # copying them to a GPU each time would wait for it
def _statistics(device, *both):
    return [torch.tensor(v, device=device).view(3, 1, 1) for v in both]


def batches(dataset, sampler, workers, pin):
    """Yield batches of DATASET in the order of SAMPLER, which yields lists of items.

    PIN puts them where a GPU can fetch them by itself. Close it: that ends the processes.
    """
    dataset.prepare()  # before there are workers: each would take as long

    def room(size):
        if pin:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
        return np.empty(size, np.uint8)  # of large pages, where torch has small ones

    work = functools.partial(_batch, dataset)
    with contextlib.closing(side_by_side(work, sampler, workers, _alone, room)) as loaded:
        for arrays in loaded:
            batch = [torch.from_numpy(array) for array in arrays]
            if pin and not workers:
                batch = [tensor.pin_memory() for tensor in batch]
            yield batch if len(batch) > 1 else batch[0]


def _batch(dataset, items):
    """Return ITEMS of DATASET as arrays, one of each part of an item, whose first axis they are."""
    try:
        at_once = getattr(dataset, "__getitems__", None)
        batch = default_collate(at_once(items) if at_once else [dataset[item] for item in items])
    except (MemoryError, OSError, RuntimeError) as error:
        if lacks := images.lacking(error):
            raise DataError(f"{streams.name(dataset.manifest.path)}: {lacks}") from error
        raise
    return [tensor.numpy() for tensor in (batch if isinstance(batch, list) else [batch])]


def _alone():
    """Make ready a process that reads: an image is too small for threads to share."""
    torch.set_num_threads(1)
