"""Images of a manifest in batches: any order and worker count give the same, from any step on."""

import contextlib
import functools
import signal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from ssl_common.data import images
from ssl_common.data.mixing import GOLDEN, mix
from ssl_common.processes import born_deaf, die_with_parent
from ssl_common.streams import DataError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB
MANY = 5000  # images that repay what images.hasten() takes
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


class Drawn(Dataset):
    """PRETEXT.crop(image, draws) of a manifest's images, uint8 pixels, for training.

    That gets the PRETEXT.draws numbers of draws(). An image that cannot be read gives its
    place to the next readable line; each item is (lines passed over, epoch, index, pixels).
    """

    def __init__(self, manifest, root, pretext, seed):
        self.manifest, self.root, self.pretext, self.seed = manifest, root, pretext, seed

    def prepare(self):
        """Make ready for reading many images, in the process that is to read them."""
        images.hasten()

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
        raise self.manifest.error(index + 1, f"{message}: {reason}")


class InOrder(Dataset):
    """TRANSFORM(image) of a manifest's images, line by line; an unreadable one is an error."""

    def __init__(self, manifest, root, transform):
        self.manifest, self.root, self.transform = manifest, root, transform

    def __len__(self):
        return len(self.manifest)

    def prepare(self):
        """Make ready for reading, in the process that is to read: it must pay off."""
        if len(self) > MANY:
            images.hasten()

    def __getitem__(self, index):
        try:
            return self.transform(images.read(self.manifest[index].path, self.root))
        except images.Unreadable as error:
            raise self.manifest.error(
                index + 1, f"{error}: mend the file or drop the line"
            ) from None


def standardize(pixels, mean=MEAN, deviation=STD):
    """Return uint8 RGB PIXELS (... x 3 x H x W) as float: /255, less MEAN, by DEVIATION."""
    mean, deviation = _statistics(pixels.device, mean, deviation)
    return (pixels.float() / 255 - mean) / deviation


@functools.cache  # copying them to a GPU each time would wait for it
def _statistics(device, *both):
    return [torch.tensor(v, device=device).view(3, 1, 1) for v in both]


def _begin(_worker):
    """Make a new process ready; it lets go of its files at once when the parent dies."""
    die_with_parent(signal.SIGKILL)
    get_worker_info().dataset.dataset.prepare()  # done already, where it was forked


class _Guarded(Dataset):
    """A data set whose items come with their error, since a worker's crosses as a traceback."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __getitems__(self, items):
        try:
            at_once = getattr(self.dataset, "__getitems__", None)
            return at_once(items) if at_once else [self.dataset[item] for item in items]
        except DataError as error:
            return error


def _collate(items):
    if isinstance(items, DataError):
        return items
    return default_collate(items)


def batches(dataset, sampler, workers, pin):
    """Yield batches of DATASET in the order of SAMPLER, which yields lists of items.

    PIN puts them where a GPU can fetch them by itself.
    """
    dataset.prepare()  # before there are workers: each would take as long
    loader = DataLoader(
        _Guarded(dataset),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_begin,
        pin_memory=pin,
        generator=torch.Generator(),  # or it would draw from the one of the network
    )
    with born_deaf() if workers else contextlib.nullcontext():
        loaded = iter(loader)
    try:
        for batch in loaded:
            if isinstance(batch, DataError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        message = "a process that reads images was killed (memory or /dev/shm full?): give -j 0"
        raise DataError(message) from error
    finally:
        del loaded  # ends the processes here: at the exit of Python they would be deaf to it
