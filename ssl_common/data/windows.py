"""The order of images by windows of few shards: for disks and networks that hate random reads."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_common.data.lines import Lines
from ssl_common.data.order import shuffle
from ssl_common.data.shards import MEMBER

MOST = 1 << 20  # shards and folders of a list
GROUPS, WITHIN = 1, 2  # what is shuffled: each by numbers of its own


def place(path: str) -> str:
    """Return the shard that PATH leads into by its name, or else its folder."""
    found = MEMBER.search(path)
    return path[: found.end()] if found else os.path.dirname(path)


def begins(manifest: Lines[Any]) -> np.ndarray:
    """Return where the images of each shard, or folder, begin in MANIFEST, and its length, int64.

    A shard ends where halving finds another: few lines are read, not all. Raises DataError, naming
    the line, where a shard is met that came before. Were one overlooked within another, each image
    would still come once an epoch.
    """
    count, start = len(manifest), 0
    seen: set[str] = set()
    found: list[int] = []

    def at(line: int) -> str:
        return place(manifest[line].path)

    while start < count:
        here = at(start)
        if here in seen:
            message = f"{here} again, which stood before: --shuffle-window needs a sorted list"
            raise manifest.error(start + 1, message)
        if len(seen) == MOST:
            message = f"more than {MOST:,} shards and folders: --shuffle-window is for few"
            raise manifest.error(start + 1, message)
        seen.add(here)
        found.append(start)
        last, step = start, 1
        while last + step < count and at(last + step) == here:
            last, step = last + step, 2 * step
        start = min(last + step, count)  # not here; last is
        while start - last > 1:
            middle = (start + last) // 2
            last, start = (middle, start) if at(middle) == here else (last, middle)
    return np.array([*found, count], np.int64)


class Windows:
    """An order of images, WIDE shards at a time, of which BEGINS is what begins() returns.

    Shards are shuffled; then the images of each WIDE shards that follow each other, together.
    """

    def __init__(self, begins: np.ndarray, wide: int) -> None:
        self.begins, self.wide = begins, wide
        self._of: tuple[int, int] | None = None

    def shuffle(
        self, positions: Sequence[int] | np.ndarray, count: int, seed: int, epoch: int
    ) -> np.ndarray:
        """Return the images, of all COUNT, at POSITIONS in the order of EPOCH by SEED, int64."""
        if self._of != (seed, epoch):
            self._begin(seed, epoch)
        positions = np.asarray(positions, np.int64)
        images = np.empty_like(positions)
        windows = np.searchsorted(self._ends, positions, side="right")
        for window in np.unique(windows).tolist():
            start = int(self._ends[window - 1]) if window else 0
            size = int(self._ends[window]) - start
            inside = windows == window
            within = positions[inside] - start
            images[inside] = shuffle(within, size, seed, epoch, WITHIN, window) + start
        group = np.searchsorted(self._starts, images, side="right") - 1
        return self.begins[self._order[group]] + images - self._starts[group]

    def _begin(self, seed, epoch):
        """Find which shards make which windows of EPOCH, and where they begin in its order."""
        sizes = np.diff(self.begins)
        self._order = shuffle(range(len(sizes)), len(sizes), seed, epoch, GROUPS)
        ends = np.cumsum(sizes[self._order])
        self._starts = ends - sizes[self._order]
        last = [*range(self.wide - 1, len(sizes) - 1, self.wide), len(sizes) - 1]
        self._ends, self._of = ends[last], (seed, epoch)
