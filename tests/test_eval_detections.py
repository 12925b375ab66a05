"""eval-detections as a process: its record, the forms it reads, and what it refuses."""

import json
import shutil

import numpy as np
import pytest

from ssl_common.evaluation.detection import found as founds
from ssl_common.evaluation.detection import truth as truths

EXAMPLE = ["detections.jsonl", "objects.jsonl"]


@pytest.fixture
def measured(run):
    """Run eval-detections; return its record, or with WORDS see it refuse in one line with them."""

    def measured(*argv, words=None, stdin=None):
        done = run("eval-detections", *argv, stdin=stdin, check=1 if words else 0)
        assert done.stderr.count(b"\n") == 1
        if words:
            assert words in done.stderr.decode() and done.stdout == b""
            return None
        return json.loads(done.stdout)

    return measured


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_record_says_what_was_measured(scratch, run):
    done = run("eval-detections", *EXAMPLE, "--tag", "model=x", check=0)
    record = json.loads(done.stdout)
    assert record["task"] == "detection" and record["metric"] == "AP50 (11-point)"
    assert (record["data_set"], record["model"]) == ("objects", "x")
    assert (record["test_images"], record["objects"], record["detections"]) == (4, 4, 9)
    assert record["objects_ignored"] == 1 and record["detections_left_out"] == 0
    assert set(record["per_class"]) == set(record["per_class_area"])
    assert 0 < record["ap50_95"] < record["value"] <= 100
    assert record["argv"] == ["eval-detections", *EXAMPLE, "--tag", "model=x"]
    assert set(record["inputs"]) == {"detections", "objects"} and "coco_ap" not in record
    said = f"eval-detections: {record['value']:.2f} AP50 (11-point), {record['ap50_area']:.2f} by "
    said += f"area, over {record['classes']} of {len(record['per_class'])} classes, "
    assert done.stderr.decode() == said + "9 detections in 4 images\n"


def test_pipes_and_orders_change_nothing(scratch, run, measured):
    expected = measured(*EXAMPLE)
    for name in EXAMPLE:
        rows = lines(scratch / name)
        write(scratch / "turned.jsonl", rows[::-1])
        # Of objects, image order too; neither is part of any rule.
        other = ["turned.jsonl" if each == name else each for each in EXAMPLE]
        found = measured(*other)
        for field in ("value", "ap50_area", "ap50_95", "per_class", "per_class_area"):
            assert found[field] == expected[field]
        piped = ["-" if each == name else each for each in EXAMPLE]
        found = measured(*piped, stdin=(scratch / name).read_bytes())
        assert found["per_class"] == expected["per_class"]


def comp4(folder, rows, classes, salt=""):
    """Write ROWS of detections into FOLDER as the devkit has them; CLASSES have a file each."""
    folder.mkdir()
    for name in classes:
        with open(folder / f"comp4{salt}_det_test_{name}.txt", "w") as stream:
            for row in rows:
                identity = row["path"].split("/")[-1].removesuffix(".jpg")
                for box, label, score in zip(
                    row["boxes"], row["labels"], row["scores"], strict=True
                ):
                    if label == name:
                        x1, y1, x2, y2 = box
                        print(identity, score, x1 + 1, y1 + 1, x2, y2, file=stream)


@pytest.mark.parametrize("salt", ["", "_0a1b"])
def test_comp4_is_measured_as_our_own_form(scratch, measured, salt):
    expected = measured(*EXAMPLE)
    classes = expected["per_class"]
    comp4(scratch / "Main", lines(scratch / "detections.jsonl"), classes, salt)
    found = measured("Main", "objects.jsonl")
    for field in ("value", "ap50_area", "ap50_95", "per_class", "detections"):
        assert found[field] == expected[field]
    # Without a file of a class the detector does not know it; an empty one says it found nothing.
    name, *others = classes
    path = scratch / f"Main/comp4{salt}_det_test_{name}.txt"
    path.write_text("")
    assert measured("Main", "objects.jsonl")["per_class"][name] == 0
    path.unlink()
    found = measured("Main", "objects.jsonl")
    assert found["per_class"][name] is None and found["unseen"] == [name]
    assert found["classes"] == expected["classes"] - 1


def test_every_form_has_the_same_boxes(scratch):
    listed = truths.read(str(scratch / "objects.jsonl"))
    comp4(scratch / "Main", lines(scratch / "detections.jsonl"), listed.classes)
    coco(scratch)
    files = {"detections.jsonl": None, "Main": None, "results.json": str(scratch / "c.json")}
    forms = [founds.read(str(scratch / name), listed, ids) for name, ids in files.items()]
    rows = [
        sorted(zip(*map(np.ndarray.tolist, (f.images, f.labels, f.boxes, f.scores)), strict=True))
        for f in forms
    ]
    expected = sorted(
        [number, listed.classes.index(label), box, score]
        for number, row in enumerate(lines(scratch / "detections.jsonl"))
        for label, box, score in zip(row["labels"], row["boxes"], row["scores"], strict=True)
    )
    assert [list(map(list, each)) for each in rows] == [expected] * 3


