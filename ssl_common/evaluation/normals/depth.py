"""Pictures of depth -> pictures of normals, and how far two windows agree on them."""

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ssl_common import streams
from ssl_common.crew import side_by_side
from ssl_common.data import images, targets
from ssl_common.data.stores import Store, store
from ssl_common.data.targets import CameraList, Pair, PairList
from ssl_common.evaluation.normals import labels, planes
from ssl_common.evaluation.normals.labels import Truth
from ssl_common.evaluation.normals.metrics import Angles, angles
from ssl_common.evaluation.normals.planes import Intrinsics
from ssl_common.processes import heed
from ssl_common.streams import DataError

COMPARED = 20  # images at most on which two windows are compared
GROUND_TRUTH = "depth"
Cameras = Callable[[int], Intrinsics]  # of a line, from 0


@dataclass(frozen=True)
class DepthReading:
    """How pictures of depth are read: SCALE of their values is a metre, 0 is not known; below ROOT.

    K is the side of the window that a plane is laid through.
    """

    k: int
    scale: float = 1000.0
    root: str = "."


def read_depth(pairs: PairList, index: int, scale: float, root: str | Store = ".") -> np.ndarray:
    """Return the depth of line INDEX, from 0, of PAIRS, in metres, float64 H x W; 0: not known.

    It is a PNG or TIFF of one channel, 8 or 16 bits. Raises DataError that names the line.
    """
    place, path = store(root), pairs[index].target
    try:
        with place.open(path) as stream:
            image = Image.open(stream, formats=["PNG", "TIFF"])
            if image.mode not in ("L", "I", "I;16", "I;16B"):
                raise DataError(f"pixels of mode {image.mode}, where depth is gray, 8 or 16 bits")
            return np.asarray(image).astype(np.float64) / scale
    except Exception as error:  # decoders of broken files raise almost anything
        if lacks := images.lacking(error):
            raise DataError(f"{place.name(path)}: {lacks}") from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        message = f"{place.name(path)}: {reason}: mend the file or drop the line"
        raise pairs.error(index + 1, message) from None


def cameras(said: str, pairs: PairList) -> Cameras:
    """Return what gives the intrinsics of a line of PAIRS: SAID is fx,fy,cx,cy or a list's name.

    Raises DataError for a list of other images, naming the first line that differs.
    """
    if (numbers := targets.intrinsics(said)) is not None:
        return lambda index: Intrinsics(*numbers)
    if not os.path.exists(said) and said.count(",") == 3:
        raise DataError(f"--intrinsics {said}: not fx,fy,cx,cy, the first two above 0")
    found = CameraList(said)
    if found.digest() != pairs.digest():
        both = zip(range(len(pairs)), range(len(found)), strict=False)
        line = next((i for i, _ in both if pairs[i].path != found[i].path), len(found))
        there = found[line].path if line < len(found) else "no line more"
        wanted = pairs[line].path if line < len(pairs) else "no line more"
        raise found.error(line + 1, f"{there}, where {streams.name(pairs.path)} has {wanted}")

    def camera(index: int) -> Intrinsics:
        return Intrinsics(*found[index][1:])

    return camera


def make(
    folder: str, prefix: str, pairs: PairList, of_camera: Cameras, reading: DepthReading,
    workers: int, agreement: Angles,
) -> Iterator[tuple[Pair, int, int]]:  # fmt: skip
    """Write the normals of each depth of PAIRS into FOLDER; yield (pair, pixels, those known).

    The targets of the pairs begin with PREFIX. AGREEMENT counts the angles between the normals of
    the window and of one that is half as wide again, for COMPARED images at most. Raises DataError
    where a picture cannot be read, and for a picture without any normal.
    """
    every = -(-len(pairs) // COMPARED)
    work = functools.partial(_write, folder, pairs, of_camera, reading, every)
    for index, made in enumerate(side_by_side(work, range(len(pairs)), workers)):
        heed()
        name, count, known, compared = made
        if compared:
            agreement.merge(compared)
        yield Pair(pairs[index].path, os.path.join(prefix, name)), count, known


def _write(folder, pairs, of_camera, reading, every, index):
    """Write the normals of line INDEX; return their name, how many pixels, known, and Angles."""
    depth, camera = read_depth(pairs, index, reading.scale, reading.root), of_camera(index)
    normals, known = planes.normals(depth, camera, reading.k)
    if not known.any():
        message = "no pixel has a normal: see --scale, or a larger -k"
        raise pairs.error(index + 1, f"{pairs[index].target}: {message}")
    compared = None
    if index % every == 0:
        wide, both = planes.normals(depth, camera, planes.wider(reading.k))
        compared = Angles()
        compared.add(angles(normals[:, known & both], wide[:, known & both]))
    name = f"{index + 1:06d}.png"
    content = labels.written(normals, known, Truth(GROUND_TRUTH, planes.rule(reading.k)))
    with open(os.path.join(folder, name), "wb") as stream:
        stream.write(content)
    return name, known.size, int(known.sum()), compared
