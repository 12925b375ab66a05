"""Files and pipes: whole or not at all, heard signals, and nothing read can run code."""

import contextlib
import errno
import fcntl
import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest
from conftest import environment

from ssl_common import partials, processes, streams
from ssl_common.streams import DataError, TerminalError


def write(path, content, **extra):
    with streams.writing(str(path), **extra) as stream:
        stream.write(content)


def test_a_named_file_appears_whole(tmp_path):
    with streams.writing(str(tmp_path / "a")) as stream:
        stream.write(b"new")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_what_stood_there_survives_a_failure(tmp_path, error):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(error), streams.writing(str(tmp_path / "a")) as stream:
        stream.write(b"new")
        raise error
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/file")
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far/file").read_bytes() == b"new"


@pytest.mark.parametrize("mode", [None, 0o600, 0o640, 0o755, 0o666])
def test_a_mode_is_kept_or_that_of_an_ordinary_new_file(tmp_path, mode):
    (tmp_path / "b").write_bytes(b"")
    if mode is not None:
        (tmp_path / "a").write_bytes(b"old")
        (tmp_path / "a").chmod(mode)
        (tmp_path / "b").chmod(mode)
    with streams.writing(str(tmp_path / "a")) as stream:
        partial = os.fstat(stream.fileno()).st_mode
        assert mode is None or not partial & 0o077  # meanwhile it is nobody else's
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_leaves_a_file_to_its_owner(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    os.chown(tmp_path / "a", 1234, 4321)
    write(tmp_path / "a", b"new")
    found = (tmp_path / "a").stat()
    assert (found.st_uid, found.st_gid) == (1234, 4321)


UNWRITABLE = {
    "": "the name of the output is empty",
    "read-only": "read-only: read-only: allow it with chmod u+w",
    "new/": "Is a directory: 'new/'",
    "folder": "Is a directory: 'folder'",
    "no/new": "No such file or directory: 'no/new'",
    "into-nowhere": "No such file or directory: 'into-nowhere'",
    "loop": "Too many levels of symbolic links: 'loop'",
    "file/new": "Not a directory: 'file/new'",
    "x" * 256: "File name too long: 'xx",
    "/proc/new": "No such file or directory: '/proc/new'",  # a file system where none is made
}
SPECIAL = {f"{name}": f"{name}: not a file" for name in ("-", "fifo", "/dev/null", "/dev/stdout")}


def make_unwritable(monkeypatch, folder):
    """Make FOLDER, where all of UNWRITABLE and SPECIAL are, the current one."""
    monkeypatch.chdir(folder)
    (folder / "folder").mkdir()
    (folder / "file").write_bytes(b"old")
    (folder / "read-only").write_bytes(b"old")
    (folder / "read-only").chmod(0o444)
    (folder / "into-nowhere").symlink_to("no/file")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")


@pytest.mark.parametrize(
    "path, message, check",
    [(*case, check) for case in UNWRITABLE.items() for check in (True, False)]
    + [(*case, True) for case in SPECIAL.items()],  # they can be written, but not replaced
)
def test_what_cannot_be_written_is_known_before_any_work(
    tmp_path, monkeypatch, path, message, check
):
    make_unwritable(monkeypatch, tmp_path)
    before = sorted(os.listdir())
    with pytest.raises((OSError, DataError)) as caught:
        if check:
            streams.check_output(path)
        else:
            with streams.writing(path):
                pytest.fail("it was opened")
    assert message in str(caught.value)
    assert sorted(os.listdir()) == before
    assert (tmp_path / "read-only").read_bytes() == b"old"


@pytest.mark.parametrize("path", ["new", "file", "link", "x" * 255, "é" * 127])
def test_what_can_be_written_is_not_touched_by_a_check(tmp_path, monkeypatch, path):
    make_unwritable(monkeypatch, tmp_path)
    (tmp_path / "link").symlink_to("folder/new")
    before = sorted(os.listdir()), os.listdir("folder")
    streams.check_output(path)
    assert (sorted(os.listdir()), os.listdir("folder")) == before
    assert (tmp_path / "file").read_bytes() == b"old"
    write(path, b"new")
    assert (tmp_path / path).read_bytes() == b"new"


def test_a_missing_folder_is_named_as_the_user_did(tmp_path):
    with pytest.raises(OSError) as caught:
        write(tmp_path / "no/such", b"")
    assert caught.value.filename == str(tmp_path / "no/such")


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, streams.writing(str(tmp_path / "a")):
        (tmp_path / "other").read_bytes()
    assert str(caught.value.filename) == str(tmp_path / "other")


def test_a_device_is_written_to_and_not_replaced():
    write("/dev/null", b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OSError) as caught:
        write("/dev/full", b"no room")
    assert (caught.value.errno, caught.value.filename) == (28, "/dev/full")


def test_standard_output_is_named(monkeypatch):
    with open("/dev/full", "wb") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OSError) as caught:
            write("-", b"no room")
    assert caught.value.filename == "standard output"


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError):
        write(tmp_path, b"")
    assert os.listdir(tmp_path) == []


