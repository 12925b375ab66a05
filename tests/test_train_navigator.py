"""train-navigator as a real process: it learns, resumes, repeats, and refuses what it cannot do."""

import importlib.util
import json
import os
import signal
import subprocess

import numpy as np
import pytest
import torch
from conftest import BIN, environment
from test_record_navigation import gone

from ssl_common.evaluation.navigation import eyes
from ssl_common.evaluation.navigation.policies import Policies

WORDS = ("train-navigator", "thumbnail", "frames.tsv", "--batch", "4", "-j", "0", "-o", "n.pt")
PPO = ("train-navigator", "thumbnail", "--method", "ppo", "--env-command", "python corridor.py")
PPO += ("--max-steps", "12", "--worlds", "2", "-o", "p.pt")
by_ppo = pytest.mark.skipif(
    not importlib.util.find_spec("stable_baselines3"), reason="no stable-baselines3"
)


def content(path):
    return torch.load(path, weights_only=True)


def equal(one, other):
    return all(torch.equal(other["policies"][k], v) for k, v in one["policies"].items())


def test_it_learns_to_do_as_the_expert_does(scratch, run):
    done = run(*WORDS, "--runs", "2", "--epochs", "12", "--lr", "1e-3", check=0)
    settings, *log = map(json.loads, done.stdout.splitlines())
    frames = len((scratch / "frames.tsv").read_text().splitlines())
    said = f"n.pt: 12 epochs of {frames} images; 2 runs see thumbnail"
    assert done.stderr.decode().splitlines()[-1] == f"train-navigator: {said}"
    assert log[-1]["accuracy"] > 0.9 and log[-1]["loss"] < 2 * 0.3
    assert (settings["method"], settings["arch"], settings["runs"]) == ("cloning", "thumbnail", 2)
    found = content(scratch / "n.pt")
    assert found["actions"] == ["back", "on"] and len(found["paths"]) == frames
    assert not list((scratch / "n.pt.state").glob("features/*"))
    done = run(*WORDS, "--runs", "2", "--epochs", "12", "--lr", "1e-3", check=0)
    assert b"n.pt is complete already: nothing to do" in done.stderr


def test_a_run_beside_others_is_that_of_its_seed(scratch, run):
    """The same order, the same weights to begin with: five at once are five alone."""
    words = ("--iterations", "5", "--lr", "1e-3")
    run(*WORDS, *words, "--runs", "2", "--seed", "6", check=0)
    alone = (*WORDS[:-1], "alone.pt", *words)
    run(*alone, "--runs", "1", "--seed", "7", check=0)
    both, alone = (content(scratch / name)["policies"] for name in ("n.pt", "alone.pt"))
    for name, value in alone.items():
        second = both[name].reshape(2, -1)[1]
        assert torch.allclose(second, value.flatten(), atol=1e-4), name
    begun = Policies("embedding", (3, 16, 16), 2, 1, 7).state_dict()
    assert not torch.allclose(begun["full.0.weight"], alone["full.0.weight"], atol=1e-4)


