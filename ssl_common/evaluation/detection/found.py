"""Files of detections in any form -> arrays, for the images of a list of objects."""

import os
import re
from array import array
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from ssl_common import containers, formats, legible, schema, streams
from ssl_common.data import coco
from ssl_common.evaluation.detection import detections
from ssl_common.evaluation.detection import truth as truths
from ssl_common.evaluation.detection.truth import Truth
from ssl_common.streams import DataError

# Detectron puts a salt, that of a run, into the names.
COMP4 = re.compile(r"comp[34](?:_(?P<salt>[^_]+))?_det_(?P<set>[^_]+)_(?P<class>.+)\.txt")
FIELDS = ("id", "score", "xmin", "ymin", "xmax", "ymax")
LONG = 3  # names in a message


@dataclass(frozen=True, eq=False)
class Found:
    """All detections of a file: a row for each, in the order of the file.

    `images` (N,) and `labels` (N,) are numbers of the images and classes of the Truth that they
    are for, `boxes` (N, 4) and `scores` (N,) float64. `known` (C,) says which classes the detector
    knows: all, save where a form has a file for each. `left_out` counts detections of classes that
    the list has not.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    known: np.ndarray
    left_out: int = 0


def read(path: str, truth: Truth, annotations: str | None = None, others: bool = False) -> Found:
    """Return the detections that PATH holds, for the images and classes of TRUTH.

    It is a folder of comp4 files, COCO's result JSON, whose ids are those of the file ANNOTATIONS,
    or a list of ours. OTHERS leaves out detections of a class that TRUTH has not. Raises DataError
    for a line that is wrong, for an image or class that is not in TRUTH, and for a list of ours
    that lacks one of its images.
    """
    if os.path.isdir(path):
        if annotations:
            raise DataError(f"{path}: a folder of comp4 files has no ids: leave out --annotations")
        return _comp4(path, truth, others)
    with streams.reading(path) as stream:
        data = stream.read()
    name = streams.name(path)
    if data.lstrip()[:1] == b"[":
        if not annotations:
            raise DataError(f"{name}: COCO's results: say whose ids they have by --annotations")
        return _coco(data, name, truth, annotations, others)
    if annotations:
        raise DataError(f"{name}: no results of COCO: leave out --annotations")
    return _lines(data, name, truth, others)


class _Rows:
    """Detections as they are read; the classes of TRUTH, or OTHERS beside, which are left out."""

    def __init__(self, truth: Truth, others: bool) -> None:
        self.truth, self.others = truth, others
        self.places = {label: number for number, label in enumerate(truth.classes)}
        self.images: list[int] = []
        self.labels: list[int] = []
        self.boxes, self.scores = array("d"), array("d")  # four numbers a box

    def place(self, label: str, where: str) -> int:
        """Return the number of the class LABEL, -1 for another; raise DataError, naming WHERE."""
        if (place := self.places.get(label)) is None:
            if not self.others:
                raise self.unknown(label, where)
            place = self.places[label] = -1
        return place

    def unknown(self, label: str, where: str) -> DataError:
        """Return what is wrong with the class LABEL."""
        known = ", ".join(self.truth.classes[:LONG]) or "no class at all"
        more = ", ..." if len(self.truth.classes) > LONG else ""
        message = f"{legible.quoted(label)} is no class of {self.truth.name}, as {known}{more}"
        return DataError(f"{where}: {message}: rename it, or leave it out by --skip-unknown")

    def found(self, known: np.ndarray | None = None) -> Found:
        """Return them as arrays."""
        labels = np.array(self.labels, np.int64)
        kept = labels >= 0
        return Found(
            np.array(self.images, np.int64)[kept],
            labels[kept],
            np.array(self.boxes).reshape(-1, 4)[kept],
            np.array(self.scores)[kept],
            np.ones(len(self.truth.classes), bool) if known is None else known,
            int((~kept).sum()),
        )


def _another(where: str, image: str, truth: Truth) -> DataError:
    message = f"{legible.quoted(image)} is no image of {truth.name}"
    return DataError(f"{where}: {message}: are these detections of another set?")


# ---- Lists of ours ------------------------------------------------------------------------------


def _lines(data: bytes, name: str, truth: Truth, others: bool) -> Found:
    rows, places = _Rows(truth, others), truth.places
    lines: dict[int, int] = {}  # of each image
    for line, content in enumerate(detections.read_lines(data, name), 1):
        where = f"{name}:{line}"
        if (image := places.get(content["path"])) is None:
            raise _another(where, content["path"], truth)
        if lines.setdefault(image, line) != line:
            first = f"stands on line {lines[image]} already: delete one"
            raise DataError(f"{where}: {content['path']} {first}")
        size = truth.listed[image].width, truth.listed[image].height
        if size != (content["width"], content["height"]):
            here, there = f"{content['width']} x {content['height']}", "{} x {}".format(*size)
            raise DataError(f"{where}: {here} pixels, but {there} in {truth.name}: see the image")
        rows.images += [image] * len(content["labels"])
        rows.labels += [rows.place(label, where) for label in content["labels"]]
        rows.boxes.extend(chain.from_iterable(content["boxes"]))
        rows.scores.extend(content["scores"])
    missing = [each.path for number, each in enumerate(truth.listed) if number not in lines]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        what = f"no line for {missing[0]}{more} of {truth.name}"
        raise DataError(f"{name}: {what}: detect in all of its images, found nothing or not")
    return rows.found()


# ---- comp4 --------------------------------------------------------------------------------------


def _comp4(folder: str, truth: Truth, others: bool) -> Found:
    names = [match for match in map(COMP4.fullmatch, sorted(os.listdir(folder))) if match]
    if not names:
        raise DataError(f"{folder}: no comp4_det_<set>_<class>.txt in it")
    for part, what in (("set", "sets"), ("salt", "runs")):
        if len(several := sorted({match[part] or "none" for match in names})) > 1:
            both = " and ".join(several[:2])
            raise DataError(f"{folder}: files of several {what}, {both}: give each a folder")
    rows, identities = _Rows(truth, others), truths.by_identity(truth)
    for match in names:
        path = os.path.join(folder, match[0])
        place = rows.place(match["class"], path)
        ids, numbers = _fields(path)
        for line, each in enumerate(ids, 1):
            if each not in identities:
                raise _another(f"{path}:{line}", each, truth)
        rows.images += [identities[each] for each in ids]
        rows.labels += [place] * len(ids)
        rows.scores.frombytes(numbers[:, 0].tobytes())
        rows.boxes.frombytes((numbers[:, 1:] - [1, 1, 0, 0]).tobytes())
    there = {match["class"] for match in names}
    return rows.found(np.array([label in there for label in truth.classes], bool))


def _fields(path: str) -> tuple[list[str], np.ndarray]:
    """Return (ids of images, score and xmin, ymin, xmax, ymax, float64 N x 5) of the file PATH."""
    with streams.regular(path) as stream:
        try:
            lines = [text.split() for text in stream.read().decode().splitlines()]
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8: is it a file of detections?") from error
    try:
        numbers = np.array([line[1:] for line in lines], np.float64).reshape(-1, 5)
    except ValueError:
        numbers = np.empty((0, 5))
    right = _are_boxes(numbers) if len(numbers) == len(lines) else np.zeros(len(lines), bool)
    for line in np.flatnonzero(~right):  # none, or the first that is wrong is named
        if len(lines[line]) != len(FIELDS) or not _is_box(lines[line][1:]):
            text = " ".join(lines[line])
            message = f"{legible.quoted(text)} is not {' '.join(FIELDS)}"
            raise DataError(f"{path}:{line + 1}: {message}")
    return [line[0] for line in lines], numbers


def _are_boxes(numbers: np.ndarray) -> np.ndarray:
    """Tell of each row of NUMBERS, of _fields(), if it is a score and a box."""
    finite = (np.abs(numbers) <= schema.FARTHEST).all(axis=1)  # false for NaN too
    return finite & (numbers[:, 3:] - numbers[:, 1:3] >= -1).all(axis=1)


def _is_box(texts: list[str]) -> bool:
    try:
        return bool(_are_boxes(np.array([texts], np.float64))[0])
    except ValueError:
        return False


# ---- COCO ---------------------------------------------------------------------------------------


def _coco(data: bytes, name: str, truth: Truth, annotations: str, others: bool) -> Found:
    try:
        places = containers.parse(data)
    except ValueError as error:
        raise DataError(f"{name}: not JSON ({legible.line(error)})") from error
    paths, categories = coco.ids((each.path for each in truth.listed), annotations)
    lines = truth.places
    numbers = {key: lines[path] for path, key in paths.items()}
    classes = {key: label for label, key in categories.items()}
    rows = _Rows(truth, others)
    for index, place in enumerate(places, 1):
        where = f"{name}: result {index:,}"
        found = place if _is_result(place) else formats.COCO_RESULT.check(place, where)
        if (image := numbers.get(found["image_id"])) is None:
            raise _another(where, f"image_id {found['image_id']}", truth)
        if (label := classes.get(found["category_id"])) is None:
            message = f"category_id {found['category_id']} is none of {streams.name(annotations)}"
            raise DataError(f"{where}: {message}")
        x, y, width, height = found["bbox"]
        rows.images.append(image)
        rows.labels.append(rows.place(label, where))
        rows.boxes.extend((x, y, x + width, y + height))
        rows.scores.append(found["score"])
    return rows.found()


def _is_result(place: Any) -> bool:
    """Tell at once whether PLACE is as formats.COCO_RESULT says; where it cannot tell, say no."""
    try:
        box, score = place["bbox"], place["score"]
        return (
            len(place) == len(formats.COCO_RESULT.entries)
            and type(place["image_id"]) is type(place["category_id"]) is int
            and type(box) is list
            and len(box) == 4
            and set(map(type, (*box, score))) <= {int, float}
            and max(map(abs, (*box, score))) <= schema.FARTHEST
            and box[2] >= 0 <= box[3]
        )
    except (KeyError, TypeError):
        return False
