"""Detections: boxes with a class and a score each, in the form of ours and in those of others.

Ours is a JSON object an image (ssl-formats(5)). comp4 is that of the PASCAL VOC devkit, a text file
a class; COCO's is one JSON array. A box is x1, y1, x2, y2 in pixels, 0, 0 the upper left corner of
the image, its right and lower edges outside of it; the files of VOC count pixels from 1 and name
the last one that is inside, those of COCO hold x, y, width and height.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

from ssl_common import containers, formats, legible, records, streams
from ssl_common.data import layouts
from ssl_common.data.lines import Lines
from ssl_common.data.manifest import check_name
from ssl_common.data.targets import Box, are_numbers, in_groups, plain_boxes
from ssl_common.streams import DataError


class Detections(NamedTuple):
    """What was found in the image at PATH, of WIDTH x HEIGHT pixels: box, label and score each.

    The best score comes first. Boxes are as those of Objects, but may be empty, and may lie outside
    of the image where another program wrote them.
    """

    path: str
    width: int
    height: int
    boxes: tuple[Box, ...]
    labels: tuple[str, ...]
    scores: tuple[float, ...]


class DetectionList(Lines[Detections]):
    """What was found in images by line number, as a sequence of Detections: see Lines."""

    NO_LINE = "no line: it holds one JSON object an image"

    def parse(self, data: bytes, line: int) -> Detections:
        """Return the Detections of DATA, line number LINE; raise DataError for what is wrong."""
        return parse(data, f"{streams.name(self.path)}:{line}")


def parse(data: bytes, where: str) -> Detections:
    """Return the Detections that the line DATA holds; raise DataError that names WHERE."""
    content = read_line(data, where)
    boxes = tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in content["boxes"])
    labels, scores = tuple(content["labels"]), tuple(content["scores"])
    return Detections(content["path"], content["width"], content["height"], boxes, labels, scores)


def read_line(data: bytes, where: str) -> dict[str, Any]:
    """Return the entries of the line DATA, checked; raise DataError that names WHERE."""
    contents = _plain(data)
    if contents is None:
        return formats.DETECTIONS.check(containers.json_object(data, where), where)
    return contents[0]


def read_lines(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    """Yield the entries of each line of DATA; raise DataError that names NAME and the line."""
    return in_groups(data.splitlines(), _plain, read_line, name)


def _plain(data: bytes) -> list[dict[str, Any]] | None:
    """Return the JSON objects in DATA if all is as formats.DETECTIONS says, and that is seen."""
    contents = plain_boxes(data, formats.DETECTIONS, "scores")
    if contents is None:
        return None
    scores = [content["scores"] for content in contents]
    right = (
        are_numbers(list(chain.from_iterable(scores)))
        and all(each == sorted(each, reverse=True) for each in scores)
        and all(
            x1 <= x2 and y1 <= y2 for content in contents for x1, y1, x2, y2 in content["boxes"]
        )
    )
    return contents if right else None


def format_detections(found: Detections) -> bytes:
    """Return FOUND as a line of a list, bytes with their newline; raise DataError if wrong."""
    content = found._asdict() | {name: list(getattr(found, name)) for name in found._fields[3:]}
    check_name(found.path)
    return records.line(formats.DETECTIONS.check(content, found.path))


# ---- comp4: a file a class, with a line "<id> <score> <box>" for each detection -----------------

COMP4 = "comp4_det_{}_{}.txt"


def write_comp4(
    folder: str, classes: Iterable[str], found: Iterable[Detections], split: str = "test"
) -> None:
    """Write FOUND into FOLDER, which is there, a file for each of CLASSES and SPLIT.

    Of numbers all digits are written, so that no two scores become equal. Raises DataError for an
    image whose id has a space, is that of another image, and for a class that is not in CLASSES.
    """
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(
                open(os.path.join(folder, COMP4.format(split, _of_a_file(name))), "wb")
            )
            for name in classes
        }
        known: dict[str, str] = {}
        for image in found:
            identity = _identity(image.path, known)
            for (x1, y1, x2, y2), label, score in zip(*image[3:], strict=True):
                if label not in files:
                    raise DataError(f"{image.path}: {label!r} is none of the classes")
                box = f"{x1 + 1!r} {y1 + 1!r} {x2!r} {y2!r}"
                files[label].write(f"{identity} {score!r} {box}\n".encode())


def _of_a_file(name: str) -> str:
    """Return the class NAME; raise DataError where it cannot stand in the name of a file."""
    if "/" in name:
        raise DataError(f"{name!r}: a class with a slash has no comp4 file: rename it")
    return name


def _identity(path: str, known: dict[str, str]) -> str:
    """Return what VOC calls the image at PATH: its name without suffix; add it to those KNOWN."""
    identity = layouts.identity(path)
    if not identity or identity.split() != [identity]:
        raise DataError(f"{path}: VOC's files cannot name an image with a space: rename it")
    if known.setdefault(identity, path) != path:
        raise DataError(f"{path}: VOC's files would call it {identity}, as {known[identity]}")
    return identity


# ---- COCO: [{"image_id": 1, "category_id": 1, "bbox": [x, y, width, height], "score": 1}, ...] --


def write_coco(
    stream: BinaryIO,
    images: Mapping[str, int],
    categories: Mapping[str, int],
    found: Iterable[Detections],
) -> None:
    """Write FOUND to STREAM as COCO's result JSON, a line each.

    IMAGES {path: id} and CATEGORIES {class: id} are those of the annotations (data.coco.ids).
    Raises DataError for an image or a class that is not there.
    """
    before = "["
    for image in found:
        if image.path not in images:
            raise DataError(f"{legible.text(image.path)}: the annotations have no such image")
        for (x1, y1, x2, y2), label, score in zip(*image[3:], strict=True):
            if label not in categories:
                raise DataError(f"{image.path}: {label!r}: the annotations have no such category")
            place = {
                "image_id": images[image.path],
                "category_id": categories[label],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            stream.write(f"{before}\n{legible.dumps(place)}".encode())
            before = ","
    stream.write(b"\n]\n" if before == "," else b"[]\n")
