"""list-objects as a process."""

import json

import pytest

from ssl_common.data.targets import ObjectList

VOC = "VOCdevkit/VOC2007"


def listed(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_split_of_voc(scratch, run):
    done = run("list-objects", "voc", VOC, "--split", "train", check=0)
    first, *_others, last = listed(done)
    assert first == {
        "path": f"{VOC}/JPEGImages/000007.jpg",
        "width": 100,
        "height": 80,
        "boxes": [[19, 14, 70, 60]],
        "labels": ["cat"],
        "difficult": [False],
    }
    assert (last["labels"], last["difficult"]) == (["cat", "dog"], [False, True])
    assert last["boxes"] == [[28, 14, 79, 60], [28, 16, 79, 61]]
    words = "list-objects: 4 images, 5 objects of 3 classes, 1 difficult or crowds\n"
    assert done.stderr.decode() == words
    (scratch / "listed").write_bytes(done.stdout)
    assert len(ObjectList(str(scratch / "listed"))) == 4


def test_generated_scenes_are_listed_as_they_were_made(tmp_path, run):
    run("make-scenes", "-n", 12, "-j", 0, "-o", "scenes", check=0)
    made = (tmp_path / "scenes/objects.jsonl").read_bytes().splitlines()
    done = [run("list-objects", "voc", "scenes", "--split", split, check=0).stdout.splitlines()
            for split in ("trainval", "test")]  # fmt: skip
    assert sorted(done[0] + done[1]) == made and len(made) == 12
    assert done[0] == sorted(done[0]) and len(done[0]) == 6


def annotation(size="<width>100</width><height>80</height>", box=(20, 15, 70, 60), name="cat"):
    ends = dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    places = "".join(f"<{end}>{number}</{end}>" for end, number in ends.items())
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"  # of VOC2012
    return (
        f"<annotation><size>{size}</size><object><name>{name}</name>{part}"
        f"<bndbox>{places}</bndbox></object></annotation>"
    )


def test_boxes_are_cut_to_their_image_and_counted(scratch, run):
    path = scratch / VOC / "Annotations/000007.xml"
    for box, expected, said in (
        ((0, 15, 120, 80), [[0, 14, 100, 80]], "; cut 1 boxes to their image\n"),
        ((1, 1, 1, 1), [[0, 0, 1, 1]], " difficult or crowds\n"),  # one pixel
        ((1.5, 1, 9.25, 1), [[0.5, 0, 9.25, 1]], " difficult or crowds\n"),  # as VOC2012 has some
        ((101, 1, 120, 30), [], "; left out 1 boxes without an area\n"),
        ((30, 9, 29, 30), [], "; left out 1 boxes without an area\n"),
    ):
        path.write_text(annotation(box=box))
        done = run("list-objects", "voc", VOC, "--split", "train", check=0)
        assert listed(done)[0]["boxes"] == expected
        assert done.stderr.decode().endswith(said)


def test_an_image_without_objects_has_none(scratch, run):
    size = "<size><width>100</width><height>80</height></size>"
    path = scratch / VOC / "Annotations/000007.xml"
    path.write_text(f"<annotation>{size}</annotation>")
    done = run("list-objects", "voc", VOC, "--split", "train", check=0)
    first = listed(done)[0]
    assert first["boxes"] == first["labels"] == first["difficult"] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no xml", "not XML, or damaged"),
        (annotation(size=""), "size/width is '', not in pixels: mend it"),
        (annotation(size="<width>0</width><height>9</height>"), "the size is 0 x 9, not that of"),
        (annotation(box=(1, 2, "x", 4)), "bndbox/xmax is 'x', not in pixels: mend it"),
        (annotation(box=(1, 2, "nan", 4)), "bndbox/xmax is 'nan', not in pixels: mend it"),
        (annotation(name=""), "an object without a name: add it"),
        (annotation(name="a,b"), "labels holds 'a,b', not a class name"),
    ],
)
def test_a_wrong_annotation_is_named(scratch, run, text, words):
    (scratch / VOC / "Annotations/000007.xml").write_text(text)
    done = run("list-objects", "voc", VOC, "--split", "train", "-o", "new", check=1)
    assert words in done.stderr.decode() and done.stderr.count(b"\n") == 1
    assert b"000007" in done.stderr and not (scratch / "new").exists()


