"""pretrain as the ranks of a torchrun: the same steps, and the contract of one process."""

import contextlib
import json
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import TINY, environment, plant_modules
from test_pretrain import ARGV, EPOCHS, SLOW, finish, start, steps, tail

TWO = ("--gpus", "2", "--device", "cpu", "-j", "0")
FROZEN = {"FROZEN": "1"}


def losses(log):
    return np.array([line["loss"] for line in steps(log)[1:]])


def descendants(pid):
    """Return the process ids below PID, its own session or not."""
    found = []
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


def alive(pid):
    """Return whether PID runs; one that ended and that nobody has asked for does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return " Z " not in pathlib.Path(f"/proc/{pid}/stat").read_text()
    return False


def wait_for(condition):
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited for a minute")


def until_step_50(process, first=None):
    """Return (torchrun, ranks), process ids, of PROCESS, whose FIRST line may have been read."""
    lines = [json.loads(line or process.stdout.readline()) for line in (first, None)]
    assert lines[0]["ranks"] == 2 and lines[1]["step"] == 50
    # torchrun, and below it a rank and a rank
    torchrun, *ranks = descendants(process.pid)
    assert len(ranks) == 2
    return torchrun, ranks


@pytest.fixture(scope="module")
def whole(scratch_template, tmp_path_factory):
    """The log and network of two ranks that nothing stops.

    Neither do modules in the current folder, nor variables left over from other runs.
    """
    import shutil

    folder = tmp_path_factory.mktemp("ranks") / "scratch"
    shutil.copytree(scratch_template, folder)
    mark = plant_modules(folder)
    left = {"SSL_BENCH_RANKS": str(folder / "ranks-1"), "PET_STANDALONE": "1", "RANK": "3"}
    log, err = finish(start(folder, "model.pt", *TWO, env=left))
    assert not mark.exists() and not (folder / "ranks-1").exists()
    assert "pretrain: 80 steps left, about 0." in err
    assert tail(err) == f"pretrain: model.pt: {EPOCHS} epochs of 12 images\n"
    return log, (folder / "model.pt").read_bytes()


@SLOW
def test_ranks_and_accumulation_take_the_same_steps(scratch):
    """Batch norm frozen, it is the same sum of gradients, however it is cut."""

    def run(name, rate, *ways):
        words = ("--epochs", "20", "--lr", rate, "-j", "0", *ways)
        return losses(finish(start(scratch, name, *words, env=FROZEN))[0])

    one = run("one.pt", "0.05")
    np.testing.assert_allclose(run("a.pt", "0.05", "--accumulate", "2"), one, rtol=1e-4)
    np.testing.assert_allclose(run("b.pt", "0.05", *TWO), one, rtol=1e-4)
    np.testing.assert_allclose(run("c.pt", "0.05", *TWO, "--accumulate", "2"), one, rtol=1e-4)
    # The bound tells a gradient summed, not averaged, apart: that is twice the rate.
    assert abs(run("d.pt", "0.1") / one - 1).max() > 2e-3


@pytest.mark.parametrize(
    "how",
    [signal.SIGTERM] + [pytest.param(each, marks=SLOW) for each in (signal.SIGUSR1, signal.SIGINT)],
)
def test_stopped_and_resumed_is_uninterrupted(whole, scratch, tmp_path_factory, how):
    folder = tmp_path_factory.mktemp("tmp")
    process = start(scratch, "model.pt", *TWO, env={"TMPDIR": str(folder)})
    torchrun, ranks = until_step_50(process)
    process.send_signal(how)
    _, err = finish(process, 75)
    assert tail(err) == f"pretrain: stopped by {how.name}: run it again to go on\n"
    assert (scratch / "model.pt.state/stopped").read_text() == f"{how.name}\n"
    assert not any(map(alive, (torchrun, *ranks)))
    log, _ = finish(start(scratch, "model.pt", *TWO))
    assert steps(log) == steps(whole[0])
    assert (scratch / "model.pt").read_bytes() == whole[1]
    assert not list(folder.iterdir())  # nor did torchrun leave anything
    log, err = finish(start(scratch, "model.pt", *TWO))
    assert err == "pretrain: model.pt is complete already: nothing to do\n"
    assert steps(log) == steps(whole[0])


@SLOW
def test_one_process_goes_on_with_the_micro_batches_of_two(scratch):
    process = start(scratch, "model.pt", *TWO)
    until_step_50(process)
    os.killpg(process.pid, signal.SIGINT)  # to all of the group, as a terminal does
    finish(process, 75)
    log, _ = finish(start(scratch, "model.pt", "--accumulate", "2", "-j", "0"))
    assert steps(log)[-1]["step"] == 180
    _, err = finish(start(scratch, "model.pt", "-j", "0"), 1)
    assert "made with --gpus x --accumulate 2, not 1" in err


@SLOW
def test_a_signal_to_every_process_is_one_signal(whole, scratch):
    """As a batch system sends it: to the parent, its torchrun and the ranks alike."""
    process = start(scratch, "model.pt", *TWO)
    torchrun, ranks = until_step_50(process)
    for pid in (process.pid, torchrun, *ranks):
        os.kill(pid, signal.SIGTERM)
    _, err = finish(process, 75)
    assert tail(err) == "pretrain: stopped by SIGTERM: run it again to go on\n"
    assert list((scratch / "model.pt.state").glob("*.pt"))
    log, _ = finish(start(scratch, "model.pt", *TWO))
    assert steps(log) == steps(whole[0])


@SLOW
def test_a_second_signal_ends_it_at_once(scratch):
    process = start(scratch, "model.pt", *TWO)
    torchrun, ranks = until_step_50(process)
    for rank in ranks:
        os.kill(rank, signal.SIGSTOP)  # it will not obey the first one
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    finish(process, 75)
    wait_for(lambda: not any(map(alive, (torchrun, *ranks))))


@pytest.mark.parametrize("rank", [pytest.param(0, marks=SLOW), 1])
def test_a_rank_that_dies_is_started_again(whole, scratch, rank):
    """The group goes on from the checkpoint and ends as if nothing had been."""
    process = start(scratch, "model.pt", *TWO, "--checkpoint-every", "20steps")
    first = process.stdout.readline()
    _, ranks = until_step_50(process, first)
    os.kill(ranks[rank], signal.SIGKILL)
    log, err = finish(process)
    said = re.search(r"a rank died: all go on from step (\d+) \(restart 1\)", err)
    assert said and int(said[1]) >= 40
    assert steps(first.decode() + log) == steps(whole[0])
    assert (scratch / "model.pt").read_bytes() == whole[1]


@SLOW
def test_a_rank_that_dies_too_often_is_named(whole, scratch):
    words = (*TWO, "--checkpoint-every", "20steps", "--max-restarts", "0")
    process = start(scratch, "model.pt", *words)
    _, ranks = until_step_50(process)
    os.kill(ranks[1], signal.SIGKILL)
    _, err = finish(process, 1)
    assert err.count("\n") == 1 and err.startswith("pretrain: rank 1 died without a word (SIGKILL")
    log, _ = finish(start(scratch, "model.pt", *TWO))
    assert steps(log) == steps(whole[0])
    assert (scratch / "model.pt").read_bytes() == whole[1]


def test_one_signal_ends_ranks_that_have_nothing_to_save(scratch, tmp_path_factory):
    """Those of extract-features; these do not even hear it."""
    folder = tmp_path_factory.mktemp("tmp")
    argv = [sys.executable, TINY, "extract-features", "random:tiny", "train.tsv", *TWO, "-o", "f/"]
    process = subprocess.Popen(
        argv, cwd=scratch, env=environment({"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}),
        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    pids = []
    try:
        wait_for(lambda: list(folder.glob("*/[01].pid")))
        pids = [int(path.read_text()) for path in folder.glob("*/[01].pid")]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        pids += descendants(process.pid)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 75
        assert err == b"extract-features: stopped by SIGINT: run it again to go on\n"
        wait_for(lambda: not any(map(alive, pids)))
    finally:
        for pid in {process.pid, *pids}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert not list(folder.iterdir()) and not (scratch / "f").exists()


@SLOW
def test_nothing_outlives_the_parent(scratch):
    (scratch / "tmp").mkdir()
    temporary = {"TMPDIR": str(scratch / "tmp")}
    process = start(scratch, "model.pt", *TWO, env=temporary)
    below = until_step_50(process)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(map(alive, (below[0], *below[1]))))
    assert list((scratch / "model.pt.state").glob("*.pt"))  # and they lost no step
    assert list((scratch / "tmp").glob("ssl-bench-ranks.*"))
    finish(start(scratch, "model.pt", *TWO, env=temporary))
    assert not list((scratch / "tmp").glob("ssl-bench-*"))  # nor its folder the next one


@SLOW
def test_the_manifest_may_come_from_a_pipe(whole, scratch):
    words = ["-" if word == "train.tsv" else word for word in ARGV]
    done = subprocess.run(
        [sys.executable, TINY, "pretrain", *words, "--epochs", str(EPOCHS), "-o", "p.pt", *TWO],
        cwd=scratch, env=environment({"OMP_NUM_THREADS": "1"}), capture_output=True,
        input=(scratch / "train.tsv").read_bytes(), check=True,
    )  # fmt: skip
    assert losses(done.stdout.decode()).tolist() == losses(whole[0]).tolist()


@SLOW
def test_the_reader_of_the_log_leaves(scratch):
    with start(scratch, "model.pt", *TWO) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1
    assert list((scratch / "model.pt.state").glob("*.pt"))


@SLOW
def test_what_a_rank_complains_of_is_said_once(scratch):
    (scratch / "train.tsv").write_text("".join(f"gone-{n}.jpg\n" for n in range(8)))
    _, err = finish(start(scratch, "model.pt", *TWO), 1)
    assert err.count("\n") == 1 and "train.tsv:" in err and "No such file" in err
    _, err = finish(start(scratch, "model.pt", *TWO, "--debug"), 1)
    assert "torch.distributed" in err and err.splitlines()[-1].startswith("pretrain: train.tsv:")


def test_bad_command_lines(scratch):
    _, err = finish(start(scratch, "m.pt", "--gpus", "3", "--device", "cpu"), 2)
    assert "--batch 4 is no multiple of 3" in err
    _, err = finish(start(scratch, "m.pt", "--gpus", "2", "--accumulate", "4"), 2)
    assert "--batch 4 is no multiple of 8" in err
    os.mkfifo(scratch / "fifo")
    _, err = finish(start(scratch, "m.pt", *TWO, "--permutations", "fifo"), 1)
    assert "fifo: every rank reads it" in err
    _, err = finish(start(scratch, "m.pt", "--gpus", "2", env={"CUDA_VISIBLE_DEVICES": ""}), 1)
    assert err == "pretrain: --gpus 2: no GPU here: --device cpu runs on processors\n"


def agents(folder, count, ranks):
    """Start COUNT torchrun agents of RANKS ranks each on this machine, as Slurm would on COUNT."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--nnodes={count}", f"--nproc-per-node={ranks}", "--rdzv-id=test"]
    options += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}"]
    options += ["--local-addr=127.0.0.1", str(TINY), "pretrain", *ARGV, "--epochs", str(EPOCHS)]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *options, "-o", "model.pt", *TWO[2:]],
            cwd=folder,
            env=environment({"OMP_NUM_THREADS": "1"}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        for _ in range(count)
    ]


