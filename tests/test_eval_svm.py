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
    words = ("--tag layer=conv4: svm.npz says conv5",)
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


def test_images_are_known_by_their_bytes(run, call, scratch):
    """Equal names in two folders are no matter, copies are; a record counts what is let pass."""

    def held(split, numbers):
        np.save(scratch / "held.npy", np.array(numbers, np.uint64))
        (scratch / "held.npy").rename(scratch / f"{split}.npy.images")

    for name in ("test.npy", "test.tsv"):  # of the same names as lines 1 to 4 of the training
        (scratch / name).unlink()
    np.save(scratch / "test.npy", np.load(scratch / "train.npy")[:4] + 1)
    lines = (scratch / "train.tsv").read_text().splitlines(keepends=True)
    (scratch / "test.tsv").write_text("".join(lines[:3]) + "photos/dog/x.jpg\tdog\n")
    (scratch / "test.npy.json").unlink()
    advice = "give --allow-seen if they are other images"
    call(*EXAMPLE, words=("test.tsv:1: photos/cat/0.jpg is the path of", "(3 such lines)", advice))
    record = call(*EXAMPLE, "--allow-seen")
    assert (record["seen"], record["seen_by"]) == (3, "paths")

    held("train", range(100, 112))
    run("train-svm", "train.npy", "train.tsv", "-o", "svm.npz", check=0)
    call(*EXAMPLE, words=("is the path of",))  # of the test, nobody knows what they held
    held("test", [1, 2, 3, 4])
    assert "seen" not in call(*EXAMPLE)
    held("test", [1, 2, 3, 111])
    call(*EXAMPLE, words=("test.tsv:4: photos/dog/x.jpg holds the bytes of an image that svm.npz",))
    record = call(*EXAMPLE, "--allow-seen")
    assert (record["seen"], record["seen_by"]) == (1, "contents")
    held("test", [1, 2, 3])
    call(*EXAMPLE, words=("test.npy.images: 3 images, but test.npy has 4",))


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
    call(
        "other.npz",
        *EXAMPLE[1:],
        words=("other.npz: not classifiers of train-svm: ",),
    )
    arrays = dict(np.load(scratch / "svm.npz"))
    np.savez(scratch / "later.npz", **arrays | {"format": 2})
    call("later.npz", *EXAMPLE[1:], words=("later.npz: format 2",))


def test_a_repeated_path(call, scratch):
    rows = (scratch / "test.tsv").read_text().splitlines(keepends=True)
    (scratch / "twice.tsv").write_text("".join([*rows[:3], rows[0]]))
    stdin = (scratch / "test.npy").read_bytes()
    call("svm.npz", "-", "twice.tsv", stdin=stdin, words=("twice.tsv:4:", "line 1 already"))


def test_scores_are_the_decision_values(run, call, scratch):
    record = call(*EXAMPLE, "--scores", "scores.npy")
    scores, npz = np.load(scratch / "scores.npy"), np.load(scratch / "svm.npz")
    rows = np.load(scratch / "test.npy").astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5
    np.testing.assert_allclose(scores, rows @ npz["coef"].T + npz["intercept"], rtol=1e-12)
    cat = average_precision(scores[:, 0], [True, True, False, False])
    assert record["per_class"]["cat"] == 100 * cat
    (scratch / "scores.npy").write_bytes(b"before")
    call("svm.npz", "test.npy", "train.tsv", "--scores", "scores.npy", words=("4 rows",))
    assert (scratch / "scores.npy").read_bytes() == b"before"


