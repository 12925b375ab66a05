"""show-detections as a process, and what it draws."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageColor

from ssl_common.data.targets import Objects
from ssl_common.evaluation.detection import detections
from ssl_common.evaluation.detection.detections import Detections
from ssl_common.reporting import boxes
from ssl_common.reporting.boxes import HUES, Marked
from ssl_common.reporting.captions import MARGIN


def picture(done):
    return Image.open(io.BytesIO(done.stdout)).convert("RGB")


def colours(image):
    """Return the kinds whose colour occurs in IMAGE."""
    there = {tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()}
    hues = {kind: hue for kind, hue in HUES.items() if kind != "ignored"}  # gray may be of letters
    return {kind for kind, hue in hues.items() if ImageColor.getrgb(hue) in there}


def test_detections_objects_and_both(scratch, run):
    done = run("show-detections", "detections.jsonl", "-n", 2, check=0)
    assert done.stderr == b"show-detections: 2 images, 5 boxes\n"
    first = picture(done)
    assert colours(first) == {""} and first.width < 2.5 * first.height
    done = run("show-detections", "objects.jsonl", check=0)
    assert done.stderr == b"show-detections: 4 images, 5 boxes\n"
    assert picture(done).size[0] > first.size[0]
    argv = ["show-detections", "detections.jsonl", "--objects", "objects.jsonl", "--least", 0.6]
    done = run(*argv, check=0)
    assert {"right", "wrong"} <= colours(picture(done)) <= {"right", "wrong", "missed"}
    assert run(*argv, "-o", "again.png", check=0).stdout == b""
    assert (scratch / "again.png").read_bytes() == done.stdout


def test_images_are_chosen_by_name(scratch, run):
    name = json.loads((scratch / "objects.jsonl").read_text().splitlines()[2])["path"]
    done = run(
        "show-detections", "-", name, stdin=(scratch / "objects.jsonl").read_bytes(), check=0
    )
    assert done.stderr == b"show-detections: 1 images, 1 boxes\n"
    done = run("show-detections", "objects.jsonl", "none.jpg", check=1)
    assert done.stderr == b"show-detections: objects.jsonl: no line for none.jpg\n"


def test_an_image_of_another_size_is_named(scratch, run):
    row = json.loads((scratch / "objects.jsonl").read_text().splitlines()[0])
    (scratch / "o.jsonl").write_text(json.dumps(row | {"width": 101}))
    done = run("show-detections", "o.jsonl", check=1)
    assert f"{row['path']}: it is 100 x 80 pixels, not 101 x 80" in done.stderr.decode()
    (scratch / "o.jsonl").write_text(json.dumps(row | {"path": "gone.jpg"}))
    done = run("show-detections", "o.jsonl", check=1)
    assert b"gone.jpg: No such file" in done.stderr and done.stderr.count(b"\n") == 1
    done = run("show-detections", "detections.jsonl", "--objects", "o.jsonl", check=1)
    assert f"o.jsonl: no line for {row['path']}" in done.stderr.decode()


THERE = Objects(
    "a.jpg",
    100,
    80,
    ((0, 0, 20, 20), (40, 0, 60, 20), (40, 40, 60, 60)),
    ("cat", "cat", "dog"),
    (False, False, True),
)
FOUND = [
    ((0, 0, 20, 19), "cat", 0.9),
    ((0, 0, 20, 20), "cat", 0.8),
    ((40, 40, 60, 60), "dog", 0.7),
    ((40, 0, 60, 20), "dog", 0.6),
    ((70, 0, 90, 20), "cow", 0.5),
]


def test_each_box_is_what_the_rule_says():
    image = Detections("a.jpg", 100, 80, *zip(*FOUND, strict=True))
    marked = boxes._marked(image, THERE, 0.55)
    assert [(each.text, each.kind) for each in marked] == [
        ("cat missed", "missed"),
        ("dog 0.60", "wrong"),
        ("dog 0.70", "ignored"),
        ("cat 0.80", "wrong"),
        ("cat 0.90", "right"),
    ]
    assert boxes._marked(image, THERE, 0)[1] == Marked((70, 0, 90, 20), "cow 0.50", "wrong")
    nothing = Detections("a.jpg", 100, 80, (), (), ())
    assert [each.kind for each in boxes._marked(nothing, THERE, 0)] == ["missed"] * 2


def test_a_box_stands_where_its_numbers_say():
    gray = Image.new("RGB", (boxes.SIDE, boxes.SIDE // 2), "#777777")
    drawn = boxes.draw(["a.jpg"], [gray], [[Marked((100, 60, 200, 160), "x", "right")]])
    pixels = np.asarray(drawn)[MARGIN:, MARGIN:]
    green = (pixels == ImageColor.getrgb(HUES["right"])).all(-1)
    rows, columns = np.nonzero(green)
    assert (columns.min(), columns.max()) == (100, 199)
    assert (rows.min(), rows.max()) == (60, 159)
    assert not green[90:150, 110:190].any()


@pytest.mark.parametrize("box", [(3, 3, 3, 9), (-5, -5, -1, -1), (0, 0, 1, 1), (90, 30, 500, 31)])
def test_boxes_of_no_width_and_beyond_the_image_are_drawn(box):
    image = Image.new("RGB", (100, 80), "#777777")
    drawn = boxes.draw(
        ["a.jpg"] * 4, [image] * 4, [[Marked(box, "a long name 0.99", "wrong")], []] * 2
    )
    assert "wrong" in colours(drawn)


def test_a_picture_of_what_nobody_found(scratch, run):
    rows = [json.loads(line) for line in (scratch / "objects.jsonl").read_text().splitlines()]
    with open(scratch / "none.jsonl", "wb") as stream:
        for row in rows:
            empty = Detections(row["path"], row["width"], row["height"], (), (), ())
            stream.write(detections.format_detections(empty))
    done = run("show-detections", "none.jsonl", check=0)
    assert colours(picture(done)) == set()
