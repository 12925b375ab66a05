"""How images and their normals are shown to a predictor, and its scores brought back to pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ssl_common.data.pixels import MEAN, resize, size_within
from ssl_common.data.targets import PairList, decode_normals
from ssl_common.evaluation.normals import codes, labels
from ssl_common.evaluation.normals.labels import Picture
from ssl_common.evaluation.normals.pyramid import STRIDE

NOTHING = -1  # the code of a place without a normal
FILLING = tuple(round(255 * mean) for mean in MEAN)  # the colour that stands for 0
AT_ONCE = 1 << 20  # scores brought to the size of the image, of some rows at a time
SAME = 0.02  # by which the proportions of an image and its normals may differ


def shown(image: torch.Tensor, side: int, longest: int) -> torch.Tensor:
    """Return IMAGE, uint8 H x W x 3, with a short side of SIDE, or a long one of LONGEST."""
    height, width = image.shape[:2]
    size = size_within(height, width, side, longest)
    return image if size == (height, width) else resize(image, size)


def picture_of(pairs: PairList, line: int, root: Any, image: torch.Tensor) -> Picture:
    """Return the picture of the normals of LINE of PAIRS, which is IMAGE, uint8 H x W x 3.

    Raises DataError that names the line where it has other proportions.
    """
    picture = labels.read_picture(pairs, line, root)
    (height, width), (rows, columns) = image.shape[:2], picture.pixels.shape[:2]
    if abs(height * columns / (width * rows) - 1) > SAME:
        sizes = f"{width} x {height} pixels, and its normals {columns} x {rows}"
        raise pairs.error(line + 1, f"{pairs[line].path} has {sizes}: they show something else")
    return picture


def middles(length: int, size: int, stride: int, first: int) -> np.ndarray:
    """Return the pixels of a side of SIZE that are in the middle of places of a map, see Body.

    The side is shown at LENGTH pixels.
    """
    pixels = np.arange(first, length, stride)
    return ((pixels + 0.5) * size / length).astype(int)


def places_of(
    pixels: np.ndarray, size: Sequence[int], stride: int, first: int, mirrored: bool
) -> np.ndarray:
    """Return those of PIXELS (H x W x 3) that are in the middle of places of a map, h x w x 3.

    SIZE is (height, width) of the image as it is shown, MIRRORED or not.
    """
    rows, columns = (
        middles(length, whole, stride, first)
        for length, whole in zip(size, pixels.shape[:2], strict=True)
    )
    return (pixels[:, ::-1] if mirrored else pixels)[rows[:, None], columns]


def codes_of(places: np.ndarray, book: np.ndarray, mirrored: bool) -> np.ndarray:
    """Return the code of BOOK (K, 3) at each of PLACES of places_of(), int16 h x w.

    It is NOTHING where there is no normal. A MIRRORED image has normals whose x has the other sign.
    """
    normals = decode_normals(places)
    if mirrored:
        normals[0] *= -1
    nearest = codes.nearest(normals.reshape(3, -1), book).reshape(normals.shape[1:])
    return np.where(places.any(2), nearest, NOTHING).astype(np.int16)


def padded(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return IMAGE, uint8 H x W x 3, with FILLING on the right and below, of SIZE."""
    whole = torch.tensor(FILLING, dtype=torch.uint8).expand(*size, 3).contiguous()
    whole[: image.shape[0], : image.shape[1]] = image
    return whole


def full_size(images: Sequence[torch.Tensor]) -> tuple[int, int]:
    """Return the size that holds all IMAGES, multiples of STRIDE."""
    height, width = (-(-length // STRIDE) * STRIDE for length in largest(images))
    return height, width


def largest(tensors: Sequence[torch.Tensor], axes: tuple[int, int] = (0, 1)) -> tuple[int, int]:
    """Return the size that holds all TENSORS, whose heights and widths are along AXES."""
    height, width = (max(each.shape[axis] for each in tensors) for axis in axes)
    return height, width


def fitted(places: torch.Tensor, size: Sequence[int], value: int = NOTHING) -> torch.Tensor:
    """Return PLACES, N x h x w codes, cut or with VALUE added to SIZE, that of the map."""
    height, width = (there - n for there, n in zip(size, places.shape[1:], strict=True))
    return functional.pad(places, (0, width, 0, height), value=value)


def filled(places: Sequence[torch.Tensor], size: Sequence[int]) -> torch.Tensor:
    """Return PLACES, h x w codes each, as one: with NOTHING added to SIZE, N x H x W."""
    return torch.stack([fitted(each[None], size)[0] for each in places])


def normals_of(
    scores: torch.Tensor,
    book: torch.Tensor,
    shown: Sequence[int],
    size: Sequence[int],
    stride: int,
    first: int,
) -> torch.Tensor:
    """Return the normals, float32 3 x H x W, by SCORES (K x h x w) of the codes of BOOK (K, 3).

    SIZE is (H, W), SHOWN that at which the network saw it. Scores are linear between the middles
    of places; the normal is the mean of the codes by their probabilities, at length 1.
    """
    rows, columns = (
        torch.from_numpy(spreading(size[axis], shown[axis], scores.shape[1 + axis], stride, first))
        .float()
        .to(scores.device)
        for axis in (0, 1)
    )
    across = torch.einsum("khw,xw->khx", scores.float(), columns)
    band = max(1, AT_ONCE // (len(book) * size[1]))
    parts = []
    for some in rows.split(band):
        whole = torch.einsum("yh,khx->kyx", some, across)
        parts.append(torch.einsum("kyx,kc->cyx", whole.softmax(0), book))
    return functional.normalize(torch.cat(parts, 1), dim=0)


def spreading(size: int, shown: int, count: int, stride: float, first: float) -> np.ndarray:
    """Return what COUNT places of a map give to each of SIZE pixels, float64 SIZE x COUNT.

    Linear between the middles of two places, as the nearest beyond the outermost; the map is of an
    image that is shown at SHOWN pixels, STRIDE and FIRST as Body has them.
    """
    pixels = (np.arange(size) + 0.5) * shown / size - 0.5
    places = (pixels - first) / stride
    return np.stack([np.interp(places, np.arange(count), unit) for unit in np.eye(count)], axis=1)
