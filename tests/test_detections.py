"""Detections by line of a list, and in the forms of VOC and of COCO."""

import io
import json
import pickle

import pytest

from ssl_common.data import coco
from ssl_common.evaluation.detection import detections
from ssl_common.evaluation.detection.detections import DetectionList, Detections
from ssl_common.streams import DataError

NOTHING = Detections("a b.jpg", 9, 7, (), (), ())
SEVERAL = Detections(
    "d/1.jpg",
    20,
    10,
    ((0, 0, 20, 10), (1.5, 2, 3, 4.25), (-3, 2, -3, 12)),
    ("cat", "dog", "cat"),
    (0.9, 0.1 + 0.2, 1e-7),
)


@pytest.fixture
def listed(tmp_path):
    """Return a function that writes bytes as a list and reads it."""

    def listed(*lines):
        (tmp_path / "list").write_bytes(b"".join(lines))
        return DetectionList(str(tmp_path / "list"))

    return listed


def test_detections_are_read_by_line_as_they_were_written(listed):
    rows = [SEVERAL, NOTHING] * 100
    found = listed(*map(detections.format_detections, rows))
    assert len(found) == 200 and list(found) == rows
    assert [found[k] for k in (0, 63, 64, 199)] == [rows[k] for k in (0, 63, 64, 199)]
    assert pickle.loads(pickle.dumps(found))[130] == SEVERAL


def test_a_line_of_detections_is_json_that_others_read():
    line = detections.format_detections(SEVERAL)
    assert line.count(b"\n") == 1 and json.loads(line) == {
        "path": "d/1.jpg",
        "width": 20,
        "height": 10,
        "boxes": [[0, 0, 20, 10], [1.5, 2, 3, 4.25], [-3, 2, -3, 12]],
        "labels": ["cat", "dog", "cat"],
        "scores": [0.9, 0.30000000000000004, 1e-7],
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boxes": [[3, 0, 2, 10]] * 3}, "boxes holds [3, 0, 2, 10], not x1, y1, x2, y2"),
        ({"boxes": [[0, 9, 3, 8]] * 3}, "boxes holds [0, 9, 3, 8]"),
        ({"boxes": [[0, 0, 3, 8]]}, 'labels is ["cat", "dog", "cat"], not B class names (B = 1'),
        ({"labels": ["cat", "a,b", "c"]}, "labels holds 'a,b', not a class name"),
        ({"scores": [1, 0.5]}, "scores is [1, 0.5], not B numbers (B = 3 of boxes)"),
        ({"scores": [1, True, 0]}, "scores is [1, true, 0], not B numbers"),
        ({"scores": [1, 0.5, 0.7]}, "scores holds 0.5 before 0.7: the best comes first"),
        ({"path": "a\tb"}, "path holds 'a\\tb', not a path"),
    ],
)
def test_wrong_detections_are_named_by_line(listed, tmp_path, change, words):
    right = detections.format_detections(SEVERAL)
    wrong = json.dumps(json.loads(right) | change).encode() + b"\n"
    with pytest.raises(DataError) as error:
        listed(right, wrong, right)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/list:2: {words}") and "\n" not in message
    assert message.endswith(": mend the line or delete it")


def test_objects_are_told_from_detections(listed):
    line = json.loads(detections.format_detections(NOTHING))
    line["difficult"] = line.pop("scores")
    words = "list:1: the objects of an image, not the detections in an image"
    with pytest.raises(DataError, match=words):
        listed(json.dumps(line).encode())


def test_comp4_counts_from_one_and_names_the_last_pixel(tmp_path):
    classes = ("bird", "cat", "dog")
    detections.write_comp4(str(tmp_path), classes, [NOTHING._replace(path="2.jpg"), SEVERAL])
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert files == {
        "comp4_det_test_bird.txt": "",
        "comp4_det_test_cat.txt": "1 0.9 1 1 20 10\n1 1e-07 -2 3 -3 12\n",
        "comp4_det_test_dog.txt": "1 0.30000000000000004 2.5 3 3 4.25\n",
    }


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([NOTHING], "a b.jpg: VOC's files cannot name an image with a space"),
        ([SEVERAL, SEVERAL._replace(path="e/1.png")], "e/1.png: VOC's files would call it 1, as d"),
        ([SEVERAL._replace(labels=("cat", "dog", "cow"))], "d/1.jpg: 'cow' is none of the classes"),
    ],
)
def test_what_comp4_cannot_say(tmp_path, found, words):
    with pytest.raises(DataError) as error:
        detections.write_comp4(str(tmp_path), ("cat", "dog"), found)
    assert str(error.value).startswith(words)


def test_coco_has_sides_and_the_ids_of_the_annotations():
    images, categories = {"d/1.jpg": 7, "a b.jpg": 8}, {"cat": 17, "dog": 90}
    stream = io.BytesIO()
    detections.write_coco(stream, images, categories, [NOTHING, SEVERAL])
    assert json.loads(stream.getvalue()) == [
        {"image_id": 7, "category_id": 17, "bbox": [0, 0, 20, 10], "score": 0.9},
        {"image_id": 7, "category_id": 90, "bbox": [1.5, 2, 1.5, 2.25], "score": 0.1 + 0.2},
        {"image_id": 7, "category_id": 17, "bbox": [-3, 2, 0, 10], "score": 1e-7},
    ]
    detections.write_coco(nothing := io.BytesIO(), images, categories, [NOTHING])
    assert json.loads(nothing.getvalue()) == []
    with pytest.raises(DataError, match="a b.jpg: the annotations have no such image"):
        detections.write_coco(io.BytesIO(), {"d/1.jpg": 7}, categories, [NOTHING])
    with pytest.raises(DataError, match="'dog': the annotations have no such category"):
        detections.write_coco(io.BytesIO(), images, {"cat": 17}, [SEVERAL])


def test_ids_go_by_the_end_of_a_path(tmp_path):
    images = {"a/1.jpg": 11, "b/1.jpg": 12, "2.jpg": 20}
    content = {
        "images": [{"id": key, "file_name": name} for name, key in images.items()],
        "categories": [{"id": 90, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    paths = ["root/b/1.jpg", "./a/1.jpg", "2.jpg", "root//2.jpg", "x2.jpg", "c/1.jpg"]
    found, categories = coco.ids(paths, str(tmp_path / "c.json"))
    assert found == dict(zip(paths, (12, 11, 20, 20), strict=False))
    assert categories == {"cat": 90, "dog": 3}
    content["images"].append({"id": 30, "file_name": "x/2.jpg"})
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="root/x/2.jpg may be image 20 or 30: rename one of them"):
        coco.ids(["root/x/2.jpg"], str(tmp_path / "c.json"))
