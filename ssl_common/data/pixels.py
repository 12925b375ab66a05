"""The pixels of an image, uint8 H x W x 3: resized, cropped, and standardised for a network."""

import functools
from collections.abc import Sequence

import torch
from torch.nn.functional import interpolate

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB
MAX_AREA = 1 << 24  # pixels after resizing: a 1-pixel-wide image would otherwise fill the memory


def resize(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return IMAGE (H x W x 3) at SIZE (height, width): 8-bit, bilinear and antialiased.

    Within 1 of what Pillow makes of it, whose filter it is.
    """
    planes = image[None].permute(0, 3, 1, 2)  # channels last, as torch is fastest
    shape = list(size)
    return interpolate(planes, shape, mode="bilinear", antialias=True)[0].permute(1, 2, 0)


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
    old = image.shape[:2]
    new = [min(max(side, length * side // min(old)), MAX_AREA // side) for length in old]
    if new == list(old):
        return image
    if max(new) < max(old) and min(new) > min(old):  # a strip: first what makes it smaller
        image = resize(image, [min(lengths) for lengths in zip(old, new, strict=True)])
    return resize(image, new)


def crop(image: torch.Tensor, side: int, corner: Sequence[float]) -> torch.Tensor:
    """Return a SIDE x SIDE part of IMAGE (H x W x 3).

    CORNER (x, y), each in [0, 1), says where: of all places of the upper left corner, that share
    lies left of it and above it.
    """
    (x, y), (height, width) = corner, image.shape[:2]
    left, top = int(x * (width - side + 1)), int(y * (height - side + 1))
    return image[top : top + side, left : left + side]


def standardize(
    pixels: torch.Tensor, mean: Sequence[float] = MEAN, deviation: Sequence[float] = STD
) -> torch.Tensor:
    """Return uint8 RGB PIXELS (... x 3 x H x W) as float32: / 255, less MEAN, by DEVIATION."""
    mean_there, deviation_there = _statistics(pixels.device, mean, deviation)
    return (pixels.float() / 255 - mean_there) / deviation_there


@functools.cache  # copying them to a GPU each time would wait for it
def _statistics(device: torch.device, *both: Sequence[float]) -> list[torch.Tensor]:
    return [torch.tensor(v, device=device).view(3, 1, 1) for v in both]
