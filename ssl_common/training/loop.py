"""The training loop, on one page."""

import contextlib
import functools
from typing import Any

import torch
from torch import nn

from ssl_common.data.batches import batches, mapped
from ssl_common.data.order import draws
from ssl_common.objective import Objective
from ssl_common.ranks import collectives
from ssl_common.ranks.placement import LOCAL_RANKS, RANK, RANKS
from ssl_common.recipe import Recipe
from ssl_common.training.journal import Journal
from ssl_common.training.plan import Plan
from ssl_common.training.schedules import rate, sampler


def train(
    network: nn.Module,
    objective: Objective,
    dataset: Any,
    plan: Plan,
    journal: Journal,
    device: torch.device,
    workers: int,
) -> bool:
    """Train NETWORK on DATASET to the end of PLAN; return whether it got there.

    A batch of DATASET is (passed, epochs, indices, what OBJECTIVE crops, collated): PASSED tells
    how many lines after its own an image stands that could be read. The loss of a step is the sum
    over all its micro-batches, on whichever rank, by the sum of their weights. JOURNAL keeps log
    and checkpoints and tells when to stop; its errors are raised here.
    """
    images, parts = plan.images, plan.pieces
    to_device = functools.partial(torch.Tensor.to, device=device, non_blocking=True)
    if plan.synced_ranks > 1:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    network = network.to(device).to(memory_format=torch.channels_last).train()
    stepper = optimizer(network, objective, plan.recipe)
    torch.manual_seed(plan.seed + RANK)  # for a network that draws: dropout
    step = journal.resume(network, stepper)
    ranks = collectives.parallel(network, device)  # they begin with the weights of the first
    order = sampler(plan, dataset.manifest, plan.steps, step, RANK, RANKS)
    workers = -(-workers // LOCAL_RANKS)
    # Closed whatever happens: its processes are deaf to the signals that Python would end them by.
    with contextlib.closing(batches(dataset, order, workers, device.type == "cuda")) as loaded:
        while step < plan.steps:
            lr = rate(step, plan)
            for group in stepper.param_groups:
                group["lr"] = lr * group.get("rate", 1)
            stepper.zero_grad()
            weights = torch.zeros((), dtype=torch.float64, device=device)
            for part in range(RANK, parts, RANKS):
                with journal.waiting():
                    passed, epochs, indices, batch = next(loaded)
                batch = mapped(batch, torch.Tensor, to_device)
                lines = (indices + passed) % images  # those that could be read
                numbers = draws(plan.seed, epochs.numpy(), indices.numpy(), objective.draws)
                last = part + RANKS >= parts  # only then are gradients sent round
                with contextlib.nullcontext() if last or RANKS == 1 else unsynced(ranks):
                    bf16 = plan.precision == "bf16"
                    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                        score = objective.score(ranks, batch, numbers, lines)
                    score.loss.backward()
                weights += score.weight
                journal.add(step * parts + part, score, indices[passed > 0])
            # Gradients are summed here and averaged over the ranks: make a mean of them over all.
            scale = RANKS / collectives.total(weights).clamp(min=1e-12)
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, scale.float())
            stepper.step()
            step += 1
            if journal.after(step, lr):
                return False
    return True


def unsynced(ranks: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Return a context without exchange of gradients by RANKS, of collectives.parallel()."""
    assert isinstance(ranks, nn.parallel.DistributedDataParallel)
    return ranks.no_sync()


def optimizer(network: nn.Module, objective: Objective, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimizer of RECIPE for NETWORK, by the groups of OBJECTIVE; at the rate 0."""
    groups = objective.groups(network, recipe)
    decay, momentum = recipe.weight_decay, recipe.momentum
    if recipe.optimizer == "adam":  # Caffe's: the decay is part of the gradient
        betas = (momentum[0], momentum[1])
        return torch.optim.Adam(groups, 0.0, betas, weight_decay=decay, fused=True)
    nesterov = bool(recipe.nesterov)
    return torch.optim.SGD(groups, 0.0, momentum, weight_decay=decay, nesterov=nesterov)
