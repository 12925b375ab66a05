"""Average precision as PASCAL VOC 2010 and later measure it, and as others do; top-k."""

from typing import Literal, get_args, overload

import numpy as np
from numpy.typing import ArrayLike

Rule = Literal["envelope", "steps", "eleven"]
RULES: tuple[Rule, ...] = get_args(Rule)


@overload
def average_precision(
    scores: ArrayLike, positive: ArrayLike, rule: Rule = "envelope", weights: None = None
) -> float: ...


@overload
def average_precision(
    scores: ArrayLike, positive: ArrayLike, rule: Rule = "envelope", *, weights: ArrayLike
) -> np.ndarray: ...


def average_precision(
    scores: ArrayLike,
    positive: ArrayLike,
    rule: Rule = "envelope",
    weights: ArrayLike | None = None,
) -> float | np.ndarray:
    """Return the average precision: the area under the precision-recall curve, in [0, 1].

    SCORES (N,) rank the images, POSITIVE (N,) says which show the class; difficult images are to
    be left out before. NaN where none is positive, as where there is no image. RULE says what the
    precision at a recall is:

    - envelope: the highest at that recall or above (VOC2010 development kit, section 3.4.1);
    - steps: that of the next point of the curve, not interpolated (scikit-learn);
    - eleven: as envelope, the mean of recalls 0, 0.1 ... 1 (VOC2007, section 4.2 of its kit).

    Images of equal score enter together, so the curve has one point per distinct score and no
    order of the rows changes it. (The published code lets an unstable argsort order them.)
    WEIGHTS (B, N) count each image so many times, and give (B,) values.
    """
    scores, positive = np.asarray(scores), np.asarray(positive, bool)
    if not len(scores):
        return np.nan if weights is None else np.full(len(np.asarray(weights)), np.nan)
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # of each score
    counts = np.ones((1, len(ranked)), int) if weights is None else np.asarray(weights)[:, order]
    hits, seen = (np.cumsum(each, axis=1)[:, last] for each in (counts * positive[order], counts))
    with np.errstate(invalid="ignore"):  # 0 / 0: no positive, or no image of weight so far
        recall, precision = hits / hits[:, -1:], np.nan_to_num(hits / seen)
    if rule != "steps":
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    if rule == "eleven":
        # Tenths of the hits in whole numbers: recall 3 of 10 is 0.3, whatever 0.3 is in binary.
        first = [(10 * hits < tenth * hits[:, -1:]).sum(axis=1) for tenth in range(11)]
        area = np.mean([np.take_along_axis(precision, f[:, None], 1)[:, 0] for f in first], axis=0)
        area = np.where(hits[:, -1] > 0, area, np.nan)
    else:
        area = np.sum(np.diff(recall, prepend=0, axis=1) * precision, axis=1)
    return float(area[0]) if weights is None else area


def levels(scores: np.ndarray) -> np.ndarray:
    """Return the ranks of SCORES (N,), int (N,): equal where only rounding tells them apart.

    That is, neighbours by at most 1e-9 of the standard deviation, or 1e-14 of the largest score:
    equal rows may get such scores.
    """
    order = np.argsort(scores, kind="stable")
    least = max(1e-9 * np.std(scores), 1e-14 * np.max(np.abs(scores), initial=0))
    ranks = np.empty(len(scores), int)
    ranks[order] = np.cumsum(np.diff(scores[order], prepend=scores[order[:1]]) > least)
    return ranks


def places(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how many classes rank above the right one, int (N,): 0 where the right one is first.

    SCORES (N, C) rank the classes, LABELS (N,) are the right ones; equal scores stand in the order
    of the classes.
    """
    own = np.take_along_axis(scores, labels[:, None], 1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(1)
