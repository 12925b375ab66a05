"""Checks of a run, one each: those that end it, and those that lead to a message."""

import math
from typing import Any

import torch
from torch import nn

from ssl_common import streams
from ssl_common.data.lines import Lines
from ssl_common.ranks import collectives
from ssl_common.streams import DataError
from ssl_common.training.plan import Plan
from ssl_common.training.schedules import sampler
from ssl_common.training.tally import NAMED

AT_CHANCE = 0.99  # of the loss of a network that guesses: not below it, nothing is learned
ADVICE = "lower --lr, or raise --batch; the checkpoints before are kept"
NEVER = torch.iinfo(torch.int64).max


class Finite:
    """Remembers the first micro-batch whose loss is not finite, without waiting for a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.never = torch.tensor(NEVER, device=device)
        self.first = self.never

    def see(self, number: int, loss: torch.Tensor) -> None:
        """Look at the LOSS of micro-batch NUMBER of the run, counted over all ranks."""
        here = torch.where(torch.isfinite(loss.detach()), self.never, number)
        self.first = torch.minimum(self.first, here)

    def check(self, manifest: Lines[Any], plan: Plan) -> None:
        """Raise DataError, with the step and the images, if a loss on any rank was not finite."""
        number = int(collectives.least(self.first))
        if number == NEVER:
            return
        step, part = divmod(number, plan.pieces)
        order = list(sampler(plan, manifest, step + 1, step))
        lines = sorted(index + 1 for _, index in order[part])
        named = ", ".join(map(str, lines[:NAMED])) + (", ..." if lines[NAMED:] else "")
        message = f"the loss is not finite at step {step + 1}, on the images of lines {named}"
        raise DataError(f"{streams.name(manifest.path)}: {message}: {ADVICE}")


def check_weights(network: nn.Module, step: int) -> None:
    """Raise DataError if a weight is not finite, so that no checkpoint holds it."""
    norms = torch._foreach_norm([p.detach() for p in network.parameters()])
    if not torch.stack(list(norms)).isfinite().all():
        raise DataError(f"the weights are not finite after step {step}: {ADVICE}")


def chance_step(epoch_steps: int) -> int:
    """Return the step at which a run must have learned something: 2,000, or 2 epochs if later."""
    return min(max(2000, 2 * epoch_steps), 20_000)


def at_chance(loss: float | None, chance: float | None) -> str | None:
    """Return a message if LOSS is not below CHANCE, the loss of a guess; else None."""
    if loss is None or chance is None or loss < AT_CHANCE * chance:
        return None
    message = f"a loss of {loss:.4g} is chance ({chance:.4g}): nothing is learned"
    return f"{message}; try another --lr (a third, three times) or a larger --batch"


def remaining(steps: int, seconds: float, batch: int) -> str:
    """Return a line that says how long STEPS take at SECONDS a step, with BATCH images each."""
    hours = steps * seconds / 3600
    text = f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}" if math.isfinite(hours) else "?"
    return f"{steps:,} steps left, about {text} hours at {batch / seconds:,.0f} images/s"
