"""Objectives: how images are shown to a network, and what its answers cost."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ssl_common.recipe import Recipe


@dataclass(frozen=True)
class Score:
    """The loss and the measures of a network on a micro-batch.

    LOSS is the sum of its losses and WEIGHT what they weigh together: the loss of a step is the one
    by the other, over all micro-batches on all ranks. MEASURES are {name: (sum, number)} of what
    else the log tells, as means.
    """

    loss: torch.Tensor
    weight: torch.Tensor
    measures: dict[str, tuple[torch.Tensor, int]]


class Objective:
    """What training.loop trains a network for; the base of pretexts and of linear classifiers."""

    measures: tuple[str, ...] = ("accuracy",)  # the names of those of its Scores
    draws: int  # random numbers in [0, 1) that an image is given, each time that it is shown
    chance: float | None = None  # the loss of a network that guesses; None where none is known
    weightless = "no image so far counts"  # what to say where all weigh nothing

    def crop(self, image: torch.Tensor, draws: Any) -> Any:
        """Return the part of IMAGE, uint8 H x W x 3, for the network, by its DRAWS, in a worker."""
        raise NotImplementedError

    def score(self, network: nn.Module, batch: Any, draws: Any, lines: torch.Tensor) -> Score:
        """Return the Score of NETWORK on a BATCH of what crop() gave, on its device.

        DRAWS are float64 (N, draws), LINES the images' lines in the manifest, from 0.
        """
        raise NotImplementedError

    def groups(self, network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
        """Return the parameters of NETWORK as an optimizer takes them.

        Weight decay spares batch norm, and biases where RECIPE does not decay them; "rate" is what
        the rate is multiplied by, once where it says nothing.
        """
        norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
        spared = {id(p) for m in network.modules() if isinstance(m, norms) for p in m.parameters()}
        if not recipe.decay_biases:
            spared |= {id(p) for name, p in network.named_parameters() if name.endswith("bias")}
        return [
            {"params": [p for p in network.parameters() if id(p) not in spared]},
            {"params": [p for p in network.parameters() if id(p) in spared], "weight_decay": 0.0},
        ]
