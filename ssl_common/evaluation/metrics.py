"""Average precision as PASCAL VOC 2010 and later measure it, and as others do; top-k."""

import numpy as np

RULES = ("envelope", "steps", "eleven")


def average_precision(scores, positive, rule="envelope", weights=None):
    """Return the area under the precision-recall curve, in [0, 1].

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
        return np.nan if weights is None else np.full(len(weights), np.nan)
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
        found = np.mean([np.take_along_axis(precision, f[:, None], 1)[:, 0] for f in first], axis=0)
        found = np.where(hits[:, -1] > 0, found, np.nan)
    else:
        found = np.sum(np.diff(recall, prepend=0, axis=1) * precision, axis=1)
    return float(found[0]) if weights is None else found


def levels(scores):
    """Return SCORES (N,) as whole numbers, the same for those that rounding alone tells apart.

    That is, by less than 1e-9 of their standard deviation or 1e-14 of the largest: equal rows may
    get such scores.
    """
    order = np.argsort(scores, kind="stable")
    least = max(1e-9 * np.std(scores), 1e-14 * np.max(np.abs(scores), initial=0))
    found = np.empty(len(scores), int)
    found[order] = np.cumsum(np.diff(scores[order], prepend=scores[order[:1]]) > least)
    return found


def places(scores, labels):
    """Return how many classes come before the right one, int (N,): 0 where that is the first.

    SCORES (N, C) rank the classes, LABELS (N,) are the right ones; equal scores stand in the order
    of the classes.
    """
    own = np.take_along_axis(scores, labels[:, None], 1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(1)
