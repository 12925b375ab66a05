"""Average precision of detections, against the devkit's rule written out, and the stored values."""

import json
import os
import pathlib

import numpy as np
import pytest
from conftest import CHECKOUT

from ssl_common.data import boxes
from ssl_common.data.targets import Objects
from ssl_common.evaluation.detection import found as founds
from ssl_common.evaluation.detection import precision, scoring, truth
from ssl_common.evaluation.detection.found import Found
from ssl_common.streams import DataError

CLASSES = "abc"


def devkit(objects, detections, name, limit=0.5):
    """Return (11-point, area) of the class NAME by the devkit's rule, loop by loop, or None.

    OBJECTS are [(image, class, box, difficult)] and DETECTIONS [(image, class, score, box)], boxes
    as VOC has them: pixels from 1, the last one inside. Equal scores come as they stand.
    """
    mine = [each for each in objects if each[1] == name]
    positives = sum(not difficult for *_rest, difficult in mine)
    taken, hits, misses, points = set(), 0, 0, []
    for image, _name, _score, box in sorted(
        (each for each in detections if each[1] == name), key=lambda each: -each[2]
    ):
        best, which = -1.0, None
        for number, (other, _name, place, _difficult) in enumerate(mine):
            if other != image:
                continue
            wide = min(box[2], place[2]) - max(box[0], place[0]) + 1
            high = min(box[3], place[3]) - max(box[1], place[1]) + 1
            both = max(wide, 0) * max(high, 0)
            areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, place)]
            if both / (sum(areas) - both) > best:
                best, which = both / (sum(areas) - both), number
        if best > limit and mine[which][3]:
            continue
        right = best > limit and which not in taken
        taken |= {which} if right else set()
        hits, misses = hits + right, misses + (not right)
        points.append((hits / positives if positives else 0, hits / (hits + misses)))
    if not positives:
        return None
    eleven = [max((p for r, p in points if r >= t), default=0) for t in np.arange(0, 1.1, 0.1)]
    area, before = 0.0, 0.0
    for recall, _precision in points:
        area += (recall - before) * max(p for r, p in points if r >= recall)
        before = recall
    return sum(eleven) / 11, area


def drawn(seed, images=6):
    """Return (objects, detections) that overlap often, with ties of score and of overlap."""
    rng = np.random.default_rng(seed)
    objects, detections = [], []
    for image in range(images):
        for _ in range(rng.integers(0, 5)):
            x, y, w, h = rng.integers((1, 1, 8, 8), (20, 20, 20, 20)).tolist()
            name = CLASSES[rng.integers(3)]
            objects.append((image, name, (x, y, x + w, y + h), bool(rng.random() < 0.25)))
            for _ in range(rng.integers(0, 4)):
                box = np.add((x, y, x + w, y + h), rng.integers(-4, 5, 4))
                detections.append((image, name, rng.integers(0, 6) / 8, tuple(box.tolist())))
        x, y = rng.integers(1, 30, 2).tolist()
        detections.append((image, CLASSES[rng.integers(3)], 0.5, (x, y, x + 9, y + 9)))
    return objects, detections


def arrays(objects, detections, images=6):
    """Return (Found, Truth) of what drawn() gives; all CLASSES are in the first image's labels."""
    rows = []
    for image in range(images):
        mine = [each for each in objects if each[0] == image]
        boxes = tuple((b[0] - 1, b[1] - 1, b[2], b[3]) for _i, _n, b, _d in mine)
        rows.append(
            Objects(
                f"{image}.jpg", 60, 60, boxes, tuple(e[1] for e in mine), tuple(e[3] for e in mine)
            )
        )
    listed = truth.arrays(rows)
    place = {name: number for number, name in enumerate(listed.classes)}
    kept = [each for each in detections if each[1] in place]
    found = Found(
        np.array([each[0] for each in kept], np.int64),
        np.array([place[each[1]] for each in kept], np.int64),
        np.array([each[3] for each in kept], float).reshape(-1, 4) - [1, 1, 0, 0],
        np.array([each[2] for each in kept], float),
        np.ones(len(place), bool),
    )
    return found, listed


