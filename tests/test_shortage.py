"""What the machine lacks: told as such in one line, whatever met it, and nothing half written."""

import errno
import os
import resource
import signal
import subprocess

import pytest
from conftest import BIN, environment
from test_cli import call, program, stopped

from ssl_common import shortage
from ssl_common.streams import DataError

MB = 1 << 20


def limited(memory=0, files=0):
    """Return what limits a process, before it starts, to so much MEMORY and so many FILES."""

    def limit():
        for number, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_NOFILE, files)):
            if most:
                resource.setrlimit(number, (most, most))

    return limit


def raised(error, cause=None):
    try:
        raise error from cause
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    "error, words",
    [
        (MemoryError(), "not enough memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory", "a.npy"), "not enough memory"),
        (ImportError("libx.so: failed to map segment from shared object"), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "not enough"),
        (RuntimeError("unable to mmap 44 bytes from file <a>: Cannot allocate"), "not enough"),
        (ImportError("READ THIS\n\nOriginal error: a.so: failed to map segment"), "not enough"),
        (raised(KeyError("x"), MemoryError("Unable to allocate 9 GiB")), "not enough memory: Un"),
        (OSError(errno.EMFILE, "Too many open files", "a.jpg"), "too many open files"),
        (OSError("a.so: cannot open shared object file: Too many open files"), "too many open"),
        (RuntimeError("can't start new thread"), "no more threads or processes"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "no more threads"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a"), None),
        (ImportError("a.so: cannot allocate memory in static TLS block"), None),
        (ModuleNotFoundError("No module named 'matplotlib'"), None),
        (raised(OSError(errno.ENOENT, "No such file"), MemoryError()), None),
        (ValueError("a memory of it"), None),
    ],
)
def test_a_shortage_is_known_by_its_number_or_what_libraries_say(error, words):
    found = shortage.lacking(error)
    assert found is None if words is None else found.startswith(words) and "\n" not in found


def test_the_limit_that_is_set_is_named(tmp_path):
    done = call(tmp_path, "raise MemoryError", preexec_fn=limited(memory=900 * MB))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "demo: not enough memory (ulimit -v is 921600)\n"
    done = call(tmp_path, "[open('demo.py') for _ in range(99)]", preexec_fn=limited(files=60))
    assert (done.returncode, done.stderr) == (1, "demo: too many open files (ulimit -n is 60)\n")


LIBRARY = "import ctypes; library = ctypes.CDLL(None)\n"


@pytest.mark.parametrize(
    "death, line",
    [
        (
            "library.exit(1)",
            "ended with status 1, for want of memory perhaps (ulimit -v is 921600)",
        ),
        ("library._exit(127)", "ended with status 127, for want of memory perhaps"),
        ("library.abort()", "was ended by SIGABRT, for want of memory perhaps"),
        (
            "os.write(2, b'BLAS: one\\nBLAS: Memory allocation failed\\n'); library.exit(1)",
            "not enough memory: BLAS: Memory allocation failed (ulimit -v is 921600)",
        ),
        (  # OpenBLAS, where it gets no thread
            "os.write(2, b'resource temporarily unavailable'); os.kill(os.getpid(), 2); input()",
            "no more threads or processes: resource temporarily unavailable",
        ),
    ],
)
def test_a_library_that_ends_the_process_leaves_one_line_and_no_half_file(tmp_path, death, line):
    body = LIBRARY + "with streams.writing(output) as stream:\n    stream.write(b'half')\n    "
    (tmp_path / "out").write_text("old")
    limit = limited(memory=900 * MB)
    done = call(tmp_path, body + death, "-o", "out", preexec_fn=limit)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"demo: {line}") and done.stderr.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["demo.py", "out"]
    assert (tmp_path / "out").read_text() == "old"


def test_a_limit_changes_nothing_else(tmp_path):
    """Not status, talk and data; a signal is passed on; what libraries say is kept back."""
    limit = limited(memory=900 * MB)
    body = "os.write(2, b'a warning of a library\\n'); click.echo('data'); cli.say('done')"
    done = call(tmp_path, body, preexec_fn=limit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "data\n", "demo: done\n")
    done = call(tmp_path, "raise click.UsageError('no')", preexec_fn=limit)
    assert (done.returncode, done.stderr) == (2, "demo: no (see demo --help)\n")
    done = call(tmp_path, "raise streams.DataError('bad')", preexec_fn=limit)
    assert (done.returncode, done.stderr) == (1, "demo: bad\n")
    status, said = stopped(tmp_path, signal.SIGTERM, preexec_fn=limit)
    assert (status, said) == (75, "demo: stopped by SIGTERM: run it again to go on\n")
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:  # nobody listens
        argv = program(tmp_path, "cli.say('done'); click.echo('data')")
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=write_end, env=environment(), preexec_fn=limit
        )
    finally:
        os.close(write_end)
    assert (done.returncode, done.stdout) == (0, b"data\n")


@pytest.mark.parametrize("name", ["report", "make-scenes", "train-svm"])
def test_under_a_limit_of_memory_it_is_done_or_says_so_in_one_line(name, scratch):
    """Whatever is refused it: an import, OpenBLAS, matplotlib, torch, a child."""
    words, limits = {
        "report": ("results.jsonl --plot new.png -o new.md", (40, 90, 120, 150, 170, 200)),
        "make-scenes": ("-n 4 -j 2 -o new", (60, 100, 130, 150, 175, 190)),
        "train-svm": ("train.npy train.tsv -o new", (100, 400, 1500)),
    }[name]
    before = sorted(os.listdir(scratch))
    for limit in limits:
        done = subprocess.run(
            [BIN / name, *words.split()], cwd=scratch, env=environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, preexec_fn=limited(memory=limit * MB),
        )  # fmt: skip
        assert done.stderr.count("\n") == 1 and done.stderr.startswith(f"{name}: "), done.stderr
        if done.returncode == 0:
            break  # so much is enough here
        assert done.returncode == 1
        assert any(kind.words in done.stderr for kind in shortage.KINDS), done.stderr
        assert sorted(os.listdir(scratch)) == before
    assert limit > limits[0]  # the first was never enough


def test_bad_data_is_not_held_against_the_machine(tmp_path):
    assert shortage.lacking(DataError("a.npy: 4 rows")) is None
    done = call(tmp_path, "raise streams.DataError('a') from MemoryError()")
    assert done.stderr == "demo: a\n"
