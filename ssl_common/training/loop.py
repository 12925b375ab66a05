"""The training loop, on one page."""

import math
import time

import torch

from ssl_common import records
from ssl_common.data.loading import Shuffled, batches
from ssl_common.streams import DataError
from ssl_common.training.schedules import checkpoints_due, step_drops

LOG_EVERY = 50  # steps


def train(network, score, dataset, run, device, workers, every, emit, stopping, progress):
    """Train NETWORK on DATASET to the end of RUN's settings; return whether it got there.

    SCORE(network, batch, device) gives (loss, number right, number) of a batch. EMIT gets each
    line of the log, from the first one even where the run is resumed. A checkpoint is written
    EVERY (count, "step", "epoch" or "min"), and when STOPPING() after a step, which ends it here.
    Raises DataError when the loss is no longer finite; the checkpoints before it stay.
    """
    settings = run.settings
    epoch_steps = len(dataset.manifest) // settings["batch"]
    steps = settings["epochs"] * epoch_steps
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device, memory_format=torch.channels_last).train()
    sgd = optimizer(network)
    step, tally, passed_over = 0, torch.zeros(3, dtype=torch.float64, device=device), 0

    def log(line):
        run.append(line)
        emit(line)

    def save():
        _means(tally, step)
        state = {"network": network.state_dict(), "optimizer": sgd.state_dict()}
        run.save(step, state | {"tally": tally, "passed_over": passed_over})

    if state := run.resume():
        network.load_state_dict(state["network"])
        sgd.load_state_dict(state["optimizer"])
        step, passed_over, tally = state["step"], state["passed_over"], state["tally"].to(device)
    for line in run.log_lines():
        emit(line)
    if step == 0:
        log(records.line(settings | {"steps": steps} | records.provenance("pretrain")))

    order = Shuffled(len(dataset.manifest), settings["batch"], steps, step, settings["seed"])
    due = checkpoints_due(every, epoch_steps)
    clock, timed = time.monotonic(), step
    for passed, *batch in batches(dataset, order, workers):
        rate = step_drops(step, steps, settings["lr"])
        for group in sgd.param_groups:
            group["lr"] = rate
        with torch.autocast(device, torch.bfloat16, enabled=settings["precision"] == "bf16"):
            loss, right, count = score(network, batch, device)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        with torch.no_grad():
            tally += torch.stack([loss.double() * count, right.double(), tally.new_tensor(count)])
        passed_over += int(passed.sum())
        step += 1

        if step % LOG_EVERY == 0 or step == steps:
            loss, accuracy = _means(tally, step)
            speed = (step - timed) * settings["batch"] / (time.monotonic() - clock)
            clock, timed = time.monotonic(), step
            tally.zero_()
            line = {"step": step, "epoch": step * settings["batch"] / len(dataset.manifest)}
            line |= {"lr": rate, "loss": loss, "accuracy": accuracy, "unreadable": passed_over}
            try:
                log(records.line(line | {"time_images_per_second": round(speed, 1)}))
            except OSError:  # the reader of the log left, or its disk is full: lose no step
                save()
                raise
        progress(step, steps, f"loss {loss:.3f}" if isinstance(loss, float) else "")
        if stopping():
            save()
            return step == steps
        if step < steps and due(step):
            save()
    return True


def _means(tally, step):
    """Return mean loss and accuracy of a TALLY (sum of losses, number right, number)."""
    loss, right, count = tally.tolist()
    if not math.isfinite(loss):
        message = f"the loss is {loss} before step {step}: lower --lr, or raise --batch"
        raise DataError(f"{message}; the checkpoints before it are kept")
    return loss / max(count, 1), right / max(count, 1)


def optimizer(network, momentum=0.9, weight_decay=1e-4):
    """Return SGD with Nesterov momentum; weight decay spares batch norm (protocol 1.1)."""
    norms = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
    spared = [p for m in network.modules() if isinstance(m, norms) for p in m.parameters()]
    known = set(map(id, spared))
    decayed = [p for p in network.parameters() if id(p) not in known]
    groups = [{"params": decayed, "weight_decay": weight_decay}]
    groups.append({"params": spared, "weight_decay": 0.0})
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=True)
