"""What every command is made of: errors in one line, signals, progress."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import click
import pytest
from conftest import environment

from ssl_common import cli
from ssl_common.cli import talk


def program(tmp_path, body):
    """Write the command `demo`, whose body is BODY, and return its argv."""
    path = tmp_path / "demo.py"
    head = """\
        import os, sys, time
        import click
        from ssl_common import cli, streams

        @cli.command("demo")
        @cli.output_option
        def main(output):
            "Demonstrate."
        """
    text = textwrap.dedent(head) + textwrap.indent(textwrap.dedent(body), "    ")
    path.write_text(text + '\n\nif __name__ == "__main__":\n    main()\n')
    return [sys.executable, str(path)]


def call(tmp_path, body, *options, **extra):
    return subprocess.run(
        [*program(tmp_path, body), *options],
        cwd=tmp_path,
        env=environment({"PYTHONPATH": str(pathlib.Path(cli.__file__).parents[2])}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **extra,
    )


def test_success_says_one_line(tmp_path):
    done = call(tmp_path, "click.echo('data'); cli.say('done')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "data\n", "demo: done\n")
    done = call(tmp_path, "click.echo('data'); cli.say('done')", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "data\n", "")


@pytest.mark.parametrize(
    "body, status, message",
    [
        ("raise streams.DataError('a.tsv:3: two\\nlines')", 1, "a.tsv:3: two lines"),
        ("open('no/such')", 1, "no/such: No such file or directory"),
        ("raise OSError('odd')", 1, "standard output: odd"),
        ("raise MemoryError", 1, "not enough memory"),
        ("{}['x']", 1, "internal error, see it whole with --debug: KeyError: 'x'"),
        ("raise click.BadParameter('no')", 2, "Invalid value: no (see demo --help)"),
        ("raise streams.TerminalError('a terminal')", 2, "a terminal (see demo --help)"),
        ("raise KeyboardInterrupt", 75, "stopped by SIGINT: run it again to go on"),
        ("raise BrokenPipeError", 1, None),
    ],
)
def test_an_error_is_one_line_and_its_status(tmp_path, body, status, message):
    done = call(tmp_path, body)
    expected = "" if message is None else f"demo: {message}\n"
    assert (done.returncode, done.stderr) == (status, expected)


@pytest.mark.parametrize("body", ["{}['x']", "raise streams.DataError('bad')", "open('no/such')"])
def test_debug_shows_where(tmp_path, body):
    done = call(tmp_path, body, "--debug")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback") and body in done.stderr
    assert done.stderr.splitlines()[-1].startswith("demo: ")


def test_what_was_printed_before_an_error_does_not_fail_a_second_time(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            program(tmp_path, "click.echo('x' * 100_000)\nraise ValueError('y')"),
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "Exception ignored" not in done.stderr


def stopped(tmp_path, *signals, **extra):
    """Stop a command that is writing out.bin by SIGNALS; return it, ended."""
    body = """\
        with streams.writing(output) as stream:
            stream.write(b"half")
            stream.flush()
            click.echo("ready")
            sys.stdout.flush()
            time.sleep(60)
        """
    process = subprocess.Popen(
        [*program(tmp_path, body), "-o", "out.bin"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **extra,
    )
    assert process.stdout.readline() == "ready\n"
    for number in signals:
        process.send_signal(number)
    _stdout, stderr = process.communicate(timeout=50)
    return process.returncode, stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_stops_it_with_75_and_no_half_file(tmp_path, number):
    (tmp_path / "out.bin").write_bytes(b"old")
    status, stderr = stopped(tmp_path, number)
    line = f"demo: stopped by {number.name}: run it again to go on\n"
    assert (status, stderr) == (75, line)
    assert (tmp_path / "out.bin").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["demo.py", "out.bin"]


def test_an_ignored_signal_stays_ignored(tmp_path):
    """nohup ignores SIGHUP for its command: only the second signal stops it."""

    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    status, stderr = stopped(tmp_path, signal.SIGHUP, signal.SIGTERM, preexec_fn=ignore)
    assert status == 75 and "SIGTERM" in stderr


@pytest.mark.parametrize(
    "body, expected",
    [
        ("os.kill(os.getpid(), 15)\ncli.say('done')", (75, "stopped by SIGTERM")),
        ("cli.say('done')\nos.kill(os.getpid(), 15)", (0, "done")),
        ("cli.say('done')\natexit.register(os.kill, os.getpid(), 15)", (0, "done")),
        ("cli.say('done')\natexit.register(os.kill, os.getpid(), 2)", (0, "done")),
        ("atexit.register(os.kill, os.getpid(), 15)\nraise streams.DataError('x')", (1, "x")),
        ("atexit.register(os.kill, os.getpid(), 2)\nraise click.UsageError('x')", (2, "x (see")),
        ("atexit.register(os.kill, os.getpid(), 1)\nos.kill(os.getpid(), 15)", (75, "stopped by")),
        # A library may make another error of it.
        ("try:\n    os.kill(os.getpid(), 2)\nexcept BaseException:\n    {}['x']", (75, "stopped")),
    ],
)
def test_a_signal_at_the_end_is_in_time_or_too_late(tmp_path, body, expected):
    """All is written when it comes: the status is 0 or 75, and there is one line."""
    writing = "import atexit\nwith streams.writing(output) as stream:\n    stream.write(b'all')\n"
    done = call(tmp_path, writing + body, "-o", "out.bin")
    status, said = expected
    assert done.returncode == status and done.stderr.startswith(f"demo: {said}")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "out.bin").read_bytes() == b"all"


def test_what_python_ignores_is_no_second_line(tmp_path):
    body = "class Late:\n    def __del__(self):\n        {}['x']\nLate()\ncli.say('done')"
    done = call(tmp_path, body)
    assert (done.returncode, done.stderr) == (0, "demo: done\n")
    assert "KeyError" in call(tmp_path, body, "--debug").stderr


def test_a_signal_while_the_command_line_is_read(tmp_path):
    body = program(tmp_path, "pass")[1]
    option = "@click.option('--x', callback=lambda *_: os.kill(os.getpid(), 15))\n"
    text = pathlib.Path(body).read_text()
    pathlib.Path(body).write_text(
        text.replace("@cli.output_option\n", option + "@cli.output_option\n").replace(
            "def main(", "def main(x, "
        )
    )
    done = subprocess.run(
        [sys.executable, body], env=environment(), capture_output=True, text=True, check=False
    )
    line = "demo: stopped by SIGTERM: run it again to go on\n"
    assert (done.returncode, done.stderr) == (75, line)


def test_ctrl_c_while_a_command_is_loaded(tmp_path):
    """It comes while the first module beside its own is imported."""
    (tmp_path / "click").mkdir()
    (tmp_path / "click/__init__.py").write_text("import os\nos.kill(os.getpid(), 2)\n")
    done = subprocess.run(
        [sys.executable, "-c", "from ssl_tools.report import main"],
        env=environment({"PYTHONPATH": str(tmp_path)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (75, "-c: stopped by SIGINT: run it again to go on\n")


def test_a_failure_is_told_where_no_more_files_can_be_opened(tmp_path):
    body = """\
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        opened = [os.dup(0) for _ in range(20 - len(os.listdir("/proc/self/fd")) + 1)]
        open("one more")
        """
    done = call(tmp_path, body)
    assert (done.returncode, done.stderr) == (1, "demo: too many open files (ulimit -n is 20)\n")


class Clock:
    """A clock that a test moves."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def shown(monkeypatch):
    """Return show(steps): what Progress says for steps of (seconds, done, total)."""

    def show(steps, terminal=False, quiet=False):
        clock, said = Clock(), []
        monkeypatch.setattr(talk.time, "monotonic", clock.monotonic)
        monkeypatch.setattr(talk.sys.stderr, "isatty", lambda: terminal, raising=False)
        monkeypatch.setattr(talk.click, "echo", lambda text, err, nl: said.append(text))
        with click.Context(click.Command("demo")) as context:
            context.meta["quiet"] = quiet
            with cli.Progress("images") as progress:
                for seconds, done, total in steps:
                    clock.now = 1000 + seconds
                    progress(done, total)
        return said

    return show


