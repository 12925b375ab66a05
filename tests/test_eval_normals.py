"""eval-normals as a real process, against its figures written out."""

import json

import numpy as np
import pytest
import torch
from conftest import process

from ssl_common.data import images
from ssl_common.data.targets import PairList, read_normals
from ssl_common.evaluation.normals import labels
from ssl_common.evaluation.normals.labels import Truth
from ssl_common.evaluation.normals.testing import Predictor


@pytest.fixture(scope="module")
def told(scratch_template):
    done = process(
        ["eval-normals", "normals.pt", "views-test.tsv", "-j", "0", "--tag", "data_name=walls"],
        scratch_template,
    )
    assert done.returncode == 0, done.stderr.decode()
    (line,) = done.stdout.decode().splitlines()
    return json.loads(line), done.stderr.decode()


def angles_of(found, right):
    """Return the angles in degrees of two lists of normals, one by one."""
    found, right = (np.float64(each) / np.linalg.norm(each, axis=0) for each in (found, right))
    return np.degrees(np.arccos((found * right).sum(0).clip(-1, 1)))


def test_every_figure(scratch_template, told):
    """By arc cosine, over all pixels kept."""
    record, err = told
    predictor = Predictor(str(scratch_template / "normals.pt"), torch.device("cpu"))
    pairs = PairList(str(scratch_template / "views-test.tsv"))
    every = {"": [], "constant_": [], "mean_image_": []}
    floor = []
    for index, pair in enumerate(pairs):
        right = read_normals(pairs, index, scratch_template)
        known = right.any(0)
        pixels = predictor.shown(images.read(pair.path, scratch_template))
        own = predictor(pixels, right.shape[1:])
        height, width = right.shape[1:]
        rows, columns = (
            np.stack([np.interp((np.arange(n) + 0.5) * k / n - 0.5, np.arange(k), u)
                      for u in np.eye(k)], 1)
            for n, k in ((height, 24), (width, 32))
        )  # fmt: skip
        mean_image = np.einsum("yh,hwc,xw->cyx", rows, predictor.mean_image, columns)
        constant = np.broadcast_to(predictor.mean[:, None, None], right.shape)
        for name, found in (("", own), ("constant_", constant), ("mean_image_", mean_image)):
            every[name].append(angles_of(found[:, known], right[:, known]))
        cosines = predictor.book.double().numpy() @ right[:, known]
        floor.append(np.degrees(np.arccos(cosines.max(0).clip(-1, 1))))
    for name, lists in every.items():
        whole = np.concatenate(lists)
        assert record[f"{name}mean_error"] == pytest.approx(whole.mean(), rel=1e-5)
        assert abs(record[f"{name}median_error"] - np.median(whole)) < 0.006
        assert record[f"{name}rmse"] == pytest.approx(np.sqrt((whole**2).mean()), rel=1e-5)
        for most, field in ((11.25, "11_25"), (22.5, "22_5"), (30, "30")):
            share = 100 * (whole < most).mean()
            assert record[f"{name}within_{field}"] == pytest.approx(share, abs=0.05)
    assert record["value"] == record["median_error"]
    assert record["pixels"] == sum(map(len, every[""]))
    own = [np.median(each) for each in every[""]]
    assert record["per_image_median_error"] == pytest.approx(np.mean(own), abs=1e-3)
    assert abs(record["code_error"] - np.median(np.concatenate(floor))) < 0.06
    assert f"median {record['value']:.2f} degrees" in err


def test_what_it_was_measured_on(told):
    record, _err = told
    assert (record["task"], record["metric"], record["layer"]) == (
        "normals", "median error", "conv5",
    )  # fmt: skip
    assert (record["ground_truth"], record["rule"]) == ("walls", "exact")
    assert (record["train_ground_truth"], record["train_rule"]) == ("walls", "exact")
    assert (record["train_images"], record["test_images"], record["codes"]) == (4, 2, 2)
    assert (record["arch"], record["pretext"], record["normals_seed"]) == ("caffenet", "random", 0)
    assert (record["data_set"], record["data_name"]) == ("views-test", "walls")
    assert set(record["inputs"]) == {"model", "manifest"}


