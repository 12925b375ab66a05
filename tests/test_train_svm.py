"""train-svm as a process: its files, its pipes and what it refuses."""

import io
import json
import os
import pathlib
import signal
import subprocess
import time

import numpy as np
import pytest
from conftest import BIN, environment


def loaded(data):
    with np.load(io.BytesIO(data), allow_pickle=False) as npz:
        return dict(npz)


def refused(done, *words):
    """Check that DONE failed on bad data in one line that holds WORDS."""
    assert done.returncode == 1
    assert done.stdout == b""
    line = done.stderr.decode()
    assert line.count("\n") == 1 and line.startswith("train-svm: ")
    for word in words:
        assert word in line


def test_arrays(run, scratch):
    done = run("train-svm", "train.npy", "train.tsv", "--tag", "data_set=pets", check=0)
    found = loaded(done.stdout)
    assert found["format"] == 1
    assert found["classes"].tolist() == ["cat", "dog"]
    shapes = {"coef": (2, 32), "intercept": (2,), "cost": (2,), "ap": (2, 26), "paths": (12,)}
    for name, shape in shapes.items():
        assert found[name].shape == shape
    assert found["chosen"].tolist() == ["folds", "folds"]
    fields = json.loads(str(found["fields"]))
    sidecar = json.loads((scratch / "train.npy.json").read_text())
    assert fields["layer"] == sidecar["layer"] and fields["model"] == sidecar["model"]
    assert fields["data_set"] == "pets" and fields["train_images"] == 12
    assert done.stderr.decode().startswith("train-svm: 2 classes, 12 images; ")


def test_workers_and_seed(run, scratch):
    lib = ("train-svm", "train.npy", "train.tsv", "--solver", "liblinear")
    one, two = (run(*lib, "-j", j, check=0) for j in (1, 2))
    assert one.stdout == two.stdout
    one, two = (run("train-svm", "train.npy", "train.tsv", "-j", 0, check=0) for _ in range(2))
    assert one.stdout == two.stdout
    other = run("train-svm", "train.npy", "train.tsv", "-j", 0, "--seed", 1, check=0)
    assert other.stdout != one.stdout
    run("train-svm", "train.npy", "train.tsv", "-j", 0, "-o", "x.npz", check=0)
    assert (scratch / "x.npz").read_bytes() == one.stdout


def test_features_from_a_pipe(run, scratch):
    features = (scratch / "train.npy").read_bytes()
    tags = ("--tag", "layer=conv5", "--tag", "model=m", "--tag", "seed=3")
    piped = run("train-svm", "-", "train.tsv", "-j", 0, *tags, stdin=features, check=0)
    named = run("train-svm", "train.npy", "train.tsv", "-j", 0, check=0)
    np.testing.assert_array_equal(loaded(piped.stdout)["coef"], loaded(named.stdout)["coef"])
    fields = json.loads(str(loaded(piped.stdout)["fields"]))
    assert (fields["layer"], fields["model"], fields["seed"]) == ("conv5", "m", 3)


def test_few_positives_are_said(run, scratch):
    rows = (scratch / "train.tsv").read_text().splitlines()
    rows[0] += ",bird"
    rows[1] += ",?fish"
    (scratch / "train.tsv").write_text("\n".join(rows) + "\n")
    done = run("train-svm", "train.npy", "train.tsv", "-j", 0, "-o", "x.npz", check=0)
    said = done.stderr.decode()
    assert said.count("\n") == 1 and "for bird" in said and "for fish" in said
    found = loaded((scratch / "x.npz").read_bytes())
    assert found["classes"].tolist() == ["bird", "cat", "dog", "fish"]
    assert found["chosen"].tolist() == ["others", "folds", "folds", "none"]
    assert np.isnan(found["coef"][3]).all() and np.isnan(found["cost"][3])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_names_the_line(run, scratch, bad):
    features = np.load(scratch / "train.npy")
    features[4, 7] = bad
    np.save(scratch / "train.npy", features)
    for workers in (0, 2):
        done = run("train-svm", "train.npy", "train.tsv", "-j", workers)
        refused(done, "train.npy", "line 5 of train.tsv", "NaN")


def test_features_and_manifest_that_do_not_belong_together(run, scratch):
    refused(run("train-svm", "test.npy", "train.tsv"), "test.npy: 4 rows", "train.tsv has 12 lines")
    rows = (scratch / "train.tsv").read_text().splitlines(keepends=True)
    (scratch / "turned.tsv").write_text("".join(rows[::-1]))
    refused(run("train-svm", "train.npy", "turned.tsv"), "train.npy: made from another manifest")


