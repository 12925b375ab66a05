"""Pictures of normals with what they were made from: read, checked and written.

A picture says it itself, in two texts of its PNG, so that figures by two rules are told apart.
"""

import io
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ssl_common import legible
from ssl_common.data import images
from ssl_common.data.stores import Store
from ssl_common.data.targets import PairList, decode_normals, encode_normals
from ssl_common.evaluation.normals.metrics import Angles, angles
from ssl_common.streams import DataError

GROUND_TRUTH, RULE = "ground_truth", "rule"  # the names of the texts
LONGEST = 200  # characters of one
AXIS = np.array([0.0, 0.0, 1.0])  # of the camera, towards it


@dataclass(frozen=True)
class Truth:
    """What labels were made from, ground_truth, and by which rule; None where it is not known."""

    ground_truth: str | None = None
    rule: str | None = None

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.ground_truth, self.rule))) or "not said"


class Picture(NamedTuple):
    """The PIXELS of a picture of normals, uint8 H x W x 3, and the TRUTH that it says."""

    pixels: np.ndarray
    truth: Truth


class Label(NamedTuple):
    """NORMALS of an image, float32 3 x H x W, 0 where there is none; and their TRUTH."""

    normals: np.ndarray
    truth: Truth

    @property
    def known(self) -> np.ndarray:
        """Where there is a normal, bool H x W."""
        return np.asarray(self.normals.any(0))


def read(pairs: PairList, index: int, root: str | Store = ".") -> Label:
    """Return the Label of line INDEX, from 0, of PAIRS; raise DataError that names the line."""
    picture = read_picture(pairs, index, root)
    return Label(decode_normals(picture.pixels), picture.truth)


def read_picture(pairs: PairList, index: int, root: str | Store = ".") -> Picture:
    """Return the Picture of line INDEX as read() does: of few pixels it is faster to decode few."""
    truths: list[Truth] = []
    try:
        pixels = images.read(pairs[index].target, root, lambda file: truths.append(_truth(file)))
    except images.Unreadable as error:
        raise pairs.error(index + 1, f"{error}: mend the file or drop the line") from None
    return Picture(pixels.numpy(), truths[0])


def _truth(file: BinaryIO) -> Truth:
    """Return what the picture in FILE says of itself."""
    said = Image.open(file).info
    texts = (said.get(name) for name in (GROUND_TRUTH, RULE))
    return Truth(*(legible.line(t)[:LONGEST] if isinstance(t, str) and t else None for t in texts))


def written(normals: np.ndarray, known: np.ndarray, truth: Truth) -> bytes:
    """Return the PNG of NORMALS, of length 1, 3 x H x W, where KNOWN (H x W), that says TRUTH."""
    texts, stream = PngInfo(), io.BytesIO()
    for name, text in ((GROUND_TRUTH, truth.ground_truth), (RULE, truth.rule)):
        if text:
            texts.add_text(name, text)
    picture = Image.fromarray(encode_normals(normals, known))
    picture.save(stream, "PNG", pnginfo=texts, compress_level=4)
    return stream.getvalue()


class Check:
    """What is asked of the labels of a whole list: normals that face the camera, of one truth.

    SOURCE is what errors name.
    """

    def __init__(self, source: str) -> None:
        self.source, self.truth = source, Truth()
        self._first = True
        self._to_axis = Angles()

    def see(self, label: Label, line: int) -> None:
        """Look at LABEL, of line number LINE; raise DataError if its truth is another one."""
        if not self._first and label.truth != self.truth:
            message = f"normals of another kind ({label.truth}) than before ({self.truth})"
            raise DataError(f"{self.source}:{line}: {message}: list each kind by itself")
        self._first, self.truth = False, label.truth
        self.count(label.normals[:, label.known])

    def count(self, normals: np.ndarray) -> None:
        """Look at NORMALS (3, n) of one image."""
        self._to_axis.add(angles(normals, AXIS[:, None]))

    def finish(self, fix: str = "negate the z of all") -> None:
        """Raise DataError where most normals turn their back on the camera; FIX is the advice."""
        if not self._to_axis.pixels:
            raise DataError(f"{self.source}: no pixel has a normal: see its targets")
        if (median := self._to_axis.median()) > 90:
            message = f"the median normal is {median:.0f} degrees from the way to the camera"
            raise DataError(f"{self.source}: {message}: z is to point towards it: {fix}")
