"""The region proposal network (Ren et al., NIPS 2015): where in an image objects may be."""

import itertools
import operator

import torch
from torch import nn
from torch.nn import functional

from ssl_common.evaluation.detection import anchors, boxes
from ssl_common.evaluation.detection.recipes import Proposing
from ssl_common.evaluation.detection.sampling import match, sample

WEIGHTS = (1.0, 1.0, 1.0, 1.0)  # of codes
BETA = 1 / 9  # of smooth L1


class ProposalNetwork(nn.Module):
    """An RPN over a map of CHANNELS, of a trunk with this STRIDE, by the numbers of RULES."""

    def __init__(self, channels: int, stride: int, rules: Proposing) -> None:
        from torchvision.models.detection.rpn import RPNHead

        super().__init__()
        self.stride, self.rules = stride, rules
        # A 3 x 3 convolution and ReLU, then two of 1 x 1, all drawn from N(0, 0.01).
        self.head = RPNHead(channels, len(anchors.RATIOS) * len(rules.sizes))

    def forward(self, feature_map: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return the boxes (N, 4) proposed on FEATURE_MAP (1 x C x h x w), best first.

        SIZE is the height and width of the image, in pixels.
        """
        return self.best(*self.told(feature_map), size, self.rules.kept)

    def learn(
        self, feature_map: torch.Tensor, size: tuple[int, int], objects: torch.Tensor, seed: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return more such boxes, and the losses (2,) on anchors drawn by SEED; see losses()."""
        told = self.told(feature_map)
        with torch.no_grad():
            found = self.best(*told, size, self.rules.kept_in_training)
        return found, self.losses(*told, size, objects, seed)

    def told(self, feature_map: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the anchors (N, 4) of FEATURE_MAP, and what is said of each: logit and code."""
        (logits,), (codes,) = self.head([feature_map])
        # Of each place the anchors one after the other, as grid() has them.
        logits = logits[0].permute(1, 2, 0).reshape(-1)
        codes = codes[0].unflatten(0, (-1, 4)).permute(2, 3, 0, 1).reshape(-1, 4)
        rules, (height, width) = self.rules, feature_map.shape[-2:]
        begun = anchors.grid(
            rules.anchors, rules.sizes, self.stride, height, width, feature_map.device
        )
        return begun, logits.float(), codes.float()

    def best(
        self,
        begun: torch.Tensor,
        logits: torch.Tensor,
        codes: torch.Tensor,
        size: tuple[int, int],
        kept: tuple[int, int],
    ) -> torch.Tensor:
        """Return the best boxes (n, 4) of those told(), of which none overlaps a better one.

        Of an image of SIZE; KEPT are how many are left before that is seen to, and after.
        """
        from torchvision.ops import nms

        before, after = kept
        logits, order = logits.topk(min(before, len(logits)))
        found = boxes.clip(boxes.decode(begun[order], codes[order], WEIGHTS), *size)
        whole = boxes.with_area(found)
        found, logits = found[whole], logits[whole]
        # Which are kept among the first depends on the first alone, and nms() compares each pair.
        for count in itertools.accumulate(itertools.repeat(4), operator.mul, initial=2 * after):
            kept = nms(found[:count], logits[:count], self.rules.nms)[:after]
            if len(kept) == after or count >= len(found):
                break
        return found[kept]

    def losses(
        self,
        begun: torch.Tensor,
        logits: torch.Tensor,
        codes: torch.Tensor,
        size: tuple[int, int],
        objects: torch.Tensor,
        seed: float,
    ) -> torch.Tensor:
        """Return the losses of objectness and of places, (2,), of what is told().

        They are means over the anchors that SEED draws, of an image of SIZE with OBJECTS (M, 4).
        """
        matches = targets(begun, size, objects, self.rules)
        positives, negatives = sample(matches, self.rules.drawn, self.rules.share, seed)
        drawn = torch.cat([positives, negatives])
        count = max(1, len(drawn))
        wanted = (matches[drawn] >= 0).float()
        objectness = functional.binary_cross_entropy_with_logits(
            logits[drawn], wanted, reduction="sum"
        )
        goals = boxes.encode(begun[positives], objects[matches[positives]], WEIGHTS)
        places = functional.smooth_l1_loss(codes[positives], goals, reduction="sum", beta=BETA)
        return torch.stack([objectness, places]) / count


def targets(
    begun: torch.Tensor, size: tuple[int, int], objects: torch.Tensor, rules: Proposing
) -> torch.Tensor:
    """Return the object of OBJECTS (M, 4) that each anchor of BEGUN (N, 4) is to find, int64 (N,).

    As sampling.match() says. Of Detectron's anchors those that reach out of the image, of SIZE
    height and width, are not used.
    """
    height, width = size
    inside = torch.ones(len(begun), dtype=torch.bool, device=begun.device)
    if rules.anchors == "detectron":
        x1, y1, x2, y2 = begun.unbind(1)
        inside = (x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height)
    matches = torch.full((len(begun),), -2, device=begun.device)
    matches[inside] = match(begun[inside], objects, rules.high, rules.low, best=True)
    return matches