@pytest.mark.parametrize("seed", range(60))
def test_the_rule_is_the_devkits(seed):
    objects, detections = drawn(seed)
    # Its ties come in the order of the file: put them in the stated one.
    detections.sort(key=lambda each: (str(each[0]), each[3]))
    found, listed = arrays(objects, detections)
    for limit in (0.5, 0.75):
        curves = precision.curves(precision.match(found, listed), listed, limit)
        for name, curve in zip(listed.classes, curves, strict=True):
            expected = devkit(objects, detections, name, limit)
            if expected is not None:
                ours = precision.eleven_points(curve), precision.area(curve)
                assert ours == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_no_order_of_rows_changes_anything(seed):
    found, listed = arrays(*drawn(seed, 40), 40)
    expected = scoring.measure(found, listed)
    for again in range(3):
        order = np.random.default_rng(again).permutation(len(found.scores))
        rows = (each[order] for each in (found.images, found.labels, found.boxes, found.scores))
        assert scoring.measure(Found(*rows, found.known), listed) == expected


def test_the_last_of_two_on_one_object_is_wrong_and_difficult_ones_count_for_nothing():
    objects = [(0, "a", (1, 1, 10, 10), False), (0, "a", (30, 1, 39, 10), True)]
    found, listed = arrays(
        objects,
        [(0, "a", 0.9, (1, 1, 10, 9)), (0, "a", 0.8, (1, 1, 10, 10)),
         (0, "a", 0.95, (30, 1, 39, 10)), (0, "a", 0.97, (30, 2, 39, 10))],
    )  # fmt: skip
    matches = precision.match(found, listed)
    right, ignored = precision.verdicts(matches, listed)
    assert matches.rows.tolist() == [3, 2, 0, 1]
    assert right.tolist() == [False, False, True, False]
    assert ignored.tolist() == [True, True, False, False]
    (curve,) = precision.curves(matches, listed)
    assert curve.recall.tolist() == [1, 1] and curve.precision.tolist() == [1, 0.5]


def test_half_is_not_enough_and_of_equal_overlaps_the_first_is_taken():
    objects = [(0, "a", (1, 1, 10, 10), False), (0, "a", (11, 1, 20, 10), False)]
    found, listed = arrays(objects, [(0, "a", 0.5, (1, 1, 20, 10)), (0, "a", 0.4, (6, 1, 15, 10))])
    matches = precision.match(found, listed)
    assert matches.overlaps.tolist() == [0.5, 1 / 3] and matches.objects.tolist() == [0, 0]
    assert not precision.verdicts(matches, listed).right.any()


def test_boxes_of_no_width_overlap_nothing():
    boxes = np.array([[3, 3, 3, 9], [0, 0, 0, 0], [2, 2, 4, 4.0]])
    assert precision.overlap(boxes, boxes).tolist() == [0, 0, 1]
    objects = [(0, "a", (1, 1, 10, 10), False)]
    found, listed = arrays(objects, [(0, "a", 0.5, (4, 1, 3, 10))])  # xmax is xmin - 1
    assert scoring.measure(found, listed)["value"] == 0


def test_no_detection_is_an_average_precision_of_0():
    found, listed = arrays([(0, "a", (1, 1, 10, 10), False)], [])
    measured = scoring.measure(found, listed)
    assert measured["value"] == measured["ap50_area"] == measured["ap50_95"] == 0
    assert measured["per_class"] == {"a": 0} and measured["classes"] == 1


def test_a_class_of_difficult_objects_alone_has_none():
    objects = [(0, "a", (1, 1, 10, 10), False), (1, "b", (1, 1, 10, 10), True)]
    found, listed = arrays(objects, [(0, "a", 0.5, (1, 1, 10, 10))])
    measured = scoring.measure(found, listed)
    assert measured["per_class"] == {"a": pytest.approx(100), "b": None}
    assert (measured["classes"], measured["objects"]) == (1, 1)
    for objects, words in (
        ([(0, "a", (1, 1, 10, 10), True)], "no object that counts: all are difficult or crowds"),
        ([], "no object that counts: there is no object"),
    ):
        with pytest.raises(DataError, match=words):
            scoring.measure(*arrays(objects, []))


