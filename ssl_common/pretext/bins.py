"""Bins of the ab plane: colours as soft labels over them, and how often they occur in images."""

import math
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
import torch
from torch.utils.data import BatchSampler, SequentialSampler

from ssl_common import containers, formats, threads
from ssl_common.data import images
from ssl_common.data.batches import batches
from ssl_common.data.datasets import SequentialImages, too_many, unreadable_error
from ssl_common.data.manifest import Manifest
from ssl_common.data.pixels import resize
from ssl_common.pretext.color import lab8

# a -> the first and last b of the bins of Zhang et al. (ECCV 2016), both in steps of 10; taken from
# their pts_in_hull.npy (richzhang/colorization). No rule of the sRGB gamut gives these 313.
HULL = {
    **{-90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90), -50: (-30, 100)},
    **{-40: (-40, 100), -30: (-50, 100), -20: (-50, 100), -10: (-60, 100), 0: (-70, 100)},
    **{10: (-80, 90), 20: (-80, 90), 30: (-90, 90), 40: (-100, 90), 50: (-100, 80)},
    **{60: (-110, 80), 70: (-110, 80), 80: (-110, 70), 90: (-110, 70), 100: (-90, 0)},
}
SIGMA = 5.0  # of the Gaussian weights of the neighbours, in units of ab
NEIGHBORS = 20  # of bins 10 apart, all that have weight: the others share 3e-5 of it at most
UNIFORM = 0.5  # share of the uniform distribution in the smoothed prior
TEMPERATURE = 0.38  # of the annealed mean

GRAY = 5  # an image whose |a| and |b| are nowhere above it has no colour to learn
SIDE = 256  # pixels of an image that is counted
TOGETHER = 16  # images that a worker counts before it tells


def hull() -> np.ndarray:
    """Return the 313 bins of Zhang et al., int64 (313, 2): a, b; sorted by a, then b."""
    return np.array([(a, b) for a, (low, high) in HULL.items() for b in range(low, high + 1, 10)])


