"""Shortages of the machine (memory, descriptors, threads), reported as such, not as bad data."""

import contextlib
import errno
import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ssl_common import processes

LONGEST = 200  # characters of what a library says that a message repeats


class Kind(NamedTuple):
    """A shortage: how it is called, how libraries and the system say it, and who limits it."""

    words: str
    said: re.Pattern[str]
    numbers: frozenset[int]
    limits: dict[str, tuple[int, int]]  # the option of ulimit -> (the limit, its unit in bytes)


SPACE = {"-v": (resource.RLIMIT_AS, 1024), "-d": (resource.RLIMIT_DATA, 1024)}
MEMORY = Kind(
    "not enough memory",
    re.compile(
        "(cannot|can't|unable to) (allocate|map|mmap)|failed to map segment|bad_alloc"
        "|not enough memory|out of memory|memory allocation (still )?failed",
        re.IGNORECASE,
    ),
    frozenset({errno.ENOMEM}),
    SPACE,
)
KINDS = (
    MEMORY,
    Kind(
        "too many open files",
        re.compile("too many open files|items of ancdata", re.IGNORECASE),
        frozenset({errno.EMFILE, errno.ENFILE}),
        {"-n": (resource.RLIMIT_NOFILE, 1)},
    ),
    Kind(
        "no more threads or processes",
        re.compile("can't start new thread|resource temporarily unavailable", re.IGNORECASE),
        frozenset({errno.EAGAIN}),
        {"-u": (resource.RLIMIT_NPROC, 1)} | SPACE,
    ),
)


def lacking(error: BaseException | None) -> str | None:
    """Return in words what the machine lacks, where ERROR, or one that led to it, says so."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            kind = next((kind for kind in KINDS if error.errno in kind.numbers), None)
            return kind and _in_words(kind)  # whatever file it was about
        if isinstance(error, MemoryError):
            return _in_words(MEMORY, str(error))
        if found := told(error):
            return found
        error = error.__cause__ or error.__context__
    return None


def told(message: object) -> str | None:
    """Return in words what the machine lacks, where MESSAGE of a library says so, else None."""
    for kind in KINDS:
        for line in str(message).splitlines():
            if kind.said.search(line) and "static TLS" not in line:
                return _in_words(kind, line)
    return None


def _in_words(kind: Kind, detail: str = "") -> str:
    """Return the KIND of shortage in words, with the DETAIL that is known and the limits set."""
    return kind.words + (f": {detail[:LONGEST]}" if detail else "") + _limits(kind)


def _limits(kind: Kind) -> str:
    """Return the limits that are set on the KIND, in words."""
    limits = [
        f"ulimit {option} is {most // unit}"
        for option, (limit, unit) in kind.limits.items()
        if (most := resource.getrlimit(limit)[0]) != resource.RLIM_INFINITY
    ]
    return f" ({', '.join(limits)})" if limits else ""


# ---- A child that is watched ------------------------------------------------------------------

# In the child: what libraries write on stderr, and what it has to tell.
_chatter: int | None = None
_diary: int | None = None


def watch(complain: Callable[[str, int], int]) -> None:
    """Go on in a child where memory is limited; here, wait for its end, and COMPLAIN for it.

    Libraries in C that are refused memory end the process by themselves, in many lines or none.
    What they write on standard error is kept back, and what they left half written removed.
    """
    global _chatter, _diary
    if all(resource.getrlimit(limit)[0] == resource.RLIM_INFINITY for limit, _ in SPACE.values()):
        return
    heard = {*processes.SIGNALS, signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would not come
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    _chatter, _diary = os.memfd_create("chatter"), os.memfd_create("diary")
    if child := os.fork():
        how, status = _wait(child, heard)
        told_all = _read(_diary).split("\0")[:-1]
        if "" in told_all or status in (0, 2, processes.STOPPED):
            os._exit(status)
        for path in told_all:
            _remove(path)
        how += f", for want of memory perhaps{_limits(MEMORY)}"
        os._exit(complain(chattered() or how, 1))
    os.setpgid(0, 0)  # a terminal stops our parent, who passes it on
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if sys.stderr is not None:
        sys.stderr = open(os.dup(2), "w", 1, sys.stderr.encoding, "backslashreplace")  # noqa: SIM115
    os.dup2(_chatter, 2)
    processes.die_with_parent(signal.SIGTERM)


def _wait(child: int, heard: Iterable[int]) -> tuple[str, int]:
    """Wait for the end of CHILD, passing on the signals HEARD; return how it ended, its status."""
    while True:
        number = signal.sigwait(heard)
        if number != signal.SIGCHLD:
            os.kill(child, number)
        elif end := os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG):
            if end.si_code == os.CLD_EXITED:
                return f"ended with status {end.si_status}", end.si_status
            return f"was ended by {signal.Signals(end.si_status).name}", 1


def _read(descriptor: int) -> str:
    return os.fsdecode(os.pread(descriptor, 1 << 16, 0))


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def chattered() -> str | None:
    """Return in words what the machine lacks, where libraries of a watched child have said so."""
    return told(_read(_chatter)) if _chatter is not None else None


def unfinished(path: str) -> None:
    """Let who watches this process, if one does, remove PATH where a library ends it."""
    _tell(path)


def ended() -> None:
    """Let who watches this process, if one does, know that it ends in its own words."""
    _tell("")


def _tell(word: str) -> None:
    if _diary is not None:
        os.write(_diary, os.fsencode(word) + b"\0")
