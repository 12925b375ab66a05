"""The options of train-navigator, by method."""

from dataclasses import dataclass

from ssl_common.evaluation.navigation.worlds import WorldOptions
from ssl_common.options import option, shared
from ssl_common.training.plan import TrainingOptions


@dataclass(frozen=True)
class CloningOptions(TrainingOptions):
    """Those of cloning: of every training."""


@dataclass(frozen=True)
class PpoOptions(WorldOptions):
    """Those of PPO: a world, and how long."""

    output: str = option(
        "Network to write when all steps are done.",
        names=("-o", "--output"),
        metavar="MODEL.pt",
        required=True,
    )
    frames: int = option(
        "Frames that a run sees, over all its worlds.",
        400_000, least=1, most=10**9, metavar="N",
    )  # fmt: skip
    worlds: int = option("Worlds that play side by side.", 4, least=1, most=1000, metavar="N")
    lr: float | None = option(
        "Learning rate at that batch.",
        most=1e6,
        usual="the recipe's, in proportion to the batch",
        metavar="RATE",
    )
    device: str | None = shared("device")
    seed: int = shared("seed", 0)


METHODS = {"cloning": CloningOptions, "ppo": PpoOptions}
