"""Learning rates as pure functions of the step, and when a checkpoint is due."""

import time

DROPS = (1 / 3, 2 / 3, 8 / 9)  # of the training: the paper's 30, 60, 80 of 90 epochs


def step_drops(step, steps, rate):
    """Return the learning rate at STEP of STEPS: RATE, a tenth of it after each of DROPS."""
    return rate / 10 ** sum(step >= drop * steps for drop in DROPS)


def checkpoints_due(every, epoch_steps):
    """Return a function of the step that tells when a checkpoint is due: EVERY (count, unit)."""
    count, unit = every
    last = time.monotonic()

    def due(step):
        nonlocal last
        if unit != "min":
            return step % (count * (epoch_steps if unit == "epoch" else 1)) == 0
        if time.monotonic() - last < 60 * count:
            return False
        last = time.monotonic()
        return True

    return due