def test_a_frozen_network_stays_and_a_killed_run_goes_on(scratch, run):
    words = ("train-navigator", "random:caffenet", "frames.tsv", "--layer", "conv1", "--side", "32")
    words += ("--runs", "2", "--batch", "4", "--iterations", "6", "--checkpoint-every", "2steps")
    run(*words, "-j", "2", "-o", "whole.pt", check=0)
    process = subprocess.Popen(
        [str(BIN / words[0]), *words[1:], "-j", "0", "-o", "n.pt"], cwd=scratch,
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        for _ in range(2000):
            if process.poll() is not None or list(scratch.glob("n.pt.state/step-*.pt")):
                break
            signal.sigtimedwait([], 0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    finally:
        process.kill()
        process.communicate()
    run(*words, "-j", "0", "-o", "n.pt", check=0)
    whole, again = (content(scratch / name) for name in ("whole.pt", "n.pt"))
    assert equal(whole, again)
    assert whole["settings"]["layer"] == "conv1" and whole["settings"]["side"] == 32
    untrained = eyes.make("random:caffenet", "conv1", 0, 2, 32)
    for name, value in untrained.trunk.state_dict().items():
        assert torch.equal(again["frozen"][name], value)


@pytest.mark.parametrize(
    "words, status, message",
    [
        (
            ("blind", "frames.tsv", "--batch", "4", "--layer", "conv1"),
            1,
            "--layer conv1: blind has no network",
        ),
        (
            ("random:alexnet", "frames.tsv", "--batch", "4", "--layer", "conv9"),
            1,
            "has no layer conv9",
        ),
        (("nothing.pt", "frames.tsv", "--batch", "4"), 1, "nothing.pt: No such file or directory"),
        (("blind", "nothing.tsv"), 1, "nothing.tsv: No such file or directory"),
        (("blind", "frames.tsv", "--batch", "999"), 1, "are less than one batch of 999"),
        (("blind", "one.tsv", "--batch", "2"), 1, "one.tsv: the expert does on alone: record more"),
        (("blind", "bare.tsv", "--batch", "2"), 1, "bare.tsv:1: no label, where one class is"),
        (("blind", "frames.tsv", "--frames", "9"), 2, "--frames: not an option of cloning"),
        (("blind", "frames.tsv", "--env", "a:b"), 2, "--env: not an option of cloning"),
        (("blind", "--method", "ppo"), 2, "give --env or --env-command, one of them"),
        (("blind", "x.tsv", "--method", "ppo", "--env", "a:b"), 2, "x.tsv: --method ppo makes its"),
        (("blind", "--method", "ppo", "--epochs", "2"), 2, "--epochs: not an option of ppo"),
    ],
)
def test_what_cannot_be(scratch, run, words, status, message):
    (scratch / "one.tsv").write_text("frames/000001/00000.png\ton\nframes/000002/00000.png\ton\n")
    (scratch / "bare.tsv").write_text("frames/000001/00000.png\nframes/000002/00000.png\n")
    done = run("train-navigator", *words, "-o", "n.pt", check=status)
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1 and message in lines[0] and not (scratch / "n.pt").exists()


def test_the_budget_is_told_before(scratch, run):
    """By what 64 frames take, for as many as repay it."""
    frames = (scratch / "frames.tsv").read_text().splitlines()
    (scratch / "many.tsv").write_text("".join(f"{line}\n" for line in frames * 90)[:40_000])
    lines = (scratch / "many.tsv").read_text().splitlines()
    (scratch / "many.tsv").write_text("".join(f"{line}\n" for line in lines[:1280]))
    done = run(
        "train-navigator", "random:caffenet", "many.tsv", "--layer", "conv1", "--side", "24",
        "--runs", "1", "--iterations", "1", "--batch", "4", "-j", "0", "-o", "n.pt", check=0,
    )  # fmt: skip
    first = done.stderr.decode().splitlines()[0]
    assert first.startswith("train-navigator: 1,280 frames pass the network once: about ")
    assert first.endswith("frames/s, measured on 64")


# ---- PPO -----------------------------------------------------------------------------------------


@by_ppo
@pytest.mark.slow
def test_a_killed_run_of_ppo_goes_on_to_the_same_weights(scratch, run):
    """The worlds too are where they were: what was done in their episodes is done again."""
    words = (*PPO, "--frames", "2048", "--runs", "2")
    run(*words[:-1], "2", "-o", "whole.pt", check=0)
    process = subprocess.Popen(
        [str(BIN / words[0]), *words[1:]], cwd=scratch, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        lines = [process.stdout.readline() for _ in range(2)]  # settings, an update
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    finally:
        process.kill()
        process.communicate()
    assert json.loads(lines[1])["frames"] == 1024
    done = run(*words, check=0)
    whole, again = (content(scratch / name) for name in ("whole.pt", "p.pt"))
    assert equal(whole, again)
    log = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["run"], each["frames"]) for each in log[1:]] == [
        (run, frames) for run in (0, 1) for frames in (1024, 2048)
    ]
    assert b"complete already" in run(*words, check=0).stderr


@by_ppo
@pytest.mark.slow
def test_ppo_finds_the_optimum_of_a_tabular_world(scratch, run):
    """That of value iteration, over all states: the reward of the best way from each start."""
    done = run(*PPO, "--frames", "60000", "--runs", "1", "--lr", "1e-3", check=0)
    best = dict.fromkeys(range(6), 0.0)
    for _sweep in range(10):  # the goal at place 5, by symmetry that at 0
        for at in range(5):
            to = (max(0, at - 1), at + 1)
            best[at] = max((1.0 if a == 5 else -0.125 + best[a]) for a in to)
    # Starts are 1 to 4, and the goals either end: as far as the seeds are even.
    optimum = np.mean([best[at] for at in (1, 2, 3, 4)])
    log = [json.loads(line) for line in done.stdout.splitlines()[1:]]
    last = log[-10:]
    episodes = sum(each["episodes"] for each in last)
    reward = sum(each["reward"] * each["episodes"] for each in last) / episodes
    assert reward == pytest.approx(optimum, abs=0.03) and log[0]["reward"] < optimum - 0.2
    record = json.loads(
        run("eval-navigator", "p.pt", "--env-command", "python corridor.py", "-n", "40",
            "--greedy", check=0).stdout
    )  # fmt: skip
    assert record["success_rate"] == 100 and record["path_ratio"] == 1.0


@by_ppo
def test_a_world_that_dies_ends_ppo_in_one_line(scratch, run):
    mark = f"corridor-{os.getpid()}-ppo.py"
    (scratch / "corridor.py").rename(scratch / mark)
    words = [each.replace("corridor.py", f"{mark} die") for each in PPO]
    done = run(*words, "--runs", "1", check=1)
    assert done.stderr == b"train-navigator: python: ended with status 1: the light went out\n"
    assert gone(f"python\0{mark}") and not (scratch / "p.pt").exists()
