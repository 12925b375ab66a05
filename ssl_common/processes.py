"""Signals that ask a command to stop, and the processes that it starts beside itself."""

import contextlib
import os
import signal

STOPPED = 75  # EX_TEMPFAIL: stopped by a signal, run again to go on
# A terminal sends the first, batch systems the others; SIGUSR1 is Slurm's usual warning.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Stopped(BaseException):
    """A signal asked the command to stop."""


raised = []  # the signals that _stop raised


def _stop(number, _frame):
    raised.append(signal.Signals(number).name)
    raise Stopped(raised[0])


@contextlib.contextmanager
def _handling(handler):
    """Let HANDLER have SIGNALS."""
    # What the parent ignores stays ignored: `nohup` and `&` in scripts mean it.
    before = {
        n: signal.signal(n, handler) for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def stopping():
    """Turn a signal into Stopped in this block, so that half-written files are removed."""
    return _handling(_stop)


@contextlib.contextmanager
def deferring_stop(patient=False):
    """Yield a function that names the signal that asked to stop, if one did.

    For work that may stop only between two steps. A second signal stops it at once, unless PATIENT:
    one of many processes gets the same signal from its parent and from a batch system.
    """
    asked = []

    def ask(number, _frame):
        if asked and not patient:
            raise Stopped(asked[0])
        asked.append(signal.Signals(number).name)

    with _handling(ask):
        yield lambda: asked[0] if asked else None


@contextlib.contextmanager
def born_deaf():
    """Let the processes started here be deaf to signals to the group: this one stops them.

    They import as from_a_safe_path() says.
    """
    from multiprocessing import resource_tracker

    with from_a_safe_path():
        resource_tracker.ensure_running()  # it would unblock the signals, were it started later
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they inherit it
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # one that came meanwhile is heard now


@contextlib.contextmanager
def from_a_safe_path():
    """Let no process started here import what lies in the current folder: `python -c` and -m do."""
    name = "PYTHONSAFEPATH"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def die_with_parent(number):
    """Ask Linux to send this process the signal NUMBER when its parent dies, in whatever way."""
    import ctypes  # here: most commands have no use for it, and all of them start

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)