def test_bootstrap_is_that_of_resampled_images(run, call, scratch):
    """Each sample by hand: its images written out, as many times as they were drawn."""
    rng = np.random.default_rng(1)
    rows = "".join(
        f"photos/{i}.jpg\t{['cat', '?cat', 'dog', 'cat,dog', ''][i % 5]}\n" for i in range(30)
    )
    (scratch / "many.tsv").write_text(rows)
    np.save(scratch / "many.npy", rng.normal(size=(30, 32)))
    argv = ("svm.npz", "many.npy", "many.tsv", "--bootstrap", 150, "--scores", "s.npy", "--seed", 3)
    record = call(*argv)
    scores, means = np.load(scratch / "s.npy"), []
    kinds = np.arange(30) % 5
    for number in range(150):
        drawn = np.random.default_rng((3, number)).integers(30, size=30)
        cat, kind = drawn[kinds[drawn] != 1], kinds[drawn]
        aps = [
            average_precision(scores[cat, 0], np.isin(kinds[cat], (0, 3))),
            average_precision(scores[drawn, 1], np.isin(kind, (2, 3))),
        ]
        means.append(100 * np.mean(aps))
    assert record["interval"] == pytest.approx(np.percentile(means, [2.5, 97.5]))
    assert record["interval"][0] < record["value"] < record["interval"][1]
    assert (record["bootstrap"], record["bootstrap_seed"]) == (150, 3)


def few_shot(run, scratch):
    run("sample-low-shot", "train.tsv", "-k", "1,4", "--samples", 3, "-o", "few", check=0)
    argv = ("train.npy", "train.tsv", "--low-shot", "few", "-j", 0, "-o", "lowshot.npz")
    run("train-svm", *argv, check=0)


LOW_SHOT = ("lowshot.npz", "test.npy", "test.tsv")


def test_low_shot(run, call, scratch):
    """Each value from the coefficients, with the cost that is best on the test images."""
    few_shot(run, scratch)
    features = np.random.default_rng(1).normal(size=(4, 32)).clip(0) + 0.3
    np.save(scratch / "test.npy", features)
    done = run("eval-svm", *LOW_SHOT, "--train-features", "train.npy", check=0)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["k"], r["metric"]) for r in records] == [
        (k, metric) for k in (1, 4) for metric in ("mAP", "top-1")
    ]
    npz = np.load(scratch / "lowshot.npz")
    train = np.load(scratch / "train.npy").astype(np.float64)
    ours, theirs = (
        x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-5) for x in (train, features)
    )
    for k in (1, 4):
        maps, tops = [], []
        for s in (1, 2, 3):
            rows, a = (npz[f"{part}_sample{s}_k{k}"] for part in ("rows", "coefficients"))
            halves = np.split(np.arange(len(rows)), 2)  # cat, then dog
            w = [a[:, half] @ np.c_[ours[rows[half]], np.ones(2 * k)] for half in halves]
            scores = np.stack([np.c_[theirs, np.ones(4)] @ each.T for each in w])  # (C, N, K)
            truth = np.array([[True, True, False, False], [False, False, True, True]])
            maps.append([
                np.mean([average_precision(scores[c, :, j], truth[c]) for c in (0, 1)])
                for j in range(26)
            ])  # fmt: skip
            tops.append((scores.argmax(axis=0) == [[0], [0], [1], [1]]).mean(axis=0))
        for metric, values in (("mAP", maps), ("top-1", tops)):
            (record,) = (r for r in records if (r["k"], r["metric"]) == (k, metric))
            best = 100 * np.array(values)[:, np.argmax(np.mean(values, axis=0))]
            assert record["value"] == pytest.approx(best.mean())
            assert (record["min"], record["max"]) == pytest.approx((best.min(), best.max()))
            assert record["std"] == pytest.approx(best.std())
            assert (record["task"], record["samples"]) == ("low-shot", 3)
            assert record["cost_from"] == "test"
            assert record["cost"] == npz["costs"][np.argmax(np.mean(values, axis=0))]
    assert len(records[0]["per_class"]) == 2 and records[0]["classes"] == 2


def test_low_shot_needs_what_it_was_trained_on(run, call, scratch):
    few_shot(run, scratch)
    call(*LOW_SHOT, words=("lowshot.npz: low-shot classifiers: add --train-features",))
    given = ("--train-features", "test.npy")
    call(*LOW_SHOT, *given, words=("test.npy: not the features", "lowshot.npz"))
    given = ("--train-features", "train.npy")
    call(*EXAMPLE, *given, words=("svm.npz: not low-shot classifiers: leave out",))
    call(*LOW_SHOT, *given, "--bootstrap", 10, words=("leave out --bootstrap",))
    call("lowshot.npz", "train.npy", "train.tsv", *given, words=("train.tsv:1:", "was trained on"))
