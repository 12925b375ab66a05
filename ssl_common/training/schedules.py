"""Learning rates and images as pure functions of the step, and when a checkpoint is due."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from ssl_common.data.lines import Lines
from ssl_common.data.order import ShuffleSampler, shuffle
from ssl_common.data.windows import Windows, begins
from ssl_common.training.plan import Interval, Plan


def rate(step: int, plan: Plan) -> float:
    """Return the learning rate of PLAN at STEP, from 0."""
    warm, begin = plan.warm_up
    if step < warm * plan.steps:
        return plan.lr * (begin + (1 - begin) * step / (warm * plan.steps))
    factor = (1 - step / plan.steps) ** power if (power := plan.recipe.power) else 1.0
    for drop, part in plan.recipe.drops:
        if step >= drop * plan.steps:
            factor = part
    return plan.lr * factor


def sampler(
    plan: Plan, manifest: Lines[Any], steps: int, start: int, rank: int = 0, ranks: int = 1
) -> ShuffleSampler:
    """Return the micro-batches of PLAN that RANK of RANKS is given, of steps START to STEPS - 1."""
    order = Windows(begins(manifest), plan.window).shuffle if plan.window else shuffle
    return ShuffleSampler(
        plan.images, plan.batch, steps, start, plan.seed, plan.pieces, rank, ranks, order
    )


def checkpoints_due(every: Sequence[Interval], epoch_steps: int) -> Callable[[int], bool]:
    """Return a function that tells whether a checkpoint is due after a step.

    EVERY holds one or more (count, unit), the unit "step", "epoch" or "min".
    """
    last = time.monotonic()

    def due(step: int) -> bool:
        nonlocal last
        wanted = False
        for count, unit in every:
            if unit == "min":
                wanted |= time.monotonic() - last >= 60 * count
            else:
                wanted |= step % (count * (epoch_steps if unit == "epoch" else 1)) == 0
        if wanted:
            last = time.monotonic()
        return wanted

    return due
