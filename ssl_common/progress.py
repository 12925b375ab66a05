"""Callbacks between a long computation and its caller: progress, messages, stopping."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """Receives the progress: DONE of TOTAL, which may be unknown, with a NOTE."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None: ...


def silent(done: int, total: int | None = None, note: str = "") -> None:
    """Do nothing: the Progress of callers that want none."""


@dataclass(frozen=True)
class Conversation:
    """The callbacks of a run.

    EMIT gets each line of the log, bytes; SAY what is worth a line while the work goes on;
    STOPPING() names the signal that asks for an end, None where none does.
    """

    emit: Callable[[bytes], object]
    say: Callable[[str], object]
    stopping: Callable[[], str | None]
    progress: Progress