def coco(scratch):
    """Write detections.jsonl as COCO's results and annotations; return their names."""
    objects, found = lines(scratch / "objects.jsonl"), lines(scratch / "detections.jsonl")
    names = sorted({label for row in objects for label in row["labels"]})
    ids = {row["path"]: 100 - n for n, row in enumerate(objects)}
    content = {
        "images": [{"id": key, "file_name": path.split("/", 3)[-1]} for path, key in ids.items()],
        "categories": [{"id": 7 * n + 3, "name": name} for n, name in enumerate(names)],
        "annotations": [],
    }
    (scratch / "c.json").write_text(json.dumps(content))
    results = [
        {"image_id": ids[row["path"]], "category_id": 7 * names.index(label) + 3, "score": score,
         "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for row in found
        for (x1, y1, x2, y2), label, score in zip(
            row["boxes"], row["labels"], row["scores"], strict=True
        )
    ]  # fmt: skip
    (scratch / "results.json").write_text(json.dumps(results))
    return results


def test_results_of_coco_are_measured_as_our_own_form(scratch, measured):
    expected, results = measured(*EXAMPLE), coco(scratch)
    argv = ["results.json", "objects.jsonl", "--annotations", "c.json"]
    found = measured(*argv)
    for field in ("value", "ap50_area", "ap50_95", "per_class", "detections"):
        assert found[field] == expected[field]
    measured(*argv[:2], words="results.json: COCO's results: say whose ids they have by --annot")
    for change, words in (
        ({"image_id": 5}, "result 9: 'image_id 5' is no image of objects.jsonl"),
        ({"category_id": 4}, "result 9: category_id 4 is none of c.json"),
        ({"bbox": [1, 2, 3, -4]}, "result 9: bbox holds a side below 0"),
        ({"score": None}, "result 9: score is null, not a number"),
        ({"score": "1"}, 'result 9: score is "1", not a number'),
    ):
        (scratch / "results.json").write_text(json.dumps([*results[:8], results[8] | change]))
        measured(*argv, words=words)
    (scratch / "results.json").write_text("[]")
    assert measured(*argv)["value"] == 0


def test_images_without_detections_and_none_at_all(scratch, measured):
    rows = lines(scratch / "detections.jsonl")
    empty = {"boxes": [], "labels": [], "scores": []}
    write(scratch / "none.jsonl", [row | empty for row in rows])
    record = measured("none.jsonl", "objects.jsonl")
    assert record["value"] == record["ap50_area"] == 0 and record["detections"] == 0
    # One image alone, and one with nothing in it beside.
    objects = lines(scratch / "objects.jsonl")[:1]
    write(scratch / "one.jsonl", objects)
    write(scratch / "found.jsonl", rows[:1])
    assert measured("found.jsonl", "one.jsonl")["test_images"] == 1
    nothing = {"path": "n.jpg", "width": 5, "height": 4, "boxes": [], "labels": []}
    write(scratch / "one.jsonl", [*objects, nothing | {"difficult": []}])
    write(scratch / "found.jsonl", [*rows[:1], nothing | {"scores": []}])
    assert measured("found.jsonl", "one.jsonl")["test_images"] == 2


def other_set(rows):
    rows[2]["path"] = "other/1.jpg"


def other_class(rows):
    rows[2]["labels"][1] = "sheep"


def other_size(rows):
    rows[2]["width"] = 101


def twice(rows):
    rows[2] = rows[1]


def box_turned(rows):
    rows[2]["boxes"][1] = [9, 9, 8, 10]


def score_text(rows):
    rows[2]["scores"][1] = "0.1"


def unsorted(rows):
    rows[2]["scores"].reverse()


def truth(rows):
    rows[2]["difficult"] = [False] * len(rows[2].pop("scores"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (other_set, ":3: 'other/1.jpg' is no image of objects.jsonl: are these detections of"),
        (other_class, ":3: 'sheep' is no class of objects.jsonl, as cat, dog, train: rename it"),
        (other_size, ":3: 101 x 80 pixels, but 100 x 80 in objects.jsonl: see the image"),
        (twice, ":3: VOCdevkit/VOC2007/JPEGImages/000032.jpg stands on line 2 already"),
        (box_turned, ":3: boxes holds [9, 9, 8, 10], not x1, y1, x2, y2"),
        (score_text, ":3: scores is ["),
        (unsorted, ":3: scores holds "),
        (truth, ":3: the objects of an image, not the detections in an image"),
        (lambda rows: rows.pop(), ": no line for VOCdevkit/VOC2007/JPEGImages/000062.jpg of obj"),
        (lambda rows: rows.clear(), ": no line for VOCdevkit/VOC2007/JPEGImages/000017.jpg and 3"),
    ],
)
def test_what_does_not_belong_to_the_list_is_named(scratch, measured, spoil, words):
    rows = lines(scratch / "detections.jsonl")
    spoil(rows)
    write(scratch / "wrong.jsonl", rows)
    measured("wrong.jsonl", "objects.jsonl", words=f"eval-detections: wrong.jsonl{words}")


def test_classes_that_the_list_has_not_can_be_left_out(scratch, measured):
    rows = lines(scratch / "detections.jsonl")
    expected = measured(*EXAMPLE)
    for row in rows:
        row["boxes"].append([0, 0, 3, 3])
        row["labels"].append("sheep")
        row["scores"].append(0.01)
    write(scratch / "more.jsonl", rows)
    record = measured("more.jsonl", "objects.jsonl", "--skip-unknown")
    assert record["detections_left_out"] == 4 and record["per_class"] == expected["per_class"]
    comp4(scratch / "Main", rows, [*expected["per_class"], "sheep"])
    measured("Main", "objects.jsonl", words="det_test_sheep.txt: 'sheep' is no class of objects.j")
    record = measured("Main", "objects.jsonl", "--skip-unknown")
    assert record["detections_left_out"] == 4 and record["per_class"] == expected["per_class"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("000099 0.5 1 2 3 4\n", "_cat.txt:1: '000099' is no image of objects.jsonl"),
        ("000017 0.5 1 2 3 4\n000017 0.5 1 2 3\n", "_cat.txt:2: '000017 0.5 1 2 3' is not id sc"),
        ("000017 0.5 1 2 3 4 5 000017 0.5 1 2 3\n", "_cat.txt:1: '000017 0.5 1 2 3 4 5 000017"),
        ("000017 0.5 1 2 3 4\n\n", "_cat.txt:2: '' is not id score xmin ymin xmax ymax"),
        ("000017 nan 1 2 3 4\n", "_cat.txt:1: '000017 nan 1 2 3 4' is not id score"),
        ("000017 0.5 9 2 3 4\n", "_cat.txt:1: '000017 0.5 9 2 3 4' is not id score"),
        ("000017 0.5 1e400 2 3 4\n", "_cat.txt:1: '000017 0.5 1e400 2 3 4' is not id score"),
    ],
)
def test_a_wrong_line_of_comp4_is_named(scratch, measured, text, words):
    (scratch / "Main").mkdir()
    (scratch / "Main/comp4_det_test_cat.txt").write_text(text)
    measured("Main", "objects.jsonl", words=words)