def test_annotations_that_are_not_there(scratch, run):
    (scratch / VOC / "Annotations/000007.xml").unlink()
    done = run("list-objects", "voc", VOC, "--split", "train", check=1)
    assert b"000007.xml: no such file, but others are there" in done.stderr
    for path in (scratch / VOC / "Annotations").iterdir():
        path.unlink()
    done = run("list-objects", "voc", VOC, "--split", "train", check=1)
    assert b"Annotations: no 000007.xml, nor that of another image of train" in done.stderr


COCO = {
    "images": [
        {"id": 9, "file_name": "dog/1.jpg", "width": 96, "height": 80},
        {"id": 7, "file_name": "cat/1.jpg", "width": 96, "height": 80},
    ],
    "categories": [{"id": 17, "name": "cat"}, {"id": 90, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1.5, 1, 30, 20.25], "area": 9},
        {"id": 2, "image_id": 7, "category_id": 17, "bbox": [0, 0, 96, 80], "area": 9,
         "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 17, "bbox": [50, 0, 96, 80], "area": 9,
         "ignore": 1},
        {"id": 4, "image_id": 7, "category_id": 17, "bbox": [50, 3, 0, 8], "area": 0},
    ],
}  # fmt: skip


def test_objects_of_coco_from_a_file_and_a_pipe(scratch, run):
    (scratch / "c.json").write_text(json.dumps(COCO))
    done = run("list-objects", "coco", "photos", "c.json", check=0)
    cat, dog = listed(done)
    assert cat == {
        "path": "photos/cat/1.jpg",
        "width": 96,
        "height": 80,
        "boxes": [[1.5, 1, 31.5, 21.25], [0, 0, 96, 80], [50, 0, 96, 80]],
        "labels": ["dog", "cat", "cat"],
        "difficult": [False, False, True],
        "crowd": [False, True, False],
    }
    assert dog["path"] == "photos/dog/1.jpg" and dog["boxes"] == [] and "crowd" not in dog
    said = "2 images, 3 objects of 2 classes, 2 difficult or crowds; cut 1 boxes to their image"
    assert done.stderr.decode() == f"list-objects: {said}; left out 1 boxes without an area\n"
    piped = run("list-objects", "coco", "photos", "-", stdin=json.dumps(COCO).encode(), check=0)
    assert piped.stdout == done.stdout
    (scratch / "o.jsonl").write_bytes(done.stdout)
    cat = ObjectList(str(scratch / "o.jsonl"))[0]
    assert cat.crowd == (False, True, False) and cat.ignored == (False, True, True)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("images", {"width": 0}, "images 9: its size is 0 x 80, not whole numbers of pixels"),
        ("images", {"height": None}, "images 9: its size is 96 x None"),
        ("annotations", {"bbox": [1, 2, 3]}, "annotation 1: bbox is [1, 2, 3], not four numbers"),
        ("annotations", {"category_id": 1}, "annotation 1 is of category 1, which the file"),
    ],
)
def test_a_wrong_coco_file_is_named(scratch, run, part, change, words):
    content = json.loads(json.dumps(COCO))
    content[part][0] |= change
    (scratch / "c.json").write_text(json.dumps(content))
    done = run("list-objects", "coco", "photos", "c.json", check=1)
    assert done.stderr.decode().startswith(f"list-objects: c.json: {words}")


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["voc", VOC],
        ["coco", "photos"],
        ["folder", "photos"],
        ["voc", VOC, "c.json", "--split", "train"],
        ["coco", "photos", "c.json", "--split", "train"],
    ],
)
def test_a_wrong_command_line_is_2(scratch, run, wrong):
    assert run("list-objects", *wrong, check=2).stdout == b""


def test_all_objects_of_voc2007(data, run):
    """The numbers of objects are those of the data set's own page; VOC counts 4,952 images."""
    root = data("voc2007_text_full") / "VOCdevkit/VOC2007"
    done = run("list-objects", "voc", root, "--split", "test", check=0)
    said = "4,952 images, 14,976 objects of 20 classes, 2,944 difficult or crowds"
    assert done.stderr.decode() == f"list-objects: {said}\n"
    assert b'"crowd"' not in done.stdout
