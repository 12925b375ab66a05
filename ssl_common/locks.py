"""Locks on open files, held as long as this process lives, and by none of those that it forks.

A lock of flock(2) is of an open file, which a forked process shares: a worker that outlives its
parent by a moment would hold it still, against the run that comes next.
"""

import fcntl
import os

_held: set[int] = set()  # the descriptors that lock what this process makes


def _let_go() -> None:
    """Leave the locks to the parent of a process that was forked."""
    for descriptor in _held:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)


os.register_at_fork(after_in_child=_let_go)


def take(descriptor: int) -> None:
    """Lock the file open at DESCRIPTOR until it is closed, before which leave() is called.

    Raises BlockingIOError where another process has it, OSError where there are no locks.
    """
    _held.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        leave(descriptor)
        raise


def leave(descriptor: int) -> None:
    """Forget DESCRIPTOR, which is to be closed now, and so unlocked."""
    _held.discard(descriptor)
