"""Selective Search (Uijlings et al., IJCV 2013), by OpenCV: the extra [proposals]."""

import contextlib
import ctypes
import zlib
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from ssl_common.crew import side_by_side
from ssl_common.data import images as pictures
from ssl_common.data.manifest import Row
from ssl_common.data.targets import Objects
from ssl_common.evaluation.detection.proposals import Boxes, ImageList
from ssl_common.progress import Progress, silent
from ssl_common.streams import DataError

Mode = Literal["fast", "quality"]


class Search(NamedTuple):
    """How to search: MODE of Selective Search, SEED of its order; images lie below ROOT."""

    mode: Mode
    seed: int
    root: str


def opencv() -> Any:
    """Return the module of OpenCV; raise DataError where it is missing, or lacks the search."""
    try:
        import cv2

        cv2.ximgproc.segmentation.createSelectiveSearchSegmentation  # noqa: B018
    except (ImportError, AttributeError) as error:
        needed = "Selective Search needs opencv-contrib-python-headless"
        raise DataError(f"{needed}: pip install 'ssl-bench[proposals]'") from error
    return cv2


def search(
    images: ImageList, how: Search, workers: int, progress: Progress = silent
) -> Iterable[Boxes]:
    """Yield the proposals of each of IMAGES, in order; WORKERS processes search.

    What is found does not depend on WORKERS. Raises DataError naming the line of an image that
    cannot be read, or is not of the size that its objects say.
    """
    opencv()
    lines = range(len(images))
    found = side_by_side(partial(_of_line, images, how), lines, workers, _alone)
    with contextlib.closing(found):
        for done, boxes in enumerate(found, 1):
            yield Boxes(boxes, np.zeros(len(boxes), np.float32))
            progress(done, len(images))


def _alone() -> None:
    """Let OpenCV work in this process alone: threads do not live through a fork."""
    opencv().setNumThreads(1)


def _of_line(images: ImageList, how: Search, index: int) -> np.ndarray:
    """Return the boxes of line INDEX, from 0, of IMAGES, float32 (n, 4)."""
    row: Objects | Row = images[index]
    try:
        pixels = pictures.read(row.path, how.root).numpy()
    except pictures.Unreadable as error:
        raise images.error(index + 1, f"{error}: mend the file or drop the line") from None
    height, width = pixels.shape[:2]
    if isinstance(row, Objects) and (row.width, row.height) != (width, height):
        sizes = f"{row.path} is {width} x {height} pixels, not {row.width} x {row.height}"
        raise images.error(index + 1, f"{sizes}: list its objects again")
    return of_image(pixels, how.mode, zlib.crc32(f"{how.seed} {row.path}".encode()))


def of_image(pixels: np.ndarray, mode: Mode, seed: int) -> np.ndarray:
    """Return the boxes that Selective Search proposes for PIXELS, uint8 H x W x 3, RGB.

    float32 (n, 4), the best first. Their order is drawn in part, by the rand() of the C library,
    which OpenCV's own setRNGSeed does not reach: SEED sets it, below 2**32.
    """
    cv2 = opencv()
    if min(pixels.shape[:2]) < 2:  # nothing to part
        return np.array([[0, 0, pixels.shape[1], pixels.shape[0]]], np.float32)
    ctypes.CDLL(None).srand(ctypes.c_uint(seed))
    searching = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    searching.setBaseImage(np.ascontiguousarray(pixels[:, :, ::-1]))  # BGR
    if mode == "fast":
        searching.switchToSelectiveSearchFast()
    else:
        searching.switchToSelectiveSearchQuality()
    x_y_sides = np.asarray(searching.process(), np.float32).reshape(-1, 4)
    return np.hstack([x_y_sides[:, :2], x_y_sides[:, :2] + x_y_sides[:, 2:]])
