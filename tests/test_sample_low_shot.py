"""sample-low-shot as a process, and its rule against counts of the real annotations."""

import os
import tracemalloc

import numpy as np
import pytest

from ssl_common.data import samples
from ssl_common.data.lines import PIECE
from ssl_common.data.manifest import Manifest, class_rows, label_matrix
from ssl_common.streams import DataError


def matrices(folder):
    return {path.name: np.load(path) for path in sorted(folder.glob("*.npy"))}


def check_several(labels, matrix, k):
    """Check MATRIX against the rule for images of several classes; LABELS 1, 0 difficult, -1."""
    for c in range(labels.shape[1]):
        positive, negative = (np.flatnonzero(matrix[:, c] == v) for v in (1, 0))
        if (labels[:, c] == 1).sum() < k or (labels[:, c] == -1).sum() < 19 * k:
            assert len(positive) == len(negative) == 0
        else:
            assert (len(positive), len(negative)) == (k, 19 * k)
            assert (labels[positive, c] == 1).all() and (labels[negative, c] == -1).all()


def test_several_classes_an_image(run, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.choice([1, 0, -1], (200, 3), p=[0.1, 0.1, 0.8])
    labels[:, 2] = -1
    labels[:2, 2] = 1
    lines = []
    for i, row in enumerate(labels):
        said = [
            ("?" if v == 0 else "") + name for v, name in zip(row, "abc", strict=True) if v >= 0
        ]
        lines.append(f"{i}.jpg\t{','.join(said)}\n" if said else f"{i}.jpg\n")
    (tmp_path / "m.tsv").write_text("".join(lines))
    done = run("sample-low-shot", "m.tsv", "-k", "1,4", "--samples", 3, "-o", "few", check=0)
    names = [f"sample{s}_k{k}.npy" for k in (1, 4) for s in (1, 2, 3)]
    assert done.stdout.decode().split() == [f"few/{name}" for name in names]
    assert (
        done.stderr
        == b"sample-low-shot: 6 samples, k positives and 19k negatives a class; k=4 without c\n"
    )
    found = matrices(tmp_path / "few")
    assert set(found) == set(names)
    for name, matrix in found.items():
        assert matrix.dtype == np.int8 and matrix.shape == (200, 3)
        check_several(labels, matrix, int(name[-5]))
    assert len({matrix.tobytes() for matrix in found.values()}) == 6
    other = ("sample-low-shot", "m.tsv", "-k", "1", "--samples", 1, "--seed", 1, "-o", "other")
    run(*other, check=0)
    assert (matrices(tmp_path / "other")["sample1_k1.npy"] != found["sample1_k1.npy"]).any()
    run("sample-low-shot", "m.tsv", "-k", "4", "--samples", 1, "-o", "alone", check=0)
    np.testing.assert_array_equal(
        matrices(tmp_path / "alone")["sample1_k4.npy"], found["sample1_k4.npy"]
    )


def test_one_class_an_image(run, tmp_path):
    labels = np.repeat([0, 1, 2], [10, 10, 3])
    (tmp_path / "m.tsv").write_text("".join(f"{i}.jpg\tc{c}\n" for i, c in enumerate(labels)))
    done = run("sample-low-shot", "m.tsv", "-k", "4", "--samples", 2, "-o", "few", check=0)
    assert b"k=4 without c2" in done.stderr
    for matrix in matrices(tmp_path / "few").values():
        used = np.flatnonzero((matrix >= 0).any(axis=1))
        assert np.bincount(labels[used]).tolist() == [4, 4]
        np.testing.assert_array_equal(matrix[used, :2], np.eye(2)[labels[used]])
        assert (matrix[:, 2] == -1).all()


def test_voc2007(run, data, tmp_path):
    """All 5,011 images of trainval: sheep has 96 positives, and no other class fewer."""
    devkit = data("voc2007_text_full") / "VOCdevkit/VOC2007"
    run("list-images", "voc", devkit, "--split", "trainval", "-o", "voc.tsv", check=0)
    rows = [line.split("\t")[1:] for line in (tmp_path / "voc.tsv").read_text().splitlines()]
    names = sorted({label.lstrip("?") for row in rows for label in row[0].split(",")})
    labels = np.full((5011, 20), -1)
    for i, row in enumerate(rows):
        for label in row[0].split(","):
            labels[i, names.index(label.lstrip("?"))] = 1 - label.startswith("?")
    assert labels[:, names.index("sheep")].tolist().count(1) == 96
    argv = ("sample-low-shot", "voc.tsv", "--samples", 1)
    done = run(*argv, "-o", "few", check=0)
    assert done.stderr == b"sample-low-shot: 8 samples, k positives and 19k negatives a class\n"
    for name, matrix in matrices(tmp_path / "few").items():
        check_several(labels, matrix, int(name[:-4].split("_k")[1]))
        assert ((matrix == 1).any(axis=0)).all()
    done = run(*argv, "-k", "97", "-o", "more", check=0)
    assert done.stderr.endswith(
        b": 1 samples, k positives and 19k negatives a class; k=97 without sheep\n"
    )


ONE_CLASS_EACH = "".join(f"{c}/{i}.jpg\t{c}\n" for c in "abcd" for i in range(40))


@pytest.mark.parametrize("more", ["", "banner.jpg\n", "banner.jpg\t\nlogo.jpg\n"])
def test_images_without_a_label_among_others_of_one_class(run, tmp_path, more):
    """The rule is asked for: they may be negatives of all, or strays."""
    (tmp_path / "m.tsv").write_text(ONE_CLASS_EACH + more)
    argv = ("sample-low-shot", "m.tsv", "-k", "2", "--samples", 1)
    strays = more.count("\n")
    done = run(*argv, "-o", "told", check=1 if more else 0)
    if more:
        assert done.stderr.startswith(b"sample-low-shot: m.tsv:161: no label, where other images")
        assert f"({strays} lines)" in done.stderr.decode() and not (tmp_path / "told").exists()
    done = run(*argv, "--labels", "single", "-o", "single", check=0)
    assert (b"; %d images without a label are left out" % strays in done.stderr) == bool(more)
    [matrix] = matrices(tmp_path / "single").values()
    assert (matrix == 0).sum(0).tolist() == [6] * 4 and (matrix[160:] == -1).all()
    done = run(*argv, "--labels", "several", "-o", "several", check=0)
    assert b"k positives and 19k negatives a class\n" in done.stderr
    [matrix] = matrices(tmp_path / "several").values()
    assert (matrix == 0).sum(0).tolist() == [38] * 4


def test_the_rule_that_the_manifest_tells(tmp_path):
    def told(text, wanted=None):
        (tmp_path / "m.tsv").write_text(text)
        found = Manifest(str(tmp_path / "m.tsv"))
        return samples.rule_of(found, class_rows(found), wanted)

    assert told("1\ta\n2\tb\n") == ("single", 0)
    assert told("1\ta\n2\tb,a\n3\n") == ("several", 1)
    assert told("1\ta\n2\t?b\n") == ("several", 0)
    assert told("1\tdefect\n2\n3\n") == ("several", 2)  # negatives of the only class
    assert told("1\tdefect\n2\tdefect\n") == ("several", 0)
    with pytest.raises(DataError, match="m.tsv:2: several classes, or a difficult one"):
        told("1\ta\n2\tb,a\n", "single")


def test_memory_is_a_few_bytes_a_line(tmp_path):
    count = 100_000
    lines = (f"images/{i // 1000}/{i}.jpg\tclass{i % 20}\n" for i in range(count))
    (tmp_path / "m.tsv").write_text("".join(lines))
    found = Manifest(str(tmp_path / "m.tsv"))
    tracemalloc.start()
    try:
        rows = class_rows(found)
        _names, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [len(each) for each in rows.positive] == [count // 20] * 20
    assert peak < 40 * count + 8 * PIECE  # hashes and their order 16, rows 4 to 8; a piece


def test_refused(run, scratch):
    (scratch / "bare.tsv").write_text("a.jpg\nb.jpg\n")
    done = run("sample-low-shot", "bare.tsv", "-k", "1", "-o", "few", check=1)
    assert done.stderr == b"sample-low-shot: bare.tsv: no labels: write path<TAB>label,label\n"
    done = run("sample-low-shot", "train.tsv", "-k", "7,9", "-o", "few", check=1)
    assert done.stderr == b"sample-low-shot: train.tsv: no class has 7 images: take a lower k\n"
    (scratch / "two.tsv").write_text("a.jpg\tcat,dog\nb.jpg\tdog\n")
    done = run("sample-low-shot", "two.tsv", "-k", "1", "-o", "few", check=1)
    assert done.stderr.endswith(b": no class has 1 positives and 19 negatives: list more images\n")
    assert not (scratch / "few").exists()
    for ks in ("0", "a", "1,1", ""):
        assert run("sample-low-shot", "train.tsv", "-k", ks, "-o", "few").returncode == 2
    done = run("sample-low-shot", "train.tsv", "-k", "1", "-o", "photos", check=1)
    assert b"there already" in done.stderr


SAMPLE = np.full((12, 2), -1, np.int8)  # of scratch's train.tsv: two cats and two dogs
SAMPLE[[1, 4]], SAMPLE[[7, 8]] = (1, 0), (0, 1)


def labels_of(path):
    """Return (labels, manifest) of the manifest PATH."""
    manifest = Manifest(str(path))
    return label_matrix(manifest)[1], manifest


@pytest.mark.parametrize(
    "name, said",
    [
        ("sample1_k64.npy", "2 positives in column 1, but its name says 64"),
        ("sample01_k02.npy", "sample 1 of k = 2, as few/sample01_k02.npy is: remove one of them"),
        ("train_targets_sample1_k2.npy", "sample 1 of k = 2, as few/sample1_k2.npy is"),
    ],
)
def test_samples_are_what_they_hold_not_what_they_are_called(scratch, monkeypatch, name, said):
    monkeypatch.chdir(scratch)
    (scratch / "few").mkdir()
    for each in ("sample1_k2.npy", name):
        np.save(scratch / "few" / each, SAMPLE)
    with pytest.raises(DataError, match=said):
        samples.read("few", *labels_of(scratch / "train.tsv"))


def test_samples_as_the_authors_have_them(scratch, monkeypatch):
    """int32, and of another name: the same as ours."""
    monkeypatch.chdir(scratch)
    for folder, name, kind in (
        ("ours", "sample3_k2.npy", np.int8),
        ("theirs", "train_targets_sample3_k2.npy", np.int32),
    ):
        (scratch / folder).mkdir()
        np.save(scratch / folder / name, SAMPLE.astype(kind))
    ours, theirs = (samples.read(f, *labels_of(scratch / "train.tsv")) for f in ("ours", "theirs"))
    assert list(ours) == list(theirs) == [(2, 3)]
    assert ours[2, 3].digest == theirs[2, 3].digest
    for sample in (ours[2, 3], theirs[2, 3]):
        assert [(c, rows.tolist(), signs.tolist()) for c, rows, signs in sample.classes] == [
            (0, [1, 4, 7, 8], [1, 1, -1, -1]),
            (1, [1, 4, 7, 8], [-1, -1, 1, 1]),
        ]


def test_a_fifo_among_samples_is_no_sample(scratch, monkeypatch):
    monkeypatch.chdir(scratch)
    (scratch / "few").mkdir()
    os.mkfifo(scratch / "few/sample1_k2.npy")
    with pytest.raises(DataError, match="few/sample1_k2.npy: not a regular file"):
        samples.read("few", *labels_of(scratch / "train.tsv"))


@pytest.mark.parametrize(
    "change, said",
    [
        (
            lambda m: m[:-1],
            "11 x 2 of int8, not N x C whole numbers of -1, 0, 1 (N = 12 lines of train.tsv, C = 2",
        ),
        (lambda m: m.astype(float), "float64"),
        (lambda m: np.where(m < 0, 0, m), "row 1 contradicts line 1 of train.tsv"),
        (lambda m: np.where(m == 0, -1, m), "positives or negatives alone"),
    ],
)
def test_samples_of_something_else(run, scratch, change, said):
    run("sample-low-shot", "train.tsv", "-k", "2", "--samples", 1, "-o", "few", check=0)
    path = scratch / "few/sample1_k2.npy"
    np.save(path, change(np.load(path)))
    done = run("train-svm", "train.npy", "train.tsv", "--low-shot", "few", check=1)
    assert done.stderr.count(b"\n") == 1 and said in done.stderr.decode()
    assert b"few/sample1_k2.npy" in done.stderr


def test_a_pipe_among_the_samples_is_named(run, scratch):
    (scratch / "few").mkdir()
    os.mkfifo(scratch / "few/sample1_k1.npy")
    done = run("train-svm", "train.npy", "train.tsv", "--low-shot", "few", check=1)
    assert (
        done.stderr
        == b"train-svm: few/sample1_k1.npy: not a regular file, which a sample is: remove it\n"
    )
