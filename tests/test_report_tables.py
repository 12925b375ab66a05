"""Rows and tables of the report; the published numbers against what was read."""

import itertools
import json
import re
import sys

import pytest
from conftest import CHECKOUT

from ssl_common import results, tasks
from ssl_common.pretext import recipes
from ssl_common.reporting import labels, plots, published, report, tables
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


def with_intervals(*layers, **network):
    """Return records of (layer, value, least, most) each."""
    return [measured(each, value, interval=[low, high], **network)
            for each, value, low, high in layers]  # fmt: skip


UNTRAINED = {"pretext": "random", "model": "00", "permutations": None}


@pytest.mark.parametrize(
    "jigsaw, bold",
    [
        ((60.0, 56.1, 63.0), True),  # above all that the untrained one's best may be
        ((60.0, 55.9, 63.0), False),
        ((40.0, 38.0, 42.0), False),
    ],
)
def test_bold_is_what_is_better_than_the_untrained_network(tmp_path, jigsaw, bold):
    """Beyond both intervals; and an untrained network is never better than itself."""
    found, _said = rows(
        tmp_path,
        *with_intervals(("conv1", 30.0, 28.0, 32.0), ("conv3", *jigsaw)),
        *with_intervals(("conv1", 54.0, 52.0, 56.0), ("conv3", 50.0, 48.0, 52.0), **UNTRAINED),
    )
    trained, untrained = tables.markdown(found).splitlines()[2:4]
    value, low, high = jigsaw
    stars = "**" if bold else ""
    assert f"| {stars}{value:.2f}{stars} ({low:.2f} to {high:.2f}) |" in trained
    assert "**" not in untrained and "| 54.00 (52.00 to 56.00) |" in untrained


def test_without_intervals_the_best_is_bold_as_ever(tmp_path):
    found, _said = rows(
        tmp_path,
        *(measured(layer, value) for layer, value in (("conv1", 2.0), ("conv3", 3.0))),
        *(measured(layer, 9.0, **UNTRAINED) for layer in ("conv1", "conv3")),
    )
    assert "**3.00**" in tables.markdown(found) and "**9.00**" in tables.markdown(found)


def test_last_of_equals_counts(tmp_path):
    """Equal but for a field that says what was measured: not replaced."""
    same = measured("conv1", 1.0), measured("conv1", 2.0)
    fields = {"data_set": "voc", "model": "cd", "seed": 7, "svm_seed": 7}
    others = [measured("conv1", 3.0, **{name: value}) for name, value in fields.items()]
    found, said = rows(tmp_path, *same, *others)
    assert len(found) == 5
    assert said == "6 records, 5 rows; 1 replaced by a later one, 1 of them by another value"
    assert found[0].values == {"conv1": 2.0}


