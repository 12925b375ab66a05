"""Augmentation: random crops and colours of the images that a network is trained on.

Nothing is drawn at random here: the caller gives the numbers, in [0, 1), that decide.
"""

import itertools
import math
from collections.abc import Iterable, Sequence

import torch

from ssl_common.data.pixels import crop_resized, crop_short, resize

SHORT_SIDE = 256  # pixels, before the crop
AREA, ASPECT = (0.08, 1), (3 / 4, 4 / 3)  # of a crop of any size
ORDERS = list(itertools.permutations(range(3)))  # of brightness, contrast, saturation
GRAY = (0.299, 0.587, 0.114)
# The principal components of ImageNet's colours, a column each, and their standard deviations
# (Krizhevsky et al., NIPS 2012; the numbers are fb.resnet.torch's).
COMPONENTS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
DEVIATIONS = (0.2175, 0.0188, 0.0045)


def side_crop(
    image: torch.Tensor, size: int, warp: bool, where: Sequence[float] | None = None
) -> torch.Tensor:
    """Return a SIZE x SIZE crop of IMAGE (H x W x 3), resized before.

    Its short side is made 256 pixels, or with WARP both sides; or SIZE, if that is more. The crop
    is the middle, or that of the corner WHERE, as pixels.crop() takes it.
    """
    side = max(SHORT_SIDE, size)
    corner = (0.5, 0.5) if where is None else where
    if warp:
        return crop_resized(image, (side, side), size, corner)
    return crop_short(image, side, size, corner)


def sized_crop(
    image: torch.Tensor,
    size: int,
    numbers: Iterable[Sequence[float]],
    area: Sequence[float] = AREA,
) -> torch.Tensor:
    """Return a part of IMAGE (H x W x 3) of any size, place and shape, resized to SIZE x SIZE.

    AREA are its least and largest share of the image. It is the first of NUMBERS (area, shape,
    upright or not, x, y), each in [0, 1), that lies in the image; else the middle.
    """
    height, width = image.shape[:2]
    for share, shape, upright, x, y in numbers:
        pixels = (area[0] + (area[1] - area[0]) * share) * height * width
        aspect = ASPECT[0] + (ASPECT[1] - ASPECT[0]) * shape
        wide, high = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if upright < 0.5:
            wide, high = high, wide
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(x * (width - wide + 1)), int(y * (height - high + 1))
            return resize(image[top : top + high, left : left + wide], (size, size))
    return crop_short(image, size, size, (0.5, 0.5))


def jitter(
    pixels: torch.Tensor, amounts: torch.Tensor, order: torch.Tensor, strength: float
) -> torch.Tensor:
    """Return PIXELS (N x 3 x H x W), real, with brightness, contrast and saturation changed.

    Each is mixed with black, its mean gray and itself in gray, by 1 +- STRENGTH as AMOUNTS (N, 3)
    say; ORDER (N) tells which comes first.
    """
    orders = torch.tensor(ORDERS, device=pixels.device)[(order * len(ORDERS)).long()]
    weights = (1 + strength * (2 * amounts - 1)).float().gather(1, orders)
    pixels = pixels.float()
    for which, share in zip(orders.unbind(1), weights.unbind(1), strict=True):
        which, share = which.view(-1, 1, 1, 1), share.view(-1, 1, 1, 1)
        gray = torch.einsum("c,nchw->nhw", torch.tensor(GRAY, device=pixels.device), pixels)[
            :, None
        ]
        flat = torch.where(which == 0, 0.0, gray.mean((2, 3), keepdim=True))
        pixels = share * pixels + (1 - share) * torch.where(which == 2, gray, flat)
    return pixels


def light(numbers: torch.Tensor, deviation: float) -> torch.Tensor:
    """Return what is added to the colours, 0 to 1, of each image, float32 N x 3 x 1 x 1.

    NUMBERS (N, 3), in [0, 1), become normal numbers of that DEVIATION, along the principal
    components of colour.
    """
    amounts = torch.special.ndtri(numbers + 2**-54) * deviation  # never of 0
    amounts = amounts * torch.tensor(DEVIATIONS, dtype=numbers.dtype, device=numbers.device)
    added = amounts @ torch.tensor(COMPONENTS, dtype=numbers.dtype, device=numbers.device).T
    return added.float()[:, :, None, None]
