"""eval-linear as a real process, against its formulas written out."""

import json
import shutil

import conftest
import numpy as np
import pytest
import torch
from tiny import Tiny

from ssl_common.data import images
from ssl_common.data.pixels import resize, standardize
from ssl_common.evaluation.linear import testing
from ssl_common.models import registry
from ssl_common.streams import DataError


def tiny(folder, *argv, check=0):
    return conftest.ended(conftest.tiny(folder, *argv), check)


@pytest.fixture(scope="module")
def trained(scratch_template, tmp_path_factory):
    """A folder with heads.pt, trained for seven classes, and a list for testing."""
    import shutil

    folder = tmp_path_factory.mktemp("trained") / "scratch"
    shutil.copytree(scratch_template, folder)
    rows = [f"photos/{kind}/{n}.jpg" for kind in ("cat", "dog") for n in range(6)]
    names = [f"class{n % 7}" for n in range(12)]
    (folder / "seven.tsv").write_text("".join(f"{p}\t{c}\n" for p, c in zip(rows, names)))  # noqa: B905
    tests = [f"photos/{kind}/{n}.jpg\tclass{n - 4}\n" for kind in ("cat", "dog") for n in (6, 7)]
    (folder / "seven-test.tsv").write_text("".join(tests))
    words = ("--cache", "--batch", "6", "--iterations", "40", "--lr", "0.01", "-j", "0")
    tiny(folder, "train-linear", "random:tiny", "seven.tsv", *words, "-o", "heads.pt")
    return folder


def logits_of(folder, content, layer, paths):
    """Return the logits of the head of LAYER for the images PATHS, in plain terms."""
    with registry.seeded(0):
        trunk = Tiny().eval()
    kernel, stride, padding = Tiny.pooling[layer]
    place = list(Tiny.pooling).index(layer)
    head = {k.split(".", 2)[2]: v.double() for k, v in content["heads"].items()
            if k.startswith(f"heads.{place}.")}  # fmt: skip
    found = []
    for path in paths:
        image = resize(images.read(path, folder), (256, 307))[96:160, 122:186]
        with torch.no_grad():
            x = standardize(image.permute(2, 0, 1))[None]
            for name, stage in trunk.named_children():
                x = stage(x)
                if name == layer:
                    break
            x = torch.nn.AvgPool2d(kernel, stride, padding, count_include_pad=False)(x).double()
        mean, var = (head[f"0.running_{w}"].view(-1, 1, 1) for w in ("mean", "var"))
        x = ((x - mean) / (var + 1e-5).sqrt()).flatten()
        found.append((head["2.weight"] @ x + head["2.bias"]).numpy())
    return np.array(found)


@pytest.fixture(scope="module")
def told(trained):
    out, err = tiny(trained, "eval-linear", "heads.pt", "seven-test.tsv", "-j", "0",
                    "--tag", "data_set=seven")  # fmt: skip
    return [json.loads(line) for line in out.splitlines()], err


def test_records(trained, told):
    records, err = told
    content = torch.load(trained / "heads.pt", weights_only=True)
    rows = [line.split("\t") for line in (trained / "seven-test.tsv").read_text().splitlines()]
    right = np.array([int(name[5:]) for _path, name in rows])
    assert [record["layer"] for record in records] == ["conv1", "conv2", "conv3"]
    for record in records:
        scores = logits_of(trained, content, record["layer"], [path for path, _name in rows])
        order = (-scores).argsort(1)
        top_1, top_5 = ((order[:, :k] == right[:, None]).any(1) for k in (1, 5))
        assert record["value"] == 100 * top_1.mean() and record["top_5"] == 100 * top_5.mean()
        per_class = {f"class{c}": 100 * top_1[right == c].mean() for c in (2, 3)}
        assert {k: v for k, v in record["per_class"].items() if v is not None} == per_class
        assert (record["task"], record["metric"], record["data_set"]) == (
            "linear",
            "top-1",
            "seven",
        )
        assert (record["classes"], record["test_images"], record["cache"]) == (7, 4, True)
        assert (record["arch"], record["pretext"], record["images"]) == ("tiny", "random", None)
    best = max(records, key=lambda record: record["value"])
    said = f"best {best['layer']}: top-1 {best['value']:.2f}, top-5 {best['top_5']:.2f}"
    assert err == f"eval-linear: 3 layers, 4 images, {said}\n"


