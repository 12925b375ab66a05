"""train-normals as a real process: it learns, resumes, repeats, and refuses what it cannot use."""

import json
import signal
import subprocess
import sys

import conftest
import numpy as np
import pytest
import torch
from conftest import TINY, environment, make_views

from ssl_common.evaluation.normals import labels, metrics
from ssl_common.evaluation.normals.labels import Truth


@pytest.fixture
def scratch(tmp_path):
    make_views(tmp_path)
    return tmp_path


WORDS = ("random:tiny", "views.tsv", "--sides", "80", "--test-side", "80", "--codes", "2")
WORDS += ("--batch", "4", "-j", "0", "-o", "n.pt")


def tiny(folder, *argv, check=0):
    return conftest.ended(conftest.tiny(folder, *argv), check)


def content(path):
    return torch.load(path, weights_only=True)


@pytest.mark.slow
def test_it_learns_and_the_file_says_all(scratch):
    out, err = tiny(scratch, "train-normals", *WORDS, "--iterations", "25", "--lr", "0.1")
    settings, *log = map(json.loads, out.splitlines())
    said = "normals from walls, exact, of which 2 codes are 0.0 degrees off (median)"
    assert err == f"train-normals: n.pt: 25 epochs of 4 images; {said}\n"
    assert log[-1]["step"] == 25 and log[-1]["loss"] < 0.3 and log[-1]["accuracy"] > 0.9
    assert settings["power"] == 0.9 and settings["code_error"] < 0.5
    found = content(scratch / "n.pt")
    kept = found["settings"]
    assert (kept["train_ground_truth"], kept["train_rule"]) == ("walls", "exact")
    assert found["about"]["pretext"] == "random" and len(found["paths"]) == 4
    codes = found["codes"].numpy()
    walls = np.array([[-0.6, 0, 0.8], [0.6, 0, 0.8]])
    assert metrics.angles(codes[codes[:, 0].argsort()].T, walls.T).max() < 0.5
    from tiny import Tiny

    from ssl_common.models import registry

    with registry.seeded(0):
        assert all(torch.equal(found["frozen"][k], v) for k, v in Tiny().state_dict().items())


def test_a_stopped_run_goes_on_to_the_same_weights(scratch):
    """Dropout, batch norm and the order of the images go on where they were."""
    words = (*WORDS[:-1], "whole.pt", "--iterations", "6")
    tiny(scratch, "train-normals", *words, "--checkpoint-every", "2steps")
    words = (*WORDS, "--iterations", "6", "--checkpoint-every", "2steps")
    argv = [sys.executable, str(TINY), "train-normals", *words]
    run = subprocess.Popen(
        argv, cwd=scratch, env=environment({"OMP_NUM_THREADS": "1"}),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        run.stdout.readline()  # the settings: it has begun
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) in (0, 75)
    finally:
        run.kill()
        run.communicate()
    tiny(scratch, "train-normals", *words)
    whole, again = (content(scratch / name) for name in ("whole.pt", "n.pt"))
    assert all(torch.equal(again["network"][k], v) for k, v in whole["network"].items())
    out, err = tiny(scratch, "train-normals", *words)
    assert "n.pt is complete already: nothing to do" in err and out


def test_kept_maps_and_given_codes(scratch):
    """The second run finds the maps; on images of one size they are the same to float16."""
    np.save(scratch / "walls.npy", np.float32([[-0.6, 0, 0.8], [0.6, 0, 0.8], [0, 0, 1]]))
    words = (*WORDS[:-1], "kept.pt", "--iterations", "2", "--codes", "walls.npy", "--flip")
    _out, err = tiny(scratch, "train-normals", *words, "--cache", "maps")
    said = "the maps of 4 images at 1 size and their mirror images, 0.00 GB;"
    assert said in err and "of which 3 codes are 0.3 degrees off" in err
    found, kept = content(scratch / "kept.pt"), sorted((scratch / "maps").iterdir())
    assert found["settings"]["cache"] is True and found["settings"]["codes_from"] == "walls"
    assert np.allclose(found["codes"].numpy(), np.load(scratch / "walls.npy"))
    stamps = [path.stat().st_mtime_ns for path in kept]
    words = [*words, "--cache", "maps"]
    words[words.index("kept.pt")] = "again.pt"
    _out, err = tiny(scratch, "train-normals", *words)
    assert "0.00 GB are there" in err and len(kept) == 2
    assert [path.stat().st_mtime_ns for path in kept] == stamps
    again = content(scratch / "again.pt")["network"]
    assert all(torch.equal(again[k], v) for k, v in found["network"].items())
    words[words.index("again.pt")] = "plain.pt"
    tiny(scratch, "train-normals", *words[:-2])
    plain = content(scratch / "plain.pt")["network"]
    weights = [k for k, v in plain.items() if v.ndim > 1]
    for name in weights:
        off = (again[name] - plain[name]).norm() / plain[name].norm()
        assert off < 1e-3, name


