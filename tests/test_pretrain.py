"""pretrain as a real process: its log, its network, and what stops it."""

import json
import os
import re
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import TINY, ended, environment, save_bomb, tiny
from test_extract_features import oddities

from ssl_common.data.order import ShuffleSampler
from ssl_common.models import networks
from ssl_common.ranks.devices import lacks_bf16

ARGV = ["jigsaw", "train.tsv", "--permutations", "p4.npy", "--arch", "tiny", "--batch", "4"]
EPOCHS = 60  # of 3 steps
SLOW = pytest.mark.slow


def line(output, *extra):
    length = [] if "--iterations" in extra else ["--epochs", str(EPOCHS)]
    return ["pretrain", *ARGV, *length, "-o", output, *extra]


def train(folder, *words, status=0, env=None):
    """Train to the end; return (log, what was said)."""
    return ended(tiny(folder, *line(*words), env=env), status)


def start(folder, *words, stdout=subprocess.PIPE, env=None, **more):
    return subprocess.Popen(
        [sys.executable, TINY, *line(*words)], cwd=folder, stdin=subprocess.DEVNULL,
        env=environment({"OMP_NUM_THREADS": "1", **(env or {})}), stdout=stdout,
        stderr=subprocess.PIPE, start_new_session=True, **more,
    )  # fmt: skip


