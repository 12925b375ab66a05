"""finetune as a real process: what it writes, and that the loop's promises hold for it."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import TINY, ended, environment, picture, tiny
from test_pretrain import steps, untimed
from tiny import Tiny

from ssl_common.models import registry

LABELS = ("cat", "cat,?dog", "dog", "cat,dog", "", "?cat,dog")


def line(*extra, output="tuned.pt", iterations=9):
    argv = ["finetune", "random:tiny", "train.tsv", "--batch", "4", "--iterations", str(iterations)]
    return [*argv, "--checkpoint-every", "1epoch", "-o", output, *extra]


def train(folder, *words, status=0, env=None, **options):
    """Train to the end; return (log, what was said)."""
    return ended(tiny(folder, *line(*words, **options), env=env), status)


def start(folder, *words, **options):
    return subprocess.Popen(
        [sys.executable, TINY, *line(*words, **options)], cwd=folder, stdin=subprocess.DEVNULL,
        env=environment({"OMP_NUM_THREADS": "1"}), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def write_photos(folder):
    """Write 12 photographs with any number of labels into FOLDER, and 6 for testing; lists too."""
    rng = np.random.default_rng(0)
    for name, numbers in (("train", range(12)), ("test", range(12, 18))):
        lines = []
        for number in numbers:
            labels = LABELS[number % 6]
            kind = labels.replace("?", "").split(",")[-1]
            picture(rng, kind, (96, 80)).save(folder / f"{number}.jpg", quality=90)
            lines.append("\t".join(filter(None, (f"{number}.jpg", labels))) + "\n")
        (folder / f"{name}.tsv").write_text("".join(lines))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder, log and last line of a run that nothing stops, with the head of an AlexNet."""
    folder = tmp_path_factory.mktemp("whole")
    write_photos(folder)
    words = ("-j", "0", "--recipe", "alexnet", "--fc", "8", "--lr", "0.05", "--keep-epochs")
    log, err = train(folder, *words)
    return folder, words, log, err


def test_log_and_file(whole):
    folder, _words, log, err = whole
    first, *rest = untimed(log)
    notice, last = err.splitlines()
    assert notice.startswith("finetune: --keep-epochs: 2 checkpoints of ")
    assert last == "finetune: tuned.pt: 3 epochs of 12 images; 2 classes by sigmoid"
    kept = sorted(path.name for path in (folder / "tuned.pt.state").iterdir())
    assert kept == ["log.jsonl", "step-000000000003.pt", "step-000000000006.pt"]
    assert (first["task"], first["recipe"], first["update_rule"]) == (
        "finetune", "alexnet", "clean",
    )  # fmt: skip
    assert (first["loss"], first["classes"], first["fc"]) == ("sigmoid", 2, 8)
    assert [line["step"] for line in rest] == [9] and 0 < rest[0]["loss"] < 2
    found = torch.load(folder / "tuned.pt", weights_only=True)
    assert found["classes"] == ["cat", "dog"] and len(found["paths"]) == 12
    with registry.seeded(0):
        before = Tiny()
    assert found["about"]["model"] == first["model"] == before.digest()
    moved = {n for n, v in before.state_dict().items() if not torch.equal(v, found["trunk"][n])}
    assert {name for name in moved if name.endswith("weight")} == {
        f"conv{n}.0.weight" for n in (1, 2, 3)
    }


def test_what_comes_out_is_a_network(whole, tmp_path):
    """extract-features takes it, and says that it is another one than before."""
    folder, *_rest = whole
    words = ("tuned.pt", "test.tsv", "--layer", "conv3", "-j", "0", "-o", tmp_path / "f.npy")
    done = tiny(folder, "extract-features", *words)
    assert done.returncode == 0, done.stderr.decode()
    said = json.loads((tmp_path / "f.npy.json").read_text())
    found = torch.load(folder / "tuned.pt", weights_only=True)
    trunk = Tiny()
    trunk.load_state_dict(found["trunk"])
    assert said["model"] == trunk.digest() != found["about"]["model"]
    assert (said["pretext"], said["images"], said["data_name"]) == (
        "fine-tuned random",
        12,
        "train",
    )
    assert np.load(tmp_path / "f.npy").shape == (6, 16)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_and_resumed_is_uninterrupted(whole, tmp_path, how):
    folder, words, log, _err = whole
    write_photos(tmp_path)
    process = start(tmp_path, *words, "-j", "2")
    try:
        while not list(tmp_path.glob("tuned.pt.state/step-*.pt")):
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, how)
        process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode in (-signal.SIGKILL, 75, 0)
    again, _ = train(tmp_path, *words)
    assert steps(again) == steps(log)
    assert (tmp_path / "tuned.pt").read_bytes() == (folder / "tuned.pt").read_bytes()


@pytest.mark.slow
def test_two_ranks_take_the_steps_of_one(tmp_path):
    """But for batch norm, which sees the images of its rank: here it is frozen."""
    write_photos(tmp_path)
    frozen, words = {"FROZEN": "1"}, ("-j", "0", "--lr", "0.1")
    ranks = ("--gpus", "2", "--device", "cpu", *words)
    two, _ = train(tmp_path, *ranks, iterations=50, env=frozen)
    one, _ = train(
        tmp_path, "--accumulate", "2", *words, output="one.pt", iterations=50, env=frozen
    )
    (a,), (b,) = steps(two)[1:], steps(one)[1:]
    assert a["loss"] == pytest.approx(b["loss"], rel=1e-5) and a["accuracy"] == b["accuracy"]
    both = [torch.load(tmp_path / name, weights_only=True) for name in ("tuned.pt", "one.pt")]
    for part in ("trunk", "head"):
        for name, value in both[0][part].items():
            assert torch.allclose(value.float(), both[1][part][name].float(), atol=1e-5), name


@pytest.mark.parametrize(
    "words, status, message",
    [
        (("--batch", "16"), 1, "train.tsv: 12 images are less than one batch of 16: give --batch"),
        (("--batch", "4", "--accumulate", "4"), 1, "--batch 4 is cut into pieces of 1 image, and"),
        (("--batch", "4", "--loss", "softmax"), 1, "train.tsv:2: cat,?dog, where one class is"),
        (
            ("--batch", "6", "--update-rule", "paper"),
            1,
            "--update-rule paper: it goes by the",
        ),
        (("--batch", "4", "--recipe", "places"), 2, "Invalid value for '--recipe': 'places' is"),
        (("--batch", "5", "--accumulate", "2"), 2, "--batch 5 is no multiple of 2"),
    ],
)
def test_what_cannot_be(run, tmp_path, words, status, message):
    write_photos(tmp_path)
    done = run("finetune", "random:squeezenet1_1", "train.tsv", *words, "-o", "t.pt", check=status)
    said = done.stderr.decode().splitlines()[-1]
    assert message in said and not done.stdout and not (tmp_path / "t.pt").exists()


def test_an_output_is_required(run, tmp_path):
    write_photos(tmp_path)
    done = run("finetune", "random:caffenet", "train.tsv", check=2)
    assert b"Missing option '-o' / '--output'" in done.stderr and not done.stdout


def test_a_network_that_reads_lightness_wants_its_colours_left_alone(run, tmp_path):
    write_photos(tmp_path)
    words = ("--batch", "4", "--recipe", "resnet50", "-o", "t.pt")
    done = run("finetune", "random:alexnet-lab", "train.tsv", *words, check=1)
    assert b"--recipe resnet50: it changes colours" in done.stderr
    assert b"take --recipe alexnet-lab" in done.stderr
