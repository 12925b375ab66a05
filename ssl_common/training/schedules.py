"""Learning rates as pure functions of the step, and when a checkpoint is due."""

import time


def rate(step, steps, settings):
    """Return the learning rate at STEP of STEPS, by "lr", "drops" and "warm_up" of SETTINGS."""
    warm, begin = settings["warm_up"]
    if step < warm * steps:
        return settings["lr"] * (begin + (1 - begin) * step / (warm * steps))
    factor = 1
    for drop, part in settings["drops"]:
        if step >= drop * steps:
            factor = part
    return settings["lr"] * factor


def checkpoints_due(every, epoch_steps):
    """Return a function of the step that tells when a checkpoint is due.

    EVERY holds one or more (count, unit), the unit "step", "epoch" or "min".
    """
    last = time.monotonic()

    def due(step):
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