def finish(process, status=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err.decode()
    return (out or b"").decode(), err.decode()


def tail(err):
    """Return the last line of ERR: after 100 steps another says how long the rest takes."""
    return err.splitlines(keepends=True)[-1] if err else ""


def untimed(log):
    """Return the lines of LOG without times; of those of a step the last one."""
    last = {record.get("step"): record for record in map(json.loads, log.splitlines())}
    records = [last[step] for step in sorted(last, key=lambda step: step or 0)]
    return [{k: v for k, v in r.items() if not k.startswith("time_")} for r in records]


def steps(log):
    return [{k: v for k, v in r.items() if k != "argv"} for r in untimed(log)]


@pytest.fixture(scope="module")
def whole(scratch_template, tmp_path_factory):
    """The log and network of a run that nothing stops."""
    import shutil

    folder = tmp_path_factory.mktemp("whole") / "scratch"
    shutil.copytree(scratch_template, folder)
    log, _ = train(folder, "model.pt", "-j", "0")
    return log, (folder / "model.pt").read_bytes()


def test_log_and_network(whole, tmp_path):
    log, network = whole
    first, *rest = untimed(log)
    assert first["steps"] == 180 and first["permutations"] == 4 and first["images"] == 12
    assert [line["step"] for line in rest] == [50, 100, 150, 180]
    # A tenth after 1/3, 2/3 and 8/9 of 180 steps.
    rates = [0.1 * 4 / 256 / d for d in (1, 10, 100, 1000)]
    np.testing.assert_allclose([line["lr"] for line in rest], rates)
    assert all(0 <= line["accuracy"] <= 1 and line["loss"] > 0 for line in rest)
    (tmp_path / "m.pt").write_bytes(network)
    content = torch.load(tmp_path / "m.pt", weights_only=True)
    assert set(content["trunk"]) and all(k.startswith(("fc", "bn")) for k in content["head"])
    assert content["permutations"].shape == (4, 9)
    assert content["settings"]["pretext"] == "jigsaw"


def test_workers_do_not_change_the_result(whole, scratch):
    log, _ = train(scratch, "model.pt", "-j", "2")
    assert steps(log) == steps(whole[0])
    assert (scratch / "model.pt").read_bytes() == whole[1]


@pytest.mark.parametrize(
    "workers", [pytest.param("0", marks=SLOW), "1", pytest.param("3", marks=SLOW)]
)
def test_killed_at_any_step_is_uninterrupted(scratch, workers):
    """40 steps are 17, kill -9 and the rest, to the last bit; also for a network that draws."""
    drawing = {"env": {"DROPOUT": "1"}}
    words = ("--iterations", "40", "-j", workers, "--checkpoint-every", "17steps")
    log, _ = train(scratch, "whole.pt", *words, **drawing)
    process = start(scratch, "model.pt", *words, **drawing)
    while not (scratch / "model.pt.state/step-000000000017.pt").exists():
        assert process.poll() is None, process.communicate()
    process.kill()
    finish(process, -9)
    state = networks.load(str(scratch / "model.pt.state/step-000000000017.pt"))
    assert state["step"] == 17 and state["position"] == [5, 2] and state["threads"] == 1
    assert len(state["random"]) == 1 and state["settings"]["steps"] == 40 and state["version"]
    again, _ = train(scratch, "model.pt", *words, **drawing)
    assert steps(again) == steps(log)
    assert (scratch / "model.pt").read_bytes() == (scratch / "whole.pt").read_bytes()


@SLOW
def test_another_number_of_threads_is_said(scratch):
    words = ("--iterations", "40", "-j", "0", "--checkpoint-every", "17steps")
    process = start(scratch, "model.pt", *words)
    while not list(scratch.glob("model.pt.state/*.pt")):
        assert process.poll() is None
    process.kill()
    finish(process, -9)
    _, err = train(scratch, "model.pt", *words, env={"OMP_NUM_THREADS": "2"})
    assert "began with 1 threads, now it has 2: last bits may differ" in err


@pytest.mark.parametrize(
    "how",
    [signal.SIGTERM, signal.SIGKILL]
    + [pytest.param(each, marks=SLOW) for each in (signal.SIGINT, signal.SIGUSR1)],
)
def test_stopped_and_resumed_is_uninterrupted(whole, scratch, how):
    process = start(scratch, "model.pt", "-j", "2", "--checkpoint-every", "20steps")
    seen = [process.stdout.readline() for _ in range(2)]  # the settings, step 50
    assert json.loads(seen[1])["step"] == 50
    os.killpg(process.pid, how)  # to all of the group, as a terminal and a batch system do
    _, err = finish(process, -9 if how == signal.SIGKILL else 75)
    if how != signal.SIGKILL:
        assert tail(err) == f"pretrain: stopped by {how.name}: run it again to go on\n"
    assert not (scratch / "model.pt").exists()
    assert 1 <= len(list((scratch / "model.pt.state").glob("*.pt"))) <= 2
    log, _ = train(scratch, "model.pt", "-j", "0")
    assert steps(log) == steps(whole[0])
    assert (scratch / "model.pt").read_bytes() == whole[1]


@SLOW
def test_two_runs_do_not_share_a_state(whole, scratch):
    process = start(scratch, "model.pt", "-j", "0")
    process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    _, err = train(scratch, "model.pt", "-j", "0", status=1)
    assert err == "pretrain: model.pt.state: another process trains this network: give another -o\n"
    process.send_signal(signal.SIGCONT)
    log, _ = finish(process)
    assert (scratch / "model.pt").read_bytes() == whole[1]


@SLOW
def test_killed_and_started_again_at_once(whole, scratch):
    """Its workers, which hold its files open too, end with it."""
    process = start(scratch, "model.pt", "-j", "2", "--checkpoint-every", "20steps")
    assert [json.loads(process.stdout.readline()) for _ in range(2)][1]["step"] == 50
    process.kill()
    process.wait()
    log, _ = train(scratch, "model.pt", "-j", "0")
    assert steps(log) == steps(whole[0])
    process.communicate()


def test_a_complete_network_is_left_alone_and_its_log_told_again(whole, scratch):
    (scratch / "model.pt").write_bytes(whole[1])
    (scratch / "model.pt.state").mkdir()
    (scratch / "model.pt.state/log.jsonl").write_text(whole[0])
    log, err = train(scratch, "model.pt")
    assert log == whole[0] and err == "pretrain: model.pt is complete already: nothing to do\n"
    assert (scratch / "model.pt").read_bytes() == whole[1]


def test_other_settings_do_not_touch_a_network_or_a_run(whole, scratch):
    (scratch / "model.pt").write_bytes(whole[1])
    log, err = train(scratch, "model.pt", "--seed", "1", status=1)
    assert log == "" and "made with seed 0, not 1" in err and err.count("\n") == 1
    assert (scratch / "model.pt").read_bytes() == whole[1]


def test_seed_changes_the_network(whole, scratch):
    train(scratch, "model.pt", "--seed", "1")
    assert (scratch / "model.pt").read_bytes() != whole[1]


@pytest.mark.parametrize("workers", [pytest.param("0", marks=SLOW), "2"])
def test_reader_of_the_log_leaves(whole, scratch, workers):
    with start(scratch, "model.pt", "-j", workers) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1
    assert list((scratch / "model.pt.state").glob("*.pt"))  # no step is lost
    log, _ = train(scratch, "model.pt", "-j", "0")
    assert steps(log) == steps(whole[0])


def test_full_disk_under_the_log(scratch):
    with open("/dev/full", "wb") as full:
        _, err = finish(start(scratch, "model.pt", stdout=full), 1)
    assert err == "pretrain: standard output: No space left on device\n"


@pytest.mark.parametrize(
    "every, failed",
    [pytest.param("30min", "model.pt", marks=SLOW), ("20steps", "model.pt.state/")],
)
def test_full_disk_under_the_network_and_a_checkpoint(whole, scratch, every, failed):
    """No file may grow beyond 100 kB, which the log never does; with more room it goes on."""
    words = ["-j", "0", "--checkpoint-every", every]
    process = start(scratch, "model.pt", *words, preexec_fn=limit)
    _, err = finish(process, 1)
    assert tail(err).startswith(f"pretrain: {failed}") and err.endswith("File too large\n")
    assert not (scratch / "model.pt").exists() and not list(scratch.rglob("*.partial"))
    log, _ = train(scratch, "model.pt", *words)
    assert steps(log) == steps(whole[0])
    assert (scratch / "model.pt").read_bytes() == whole[1]


def limit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_unreadable_images_are_counted(scratch):
    rows = (scratch / "train.tsv").read_text().splitlines(keepends=True)
    (scratch / "text.jpg").write_text("not an image")
    (scratch / "empty.jpg").write_bytes(b"")
    jpeg = (scratch / rows[0].split("\t")[0]).read_bytes()
    (scratch / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (scratch / "train.tsv").write_text("".join(rows) + "text.jpg\nempty.jpg\ncut.jpg\ngone.jpg\n")
    log, _ = train(scratch, "model.pt", "-j", "0", "--max-bad", "25%")
    # 60 epochs of 16 lines, of which 13 to 16 give way to line 1; named with each 50 steps.
    assert steps(log)[-1]["unreadable"] == EPOCHS * 4
    names = ["text.jpg", "empty.jpg", "cut.jpg", "gone.jpg"]
    named = [[line, name] for line, name in enumerate(names, 13)]
    assert all(line["unreadable_lines"] == named for line in steps(log)[1:-1])


@pytest.mark.parametrize("share, status", [("20%", 1), pytest.param("0.25", 0, marks=SLOW)])
def test_too_many_unreadable_images_stop_the_run(scratch, share, status):
    """Judged after 1,000 images, or all of a smaller list: 16, of which 4 cannot be read."""
    with open(scratch / "train.tsv", "a", encoding="utf-8") as stream:
        stream.write("a.jpg\nb.jpg\nc.jpg\nd.jpg\n")
    words = ("--batch", "4", "--epochs", "70", "-j", "2", "--checkpoint-every", "3steps")
    log, err = train(scratch, "model.pt", *words, "--max-bad", share, status=status)
    if status:
        *_, line = err.splitlines()
        assert line.startswith("pretrain: train.tsv: 4 of 16 images cannot be read (line 13:")
        assert line.endswith(
            "a.jpg), more than --max-bad 20.000%: mend them, check --root, or raise it"
        )
        state = scratch / "model.pt.state/step-000000000003.pt"
        assert state.exists() and not (scratch / "model.pt").exists()
    else:
        assert steps(log)[-1]["unreadable"] == 70 * 4


def test_checkpoints_of_epochs_stay_where_they_are_wanted(scratch):
    words = ("--epochs", "4", "-j", "0", "--keep-epochs", "--checkpoint-every", "1step")
    train(scratch, "model.pt", *words)
    names = sorted(path.name for path in (scratch / "model.pt.state").glob("*.pt"))
    assert names == [f"step-{step:012}.pt" for step in (3, 6, 9)]  # the network is after 12
    train(scratch, "model.pt", *words)
    assert sorted(path.name for path in (scratch / "model.pt.state").glob("*.pt")) == names


def test_odd_images_are_trained_on(scratch):
    names = oddities(scratch)
    (scratch / "train.tsv").write_text("".join(f"{name}\n" for name in sorted(names)))
    log, _ = train(scratch, "model.pt", "-j", "0", "--epochs", "2")
    assert steps(log)[-1]["unreadable"] == 0 and steps(log)[-1]["loss"] > 0


def damage(folder, what):
    """Break one input of a run in FOLDER."""
    if what == "bomb":
        (folder / "model.pt.state").mkdir()
        save_bomb(folder / "model.pt.state/step-000000000001.pt", folder / "exploded")
    elif what == "repeated permutation":
        np.save(folder / "p4.npy", np.stack([np.arange(9)] * 4))
    elif what == "no permutation":
        np.save(folder / "p4.npy", np.zeros((4, 9), int))
    elif what == "four tiles":
        np.save(folder / "p4.npy", np.array([[0, 1, 2, 3], [3, 2, 1, 0]]))
    elif what == "no images":
        (folder / "train.tsv").write_text("a.jpg\nb.jpg\nc.jpg\nd.jpg\n")
    elif what == "one image":
        (folder / "train.tsv").write_text("photos/cat/0.jpg\n")
    elif what == "bytes":
        (folder / "train.tsv").write_bytes(b"photos/cat/0.jpg\n\xff.jpg\n")
    elif what == "empty":
        (folder / "train.tsv").write_bytes(b"")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("bomb", "step-000000000001.pt: not a file of pretrain"),
        ("repeated permutation", "p4.npy"),
        ("no permutation", "p4.npy"),
        ("four tiles", "p4.npy: 4 tiles"),
        ("no images", "train.tsv:"),
        (
            "one image",
            "train.tsv: 1 image, but batch norm needs 2 in a batch or more",
        ),
        ("bytes", "train.tsv:2: not UTF-8"),
        ("empty", "train.tsv: no line"),
    ],
)
def test_bad_input(scratch, what, message):
    damage(scratch, what)
    _, err = train(scratch, "model.pt", "-j", "0", status=1)
    assert message in err and err.count("\n") == 1 and err.startswith("pretrain: ")
    assert not (scratch / "model.pt").exists() and not (scratch / "exploded").exists()


