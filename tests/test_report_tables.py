"""Rows and tables of the report; the published numbers against what was read."""

import json
import re

import pytest

from ssl_common.reporting import report, tables
from ssl_common.streams import DataError

VOC = {"task": "svm", "data_set": "voc2007", "metric": "mAP", "test_images": 4952}
JIGSAW = {"arch": "resnet50", "pretext": "jigsaw", "permutations": 2000, "seed": 0, "model": "ab"}
YFCC = {"data_name": "yfcc-100m", "images": 99_200_000}


def rows(tmp_path, *found):
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in found))
    return report.gather([str(path)])  # rows, what is said of them


def measured(layer, value, **extra):
    return VOC | JIGSAW | {"layer": layer, "value": value} | extra


def test_layers_in_the_order_of_the_network(tmp_path):
    names = ["res4", "conv1", "attic", "res2", "conv10"]
    found, _said = rows(tmp_path, *(measured(name, 1.0) for name in names))
    assert tables.columns(found) == ["conv1", "res2", "res4", "attic", "conv10"]
    alexnet, _said = rows(tmp_path, *(measured(f"conv{n}", 1.0) for n in (5, 3, 1, 4, 2)))
    assert tables.columns(alexnet) == ["conv1", "conv2", "conv3", "conv4", "conv5"]


def test_best_is_the_first_of_equals(tmp_path):
    found, _said = rows(tmp_path, measured("conv1", 2.0), measured("res2", 3), measured("res3", 3))
    assert found[0].best() == ("res2", 3)
    assert "| 2.00 | **3.00** | 3.00 | 3.00 |" in tables.markdown(found)


def test_last_of_equals_counts(tmp_path):
    """Equal but for a field that says what was measured: not replaced."""
    same = measured("conv1", 1.0), measured("conv1", 2.0)
    fields = {"data_set": "voc", "model": "cd", "seed": 7, "svm_seed": 7}
    others = [measured("conv1", 3.0, **{name: value}) for name, value in fields.items()]
    found, said = rows(tmp_path, *same, *others)
    assert len(found) == 5
    assert said == "6 records, 5 rows; 1 replaced by a later one, 1 of them by another value"
    assert found[0].values == {"conv1": 2.0}


def test_same_label_other_network(tmp_path):
    found, _said = rows(tmp_path, measured("conv1", 1.0), measured("conv1", 2.0, model="cd"))
    assert [row.label[-8:] for row in found] == ["model=ab", "model=cd"]


def test_records_that_say_little_are_all_listed(tmp_path):
    found, said = rows(tmp_path, {"task": "x", "value": 1}, {"task": "x", "value": 2})
    assert said == "2 records, 2 rows"
    assert tables.columns(found) == ["-"]
    assert f"| x | ? | ? | ? where={tmp_path}/r.jsonl:2 | 2.00 | 2.00 |" in tables.markdown(found)
    found, _said = rows(tmp_path, {"task": "x", "value": 1})
    assert "| x | ? | ? | ? | 1.00 | 1.00 |" in tables.markdown(found)


def test_label():
    record = {"arch": "alexnet", "pretext": "jigsaw", "permutations": 100, "images": 2686}
    assert report.label(record | {"seed": 0}) == "alexnet jigsaw P=100 (2,686 images) seed 0"
    assert report.label({"arch": "alexnet", "pretext": "random", "seed": 0}) == (
        "alexnet random seed 0"
    )


def test_the_papers_row(tmp_path):
    """NYU lecture slide: Jigsaw ResNet-50 on YFCC-100M."""
    found, _said = rows(tmp_path, measured("res4", 70.0, **YFCC), measured("res5", 60.0, **YFCC))
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
    found, _said = rows(tmp_path, measured("res4", 70.0, **YFCC | other))
    assert len(found) == 1


