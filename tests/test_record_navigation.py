"""record-navigation as a real process: frames and actions of an expert, the same each time."""

import json
import os
import shlex
import signal
import subprocess
import time

import numpy as np
import pytest
from conftest import BIN, environment
from PIL import Image
from test_contract import content

WORLD = ("--env-command", "python corridor.py")


def alive(mark):
    """Return the processes whose command line holds MARK, by their ids."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as stream:
                found += [int(name)] if mark.encode() in stream.read() else []
        except OSError:
            continue
    return found


def gone(mark):
    """Tell whether no process whose command line holds MARK is left after a while."""
    for _ in range(100):
        if not alive(mark):
            return True
        time.sleep(0.05)
    return False


def test_what_is_recorded(scratch, run):
    """Against the corridor walked by hand, each frame as it is drawn."""
    argv = ("record-navigation", *WORLD, "-n", "6", "--noise", "0", "-j", "0", "-o", "new")
    done = run(*argv, check=0)
    episodes = list(map(json.loads, (scratch / "new/episodes.jsonl").read_text().splitlines()))
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    expected = []
    for number, episode in enumerate(episodes):
        start, goal = 1 + episode["seed"] % 4, 5 * (episode["seed"] // 8 % 2)
        way = range(start, goal, 1 if goal else -1)
        assert episode == {
            "episode": number, "seed": episode["seed"], "frames": len(way),
            "reward": 1.0 - 0.125 * (len(way) - 1), "success": True,
            "distance_to_goal": len(way), "path_length": len(way),
        }  # fmt: skip
        for step, at in enumerate(way):
            path = f"new/{number + 1:06d}/{step:05d}.png"
            expected.append([path, "on" if goal else "back"])
            with Image.open(scratch / path) as image:
                pixels = np.asarray(image)
            assert pixels.shape == (12, 16, 3)
            assert (pixels[:, :, 0] == np.where(np.arange(16) // 3 == at, 200, 20)).all()
            assert (pixels[:, :, 1:] == (40 * at, 20 * goal)).all()
    assert rows == expected
    assert len({episode["seed"] for episode in episodes}) == 6
    assert {action for _path, action in rows} == {"on", "back"}
    said = f"new: 6 episodes, {len(expected)} frames, 2 actions; the expert succeeds in 6 of 6"
    assert done.stderr.decode() == f"record-navigation: {said}\n"


def test_same_seed_same_bytes_whatever_the_number_of_worlds(scratch, run):
    words = ("record-navigation", *WORLD, "-n", "5", "--noise", "40%")
    found = []
    for workers, name in (("0", "a"), ("3", "b")):
        done = run(*words, "-j", workers, "-o", name, check=0)
        found.append((content(scratch / name), done.stdout.replace(f"{name}/".encode(), b"/")))
    assert found[0] == found[1]
    strays = [json.loads(line) for line in found[0][0]["episodes.jsonl"].splitlines()]
    assert any(each["path_length"] > each["distance_to_goal"] for each in strays)
    run(*words, "--seed", "1", "-o", "c", check=0)
    assert content(scratch / "c") != found[0][0]


@pytest.mark.parametrize(
    "command, message",
    [
        ("python corridor.py die", "python: ended with status 1: the light went out"),
        ("python corridor.py blind", "python: no expert at step 0 of episode N:"),
        ("python corridor.py huge", "python: a reply: shape is [1048576, 1048576, 3], not height"),
        ("python corridor.py words", "python: a reply: not JSON"),
        ("no-such-simulator", "no-such-simulator: cannot be started (No such file or directory)"),
        ("cat", "cat: a reply: not JSON"),
        ("true", "true: "),
    ],
)
def test_a_world_that_fails_is_one_line(scratch, run, command, message):
    argv = ("record-navigation", "--env-command", command, "-n", "2", "-o", "new")
    done = run(*argv, check=1)
    # Two worlds play side by side: either may be the first to fail.
    told = tuple(f"record-navigation: {message}".replace("episode N", f"episode {n}") for n in "01")
    assert done.stderr.decode().startswith(told), done.stderr
    assert len(done.stderr.splitlines()) == 1 and not done.stdout
    assert not (scratch / "new").exists() and not list(scratch.glob("*.partial"))


@pytest.mark.parametrize(
    "words, message",
    [
        ((), "give --env or --env-command, one of them"),
        (("--env", "a:b", *WORLD), "give --env or --env-command, one of them"),
        ((*WORLD, "--env-arg", "a=1"), "--env-arg, --obs-key: they are of --env"),
        ((*WORLD, "--obs-key", "rgb"), "--env-arg, --obs-key: they are of --env"),
        (("--env-command", "it's"), "--env-command: No closing quotation"),
        (("--env-command", " "), "--env-command: no program is named"),
        ((*WORLD, "--noise", "2"), "'2' is not like 1% or 0.01"),
        ((*WORLD, "-n", "0"), "'0' is not a whole number from 1 to 999,999"),
    ],
)
def test_a_wrong_command_line(run, words, message):
    done = run("record-navigation", *words, "-o", "new", check=2)
    assert message in done.stderr.decode() and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_world_outlives_the_command(scratch, number):
    """Not even where the command is killed in the only way that it cannot hear of."""
    (scratch / "corridor.py").rename(scratch / f"corridor-{os.getpid()}-{number}.py")
    mark = f"corridor-{os.getpid()}-{number}.py"
    line = f"record-navigation --env-command 'python {mark}' --max-steps 100000 --noise 1"
    process = subprocess.Popen(
        [str(BIN / "record-navigation"), *shlex.split(line)[1:], "-n", "90000", "-o", "new"],
        cwd=scratch, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        for _ in range(600):
            if alive(f"python\0{mark}"):
                break
            time.sleep(0.05)
        assert alive(f"python\0{mark}")
        process.send_signal(number)
        assert process.wait(30) == (75 if number == signal.SIGTERM else -number)
        assert gone(f"python\0{mark}")
    finally:
        process.kill()
        process.communicate()