def test_a_network_that_is_for_measuring_alone(scratch):
    _, err = train(scratch, "model.pt", "--arch", "caffenet", status=1)
    assert err == "pretrain: --arch caffenet: choose from alexnet, alexnet-half, resnet50, tiny\n"
    assert not (scratch / "model.pt.state").exists()


def test_a_loss_that_is_no_number_stops_the_run(scratch):
    """Decay alone makes the weights 100 times larger each step: within 20 they overflow."""
    _, err = train(scratch, "model.pt", "-j", "0", "--lr", "1e6", status=1)
    found = re.search(
        r"train.tsv: the loss is not finite at step (\d+), on .* of lines (.*): lower", err
    )
    step = int(found[1])
    order = list(ShuffleSampler(12, 4, step, step - 1, 0))[0]
    lines = ", ".join(str(line) for line in sorted(index + 1 for _, index in order))
    assert 1 < step <= 20 and found[2] == lines and err.count("\n") == 1
    assert not (scratch / "model.pt").exists()


def test_a_checkpoint_runs_no_code(tmp_path):
    save_bomb(tmp_path / "bomb.pt", tmp_path / "exploded")
    with pytest.raises(networks.DataError, match="not a file of pretrain"):
        networks.load(str(tmp_path / "bomb.pt"))
    assert not (tmp_path / "exploded").exists()


