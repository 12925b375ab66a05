"""train-linear as a real process: what it writes, and that the loop's promises hold for it."""

import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import TINY, ended, environment, tiny
from test_pretrain import finish, steps, untimed
from tiny import Tiny

from ssl_common.data import images
from ssl_common.data.pixels import resize, standardize
from ssl_common.models import registry

FIRST = ["random:tiny", "train.tsv", "--batch", "4"]


def line(*extra, output="heads.pt", iterations=90):
    argv = ["train-linear", *FIRST, "--iterations", str(iterations)]
    return [*argv, "-o", output, *extra]


def train(folder, *words, status=0, env=None, **options):
    """Train to the end; return (log, what was said)."""
    return ended(tiny(folder, *line(*words, **options), env=env), status)


def start(folder, *words, **options):
    return subprocess.Popen(
        [sys.executable, TINY, *line(*words, **options)], cwd=folder, stdin=subprocess.DEVNULL,
        env=environment({"OMP_NUM_THREADS": "1"}), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="module", params=[(), ("--cache",)], ids=["augmented", "cached"])
def whole(request, scratch_template, tmp_path_factory):
    """The options, the log and the file of a run that nothing stops."""
    import shutil

    folder = tmp_path_factory.mktemp("whole") / "scratch"
    shutil.copytree(scratch_template, folder)
    log, err = train(folder, "-j", "0", *request.param)
    assert err == "train-linear: heads.pt: 30 epochs of 12 images\n"
    assert [path.name for path in (folder / "heads.pt.state").iterdir()] == ["log.jsonl"]
    return request.param, log, (folder / "heads.pt").read_bytes()


def test_log_and_file(whole, tmp_path):
    options, log, content = whole
    first, *rest = untimed(log)
    assert first["task"] == "linear" and first["layers"] == ["conv1", "conv2", "conv3"]
    assert (first["recipe"], first["classes"], first["steps"]) == ("resnet50", 2, 90)
    assert (first["crop"], first["flip"]) == (("center", False) if options else ("sized", True))
    assert [line["step"] for line in rest] == [50, 90]
    # What batch norm began with is forgotten by e**-10 in the 90 steps, or somewhat more.
    assert (1 - first["bn_momentum"]) ** 90 == pytest.approx(0.6 * math.exp(-10), rel=0.1)
    assert first["argv"][0] == "train-linear" and all(line["loss"] > 0 for line in rest)
    (tmp_path / "heads.pt").write_bytes(content)
    found = torch.load(tmp_path / "heads.pt", weights_only=True)
    assert found["classes"] == ["cat", "dog"] and len(found["heads"]) == 3 * 5
    with registry.seeded(0):
        trunk = Tiny()
    assert all(torch.equal(found["frozen"][k], v) for k, v in trunk.state_dict().items())
    assert found["about"]["model"] == first["model"] == trunk.digest()


def test_stopped_and_resumed_is_uninterrupted(whole, scratch):
    options, log, content = whole
    process = start(scratch, "-j", "2", "--checkpoint-every", "20steps", *options)
    assert [json.loads(process.stdout.readline()) for _ in range(2)][1]["step"] == 50
    os.killpg(process.pid, signal.SIGTERM)
    _, err = finish(process, 75)
    assert err == "train-linear: stopped by SIGTERM: run it again to go on\n"
    if options:
        check_cache(scratch)
    again, _ = train(scratch, "-j", "0", *options)
    assert steps(again) == steps(log)
    assert (scratch / "heads.pt").read_bytes() == content


def check_cache(folder):
    """The features on the disk are those of the middle of each image, in the trunk's own words."""
    with registry.seeded(0):
        trunk = Tiny().eval()
    for layer, (kernel, stride, padding) in Tiny.pooling.items():
        rows = np.load(folder / f"heads.pt.state/features/{layer}.npy")
        for line, row in zip((folder / "train.tsv").read_text().splitlines(), rows, strict=True):
            image = images.read(line.split("\t")[0], folder)  # 80 x 96
            image = resize(image, (256, 307))[96:160, 122:186].permute(2, 0, 1)
            with torch.no_grad():
                found = standardize(image)[None]
                for name, stage in trunk.named_children():
                    found = stage(found)
                    if name == layer:
                        break
                pooled = torch.nn.AvgPool2d(kernel, stride, padding, count_include_pad=False)
                want = pooled(found).flatten()
            np.testing.assert_allclose(row, want, atol=1e-5)


def test_other_options_do_not_touch_what_is_there(whole, scratch):
    options, _log, content = whole
    (scratch / "heads.pt").write_bytes(content)
    (scratch / "train.tsv").write_text((scratch / "train.tsv").read_text().replace("\tcat", "\tx"))
    _, err = train(scratch, "--lr", "0.5", *options, status=1)
    assert "made with lr 0.00015625, not 0.5; labels " in err and err.count("\n") == 1
    assert (scratch / "heads.pt").read_bytes() == content


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--cache",)])
def test_two_ranks_take_the_steps_of_one(scratch, options):
    """But for batch norm, which sees the images of its rank: here it is frozen."""
    frozen = {"FROZEN": "1"}
    ranks = ("--gpus", "2", "--device", "cpu", "-j", "0", *options)
    two, _ = train(scratch, *ranks, iterations=50, env=frozen)
    one, _ = train(scratch, "--accumulate", "2", "-j", "0", *options, output="one.pt",
                          iterations=50, env=frozen)  # fmt: skip
    (a,), (b,) = steps(two)[1:], steps(one)[1:]
    assert a["loss"] == pytest.approx(b["loss"], rel=1e-5) and a["accuracy"] == b["accuracy"]


def test_a_single_class_cannot_be_learned(run, scratch):
    (scratch / "train.tsv").write_text(
        (scratch / "train.tsv").read_text().replace("\tdog", "\tcat")
    )
    done = run("train-linear", "random:alexnet", *FIRST[1:], "-o", "heads.pt", check=1)
    assert done.stderr.decode() == "train-linear: train.tsv: all are cat: see its labels\n"
    assert not done.stdout and not (scratch / "heads.pt").exists()


def test_an_image_that_gives_way_gives_its_label_too(scratch):
    """No cat is readable: what is seen in their place is the first dog, and learned as a dog."""
    for number in range(6):
        (scratch / f"photos/cat/{number}.jpg").write_bytes(b"no image")
    words = ("-j", "0", "--max-bad", "50%", "--lr", "0.01")
    log, _ = train(scratch, *words, iterations=48)
    last = untimed(log)[-1]
    assert last["unreadable"] == 6 * 16 and last["accuracy"] > 0.95
    _, err = train(scratch, "--cache", "-j", "0", output="cached.pt", status=1)
    assert err.startswith("train-linear: train.tsv:1: ") and err.count("\n") == 1


def test_a_network_that_reads_lightness_wants_its_colours_left_alone(run, scratch):
    options = ("--recipe", "resnet50", "-o", "heads.pt")
    done = run("train-linear", "random:alexnet-lab", *FIRST[1:], *options, check=1)
    assert b"--recipe resnet50: it changes colours" in done.stderr
    assert b"take --recipe alexnet-lab" in done.stderr