def test_report_shows_a_row_for_the_network(run, told, tmp_path):
    records, _err = told
    places = [r | {"data_set": "places205", "arch": "resnet50"} for r in records]
    text = "".join(json.dumps(r) + "\n" for r in [*records, *places])
    (tmp_path / "results.jsonl").write_text(text)
    out = run("report", "results.jsonl", check=0).stdout.decode()
    first, last = (records[0]["value"], records[-1]["value"])
    row = next(line for line in out.splitlines() if "seven" in line)
    assert row.startswith("| linear | seven | top-1 | tiny random") and "cached" in row
    assert f"{first:.2f}" in row and f"{last:.2f}" in row
    assert "PIRL (arXiv 1912.01991), Table 7" in out  # the random ResNet-50's


def test_another_run_is_another_row(run, told, tmp_path):
    records, _err = told
    others = ({}, {"steps": 80}, {"steps": 80, "linear_seed": 1})
    text = "".join(json.dumps(record | other) + "\n" for other in others for record in records)
    (tmp_path / "results.jsonl").write_text(text)
    out = run("report", "results.jsonl", check=0).stdout.decode()
    rows = [line for line in out.splitlines() if line.startswith("| linear")]
    names = [row.split("|")[4].strip() for row in rows]
    assert names == [
        "tiny random seed 0 40 steps, cached",
        "tiny random seed 0 80 steps, cached linear_seed=0",
        "tiny random seed 0 80 steps, cached linear_seed=1",
    ]


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("photos/cat/6.jpg\tcow\n", "bad.tsv:1: cow: not one of the 7 classes of the training"),
        ("photos/cat/6.jpg\n", "bad.tsv:1: no label, where one class is needed"),
        ("photos/cat/6.jpg\tclass1,class2\n", "bad.tsv:1: class1,class2, where one class is"),
        ("photos/cat/0.jpg\tclass0\n", "bad.tsv:1: photos/cat/0.jpg is an image that heads.pt"),
        ("./photos/cat/../cat/0.jpg\tclass0\n", "bad.tsv:1: ./photos/cat/../cat/0.jpg is an image"),
    ],
)
def test_lists_it_was_not_trained_for(trained, monkeypatch, text, wrong):
    monkeypatch.chdir(trained)
    (trained / "bad.tsv").write_text(text)
    with pytest.raises(DataError) as error:
        list(testing.evaluate("heads.pt", "bad.tsv", {}, ".", "cpu", 0, print))
    assert str(error.value).startswith(wrong)


def test_another_folder_with_the_same_names(trained, monkeypatch):
    monkeypatch.chdir(trained)
    shutil.copytree("photos", "elsewhere/photos")
    (trained / "same.tsv").write_text("photos/cat/0.jpg\tclass0\n")
    found = list(
        testing.evaluate("heads.pt", "same.tsv", {}, "elsewhere", "cpu", 0, lambda *_: None)
    )
    assert "seen" not in found[0]
    found = list(
        testing.evaluate(
            "heads.pt", "same.tsv", {}, ".", "cpu", 0, lambda *_: None, allow_seen=True
        )
    )
    assert (found[0]["seen"], found[0]["seen_by"]) == (1, "places")


def test_tags_are_those_of_eval_svm(trained, monkeypatch):
    """Numbers are numbers, for report tells records apart by them; what the file says stays."""
    monkeypatch.chdir(trained)

    def measured(**tags):
        return next(testing.evaluate("heads.pt", "seven-test.tsv", tags, ".", "cpu", 0, print))

    record = measured(images="1000", note="1000")
    assert (record["images"], record["note"]) == (1000, "1000")
    with pytest.raises(DataError, match="^--tag pretext=jigsaw: heads.pt says random$"):
        measured(pretext="jigsaw")
    with pytest.raises(DataError, match="^--tag layer=conv1: heads.pt has one for each layer$"):
        measured(layer="conv1")
    with pytest.raises(DataError, match="^--tag images=many: not a whole number"):
        measured(images="many")


def test_another_file_is_refused(tmp_path):
    torch.save({"format": 1, "trunk": {}, "settings": {}}, tmp_path / "network.pt")
    with pytest.raises(DataError, match="network.pt: not linear classifiers: "):
        next(testing.evaluate(str(tmp_path / "network.pt"), "bad.tsv", {}, ".", "cpu", 0, print))
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(DataError, match="text.pt: not a file of train-linear, or damaged"):
        next(testing.evaluate(str(tmp_path / "text.pt"), "bad.tsv", {}, ".", "cpu", 0, print))
