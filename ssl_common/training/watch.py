"""What a run keeps count of: means for the log, images that cannot be read, a loss gone wrong."""

import math

import torch

from ssl_common import streams
from ssl_common.data.order import ShuffleSampler
from ssl_common.streams import DataError
from ssl_common.training import torchrun

NAMED = 20  # lines of the manifest that one line of the log or an error names
AT_CHANCE = 0.99  # of the loss of a network that guesses: not below it, nothing is learned
GRAY = "all images so far are gray: they have no colours to learn"
ADVICE = "lower --lr, or raise --batch; the checkpoints before are kept"
NEVER = torch.iinfo(torch.int64).max


class Tally:
    """The sums since the last line of the log, on DEVICE, and the images given up since the start.

    add() waits for no GPU; every rank has to ask for over_all().
    """

    def __init__(self, device):
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)  # losses, weights, right
        self.predictions = 0
        self.lines = []  # of the manifest, from 0: the first NAMED that could not be read
        self.lost = 0  # images that gave way since take_lost(), on this rank
        self.unreadable = 0  # ... since the start, on all ranks: what take_lost() gave, added up

    def add(self, summed, weight, right, count, lost):
        """Add a micro-batch: what score() gave, and the LOST lines."""
        for place, value in enumerate((summed, weight, right)):
            self.sums[place] += value.detach()
        self.predictions += count
        if lost:
            self.lost += len(lost)
            self.lines = first_lines([self.lines, lost])

    def take_lost(self):
        """Return how many images gave way on this rank since this was last asked."""
        lost, self.lost = self.lost, 0
        return lost

    def over_all(self):
        """Return the tally over all ranks, plain values, as load() takes it."""
        predictions = torch.tensor([self.predictions], dtype=torch.float64)
        sums = torchrun.total(torch.cat([self.sums.cpu(), predictions]))
        lines = first_lines(torchrun.gathered(self.lines))
        return {"sums": sums, "unreadable": self.unreadable, "lines": lines}

    def load(self, state):
        """Go on from what over_all() gave: the first rank alone goes on with its sums."""
        self.unreadable = state["unreadable"]
        if torchrun.RANK == 0:
            self.sums.copy_(state["sums"][:3])
            self.predictions, self.lines = int(state["sums"][3]), state["lines"]

    def clear(self):
        """Begin a new line of the log."""
        self.sums.zero_()
        self.predictions, self.lines = 0, []


def first_lines(lists):
    """Return the first NAMED lines of all LISTS: the same however they are spread over ranks."""
    return sorted({line for lines in lists for line in lines})[:NAMED]


def means(tally):
    """Return the mean loss and accuracy of what over_all() gave; None where nothing weighed."""
    loss, weight, right, count = tally["sums"].tolist()
    return (loss / weight, right / count) if weight else (None, None)


def cleared(tally):
    """Return what over_all() gave, with the line of the log begun anew."""
    return tally | {"sums": torch.zeros_like(tally["sums"]), "lines": []}


class Finite:
    """Keeps the first micro-batch whose loss is not finite, without waiting for a GPU."""

    def __init__(self, device):
        self.never = torch.tensor(NEVER, device=device)
        self.first = self.never

    def see(self, number, summed):
        """Look at the loss SUMMED over micro-batch NUMBER of the run, counted over all ranks."""
        here = torch.where(torch.isfinite(summed.detach()), self.never, number)
        self.first = torch.minimum(self.first, here)

    def check(self, manifest, settings):
        """Raise DataError with the step and the images where a loss, on any rank, was not."""
        number = torchrun.least(self.first)
        if number == NEVER:
            return
        batch, seed = settings["batch"], settings["seed"]
        step, part = divmod(number, parts := batch // settings["micro_batch"])
        order = ShuffleSampler(len(manifest), batch, step + 1, step, seed, parts)
        lines = sorted(index + 1 for _, index in list(order)[part])
        named = ", ".join(map(str, lines[:NAMED])) + (", ..." if lines[NAMED:] else "")
        message = f"the loss is not finite at step {step + 1}, on the images of lines {named}"
        raise DataError(f"{streams.name(manifest.path)}: {message}: {ADVICE}")


def check_weights(network, step):
    """Raise DataError where a weight is not finite, so that no checkpoint holds it."""
    norms = torch._foreach_norm([p.detach() for p in network.parameters()])
    if not torch.stack(norms).isfinite().all():
        raise DataError(f"the weights are not finite after step {step}: {ADVICE}")


def chance_step(epoch_steps):
    """Return the step at which a run must have learned something: 2,000, or 2 epochs if later."""
    return min(max(2000, 2 * epoch_steps), 20_000)


def at_chance(loss, chance):
    """Return the line to say where LOSS is that of a guess, CHANCE; None where it is below."""
    if loss is None or loss < AT_CHANCE * chance:
        return None
    message = f"a loss of {loss:.4g} is chance ({chance:.4g}): nothing is learned"
    return f"{message}; try another --lr (a third, three times) or a larger --batch"


def remaining(steps, seconds, batch):
    """Return the line that says how long STEPS take at so many SECONDS a step."""
    hours = steps * seconds / 3600
    hours = f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}" if math.isfinite(hours) else "?"
    return f"{steps:,} steps left, about {hours} hours at {batch / seconds:,.0f} images/s"
