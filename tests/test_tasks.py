"""A task that is declared in one place: its records, tables and plots follow."""

import json

import pytest

from ssl_common import fields, results, tasks
from ssl_common.fields import DEGREES, INDEX, PERCENT
from ssl_common.reporting import plots, report, tables
from ssl_common.streams import DataError
from ssl_common.tasks import Metric, Task, part

BUMPS = Task(
    "bumps",
    (Metric("median error", DEGREES, "lower"), Metric("within 11.25", PERCENT)),
    conditions=fields.table({INDEX: "bumps_seed width"}),
    measured=fields.table({INDEX: "valid_bumps"}),
    label=(part("width", "at {} pixels"),),
    seeds=("seed", "bumps_seed"),
    of_a_seed=("crops_digest",),
    of_a_layer=(*tasks.LAYER, "decoder_digest"),
    minor=("optimizer",),
    companions={"width": ("height",)},
)
RECORD = {
    "task": "bumps", "data_set": "scenes", "metric": "median error", "arch": "resnet50",
    "pretext": "jigsaw", "seed": 0, "model": "ab", "bumps_seed": 0, "width": 224,
}  # fmt: skip
LABEL = "resnet50 jigsaw seed 0 at 224 pixels"


@pytest.fixture(autouse=True)
def declared(monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "bumps", BUMPS)


def rows(tmp_path, *records):
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return report.gather([str(path)])[0]


def by_layer(values, **extra):
    return [RECORD | {"layer": layer, "value": value} | extra for layer, value in values.items()]


ERRORS = {"conv1": 40.0, "res3": 20.5, "res4": 20.5, "res5": 30.0}


@pytest.mark.parametrize("most, bold", [(13.0, True), (15.0, False)])
def test_what_beats_an_untrained_network_lies_below_it(most, bold, tmp_path):
    trained = by_layer({"res3": 40.0, "res4": 12.0}, interval=[10.0, most])
    untrained = by_layer({"res4": 16.0}, interval=[14.0, 18.0], pretext="random", model="00")
    assert ("**12.00**" in tables.markdown(rows(tmp_path, *trained, *untrained))) == bold


def test_the_best_is_the_lowest(tmp_path):
    found = rows(tmp_path, *by_layer(ERRORS))
    assert found[0].best() == ("res3", 20.5)
    head = "| bumps | scenes | median error (degrees, lower is better) | "
    assert f"{head}{LABEL} | 40.00 | **20.50** | 20.50 | 30.00 | 20.50 |" in tables.markdown(found)
    names, line = (text.split("\t") for text in tables.tsv(found).splitlines())
    row = dict(zip(names, line, strict=True))
    assert (row["metric"], row["best_layer"], row["best"]) == ("median error", "res3", "20.5")
    (entry,) = json.loads(tables.json_text(found))
    assert (entry["unit"], entry["better"]) == ("degrees", "lower")
    assert (entry["best_layer"], entry["best"]) == ("res3", 20.5)


def test_a_value_without_a_layer_has_no_best_layer(tmp_path):
    (row,) = rows(tmp_path, *by_layer({None: 20.0}))
    assert row.best() == (None, 20.0)


@pytest.mark.parametrize(
    "task, metric, unit, better, caption",
    [
        ("svm", "mAP", "%", "higher", "mAP"),
        ("linear", "top-1", "%", "higher", "top-1"),
        ("linear", "mAP", "%", "higher", "mAP"),
        ("another", "mAP", "%", "higher", "mAP"),
        ("another", "length", None, "higher", "length"),
        ("bumps", "within 11.25", "%", "higher", "within 11.25"),
    ],
)
def test_units_and_directions(tmp_path, task, metric, unit, better, caption):
    found = rows(tmp_path, *by_layer({"a": 2.0, "b": 3.0}, task=task, metric=metric))
    assert found[0].best() == ("b", 3.0) and found[0].measure.caption() == caption
    (entry,) = json.loads(tables.json_text(found))
    assert (entry["unit"], entry["better"]) == (unit, better)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"value": 181}, "value is 181, not an angle, 0 to 180 degrees: delete the line"),
        ({"value": -1}, "value is -1, not an angle, 0 to 180 degrees: delete the line"),
        ({"std": 181}, "std is 181, not an angle, 0 to 180 degrees"),
        ({"per_class": {"bed": 181}}, "per_class.bed is 181, not an angle, 0 to 180 degrees"),
        ({"metric": "within 11.25", "value": 101}, "value is 101, not a percentage, 0 to 100"),
        ({"metric": "within 11.25", "max": 101}, "max is 101, not a percentage, 0 to 100"),
    ],
)
def test_values_and_their_spread_are_in_the_unit_of_the_metric(tmp_path, wrong, message):
    spread = {"min": 120, "max": 180, "std": 110, "interval": [110, 120]}
    assert rows(tmp_path, *by_layer({"conv1": 150}, **spread))
    with pytest.raises(DataError, match=f"r.jsonl:1: {message}"):
        rows(tmp_path, *by_layer({"conv1": 1.0}, **wrong))


