"""Signals that ask a command to stop, and the child processes that it starts."""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from ssl_common.progress import Progress

STOPPED = 75  # EX_TEMPFAIL: stopped by a signal, run again to go on
# A terminal sends the first, batch systems the others; SIGUSR1 is Slurm's usual warning.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
# Seconds in which another signal is the same one: timeout(1) and batch systems send one to a
# process and again to its group.
AGAIN = 0.5
PATIENCE = 10  # seconds in which a signal does not disturb the clean-up after another


class Stopped(BaseException):
    """A signal asked the command to stop."""


def stoppable(progress: Progress, stopping: Callable[[], str | None]) -> Progress:
    """Return PROGRESS that raises Stopped, when it is told, where STOPPING() names a signal."""

    def tell(done: int, total: int | None = None, note: str = "") -> None:
        progress(done, total, note)
        if stopping():
            raise Stopped

    return tell


raised: list[str] = []  # the signals that were raised as Stopped
_asked: list[str] = []  # those that deferring_stop keeps until the work asks for them
_last: signal.Handlers = signal.SIG_IGN  # what finish() makes of SIGNALS
_heard = -float("inf")  # when the last new one came


def _is_obeyed() -> bool:
    """Tell whether Stopped is being raised, so that the code that runs now is a clean-up."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, Stopped):
        error = error.__context__
    return error is not None


def _is_new(seconds: float) -> bool:
    """Tell whether a signal is a new one, after none in so many SECONDS."""
    global _heard
    now = time.monotonic()
    if now - _heard < seconds:
        return False
    _heard = now
    return True


def _stop(number: int, _frame: FrameType | None) -> None:
    if _is_new(PATIENCE if _is_obeyed() else 0):
        raised.append(signal.Signals(number).name)
        raise Stopped(raised[0])


def heed() -> None:
    """Raise Stopped again if it was swallowed, as modules in C do while they are loaded.

    It stands before all that waits, and where work tells how far it is.
    """
    if raised and not _is_obeyed():
        raise Stopped(raised[0])


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install HANDLER for SIGNALS."""
    # What the parent ignores stays ignored: `nohup` and `&` in scripts mean it.
    before = {
        n: signal.signal(n, handler) for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, previous in before.items():
            if signal.getsignal(number) == handler:  # not so after finish()
                signal.signal(number, previous)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Turn a signal into Stopped in this block, so that half-written files are removed."""
    try:
        with _handling(_stop):
            yield
    finally:
        raised.clear()


@contextlib.contextmanager
def deferring_stop(patient: bool = False) -> Iterator[Callable[[], str | None]]:
    """Yield a function that names the signal that asked to stop, if one did.

    For work that may stop only between two steps. A second signal stops it at once, unless PATIENT:
    one of many processes gets the same signal from its parent and from a batch system.
    """
    heed()
    _asked.clear()

    def ask(number: int, _frame: FrameType | None) -> None:
        if _is_new(AGAIN) and _asked and not patient:
            raise Stopped(_asked[0])
        _asked.append(signal.Signals(number).name)

    try:
        with _handling(ask):
            yield lambda: _asked[0] if _asked else None
    finally:
        _asked.clear()


def finish() -> None:
    """Ignore signals from here on: the result or the error is already out."""
    for number in SIGNALS:
        signal.signal(number, _last)


def wait(descriptor: int, event: int) -> None:
    """Wait until DESCRIPTOR is ready for EVENT, select.POLLIN or POLLOUT, or broken.

    A signal is heard even where it comes just before the wait, or to another thread: a system call
    that blocks would sleep on. What waits for its input stops at one that deferring_stop keeps.
    """
    heed()
    poll = select.poll()
    poll.register(descriptor, event)
    if poll.poll(0):
        return
    if threading.current_thread() is not threading.main_thread():  # signals are not for it
        poll.poll()
        return
    bell, cord = os.pipe()
    os.set_blocking(cord, False)
    before = signal.set_wakeup_fd(cord, warn_on_full_buffer=False)
    try:
        poll.register(bell, select.POLLIN)
        while not (event == select.POLLIN and _asked):
            if any(ready == descriptor for ready, _ in poll.poll()):
                return
            os.read(bell, 4096)  # and Python has called the handler
        raise Stopped(_asked[0])
    finally:
        signal.set_wakeup_fd(before)
        os.close(bell)
        os.close(cord)


@contextlib.contextmanager
def born_deaf() -> Iterator[None]:
    """Make processes started here ignore signals to the group: this process stops them.

    It hears one at the end of the block itself: who has started a process has also noted it.
    """
    held: list[int] = []  # a mask is a thread's own: those of libraries take what this one blocks
    try:
        with _handling(lambda number, _frame: held.append(number)):
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # the processes inherit it
            try:
                yield
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # and what came is held, too
    finally:
        for number in held:
            signal.raise_signal(number)


def die_with_parent(number: int, to_the_end: bool = False) -> None:
    """Ask Linux to send this process the signal NUMBER when its parent dies, in whatever way.

    TO_THE_END says that signals end it even after finish(), where one of many may wait for others.
    """
    import ctypes  # here: most commands have no use for it, and all of them start

    global _last
    _last = signal.SIG_DFL if to_the_end else _last
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)
