"""Lab by the paper's 8-bit convention, and colours as soft labels over the bins of the ab plane.

L, a and b of sRGB under D65 as whole numbers of 8 bits, L * 255 / 100, a + 128 and b + 128: what
OpenCV makes of 8-bit images, which the paper's code called. It is whole-number arithmetic and
tables, so a GPU and a CPU give the same.
"""

import functools
import math

import numpy as np
import torch

from ssl_common.data.loading import standardize
from ssl_common.streams import DataError, name, read_arrays

# a -> the first and last b of the bins of Zhang et al. (ECCV 2016), both in steps of 10; taken from
# their pts_in_hull.npy (richzhang/colorization). No rule of the sRGB gamut gives these 313.
HULL = {
    **{-90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90), -50: (-30, 100)},
    **{-40: (-40, 100), -30: (-50, 100), -20: (-50, 100), -10: (-60, 100), 0: (-70, 100)},
    **{10: (-80, 90), 20: (-80, 90), 30: (-90, 90), 40: (-100, 90), 50: (-100, 80)},
    **{60: (-110, 80), 70: (-110, 80), 80: (-110, 70), 90: (-110, 70), 100: (-90, 0)},
}
SIGMA = 5.0  # of the Gaussian weights of the neighbours, in units of ab
NEIGHBORS = 20  # all that have weight: the others share 4e-6 of it
UNIFORM = 0.5  # share of the uniform distribution in the smoothed prior
TEMPERATURE = 0.38  # of the annealed mean

_FIX, _GAMMA, _CBRT = 12, 8, 15  # bits of the matrix's fractions, steps a level, bits of the roots
# sRGB to XYZ (IEC 61966-2-1), each row by the D65 white point.
_XYZ = np.array([(0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169),
                 (0.019334, 0.119193, 0.950227)]) / [[0.950456], [1.0], [1.088754]]  # fmt: skip


def hull():
    """Return the 313 bins of Zhang et al., int64 (313, 2): a, b; sorted by a, then b."""
    return np.array([(a, b) for a, (low, high) in HULL.items() for b in range(low, high + 1, 10)])


