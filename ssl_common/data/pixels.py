"""The pixels of an image, uint8 H x W x 3: resized, cropped, and standardised for a network."""

import functools
from collections.abc import Sequence

import torch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB
MAX_AREA = 1 << 24  # pixels after resizing: a 1-pixel-wide image would otherwise fill the memory


def resize(
    image: torch.Tensor, size: Sequence[int], shown: Sequence[int] | None = None
) -> torch.Tensor:
    """Return IMAGE (H x W x 3) at SIZE (height, width): 8-bit, bilinear and antialiased.

    Of that only the upper left part SHOWN (height, width), if it is given: the same pixels but for
    few sizes, where torch's weights have another number of bits, and within 1 of them. Within 1 of
    what Pillow makes of it, too, whose filter it is.
    """
    planes = image[None].permute(0, 3, 1, 2)  # channels last, as torch is fastest
    # interpolate() calls this, and can be asked for the whole alone.
    resized = torch.ops.aten._upsample_bilinear2d_aa
    if shown is None:
        return resized(planes, list(size), False)[0].permute(1, 2, 0)
    sides = list(zip(image.shape, size, shown, strict=False))
    # As many pixels as there were would be taken for a side that is not resized: one more.
    made = [part + (part == old != new) for old, new, part in sides]
    scales = [new / old for old, new, _part in sides]
    return resized(planes, made, False, *scales)[0, :, : shown[0], : shown[1]].permute(1, 2, 0)


def size_within(height: int, width: int, side: int, longest: int) -> tuple[int, int]:
    """Return (height, width) of an image of HEIGHT x WIDTH whose short side is made SIDE pixels.

    Or its long side LONGEST, if that would be longer; both are rounded, to 1 at least.
    """
    scale = min(side / min(height, width), longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_short(image: torch.Tensor, side: int) -> torch.Tensor:
    """Return IMAGE (H x W x 3) with a short side of SIDE pixels, the other in proportion, floored.

    The area is at most MAX_AREA, for which the long side gives way.
    """
    image, size = _to_short(image, side)
    return image if size == list(image.shape[:2]) else resize(image, size)


def _to_short(image: torch.Tensor, side: int) -> tuple[torch.Tensor, list[int]]:
    """Return (what is resized for resize_short(), its size then): of a strip, a smaller one."""
    old = image.shape[:2]
    new = [min(max(side, length * side // min(old)), MAX_AREA // side) for length in old]
    if max(new) < max(old) and min(new) > min(old):  # a strip: first what makes it smaller
        image = resize(image, [min(lengths) for lengths in zip(old, new, strict=True)])
    return image, new


def crop(image: torch.Tensor, side: int, corner: Sequence[float]) -> torch.Tensor:
    """Return a SIDE x SIDE part of IMAGE (H x W x 3).

    CORNER (x, y), each in [0, 1), says where: of all places of the upper left corner, that share
    lies left of it and above it.
    """
    return crop_resized(image, list(image.shape[:2]), side, corner)


def crop_resized(
    image: torch.Tensor, size: Sequence[int], side: int, corner: Sequence[float]
) -> torch.Tensor:
    """Return crop() of IMAGE resized to SIZE (height, width).

    No row below the crop is made, and no column right of it. Those above and left of it are: where
    they end, there seldom is a pixel of IMAGE that another resizing could begin with.
    """
    (x, y), (height, width) = corner, size
    left, top = int(x * (width - side + 1)), int(y * (height - side + 1))
    if list(size) != list(image.shape[:2]):
        image = resize(image, size, (top + side, left + side))
    return image[top : top + side, left : left + side]


def crop_short(image: torch.Tensor, short: int, side: int, corner: Sequence[float]) -> torch.Tensor:
    """Return crop() of resize_short(IMAGE, SHORT), made as by crop_resized()."""
    image, size = _to_short(image, short)
    return crop_resized(image, size, side, corner)


def standardize(
    pixels: torch.Tensor, mean: Sequence[float] = MEAN, deviation: Sequence[float] = STD
) -> torch.Tensor:
    """Return uint8 RGB PIXELS (... x 3 x H x W) as float32: / 255, less MEAN, by DEVIATION."""
    mean_there, deviation_there = _statistics(pixels.device, mean, deviation)
    return (pixels.float() / 255 - mean_there) / deviation_there


@functools.cache  # copying them to a GPU each time would wait for it
def _statistics(device: torch.device, *both: Sequence[float]) -> list[torch.Tensor]:
    return [torch.tensor(v, device=device).view(3, 1, 1) for v in both]