def test_progress_off_a_terminal_is_a_line_a_minute(shown):
    said = shown([(seconds, seconds * 10, 6000) for seconds in range(1, 200)])
    assert len(said) == 3
    # The clock started at 0, the count at 10: 590 in 60 seconds.
    assert said[0] == "demo: 600 of 6,000 images, 9.8/s, 9 min left\n"
    assert all(line.startswith("demo: ") and line.endswith("\n") for line in said)


def test_progress_on_a_terminal_is_one_line_wiped_at_the_end(shown):
    said = shown([(seconds, seconds * 10, 60) for seconds in range(1, 6)], terminal=True)
    assert len(said) == 6
    assert all(text.startswith("\r\x1b[K") and "\n" not in text for text in said)
    assert said[-1] == "\r\x1b[K"


def test_progress_is_not_shown_when_quiet_or_quick(shown):
    assert shown([(200, 5, 10)], quiet=True) == []
    assert shown([(5, 5, 10), (50, 10, 10)]) == []
    assert shown([(0.1, 5, 10)], terminal=True) == []


def test_progress_of_a_resumed_run_counts_its_own_work(shown):
    said = shown([(1, 900, 1000), (101, 950, 1000)])
    assert said == ["demo: 950 of 1,000 images, 0.5/s, 2 min left\n"]
    said = shown([(1, 0, 100), (401, 3, 100)])
    assert said == ["demo: 3 of 100 images, 0.0075/s, 3 h 36 min left\n"]


def test_progress_without_a_total(shown):
    said = shown([(1, 0, None), (100, 100, None)])
    assert len(said) == 1 and " of " not in said[0] and "left" not in said[0]


@pytest.mark.parametrize(
    "seconds, text",
    [(12, "12 s"), (90, "2 min"), (7140, "119 min"), (18_600, "5 h 10 min"), (270_000, "3 d 3 h")],
)
def test_clock(seconds, text):
    assert talk._clock(seconds) == text
