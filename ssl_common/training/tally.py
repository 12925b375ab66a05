"""Counts of a run between two lines of its log: sums for the means, and unreadable images."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ssl_common.objective import Score
from ssl_common.ranks import collectives
from ssl_common.ranks.placement import RANK

NAMED = 20  # lines of the manifest that one line of the log or an error names


class Tally:
    """The sums since the last line of the log, on DEVICE, and the unreadable images so far.

    MEASURES are the names of those of a Score. add() waits for no GPU; every rank has to ask for
    over_all().
    """

    def __init__(self, device: torch.device, measures: Sequence[str]) -> None:
        self.measures = tuple(measures)
        # Losses, weights, and the sum of each measure; of how many stands in self.counts.
        self.sums = torch.zeros(2 + len(self.measures), dtype=torch.float64, device=device)
        self.counts = [0] * len(self.measures)
        self.lines: list[int] = []  # of the manifest, from 0: the first NAMED that gave way
        self.lost = 0  # images that gave way since take_lost(), on this rank
        self.unreadable = 0  # ... since the start, on all ranks: what take_lost() gave, added up

    def add(self, score: Score, lost: Sequence[int]) -> None:
        """Add a micro-batch: its SCORE, and the unreadable lines LOST."""
        measured = [score.measures[name] for name in self.measures]
        for place, value in enumerate((score.loss, score.weight, *(each for each, _n in measured))):
            self.sums[place] += value.detach()
        self.counts = [a + n for a, (_sum, n) in zip(self.counts, measured, strict=True)]
        if lost:
            self.lost += len(lost)
            self.lines = first_lines([self.lines, lost])

    def take_lost(self) -> int:
        """Return how many images were unreadable on this rank since the last call."""
        lost, self.lost = self.lost, 0
        return lost

    @property
    def weighs(self) -> bool:
        """Whether anything had weight on this rank since the last line of the log."""
        return bool(self.sums[1])

    def over_all(self) -> dict[str, Any]:
        """Return the tally over all ranks, plain values, as load() takes it.

        "sums" are float64: losses, weights, then the sums of the measures, then of how many.
        """
        counts = torch.tensor(self.counts, dtype=torch.float64)
        sums = collectives.total(torch.cat([self.sums.cpu(), counts]))
        lines = first_lines(collectives.gather(self.lines))
        return {"sums": sums, "unreadable": self.unreadable, "lines": lines}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from the result of over_all(); only the first rank continues its sums."""
        self.unreadable = state["unreadable"]
        if RANK == 0:
            size = len(self.sums)
            self.sums.copy_(state["sums"][:size])
            self.counts = [int(each) for each in state["sums"][size:].tolist()]
            self.lines = state["lines"]

    def clear(self) -> None:
        """Start counting for a new line of the log."""
        self.sums.zero_()
        self.counts, self.lines = [0] * len(self.measures), []

    def means(self, state: dict[str, Any]) -> dict[str, float | None]:
        """Return the mean loss and measures of STATE, of over_all(); None if nothing had weight."""
        loss, weight, *rest = state["sums"].tolist()
        if not weight:
            return dict.fromkeys(("loss", *self.measures))
        size = len(self.measures)
        pairs = zip(self.measures, rest[:size], rest[size:], strict=True)
        return {"loss": loss / weight} | {name: total / count for name, total, count in pairs}


def first_lines(lists: Iterable[Sequence[int]]) -> list[int]:
    """Return the first NAMED lines of all LISTS, however they are divided over the ranks."""
    return sorted({line for lines in lists for line in lines})[:NAMED]


def cleared(state: dict[str, Any]) -> dict[str, Any]:
    """Return STATE, of Tally.over_all(), with the counts for the line of the log at zero."""
    return state | {"sums": torch.zeros_like(state["sums"]), "lines": []}