# Fields of a record, and another value of each: one at a time makes another measurement.
DECIDES = {
    "model": "cd", "arch": "alexnet", "pretext": "random", "data_name": "yfcc", "data": "digest",
    "permutations": 701, "images": 5, "seed": 1, "data_set": "voc2012", "metric": "top-1",
    "task": "low-shot", "train_images": 30, "train_manifest": "other", "train_labels": "other",
    "train_dtype": "float16", "dtype": "float16", "test_images": 90, "test_manifest": "other",
    "seen": 5, "inputs": {"svm": "other"}, "train_features": "other", "svm_seed": 1,
    "linear_seed": 1, "solver": "liblinear", "k": 8, "samples": 2, "sample_seed": 1,
    "samples_digest": "other", "sample_rule": "single",
    "cost_from": "train", "recipe": "alexnet", "lr": 0.1, "batch": 128, "epochs": 14, "steps": 9,
    "precision": "bf16", "cache": True, "optimizer": "adam", "momentum": [0.9, 0.999],
    "nesterov": False, "weight_decay": 0.1, "decay_biases": False, "bn_momentum": 0.5,
    "bn_affine": True, "warm_up": [0.1, 0.1], "drops": [[0.5, 0.1]], "warp": True, "flip": False,
    "crop": "center", "jitter": 0.5, "lighting": 0.5, "micro_batch": 64, "synced_ranks": 8,
    "head": "fast", "freeze": "res4", "pool": "roi-pool", "detector_seed": 1, "proposals": "other",
    "ground_truth": "ladicky", "rule": "plane", "train_ground_truth": "other",
    "train_rule": "other", "normals_seed": 1, "codes": 20, "sides": [300],
    "test_side": 300, "longest": 800, "power": 0.5, "codes_from": "vocab40",
    "loss": "softmax", "update_rule": "paper", "crops": 10, "fc": 64, "stride": 4,
    "finetune_seed": 1, "crop_seed": 1, "bias_rate": 2.0, "init_std": 0.02, "bn_decay": 0.1,
    "crop_area": [0.1, 0.5], "method": "ppo", "world": "my-way-home", "navigation_seed": 1,
    "world_seed": 1, "runs": 4, "side": 64, "actions": 5, "episodes": 9, "max_steps": 9,
    "frames": 9, "worlds": 9, "greedy": True,
    "shape": [1, 1, 1], "note": "my own", "list": [1, {"a": 2}],
}  # fmt: skip
DOES_NOT = {
    "value": 2.0, "per_class": {"cat": 9.0}, "interval": [1, 2], "bootstrap": 9,
    "bootstrap_seed": 1, "bootstrap_left_out": 1, "min": 1, "max": 1, "std": 1, "top_5": 9,
    "cost": 0.5, "classes": 9, "ap50_area": 9, "ap75": 9, "ap50_95": 9, "coco_ap": 9,
    "coco_ap50": 9, "coco_ap75": 9, "per_class_area": {"cat": 9.0}, "objects": 9,
    "objects_ignored": 1, "detections": 9, "detections_left_out": 1,
    **{name: 9 if name in ("success_rate", "mean_reward", "path_ratio") else [1, 2]
       for name in tasks.NAVIGATION.measured}, "not_above": ["blind"],
    **dict.fromkeys(tasks.NORMALS.measured, 9), **dict.fromkeys(tasks.FINETUNE.measured, 9),
    "unseen": ["cow"], "seen_by": "paths", "fits": 9, "unconverged": 9, "argv": ["eval-svm"],
    "hours": 9, "hardware": "8 x V100",
    "version": "9", "inferred": ["seed"], "time_utc": "now", "time_of_day": "noon",
}  # fmt: skip


def test_every_field_is_tried():
    assert {*DECIDES, *DOES_NOT, "layer", "neighbors", "manifest"} >= set(results.FIELDS)


@pytest.mark.parametrize("before", [None, "some"])
@pytest.mark.parametrize("field", [*DECIDES, *DOES_NOT])
def test_what_makes_another_measurement(tmp_path, field, before):
    """All that decides the value, whether the other record has it or not; labels tell which."""
    other = (DECIDES | DOES_NOT)[field]
    first, more = measured("conv1", 1.0), measured("conv1", 1.0)
    if before:
        some = {"steps": 8, "cache": False, "inputs": {"svm": "some"}} | {field: other}
        first, more = first | some, more | some
        kinds = {int: 3, float: 0.25, bool: not other, list: [2], dict: {"svm": "some"}}
        first[field] = kinds.get(type(other), "svm" if field == "task" else "some")
        if field in (
            "per_class",
            "per_class_area",
            "argv",
            "unseen",
            "drops",
            "inferred",
            "not_above",
        ):
            cat = {"cat": 8.0}
            others = {"per_class": cat, "per_class_area": cat, "drops": [[0.25, 0.1]]}
            first[field] = others.get(field, ["some"])
    found, said = rows(tmp_path, first, more | {field: other})
    measurements = [row for row in found if not row.source]
    assert len(measurements) == 1 + (field in DECIDES)
    assert ("replaced" in said) == (field in DOES_NOT)
    assert len({row[:4] for row in measurements}) == len(measurements)