def test_a_closed_standard_input_is_named(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)  # as Python starts under `<&-`
    with (
        pytest.raises(DataError, match="standard input: not open for reading"),
        streams.reading("-"),
    ):
        pass


def test_digest_does_not_depend_on_the_pieces(tmp_path):
    content = bytes(range(256)) * 9000  # over 1 MiB: more than one piece of a file
    (tmp_path / "a").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()[:16]
    assert streams.digest(content) == expected
    assert streams.digest([content[:7], content[7:]]) == expected
    assert streams.file_digest(tmp_path / "a") == expected


# ---- Names that are open files ------------------------------------------------------------------


def test_an_open_file_gives_no_data_set_its_name(tmp_path):
    read_end, write_end = os.pipe()
    try:
        for path in ("-", f"/dev/fd/{read_end}", f"/proc/self/fd/{read_end}", "/dev/stdin"):
            assert streams.stem(path) is None, path
    finally:
        os.close(read_end)
        os.close(write_end)
    for path, name in (("a/train.tsv", "train"), ("62", "62"), ("fd/62.tsv", "62"), ("x/", "")):
        assert streams.stem(path) == name


def test_an_open_file_is_written_to_and_not_replaced(tmp_path):
    (tmp_path / "log").write_bytes(b"old\n")
    with open(tmp_path / "log", "ab") as log:
        write(f"/dev/fd/{log.fileno()}", b"new\n")
    assert (tmp_path / "log").read_bytes() == b"old\nnew\n"
    with open(tmp_path / "log", "rb") as log:
        with pytest.raises(DataError, match=r"/dev/fd/\d+: not open for writing"):
            write(f"/dev/fd/{log.fileno()}", b"new\n")
        number = log.fileno()
    with pytest.raises(DataError, match=r"/dev/fd/\d+: not open for writing"):
        write(f"/dev/fd/{number}", b"new\n")


# ---- What is no file ----------------------------------------------------------------------------


def make_odd(folder):
    """Make in FOLDER a FIFO, a socket and a folder."""
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))


@pytest.mark.parametrize(
    "name, reason",
    [
        ("fifo", "not a regular file"),
        ("socket", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("/dev/tty", "not a regular file"),
        ("folder", "Is a directory"),
        ("gone", "No such file or directory"),
    ],
)
def test_what_is_no_file_is_told_and_not_waited_for(tmp_path, name, reason):
    make_odd(tmp_path)
    with pytest.raises(OSError) as caught:
        streams.regular(str(tmp_path / name))
    assert (caught.value.strerror, caught.value.filename) == (reason, str(tmp_path / name))
    assert caught.value.errno not in streams.SHORTAGE


def test_a_file_is_read_as_any(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(256)) * 1000)
    with streams.regular(str(tmp_path / "a")) as ours, open(tmp_path / "a", "rb") as plain:
        assert ours.read(10) == plain.read(10)
        assert ours.seek(300) == plain.seek(300) and ours.tell() == plain.tell()
        assert np.fromfile(ours, np.uint8, 9).tolist() == np.fromfile(plain, np.uint8, 9).tolist()
        assert ours.read() == plain.read()


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_input(name):
    with pytest.raises(DataError, match=f"{name}: a device"), streams.reading(name):
        pass