def test_workers_change_nothing(scratch):
    found = []
    for workers in ("0", "2"):
        words = (*WORDS[:-1], f"n{workers}.pt", "--iterations", "2", "--flip", "--sides", "80,96")
        tiny(scratch, "train-normals", *words, "-j", workers)
        found.append(content(scratch / f"n{workers}.pt")["network"])
    assert all(torch.equal(found[1][k], v) for k, v in found[0].items())


@pytest.mark.parametrize(
    "words, status, message",
    [
        (("--batch", "6"), 1, "views.tsv: 4 images are less than one batch of 6: give --batch 4"),
        (("--accumulate", "4"), 1, "--batch 4 is cut into pieces of 1 image, and batch norm needs"),
        (("--codes", "9"), 1, "the labels have fewer than 9 normals: give a smaller --codes"),
        (("--codes", "1"), 2, "'1' is not a whole number from 2 to 1,000"),
        (("--sides", "8"), 2, "not like 300,450"),
        (("--codes", "none.npy"), 1, "none.npy: No such file or directory"),
    ],
)
def test_what_cannot_be(scratch, words, status, message):
    out, err = tiny(scratch, "train-normals", *WORDS, *words, "--iterations", "1", check=status)
    assert message in err and not out and len(err.splitlines()) == 1
    assert not (scratch / "n.pt").exists()


@pytest.mark.parametrize("damage", ["sign", "kind", "missing", "shape", "no picture"])
def test_labels_that_are_refused(scratch, damage):
    target = scratch / "normals/1.png"
    whole = np.broadcast_to(np.reshape([0, 0, 1.0], (3, 1, 1)), (3, 80, 96))
    messages = {
        "sign": "views.tsv: the median normal is 143 degrees from the way to the camera",
        "kind": "views.tsv:2: normals of another kind (depth) than before (walls, exact)",
        "missing": "views.tsv:2: ./normals/1.png: No such file or directory: mend the file",
        "shape": "views.tsv:2: views/1.jpg has 96 x 80 pixels, and its normals 80 x 80",
        "no picture": "views.tsv:2: ./normals/1.png: not an image",
    }
    if damage == "sign":
        for number in range(4):
            wall = np.reshape([0.6, 0, -0.8], (3, 1, 1))
            content = labels.written(
                np.broadcast_to(wall, (3, 80, 96)), np.ones((80, 96), bool), Truth("walls", "exact")
            )
            (scratch / f"normals/{number}.png").write_bytes(content)
    if damage == "kind":
        target.write_bytes(labels.written(whole, np.ones((80, 96), bool), Truth("depth")))
    if damage == "missing":
        target.unlink()
    if damage == "shape":
        square = np.ones((80, 80), bool)
        target.write_bytes(labels.written(whole[:, :, :80], square, Truth("walls", "exact")))
    if damage == "no picture":
        target.write_bytes(b"x")
    words = (*WORDS, "--iterations", "1", "--batch", "4")
    _out, err = tiny(scratch, "train-normals", *words, check=1)
    assert messages[damage] in err.splitlines()[-1]
    assert not (scratch / "n.pt").exists()


@pytest.mark.slow
def test_res5_is_trained_and_nothing_before_it(scratch):
    """The paper's network, on two images."""
    words = ["random:resnet50", "views.tsv", "--sides", "64", "--codes", "2", "--batch", "2"]
    tiny(scratch, "train-normals", *words, "--iterations", "2", "--lr", "0.1", "-j", "0",
         "-o", "r.pt")  # fmt: skip
    found = content(scratch / "r.pt")
    frozen, top = found["frozen"], found["network"]
    moved = [k for k, v in top.items() if k.startswith("top.") and k.endswith("weight")
             and not torch.equal(v, frozen[f"res5.{k.removeprefix('top.')}"])]  # fmt: skip
    assert len(moved) >= 10  # all convolutions
    out, _err = tiny(scratch, "eval-normals", "r.pt", "views-test.tsv", "-j", "0")
    assert json.loads(out)["layer"] == "res5"
