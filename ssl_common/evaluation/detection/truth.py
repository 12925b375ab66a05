"""The objects of a list as arrays: what detections and proposals are measured on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssl_common import streams
from ssl_common.data import layouts
from ssl_common.data.targets import ObjectList, Objects
from ssl_common.streams import DataError


@dataclass(frozen=True, eq=False)
class Truth:
    """All objects of a list: a row for each, ordered by image, then as in its line.

    `images` (M,) are numbers of lines, from 0, and `labels` (M,) places in `classes`, which are in
    the order of their bytes; `boxes` (M, 4) float64. `ignored` ones, difficult or a crowd, neither
    count nor count against a detector. `name` is what messages call the list, `digest` that of its
    paths, `content` that of all it says.
    """

    name: str
    digest: str
    content: str
    listed: Sequence[Objects]
    classes: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    ignored: np.ndarray
    crowd: np.ndarray

    @property
    def places(self) -> dict[str, int]:
        """The number of each image, {path: line from 0}."""
        return {each.path: number for number, each in enumerate(self.listed)}

    @property
    def positives(self) -> np.ndarray:
        """How many objects of each class count, int (C,)."""
        return np.bincount(self.labels[~self.ignored], minlength=len(self.classes))


class _Kept(ObjectList):
    """A list of objects that keeps all of its lines, as `lines`; each is read once.

    `sum` is of all its bytes, the same from a file and a pipe.
    """

    def __init__(self, path: str) -> None:
        self.lines: list[Objects] = []
        self.sum = hashlib.sha256()
        super().__init__(path)

    def check(self, piece: bytes, ends: np.ndarray, before: int) -> bytes:
        """Return the paths of PIECE as Lines.check() does, and add it to the sum."""
        self.sum.update(piece)
        return super().check(piece, ends, before)

    def parse_lines(self, data: bytes, line: int) -> list[Objects]:
        """Return and keep the Objects of all lines of DATA; see Lines."""
        found = list(super().parse_lines(data, line))
        self.lines += found
        return found


def read(path: str) -> Truth:
    """Return the objects of the list PATH; raise DataError for a wrong line, or an image twice."""
    listed = _Kept(path)
    lines: dict[str, int] = {}
    for number, each in enumerate(listed.lines, 1):
        if (first := lines.setdefault(each.path, number)) != number:
            raise listed.error(number, f"{each.path} stands on line {first} already: delete one")
    digests = listed.digest(), listed.sum.hexdigest()[:16]
    return arrays(listed.lines, streams.name(path), *digests)


def arrays(
    listed: Sequence[Objects], name: str = "the list", digest: str = "", content: str = ""
) -> Truth:
    """Return the LISTED objects as arrays; NAME, DIGEST and CONTENT are as in Truth."""
    classes = sorted({label for each in listed for label in each.labels}, key=str.encode)
    place = {label: number for number, label in enumerate(classes)}
    counts = [len(each.boxes) for each in listed]
    boxes = np.fromiter((side for each in listed for box in each.boxes for side in box), np.float64)
    crowd = [flag for each in listed for flag in each.crowd or (False,) * len(each.boxes)]
    return Truth(
        name,
        digest,
        content,
        listed,
        tuple(classes),
        np.repeat(np.arange(len(listed)), counts),
        np.array([place[label] for each in listed for label in each.labels], np.int64),
        boxes.reshape(-1, 4),
        np.array([flag for each in listed for flag in each.ignored], bool),
        np.array(crowd, bool),
    )


def by_identity(truth: Truth) -> dict[str, int]:
    """Return the number of each image by what VOC calls it: its file name without suffix.

    Raises DataError where two images of the list have one.
    """
    numbers: dict[str, int] = {}
    for number, each in enumerate(truth.listed):
        identity = layouts.identity(each.path)
        if numbers.setdefault(identity, number) != number:
            both = f"{truth.listed[numbers[identity]].path} and {each.path}"
            raise DataError(f"{truth.name}: {both} have one name, which VOC's files do not tell")
    return numbers
