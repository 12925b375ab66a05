"""The training loop, on one page."""

import contextlib

import torch

from ssl_common.data.batches import batches
from ssl_common.data.order import ShuffleSampler, draws
from ssl_common.training import torchrun
from ssl_common.training.journal import Journal
from ssl_common.training.schedules import rate


def train(network, task, dataset, run, device, workers, **keeping):
    """Train NETWORK on DATASET to the end of RUN's settings; return whether it got there.

    TASK.score(network, pixels, draws, lines) gives (sum of the losses, their weight, number right,
    number) of a micro-batch, the images of LINES of the manifest, from 0; the loss of a step is the
    sum over all its micro-batches, on whichever rank, by the sum of their weights. KEEPING is what
    the Journal takes, which keeps log and checkpoints and tells when to stop; its errors are raised
    here.
    """
    settings, manifest = run.settings, dataset.manifest
    steps, batch, seed = settings["steps"], settings["batch"], settings["seed"]
    bf16 = settings["precision"] == "bf16"
    parts = batch // settings["micro_batch"]
    if settings["synced_ranks"] > 1:
        network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    network = network.to(device, memory_format=torch.channels_last).train()
    chosen = optimizer(network, settings)
    torch.manual_seed(seed + torchrun.RANK)  # for a network that draws: dropout
    journal = Journal(run, network, chosen, manifest, task.chance, device, **keeping)
    step = journal.resume()
    ranks = torchrun.parallel(network, device)  # they begin with the weights of the first
    here = (parts, torchrun.RANK, torchrun.RANKS)
    order = ShuffleSampler(len(manifest), batch, steps, step, seed, *here)
    workers = -(-workers // torchrun.LOCAL_RANKS)
    # Closed whatever happens: its processes are deaf to the signals that Python would end them by.
    with contextlib.closing(batches(dataset, order, workers, device.type == "cuda")) as loaded:
        while step < steps:
            lr = rate(step, steps, settings)
            for group in chosen.param_groups:
                group["lr"] = lr
            chosen.zero_grad()
            weights = torch.zeros((), dtype=torch.float64, device=device)
            for part in range(torchrun.RANK, parts, torchrun.RANKS):
                with journal.waiting():
                    passed, epochs, indices, pixels = next(loaded)
                pixels = pixels.to(device, non_blocking=True)
                lines = (indices + passed) % len(manifest)  # those that could be read
                drawn = draws(seed, epochs.numpy(), indices.numpy(), task.draws)
                last = part + torchrun.RANKS >= parts  # only then are gradients sent round
                with contextlib.nullcontext() if last or torchrun.RANKS == 1 else ranks.no_sync():
                    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                        summed, weight, right, count = task.score(ranks, pixels, drawn, lines)
                    summed.backward()
                weights += weight
                journal.add(step * parts + part, summed, weight, right, count, indices[passed > 0])
            # Gradients are summed here and averaged over the ranks: make a mean of them over all.
            scale = torchrun.RANKS / torchrun.total(weights).clamp(min=1e-12)
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, scale.float())
            chosen.step()
            step += 1
            if journal.after(step, lr):
                return False
    return True


def optimizer(network, settings):
    """Return the optimizer of SETTINGS; weight decay spares batch norm, and biases unless told."""
    norms = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.SyncBatchNorm)
    spared = {id(p) for m in network.modules() if isinstance(m, norms) for p in m.parameters()}
    if not settings["decay_biases"]:
        spared |= {id(p) for name, p in network.named_parameters() if name.endswith("bias")}
    groups = [
        {"params": [p for p in network.parameters() if id(p) not in spared]},
        {"params": [p for p in network.parameters() if id(p) in spared], "weight_decay": 0.0},
    ]
    common = {"lr": 0.0, "weight_decay": settings["weight_decay"]}
    if settings["optimizer"] == "adam":  # Caffe's: the decay is part of the gradient
        return torch.optim.Adam(groups, betas=tuple(settings["momentum"]), fused=True, **common)
    momentum = {"momentum": settings["momentum"], "nesterov": settings["nesterov"]}
    return torch.optim.SGD(groups, **momentum, **common)