class Bins:
    """Colours as soft labels over POINTS, int64 (Q, 2): the NEIGHBORS nearest, by distance.

    PRIOR, float64 (Q), is how often each point is the nearest; with it rare colours weigh more.
    `nearest` int64 and `share` float32, (65536, K), hold for each colour of 8 bits, row
    256 (a + 128) + b + 128, its nearest points and their weights, which sum to 1; `weight`, float32
    (Q), is the weight of a pixel by its nearest point; see rebalancing().
    """

    def __init__(self, points: np.ndarray, prior: np.ndarray | None = None, neighbors: int = 10):
        self.points, self.prior = points, prior
        apart = min(10, np.diff(np.unique(points[:, 0]), append=[384]).min())
        count = min(neighbors, math.ceil(NEIGHBORS * (10 / apart) ** 2), len(points))
        self.nearest, self.share = (torch.from_numpy(t) for t in soft_labels(points, count))
        self.weight = torch.from_numpy(rebalancing(points, prior)).float()

    def to(self, device: torch.device) -> "Bins":
        """Move the tables to DEVICE, where they are not there yet; return self."""
        if self.nearest.device != device:
            self.nearest, self.share = self.nearest.to(device), self.share.to(device)
            self.weight = self.weight.to(device)
        return self

    def encode(self, ab: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (nearest points int64, weights float32), both N x K, of AB, int (N, 2)."""
        row = (ab[:, 0] + 128) * 256 + ab[:, 1] + 128
        return self.nearest[row], self.share[row]

    def decode(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the annealed mean of LOGITS (... x Q): ab, float32 ... x 2."""
        probability = (logits.float() / TEMPERATURE).softmax(-1)
        return probability @ torch.from_numpy(self.points).to(probability)

    def constant(self) -> float:
        """Return the loss of the best constant prediction on colours distributed as the prior."""
        if self.prior is None:
            return math.log(len(self.points))
        mass = self.prior * self.weight.numpy()
        nearest, share = (t.numpy() for t in self.encode(torch.from_numpy(self.points)))
        mean = np.bincount(nearest.ravel(), (mass[:, None] * share).ravel(), len(self.points))
        mean = mean[mean > 0] / mean.sum()
        return float(-(mean * np.log(mean)).sum())


def soft_labels(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (nearest of POINTS int64, their weights float32), (65536, COUNT), of each a and b.

    Row 256 (a + 128) + b + 128. Of points as near, the first is the nearer. Weights are
    exp(-d**2 / (2 SIGMA**2)), of sum 1.
    """
    axis = torch.arange(-128, 128, dtype=torch.int32)
    numbers = torch.arange(len(points), dtype=torch.int32)
    a, b = ((axis[:, None] - torch.from_numpy(points[:, c]).int()) ** 2 for c in (0, 1))
    # Distance and number in one whole number, so that there are no ties.
    key = (a[:, None] + b) * len(points) + numbers  # 256 x 256 x Q
    key = key.topk(count, sorted=True, largest=False)[0].view(-1, count).long()
    square, nearest = (key // len(points)).double(), key % len(points)
    share = ((square[:, :1] - square) / (2 * SIGMA**2)).exp()
    return nearest.numpy(), (share / share.sum(1, keepdim=True)).float().numpy()


def rebalancing(points: np.ndarray, prior: np.ndarray | None) -> np.ndarray:
    """Return the weight of a pixel by its nearest of POINTS (Q, 2), float64 (Q); 1 without PRIOR.

    Section 2.2 of Zhang et al.: proportional to 1 / ((1 - UNIFORM) PRIOR + UNIFORM / Q'), where Q'
    is the number of points that occur; scaled to a mean of 1 under PRIOR. Points that do not occur
    have the greatest weight.
    """
    if prior is None:
        return np.ones(len(points))
    mixed = (1 - UNIFORM) * prior + UNIFORM / np.count_nonzero(prior)
    return 1 / mixed / (prior / mixed).sum()


# ---- Counting ---------------------------------------------------------------------------------


class Histograms(SequentialImages):
    """How often each a and b occurs in an image of MANIFEST, int32 (65536), row 256 a8 + b8.

    The image is resized to 256 x 256, whatever its proportions. An unreadable one has zeros.
    """

    def __init__(self, manifest: Manifest, root: str):
        super().__init__(manifest, root, histogram)

    def __getitem__(self, index: int) -> np.ndarray:
        try:
            return self.transform(images.read(self.manifest[index].path, self.store))
        except images.Unreadable:
            return np.zeros(1 << 16, np.int32)


def histogram(image: torch.Tensor) -> np.ndarray:
    """Return how often each a and b occurs in IMAGE, uint8 H x W x 3, as Histograms has it."""
    image = resize(image, (SIDE, SIDE))
    _l, a, b = lab8(image.permute(2, 0, 1)).numpy().astype(int)
    return np.bincount((a * 256 + b).ravel(), minlength=1 << 16).astype(np.int32)


def make(
    manifest: Manifest,
    root: str,
    grid: int | None,
    workers: int,
    progress: Callable[[int, int], object],
    max_bad: float,
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return (points, prior, a summary in words) of the images of MANIFEST.

    The points are the cells of GRID that have colours, or the 313 of hull() where it is None.
    Raises DataError where all images are gray, and as count() does.
    """
    counts, unreadable, gray = count(manifest, root, workers, progress, max_bad)
    read = len(manifest) - unreadable
    if gray == read:
        raise manifest.error(1, f"all {read:,} images are gray: nothing can be learned of colours")
    if grid:
        points, share = grid_points(counts, grid)
    else:
        points = hull()
        share = prior(counts, points)
    summary = f"{read:,} images, {len(points)} bins"
    summary += "" if grid else f", {np.count_nonzero(share)} of them with colours"
    for number, kind in ((unreadable, "unreadable"), (gray, "gray")):
        summary += f"; {number:,} {kind}" if number else ""
    return points, share, summary


def count(
    manifest: Manifest,
    root: str,
    workers: int,
    progress: Callable[[int, int], object],
    max_bad: float,
) -> tuple[np.ndarray, int, int]:
    """Return (how often each a and b occurs in the images of MANIFEST, unreadable ones, gray ones).

    int64 (256, 256), from -128 each. Raises DataError where no image can be read, or a greater
    share than MAX_BAD cannot.
    """
    total, gray, done = np.zeros(1 << 16, np.int64), 0, 0
    unreadable: list[int] = []  # lines, from 0
    order = BatchSampler(SequentialSampler(manifest), TOGETHER, drop_last=False)
    coloured = np.abs(np.mgrid[-128:128, -128:128]).max(0).ravel() > GRAY
    # As in a worker: an image is too small to share, and threads that wait for it burn the cores.
    with threads.sharing(1):
        for counts in batches(Histograms(manifest, root), order, workers, pin=False):
            counts = counts.numpy()
            total += counts.sum(0)
            bad = ~counts.any(1)
            unreadable += (done + np.flatnonzero(bad)).tolist()
            gray += int((~bad & ~counts[:, coloured].any(1)).sum())
            done += len(counts)
            share = (len(unreadable), done, max_bad)
            if too_many(*share, len(manifest), whole=done == len(manifest)):
                raise unreadable_error(manifest, *share, unreadable)
            progress(done, len(manifest))
    if len(unreadable) == len(manifest):
        raise manifest.error(1, f"no image of {done:,} can be read: is --root right?")
    return total.reshape(256, 256), len(unreadable), gray


def grid_points(histogram: np.ndarray, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (points int64 (Q, 2), prior float64 (Q)): the cells of GRID that HISTOGRAM fills.

    HISTOGRAM is what count() gives. A point is the least a and b of its cell, counted from -128:
    the corner, not the middle. Colours above the last edge, the greatest multiple of GRID, are in
    no cell; those on it are in the last one, as numpy.histogram2d has it.
    """
    edges = np.arange(0, 256, grid)
    inside = histogram[: edges[-1] + 1, : edges[-1] + 1]
    cells = np.add.reduceat(np.add.reduceat(inside, edges[:-1], 0), edges[:-1], 1)
    filled = np.argwhere(cells)  # by a, then b
    return filled * grid - 128, cells[cells > 0] / cells.sum()


def prior(histogram: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return how often each of POINTS is the nearest of the colours of HISTOGRAM, float64 (Q)."""
    nearest, _share = soft_labels(points, 1)
    counts = np.bincount(nearest.ravel(), histogram.ravel(), len(points))
    return counts / counts.sum()


# ---- Files ------------------------------------------------------------------------------------


def save(stream: BinaryIO, points: np.ndarray, prior: np.ndarray) -> None:
    """Write POINTS (Q, 2) and their PRIOR (Q) as .npz."""
    version = np.int64(formats.BINS.version)
    containers.write_arrays(stream, format=version, points=points, prior=prior)


def load(path: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return (points, prior) of the file PATH of make-color-bins, or of another project.

    An array of points alone has no prior, None, as pts_in_hull.npy of Zhang et al. and the authors'
    files; one of numbers, their prior_probs.npy, is how often each of the 313 bins occurs. Raises
    DataError for others.
    """
    content = containers.read_either(path)
    if isinstance(content, dict):
        bins = formats.BINS.check(content, path)
        return bins["points"], bins["prior"]
    if content.ndim == 1:
        return hull(), formats.PRIOR.check({"prior": content}, path)["prior"]
    return formats.POINTS.check({"points": content}, path)["points"], None
