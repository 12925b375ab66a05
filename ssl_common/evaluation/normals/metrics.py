"""How far predicted normals are off: angles over all pixels together, and image by image.

The angles of all pixels are counted in bins of BIN degrees, so that hundreds of images need no more
memory than one. Means and shares are exact; a median is within half a bin of the one over all
angles kept.
"""

from collections.abc import Mapping

import numpy as np

BIN = 0.01  # degrees
BINS = round(180 / BIN)
WITHIN = (11.25, 22.5, 30.0)  # degrees: those of Fouhey, Gupta and Hebert (ICCV 2013)


def angles(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the angles between normals ONE and OTHER (3, ...), of any length above 0, in degrees.

    float64. By the arc tangent: the arc cosine of numbers near 1 loses half of their digits.
    """
    (a, b, c), (d, e, f) = one.astype(np.float64), other.astype(np.float64)
    across = (b * f - c * e) ** 2  # of the cross product, written out: numpy's takes twice as long
    across += (c * d - a * f) ** 2
    across += (a * e - b * d) ** 2
    return np.degrees(np.arctan2(np.sqrt(across), a * d + b * e + c * f))


class Angles:
    """Angles in degrees, 0 to 180, counted as they come: add() those of an image at a time."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.within = np.zeros(len(WITHIN), np.int64)
        self.sum = self.squares = 0.0
        self.images: list[dict[str, float]] = []  # the figures of each, by name

    def add(self, found: np.ndarray) -> None:
        """Count the angles FOUND in one image, any shape; an image without any counts nothing."""
        found = np.asarray(found, np.float64).ravel()
        if not found.size:
            return
        places = np.minimum((found * (BINS / 180)).astype(np.int64), BINS - 1)
        self.counts += np.bincount(places, minlength=BINS)
        within = np.array([np.count_nonzero(found < most) for most in WITHIN])
        self.within += within
        self.sum, self.squares = self.sum + found.sum(), self.squares + (found**2).sum()
        self.images.append(
            _figures(found.sum(), (found**2).sum(), within, found.size)
            | {"median": float(np.median(found))}
        )

    def merge(self, other: "Angles") -> None:
        """Count also what OTHER counted, of images after these."""
        self.counts += other.counts
        self.within += other.within
        self.sum, self.squares = self.sum + other.sum, self.squares + other.squares
        self.images += other.images

    @property
    def pixels(self) -> int:
        """How many angles were counted."""
        return int(self.counts.sum())

    def median(self) -> float:
        """Return the middle of the bin where half of all angles lie below, in degrees."""
        below, half = np.cumsum(self.counts), self.pixels / 2
        both = np.searchsorted(below, [np.ceil(half), np.floor(half) + 1])  # equal if it is odd
        return float(both.mean() + 0.5) * BIN

    def pooled(self) -> dict[str, float]:
        """Return the figures over the pixels of all images: mean, median, rmse, within_11_25 ...

        Angles in degrees, shares in percent. NaN where there is none.
        """
        if not self.pixels:
            return dict.fromkeys(("mean", "median", "rmse", *map(share_name, WITHIN)), np.nan)
        figures = _figures(self.sum, self.squares, self.within, self.pixels)
        return figures | {"median": self.median()}

    def per_image(self) -> dict[str, float]:
        """Return the means over the images of the figures of each, by the same names."""
        names = self.images[0] if self.images else ()
        return {name: float(np.mean([each[name] for each in self.images])) for name in names}


def _figures(total: float, squares: float, within: np.ndarray, count: int) -> dict[str, float]:
    shares = zip(WITHIN, within, strict=True)
    return {"mean": float(total / count), "rmse": float(np.sqrt(squares / count))} | {
        share_name(most): float(100 * n / count) for most, n in shares
    }


def share_name(most: float) -> str:
    """Return the field of the share of angles below MOST degrees: within_11_25."""
    return f"within_{most:g}".replace(".", "_")


def in_fields(figures: Mapping[str, float], prefix: str = "") -> dict[str, float]:
    """Return FIGURES as fields of a record, PREFIX before each: mean_error, within_11_25."""
    called = {"mean": "mean_error", "median": "median_error"}
    return {prefix + called.get(name, name): value for name, value in figures.items()}