@functools.cache
def _tables(device):
    """Return (what R, G and B add to X, Y and Z: 3 x 3 x 256, f of a sum), as int32 on DEVICE."""
    level = np.arange(256) / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    linear = np.rint(linear * 255 * _GAMMA)
    added = np.rint(_XYZ * (1 << _FIX))[:, :, None] * linear
    # Of white, in single precision: so every one of the 2**24 colours comes out as OpenCV's.
    share = np.arange(255 * _GAMMA * 3 // 2, dtype=np.float32) * np.float32(1 / (255 * _GAMMA))
    root = np.where(share > 0.008856, np.cbrt(share), share * 7.787 + 16 / 116)
    root = np.rint(root * (1 << _CBRT))
    return tuple(torch.from_numpy(t.astype(np.int32)).to(device) for t in (added, root))


def _roots(pixels, rows):
    """Yield f of X, Y and Z, those in ROWS, of uint8 RGB PIXELS (... x 3 x H x W), int32."""
    added, root = _tables(pixels.device)
    channels = [channel.int() for channel in pixels.unbind(-3)]
    for row in rows:
        total = sum(_looked_up(added[row, c], channel) for c, channel in enumerate(channels))
        yield _looked_up(root, _descaled(total, _FIX))


def _looked_up(table, index):
    return table.index_select(0, index.reshape(-1)).view(index.shape)


def _descaled(value, bits):
    """Return VALUE by 2**BITS, rounded."""
    return (value + (1 << (bits - 1))) >> bits


def lab8(pixels):
    """Return L, a, b, uint8 (... x 3 x H x W), of uint8 RGB PIXELS of that shape."""
    x, y, z = _roots(pixels, range(3))
    a = _descaled(500 * (x - y) + (128 << _CBRT), _CBRT)
    b = _descaled(200 * (y - z) + (128 << _CBRT), _CBRT)
    return torch.stack([_lightness8(y), a, b], -3).clamp_(0, 255).byte()


def _lightness8(y):
    """Return L * 255 / 100 of f of Y."""
    return _descaled(296 * y - ((16 * 255 * (1 << _CBRT) + 50) // 100), _CBRT)


def lightness(pixels):
    """Return L of uint8 RGB PIXELS (... x 3 x H x W), float32 ... x 1 x H x W, -50 to 50."""
    (y,) = _roots(pixels, [1])
    return (_lightness8(y).float() * (100 / 255) - 50).unsqueeze(-3)


READERS = {"rgb": standardize, "lab": lightness}  # what a trunk reads, from uint8 RGB pixels


class Bins:
    """Colours as soft labels over POINTS, int64 (Q, 2): the NEIGHBORS nearest, weighed by distance.

    PRIOR, float64 (Q), is how often each point is the nearest, if rare colours shall count more.
    `nearest` int64 and `share` float32, (65536, K), hold for each colour of 8 bits, row
    256 (a + 128) + b + 128, its nearest points and their weights, which sum to 1; `weight`, float32
    (Q), is what a pixel counts whose nearest point is that one.
    """

    def __init__(self, points, prior=None, neighbors=10):
        self.points, self.prior = points, prior
        count = min(neighbors, NEIGHBORS, len(points))
        self.nearest, self.share = (torch.from_numpy(t) for t in soft_labels(points, count))
        self.weight = torch.from_numpy(rebalancing(points, prior)).float()

    def to(self, device):
        """Move the tables to DEVICE, where they are not there yet; return self."""
        if self.nearest.device != device:
            self.nearest, self.share = self.nearest.to(device), self.share.to(device)
            self.weight = self.weight.to(device)
        return self

    def encode(self, ab):
        """Return (nearest points int64, weights float32), both N x K, of AB, int (N, 2)."""
        row = (ab[:, 0] + 128) * 256 + ab[:, 1] + 128
        return self.nearest[row], self.share[row]

    def decode(self, logits):
        """Return the annealed mean of LOGITS (... x Q): ab, float32 ... x 2."""
        probability = (logits.float() / TEMPERATURE).softmax(-1)
        return probability @ torch.from_numpy(self.points).to(probability)

    def constant(self):
        """Return the loss of the best constant prediction, where the prior holds."""
        if self.prior is None:
            return math.log(len(self.points))
        seen = self.prior * self.weight.numpy()
        nearest, share = (t.numpy() for t in self.encode(torch.from_numpy(self.points)))
        mean = np.bincount(nearest.ravel(), (seen[:, None] * share).ravel(), len(self.points))
        mean = mean[mean > 0] / mean.sum()
        return float(-(mean * np.log(mean)).sum())


def soft_labels(points, count):
    """Return (nearest of POINTS int64, their weights float32), (65536, COUNT), of each a and b.

    Row 256 (a + 128) + b + 128. Of points as near, the first is the nearer. Weights are
    exp(-d**2 / (2 SIGMA**2)), of sum 1.
    """
    axis = torch.arange(-128, 128)
    grid = torch.cartesian_prod(axis, axis)
    points = torch.from_numpy(points)
    square = (grid[:, None, 0] - points[:, 0]) ** 2 + (grid[:, None, 1] - points[:, 1]) ** 2
    # Distance and number in one whole number, so that there are no ties.
    key, _ = (square * len(points) + torch.arange(len(points))).topk(count, largest=False)
    square, nearest = (key // len(points)).double(), key % len(points)
    share = ((square[:, :1] - square) / (2 * SIGMA**2)).exp()
    return nearest.numpy(), (share / share.sum(1, keepdim=True)).float().numpy()


def rebalancing(points, prior):
    """Return what a pixel counts whose nearest of POINTS (Q, 2) is q, float64 (Q); 1 without PRIOR.

    Zhang et al.: 1 by the prior mixed half and half with the uniform one over the bins that occur,
    scaled to mean 1 under the prior. A bin that does not occur counts as the rarest.
    """
    if prior is None:
        return np.ones(len(points))
    mixed = (1 - UNIFORM) * prior + UNIFORM / np.count_nonzero(prior)
    return 1 / mixed / (prior / mixed).sum()


def load(path):
    """Return (points, prior) of the file PATH of make-color-bins; raise DataError for another."""
    arrays = read_arrays(path)
    advice = "make one by make-color-bins"
    if not {"points", "prior"} <= set(arrays):
        raise DataError(f"{name(path)}: no arrays points and prior: {advice}")
    points, prior = arrays["points"], arrays["prior"]
    if points.ndim != 2 or points.shape[1] != 2 or points.dtype.kind != "i" or len(points) < 2:
        raise DataError(f"{name(path)}: points are no integers (Q, 2): {advice}")
    if (abs(points) > 128).any() or len(np.unique(points, axis=0)) < len(points):
        raise DataError(f"{name(path)}: a point twice, or outside -128 ... 127: {advice}")
    if prior.shape != points.shape[:1] or prior.dtype.kind != "f":
        raise DataError(f"{name(path)}: the prior is not {len(points)} real numbers: {advice}")
    if not (prior >= 0).all() or abs(prior.sum() - 1) > 1e-6:
        raise DataError(f"{name(path)}: the prior is not of sum 1: {advice}")
    return points.astype(np.int64), prior.astype(np.float64)
