"""What a long work tells the one who started it, and is told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """Is told how far the work is: DONE of TOTAL, which may not be known, and a NOTE beside it."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None: ...


def silent(done: int, total: int | None = None, note: str = "") -> None:
    """Tell nobody: the Progress of those who do not ask."""


@dataclass(frozen=True)
class Conversation:
    """What a run tells and is told.

    EMIT gets each line of the log, bytes; SAY what is worth a line while the work goes on;
    STOPPING() names the signal that asks for an end, None where none does.
    """

    emit: Callable[[bytes], object]
    say: Callable[[str], object]
    stopping: Callable[[], str | None]
    progress: Progress
