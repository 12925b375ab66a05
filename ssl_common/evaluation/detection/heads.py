"""What a detector says of each proposal: its class, and the box of what is there.

Fast R-CNN (Girshick, ICCV 2015), with the head of ResNets (res5) or of AlexNets (fc6, fc7).
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from ssl_common.evaluation.detection import boxes
from ssl_common.evaluation.detection.recipes import Heading
from ssl_common.evaluation.detection.sampling import match, sample

WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of codes
BETA = 1.0  # of smooth L1


class Chosen(NamedTuple):
    """The proposals of an image that are trained on.

    Their BOXES (n, 4), the LABELS they are to be given, int64 (n,), 0 for none; and the codes
    GOALS (n, 4) of the objects that they are to find, 0 where there is none.
    """

    boxes: torch.Tensor
    labels: torch.Tensor
    goals: torch.Tensor


class Found(NamedTuple):
    """What is found in an image, best first: BOXES (n, 4), LABELS from 1, int64, and SCORES."""

    boxes: torch.Tensor
    labels: torch.Tensor
    scores: torch.Tensor


def choose(
    proposals: torch.Tensor,
    objects: torch.Tensor,
    labels: torch.Tensor,
    rules: Heading,
    seed: float,
) -> Chosen:
    """Return the Chosen of PROPOSALS (N, 4), and OBJECTS (M, 4) among them, that SEED draws.

    LABELS, int64 (M,), are those of the objects, from 1.
    """
    candidates = torch.cat([proposals, objects])
    matches = match(candidates, objects, rules.half, rules.half)
    positives, negatives = sample(matches, rules.drawn, rules.share, seed)
    drawn = torch.cat([positives, negatives])
    wanted = torch.zeros(len(drawn), dtype=torch.int64, device=proposals.device)
    wanted[: len(positives)] = labels[matches[positives]]
    goals = torch.zeros(len(drawn), 4, device=proposals.device)
    goals[: len(positives)] = boxes.encode(
        candidates[positives], objects[matches[positives]], WEIGHTS
    )
    return Chosen(candidates[drawn], wanted, goals)


class Pool(nn.Module):
    """The part of a map that lies under each box, as SIDE x SIDE places, by a KIND of POOLS.

    A place of the map stands for STRIDE x STRIDE pixels. "roi-pool" takes the greatest of the
    places under each part of a box, the one with the box's last pixel among them, as Detectron's
    RoIPoolF; "roi-align" a mean of what lies between places, aligned, as detectron2's ROIAlignV2.
    """

    def __init__(self, kind: str, side: int, stride: int) -> None:
        super().__init__()
        self.kind, self.side, self.stride = kind, side, stride

    def forward(self, feature_map: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        """Return the parts of FEATURE_MAP (1 x C x h x w) below the boxes FOUND (n, 4), n x C."""
        from torchvision import ops

        feature_map, scale = feature_map.float(), 1 / self.stride
        if self.kind == "roi-align":
            return ops.roi_align(feature_map, [found], self.side, scale, aligned=True)
        pixels = found - found.new_tensor([0, 0, 1, 1])  # that end on their last
        return ops.roi_pool(feature_map, [pixels], self.side, scale)


class Head(nn.Module):
    """Classes and boxes of proposals, of a body's map with so many CHANNELS and a STRIDE.

    LAST is the stage that the head begins with, whose map is averaged; or None: two layers fc6 and
    fc7 of WIDTH take its place. CLASSES are without that of nothing, which is 0.
    """

    def __init__(
        self,
        last: nn.Module | None,
        channels: int,
        stride: int,
        classes: int,
        pool: str,
        width: int,
    ) -> None:
        super().__init__()
        self.pool = Pool(pool, 14 if last is not None else 6, stride)
        if last is None:
            last = nn.Sequential(
                nn.Flatten(),
                nn.Linear(channels * 36, width),
                nn.ReLU(inplace=True),
                nn.Linear(width, width),
                nn.ReLU(inplace=True),
            )
            for module in last.modules():
                if isinstance(module, nn.Linear):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                    nn.init.zeros_(module.bias)
        self.last = last
        with torch.no_grad():
            found = self.features(torch.zeros(1, channels, self.pool.side, self.pool.side))
        self.classes = nn.Linear(found.shape[1], classes + 1)
        self.boxes = nn.Linear(found.shape[1], 4 * (classes + 1))
        for layer, deviation in ((self.classes, 0.01), (self.boxes, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def features(self, parts: torch.Tensor) -> torch.Tensor:
        """Return what the head makes of PARTS, n x C x side x side: n x D."""
        found = self.last(parts)
        return found.mean((2, 3)) if found.dim() == 4 else found

    def forward(self, parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits n x (K + 1) and codes n x (K + 1) x 4 of PARTS, of a Pool."""
        features = self.features(parts)
        return self.classes(features).float(), self.boxes(features).float().unflatten(1, (-1, 4))


def losses(logits: torch.Tensor, codes: torch.Tensor, chosen: Chosen) -> torch.Tensor:
    """Return the losses of classes and of boxes, (2,), means over the CHOSEN of an image.

    LOGITS (n, K + 1) and CODES (n, K + 1, 4) are what the head says of them.
    """
    count = max(1, len(chosen.labels))
    of_classes = functional.cross_entropy(logits, chosen.labels, reduction="sum")
    rows = chosen.labels.nonzero()[:, 0]
    told = codes[rows, chosen.labels[rows]]
    of_boxes = functional.smooth_l1_loss(told, chosen.goals[rows], reduction="sum", beta=BETA)
    return torch.stack([of_classes, of_boxes]) / count


def detections(
    logits: torch.Tensor,
    codes: torch.Tensor,
    proposals: torch.Tensor,
    size: tuple[int, int],
    rules: Heading,
) -> Found:
    """Return what is Found by LOGITS (n, K + 1) and CODES (n, K + 1, 4) of PROPOSALS (n, 4).

    In an image of SIZE, height and width.
    """
    from torchvision.ops import batched_nms

    found = boxes.clip(boxes.decode(proposals, codes, WEIGHTS), *size)[:, 1:]
    scores = functional.softmax(logits, 1)[:, 1:]
    rows, columns = (scores > rules.least).nonzero(as_tuple=True)
    found, scores = found[rows, columns], scores[rows, columns]
    whole = boxes.with_area(found, 1e-2)
    found, scores, labels = found[whole], scores[whole], columns[whole] + 1
    kept = batched_nms(found, scores, labels, rules.nms)[: rules.most]
    return Found(found[kept], labels[kept], scores[kept])