def test_the_ring_and_the_axes_follow(tmp_path):
    found = rows(tmp_path, *by_layer(ERRORS), *by_layer({"res4": 25.0}, seed=1))
    (ax,) = plots.figure(found)[0].axes
    rings = [line.get_xydata().tolist() for line in ax.get_lines() if line.get_label() == "best"]
    assert rings == [[[1, 20.5]]]
    assert ax.get_ylabel() == "median error (degrees, lower is better)"
    (ax,) = plots.figure(found, "seed")[0].axes
    assert ax.get_lines()[0].get_xydata().tolist() == [[0, 20.5], [1, 25.0]]
    assert ax.get_ylabel() == "median error of the best layer (degrees, lower is better)"


def test_the_best_of_many_lines_are_the_lowest(tmp_path):
    count = plots.LOOKS + 5
    made = [by_layer({"res4": 1.0 + n}, data_name=f"d{n}")[0] for n in range(count)]
    figure, _left_out = plots.figure(rows(tmp_path, *made))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {name.split()[2] for name in names if "others" not in name} == {
        f"(d{n})" for n in range(plots.LOOKS)
    }


def test_what_decides_a_record_is_what_its_task_declares(tmp_path):
    """Measured fields do not; any other does, and is shown in the order that it declares."""

    def labels(*extra):
        found = rows(tmp_path, *(by_layer({"res4": 1.0}, **each)[0] for each in extra))
        return [row.label.removeprefix(LABEL).strip() for row in found]

    assert labels({"valid_bumps": 1}, {"valid_bumps": 2}) == [""]
    assert labels({"bumps_seed": 0}, {"bumps_seed": 1}) == ["bumps_seed=0", "bumps_seed=1"]
    assert labels({"width": 224}, {"width": 448})[1] == "resnet50 jigsaw seed 0 at 448 pixels"
    both = {"optimizer": "sgd", "height": 1}, {"optimizer": "adam", "height": 2}
    assert labels(*both) == ["height=1", "height=2"]
    layers = [
        by_layer({layer: 1.0}, decoder_digest=layer, crops_digest="a")[0] for layer in ("a", "b")
    ]
    assert len(rows(tmp_path, *layers)) == 1
    assert "valid_bumps" not in results.identity(RECORD | {"valid_bumps": 1})


def test_its_seeds_are_one_line_with_what_goes_along(tmp_path):
    made = [
        by_layer({"res4": 20.0 + n}, bumps_seed=n, crops_digest=f"x{n}", model=f"m{n}")[0]
        for n in range(3)
    ]
    (ax,) = plots.figure(rows(tmp_path, *made))[0].axes
    assert ax.get_lines()[0].get_xydata().tolist() == [[0, 21.0]]
    made = [by_layer({"res4": n / 10}, width=n, height=n)[0] for n in (100, 200)]
    (ax,) = plots.figure(rows(tmp_path, *made), "width")[0].axes
    assert ax.get_lines()[0].get_xydata().tolist() == [[100, 10.0], [200, 20.0]]


def test_a_field_has_one_type_in_all_tasks():
    """Its name means one thing: who sets it, and whether it is measured."""
    shared = {**results.SUBJECT, **results.SETTINGS, **results.PROVENANCE}
    for task in tasks.TASKS.values():
        for role in ("conditions", "measured"):
            own = getattr(task, role)
            if task is not BUMPS:
                assert all(results.FIELDS[name] == entry for name, entry in own.items())
            assert not own.keys() & shared.keys()
        assert not task.measured.keys() & tasks.OTHER.conditions.keys()
        assert not task.conditions.keys() & tasks.OTHER.measured.keys()
        assert set(task.seeds) <= {*results.SUBJECT, *task.conditions}


def test_values_of_two_ground_truths_are_in_no_one_panel(tmp_path):
    """Normals by two rules differ by more than networks do: nothing compares them."""
    made = {"task": "normals", "data_set": "nyuv2", "metric": "median error", "model": "a"}
    made |= {"layer": "res5", "value": 20.0, "ground_truth": "depth"}
    untrained = made | {"pretext": "random", "model": "b", "value": 10.0, "rule": "plane 9"}
    found = rows(tmp_path, untrained, made | {"rule": "plane 9"}, made | {"rule": "plane 15"})
    assert [row.data_set for row in found] == ["nyuv2, depth, plane 9"] * 2 + [
        "nyuv2, depth, plane 15"
    ]
    assert len({row.panel for row in found}) == 2
    assert len(plots.figure(found)[0].axes) == 2
    assert "| normals | nyuv2, depth, plane 15 | median error (degrees, lower is better) |" in (
        tables.markdown(found)
    )
