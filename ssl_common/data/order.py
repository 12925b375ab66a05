"""Random draws that depend only on (seed, epoch, image): the order of images, and numbers."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ssl_common.data.mixing import GOLDEN, mix

Item = tuple[int, int]  # (epoch, index of an image), both from 0


def shuffle(
    positions: Sequence[int] | np.ndarray, count: int, seed: int, epoch: int, *more: int
) -> np.ndarray:
    """Return the images, of 0 .. COUNT-1, at POSITIONS in the order of EPOCH, int64.

    A Feistel network keyed by (SEED, EPOCH, MORE) permutes the numbers of 2k bits; one that lands
    at COUNT or above is sent through again until it lands below. So any part of the order of 100
    million images is had without drawing or keeping the rest.
    """
    half = np.uint64(max(1, (int(count - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = np.random.SeedSequence([seed, epoch, *more]).generate_state(6, np.uint64)

    def permute(values: np.ndarray) -> np.ndarray:
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


class ShuffleSampler:
    """Micro-batches of (epoch, index) over COUNT images, for the steps START to STEPS - 1.

    A step is a batch of BATCH images; an epoch ends where less than a whole batch is left of its
    order. A batch is cut into PARTS micro-batches, of which rank RANK of RANKS is given every
    RANKS-th: which images a micro-batch has depends on PARTS alone. ORDER(positions, count, seed,
    epoch) is the order of an epoch: shuffle() of all, or that of windows.Windows.
    """

    def __init__(
        self,
        count: int,
        batch: int,
        steps: int,
        start: int,
        seed: int,
        parts: int = 1,
        rank: int = 0,
        ranks: int = 1,
        order: Callable[..., np.ndarray] = shuffle,
    ):
        self.count, self.batch, self.steps, self.start, self.seed = count, batch, steps, start, seed
        self.parts, self.rank, self.ranks, self.order = parts, rank, ranks, order

    def __len__(self) -> int:
        return (self.steps - self.start) * self.parts // self.ranks

    def __iter__(self) -> Iterator[list[Item]]:
        for step in range(self.start, self.steps):
            epoch, place = divmod(step, self.count // self.batch)
            positions = np.arange(place * self.batch, (place + 1) * self.batch)
            parts = positions.reshape(self.parts, -1)[self.rank :: self.ranks]
            for indices in self.order(parts, self.count, self.seed, epoch):
                yield [(epoch, int(index)) for index in indices]


def draws(
    seed: int,
    epochs: Sequence[int] | np.ndarray,
    indices: Sequence[int] | np.ndarray,
    count: int,
) -> np.ndarray:
    """Return COUNT numbers in [0, 1) for each of the images INDICES in EPOCHS, float64 (N, COUNT).

    They depend on (SEED, epoch, index) alone: a worker draws for one image, the loop for a batch.
    """
    state = np.full((len(indices), 1), seed, np.uint64)
    for part in (epochs, indices):
        state = mix(state + GOLDEN) ^ np.asarray(part, np.uint64)[:, None]
    steps = np.arange(2, count + 2, dtype=np.uint64) * GOLDEN
    return (mix(mix(state + GOLDEN) + steps) >> np.uint64(11)) * 2.0**-53