def test_bad_features(run, scratch):
    for array, words in (
        (np.zeros(12), "12 of float64"),
        (np.zeros((12, 0)), "12 x 0"),
        (np.full((12, 2), "a"), "<U1"),
    ):
        np.save(scratch / "bad.npy", array)
        refused(run("train-svm", "bad.npy", "train.tsv"), "bad.npy: ", words)
    refused(run("train-svm", "train.tsv", "train.tsv"), "train.tsv: not a .npy array")


def test_bad_manifests(run, scratch):
    rows = (scratch / "train.tsv").read_text().splitlines()
    features = (scratch / "train.npy").read_bytes()
    for name, lines, words in (
        ("none", [row.split("\t")[0] for row in rows], "no labels"),
        ("twice", [*rows[:-1], rows[0]], ":12: "),
        ("all", [f"{row.split()[0]}\tx" for row in rows], "no class has both"),
    ):
        (scratch / name).write_text("\n".join(lines) + "\n")
        refused(run("train-svm", "-", name, stdin=features), f"{name}:", words)


def test_no_gpu(run, scratch):
    done = run(
        "train-svm", "train.npy", "train.tsv", "--device", "cuda", env={"CUDA_VISIBLE_DEVICES": ""}
    )
    refused(done, "--device cuda: no GPU here")


def test_bad_command_lines(run, scratch):
    for options in (["-", "-"], ["train.npy"], ["train.npy", "train.tsv", "--tag", "conv5"]):
        done = run("train-svm", *options, stdin=b"")
        assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    clash = run("train-svm", "train.npy", "train.tsv", "--tag", "layer=conv1")
    refused(clash, "layer=conv1", "conv5")
    refused(run("train-svm", "train.npy", "train.tsv", "--tag", "images=many"), "many")


def test_a_failed_run_keeps_what_was_there(run, scratch):
    (scratch / "x.npz").write_bytes(b"before")
    assert run("train-svm", "test.npy", "train.tsv", "-o", "x.npz").returncode == 1
    assert (scratch / "x.npz").read_bytes() == b"before"


@pytest.mark.parametrize(
    "solver, workers, how",
    [
        ("exact", 2, signal.SIGINT),
        ("liblinear", 1, signal.SIGINT),
        ("liblinear", 2, signal.SIGTERM),
        ("liblinear", 2, signal.SIGHUP),
    ],
)
def test_interrupted(scratch, solver, workers, how):
    """A signal reaches every process: one line, no traceback of a worker, no file left."""
    rng = np.random.default_rng(0)
    np.save(scratch / "f.npy", rng.normal(size=(600, 400)).astype(np.float32))
    rows = "".join(f"{i}.jpg\tc{i % 200}\n" for i in range(600))
    (scratch / "m.tsv").write_text(rows)
    (scratch / "tmp").mkdir()
    process = subprocess.Popen(
        [
            str(BIN / "train-svm"),
            "f.npy",
            "m.tsv",
            "-o",
            "x.npz",
            "-j",
            str(workers),
            "--solver",
            solver,
        ],
        cwd=scratch,
        env=environment({"TMPDIR": str(scratch / "tmp")}),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    maps = pathlib.Path(f"/proc/{process.pid}/maps")
    library = "libtorch_cpu" if solver == "exact" else "liblinear"
    while library not in maps.read_text() and not list((scratch / "tmp").iterdir()):
        assert process.poll() is None  # the maps of one that ended are empty, for ever
        time.sleep(0.1)  # until it is at work, here or in its workers
    time.sleep(1)
    assert process.poll() is None
    os.killpg(process.pid, how)
    _, said = process.communicate()
    assert process.returncode == 75
    assert said.decode() == f"train-svm: stopped by {how.name}: run it again to go on\n"
    assert not (scratch / "x.npz").exists() and not list(scratch.glob("*.partial"))
    assert not list((scratch / "tmp").glob("*train-svm*"))


def test_low_shot(run, scratch):
    run("sample-low-shot", "train.tsv", "-k", "1,2", "--samples", 3, "-o", "few", check=0)
    argv = ("train-svm", "train.npy", "train.tsv", "--low-shot", "few")
    done = run(*argv, "-j", 0, "-o", "lowshot.npz", check=0)
    assert done.stderr == b"train-svm: 2 classes, k = 1, 2, 312 fits\n"
    assert run(*argv, "-j", 2, check=0).stdout == (scratch / "lowshot.npz").read_bytes()
    found = loaded((scratch / "lowshot.npz").read_bytes())
    assert sorted(found["samples"].tolist()) == [[s, k] for s in (1, 2, 3) for k in (1, 2)]
    assert found["coefficients_sample3_k2"].shape == (26, 8)
    refused(run("train-svm", "train.npy", "train.tsv", "--low-shot", "."), ".: no sampleS_kK.npy")
    both = run("train-svm", "train.npy", "train.tsv", "--low-shot", "few", "--solver", "liblinear")
    assert both.returncode == 2
