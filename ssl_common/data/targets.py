"""Labels of lists other than a manifest: boxes of objects, and a target for each pixel.

Lists of these are read by line number, as manifests are: objects (.jsonl) and pairs (.tsv) of
ssl-formats(5).
"""

import functools
import math
import re
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from ssl_common import containers, formats, records, streams
from ssl_common.data.lines import MARK, Lines
from ssl_common.data.manifest import check_name
from ssl_common.data.stores import Store
from ssl_common.schema import FARTHEST, LARGEST, Format

# ---- Boxes --------------------------------------------------------------------------------------

Box = tuple[float, float, float, float]
SIZE = ("width", "height")


class Objects(NamedTuple):
    """The objects in the image at PATH, of WIDTH x HEIGHT pixels: a box, a label and a flag each.

    A box is x1, y1, x2, y2 in pixels, where 0, 0 is the upper left corner of the image; its right
    and lower edges lie outside of it, so that it is x2 - x1 wide. An object that is `difficult` is
    left out of evaluation. A `crowd` is a box around several objects, as COCO has them; () where
    none is one.
    """

    path: str
    width: int
    height: int
    boxes: tuple[Box, ...]
    labels: tuple[str, ...]
    difficult: tuple[bool, ...]
    crowd: tuple[bool, ...] = ()

    @property
    def ignored(self) -> tuple[bool, ...]:
        """Which objects neither count nor count against a detector: difficult ones, and crowds."""
        crowd = self.crowd or (False,) * len(self.boxes)
        return tuple(map(max, self.difficult, crowd))


class ObjectList(Lines[Objects]):
    """Images with boxes by line number, as a sequence of Objects: see Lines."""

    NO_LINE = "no line: it holds one JSON object an image"

    def parse(self, data: bytes, line: int) -> Objects:
        """Return the Objects of DATA, line number LINE; raise DataError for what is wrong."""
        content = plain_boxes(data, formats.OBJECTS)
        if content is None or not _are_plain(content):
            where = f"{streams.name(self.path)}:{line}"
            content = formats.OBJECTS.check(containers.json_object(data, where), where)
        x1_to_y2 = tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in content["boxes"])
        labels, difficult = tuple(content["labels"]), tuple(content["difficult"])
        crowd = tuple(content.get("crowd") or ())
        size = content["width"], content["height"]
        return Objects(
            content["path"], *size, x1_to_y2, labels, difficult, crowd if any(crowd) else ()
        )


