"""The training loop, on one page."""

import contextlib
import math
import time

import torch

from ssl_common import records
from ssl_common.data.loading import Shuffled, batches, draws
from ssl_common.streams import DataError
from ssl_common.training import torchrun
from ssl_common.training.schedules import checkpoints_due, step_drops

LOG_EVERY = 50  # steps


def train(network, pretext, dataset, run, device, workers, every, emit, stopping, progress):
    """Train NETWORK on DATASET to the end of RUN's settings; return whether it got there.

    PRETEXT.score(network, pixels, draws) gives (sum of the losses, their weight, number right,
    number) of a micro-batch; the loss of a step is the sum over all its micro-batches, on whichever
    rank, by the sum of their weights. On the first rank EMIT gets
    each line of the log, from the first one even where the run is resumed, and a checkpoint is
    written EVERY (count, "step", "epoch" or "min"). When STOPPING() after a step, on any rank, all
    end there with a checkpoint. Raises DataError when the loss is no longer finite; the checkpoints
    before it stay.
    """
    settings, first = run.settings, torchrun.RANK == 0
    bf16 = settings["precision"] == "bf16"
    epoch_steps = len(dataset.manifest) // settings["batch"]
    steps = settings["epochs"] * epoch_steps
    parts = settings["batch"] // settings["micro_batch"]
    network = network.to(device, memory_format=torch.channels_last).train()
    sgd = optimizer(network)
    # Since the last line of the log: the losses, their weights, and how many predictions are right.
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    counts = torch.zeros(2, dtype=torch.float64)  # of predictions, and of lines passed over so far
    state = run.resume() if first else None
    if state:
        network.load_state_dict(state.pop("network"))
        sums, counts = state.pop("sums").to(device), state.pop("counts")
    ranks = torchrun.parallel(network, device)  # they begin with the weights of the first
    state = torchrun.of_the_first(lambda state=state: state)
    step = state["step"] if state else 0
    if state:
        sgd.load_state_dict(state.pop("optimizer"))

    def log(line):
        run.append(line)
        emit(line)

    def save(total):
        state = {"network": network.state_dict(), "optimizer": sgd.state_dict()}
        run.save(step, state | {"sums": total[:3], "counts": total[3:]})

    if first:
        for line in run.log_lines():
            emit(line)
        if step == 0:
            line = settings | {"steps": steps, "ranks": torchrun.RANKS}
            log(records.line(line | records.provenance("pretrain")))

    order = Shuffled(
        *(len(dataset.manifest), settings["batch"], steps, step, settings["seed"]),
        *(parts, torchrun.RANK, torchrun.RANKS),
    )
    workers = -(-workers // torchrun.LOCAL_RANKS)
    due = checkpoints_due(every, epoch_steps)
    clock, timed, loss = time.monotonic(), step, math.nan
    # Closed whatever happens: its processes are deaf to the signals that Python would end them by.
    with contextlib.closing(batches(dataset, order, workers, device.type == "cuda")) as loaded:
        while step < steps:
            rate = step_drops(step, steps, settings["lr"])
            for group in sgd.param_groups:
                group["lr"] = rate
            sgd.zero_grad()
            accumulated = parts // torchrun.RANKS
            weights = torch.zeros((), dtype=torch.float64, device=device)
            for part in range(accumulated):
                passed, epochs, indices, pixels = next(loaded)
                pixels = pixels.to(device, non_blocking=True)
                drawn = draws(settings["seed"], epochs.numpy(), indices.numpy(), pretext.draws)
                last = part == accumulated - 1  # only then are gradients sent round
                with contextlib.nullcontext() if last or torchrun.RANKS == 1 else ranks.no_sync():
                    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                        summed, weight, right, count = pretext.score(ranks, pixels, drawn)
                    summed.backward()
                weights += weight
                sums += torch.stack([v.detach().double() for v in (summed, weight, right)])
                counts += torch.tensor([count, passed.sum()])
            # Gradients are summed here and averaged over the ranks: make a mean of them over all.
            scale = torchrun.RANKS / torchrun.total(weights)
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, scale.float())
            sgd.step()
            step += 1

            stop, save_due = torchrun.any_of(bool(stopping()), first and step < steps and due(step))
            stop, log_due = stop and step < steps, step % LOG_EVERY == 0 or step == steps
            if log_due or stop or save_due:
                total = torchrun.total(torch.cat([sums.cpu(), counts]))
                loss, accuracy = _means(total, step)
            if log_due:
                sums.zero_()
                counts[0] = total[:4] = 0
            if first and log_due:
                speed = (step - timed) * settings["batch"] / (time.monotonic() - clock)
                clock, timed = time.monotonic(), step
                line = {"step": step, "epoch": step * settings["batch"] / len(dataset.manifest)}
                line |= {"lr": rate, "loss": loss, "accuracy": accuracy}
                line |= {"unreadable": int(total[4]), "time_images_per_second": round(speed, 1)}
                try:
                    log(records.line(line))
                except OSError:  # the reader of the log left, or its disk is full: lose no step
                    save(total)
                    raise
            if first:
                progress(step, steps, f"loss {loss:.3f}" if math.isfinite(loss) else "")
            if first and (stop or save_due):
                save(total)
            if first and stop:
                run.stop(stopping() or "a signal to another rank")
            if stop:
                return False
    return True


def _means(tally, step):
    """Return mean loss and accuracy of a TALLY (sum of losses, of weights, number right, ...)."""
    loss, weight, right, count = tally[:4].tolist()
    if not math.isfinite(loss):
        message = f"the loss is {loss} before step {step}: lower --lr, or raise --batch"
        raise DataError(f"{message}; the checkpoints before it are kept")
    return loss / max(weight, 1e-12), right / max(count, 1)


def optimizer(network, momentum=0.9, weight_decay=1e-4):
    """Return SGD with Nesterov momentum; weight decay spares batch norm (protocol 1.1)."""
    norms = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
    spared = [p for m in network.modules() if isinstance(m, norms) for p in m.parameters()]
    known = set(map(id, spared))
    decayed = [p for p in network.parameters() if id(p) not in known]
    groups = [{"params": decayed, "weight_decay": weight_decay}]
    groups.append({"params": spared, "weight_decay": 0.0})
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=True)
