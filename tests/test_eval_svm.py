"""eval-svm as a process: its record, and the features it refuses."""

import json

import numpy as np
import pytest

from ssl_common.evaluation.metrics import average_precision


@pytest.fixture
def call(run, scratch):
    """Run eval-svm; with WORDS it must refuse in one line with them, else return its record."""

    def call(*argv, words=(), stdin=None):
        done = run("eval-svm", *argv, stdin=stdin, check=1 if words else 0)
        assert done.stderr.count(b"\n") == 1
        for word in words:
            assert word in done.stderr.decode()
        assert not words or done.stdout == b""
        return None if words else json.loads(done.stdout)

    return call


EXAMPLE = ("svm.npz", "test.npy", "test.tsv")


def relabel(path, labels):
    rows = [line.split("\t")[0] for line in path.read_text().splitlines()]
    pairs = zip(rows, labels, strict=True)
    path.write_text("".join(f"{row}\t{label}\n" if label else f"{row}\n" for row, label in pairs))


def test_record(call, scratch):
    record = call(*EXAMPLE)
    expected = {"task": "svm", "data_set": "test", "layer": "conv5", "metric": "mAP", "seed": 0}
    assert {name: record[name] for name in expected} == expected
    assert (record["arch"], record["pretext"], record["model"]) == (
        "alexnet",
        "random",
        "0123456789abcdef",
    )
    assert (record["classes"], record["test_images"], record["train_images"]) == (2, 4, 12)
    assert record["argv"] == ["eval-svm", *EXAMPLE]
    assert record["version"] and all(record["inputs"].values())
    assert record["value"] == pytest.approx(np.mean(list(record["per_class"].values())))


def test_average_precision_of_the_weights(call, scratch):
    """The same from the arrays in svm.npz; a difficult image is left out."""
    features = np.random.default_rng(1).normal(size=(4, 32)).astype(np.float32)
    np.save(scratch / "test.npy", features)
    relabel(scratch / "test.tsv", ["cat", "?cat", "dog", "cat,dog"])
    record = call(*EXAMPLE)
    npz = np.load(scratch / "svm.npz", allow_pickle=False)
    rows = features.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5
    cat, dog = (rows @ npz["coef"].T + npz["intercept"]).T
    expected = {
        "cat": 100 * average_precision(cat[[0, 2, 3]], [True, False, True]),
        "dog": 100 * average_precision(dog, [False, False, True, True]),
    }
    assert record["per_class"] == pytest.approx(expected)


def test_classes_that_one_side_lacks(run, call, scratch):
    relabel(scratch / "test.tsv", ["cat", "", "bird", ""])
    done = run("eval-svm", *EXAMPLE, check=0)
    record = json.loads(done.stdout)
    assert record["per_class"]["dog"] is None
    assert (record["classes"], record["unseen"]) == (1, ["bird"])
    assert record["value"] == record["per_class"]["cat"]
    assert b"not trained: bird" in done.stderr
    relabel(scratch / "test.tsv", ["", "?dog", "bird", ""])
    call(*EXAMPLE, words=("test.tsv", "shows no class"))


def test_a_class_without_classifier_is_null(run, call, scratch):
    labels = ["cat"] * 6 + ["?fish"] + ["dog"] * 5
    relabel(scratch / "train.tsv", labels)
    run("train-svm", "train.npy", "train.tsv", "-j", 0, "-o", "svm.npz", check=0)
    relabel(scratch / "test.tsv", ["cat", "fish", "dog", ""])
    record = call(*EXAMPLE)
    assert record["per_class"]["fish"] is None
    assert record["classes"] == 2


def test_names_of_the_data_set(run, call, scratch):
    tag = ("--tag", "data_set=voc2007")
    run("train-svm", "train.npy", "train.tsv", "-j", 0, "-o", "svm.npz", *tag, check=0)
    assert call(*EXAMPLE)["data_set"] == "voc2007"
    assert call(*EXAMPLE, "--tag", "data_set=coco")["data_set"] == "coco"


def test_pipes(run, call, scratch):
    record = call(*EXAMPLE)
    features = (scratch / "test.npy").read_bytes()
    piped = call("svm.npz", "-", "test.tsv", stdin=features)
    assert piped["value"] == record["value"] and piped["layer"] == "conv5"
    assert piped["inputs"]["features"] is None
    manifest = call("svm.npz", "test.npy", "-", stdin=(scratch / "test.tsv").read_bytes())
    assert manifest["inputs"] == record["inputs"] and manifest["data_set"] is None
    assert call("-", *EXAMPLE[1:], stdin=(scratch / "svm.npz").read_bytes())["value"]
    tags = ("--tag", "layer=conv4")
    words = ("layer conv4", "trained on layer conv5")
    call("svm.npz", "-", "test.tsv", *tags, stdin=features, words=words)
    assert run("eval-svm", "svm.npz", "-", "-", stdin=b"").returncode == 2


def test_trained_on_features_are_refused(call, scratch):
    call("svm.npz", "train.npy", "train.tsv", words=("train.tsv:1:", "was trained on", "12 such"))
    one = (scratch / "train.tsv").read_text().splitlines(keepends=True)[3]
    with (scratch / "test.tsv").open("a") as stream:
        stream.write(one)
    features = np.concatenate([np.load(scratch / f"{s}.npy") for s in ("test", "train")])[:5]
    np.save(scratch / "five.npy", features)
    call("svm.npz", "five.npy", "test.tsv", words=("test.tsv:5:", "was trained on"))


@pytest.mark.parametrize("field", ["layer", "model", "manifest"])
def test_features_of_something_else_are_refused(call, scratch, field):
    path = scratch / "test.npy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: "other"}))
    call(*EXAMPLE, words=("test.npy: ", field))


def test_bad_features(call, scratch):
    features = np.load(scratch / "test.npy")
    np.save(scratch / "wide.npy", np.concatenate([features, features], axis=1))
    call("svm.npz", "wide.npy", "test.tsv", words=("wide.npy: 64 numbers", "takes 32"))
    np.save(scratch / "short.npy", features[:3])
    call("svm.npz", "short.npy", "test.tsv", words=("short.npy: 3 rows", "4 lines"))
    features[2, 0] = np.nan
    np.save(scratch / "nan.npy", features)
    call("svm.npz", "nan.npy", "test.tsv", words=("nan.npy: NaN", "line 3 of test.tsv"))


def test_bad_svm(call, scratch):
    call("test.npy", *EXAMPLE[1:], words=("test.npy: not a .npz",))
    np.savez(scratch / "other.npz", a=np.zeros(3))
    call("other.npz", *EXAMPLE[1:], words=("other.npz: not written by train-svm",))
    arrays = dict(np.load(scratch / "svm.npz"))
    np.savez(scratch / "later.npz", **arrays | {"format": 2})
    call("later.npz", *EXAMPLE[1:], words=("later.npz: format 2",))


def test_a_repeated_path(call, scratch):
    rows = (scratch / "test.tsv").read_text().splitlines(keepends=True)
    (scratch / "twice.tsv").write_text("".join([*rows[:3], rows[0]]))
    stdin = (scratch / "test.npy").read_bytes()
    call("svm.npz", "-", "twice.tsv", stdin=stdin, words=("twice.tsv:4:", "line 1 already"))
