"""Average precision of detections by the rule of the PASCAL VOC devkit.

A detection is of the object of its class in its image that it overlaps most, of the first of
equals. It is right where that overlap, intersection over union, is above a limit, and no better
detection has found the object: any later one is wrong. Objects that are ignored make no detection
right or wrong. Boxes here have their last edges outside, so that the devkit's "+ 1" is in them.

VOC does not say in which order equal scores come, and programs differ. Here it is that of their
images' paths, by bytes, then that of their boxes: it does not depend on the order in a file.
"""

from typing import NamedTuple

import numpy as np

from ssl_common.evaluation.detection.found import Found
from ssl_common.evaluation.detection.truth import Truth

# As the authors' code has them: in binary 3 * .1, 6 * .1 and 7 * .1 lie above .3, .6 and .7.
ELEVEN = np.arange(11) * 0.1
LIMITS = np.arange(50, 100, 5) / 100  # of overlap, as COCO and detectron2 average over


class Matches(NamedTuple):
    """Detections by class, the best score first, and the object that each overlaps most.

    `rows` of what was found, `labels`, `objects` (-1: none in the image) and `overlaps` are arrays
    (N,).
    """

    rows: np.ndarray
    labels: np.ndarray
    objects: np.ndarray
    overlaps: np.ndarray


def match(found: Found, truth: Truth) -> Matches:
    """Return what the detections FOUND overlap in TRUTH."""
    order = _best_first(found, truth)
    images, labels = found.images[order], found.labels[order]

    # Objects that share image and class, side by side; each detection beside all of its own.
    of_truth, of_found = (
        each_images * len(truth.classes) + each_labels
        for each_images, each_labels in ((truth.images, truth.labels), (images, labels))
    )
    grouped = np.argsort(of_truth, kind="stable")
    keys, starts, sizes = np.unique(of_truth[grouped], return_index=True, return_counts=True)
    place = np.minimum(np.searchsorted(keys, of_found), max(0, len(keys) - 1))
    some = np.flatnonzero(keys[place] == of_found) if len(keys) else np.empty(0, np.int64)
    place, counts = place[some], sizes[place[some]]
    begins = np.cumsum(counts) - counts
    mine = np.repeat(np.arange(len(some)), counts)
    theirs = grouped[np.arange(len(mine)) + np.repeat(starts[place] - begins, counts)]
    overlaps = overlap(found.boxes[order[some]][mine], truth.boxes[theirs])

    objects, most = np.full(len(order), -1), np.zeros(len(order))
    if len(some):
        most[some] = np.maximum.reduceat(overlaps, begins)
        best = np.flatnonzero(overlaps == most[some][mine])
        first = np.append(True, np.diff(mine[best]) > 0)  # of equals
        objects[some] = theirs[best[first]]
    return Matches(order, labels, objects, most)


def _best_first(found: Found, truth: Truth) -> np.ndarray:
    """Return the order of the detections FOUND: by class, then score, image and box."""
    order = np.lexsort((-found.scores, found.labels))
    labels, scores = found.labels[order], found.scores[order]
    equal = (np.diff(labels) == 0) & (np.diff(scores) == 0)  # to the one that comes next
    tied = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
    if len(tied):
        rank = np.empty(len(truth.listed), np.int64)  # of images, by the bytes of their paths
        paths = [each.path.encode() for each in truth.listed]
        rank[sorted(range(len(rank)), key=paths.__getitem__)] = range(len(rank))
        rows = order[tied]
        keys = rank[found.images[rows]], -found.scores[rows], found.labels[rows]
        order[tied] = rows[np.lexsort((*found.boxes[rows].T[::-1], *keys))]
    return order


def overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of BOXES and OTHERS (..., 4), row by row; 0 of nothing."""
    low, high = (np.maximum(boxes[..., :2], others[..., :2]),
                 np.minimum(boxes[..., 2:], others[..., 2:]))  # fmt: skip
    both = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = [np.prod(each[..., 2:] - each[..., :2], axis=-1) for each in (boxes, others)]
    union = areas[0] + areas[1] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


class Verdicts(NamedTuple):
    """Which detections are `right`, and which are neither right nor wrong, `ignored`: bool (N,)."""

    right: np.ndarray
    ignored: np.ndarray


def verdicts(matches: Matches, truth: Truth, limit: float = 0.5) -> Verdicts:
    """Return what MATCHES are, in their order, for an overlap above LIMIT."""
    near = matches.overlaps > limit  # so that there is an object
    ignored = near.copy()
    ignored[near] = truth.ignored[matches.objects[near]]
    candidates = np.flatnonzero(near & ~ignored)
    first = np.full(len(truth.labels), len(near))  # that finds each object
    np.minimum.at(first, matches.objects[candidates], candidates)
    right = np.zeros(len(near), bool)
    right[first[first < len(near)]] = True
    return Verdicts(right, ignored)


class Curve(NamedTuple):
    """Recall and precision at each detection that counts, the best score first."""

    recall: np.ndarray
    precision: np.ndarray


def curves(matches: Matches, truth: Truth, limit: float = 0.5) -> list[Curve]:
    """Return the curve of each class, for an overlap above LIMIT; recalls are NaN of no object."""
    right, ignored = verdicts(matches, truth, limit)
    found, ends = [], np.searchsorted(matches.labels, np.arange(len(truth.classes) + 1))
    for positives, begin, end in zip(truth.positives, ends[:-1], ends[1:], strict=True):
        hits = np.cumsum(right[begin:end][~ignored[begin:end]])
        with np.errstate(invalid="ignore"):
            found.append(Curve(hits / positives, hits / np.arange(1, len(hits) + 1)))
    return found


def eleven_points(curve: Curve) -> float:
    """Return the mean of the highest precisions at recalls from 0, .1 ... 1 on: VOC2007."""
    recall, precision = curve
    highest = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    return float(np.mean(highest[np.searchsorted(recall, ELEVEN)]))


def area(curve: Curve) -> float:
    """Return the area under the curve of precisions, each the highest from there on: VOC2010."""
    recall, precision = curve
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * highest))
