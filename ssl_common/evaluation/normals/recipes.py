"""How the paper trains the predictor of normals."""

from dataclasses import dataclass, field

from ssl_common.recipe import Recipe


@dataclass(frozen=True)
class NormalsRecipe(Recipe):
    """A recipe that also says how an image is shown, and among how many CODES is chosen.

    Its short side is one of SIDES, drawn for each image, and TEST_SIDE in testing, in pixels; the
    long side has LONGEST at most. With FLIP it is mirrored, half of the time.
    """

    codes: int = 40
    sides: list[int] = field(default_factory=lambda: [300, 375, 450, 525, 600])
    test_side: int = 450
    longest: int = 1000
    flip: bool = False


PAPER = NormalsRecipe(
    optimizer="sgd",
    momentum=0.9,
    nesterov=False,
    weight_decay=1e-4,
    decay_biases=False,
    batch=16,
    lr=0.02,
    steps=20_000,
    drops=[],
    power=0.9,
)