@SLOW
@pytest.mark.parametrize("count, ranks", [(1, 2), (2, 1)])
def test_started_by_torchrun(whole, scratch, count, ranks):
    """Two ranks, of one torchrun or of two: the log on one standard output, the same network."""
    for _ in range(2):  # and once more, when it is complete
        logs = [finish(process)[0] for process in agents(scratch, count, ranks)]
        assert steps("".join(logs)) == steps(whole[0])
        assert (scratch / "model.pt").read_bytes() == whole[1]


@SLOW
@pytest.mark.parametrize("differ", ["manifest", "options"])
def test_ranks_that_disagree_end_with_the_reason(scratch, differ):
    """As on two machines, of which one has an older list, or another script."""
    rows = (scratch / "train.tsv").read_text().splitlines(keepends=True)
    for rank in range(2):
        turned = rows[::-1] if rank and differ == "manifest" else rows
        (scratch / f"train-{rank}.tsv").write_text("".join(turned))
    words = ["train-$RANK.tsv" if word == "train.tsv" else word for word in ARGV]
    words += ["--epochs", str(EPOCHS), "-o", "model.pt", *TWO[2:]]
    words += ["--seed", "$RANK"] if differ == "options" else []
    line = shlex.join([sys.executable, str(TINY), "pretrain"]) + " " + " ".join(words)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
    torchrun += ["--nproc-per-node=2", "bash", "-c", line]
    process = subprocess.Popen(
        torchrun, cwd=scratch, env=environment({"OMP_NUM_THREADS": "1"}),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    reason = "rank 1 has another manifest, other files or options than the first: give all the same"
    assert f"pretrain: {reason}\n" in err.decode()
    assert not (scratch / "model.pt").exists()


@SLOW
def test_torchrun_told_to_stop_leaves_a_checkpoint(whole, scratch):
    (process,) = agents(scratch, 1, 2)
    assert [json.loads(process.stdout.readline()) for _ in range(2)][1]["step"] == 50
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert (scratch / "model.pt.state/stopped").read_text() == "SIGTERM\n"
    log, _ = finish(start(scratch, "model.pt", *TWO))
    assert steps(log) == steps(whole[0])
    assert (scratch / "model.pt").read_bytes() == whole[1]
