"""Every installed command, as a real process, held to the contract. A new command: one line below.

The command names come from setup.py; EXAMPLES says how each is called in the folder `scratch`.
"""

import ast
import contextlib
import importlib
import json
import os
import pathlib
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import click
import pytest
from conftest import BIN, CHECKOUT, VERSION, cold, environment, once, process


class Example(NamedTuple):
    """A working command line. INPUT is the file in it that may come from a pipe instead."""

    line: str
    input: str | None = None
    binary: bool = False
    product: str | None = None  # the name after -o, where the command has no other way


EXAMPLES = {
    "make-permutations": Example("-n 12", binary=True),
    "make-color-bins": Example("-j 0 train.tsv", "train.tsv", binary=True),
    "sample-yfcc": Example("-n 10 listing.tsv", "listing.tsv"),
    "list-images": Example("voc VOCdevkit/VOC2007 --split trainval"),
    "pack-images": Example("-o new.tar train.tsv", "train.tsv", product="new.tar"),
    "list-objects": Example("voc VOCdevkit/VOC2007 --split trainval"),
    "make-scenes": Example("-n 4 -j 0 -o new", product="new"),
    "list-pairs": Example("folder views normals"),
    "unpack-nyuv2": Example("normals.pklz -o new", product="new"),
    "make-normals": Example(
        "--intrinsics 90,90,48,40 -k 3 -j 0 -o new depth.tsv", "depth.tsv", product="new"
    ),
    "pretrain": Example(
        "jigsaw --permutations p4.npy --iterations 2 --batch 4 -j 0 -o new.pt train.tsv",
        "train.tsv",
        product="new.pt",
    ),
    "show-pretext": Example(
        "jigsaw --permutations p4.npy photos/cat/0.jpg photos/dog/0.jpg", binary=True
    ),
    "convert-weights": Example("caffenet.pkl", "caffenet.pkl", binary=True),
    "extract-features": Example(
        "random:alexnet --layer conv5 -j 0 test.tsv", "test.tsv", binary=True
    ),
    "sample-low-shot": Example("-k 1,2 --samples 1 -o new train.tsv", "train.tsv", product="new"),
    "train-svm": Example("train.npy train.tsv", "train.tsv", binary=True),
    "eval-svm": Example("svm.npz test.npy test.tsv", "test.tsv"),
    "train-linear": Example(
        "random:caffenet --cache --iterations 1 --batch 4 -j 0 -o new.pt train.tsv",
        "train.tsv",
        product="new.pt",
    ),
    "eval-linear": Example("linear.pt -j 0 test.tsv", "test.tsv"),
    "finetune": Example(
        "random:caffenet --fc 8 --iterations 1 --batch 2 -j 0 -o new.pt train.tsv",
        "train.tsv",
        product="new.pt",
    ),
    "eval-finetune": Example("tuned.pt --crops 2 -j 0 test.tsv", "test.tsv"),
    "train-detector": Example(
        "random:caffenet --head faster --size 64 --fc 16 --iterations 1 -j 0 -o new.pt"
        " objects.jsonl",
        "objects.jsonl",
        product="new.pt",
    ),
    "detect": Example("detector.pt -j 0 objects.jsonl", "objects.jsonl"),
    "make-proposals": Example("--from proposals.pkl objects.jsonl", "objects.jsonl", binary=True),
    "eval-detections": Example("detections.jsonl objects.jsonl", "objects.jsonl"),
    "show-detections": Example("detections.jsonl --objects objects.jsonl", binary=True),
    "train-normals": Example(
        "random:caffenet --sides 80 --codes 2 --iterations 1 --batch 4 -j 0 -o new.pt views.tsv",
        "views.tsv",
        product="new.pt",
    ),
    "eval-normals": Example("normals.pt -j 0 views-test.tsv", "views-test.tsv"),
    "show-normals": Example("normals.pt -n 1 views-test.tsv", "views-test.tsv", binary=True),
    "fit-scaling": Example("results.jsonl --against seed", "results.jsonl"),
    "record-navigation": Example(
        "--env-command 'python corridor.py' -n 2 -j 0 -o new", product="new"
    ),
    "train-navigator": Example(
        "thumbnail --runs 1 --iterations 1 --batch 4 -j 0 -o new.pt frames.tsv",
        "frames.tsv",
        product="new.pt",
    ),
    "eval-navigator": Example("navigator.pt --env-command 'python corridor.py' -n 1 --max-steps 9"),
    "report": Example("results.jsonl", "results.jsonl"),
}