def test_a_terminal_is_neither_input_nor_binary_output(tmp_path):
    master, slave = os.openpty()
    try:
        path = os.ttyname(slave)
        with pytest.raises(TerminalError, match=path), streams.reading(path):
            pass
        for name in (path, f"/dev/fd/{slave}"):
            with pytest.raises(TerminalError, match="binary output"):
                write(name, b"bytes")
            write(name, b"text\n", binary=False)
            assert os.read(master, 100) == b"text\r\n"
    finally:
        os.close(master)
        os.close(slave)


# ---- Signals ------------------------------------------------------------------------------------


@contextlib.contextmanager
def signalled_soon():
    """Send this process a signal that interrupts no system call: another thread takes it.

    So does one that comes just before the call: Python has it, and hears of it after the call.
    """

    def send():
        time.sleep(0.3)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    sender = threading.Thread(target=send)
    with processes.stopping():
        sender.start()
        yield
        with contextlib.suppress(processes.Stopped):
            sender.join()
        pytest.fail("it did not wait")


@pytest.fixture
def heard(monkeypatch):
    """Let a signal be a new one."""
    monkeypatch.setattr(processes, "_heard", -float("inf"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("way", ["read a FIFO", "read a pipe", "write a pipe"])
def test_a_signal_ends_a_wait_whenever_it_comes(tmp_path, heard, monkeypatch, way):
    os.mkfifo(tmp_path / "fifo")
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as source, open(write_end, "wb") as sink:
        monkeypatch.setattr(sys, "stdin", source)
        monkeypatch.setattr(sys, "stdout", sink)
        with pytest.raises(processes.Stopped, match="SIGUSR1"), signalled_soon():
            if way == "write a pipe":
                with streams.writing("-") as stream:
                    stream.write(bytes(1 << 20))
            else:
                with streams.reading("-" if way == "read a pipe" else str(tmp_path / "fifo")) as s:
                    s.read()


@pytest.mark.timeout(20)
def test_a_signal_ends_the_wait_for_a_reader(tmp_path, heard):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(processes.Stopped), signalled_soon():
        write(tmp_path / "fifo", b"unheard")


@pytest.mark.timeout(20)
def test_a_signal_that_is_kept_ends_a_wait_for_input(tmp_path, heard):
    """Between two steps nothing is lost; and before the first there are none."""
    os.mkfifo(tmp_path / "fifo")
    with (
        pytest.raises(processes.Stopped, match="SIGUSR1"),
        processes.deferring_stop() as stopping,
    ):
        signal.raise_signal(signal.SIGUSR1)
        assert stopping() == "SIGUSR1"
        with streams.reading(str(tmp_path / "fifo")) as stream:
            stream.read()


def test_a_signal_sent_twice_is_one(heard):
    """timeout(1) sends it to the process, and to its group."""
    with processes.deferring_stop() as stopping:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stopping() == "SIGTERM"
        time.sleep(processes.AGAIN + 0.1)
        with pytest.raises(processes.Stopped):
            signal.raise_signal(signal.SIGTERM)


def test_a_clean_up_is_not_disturbed_by_the_signal_that_comes_with_it(tmp_path, heard):
    with (
        pytest.raises(processes.Stopped),
        processes.stopping(),
        streams.writing(str(tmp_path / "a")),
    ):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
    assert os.listdir(tmp_path) == []


@pytest.mark.timeout(20)
@pytest.mark.parametrize("way", ["reads", "writes a FIFO", "writes a file", "goes on"])
def test_a_signal_that_somebody_made_away_with_is_heard_all_the_same(tmp_path, way):
    """As modules in C do while they are loaded, NumPy's among them."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(processes.Stopped, match="SIGTERM"), processes.stopping():
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
        if way == "reads":
            with streams.reading(str(tmp_path / "fifo")):
                pass
        elif way == "goes on":
            with processes.deferring_stop():
                pass
        else:
            write(tmp_path / {"writes a FIFO": "fifo"}.get(way, "file"), b"")
        pytest.fail("it went on")
    assert os.listdir(tmp_path) == ["fifo"]


# ---- Pipes --------------------------------------------------------------------------------------

DATA = np.random.default_rng(0).bytes(1_000_000)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_pipe_carries_all_whoever_else_set_it_not_to_block(monkeypatch, blocking):
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, blocking)
    os.set_blocking(write_end, blocking)
    got = []

    def read():
        with open(read_end, "rb") as source:
            monkeypatch.setattr(sys, "stdin", source)
            with streams.reading("-") as stream:
                got.append(stream.read(300_000))
                time.sleep(0.2)  # the pipe is full
                got.extend(iter(lambda: stream.read(1000), b""))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with open(write_end, "wb") as sink:
            monkeypatch.setattr(sys, "stdout", sink)
            with streams.writing("-") as stream:
                for start in range(0, len(DATA), 70_001):
                    stream.write(DATA[start : start + 70_001])
                    time.sleep(0.001)  # the pipe is empty
    finally:
        reader.join()
    assert streams.digest(got) == streams.digest(DATA)


@pytest.mark.parametrize("size", [0, 1_000_000])
def test_a_fifo_carries_all(tmp_path, size):
    os.mkfifo(tmp_path / "fifo")
    writer = threading.Thread(target=lambda: write(tmp_path / "fifo", DATA[:size]))
    writer.start()
    with streams.reading(str(tmp_path / "fifo")) as stream:
        assert streams.digest(stream.read()) == streams.digest(DATA[:size])
    writer.join()


def test_a_pipe_whose_writer_has_gone_is_not_waited_for():
    read_end, write_end = os.pipe()
    os.close(write_end)
    try:
        with streams.reading(f"/dev/fd/{read_end}") as stream:
            assert stream.read() == b""
    finally:
        os.close(read_end)


def test_what_failed_to_go_out_is_not_tried_again(monkeypatch):
    """The rest of a stream that failed does not come out at the end of the process."""
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as source:
        with open(write_end, "wb") as sink:
            monkeypatch.setattr(sys, "stdout", sink)
            with pytest.raises(ValueError), streams.writing("-") as stream:
                stream.write(b"half")
                raise ValueError
        assert source.read() == b""


# ---- What a killed process leaves ---------------------------------------------------------------

MAKERS = ["writing", "writing_folder", "temporary_folder"]
BEGIN = """
import os, sys, time
from ssl_common import streams
with getattr(streams, sys.argv[1])("a"):
    if not os.fork():  # as workers are, which live on for a while
        sys.stdin.read()
        os._exit(0)
    print("ready", flush=True)
    time.sleep(600)
"""


def begun(folder, maker):
    """Start a process that is making "a" in FOLDER, and return it."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN, maker],
        cwd=folder, env=environment({"TMPDIR": str(folder)}),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == b"ready\n"
    return process


def killed(process):
    process.kill()
    process.wait()


@pytest.mark.parametrize("maker", MAKERS)
def test_what_a_killed_process_left_goes_when_the_same_is_made(tmp_path, monkeypatch, maker):
    def partials_beside(target):
        """Make TARGET here; return what was in the making meanwhile, but for it."""
        with getattr(streams, maker)(target):
            names = {name for name in os.listdir() if name.endswith(".partial")}
        return names & before

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    one, other = (begun(tmp_path, maker) for _ in range(2))
    before = set(os.listdir())
    assert len(before) == 2
    killed(one)
    assert partials_beside("b") == before
    assert len(partials_beside("a")) == 1
    killed(other)
    time.sleep(1)  # where the machine is busy, its lock is let go of a moment later
    if maker == "writing_folder":
        os.rmdir("a")  # it is new, or empty
    assert not partials_beside("a")


def test_what_is_not_ours_stays(tmp_path, monkeypatch):
    """Names like those of ours: a link, a folder with a file, another's file, one that is held."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "precious").write_bytes(b"kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/precious").write_bytes(b"kept")
    ending = ".0123456789abcde{}.partial"
    (tmp_path / f"a{ending.format(0)}").symlink_to("precious")
    (tmp_path / f"a{ending.format(1)}").symlink_to("folder")
    os.mkfifo(tmp_path / f"a{ending.format(2)}")
    for name in ("a.partial", f"a.{os.getpid()}.partial", "a.0123.partial", "a", "a.npy.partial"):
        (tmp_path / name).write_bytes(b"kept")
    (tmp_path / f"a.{os.getppid()}.partial").mkdir()
    if os.geteuid() == 0:
        (tmp_path / f"a{ending.format(3)}").write_bytes(b"another's")
        os.chown(tmp_path / f"a{ending.format(3)}", 1234, 4321)
    before = sorted(os.listdir())
    write("a", b"new")
    assert sorted(os.listdir()) == before
    assert (tmp_path / "precious").read_bytes() == b"kept"
    assert (tmp_path / "folder/precious").read_bytes() == b"kept"


def test_without_locks_nothing_is_taken_for_left(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with streams.writing(str(tmp_path / "a")) as first, streams.writing(str(tmp_path / "a")) as one:
        first.write(b"first")
        one.write(b"one")
    assert (tmp_path / "a").read_bytes() == b"first" and os.listdir(tmp_path) == ["a"]


def test_a_name_that_is_taken_is_left_alone(tmp_path, monkeypatch):
    """A name is drawn; where it is there nevertheless, no link is followed and nothing removed."""
    monkeypatch.setattr(os, "urandom", bytes)
    (tmp_path / "precious").write_bytes(b"kept")
    planted = tmp_path / f"a.{'0' * 16}.partial"
    planted.symlink_to("precious")
    for maker in (streams.writing, streams.writing_folder):
        with pytest.raises(FileExistsError), maker(str(tmp_path / "a")):
            pass
    assert planted.is_symlink() and (tmp_path / "precious").read_bytes() == b"kept"


def test_one_that_is_taken_for_left_before_it_is_locked_is_made_anew(tmp_path, monkeypatch):
    """Another process that begins the same may see it first."""
    locks, flock = [], fcntl.flock

    def quicker(descriptor, how):
        if not locks:
            locks.append(descriptor)
            (name,) = os.listdir(tmp_path)
            partials._remove_left(str(tmp_path / name), False)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", quicker)
    write(tmp_path / "a", b"new")
    assert locks and os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"new"


def test_a_temporary_folder_goes_with_what_a_dying_process_puts_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    removes, late = os.rmdir, []

    def rmdir(path, **options):
        if not late:  # between the last file and the folder
            late.append(next(tmp_path.iterdir()) / "0.pid")
            late[0].write_text("1")
        removes(path, **options)

    with streams.temporary_folder("ranks") as folder:
        monkeypatch.setattr(os, "rmdir", rmdir)
    assert late and not os.path.exists(folder) and not list(tmp_path.iterdir())


def test_an_empty_folder_that_is_replaced_keeps_its_mode(tmp_path):
    (tmp_path / "a").mkdir(0o700)
    with streams.writing_folder(str(tmp_path / "a")) as folder:
        write(os.path.join(folder, "b"), b"new")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert os.listdir(tmp_path / "a") == ["b"]
