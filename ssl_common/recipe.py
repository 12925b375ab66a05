"""The fields of a recipe of the paper; the recipes themselves are beside their tasks."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How the paper trains.

    LR is the rate at BATCH images a step; from each part of the steps in DROPS on it is that part
    of LR. With a POWER it falls to 0, as that power of the part of the steps that is left. In the
    part of the steps that WARM_UP says first, the rate rises from the part of it that it says
    second. It ends after STEPS, or EPOCHS where there are none. DECAY_BIASES tells whether weight
    decay is for biases too, which learn at BIAS_RATE times the rate.
    """

    optimizer: str  # "sgd" or "adam"
    momentum: Any  # a list of two for adam
    weight_decay: float
    decay_biases: bool
    batch: int
    lr: float
    drops: list[list[float]]
    power: float | None = None
    epochs: float | None = None
    steps: int | None = None
    nesterov: bool | None = None  # of sgd
    bias_rate: float | None = None  # once, where there is none
    warm_up: list[float] | None = None
