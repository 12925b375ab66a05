"""Labels of lists other than a manifest: boxes of objects, and a target for each pixel.

Lists of these are read by line number, as manifests are: objects (.jsonl) and pairs (.tsv) of
ssl-formats(5).
"""

import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator
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
Content = dict[str, Any]  # of a line
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
        return _objects(_content(data, f"{streams.name(self.path)}:{line}"))

    def parse_lines(self, data: bytes, line: int) -> Iterable[Objects]:
        """Return the Objects of all lines of DATA; see Lines."""
        name = streams.name(self.path)
        return map(_objects, in_groups(data.split(b"\n"), _plain, _content, name, line))


def _content(data: bytes, where: str) -> Content:
    """Return the entries of the line DATA, checked; raise DataError that names WHERE."""
    if contents := _plain(data):
        return contents[0]
    return formats.OBJECTS.check(containers.json_object(data, where), where)


def _objects(content: Content) -> Objects:
    """Return the Objects of CONTENT, which is as formats.OBJECTS says."""
    crowd = tuple(content.get("crowd") or ())
    return Objects(
        content["path"],
        content["width"],
        content["height"],
        tuple([(x1, y1, x2, y2) for x1, y1, x2, y2 in content["boxes"]]),
        tuple(content["labels"]),
        tuple(content["difficult"]),
        crowd if any(crowd) else (),
    )


TOGETHER = 32  # lines that are looked at together: few enough for the cache of a processor


def in_groups(
    lines: list[bytes],
    plain: Callable[[bytes], list[Content] | None],
    alone: Callable[[bytes, str], Content],
    name: str,
    first: int = 1,
) -> Iterator[Content]:
    """Yield the content of each of LINES: by PLAIN, of several at once, where that gives them.

    Else by ALONE, which is told where a line stands; they are of NAME, from number FIRST on.
    """
    for start in range(0, len(lines), TOGETHER):
        group = lines[start : start + TOGETHER]
        contents = plain(b"\n".join(group))
        if contents is None:
            numbered = enumerate(group, first + start)
            yield from (alone(line, f"{name}:{number}") for number, line in numbered)
        else:
            yield from contents


def plain_boxes(data: bytes, kind: Format, *flags: str) -> list[Content] | None:
    """Return the JSON objects in DATA, boxes in an image a line, if they are right at a glance.

    That is, each has the entries that KIND needs and no unknown one; path, size, boxes and labels
    are right, and FLAGS, which boxes have beside, are lists as long as these. What stands in them,
    and within which limits boxes are, is left to who calls. None where anything is wrong, or may
    be: of a single line KIND then says what. All lines are looked at together, for there are tens
    of thousands of boxes.
    """
    try:
        lines = data.decode().split("\n")
        # Each line is an object: it begins one and ends one, and there are as many as lines. For no
        # text can hold a newline, and what is right below has no object within another.
        contents = containers.parse_quickly("[" + ",\n".join(lines) + "]")
        paths, boxes = ([content[name] for content in contents] for name in ("path", "boxes"))
        labels = {label for content in contents for label in content["labels"]}
        beside = [
            (content[name], content["boxes"])
            for content in contents
            for name in ("labels", *flags)
            if name in content
        ]
        sizes = [content[side] for side in SIZE for content in contents]
        corners = list(chain.from_iterable(boxes))
        needed, allowed = kind.needed, kind.entries.keys()
        "".join(paths).encode()
        right = (
            len(contents) == len(lines)
            and all(line[0] == "{" and line[-1] == "}" for line in lines)
            and all(needed <= content.keys() <= allowed for content in contents)
            and all(map(_PATH.fullmatch, paths))
            and set(map(type, sizes)) == {int}
            and 0 < min(sizes) <= max(sizes) <= LARGEST
            and set(map(type, chain(boxes, corners, *beside))) == {list}
            and set(map(len, corners)) <= {4}
            and are_numbers(list(chain.from_iterable(corners)))
            and all(len(each) == len(mine) for each, mine in beside)
            and all(map(_is_label, labels))
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return contents if right else None


_PATH = re.compile(formats.PATH["pattern"])


def are_numbers(values: list[Any]) -> bool:
    """Tell whether VALUES are finite numbers of Python's own; in doubt, say no."""
    return set(map(type, values)) <= {int, float} and sum(map(abs, values)) <= FARTHEST


@functools.lru_cache(1 << 12)
def _is_label(label: str) -> bool:
    label.encode()
    return bool(re.fullmatch(formats.LABELS["pattern"], label))


def _plain(data: bytes) -> list[Content] | None:
    """Return the JSON objects in DATA if all is as formats.OBJECTS says, and that is seen."""
    contents = plain_boxes(data, formats.OBJECTS, "difficult", "crowd")
    if contents is None:
        return None
    flags = (content[name] for name in ("difficult", "crowd") for content in contents
             if name in content)  # fmt: skip
    right = set(map(type, chain.from_iterable(flags))) <= {bool} and all(
        0 <= x1 < x2 <= content["width"] and 0 <= y1 < y2 <= content["height"]
        for content in contents
        for x1, y1, x2, y2 in content["boxes"]
    )
    return contents if right else None


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
