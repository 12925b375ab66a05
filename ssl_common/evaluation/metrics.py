"""Average precision as PASCAL VOC 2010 and later measure it; the place of the right class."""

import numpy as np


def average_precision(scores, positive):
    """Return the area under the interpolated precision-recall curve, in [0, 1].

    SCORES (N,) rank the images, POSITIVE (N,) says which show the class; difficult images are to
    be left out before. NaN where none is positive. The precision at a recall is the highest at
    that recall or above (VOC2010 development kit, section 3.4.1), not the mean over 11 points.

    Images of equal score enter together, so the curve has one point per distinct score and no
    order of the rows changes it. (The published code lets an unstable argsort order them.)
    """
    scores, positive = np.asarray(scores), np.asarray(positive, bool)
    if not positive.any():
        return np.nan
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # of each score
    hits = np.cumsum(positive[order])[last]
    recall, precision = hits / hits[-1], hits / (last + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * envelope))


def places(scores, labels):
    """Return how many classes come before the right one, int (N,): 0 where that is the first.

    SCORES (N, C) rank the classes, LABELS (N,) are the right ones; equal scores stand in the order
    of the classes.
    """
    own = np.take_along_axis(scores, labels[:, None], 1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(1)
