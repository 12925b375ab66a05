"""Worker processes of a command: results in order, and no process that outlives the command.

Each has a pipe of its own and shares nothing else. So one that is killed is noticed by the end of
its pipe and holds nothing that others wait for; there is no shared memory to fill, and an image
costs no file descriptor. torch's DataLoader and concurrent.futures, which share queues and locks,
and torch memory, wait for ever for what a dead process held or could not send.
"""

import contextlib
import itertools
import multiprocessing
import os
import pickle
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from multiprocessing import connection
from typing import Any, NoReturn, TypeVar

from ssl_common import shortage
from ssl_common.processes import born_deaf, die_with_parent
from ssl_common.streams import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")

FILES = 4  # descriptors that a process takes of this one: one of its pipe, two of its end
SPARED = 128  # descriptors for all else
AHEAD = 2
PATIENCE = 5  # seconds for killed processes to be gone


def usual_workers() -> int:
    """Return how many processes to start where nobody says: one a core, if files suffice."""
    cores = len(os.sched_getaffinity(0))
    limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return cores
    return max(0, min(cores, (limit - SPARED) // FILES))


def side_by_side(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: int,
    begin: Callable[[], object] = lambda: None,
    room: Callable[[int], Any] = bytearray,
) -> Generator[Result, None, None]:
    """Yield WORK(task) for each of TASKS, in order; WORKERS processes do it, or this one if 0.

    Each of them calls BEGIN first; at most AHEAD results a process wait for their turn, the arrays
    in them where ROOM(bytes) says. Raises what WORK raises, and DataError where processes cannot be
    started or one of them was killed. Close it: that ends them, as any error does.
    """
    if not workers:
        yield from map(work, tasks)
        return
    rest = iter(tasks)
    crew: list[_Worker] = []
    try:
        first = list(itertools.islice(rest, workers))
        with born_deaf():
            for _ in first:
                crew.append(_started(work, begin, workers))
        yield from _in_order(crew, itertools.chain(first, rest), room)
    finally:
        for worker in crew:
            worker.process.kill()
        end = time.monotonic() + PATIENCE
        for worker in crew:
            worker.close(end)


def _in_order(
    crew: Sequence["_Worker"], tasks: Iterator[Any], room: Callable[[int], Any]
) -> Iterator[Any]:
    """Yield what the _Workers of CREW make of TASKS."""
    idle, given = list(crew), 0
    busy: dict[Any, _Worker] = {}
    done: dict[int, Any] = {}
    for due in itertools.count():
        while True:
            free = itertools.islice(tasks, due + AHEAD * len(crew) - given)
            for worker, task in zip(tuple(idle), free, strict=False):
                worker.give(given, task)
                idle.remove(worker)
                busy[worker.pipe] = worker
                given += 1
            ready = connection.wait(busy, 0 if due in done else None) if busy else ()
            if not ready:
                break
            for pipe in ready:
                worker = busy.pop(pipe)
                done[worker.number] = worker.result(room)
                idle.append(worker)
        if due not in done:
            return
        result = done.pop(due)
        if isinstance(result, _Raised):
            raise result.error
        yield result


def _started(work: Callable, begin: Callable[[], object], workers: int) -> "_Worker":
    try:
        return _Worker(work, begin)
    except (OSError, MemoryError) as error:
        message = f"{workers} processes cannot be started ({shortage.lacking(error) or error})"
        raise DataError(f"{message}: give a smaller -j") from error


class _Worker:
    """A process that does WORK on one task after another, once it has called BEGIN."""

    def __init__(self, work: Callable, begin: Callable[[], object]) -> None:
        # Forked: it has what this one has read, and its modules, at once.
        fork = multiprocessing.get_context("fork")
        self.pipe, theirs = fork.Pipe()
        self.process = fork.Process(target=_serve, args=(theirs, work, begin), daemon=True)
        try:
            with theirs, warnings.catch_warnings():
                # That there are threads, of torch's: it takes no lock of theirs.
                warnings.simplefilter("ignore", DeprecationWarning)
                self.process.start()
        except BaseException:
            self.pipe.close()
            raise

    def give(self, number: int, task: object) -> None:
        """Send TASK, which is called NUMBER."""
        self.number = number
        with self._alive():
            self.pipe.send(task)

    def result(self, room: Callable[[int], Any]) -> Any:
        """Return what the work on its task gave; _Raised for an error."""
        with self._alive():
            data, sizes = self.pipe.recv()
            buffers = [room(size) for size in sizes]
            for buffer in buffers:
                _fill(self.pipe.fileno(), memoryview(buffer).cast("B"))
        return pickle.loads(data, buffers=buffers)

    def close(self, end: float) -> None:
        """Let go of the process, which was killed, and of its files; wait until END at most."""
        self.process.join(max(0, end - time.monotonic()))
        self.pipe.close()
        with contextlib.suppress(ValueError):  # it waits for a disk that does not answer
            self.process.close()

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            self.process.join(PATIENCE)
            code = self.process.exitcode or 0
            by = f" by {signal.Signals(-code).name}" if code < 0 else ""
            message = f"a process beside this one was killed{by} (memory full?)"
            raise DataError(f"{message}: give a smaller -j") from error


class _Raised:
    """An error of a process, on its way to the first one."""

    def __init__(self, error: Exception) -> None:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        error.add_note(traceback.format_exc())  # for --debug: a traceback does not travel
        self.error = error


def _serve(pipe: connection.Connection, work: Callable, begin: Callable[[], object]) -> NoReturn:
    """Do WORK on each task that comes through PIPE, until killed."""
    try:
        die_with_parent(signal.SIGKILL)
        ready = False
        while True:
            task = pipe.recv()
            try:
                if not ready:
                    _hush()
                    begin()
                    ready = True
                _send(pipe, work(task))
            except Exception as error:
                _send(pipe, _Raised(error))
    finally:
        os._exit(1)  # without a word: the first one tells


def _hush() -> None:
    """Let what libraries in C say, where memory is short, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)


def _send(pipe: connection.Connection, result: object) -> None:
    """Send RESULT: how long its arrays are, and then their bytes as they lie in memory."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(result, 5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    pipe.send((data, [view.nbytes for view in views]))
    for view in views:
        while view:
            view = view[os.write(pipe.fileno(), view) :]


def _fill(descriptor: int, view: memoryview) -> None:
    """Read bytes until VIEW is full; raise EOFError where they end."""
    while view:
        read = os.readv(descriptor, [view])
        if not read:
            raise EOFError
        view = view[read:]