def test_layers_that_were_measured_again_from_other_files(tmp_path):
    """Those of one version stand together; a layer that stands alone joins no other row."""

    def layer(name, value, svm, version="1"):
        return measured(name, value, inputs={"svm": svm}, version=version, shape=[value])

    first = [layer("conv1", 1, "a"), layer("conv2", 2, "b")]
    again = [layer("conv2", 3, "c", "2"), layer("conv1", 4, "d", "2"), layer("conv2", 5, "e", "2")]
    found, said = rows(tmp_path, *first, *again, layer("conv2", 5, "e", "2"))
    assert [row.values for row in found] == [
        {"conv1": 1, "conv2": 2}, {"conv2": 3, "conv1": 4}, {"conv2": 5}
    ]  # fmt: skip
    assert said == "6 records, 3 rows; 1 replaced by a later one"
    labels = [row.label.partition(" seed 0 ")[2] for row in found]
    assert labels == ["shape=[1] version=1", "shape=[3] version=2", "shape=[5] version=2"]


def test_only_what_differs_is_shown(tmp_path):
    """The examples where rows of a task and data set differ; else what tells equal labels apart."""

    def labels(*others):
        found, _said = rows(tmp_path, *(measured("conv1", 1.0) | other for other in others))
        return [row.label.partition("resnet50 jigsaw P=2000 ")[2] for row in found]

    digest = "0123456789abcdef"
    first = {"train_images": 12, "train_manifest": digest, "lr": 0.1, "svm_seed": 0}
    assert labels(first) == ["seed 0"]
    assert labels(first, first | {"model": "x", "seed": 1}) == ["seed 0", "seed 1"]
    assert labels(first, first | {"model": "x"}) == ["seed 0 model=ab", "seed 0 model=x"]
    assert labels(first, first | {"lr": 0.5, "model": "x"}) == ["seed 0 lr=0.1", "seed 0 lr=0.5"]
    more = first | {"train_images": 30, "train_manifest": digest[::-1]}
    assert labels(first, more) == ["seed 0 train_images=12", "seed 0 train_images=30"]
    assert labels(first, more | {"seed": 1}) == ["seed 0 train_images=12", "seed 1 train_images=30"]
    same = more | {"train_images": 12}
    assert labels(first, same) == [
        "seed 0 train_manifest=01234567",
        "seed 0 train_manifest=fedcba98",
    ]
    near = first | {"train_manifest": digest[:-1] + "0"}
    assert labels(first, near)[1] == "seed 0 train_manifest=0123456789abcde0"
    assert labels(first, {"seed": 1}) == ["seed 0", "seed 1"]  # it says nothing of its examples
    assert labels(first, first | {"note": "x", "model": "x"}) == ["seed 0", "seed 0 note=x"]
    old, new = first | {"version": "1"}, first | {"version": "2", "dtype": "float32"}
    assert labels(old, new) == ["seed 0 version=1", "seed 0 version=2"]
    assert labels(first, first | {"dtype": "float32"}) == ["seed 0", "seed 0 dtype=float32"]
    assert labels(first, {"seed": 1, "seen": 5}) == ["seed 0 seen=0", "seed 1 seen=5"]
    assert labels({}, {"inputs": {"b": "x"}}) == ["seed 0", "seed 0 inputs.b=x"]


