"""Which boxes are trained on: each is matched with an object or none, and some are drawn."""

import torch

from ssl_common.evaluation.detection.boxes import iou

UNUSED = -2  # of match(): neither an object nor nothing


def match(
    boxes: torch.Tensor, objects: torch.Tensor, high: float, low: float, best: bool = False
) -> torch.Tensor:
    """Return which of OBJECTS (M, 4) each of BOXES (N, 4) is to find, int64 (N,).

    It is the one that it overlaps most, where that is HIGH or more; -1 for none, below LOW, and
    UNUSED between these. With BEST the boxes that overlap an object more than all others do are to
    find one too.
    """
    if not len(objects) or not len(boxes):
        return torch.full((len(boxes),), -1, device=boxes.device)
    overlaps = iou(objects, boxes)
    most, nearest = overlaps.max(0)
    found = torch.where(most >= high, nearest, torch.where(most < low, -1, UNUSED))
    if best:
        highest = overlaps.max(1, keepdim=True).values
        among_best = ((overlaps == highest) & (highest > 0)).any(0)
        found = torch.where(among_best, nearest, found)
    return found


def sample(
    matches: torch.Tensor, count: int, share: float, seed: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which of MATCHES, of match(), are drawn: those of an object, and of none, ascending.

    COUNT altogether, a SHARE of them of objects, or fewer where there are fewer: then the others
    take their place. SEED, in [0, 1), decides.
    """
    generator = torch.Generator().manual_seed(int(seed * 2**53))
    keys = torch.rand(len(matches), generator=generator, dtype=torch.float64)
    keys = keys.to(matches.device)

    def drawn(candidates: torch.Tensor, most: int) -> torch.Tensor:
        indices = candidates.nonzero()[:, 0]
        return indices[keys[indices].argsort()[:most]].sort().values

    positives = drawn(matches >= 0, round(count * share))
    return positives, drawn(matches == -1, count - len(positives))
