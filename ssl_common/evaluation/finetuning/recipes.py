"""How the paper fine-tunes whole networks on VOC2007: the authors' configurations, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ssl_common.evaluation.linear.recipes import LinearRecipe

RULES = ("clean", "paper")


@dataclass(frozen=True)
class FinetuneRecipe(LinearRecipe):
    """A recipe that also says what is laid over the trunk, how it learns, and how it is tested.

    CROP_AREA are the least and the largest share of an image that a "sized" crop has. HEAD is one
    of heads.HEADS, its layers FC wide where it has some; weights are drawn with the deviation
    INIT_STD, or as Xavier where that is None. STRIDE is that of conv1, where the recipe changes it.
    UPDATE_RULE is one of RULES, and BN_DECAY the weight decay of batch norm by the paper's. The
    scores of CROPS random crops are summed in testing; 1 is the middle.
    """

    crop_area: list[float] = field(default_factory=lambda: [0.08, 1.0])
    head: str = "bn"
    fc: int | None = None
    init_std: float | None = 0.01
    stride: int | None = None
    update_rule: str = "clean"
    bn_decay: float = 0.0
    crops: int = 1


RESNET = FinetuneRecipe(
    optimizer="sgd",
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-6,
    decay_biases=False,
    bias_rate=2.0,
    batch=128,
    lr=0.01,
    steps=3_000,
    drops=[[1_600 / 3_000, 0.1]],
    crop="sized",
    lighting=0.1,
)
ALEXNET = replace(
    RESNET,
    batch=16,
    lr=0.001,
    steps=80_000,
    drops=[[part / 8, 0.5**part] for part in range(1, 8)],
    lighting=0.0,
    crop_area=[0.1, 0.5],
    head="fc-bn",
    fc=4096,
    stride=4,
    bn_decay=1e-4,
    crops=10,
)
RECIPES = {
    "resnet50": RESNET,
    "resnet50-lab": replace(RESNET, lr=0.15, lighting=0.0, bn_affine=True),
    "resnet50-places": replace(RESNET, lr=0.15),
    "resnet50-random": replace(RESNET, lr=0.1, steps=12_000, drops=[[1 / 3, 0.1], [2 / 3, 0.01]]),
    "alexnet": ALEXNET,
    "alexnet-lab": replace(
        ALEXNET,
        lr=0.005,
        weight_decay=5e-4,
        bn_decay=0.0,
        bn_affine=True,
        crop="random",
        crop_area=[0.08, 1.0],
        init_std=None,
        stride=None,
    ),
    "caffenet": replace(
        ALEXNET, decay_biases=True, bias_rate=None, head="fc", stride=None, bn_decay=0.0
    ),
}


def usual(arch: str, settings: Mapping[str, Any]) -> str:
    """Return the name of the recipe for a network ARCH that was trained as its SETTINGS say."""
    untrained = settings.get("pretext") == "random"
    if arch in RECIPES and not (arch == "resnet50" and untrained):
        return arch
    if arch == "alexnet-stride4":
        return "alexnet"
    return "resnet50-random" if untrained else "resnet50"
