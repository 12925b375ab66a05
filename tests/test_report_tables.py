"""Rows and tables of the report; the published numbers against what was read."""

import json

import pytest

from ssl_common.reporting import report, tables
from ssl_common.streams import DataError

VOC = {"task": "svm", "data_set": "voc2007", "metric": "mAP", "test_images": 4952}
JIGSAW = {"arch": "resnet50", "pretext": "jigsaw", "permutations": 2000, "seed": 0, "model": "ab"}
YFCC = {"data_name": "yfcc-100m", "images": 99_200_000}


def rows(tmp_path, *found):
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in found))
    return report.gather([str(path)])


def measured(layer, value, **extra):
    return VOC | JIGSAW | {"layer": layer, "value": value} | extra


def test_layers_in_the_order_of_the_network(tmp_path):
    names = ["res4", "conv1", "attic", "res2", "conv10"]
    found, _, _ = rows(tmp_path, *(measured(name, 1.0) for name in names))
    assert tables.columns(found) == ["conv1", "res2", "res4", "attic", "conv10"]
    alexnet, _, _ = rows(tmp_path, *(measured(f"conv{n}", 1.0) for n in (5, 3, 1, 4, 2)))
    assert tables.columns(alexnet) == ["conv1", "conv2", "conv3", "conv4", "conv5"]


def test_best_is_the_first_of_equals(tmp_path):
    found, _, _ = rows(tmp_path, measured("conv1", 2.0), measured("res2", 3), measured("res3", 3))
    assert found[0].best() == ("res2", 3)
    assert "| 2.00 | **3.00** | 3.00 | 3.00 |" in tables.markdown(found)


def test_last_of_equals_counts(tmp_path):
    """Equal but for a field that says what was measured: not replaced."""
    same = measured("conv1", 1.0), measured("conv1", 2.0)
    others = [measured("conv1", 3.0, **{k: 7}) for k in ("data_set", "model", "seed", "svm_seed")]
    found, count, replaced = rows(tmp_path, *same, *others)
    assert (count, replaced, len(found)) == (6, 1, 5)
    assert found[0].values == {"conv1": 2.0}


def test_same_label_other_network(tmp_path):
    found, _, _ = rows(tmp_path, measured("conv1", 1.0), measured("conv1", 2.0, model="cd"))
    assert [row.label[-2:] for row in found] == ["ab", "cd"]


def test_records_that_say_little_are_all_listed(tmp_path):
    found, count, replaced = rows(tmp_path, {"task": "x", "value": 1}, {"task": "x", "value": 2})
    assert (len(found), count, replaced) == (2, 2, 0)
    assert tables.columns(found) == ["-"]
    assert "| x | ? | ? | ? | 2.00 | 2.00 |" in tables.markdown(found)


def test_label():
    record = {"arch": "alexnet", "pretext": "jigsaw", "permutations": 100, "images": 2686}
    assert report.label(record | {"seed": 0}) == "alexnet jigsaw P=100 (2,686 images) seed 0"
    assert report.label({"arch": "alexnet", "pretext": "random", "seed": 0}) == (
        "alexnet random seed 0"
    )


def test_the_papers_row(tmp_path):
    """NYU lecture slide: Jigsaw ResNet-50 on YFCC-100M."""
    found, _, _ = rows(tmp_path, measured("res4", 70.0, **YFCC), measured("res5", 60.0, **YFCC))
    assert [row.label[:5] for row in found] == ["resne", "paper"]
    assert list(found[1].values.values()) == [18.98, 46.71, 57.77, 71.21, 64.34]
    assert "slide" in found[1].source
    assert "| paper [1] | 18.98 | 46.71 | 57.77 | **71.21** | 64.34 | 71.21 |" in tables.markdown(
        found
    )


@pytest.mark.parametrize(
    "other",
    [
        {"data_set": "voc2012"},
        {"test_images": 1000},
        {"permutations": 1000},
        {"images": 2_000_000},
        {"data_name": "yfcc"},
        {"arch": "vgg"},
        {"pretext": "rotation"},
        {"task": "linear"},
    ],
)
def test_no_row_of_the_paper_for_another_setting(tmp_path, other):
    found, _, _ = rows(tmp_path, measured("res4", 70.0, **YFCC | other))
    assert len(found) == 1


def test_published_numbers():
    """Where two sources printed the same number, and the best layers that are quoted elsewhere."""
    found = {json.dumps(row["setting"], sort_keys=True): row for row in report._published()}
    assert len(found) == len(report._published())  # no setting twice
    for row in found.values():
        assert row["how"] in ("read", "slide", "digitised") and row["source"]
        assert all(0 < value < 100 for value in row["values"].values())
        assert set(row["values"]) in ({"best"}, {"conv1", "res2", "res3", "res4", "res5"})

    def best(**fields):
        match = [r for r in found.values() if fields.items() <= r["setting"].items()]
        assert len(match) == 1
        return max(match[0]["values"].values())

    svm = {"task": "svm", "pretext": "jigsaw"}
    assert best(**svm, arch="resnet50", data_name="imagenet-1k") == 64.51
    assert best(**svm, arch="resnet50", data_name="yfcc-1m", permutations=2000) == 64.0
    assert best(**svm, arch="alexnet", data_name="yfcc-100m", permutations=100) == 54.4
    assert best(task="svm", pretext="colorization", arch="alexnet", neighbors=313) == 49.4
    assert best(task="linear", data_set="places205", pretext="random") == 16.6


def test_tsv_and_json_hold_the_same(tmp_path):
    found, _, _ = rows(tmp_path, measured("res4", 70.123456789, **YFCC), measured("conv1", 1.0))
    head, *lines = [line.split("\t") for line in tables.tsv(found).splitlines()]
    objects = json.loads(tables.json_text(found))
    assert len(lines) == len(objects) == len(found)
    for line, each in zip(lines, objects, strict=True):
        row = dict(zip(head, line, strict=True))
        assert row["model"] == each["label"] and float(row["best"]) == each["best"]
        layers = {k: float(row[k]) for k in tables.columns(found) if row[k]}
        assert layers == each["values"]


def test_cells_cannot_break_the_table(tmp_path):
    found, _, _ = rows(tmp_path, measured("conv1", 1.0, data_set="a|b\nc\td"))
    assert "a\\|b c d" in tables.markdown(found)
    assert {line.count("\t") for line in tables.tsv(found).splitlines()} == {7}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, True, "3"])
def test_bad_values(tmp_path, value):
    with pytest.raises(DataError, match=r"r\.jsonl:2: the value is"):
        rows(tmp_path, measured("conv1", 1.0), measured("conv2", value))
