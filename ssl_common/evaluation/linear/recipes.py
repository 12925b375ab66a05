"""How the paper trains linear classifiers: the authors' Places205 configurations."""

from dataclasses import dataclass, replace

from ssl_common.recipe import Recipe


@dataclass(frozen=True)
class LinearRecipe(Recipe):
    """A recipe that also says how an image is shown.

    It is warped to a square of 256 before the crop (WARP, in testing too), and cropped at "random",
    "sized" (of any size and shape) or at the "center"; JITTER is of brightness, contrast and
    saturation, LIGHTING the standard deviation along the principal components of colour.
    """

    bn_momentum: float = 0.1  # the part of each batch, in torch's sense
    bn_affine: bool = False
    warp: bool = False
    crop: str = "random"
    flip: bool = True
    jitter: float = 0.0
    lighting: float = 0.0


USUAL = LinearRecipe(
    optimizer="sgd",
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-4,
    decay_biases=True,
    batch=256,
    lr=0.01,
    steps=140_000,
    drops=[[40 / 140, 0.1], [80 / 140, 0.01], [120 / 140, 0.001]],
)
# In the two configurations of Colorization the code spares all weights but batch norm's from decay.
UNDECAYED = replace(USUAL, weight_decay=0.0, decay_biases=False)
SLOW = replace(USUAL, nesterov=False, weight_decay=5e-4, bn_momentum=0.001, crop="center")
ALEXNET = replace(SLOW, lighting=0.1)
RECIPES = {
    "resnet50": replace(USUAL, crop="sized", jitter=0.4, lighting=0.1),
    "resnet50-lab": replace(UNDECAYED, bn_affine=True),
    "alexnet": ALEXNET,
    "alexnet-stride4": ALEXNET,  # as it comes of fine-tuning
    "alexnet-lab": UNDECAYED,
    "alexnet-half": ALEXNET,
    "alexnet-half-lab": UNDECAYED,
    "caffenet": replace(SLOW, warp=True),
}
