"""Scaling laws: error = E + A n^-a, fitted to the errors at some sizes n, and what is not known.

The loss is Huber's of the logarithm of the error, in units of the noise of each value. For a given
exponent E and A follow by iterated linear least squares; the exponent is the best of a grid, which
is laid ever finer around its best. Everything is done for many draws of the values at once.
"""

from dataclasses import dataclass

import numpy as np

EXPONENTS = 0.01, 4.5  # the range that is searched: 4 sizes tell none outside it from its ends
GRID, ZOOMS, STEPS = 16, 6, 4
OUTLIER = 3.0  # standard deviations: farther off, a value counts less than its square


@dataclass(frozen=True)
class Laws:
    """Laws of B draws: LIMIT, SCALE and EXPONENT, each float (B,); sizes in units of UNIT.

    The error at n is LIMIT + SCALE (n / UNIT)^-EXPONENT.
    """

    limit: np.ndarray
    scale: np.ndarray
    exponent: np.ndarray
    unit: float

    def at(self, sizes: np.ndarray) -> np.ndarray:
        """Return the errors at SIZES (S,), float (B, S)."""
        powers = (np.asarray(sizes, float) / self.unit)[None] ** -self.exponent[:, None]
        return self.limit[:, None] + self.scale[:, None] * powers


def fit(sizes: np.ndarray, errors: np.ndarray, noise: np.ndarray) -> Laws:
    """Return the laws of the ERRORS (B, S) > 0 at SIZES (S,), whose standard deviation is NOISE.

    NOISE > 0 is (S,), in the unit of the errors. Neither E nor A is negative: what rises with the
    size has a law that is flat.
    """
    sizes, errors = np.asarray(sizes, float), np.atleast_2d(np.asarray(errors, float))
    unit = float(sizes.min())
    ratio = np.log(sizes / unit)
    middle = np.exp(np.log(errors).mean(1, keepdims=True))
    weights = (middle / np.asarray(noise, float)) ** 2  # of logarithms: noise is a share of errors
    low, high = np.log(EXPONENTS)
    grid = np.broadcast_to(np.linspace(low, high, GRID), (len(errors), GRID))
    rows = np.arange(len(errors))
    for _zoom in range(ZOOMS):
        loss, limit, scale = _profile(np.exp(grid), ratio, errors, weights)
        best = loss.argmin(1)
        found = grid[rows, best], limit[rows, best], scale[rows, best]
        apart = grid[:, 1] - grid[:, 0]
        first = np.clip(found[0] - apart, low, high)
        last = np.clip(found[0] + apart, low, high)
        grid = np.linspace(first, last, GRID, axis=1)
    return Laws(found[1], found[2], np.exp(found[0]), unit)


def _profile(
    exponents: np.ndarray, ratio: np.ndarray, errors: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (loss, E, A), each (B, G), of the best law of each of EXPONENTS (B, G)."""
    x = np.exp(-exponents[:, :, None] * ratio)  # (B, G, S)
    y, w = errors[:, None, :], weights[:, None, :]
    limit, scale = _line(x, y, w / y**2)
    for _step in range(STEPS):
        law = limit[..., None] + scale[..., None] * x
        away = np.log(y / law)
        robust = np.minimum(1, OUTLIER / np.maximum(np.sqrt(w) * np.abs(away), 1e-12))
        # log(y) - log(E + A x), linear in E and A around this law
        limit, scale = _line(x, law * (1 + away), w * robust / law**2)
    law = limit[..., None] + scale[..., None] * x
    off = np.sqrt(w) * np.abs(np.log(y / law))
    loss = np.where(off <= OUTLIER, off**2 / 2, OUTLIER * (off - OUTLIER / 2)).sum(2)
    return loss, limit, scale


def _line(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (E, A) >= 0 of the E + A X nearest to Y by the weights W; sums over the last axis."""
    w = np.broadcast_to(w, x.shape)
    s, sx, sy = w.sum(-1), (w * x).sum(-1), (w * y).sum(-1)
    mean_x, mean_y = sx / s, sy / s
    apart = x - mean_x[..., None]
    spread = (w * apart**2).sum(-1)
    scale = (w * apart * (y - mean_y[..., None])).sum(-1) / np.maximum(spread, 1e-300)
    limit = mean_y - scale * mean_x
    through_zero = (w * x * y).sum(-1) / (w * x * x).sum(-1)
    scale = np.where(limit < 0, through_zero, scale)
    limit = np.where(limit < 0, 0, limit)
    flat = scale < 0
    return np.where(flat, mean_y, limit), np.where(flat, 0, scale)