def plain_boxes(data: bytes, kind: Format) -> dict[str, Any] | None:
    """Return the JSON object DATA, boxes in an image, if path, size, boxes and labels are right.

    That is, if it is seen at once, and all its entries are those that KIND needs: there are tens of
    thousands of boxes. Else None: KIND then says what is wrong, if anything is.
    """
    try:
        content = containers.parse_quickly(data.decode())
        path, boxes, labels = content["path"], content["boxes"], content["labels"]
        sides = list(chain.from_iterable(boxes))
        path.encode()
        right = (
            content.keys() == kind.needed
            and re.fullmatch(formats.PATH["pattern"], path)
            and all(type(content[side]) is int and 0 < content[side] <= LARGEST for side in SIZE)
            and type(boxes) is type(labels) is list
            and len(boxes) == len(labels)
            and set(map(type, boxes)) <= {list}
            and set(map(len, boxes)) <= {4}
            and set(map(type, sides)) <= {int, float}
            and sum(map(abs, sides)) <= FARTHEST  # not so for NaN
            and all(map(_is_label, labels))
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return content if right else None


@functools.lru_cache(1 << 12)
def _is_label(label: str) -> bool:
    label.encode()
    return bool(re.fullmatch(formats.LABELS["pattern"], label))


def _are_plain(content: dict[str, Any]) -> bool:
    """Tell whether the rest of CONTENT, of plain_boxes(), is as formats.OBJECTS says."""
    boxes, difficult = content["boxes"], content["difficult"]
    width, height = content["width"], content["height"]
    return (
        type(difficult) is list
        and len(difficult) == len(boxes)
        and set(map(type, difficult)) <= {bool}
        and all(0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height for x1, y1, x2, y2 in boxes)
    )


def format_objects(objects: Objects) -> bytes:
    """Return OBJECTS as a line of a list, bytes with their newline; raise DataError if wrong."""
    content = objects._asdict() | {
        name: list(getattr(objects, name)) for name in objects._fields[3:]
    }
    if not any(objects.crowd):
        del content["crowd"]
    check_name(objects.path)
    return records.line(formats.OBJECTS.check(content, objects.path))


# ---- Targets of each pixel ----------------------------------------------------------------------


class Pair(NamedTuple):
    """The image at PATH, and the file of its TARGET: relative to the same root."""

    path: str
    target: str


class PairList(Lines[Pair]):
    """Images with dense targets by line number, as a sequence of Pair: see Lines."""

    NO_LINE = "no line: a list of pairs names an image and its target on each"

    def parse(self, data: bytes, line: int) -> Pair:
        """Return the Pair of DATA, line number LINE; raise DataError for what is wrong."""
        parts = data.decode().split("\t")
        if b"\r" in data or b"\0" in data:
            raise self.error(line, "holds a carriage return or a zero byte: see it with cat -A")
        if len(parts) != 2 or not all(parts):
            raise self.error(line, "not an image, a TAB and its target: write image<TAB>target")
        if parts[0].startswith(("?", MARK)):
            raise self.error(line, "starts with a question mark or a byte-order mark: write ./?...")
        return Pair(*parts)


def format_pair(pair: Pair) -> bytes:
    """Return PAIR as a line of a list, bytes with their newline; raise DataError if wrong."""
    for part in pair:
        check_name(part)
    return "{}\t{}\n".format(*pair).encode()


class Camera(NamedTuple):
    """The camera that took the image at PATH: focal lengths and principal point, in pixels.

    Along x and y each; the principal point is counted from the upper left corner of the image.
    """

    path: str
    fx: float
    fy: float
    cx: float
    cy: float


class CameraList(Lines[Camera]):
    """Images with their cameras by line number, as a sequence of Camera: see Lines."""

    NO_LINE = "no line: a list of intrinsics names an image and its fx,fy,cx,cy on each"

    def parse(self, data: bytes, line: int) -> Camera:
        """Return the Camera of DATA, line number LINE; raise DataError for what is wrong."""
        path, _tab, text = data.decode().partition("\t")
        numbers = intrinsics(text)
        if not path or numbers is None:
            raise self.error(line, "not an image, a TAB and fx,fy,cx,cy, the first two above 0")
        return Camera(path, *numbers)


def intrinsics(text: str) -> tuple[float, float, float, float] | None:
    """Return (fx, fy, cx, cy) that TEXT says, four numbers with commas; None where it does not."""
    try:
        fx, fy, cx, cy = map(float, text.split(","))
    except ValueError:
        return None
    fine = all(map(math.isfinite, (fx, fy, cx, cy))) and min(fx, fy) > 0
    return (fx, fy, cx, cy) if fine else None


# ---- Surface normals, as pictures ---------------------------------------------------------------
#
# Red, green and blue of 8 bits are x, y and z of the normal, of length 1: floor(127.5 n + 128) for
# n from -1 to 1, 255 for 1. A pixel without a normal is 0, 0, 0.


def encode_normals(normals: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return NORMALS, of length 1, float 3 x H x W, as a picture, uint8 H x W x 3.

    It says that there is none where KNOWN, bool H x W, is false.
    """
    levels = np.floor(127.5 * normals + 128).clip(0, 255)
    return np.moveaxis(np.where(known, levels, 0), 0, 2).astype(np.uint8)


def decode_normals(picture: np.ndarray) -> np.ndarray:
    """Return the normals of PICTURE, uint8 H x W x 3, as float32 3 x H x W.

    Each has length 1, or is 0, 0, 0 where there is none.
    """
    normals = np.moveaxis(picture.astype(np.float32), 2, 0) / np.float32(127.5) - 1
    normals /= np.sqrt((normals**2).sum(0))
    return np.where(picture.any(2), normals, np.float32(0))


def read_normals(pairs: PairList, index: int, root: str | Store = ".") -> np.ndarray:
    """Return the normals of line INDEX, from 0, of PAIRS, as decode_normals() does.

    Raises DataError that names the line where the picture cannot be read.
    """
    from ssl_common.data import images  # here: who writes targets needs no torch

    try:
        return decode_normals(images.read(pairs[index].target, root).numpy())
    except images.Unreadable as error:
        raise pairs.error(index + 1, f"{error}: mend the file or drop the line") from None