@SLOW
def test_sixteen_photographs_four_permutations(run, data, tmp_path):
    photographs = sorted(data("voc2007_A").rglob("*.jpg"))[:16]
    (tmp_path / "m.tsv").write_text("".join(f"{path}\n" for path in photographs))
    (tmp_path / "p4.npy").write_bytes(run("make-permutations", "-n", "4", check=0).stdout)
    done = run(
        "pretrain", "jigsaw", "m.tsv", "--permutations", "p4.npy", "--batch", "16",
        "--epochs", "100", "--lr", "0.003", "-o", "m.pt", "--checkpoint-every", "30min", check=0,
    )  # fmt: skip
    *_, last = untimed(done.stdout.decode())
    assert last["step"] == 100 and last["accuracy"] > 0.9  # of the last 50 steps; chance is 0.25


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="reads the kernel's flags of an x86_64")
def test_bf16_without_instructions_for_it_is_said(scratch):
    with open("/proc/cpuinfo") as stream:
        flags = next(line for line in stream if line.startswith("flags")).split()
    there = bool({"amx_bf16", "avx512_bf16"} & set(flags))
    assert lacks_bf16() != there
    _out, err = train(scratch, "b.pt", "--iterations", "1", "--precision", "bf16")
    assert ("no instructions for bf16" in err) != there