def test_published_numbers():
    """Where two sources printed the same number, and the best layers that are quoted elsewhere."""
    every = [row for some in report._published().rows.values() for row in some]
    found = {json.dumps(row["setting"], sort_keys=True): row for row in every}
    assert len(found) == len(every) == 64  # no setting twice
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
    found, _said = rows(tmp_path, measured("res4", 70.123456789, **YFCC), measured("conv1", 1.0))
    head, *lines = [line.split("\t") for line in tables.tsv(found).splitlines()]
    objects = json.loads(tables.json_text(found))
    assert len(lines) == len(objects) == len(found)
    for line, each in zip(lines, objects, strict=True):
        row = dict(zip(head, line, strict=True))
        assert row["model"] == each["label"] and float(row["best"]) == each["best"]
        layers = {k: float(row[k]) for k in tables.columns(found) if row[k]}
        assert layers == each["values"]


def test_cells_cannot_break_the_table(tmp_path):
    found, _said = rows(tmp_path, measured("conv1", 1.0, data_set="a|b\nc\td"))
    assert r"a\|b\nc\td" in tables.markdown(found)
    assert {line.count("\t") for line in tables.tsv(found).splitlines()} == {7}


@pytest.mark.parametrize(
    "field, value, said",
    [
        ("value", float("nan"), "not JSON (NaN is not a finite number)"),
        ("value", float("-inf"), "not JSON (-Infinity is not a finite number)"),
        ("value", None, "not a result: it has no task and value, as eval-svm writes them"),
        ("value", True, "value is true, not a number"),
        ("value", "3", 'value is "3", not a number'),
        pytest.param("value", 10**399, f"value is 1{58 * '0'}…, not a number", id="huge"),
        ("value", 101, "value is 101, not a percentage, 0 to 100: delete the line"),
        ("value", -1, "value is -1, not a percentage, 0 to 100: delete the line"),
        ("task", 7, "not a result: it has no task and value, as eval-svm writes them"),
        ("data_set", 7, "data_set is 7, not text"),
        ("steps", "10000", 'steps is "10000", not a whole number from 1 on'),
        ("steps", 10.5, "steps is 10.5, not a whole number from 1 on"),
        ("images", 0, "images is 0, not a whole number from 1 on"),
        ("images", True, "images is true, not a whole number from 1 on"),
        ("seed", 2**63, f"seed is {2**63}, not a whole number from 0 on"),
        ("shape", [1, "2"], 'shape is [1, "2"], not 3 whole numbers from 1 on'),
        ("interval", 5, "interval is 5, not 2 numbers, each a percentage, 0 to 100"),
        (
            "per_class",
            {"cat": 200},
            "per_class.cat is 200, not a percentage, 0 to 100",
        ),
        ("inputs", ["a"], 'inputs is ["a"], not names, each with text, or null'),
        ("layer", "best", "the layer best has the name of another column"),
    ],
)
def test_a_field_that_is_not_of_its_type(tmp_path, field, value, said):
    with pytest.raises(DataError, match=re.escape(f"r.jsonl:2: {said}")):
        rows(tmp_path, measured("conv1", 1.0), measured("conv2", 1.0) | {field: value})


@pytest.mark.parametrize(
    "line, said",
    [
        (b'{"a": 1, "b": {"a": 2, "a": 3}}', '"a" stands there twice'),
        (b'{"a": 1e999}', "1e999 is not a finite number"),
        (b'{"a": ' + 5000 * b"7" + b"}", "a number of 5000 digits"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a": ' + 100_000 * b"[", "nested too deeply"),
        (100_000 * b'{"a": ', "nested too deeply"),
        (b'{"a": "\xff"}', "invalid start byte"),
        (b'{"a": 1', "Expecting"),
        (b"", "it is empty: delete it"),
        (b'{"a": 1} {}', "Extra data at character 10"),
        (b"\x00", "Expecting value at character 1"),
    ],
)
def test_lines_that_are_no_json(tmp_path, line, said):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"task": "x", "value": 1}\n' + line + b"\n")
    with pytest.raises(DataError, match=re.escape("r.jsonl:2: not JSON (") + f".*{said}") as error:
        report.gather([str(path)])
    assert len(str(error.value)) < 300