def test_images_of_the_training_are_refused(scratch, run):
    done = run("eval-normals", "normals.pt", "views.tsv", "-j", "0", check=1)
    assert b"views.tsv:1: views/0.jpg is an image that normals.pt was trained on" in done.stderr
    done = run("eval-normals", "normals.pt", "views.tsv", "-j", "0", "--allow-seen", check=0)
    assert json.loads(done.stdout)["seen"] == 4


def test_the_ground_truth_is_said_by_somebody(scratch, run):
    words = ("eval-normals", "normals.pt", "views-test.tsv", "-j", "0")
    done = run(*words, "--ground-truth", "ladicky", check=1)
    message = "--ground-truth ladicky: views-test.tsv: its pictures say walls"
    assert done.stderr.decode() == f"eval-normals: {message}\n"
    whole = np.broadcast_to(np.reshape([0, 0, 1.0], (3, 1, 1)), (3, 80, 96))
    for number in (4, 5):
        content = labels.written(whole, np.ones((80, 96), bool), Truth())
        (scratch / f"normals/{number}.png").write_bytes(content)
    done = run(*words, check=1)
    assert b"do not say what their normals were made from: --ground-truth does" in done.stderr
    done = run(*words, "--ground-truth", "ladicky", check=0)
    record = json.loads(done.stdout)
    assert (record["ground_truth"], record["rule"]) == ("ladicky", None)


def test_normals_of_another_sign_or_kind_are_refused(scratch, run):
    words = ("eval-normals", "normals.pt", "views-test.tsv", "-j", "0")
    back = np.broadcast_to(np.reshape([0, 0.6, -0.8], (3, 1, 1)), (3, 80, 96))
    for number, truth in ((5, Truth("depth")), (4, Truth("depth"))):
        content = labels.written(back, np.ones((80, 96), bool), truth)
        (scratch / f"normals/{number}.png").write_bytes(content)
        done = run(*words, "-o", "r.jsonl", check=1)
        said = {5: b"views-test.tsv:2: normals of another kind (depth) than before (walls, exact)",
                4: b"views-test.tsv: the median normal is 143 degrees from the way"}  # fmt: skip
        assert said[number] in done.stderr and not (scratch / "r.jsonl").exists()


def test_another_file_is_named(scratch, run):
    done = run("eval-normals", "linear.pt", "views-test.tsv", "-j", "0", check=1)
    assert b"linear.pt: linear classifiers, not a predictor of normals" in done.stderr


def test_report_lists_it_with_its_truth(scratch, run, told):
    record, _err = told
    (scratch / "n.jsonl").write_text(json.dumps(record) + "\n")
    table = run("report", "n.jsonl", check=0).stdout.decode()
    metric = "median error (degrees, lower is better)"
    assert f"| normals | views-test, walls, exact | {metric} |" in table


@pytest.mark.slow
def test_a_trained_predictor_beats_what_needs_no_network(run, tmp_path):
    """On generated scenes, an untrained trunk below it, as `make demo-normals` does it."""
    run("make-scenes", "-n", "170", "-j", "0", "-o", "scenes", check=0)
    lines = (tmp_path / "scenes/normals.tsv").read_text().splitlines(keepends=True)
    for name, part in (("train", lines[:120]), ("test", lines[120:])):
        (tmp_path / f"{name}.tsv").write_text("".join(part))
    words = ("random:alexnet", "train.tsv", "--sides", "160", "--test-side", "160", "-j", "0")
    words += ("--batch", "8", "--iterations", "150", "--lr", "0.02", "--cache", "maps")
    run("train-normals", *words, "-o", "n.pt", check=0)
    done = run("eval-normals", "n.pt", "test.tsv", "--ground-truth", "scenes", "-j", "0", check=0)
    record = json.loads(done.stdout)
    for other in ("constant", "mean_image"):
        assert record["median_error"] < record[f"{other}_median_error"] - 4
        assert record["mean_error"] < record[f"{other}_mean_error"] - 2
        assert record["within_11_25"] > record[f"{other}_within_11_25"] + 10