def listed():
    """Return the list COMMANDS of setup.py."""
    for node in ast.parse((CHECKOUT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "COMMANDS":
            return ast.literal_eval(node.value)
    raise AssertionError("setup.py has no list COMMANDS")


COMMANDS = listed()
every = pytest.mark.parametrize("command", COMMANDS)
PIPED = [c for c in COMMANDS if c in EXAMPLES and EXAMPLES[c].input]
BINARY = [c for c in COMMANDS if c in EXAMPLES and EXAMPLES[c].binary]
NAMED = [c for c in COMMANDS if c in EXAMPLES and not EXAMPLES[c].product]
# The checks of what commands share try those without torch, and of the others a few.
QUICK = {"make-permutations", "sample-yfcc", "list-images", "make-scenes", "sample-low-shot"}
QUICK |= (
    {"pack-images", "eval-svm", "report"}
    | {"train-svm", "pretrain"}
    | {"list-objects", "eval-detections"}
)


def most(commands):
    """Parametrize a test over COMMANDS: those that are not QUICK are slow."""
    rows = [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in commands]
    return pytest.mark.parametrize("command", rows)


def argv(command):
    return [command, *shlex.split(EXAMPLES[command].line)]


def module(command):
    return command.replace("-", "_")


def one_line(done, command):
    """Check that DONE said one line on stderr, in the name of COMMAND; return it."""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, done.stderr.decode()
    assert lines[0].startswith(f"{command}: ")
    return lines[0]


def same(data):
    """Return DATA as two runs must have it alike: what may differ is the clock and the argv."""
    if not data.startswith(b"{"):
        return data
    records = [json.loads(line) for line in data.splitlines()]
    return [
        {k: v for k, v in record.items() if k != "argv" and not k.startswith("time_")}
        for record in records
    ]


def content(path):
    """Return the bytes of the file PATH, or those of each file in the folder PATH by its name."""
    if not path.is_dir():
        return path.read_bytes()
    files = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    assert files
    return files


class Reference(NamedTuple):
    """What the example of a command said and wrote; PRODUCT is {name: bytes} of it, or bytes."""

    stdout: bytes
    stderr: bytes
    product: object


@pytest.fixture
def reference(scratch_template, tmp_path_factory):
    """Return a function that gives the Reference of a command: one run for all that look at it."""

    def reference(command):
        def make():
            folder = tmp_path_factory.mktemp(command) / "scratch"
            shutil.copytree(scratch_template, folder)
            done = cold(argv(command), folder)
            assert done.returncode == 0, done.stderr.decode()
            product = EXAMPLES[command].product
            assert not list(folder.rglob("*.partial"))
            written = content(folder / product) if product else None
            return Reference(done.stdout, done.stderr, written)

        return once(tmp_path_factory, f"reference-{command}", make)

    return reference


# ---- The lists --------------------------------------------------------------------------------


def test_the_lists_of_commands_are_equal():
    def stems(pattern):
        return {path.stem for path in CHECKOUT.glob(pattern)}

    assert len(set(COMMANDS)) == len(COMMANDS)
    modules = {module(command) for command in COMMANDS}
    assert stems("tools/*.py") - {"__init__"} == modules
    assert stems("man/*.1") == set(COMMANDS)
    assert {f"test_{name}" for name in modules} <= stems("tests/test_*.py")
    assert set(EXAMPLES) == set(COMMANDS)


@every
def test_it_is_installed_and_runs_as_a_module(command, run):
    assert os.access(BIN / command, os.X_OK)
    done = run("python", "-m", f"ssl_tools.{module(command)}", "--version", check=0)
    assert done.stdout.decode() == f"{command} {VERSION}\n"


@every
def test_every_option_says_what_it_is_for_and_stands_in_the_manual(command):
    tool = importlib.import_module(f"ssl_tools.{module(command)}").main
    page = (CHECKOUT / f"man/{command}.1").read_text(encoding="utf-8").replace("\\-", "-")
    context = click.Context(tool, help_option_names=["-h", "--help"])
    options = [p for p in tool.get_params(context) if isinstance(p, click.Option)]
    assert {"--help", "--version", "--quiet", "--debug"} <= {o for p in options for o in p.opts}
    for option in options:
        assert option.help, option.opts
        for name in [*option.opts, *option.secondary_opts]:
            assert re.search(rf"(?<![\w-]){name}(?![\w-])", page), name


# ---- Help, version, usage ---------------------------------------------------------------------

HEAVY = ("torch", "torchvision", "sklearn", "scipy", "matplotlib")


@every
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_light_and_starts_with_an_example(command, option, run):
    body = f"""
import sys
from ssl_tools.{module(command)} import main
try:
    main(['{option}'])
except SystemExit as end:
    heavy = [name for name in {HEAVY} if name in sys.modules]
    sys.exit(end.code or ' '.join(heavy) or 0)
"""
    done = run("python", "-c", body, check=0)
    assert done.stderr == b""
    text = done.stdout.decode()
    assert text.startswith(f"Usage: {command} [OPTIONS]")
    assert re.search(rf"^  {command} ", text, re.MULTILINE), "no example"
    assert all(len(line) <= 80 for line in text.splitlines())


@every
@pytest.mark.parametrize("option", ["-h", "--help", "--version"])
def test_help_and_version_as_a_process(command, option, tmp_path):
    done = cold([command, option], tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    if option == "--version":
        assert done.stdout.decode() == f"{command} {VERSION}\n"
    else:
        assert done.stdout.startswith(b"Usage: ")


@every
def test_a_bad_option_is_2_in_one_line(command, tmp_path):
    done = cold([command, "--no-such-option"], tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert "--no-such-option" in one_line(done, command)


@contextlib.contextmanager
def terminal():
    """Yield the slave of a new terminal, and a list that gets what was written on it."""
    master, slave = pty.openpty()
    written = []

    def read():
        with contextlib.suppress(OSError):  # EIO: the last slave was closed
            while data := os.read(master, 1 << 16):
                written.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield slave, written
    finally:
        os.close(slave)
        reader.join()
        os.close(master)


@every
def test_nothing_at_all_at_a_terminal_is_2(command, tmp_path):
    with terminal() as (tty, written):
        done = process([command], tmp_path, stdin=tty, stdout=tty)
    assert done.returncode == 2
    one_line(done, command)
    assert written == []


@pytest.mark.parametrize("command", PIPED)
def test_it_does_not_wait_for_a_terminal(command, scratch):
    without = [word for word in argv(command) if word != EXAMPLES[command].input]
    with terminal() as (tty, _written):
        done = process(without, scratch, stdin=tty)
    assert done.returncode == 2
    assert done.stdout == b""
    one_line(done, command)


@pytest.mark.parametrize("words", [[], ["-o", "/dev/stdout"]], ids=["-", "/dev/stdout"])
@most(BINARY)
def test_binary_output_to_a_terminal_is_refused(command, words, scratch):
    with terminal() as (tty, written):
        done = process([*argv(command), *words], scratch, stdout=tty)
    assert done.returncode == 2
    assert "-o" in one_line(done, command)
    assert written == []


# ---- Failures ---------------------------------------------------------------------------------


def inputs():
    """Yield (command, word) for each word of the examples that names a file which is read."""
    for command, example in EXAMPLES.items():
        for word in shlex.split(example.line):
            if re.search(r"[/.]\w+$", word) and word != example.product:
                yield command, word


@pytest.mark.parametrize("command, word", list(inputs()))
def test_a_missing_file_is_named_and_nothing_is_lost(command, word, scratch, run):
    wrong = ["no-such-file" if each == word else each for each in argv(command)]
    if command in NAMED:
        wrong += ["-o", "new"]
    product = EXAMPLES[command].product or "new"
    if command in NAMED:
        (scratch / product).write_bytes(b"old")
    before = sorted(os.listdir(scratch))
    done = run(*wrong, check=1)
    assert "no-such-file" in one_line(done, command)
    assert done.stdout == b""
    assert sorted(os.listdir(scratch)) == before
    if command in NAMED:
        assert (scratch / product).read_bytes() == b"old"


@pytest.mark.parametrize("way", ["stdout", "-o"])
@most(COMMANDS)
def test_a_full_disk_is_1_in_one_line(command, way, scratch):
    with open("/dev/full", "wb") as full:
        if way == "stdout":
            done = process(argv(command), scratch, stdout=full)
        elif command in NAMED:
            done = process([*argv(command), "-o", "/dev/full"], scratch)
        else:
            pytest.skip("its output is always a file of its own")
    assert done.returncode == 1
    line = one_line(done, command)
    assert "No space left" in line
    assert ("standard output" if way == "stdout" else "/dev/full") in line


@most(COMMANDS)
def test_a_disk_full_half_way_leaves_what_was_there(command, scratch):
    product = EXAMPLES[command].product
    given = argv(command) if product else [*argv(command), "-o", "new"]
    if not product:
        (scratch / "new").write_bytes(b"old")
    before = sorted(os.listdir(scratch))
    done = process(given, scratch, largest=100)
    assert done.returncode == 1, done.stderr.decode()
    assert "File too large" in one_line(done, command)
    if product:
        assert not (scratch / product).exists()
    else:
        assert (scratch / "new").read_bytes() == b"old"
        assert sorted(os.listdir(scratch)) == before
    assert not list(scratch.rglob("*.partial"))


def without(*numbers):
    """Return what closes the descriptors NUMBERS of a process that is about to begin."""
    return {"preexec_fn": lambda: [os.close(number) for number in numbers]}


@most(COMMANDS)
def test_a_stream_that_is_closed_is_missed_only_where_it_is_used(command, scratch, reference):
    """Standard output by its data alone; no file takes the place of a stream."""
    before = sorted(os.listdir(scratch))
    refused = process(argv(command), scratch, **without(1))
    assert refused.returncode == 1
    assert "standard output: not open for writing" in one_line(refused, command)
    assert sorted(os.listdir(scratch)) == before
    if command in NAMED:
        named = process([*argv(command), "-o", "new"], scratch, **without(0, 1, 2))
        assert named.returncode == 0
        assert same((scratch / "new").read_bytes()) == same(reference(command).stdout)
    else:
        done = process(argv(command), scratch, **without(0, 2))
        assert done.returncode == 0
        assert same(done.stdout) == same(reference(command).stdout)


@pytest.mark.parametrize("way", ["closed", "open for writing only"])
@most(PIPED)
def test_a_standard_input_that_cannot_be_read_is_named(command, way, scratch):
    words = ["-" if word == EXAMPLES[command].input else word for word in argv(command)]
    before = sorted(os.listdir(scratch))
    with open(os.devnull, "wb") as sink:
        how = without(0) if way == "closed" else {"stdin": sink}
        done = process(words, scratch, **how)
    assert done.returncode == 1 and done.stdout == b""
    assert "standard input: not open for reading" in one_line(done, command)
    assert sorted(os.listdir(scratch)) == before


@every
def test_an_output_that_has_no_place_is_known_before_any_work(command, scratch):
    given = argv(command)
    if product := EXAMPLES[command].product:
        given = [f"no/{product}" if word == product else word for word in given]
    else:
        given += ["-o", "no/new"]
    before = sorted(os.listdir(scratch))
    done = process(given, scratch)
    assert done.returncode == 1 and done.stdout == b""
    assert re.search(r": no/\S+: No such file or directory$", one_line(done, command))
    assert sorted(os.listdir(scratch)) == before


@most(COMMANDS)
def test_a_reader_that_left_is_no_news(command, scratch):
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = process(argv(command), scratch, stdout=write_end)
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (1, b"")


@most(COMMANDS)
def test_a_listener_that_left_changes_nothing(command, scratch, reference):
    """With nobody on stderr, the data still comes and the status is that of success."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = process(argv(command), scratch, stderr=write_end)
    finally:
        os.close(write_end)
    assert done.returncode == 0
    assert same(done.stdout) == same(reference(command).stdout)


@most(NAMED)
def test_ctrl_c_is_75_in_one_line(command, scratch):
    """While it waits for a reader of its output, where it cannot be done before we are."""
    os.mkfifo(scratch / "fifo")
    before = sorted(os.listdir(scratch))
    with subprocess.Popen(
        [str(BIN / command), *argv(command)[1:], "-o", "fifo"],
        cwd=scratch, env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        while not listens(process.pid):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert (process.returncode, said.decode()) == (
        75,
        f"{command}: stopped by SIGINT: run it again to go on\n",
    )
    assert sorted(os.listdir(scratch)) == before


@most(PIPED)
def test_ctrl_c_ends_the_wait_for_an_input(command, scratch):
    os.mkfifo(scratch / "fifo")
    given = ["fifo" if word == EXAMPLES[command].input else word for word in argv(command)]
    before = sorted(os.listdir(scratch))
    process = subprocess.Popen(
        [str(BIN / command), *given[1:]],
        cwd=scratch, env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not listens(process.pid):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1].decode()
    line = f"{command}: stopped by SIGINT: run it again to go on\n"
    assert (process.returncode, said) == (75, line)
    assert sorted(os.listdir(scratch)) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["make-permutations", "train-svm"])
def test_a_signal_after_the_last_line_comes_too_late(command, number, scratch):
    process = subprocess.Popen(
        [str(BIN / command), *argv(command)[1:]],
        cwd=scratch, env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr.readline()
    process.send_signal(number)
    assert (process.stderr.read(), process.wait()) == (b"", 0)


def listens(pid):
    """Return whether the process PID has a handler of SIGHUP: then it has one of SIGINT."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    caught = int(re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[1], 16)
    return bool(caught >> (signal.SIGHUP - 1) & 1)


# ---- Success ----------------------------------------------------------------------------------


@most(COMMANDS)
def test_one_line_on_success(command, reference):
    done = reference(command)
    assert done.stdout
    one_line(done, command)


@most(COMMANDS)
def test_the_same_arguments_give_the_same_bytes(command, scratch, run, reference):
    """Another time, elsewhere; quietly, and into a named file where the command takes one."""
    before = reference(command)
    named = [] if EXAMPLES[command].product else ["-o", "new"]
    env = {"TZ": "Asia/Tokyo", "LC_ALL": "C"}
    quiet = run(*argv(command), "-q", *named, env=env, check=0)
    assert quiet.stderr == b""
    if product := EXAMPLES[command].product:
        assert content(scratch / product) == before.product
        assert same(quiet.stdout) == same(before.stdout)
    else:
        assert quiet.stdout == b""
        assert same((scratch / "new").read_bytes()) == same(before.stdout)
    assert not list(scratch.rglob("*.partial"))


@most(PIPED)
def test_a_pipe_gives_what_the_file_gives(command, scratch, run, reference):
    words = ["-" if word == EXAMPLES[command].input else word for word in argv(command)]
    given = (scratch / EXAMPLES[command].input).read_bytes()
    piped = run(*words, stdin=given, check=0)
    assert unnamed(piped.stdout) == unnamed(reference(command).stdout)


@pytest.mark.parametrize("command", [c for c in PIPED if EXAMPLES[c].line.split()[1:] == []])
def test_nothing_means_standard_input(command, scratch, run, reference):
    given = (scratch / EXAMPLES[command].input).read_bytes()
    assert run(command, stdin=given, check=0).stdout == reference(command).stdout


def test_a_pipe_by_its_number_names_no_data_set(scratch):
    """As <(...) of a shell has it."""
    line = "eval-svm svm.npz <(cat test.npy) <(cat test.tsv)"
    done = subprocess.run(
        ["bash", "-c", line], cwd=scratch, env=environment(), capture_output=True, check=True
    )
    assert json.loads(done.stdout)["data_set"] is None


def unnamed(data):
    """Return same(DATA) without the names of data sets, which a pipe does not have."""
    alike = same(data)
    if isinstance(alike, bytes):
        return alike
    return [
        {k: v for k, v in record.items() if k not in ("data_name", "data_set")} for record in alike
    ]


# ---- What the checks are worth ----------------------------------------------------------------


def test_the_checks_see_what_they_look_for(tmp_path):
    bad = subprocess.run(
        [sys.executable, "-c", "import sys; sys.stderr.write('x: a\\nx: b\\n')"],
        capture_output=True,
        check=False,
    )
    with pytest.raises(AssertionError):
        one_line(bad, "x")
    assert same(b'{"a": 1, "time_s": 2}\n') == same(b'{"a": 1, "time_s": 3, "argv": []}\n')
    assert same(b'{"a": 1}\n') != same(b'{"a": 2}\n')
    with terminal() as (tty, written):
        subprocess.run(["echo", "seen"], stdout=tty, check=True)
    assert b"".join(written).strip() == b"seen"
