"""How the paper trains the predictor of normals."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ssl_common.recipe import Recipe

SIDE, FLIP, DRAWS = 0, 1, 2  # where in its draws an image finds its own, of so many


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

    def view(self, drawn: Sequence[float]) -> tuple[int, bool]:
        """Return the side and whether an image is mirrored, by the numbers DRAWN for it."""
        return self.sides[int(drawn[SIDE] * len(self.sides))], self.flip and bool(drawn[FLIP] < 0.5)


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
