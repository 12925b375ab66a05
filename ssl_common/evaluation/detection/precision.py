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
    rank = np.empty(len(truth.listed), np.int64)  # of images, by the bytes of their paths
    rank[sorted(range(len(rank)), key=lambda n: truth.listed[n].path.encode())] = range(len(rank))
    boxes = found.boxes.T[::-1]
    order = np.lexsort((*boxes, rank[found.images], -found.scores, found.labels))
    images, labels = found.images[order], found.labels[order]

    # Objects that share image and class, side by side; each detection beside all of its own.
    of_truth, of_found = (
        each_images * len(truth.classes) + each_labels
        for each_images, each_labels in ((truth.images, truth.labels), (images, labels))
    )
    grouped = np.argsort(of_truth, kind="stable")
    first, last = (np.searchsorted(of_truth[grouped], of_found, side) for side in ("left", "right"))
    counts = last - first
    ends = np.cumsum(counts)
    mine = np.repeat(np.arange(len(order)), counts)
    theirs = grouped[np.arange(len(mine)) + np.repeat(last - ends, counts)]
    overlaps = overlap(found.boxes[order][mine], truth.boxes[theirs])

    objects, most = np.full(len(order), -1), np.zeros(len(order))
    some = np.flatnonzero(counts)
    if len(some):
        most[some] = np.maximum.reduceat(overlaps, (ends - counts)[some])
        best = np.flatnonzero(overlaps == most[mine])
        some, place = np.unique(mine[best], return_index=True)  # the first of equals
        objects[some] = theirs[best[place]]
    return Matches(order, labels, objects, most)


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
    _objects, first = np.unique(matches.objects[candidates], return_index=True)
    right = np.zeros(len(near), bool)
    right[candidates[first]] = True
    return Verdicts(right, ignored)


class Curve(NamedTuple):
    """Recall and precision at each detection that counts, the best score first."""

    recall: np.ndarray
    precision: np.ndarray


def curves(matches: Matches, truth: Truth, limit: float = 0.5) -> list[Curve]:
    """Return the curve of each class, for an overlap above LIMIT; recalls are NaN of no object."""
    right, ignored = verdicts(matches, truth, limit)
    found = []
    for label, positives in enumerate(truth.positives):
        hits = np.cumsum(right[(matches.labels == label) & ~ignored])
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