# ---- Real detections -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored():
    """Return (comp4 folder, Truth of VOC2007 test, what the authors' program stored)."""
    root = pathlib.Path(os.environ.get("SSL_BENCH_DATA", CHECKOUT / "../shared/data")).resolve()
    folder = root / "voc07_detections_yolov2"
    if not folder.exists():
        pytest.skip(f"no {folder} (SSL_BENCH_DATA)")
    listed = truth.arrays(list(boxes.voc(root / "voc2007_text_full/VOCdevkit/VOC2007", "test")))
    expected = json.loads((folder / "expected_ap.json").read_text())["ap07"]
    return folder, listed, expected


def test_stored_detections_have_the_stored_average_precision(stored):
    folder, listed, expected = stored
    found = founds.read(str(folder / "results"), listed)
    assert len(found.scores) == 67_486
    measured = scoring.measure(found, listed)
    values = {name: value for name, value in measured["per_class"].items() if value is not None}
    assert len(values) == 19 and measured["per_class"]["person"] is None
    for name, value in values.items():
        assert abs(value / 100 - expected[name]) < 1e-12
    assert round(measured["value"], 4) == 72.0592
    assert round(measured["ap50_area"], 4) == 74.2722


def test_stored_curves_have_the_area(stored):
    """Its program sorted ties in no order of its own: they move the area by less than 1e-5."""
    folder, listed, _expected = stored
    found = founds.read(str(folder / "results"), listed)
    curves = np.load(folder / "pr_curves.npz")
    measured = scoring.measure(found, listed)["per_class_area"]
    for name in set(listed.classes) - {"person"}:
        recall, values = curves[f"{name}_rec"], curves[f"{name}_prec"]
        theirs = [values[recall >= r].max() for r in recall]
        area = np.sum(np.diff(recall, prepend=0) * theirs)
        assert measured[name] / 100 == pytest.approx(area, abs=1e-5)


def test_cocos_rule_is_that_of_pycocotools(stored, capfd):
    pytest.importorskip("faster_coco_eval")
    folder, listed, _expected = stored
    found = founds.read(str(folder / "results"), listed)
    measured = scoring.by_coco(found, listed)
    # As pycocotools 2.0.11 gave, for difficult objects as crowds.
    expected = {"coco_ap": 42.4397, "coco_ap50": 74.2851, "coco_ap75": 43.0940}
    assert measured == pytest.approx(expected, abs=1e-4)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("seed", range(4))
def test_cocos_rule_on_drawn_boxes(seed, capsys):
    pytest.importorskip("faster_coco_eval")
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    found, listed = arrays(*drawn(seed, 30), 30)
    ours = scoring.by_coco(found, listed)
    theirs = coco.COCO()
    sides = listed.boxes[:, 2:] - listed.boxes[:, :2]
    theirs.dataset = {
        "images": [{"id": n} for n in range(30)],
        "categories": [{"id": n} for n in range(len(listed.classes))],
        "annotations": [
            {"id": n + 1, "image_id": int(listed.images[n]), "category_id": int(listed.labels[n]),
             "bbox": [*listed.boxes[n, :2].tolist(), *sides[n].tolist()],
             "area": float(sides[n].prod()), "iscrowd": int(listed.ignored[n])}
            for n in range(len(sides))
        ],
    }  # fmt: skip
    theirs.createIndex()
    wide = found.boxes[:, 2:] - found.boxes[:, :2]
    rows = np.column_stack([found.images, found.boxes[:, :2], wide, found.scores, found.labels])
    judge = evaluation.COCOeval(theirs, theirs.loadRes(rows), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    capsys.readouterr()
    expected = dict(zip(("coco_ap", "coco_ap50", "coco_ap75"), 100 * judge.stats, strict=False))
    assert ours == pytest.approx(expected, abs=1e-9)
