"""Boxes of objects in images: those of PASCAL VOC, cut to their image, and the list of them all.

A box is x1, y1, x2, y2 in pixels, 0, 0 the upper left corner, its right and lower edges outside of
it: xmin - 1, ymin - 1, xmax, ymax of VOC, which counts pixels from 1 and names the last one inside.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO
from xml.etree.ElementTree import Element

from ssl_common.data import layouts
from ssl_common.data.targets import Box, Objects, format_objects
from ssl_common.streams import DataError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class Cut:
    """Cuts boxes to their image, and counts those that it cut or left out: nothing was left."""

    cut: int = 0
    left_out: int = 0

    def __call__(self, box: Box, width: int, height: int) -> Box | None:
        """Return the part of BOX that lies in an image of WIDTH x HEIGHT; None if there is none."""
        x1, y1, x2, y2 = box
        inside = max(0, x1), max(0, y1), min(x2, width), min(y2, height)
        if not (inside[0] < inside[2] and inside[1] < inside[3]):
            self.left_out += 1
            return None
        self.cut += inside != box
        return inside


def voc(root: str, split: str, cut: Cut | None = None) -> Iterator[Objects]:
    """Yield the Objects of each image of SPLIT in the PASCAL VOC devkit ROOT, sorted by path.

    They are those of Annotations/<id>.xml, in its order; CUT counts the boxes that leave their
    image. Raises DataError that names the file where it does not say what an object is.
    """
    cut = Cut() if cut is None else cut
    images = layouts.members(root, split)
    annotated = layouts.annotations(root, images)
    if not annotated:
        folder = os.path.join(root, "Annotations")
        raise DataError(f"{folder}: no {images[0]}.xml, nor that of another image of {split}")
    files = layouts.image_files(root)
    for path, image in sorted(((files(image), image) for image in images), key=_by_path):
        yield _annotated(path, annotated[image], cut)


def _by_path(pair: tuple[str, str]) -> bytes:
    return os.fsencode(pair[0])


def _annotated(path: str, annotation: str, cut: Cut) -> Objects:
    """Return the Objects of the image at PATH that the file ANNOTATION says."""
    content = layouts.annotation(annotation)
    width, height = (_pixels(annotation, content, f"size/{side}") for side in ("width", "height"))
    if not all(isinstance(side, int) and side > 0 for side in (width, height)):
        raise DataError(f"{annotation}: the size is {width} x {height}, not that of the image")
    boxes, labels, difficult = [], [], []
    for place in content.findall("object"):
        if not (name := (place.findtext("name") or "").strip()):
            raise DataError(f"{annotation}: an object without a name: add it")
        xmin, ymin, xmax, ymax = (_pixels(annotation, place, f"bndbox/{end}") for end in CORNERS)
        if box := cut((xmin - 1, ymin - 1, xmax, ymax), int(width), int(height)):
            boxes.append(box)
            labels.append(name)
            difficult.append((place.findtext("difficult") or "").strip() == "1")
    return Objects(path, int(width), int(height), tuple(boxes), tuple(labels), tuple(difficult))


def _pixels(path: str, element: Element, name: str) -> float:
    """Return the number that ELEMENT of the file PATH holds under NAME; whole ones as int."""
    text = (element.findtext(name) or "").strip()
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{path}: {name} is {text!r:.40}, not in pixels: mend it")
    return int(number) if number.is_integer() else number


def write(
    stream: BinaryIO,
    listed: Iterable[Objects],
    cut: Cut,
    progress: Callable[[int], None] = lambda done: None,
) -> str:
    """Write the LISTED to STREAM, a line each; return what was written, in words, with the CUT."""
    images, ignored = 0, 0
    classes: Counter[str] = Counter()
    for images, each in enumerate(listed, 1):
        stream.write(format_objects(each))
        classes.update(each.labels)
        ignored += sum(each.ignored)
        progress(images)
    text = f"{images:,} images, {classes.total():,} objects of {len(classes):,} classes"
    text += f", {ignored:,} difficult or crowds" if ignored else ""
    text += f"; cut {cut.cut:,} boxes to their image" if cut.cut else ""
    return text + (f"; left out {cut.left_out:,} boxes without an area" if cut.left_out else "")