def test_folders_that_are_no_comp4(scratch, measured):
    (scratch / "Main").mkdir()
    measured("Main", "objects.jsonl", words="Main: no comp4_det_<set>_<class>.txt in it")
    for name in ("comp4_det_test_cat.txt", "comp4_det_val_dog.txt"):
        (scratch / "Main" / name).write_text("")
    measured("Main", "objects.jsonl", words="Main: files of several sets, test and val: give each")
    argv = ["Main", "objects.jsonl", "--annotations", "x.json"]
    measured(*argv, words="leave out --annotations")
    measured(*EXAMPLE, "--annotations", "x.json", words="no results of COCO: leave out --annot")


def test_images_of_one_name_cannot_be_told_in_comp4(scratch, measured):
    rows = lines(scratch / "objects.jsonl")
    rows[1]["path"] = "other/000017.jpg"
    write(scratch / "two.jsonl", rows)
    comp4(scratch / "Main", lines(scratch / "detections.jsonl"), ["cat"])
    measured("Main", "two.jsonl", words="other/000017.jpg have one name, which VOC's files do not")


def test_the_record_knows_what_it_was_measured_on(scratch, measured):
    """Another flag of an object is another measurement of the same images."""
    rows, first = lines(scratch / "objects.jsonl"), measured(*EXAMPLE)
    rows[0]["difficult"] = [not flag for flag in rows[0]["difficult"]]
    write(scratch / "others.jsonl", rows)
    second = measured(EXAMPLE[0], "others.jsonl")
    assert first["test_manifest"] == second["test_manifest"]
    assert first["inputs"]["objects"] != second["inputs"]["objects"]
    assert first["inputs"]["detections"] == second["inputs"]["detections"]


def test_an_image_listed_twice_is_named(scratch, measured):
    rows = lines(scratch / "objects.jsonl")
    write(scratch / "two.jsonl", [*rows, rows[0]])
    words = "two.jsonl:5: VOCdevkit/VOC2007/JPEGImages/000017.jpg stands on line 1 already"
    measured("detections.jsonl", "two.jsonl", words=words)


