"""Proposals: the boxes of an image where an object may be, before any detector has looked.

They are kept for all images of a list in one file of arrays (ssl-formats(5)), the best of an image
first. A box is x1, y1, x2, y2 in pixels, its right and lower edges outside.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from ssl_common import containers, formats, streams
from ssl_common.data.lines import Lines, OfAnImage
from ssl_common.data.manifest import Manifest, Row
from ssl_common.data.targets import ObjectList, Objects
from ssl_common.evaluation.detection.precision import overlap
from ssl_common.streams import DataError

FORMAT = formats.PROPOSALS.version
USUAL = 2000  # proposals of an image that detectors look at: the first


class ImageList(Lines[Objects | Row]):
    """Images by line number, of a list of objects, whose lines are JSON, or of a manifest."""

    NO_LINE = Manifest.NO_LINE

    def parse(self, data: bytes, line: int) -> Objects | Row:
        """Return the Objects or the Row of DATA, line number LINE; raise DataError if wrong."""
        if data.startswith(b"{"):
            return ObjectList.parse(cast(ObjectList, self), data, line)
        return Manifest.parse(cast(Manifest, self), data, line)


class Boxes(NamedTuple):
    """The proposals of an image: `boxes`, float32 (n, 4), and `scores`, float32 (n,).

    The best come first; scores are 0 where the source has none.
    """

    boxes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class Proposals:
    """The proposals of all images of a list, in its order.

    `name` is what messages call them; those of image i are rows offsets[i] to offsets[i + 1] of
    `boxes`, float32 (M, 4), and `scores`, float32 (M,).
    """

    name: str
    paths: list[str]
    offsets: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def of(self, index: int) -> np.ndarray:
        """Return the boxes of image INDEX, from 0, float32 (n, 4), the best first."""
        return self.boxes[self.offsets[index] : self.offsets[index + 1]]


def gather(name: str, paths: Iterable[str], found: Iterable[Boxes]) -> Proposals:
    """Return what was FOUND in the images PATHS, one after the other."""
    every = list(found)
    offsets = np.cumsum([0, *(len(each.boxes) for each in every)], dtype=np.int64)
    boxes = np.concatenate([np.empty((0, 4)), *(each.boxes for each in every)])
    scores = np.concatenate([np.empty(0), *(each.scores for each in every)])
    return Proposals(name, list(paths), offsets, boxes.astype("f4"), scores.astype("f4"))


def save(stream: BinaryIO, proposals: Proposals) -> None:
    """Write PROPOSALS to STREAM."""
    names = "\n".join(proposals.paths).encode()
    containers.write_arrays(
        stream,
        format=FORMAT,
        paths=np.frombuffer(names, np.uint8),
        offsets=proposals.offsets,
        boxes=proposals.boxes,
        scores=proposals.scores,
    )


def read(path: str) -> Proposals:
    """Return the proposals in the file PATH, all of them in memory; raise DataError for another."""
    content = formats.PROPOSALS.read(path)
    try:
        paths = bytes(content["paths"]).decode().split("\n")
    except UnicodeDecodeError as error:
        message = f"not proposals: paths are not UTF-8: {formats.PROPOSALS.fix}"
        raise DataError(f"{streams.name(path)}: {message}") from error
    arrays = (content[name] for name in ("offsets", "boxes", "scores"))
    return Proposals(streams.name(path), paths, *arrays)


def match(proposals: Proposals, images: Sequence[OfAnImage]) -> None:
    """Raise DataError, naming the first image, where PROPOSALS are not of IMAGES in their order."""
    for line, (path, image) in enumerate(zip(proposals.paths, images, strict=False), 1):
        if path != image.path:
            message = f"its image {line} is {path}, and that of the list {image.path}"
            raise DataError(f"{proposals.name}: {message}: make proposals of this list")
    if len(proposals) != len(images):
        both = f"{len(proposals):,} images, and the list {len(images):,}"
        more = min(len(proposals), len(images))
        first = proposals.paths[more] if len(proposals) > more else images[more].path
        message = f"it has {both}: the first of those beyond is {first}"
        raise DataError(f"{proposals.name}: {message}: make proposals of this list")


class Recall(NamedTuple):
    """How many objects there are, and how many have a proposal near them, of the first and all."""

    objects: int
    of_usual: int
    of_all: int


def recall(proposals: Proposals, images: Iterable[Objects], limit: float = 0.5) -> Recall:
    """Return how many objects of IMAGES have a proposal whose overlap is LIMIT or more.

    Overlap is intersection over union; objects that are ignored do not count.
    """
    found = np.zeros(3, np.int64)
    for index, image in enumerate(images):
        counted = np.array(image.ignored, bool).__invert__()
        boxes = np.array(image.boxes, np.float64).reshape(-1, 4)[counted]
        near = overlap(boxes[:, None], proposals.of(index)[None].astype(np.float64)) >= limit
        found += len(boxes), near[:, :USUAL].any(1).sum(), near.any(1).sum()
    return Recall(*found.tolist())


def summary(proposals: Proposals, images: ImageList, left_out: int = 0) -> str:
    """Return what make-proposals says of PROPOSALS of IMAGES; LEFT_OUT are other images' boxes."""
    count = len(proposals.boxes)
    text = f"{len(proposals):,} images, {count:,} boxes, {count / len(proposals):,.0f} an image"
    if left_out:
        text += f", those of {left_out:,} other images left out"
    if isinstance(images[0], Objects):
        found = recall(proposals, cast(Iterator[Objects], iter(images)))
        if not found.objects:
            return f"{text}; no object that counts"
        first, every = (f"{100 * n / found.objects:.1f}%" for n in found[1:])
        text += f"; recall at IoU .5: {every} of {found.objects:,} objects"
        text += f" ({first} by the first {USUAL:,})" if found.of_usual < found.of_all else ""
    return text