class Counted(str):
    """Text that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Counted.compared += 1
        return str.__eq__(self, other)


@pytest.mark.parametrize("alike", [1, 2, 1000], ids=lambda alike: f"{alike} alike")
def test_labels_are_not_compared_in_pairs(alike):
    def compared(count):
        Counted.compared = 0
        about = [{"note": Counted(i), f"n{i}": "x", "model": Counted(-i)} for i in range(count)]
        told_apart = labels.told_apart([Counted(i // alike) for i in range(count)], about)
        assert len(set(told_apart)) == count
        return Counted.compared

    assert compared(1000) < 10 * 1000


@pytest.mark.parametrize("field", ["model", "data_set", "data_name", "note", "layer"])
def test_the_work_grows_as_the_records(tmp_path, field):
    """Calls of functions, of ours and of the interpreter's, for twice the records."""

    def calls(count):
        numbers, found = itertools.count(), 0

        def see(_frame, event, _argument):
            nonlocal found
            found += event in ("call", "c_call")

        same = [measured("conv1", 1.0) | {field: f"x{next(numbers)}"} for _ in range(count)]
        before = sys.getprofile()
        sys.setprofile(see)
        try:
            gathered, _said = rows(tmp_path, *same)
            tables.markdown(gathered) if field != "layer" else None  # a table of rows x layers
        finally:
            sys.setprofile(before)
        return found

    published.publication()  # once for all
    assert calls(400) < 2.2 * calls(200)


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
    assert labels.label(record | {"seed": 0}) == "alexnet jigsaw P=100 (2,686 images) seed 0"
    assert labels.label({"arch": "alexnet", "pretext": "random", "seed": 0}) == (
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


@pytest.mark.parametrize("images, found", [
    (95_000_000, True), (105_000_000, True), (94_999_999, False), (105_000_001, False),
])  # fmt: skip
def test_a_copy_of_a_data_set_may_lack_a_twentieth_of_its_images(tmp_path, images, found):
    gathered, _said = rows(tmp_path, measured("res4", 70.0, **YFCC | {"images": images}))
    assert [row.label for row in gathered[1:]] == ["paper"] * found


def test_the_papers_row_stands_once_below_the_last_that_it_is_for(tmp_path):
    sizes = {"yfcc-1m": 1_000_000, "yfcc-100m": 99_200_000}
    made = [
        measured("res4", 70.0, data_name=name, images=images, seed=seed)
        for seed in range(20)
        for name, images in sizes.items()
    ]
    found, said = rows(tmp_path, *made, measured("res4", 1.0))
    assert said == "41 records, 43 rows"
    labels = [row.label for row in found]
    assert [i for i, label in enumerate(labels) if label == "paper"] == [39, 41]
    assert [found[i].identity["data_name"] for i in (38, 39, 40, 41)] == [
        "yfcc-1m", "yfcc-1m", "yfcc-100m", "yfcc-100m"
    ]  # fmt: skip
    assert plots.figure(found)[0].axes  # the plot does not depend on where it stands


@pytest.mark.parametrize(
    "field, spelled, name",
    [
        ("data_set", "voc07", "voc2007"),
        ("data_set", "VOC2007", "voc2007"),
        ("data_set", "VOC_2007", "voc2007"),
        ("data_name", "yfcc100m", "yfcc-100m"),
        ("data_name", "yfcc-all", "yfcc-100m"),
        ("data_name", "YFCC-100M", "yfcc-100m"),
    ],
)
def test_the_papers_row_under_other_spellings(tmp_path, field, spelled, name):
    same = measured("res4", 70.0, **YFCC)
    found, said = rows(tmp_path, same | {field: spelled}, same)
    assert said == "2 records, 2 rows; 1 replaced by a later one" and found[1].label == "paper"
    assert found[0].identity[field] == name


def test_names_of_data_sets_are_those_of_the_published_rows():
    """What the Makefile tags, and what the recipes of pretrain are called, is known there."""
    known = published.publication()
    used = {row["setting"].get(name) for some in known.entries.values() for row in some
            for name in ("data_set", "data_name")} - {None}  # fmt: skip
    assert used == set(known.spellings.values())
    tagged = re.findall(r"data_set=(\w+)", (CHECKOUT / "Makefile").read_text())
    assert set(tagged) == {"scenes", "voc2007"}
    samples = ["yfcc-1m", "yfcc-10m", "yfcc-all"]  # of the rule yfcc-%.tsv
    assert {published.squeezed(name) for name in (*recipes.NAMES, *samples)} <= set(known.spellings)


def test_published_numbers():
    """Where two sources printed the same number, and the best layers that are quoted elsewhere."""
    every = [row for some in published.publication().entries.values() for row in some]
    found = {json.dumps(row["setting"], sort_keys=True): row for row in every}
    assert len(found) == len(every) == 102  # no setting twice
    for row in found.values():
        assert row["how"] in ("read", "slide", "digitised", "eye") and row["source"]
        assert all(0 < value < 100 for value in row["values"].values())
        layers = (
            {"best"},
            {"-"},
            {"res5"},
            {"res3", "res4", "res5"},
            {"conv1", "res2", "res3", "res4", "res5"},
        )
        assert set(row["values"]) in layers

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
    boxes = {"task": "detection", "pretext": "jigsaw", "data_name": "imagenet-1k"}
    assert best(**boxes, head="fast", freeze="res4", train_images=5011) == 56.6
    assert best(**boxes, head="faster", train_images=16551) == 75.1
    assert best(task="normals", data_name="places205") == 14.2
    assert best(task="normals", pretext="jigsaw", data_name="yfcc-100m") == 13.1


def test_a_detector_stands_beside_its_published_number_alone(tmp_path):
    """One of another head, another training or another rule has none."""
    record = {
        "task": "detection", "metric": "AP50 (11-point)", "data_set": "voc07", "value": 50.0,
        "arch": "resnet50", "pretext": "jigsaw", "data_name": "in1k", "images": 1281167,
        "head": "fast", "freeze": "res4", "train_images": 5011, "test_images": 4952,
    }  # fmt: skip
    others = [{"head": "faster", "freeze": "none"}, {"train_images": 5012}, {"metric": "COCO AP50"}]
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(record | each) + "\n" for each in [{}, *others]))
    rows, _summary = report.gather([str(path)])
    papers = [row for row in rows if row.source]
    assert [row.values for row in papers] == [{"-": 56.6}]
    assert [row.label for row in rows][:2] == [
        "resnet50 jigsaw (imagenet-1k, 1,281,167 images) fast R-CNN frozen to res4 "
        "train_images=5011",
        "paper",
    ]
    assert len({row.panel for row in rows}) == 2  # the other rule is in a panel of its own


