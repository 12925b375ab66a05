"""Anchors: boxes of several sizes and shapes at each place of a map, which an RPN begins with."""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch

RATIOS = (0.5, 1.0, 2.0)  # height by width


def cell(kind: str, sizes: Sequence[float], stride: int) -> torch.Tensor:
    """Return the anchors of the place at 0, 0 of a map, float32 (3 x SIZES, 4), shape by shape.

    A place stands for STRIDE x STRIDE pixels. Those of "detectron" lie around the middle of these,
    and have the shapes of the whole numbers that are nearest to a square's of one place; those of
    "torchvision" lie around their corner, with corners that are whole.
    """
    found = []
    for ratio in RATIOS:
        if kind == "detectron":
            across = np.round(math.sqrt(stride * stride / ratio))
            shape = np.array([across, np.round(across * ratio)]) / stride
            halves = [(stride / 2, shape * size / 2) for size in sizes]
        else:
            shape = np.array([1, ratio]) / math.sqrt(ratio)
            halves = [(0.0, np.round(shape * size / 2)) for size in sizes]
        found += [np.concatenate([middle - half, middle + half]) for middle, half in halves]
    return torch.from_numpy(np.array(found)).float()


@functools.lru_cache(64)  # images have few sizes
def grid(
    kind: str, sizes: tuple[float, ...], stride: int, height: int, width: int, device: torch.device
) -> torch.Tensor:
    """Return the anchors of a map of HEIGHT x WIDTH places, those of a place one after the other.

    Float32 (HEIGHT x WIDTH x A, 4) on DEVICE. Place i of the map is pixel i x STRIDE of the image,
    whatever the size of the image: torchvision's AnchorGenerator divides the sizes of the two.
    """
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    corners = stride * torch.stack([across, down, across, down], 2).reshape(-1, 1, 4)
    return (corners + cell(kind, sizes, stride)).reshape(-1, 4).to(device)