def test_what_is_known_of_the_detector_comes_from_beside_the_detections(scratch, measured):
    about = {"format": 1, "model": "0" * 16, "arch": "resnet50", "pretext": "jigsaw"}
    about |= {"head": "fast", "freeze": "res4", "train_images": 5011, "train_manifest": "1" * 16}
    (scratch / "detections.jsonl.json").write_text(json.dumps(about))
    record = measured(*EXAMPLE, "--tag", "data_set=voc2007")
    assert {key: record[key] for key in about if key != "format"}.items() <= about.items()
    assert "format" not in record and record["data_set"] == "voc2007"
    measured(*EXAMPLE, "--tag", "arch=x", words="--tag arch=x: detections.jsonl says resnet50")
    about["train_manifest"] = record["test_manifest"]
    (scratch / "detections.jsonl.json").write_text(json.dumps(about))
    measured(*EXAMPLE, words="the detector was trained on all images of objects.jsonl")
    assert measured(*EXAMPLE, "--allow-seen")["value"] == record["value"]


def test_the_rule_of_coco_without_its_program_is_one_line(scratch, run):
    code = """
import sys
sys.modules["faster_coco_eval"] = None
from ssl_tools.eval_detections import main
main(["detections.jsonl", "objects.jsonl", "--coco"])
"""
    done = run("python", "-c", code, check=1)
    assert b"--coco needs faster-coco-eval: pip install 'ssl-bench[coco]'\n" in done.stderr
    assert done.stdout == b""


def test_the_rule_of_coco_stands_beside(scratch, measured):
    pytest.importorskip("faster_coco_eval")
    record = measured(*EXAMPLE, "--coco")
    assert 0 < record["coco_ap"] < record["coco_ap50"] <= 100
    assert {k: v for k, v in record.items() if not k.startswith(("coco", "time", "argv"))} == {
        k: v for k, v in measured(*EXAMPLE).items() if not k.startswith(("time", "argv"))
    }


def test_report_shows_it_as_a_metric_of_its_own(scratch, run):
    run("eval-detections", *EXAMPLE, "-o", "r.jsonl", "--tag", "arch=alexnet", check=0)
    table = run("report", "r.jsonl", "results.jsonl", check=0).stdout.decode()
    (line,) = [line for line in table.splitlines() if "detection" in line]
    assert "| detection | objects | AP50 (11-point) | alexnet | " in line


def test_operands(scratch, run):
    assert run("eval-detections", "-", "-", stdin=b"").returncode == 2
    shutil.copy(scratch / "detections.jsonl", scratch / "again.jsonl")
    done = run("eval-detections", "again.jsonl", "detections.jsonl", check=1)
    words = "detections.jsonl:1: the detections in an image, not the objects of an image"
    assert words in done.stderr.decode()


def test_results_on_coco_have_cocos_own_average_precision(data, tmp_path, measured, run, capfd):
    """By the list and the command, as by pycocotools from COCO's own file; it has crowds."""
    pytest.importorskip("faster_coco_eval")
    coco, cocoeval = (pytest.importorskip(f"pycocotools.{n}") for n in ("coco", "cocoeval"))
    root = data("coco2014_A")
    file = root / "annotations/instances_val2014.json"
    done = run("list-objects", "coco", root / "val2014", file, "-o", "o.jsonl", check=0)
    truth = json.loads(file.read_text())
    assert f"43 images, {len(truth['annotations'])} objects of 53 classes" in done.stderr.decode()
    rng = np.random.default_rng(0)
    known = sorted({each["category_id"] for each in truth["annotations"]})
    results = []
    for each in truth["annotations"]:
        for _ in range(3):
            x, y, width, height = (each["bbox"] * rng.uniform(0.8, 1.25, 4)).round(2).tolist()
            name = each["category_id"] if rng.random() < 0.9 else int(rng.choice(known))
            place = {
                "image_id": each["image_id"],
                "category_id": name,
                "bbox": [x, y, width, height],
            }
            results.append(place | {"score": round(rng.random(), 6)})
    (tmp_path / "r.json").write_text(json.dumps(results))
    record = measured("r.json", "o.jsonl", "--annotations", file, "--coco")
    capfd.readouterr()
    theirs = coco.COCO(str(file))
    judge = cocoeval.COCOeval(theirs, theirs.loadRes(str(tmp_path / "r.json")), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    capfd.readouterr()
    ours = [record["coco_ap"], record["coco_ap50"], record["coco_ap75"]]
    assert ours == pytest.approx((100 * judge.stats[:3]).tolist(), abs=1e-9)
    assert record["objects_ignored"] == sum(each["iscrowd"] for each in truth["annotations"]) == 4
