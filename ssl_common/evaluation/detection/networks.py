"""A detector: a frozen part of a trunk, and the network that is trained on its maps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ssl_common.evaluation.detection import heads
from ssl_common.evaluation.detection.bodies import Body
from ssl_common.evaluation.detection.heads import Chosen, Found, Head
from ssl_common.evaluation.detection.recipes import Design, Heading
from ssl_common.evaluation.detection.rpn import ProposalNetwork
from ssl_common.models import registry, states
from ssl_common.models.trunk import Trunk


class Scene(NamedTuple):
    """An image as the network that is trained takes it.

    FEATURES (C x h x w) are the map of the frozen part, or the image itself; SIZE the height and
    width of the image that is shown. PROPOSALS (n, 4) are those that it is given, or None. OBJECTS
    (M, 4) and LABELS, int64 (M,) from 1, are there in training, and SEEDS, of anchors and of
    proposals.
    """

    features: torch.Tensor
    size: tuple[int, int]
    proposals: torch.Tensor | None = None
    objects: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    seeds: tuple[float, float] = (0.0, 0.0)


LOSSES = ("classes", "boxes", "objectness", "places")  # the last two of "faster" alone


class Losses(NamedTuple):
    """The losses of N images, LOSSES x N, and how many of the DRAWN proposals are named RIGHT."""

    values: torch.Tensor
    right: torch.Tensor
    drawn: int


class Detector(nn.Module):
    """The part of a detector of DESIGN that is trained, for so many CLASSES, on BODY of a trunk.

    Scenes go through it one by one, and their proposals through its head all at once: what is said
    of an image does not depend on those beside it.
    """

    def __init__(self, body: Body, trained: nn.Sequential, classes: int, design: Design) -> None:
        super().__init__()
        self.heading, faster = Heading(), design.head == "faster"
        self.tail = trained
        self.rpn = ProposalNetwork(body.channels, body.stride, design.proposing) if faster else None
        self.head = Head(body.last, body.channels, body.stride, classes, design.pool, design.fc)

    def forward(self, scenes: Sequence[Scene]) -> Losses:
        """Return the Losses on SCENES."""
        parts, told, of_rpn = list[torch.Tensor](), list[Chosen](), list[torch.Tensor]()
        for scene in scenes:
            assert scene.objects is not None and scene.labels is not None
            feature_map = self.tail(scene.features[None])
            proposals = scene.proposals
            if self.rpn is not None:
                proposals, losses = self.rpn.learn(
                    feature_map, scene.size, scene.objects, scene.seeds[0]
                )
                of_rpn.append(losses)
            assert proposals is not None
            told.append(
                heads.choose(proposals, scene.objects, scene.labels, self.heading, scene.seeds[1])
            )
            parts.append(self.head.pool(feature_map, told[-1].boxes))
        counts = [len(each.labels) for each in told]
        logits, codes = self.head(torch.cat(parts))
        rows = zip(logits.split(counts), codes.split(counts), told, strict=True)
        values = torch.stack([heads.losses(*each) for each in rows], 1)
        if of_rpn:
            values = torch.cat([values, torch.stack(of_rpn, 1)])
        right = logits.argmax(1) == torch.cat([each.labels for each in told])
        return Losses(values, right.sum(), len(right))

    @torch.inference_mode()
    def detect(self, scene: Scene) -> Found:
        """Return what is Found in SCENE."""
        feature_map = self.tail(scene.features[None])
        proposals = self.rpn(feature_map, scene.size) if self.rpn else scene.proposals
        assert proposals is not None
        logits, codes = self.head(self.head.pool(feature_map, proposals))
        return heads.detections(logits, codes, proposals, scene.size, self.heading)


class Made(NamedTuple):
    """The two parts of a detector on TRUNK: FROZEN stages, and the NETWORK that is trained.

    A place of the map of its body, of so many CHANNELS, stands for STRIDE x STRIDE pixels.
    """

    trunk: Trunk
    frozen: nn.Sequential
    network: Detector
    channels: int
    stride: int

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the features of a Scene: of uint8 PIXELS, 3 x H x W, where the network is."""
        with torch.no_grad():
            images = self.trunk.prepare(pixels[None]).contiguous(memory_format=torch.channels_last)
            return self.frozen(images)[0]


def make(trunk: Trunk, classes: int, design: Design, model: str, seed: int) -> Made:
    """Return a detector of DESIGN for so many CLASSES on TRUNK, whose modules it takes.

    What is new is drawn from SEED. Raises DataError for a TRUNK, named MODEL, that does not fit.
    """
    body = Body(trunk, model)
    frozen, trained = body.split(design.freeze, model)
    with registry.seeded(seed):
        network = Detector(body, trained, classes, design)
    frozen = frozen.to(memory_format=torch.channels_last)
    return Made(trunk, frozen, network, body.channels, body.stride)


def restored(content: Mapping[str, Any], design: Design, path: str) -> Made:
    """Return the detector of DESIGN that CONTENT, of the file PATH, holds."""
    trunk = registry.build(content["settings"]["arch"], 0)
    made = make(trunk, len(content["classes"]), design, path, 0)
    states.fill(made.frozen, content["frozen"], path, "the frozen part of a detector")
    states.fill(made.network, content["network"], path, "a detector")
    return made
