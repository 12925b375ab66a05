"""The features that train-linear --cache keeps: what is read is what was written, or an error."""

import contextlib
import json
import os
import shutil

import numpy as np
import pytest
import torch
from tiny import Tiny

from ssl_common.evaluation.linear import training
from ssl_common.models import registry
from ssl_common.processes import Stopped
from ssl_common.progress import Conversation, silent
from ssl_common.streams import DataError
from ssl_common.training.plan import TrainingOptions


class Twin(Tiny):
    """Tiny, but for two layers whose features have one shape: 16 x 1 x 1."""

    name = "twin"
    pooling = Tiny.pooling | {"conv2": (7, 1, 0)}


@pytest.fixture(autouse=True, scope="module")
def twin():
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(registry.TRUNKS, "twin", Twin)
        yield


def train(folder, steps=None, layers=(), **changes):
    """Train heads on a cache in this process, up to step STEPS; return the bytes of their file."""
    done = []
    options = TrainingOptions(
        output=str(folder / "h.pt"), batch=4, lr=0.01, iterations=9, precision="fp32",
        device="cpu", root=str(folder), checkpoint_every=((3, "step"),), **changes,
    )  # fmt: skip
    talk = Conversation(
        emit=lambda _line: None,
        say=done.append,
        stopping=lambda: "SIGTERM" if steps in done else None,
        progress=lambda step, *_: done.append(step),
    )
    manifest = str(folder / "train.tsv")
    with contextlib.chdir(folder):  # where images lie is told from there
        training.train("random:twin", manifest, layers, None, True, options, talk, silent)
    return (folder / "h.pt").read_bytes()


@pytest.fixture(scope="module")
def runs(twin, scratch_template, tmp_path_factory):
    """The folder of a run that was stopped after 7 of 9 steps, and what it is to give."""
    made = [tmp_path_factory.mktemp(name) / "run" for name in ("stopped", "whole")]
    for folder in made:
        shutil.copytree(scratch_template / "photos", folder / "photos")
        shutil.copy(scratch_template / "train.tsv", folder)
    with pytest.raises(Stopped):
        train(made[0], steps=6)
    return made[0], train(made[1])


@pytest.fixture
def stopped(runs, tmp_path):
    """A copy of both."""
    shutil.copytree(runs[0], tmp_path, dirs_exist_ok=True)
    return tmp_path, runs[1]


def path(folder, name):
    return folder / f"h.pt.state/features/{name}"


def exchange(folder, one, other):
    first, second = path(folder, one), path(folder, other)
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


def change(folder, name, do):
    array = np.load(path(folder, name))
    np.save(path(folder, name), do(array))


def flip(folder, name):
    data = bytearray(path(folder, name).read_bytes())
    data[-5] ^= 1
    path(folder, name).write_bytes(data)


TOUCHES = {
    "two layers": lambda folder: exchange(folder, "conv2.npy", "conv3.npy"),
    "two rows": lambda folder: change(folder, "conv2.npy", lambda a: np.roll(a, 1, axis=0)),
    "a bit of a layer": lambda folder: flip(folder, "conv3.npy"),
    "a bit of the digests": lambda folder: flip(folder, "digests.npy"),
    "the digests of two layers": lambda folder: change(
        folder, "digests.npy", lambda a: a[:, [0, 2, 1]].copy()
    ),
    "a row less": lambda folder: change(folder, "conv1.npy", lambda a: a[:-1]),
    "another type": lambda folder: change(folder, "conv1.npy", lambda a: a.astype(float)),
    "a layer cut short": lambda folder: os.truncate(path(folder, "conv1.npy"), 300),
    "an empty layer": lambda folder: os.truncate(path(folder, "conv1.npy"), 0),
}


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_what_was_touched_is_not_trained_on(stopped, touch):
    """The line names the file; with the folder gone it is made anew, and comes out the same."""
    folder, whole = stopped
    touch(folder)
    checkpoints = sorted((folder / "h.pt.state").glob("*.pt"))
    with pytest.raises(DataError, match=r"h\.pt\.state/features/(conv|digests).*\.npy: ") as error:
        train(folder)
    assert "\n" not in str(error.value)
    assert sorted((folder / "h.pt.state").glob("*.pt")) == checkpoints
    shutil.rmtree(folder / "h.pt.state/features")
    assert train(folder) == whole


