"""Processes side by side: order, what travels, how they fail, and that none is left."""

import contextlib
import errno
import multiprocessing
import os
import resource
import signal
import threading
import time

import numpy as np
import pytest

from ssl_common import crew, processes
from ssl_common.crew import side_by_side
from ssl_common.streams import DataError


def children():
    return {process.pid for process in multiprocessing.active_children()}


@pytest.fixture(autouse=True)
def none_is_left():
    before = children()
    yield
    assert children() == before


def slow_square(number):
    time.sleep(0.02 * (number % 3))
    return number**2


@pytest.mark.parametrize("workers", [0, 1, 2, 5, 40])
def test_results_come_in_the_order_of_the_tasks(workers):
    assert list(side_by_side(slow_square, range(20), workers)) == [n**2 for n in range(20)]
    assert list(side_by_side(slow_square, [], workers)) == []


def test_no_more_processes_than_tasks_and_no_more_tasks_than_are_waited_for():
    taken = []
    tasks = (taken.append(number) or number for number in range(100))
    with contextlib.closing(side_by_side(slow_square, tasks, 2)) as results:
        for number, _result in enumerate(results):
            assert number < len(taken) <= number + crew.AHEAD * 2
    before = len(children())
    with contextlib.closing(side_by_side(slow_square, range(3), 9)) as results:
        next(results)
        assert len(children()) == before + 3


def test_arrays_travel_into_the_room_that_is_given():
    rng = np.random.default_rng(0)
    made = {
        "large": rng.integers(0, 256, (3, 700, 900, 3), np.uint8),  # more than a pipe holds
        "strided": rng.normal(size=(40, 50))[::2, ::-1],
        "none": np.zeros((0, 7), np.float32),
        "one": np.int64(3),
        "turned": np.asfortranarray(rng.normal(size=(30, 20))),
    }
    rooms = []

    def room(size):
        rooms.append(np.empty(size, np.uint8))
        return rooms[-1]

    for got in side_by_side(lambda _task: made, range(4), 2, room=room):
        for name, array in made.items():
            np.testing.assert_array_equal(got[name], array)
            assert got[name].dtype == array.dtype
        assert got["large"].base is not None and got["large"].flags.writeable
        got["large"][:] = 0
    assert sum(room.size == made["large"].size and not room.any() for room in rooms) == 4


class Odd(Exception):
    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


@pytest.mark.parametrize(
    "error, kind, said",
    [
        (DataError("a.tsv:3: wrong"), DataError, "a.tsv:3: wrong"),
        (OSError(errno.EIO, "Input/output error", "a.jpg"), OSError, "'a.jpg'"),
        (MemoryError(), MemoryError, None),
        (Odd("this", "that"), RuntimeError, "Odd: this and that"),  # which pickle cannot make anew
        (ValueError(lambda: 0), RuntimeError, "ValueError"),
    ],
)
def test_an_error_is_raised_as_its_kind_when_its_turn_comes(error, kind, said):
    def work(number):
        if number == 5:
            raise error
        return number

    got = []
    with pytest.raises(kind, match=said) as caught:
        for result in side_by_side(work, range(20), 3):
            got.append(result)
    assert got == list(range(5))
    assert caught.type is kind
    assert getattr(caught.value, "errno", None) == getattr(error, "errno", None)
    assert "in work" in "".join(caught.value.__notes__)  # the traceback there, for --debug


def test_an_error_as_it_begins_is_raised_too():
    def begin():
        raise DataError("no room")

    with pytest.raises(DataError, match="^no room"):
        list(side_by_side(slow_square, range(9), 2, begin))


def test_what_libraries_say_there_goes_nowhere(capfd):
    def work(number):
        os.write(1, b"out")
        os.write(2, b"terminate called after throwing an instance of std::bad_alloc")
        return number

    assert list(side_by_side(work, range(4), 2)) == [0, 1, 2, 3]
    assert capfd.readouterr() == ("", "")


def test_one_that_is_killed_ends_all_within_seconds():
    def work(number):
        if number == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01 if number < 7 else 600)

    start = time.monotonic()
    with pytest.raises(DataError, match=r"killed by SIGKILL \(memory full\?\): give a smaller -j"):
        list(side_by_side(work, range(100), 3))
    assert time.monotonic() - start < 5


def test_one_that_is_killed_with_a_result_half_sent():
    def work(number):
        def half(descriptor, view, write=os.write):
            write(descriptor, view[:1000])
            os.kill(os.getpid(), signal.SIGKILL)

        if number == 2:
            os.write = half
        return np.zeros(1 << 24, np.uint8)

    with pytest.raises(DataError, match="killed by SIGKILL"):
        list(side_by_side(work, range(4), 2))


def test_no_process_is_waited_for_that_hangs():
    def work(number):
        if number:
            os.kill(os.getpid(), signal.SIGSTOP)
        return os.getpid()

    start = time.monotonic()
    with contextlib.closing(side_by_side(work, range(4), 2)) as results:
        next(results)
    assert time.monotonic() - start < 5


def test_they_are_deaf_to_what_asks_the_first_one_to_stop():
    with contextlib.closing(side_by_side(lambda _task: os.getpid(), range(40), 2)) as results:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            os.kill(next(results), number)
        assert len(list(results)) == 36


def test_a_signal_as_one_starts_is_heard_when_it_is_known(monkeypatch):
    """A thread of a library hears what the first one blocks: none is started and forgotten."""
    patient = threading.Event()
    library = threading.Thread(target=patient.wait)
    library.start()
    starts = multiprocessing.get_context("fork").Process.start
    started = []

    def start(process):
        starts(process)
        started.append(process)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)  # in which Python calls the handler

    monkeypatch.setattr(multiprocessing.get_context("fork").Process, "start", start)
    try:
        with pytest.raises(processes.Stopped, match="SIGTERM"), processes.stopping():
            list(side_by_side(slow_square, range(9), 3))
        assert len(started) == 3
    finally:
        patient.set()
        library.join()


def test_too_few_descriptors_are_one_line_with_the_remedy():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = len(os.listdir("/proc/self/fd")) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))
    try:
        message = r"^40 processes cannot be started \(too many open files.*\): give a smaller -j$"
        with pytest.raises(DataError, match=message):
            list(side_by_side(slow_square, range(99), 40))
        assert list(side_by_side(slow_square, range(9), 4)) == [n**2 for n in range(9)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "cores, limit, usual", [(2, 1024, 2), (500, 1024, 224), (8, 64, 0), (500, -1, 500)]
)
def test_as_many_as_there_are_cores_and_descriptors(cores, limit, usual, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: range(cores))
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (limit, limit))
    assert crew.usual_workers() == usual