def test_normals_stand_beside_the_published_of_the_same_truth_alone(tmp_path):
    """Labels of another rule, or from depth, have a panel of their own, without the paper."""
    record = {
        "task": "normals", "metric": "median error", "data_set": "nyuv2", "value": 14.0,
        "arch": "resnet50", "pretext": "jigsaw", "data_name": "in1k", "images": 1281167,
        "layer": "res5", "test_images": 654, "ground_truth": "ladicky",
        "rule": "nyuv2_surfacenormal_metadata",
    }  # fmt: skip
    others = [{"rule": None}, {"ground_truth": "depth", "rule": "plane 15 x 15 within 5%"},
              {"ground_truth": "dsine", "rule": None}]  # fmt: skip
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(record | each) + "\n" for each in [{}, *others]))
    rows, _summary = report.gather([str(path)])
    papers = [row for row in rows if row.source]
    assert [row.values for row in papers] == [{"res5": 14.5}]
    assert papers[0].panel == rows[[row.label for row in rows].index("paper") - 1].panel
    assert len({row.panel for row in rows}) == 4
    table = tables.markdown(rows)
    assert "41.2% within 11.25 degrees" in table and "lower is better" in table
    (line,) = [line for line in table.splitlines() if "paper" in line and "14.5" in line]
    assert "ladicky, nyuv2_surfacenormal_metadata" in line


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
        ("shape", [1, "2"], 'shape is [1, "2"], not a list of whole numbers from 1 on'),
        ("interval", 5, "interval is 5, not a list of numbers, each a percentage, 0 to 100"),
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


def test_layers_stand_in_the_order_of_their_numbers():
    from ssl_common.reporting import tables

    names = ["blocks.0", "blocks.2", "blocks.10", "cls", "layer1", "layer4"]
    assert tables.in_order(set(names[::-1])) == names
    assert tables.in_order({"conv5", "conv1", "features.9", "features.12"}) == [
        "conv1", "conv5", "features.9", "features.12",
    ]  # fmt: skip