@pytest.mark.parametrize("name", ["digests.npy", "digests.npy.json", "conv1.npy", "conv2.npy.json"])
def test_what_is_gone_is_made_anew(stopped, name):
    """So is the cache of 0.2.0, which had no digests."""
    folder, whole = stopped
    path(folder, name).unlink()
    assert train(folder) == whole


def as_of_0_2_0(folder):
    """Make of a run what 0.2.0 left: no digest anywhere."""
    for each in path(folder, "").glob("digests.npy*"):
        each.unlink()
    for each in folder.glob("h.pt.state/*.pt"):
        content = torch.load(each, weights_only=True)
        for name in ("digest", "log_digest", "log_lines"):
            del content[name]
        torch.save(content, each)


def cut(folder):
    older, newest = sorted(folder.glob("h.pt.state/*.pt"))
    os.truncate(newest, 4000)


@pytest.mark.parametrize("change", [as_of_0_2_0, cut])
def test_a_run_goes_on_as_if_nothing_had_been(stopped, change):
    """To the last bit, from what 0.2.0 left, or the checkpoint before."""
    folder, whole = stopped
    change(folder)
    assert train(folder) == whole


def test_the_features_of_another_network_are_not_taken(stopped):
    folder, whole = stopped
    sidecar = path(folder, "conv2.npy.json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"model": "0" * 16}))
    assert train(folder) == whole


def test_another_network_does_not_touch_what_a_run_has(stopped):
    folder, whole = stopped
    before = {name: name.read_bytes() for name in path(folder, "").iterdir()}
    with pytest.raises(DataError, match="made with seed 0, not 1; model "):
        train(folder, seed=1)
    assert {name: name.read_bytes() for name in path(folder, "").iterdir()} == before
    assert train(folder) == whole


def test_files_of_others_stay(stopped):
    folder, whole = stopped
    path(folder, "notes").write_text("mine")
    assert train(folder) == whole
    assert [each.name for each in path(folder, "").iterdir()] == ["notes"]
    assert (path(folder, "notes")).read_text() == "mine"


def test_one_that_was_killed_at_its_end_leaves_nothing(stopped):
    """The network was there, the features not yet removed."""
    folder, whole = stopped
    kept = folder / "kept"
    shutil.copytree(path(folder, ""), kept)
    assert train(folder) == whole and not path(folder, "").exists()
    shutil.copytree(kept, path(folder, ""))
    assert train(folder) == whole and not path(folder, "").exists()


def test_a_network_that_cannot_be_written_leaves_the_features(stopped, monkeypatch):
    folder, whole = stopped

    def full(_run, _network):
        raise OSError("No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr("ssl_common.training.checkpoints.Run.finish", full)
        train(folder)
    assert path(folder, "digests.npy").exists()
    assert train(folder) == whole


def test_batch_norm_is_not_given_one_number(stopped):
    """Two layers are 1 x 1: a piece of one image has no variance there."""
    folder, _whole = stopped
    shutil.rmtree(folder / "h.pt.state")
    with pytest.raises(DataError) as error:
        train(folder, accumulate=4)
    assert str(error.value) == (
        "--batch 4 is cut into pieces of 1 image, and batch norm of conv2 (1 x 1) needs 2: "
        "raise --batch, or lower --gpus or --accumulate"
    )
    assert not (folder / "h.pt.state").exists()
    assert train(folder, layers=("conv1",), accumulate=4)
