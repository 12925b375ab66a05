"""Messages of a command on standard error: its progress, and its last line."""

import contextlib
import sys
import time
from collections.abc import Iterator

import click

from ssl_common import legible, processes, streams
from ssl_common.progress import Conversation


def say(message: str) -> None:
    """Say how it ended, in one line on stderr unless -q: all is written, no signal undoes it."""
    processes.finish()
    remark(message)


def remark(message: str) -> None:
    """Say one line on stderr while work goes on, unless -q."""
    ctx = click.get_current_context()
    if not ctx.meta.get("quiet"):
        talk(f"{ctx.command.name}: {message}")


def talk(message: str, start: str = "", end: str = "\n") -> None:
    """Write MESSAGE on stderr; where nobody listens, the work and its status are the same."""
    try:
        click.echo(start + legible.text(message) + end, err=True, nl=False)
    except OSError:
        streams.abandon(sys.stderr.fileno())


class Progress:
    """How far the work is, on stderr: a line redrawn on a terminal, one line a minute elsewhere.

    Call it with (done, total, note); TOTAL may be None where it is not known.
    """

    def __init__(self, unit: str) -> None:
        ctx = click.get_current_context()
        self.unit, self.name, self.quiet = unit, ctx.command.name, ctx.meta.get("quiet")
        self.start = self.shown = time.monotonic()
        self.first: int | None = None
        self.drawn = False

    @property
    def terminal(self) -> bool:
        return sys.stderr.isatty()  # asked anew: a rank is given its stderr late

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        processes.heed()
        now = time.monotonic()
        self.first = done if self.first is None else self.first  # a resumed run starts late
        if self.quiet or now - self.shown < (0.2 if self.terminal else 60):
            return
        self.shown = now
        rate = (done - self.first) / (now - self.start)
        text = f"{self.name}: {done:,}" + (f" of {total:,}" if total else "") + f" {self.unit}"
        text += f", {rate:,.1f}/s" if rate >= 1 else f", {rate:.2g}/s"
        text += f", {note}" if note else ""
        if total and rate > 0:
            text += f", {_clock((total - done) / rate)} left"
        self.drawn = True
        talk(text, *(("\r\x1b[K", "") if self.terminal else ()))

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_error: object) -> None:
        if self.terminal and self.drawn:
            talk("", "\r\x1b[K", "")


def _clock(seconds: float) -> str:
    """Return SECONDS as people read it: 45 s, 12 min, 5 h 10 min, 12 d 3 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 2880:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


@contextlib.contextmanager
def conversation(unit: str, patient: bool) -> Iterator[Conversation]:
    """Yield what a long run, told in UNITs, tells and is told; see processes.deferring_stop.

    A line of the log is written on standard output at once.
    """
    with (
        streams.writing("-", binary=False) as stream,
        processes.deferring_stop(patient) as stopping,
        Progress(unit) as progress,
    ):

        def emit(line: bytes) -> None:
            stream.write(line)
            stream.flush()

        yield Conversation(emit, remark, stopping, progress)
