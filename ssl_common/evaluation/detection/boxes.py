"""Boxes: how much two have in common, how one is told from another, and where they may lie.

A box is x1, y1, x2, y2 in pixels, where 0, 0 is the upper left corner of the image, and its right
and lower edges lie outside of it, so that it is x2 - x1 wide. Detectron's boxes end on their last
pixel and are x2 - x1 + 1 wide: the same boxes, with 1 less in x2 and y2, so that its widths,
middles and overlaps are ours.
"""

import math
from collections.abc import Sequence

import torch

GROWTH = math.log(1000 / 16)  # of a side in decode(), at most: of 16 pixels to 1,000


def iou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the intersection over union of BOXES (N, 4) with OTHERS (M, 4), N x M.

    It is 0 for two boxes without an area.
    """
    corner = torch.maximum(boxes[:, None, :2], others[:, :2])
    sides = (torch.minimum(boxes[:, None, 2:], others[:, 2:]) - corner).clamp(min=0)
    shared = sides.prod(2)
    union = _areas(boxes)[:, None] + _areas(others) - shared
    return torch.where(shared > 0, shared / union, 0.0)


def _areas(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def encode(boxes: torch.Tensor, goals: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Return what decode() makes GOALS of BOXES by, both N x 4: N x 4 numbers.

    Where the middle of a goal lies, in sides of the box, and the logarithm of its sides by those of
    the box, times WEIGHTS (Girshick et al., CVPR 2014, appendix C).
    """
    sides, middles = _sides_and_middles(boxes)
    goal_sides, goal_middles = _sides_and_middles(goals)
    shifts = (goal_middles - middles) / sides
    return torch.cat([shifts, torch.log(goal_sides / sides)], 1) * boxes.new_tensor(weights)


def decode(boxes: torch.Tensor, codes: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Return the boxes that CODES (N, ..., 4) make of BOXES (N, 4), of the shape of CODES."""
    sides, middles = _sides_and_middles(boxes)
    shape = (len(boxes), *[1] * (codes.dim() - 2), 2)
    codes = codes / codes.new_tensor(weights)
    middles = middles.view(shape) + codes[..., :2] * sides.view(shape)
    sides = sides.view(shape) * torch.exp(codes[..., 2:].clamp(max=GROWTH))
    return torch.cat([middles - sides / 2, middles + sides / 2], -1)


def _sides_and_middles(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    sides = boxes[:, 2:] - boxes[:, :2]
    return sides, boxes[:, :2] + sides / 2


def clip(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return BOXES (..., 4), moved to where they lie in an image of HEIGHT x WIDTH."""
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def scaled(boxes: torch.Tensor, across: float, down: float) -> torch.Tensor:
    """Return BOXES (N, 4) of an image that is made ACROSS times as wide and DOWN times as high."""
    return boxes * boxes.new_tensor([across, down, across, down])


def mirrored(boxes: torch.Tensor, width: int) -> torch.Tensor:
    """Return BOXES (N, 4) of an image of WIDTH whose left and right change places."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([width - x2, y1, width - x1, y2], 1)


def with_area(boxes: torch.Tensor, least: float = 1e-3) -> torch.Tensor:
    """Return which of BOXES (N, 4) have sides of LEAST or more, bool (N,)."""
    return (boxes[:, 2:] - boxes[:, :2] >= least).all(1)
