"""Layouts on disk: the counts of VOC2007, plain listings of folders, lists that do not agree."""

import collections
import io
import json
import os
import random
import re
import shutil

import numpy as np
import pytest

from ssl_common.data import layouts
from ssl_common.data.coco import coco
from ssl_common.data.layouts import folder, places205, voc
from ssl_common.data.manifest import Row
from ssl_common.streams import DataError

# Positives in the test split, by class in alphabetical order (protocol of the paper's benchmark).
TEST_POSITIVES = [204, 239, 282, 172, 212, 174, 721, 322, 417, 127]
TEST_POSITIVES += [190, 418, 274, 222, 2007, 224, 97, 223, 259, 229]


@pytest.mark.parametrize(
    "split, images, positives, difficult",
    [("test", 4952, 7013, 619), ("trainval", 5011, 7306, 607)],
)
def test_the_whole_of_voc2007(data, split, images, positives, difficult):
    rows = voc(str(data("voc2007_text_full/VOCdevkit/VOC2007")), split)
    assert len(rows) == images
    assert sum(len(row.labels) for row in rows) == positives
    assert sum(len(row.difficult) for row in rows) == difficult
    classes = sorted({label for row in rows for label in row.labels})
    assert len(classes) == 20 and "train" in classes
    if split == "test":
        counts = [sum(name in row.labels for row in rows) for name in classes]
        assert counts == TEST_POSITIVES
    paths = [row.path.encode() for row in rows]
    assert paths == sorted(paths)


def test_voc2012_has_a_test_split_without_labels(scratch):
    main = scratch / "VOCdevkit/VOC2007/ImageSets/Main"
    for name in ("cat", "dog", "train"):
        (main / f"{name}_test.txt").unlink()
    shutil.rmtree(scratch / "VOCdevkit/VOC2007/Annotations")
    rows = voc(str(scratch / "VOCdevkit/VOC2007"), "test")
    assert len(rows) == 4 and not any(row.labels or row.difficult for row in rows)


@pytest.fixture
def devkit(tmp_path):
    """Return a function that writes lists into a devkit, and the devkit's name."""
    main = tmp_path / "VOC2007/ImageSets/Main"
    main.mkdir(parents=True)

    def write(**lists):
        for stem, text in lists.items():
            (main / f"{stem}.txt").write_text(text)
        return str(tmp_path / "VOC2007")

    write(train="a\nb\n", val="c\n", trainval="a\nb\nc\n")
    write(train_train="a  1\nb -1\n", train_val="c 0\n", train_trainval="a 1\nb -1\nc  0\n")
    write(cat_train="b  0\na -1\n", cat_val="c 1\n", cat_trainval="b 0\na -1\nc  1\n")
    return write


def rows_of(root, split):
    return [(os.path.basename(row.path), row.labels, row.difficult) for row in voc(root, split)]


def test_a_class_named_as_a_split(devkit):
    assert rows_of(devkit(), "train") == [("a.jpg", ("train",), ()), ("b.jpg", (), ("cat",))]
    assert rows_of(devkit(), "val") == [("c.jpg", ("cat",), ("train",))]
    assert [row[0] for row in rows_of(devkit(), "trainval")] == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_list_of_ones_own_is_a_split_and_no_class(devkit):
    """small_train.txt ends as the class files do, but its lines have no label."""
    root = devkit(small_train="b\n")
    assert len(voc(root, "train")) == 2
    assert rows_of(root, "small_train") == [("b.jpg", (), ())]
    devkit(cat_small_train="b 1\n", train_small_train="b -1\n")
    assert rows_of(root, "small_train") == [("b.jpg", ("cat",), ())]
    assert len(voc(root, "train")) == 2


def test_paths_are_as_root_was_typed(devkit, monkeypatch):
    monkeypatch.chdir(os.path.dirname(devkit()))
    assert voc("VOC2007", "val")[0].path == "VOC2007/JPEGImages/c.jpg"
    assert voc("./VOC2007/", "val")[0].path == "./VOC2007/JPEGImages/c.jpg"


@pytest.mark.parametrize(
    "lists, message",
    [
        ({"train": "a\nb b\n"}, "train.txt:2: 'b b' is not the id of one image"),
        ({"train": "a\nb\n\na\n"}, "train.txt:4: a stands on line 1 already"),
        ({"train": "\n"}, "train.txt: no image in it"),
        ({"cat_train": "a 1\nb 2\n"}, "cat_train.txt:2: 'b 2' is not the id of an image and 1,"),
        ({"cat_train": "a 1\nb\n"}, "cat_train.txt:2: 'b' is not"),
        ({"cat_train": "a\nb 1\n"}, "cat_train.txt:1: 'a' is not"),
        ({"cat_train": "a 1\nb 1 1\n"}, "cat_train.txt:2: 'b 1 1' is not"),
        ({"cat_train": "a 1\nb 1\nc 1\n"}, "cat_train.txt:3: c is not in train.txt"),
        ({"cat_train": "a 1\nb 1\na 1\n"}, "cat_train.txt:3: a stands twice"),
        ({"cat_train": "a 1\n"}, "cat_train.txt: no line for b of train.txt"),
        ({"cat_train": ""}, "cat_train.txt: no line for a and 1 more of train.txt"),
        ({"dog_val": "c 1\n"}, "Main: no dog_train.txt, but the class has other lists"),
    ],
)
def test_lists_that_do_not_agree(devkit, lists, message):
    with pytest.raises(DataError, match=message):
        voc(devkit(**lists), "train")


def test_no_such_split_names_those_there_are(devkit):
    with pytest.raises(DataError, match="Main: no split 'test': there are train, trainval, val$"):
        voc(devkit(), "test")
    with pytest.raises(DataError, match="no split 'cat_train'"):
        voc(devkit(), "cat_train")


def test_a_folder_that_is_no_devkit(tmp_path):
    with pytest.raises(DataError, match="ImageSets/Main: no such folder: ROOT is like VOCdevkit"):
        voc(str(tmp_path), "train")


def test_a_list_in_another_encoding(devkit, tmp_path):
    root = devkit()
    (tmp_path / "VOC2007/ImageSets/Main/train.txt").write_bytes(b"a\nb\xff\n")
    with pytest.raises(DataError, match="train.txt:2: not UTF-8"):
        voc(root, "train")


# ---- voc: folders of other tools -----------------------------------------------------------------


@pytest.mark.parametrize("split", ["test", "trainval"])
def test_annotations_say_what_the_lists_of_classes_say(data, tmp_path, split):
    """VOC2007 without its class files: the labels come from the objects, and are the same."""
    whole = data("voc2007_text_full/VOCdevkit/VOC2007")
    main = tmp_path / "ImageSets/Main"
    main.mkdir(parents=True)
    (main / f"{split}.txt").write_bytes((whole / f"ImageSets/Main/{split}.txt").read_bytes())
    (tmp_path / "Annotations").symlink_to(whole / "Annotations")
    listed, annotated = voc(str(whole), split), voc(str(tmp_path), split)
    assert [row[1:] for row in annotated] == [row[1:] for row in listed]


def annotation(*objects):
    places = (f"<object><name>{n}</name><difficult>{d}</difficult></object>" for n, d in objects)
    return f"<annotation>{''.join(places)}</annotation>"


def test_labels_of_annotations_and_images_of_any_suffix(tmp_path):
    root = touch(tmp_path, "JPEGImages/a.PNG", "JPEGImages/b.JPG", "JPEGImages/b.txt")
    for name, text in {
        "ImageSets/Main/all.txt": "\ufeffa\nb\nc\n",
        "Annotations/a.xml": annotation(("cat", 0), ("cat", 1), ("dog", 1), ("hat", "")),
        "Annotations/b.xml": "<annotation><object><name> cat </name></object></annotation>",
        "Annotations/c.xml": annotation(),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    found = [(os.path.relpath(row.path, root), *row[1:]) for row in voc(root, "all")]
    assert found == [
        ("JPEGImages/a.PNG", ("cat", "hat"), ("dog",)),
        ("JPEGImages/b.JPG", ("cat",), ()),
        ("JPEGImages/c.jpg", (), ()),  # as in the devkit: the pixels are not our matter
    ]
    for text, message in {
        "<annotation>": "c.xml: not XML, or damaged",
        "<annotation><object/></annotation>": "c.xml: an object without a name: add it",
    }.items():
        (tmp_path / "Annotations/c.xml").write_text(text)
        with pytest.raises(DataError, match=message):
            voc(root, "all")
    (tmp_path / "Annotations/c.xml").unlink()
    with pytest.raises(DataError, match="c.xml: no such file, but others are there: add it"):
        voc(root, "all")
    touch(tmp_path, "JPEGImages/c.png", "JPEGImages/c.tif")
    (tmp_path / "Annotations/c.xml").write_text(annotation())
    with pytest.raises(DataError, match="JPEGImages: both c.png and c.tif: delete one"):
        voc(root, "all")


# ---- places205 ---------------------------------------------------------------------------------


def test_the_list_of_places205(tmp_path):
    listing = tmp_path / "train_places205.csv"
    lines = ["b/bakery/shop/2.jpg 9", "a/abbey/x y.jpg 0", "a/abbey/1.jpg 0"]
    listing.write_text("".join(f"{line}\n" for line in lines))
    assert places205("images256", str(listing)) == [
        Row("images256/a/abbey/1.jpg", ("abbey",)),
        Row("images256/a/abbey/x y.jpg", ("abbey",)),
        Row("images256/b/bakery/shop/2.jpg", ("bakery/shop",)),
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no line: is it train_places205.csv"),
        ("a/abbey/1.jpg\n", "csv:1: not like a/abbey/1.jpg 0"),
        ("abbey/1.jpg 0\n", "csv:1: not like"),
        ("a/1.jpg 0\n", "csv:1: not like"),
        ("a/abbey/1.jpg x\n", "csv:1: not like"),
        ("a/abbey/1.jpg 0\na/abbey/1.jpg 0\n", "csv:2: a/abbey/1.jpg stands twice"),
        ("a/abbey/1.jpg 0\na/abbey/2.jpg 1\n", "csv:2: abbey is 0 and 1"),
        ("a/abbey/1.jpg 0\nb/bar/2.jpg 0\n", "csv:2: 0 is abbey and bar"),
    ],
)
def test_what_is_no_list_of_places205(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        places205("images256", str(tmp_path / "list.csv"))


# ---- folder ------------------------------------------------------------------------------------


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return str(root)


def test_labels_are_the_first_folder(tmp_path):
    root = touch(
        tmp_path / "r", "b/x.jpg", "b/deep/er/y.PNG", "a/z.webp", "own.JPEG", "c/notes.txt"
    )
    found = [Row(os.path.relpath(row.path, root), row.labels) for row in folder(root)]
    assert found == [
        Row("a/z.webp", ("a",)),
        Row("b/deep/er/y.PNG", ("b",)),
        Row("b/x.jpg", ("b",)),
        Row("own.JPEG"),
    ]


def test_rows_are_sorted_by_the_bytes_of_their_paths(tmp_path):
    rng = random.Random(0)
    parts = ["a", "a.b", "a-b", "a0", "A", "é", "日本", "z z", "a b", "~"]
    names = {
        "/".join([*rng.choices(parts, k=rng.randrange(3)), f"{rng.choice(parts)}.jpg"])
        for _ in range(300)
    }
    root = touch(tmp_path / "r", *names)
    paths = [row.path for row in folder(root)]
    assert paths == sorted((f"{root}/{name}" for name in names), key=str.encode)


def test_hidden_files_are_left_out(tmp_path):
    root = touch(tmp_path / "r", "a/._x.jpg", ".cache/y.jpg", "a/x.jpg", "a/.jpg")
    assert [row.path for row in folder(root)] == [f"{root}/a/x.jpg"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    root = touch(tmp_path / "r", "a/x.jpg")
    touch(tmp_path / "far", "y.jpg")
    (tmp_path / "r/b").symlink_to(tmp_path / "far")
    (tmp_path / "r/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")  # its pixels are not our matter
    found = [(os.path.basename(row.path), row.labels) for row in folder(root)]
    assert found == [("x.jpg", ("a",)), ("y.jpg", ("b",)), ("gone.jpg", ())]
    (tmp_path / "r/a/up").symlink_to(tmp_path / "r")
    with pytest.raises(DataError, match="r/a/up: a link back to a folder it lies in"):
        list(folder(root))


def test_folders_that_are_splits_are_no_classes(tmp_path):
    root = touch(tmp_path / "r", "train/cat/x.jpg", "Test/cat/y.jpg")
    with pytest.raises(DataError, match=f"its folders are Test, train: splits.* as {root}/Test"):
        list(folder(root))
    assert [row.labels for row in folder(f"{root}/train")] == [("cat",)]
    plain = touch(tmp_path / "flat", "train/x.jpg", "bus/y.jpg")  # classes, both
    assert [row.labels for row in folder(plain)] == [("bus",), ("train",)]
    assert len(list(folder(touch(tmp_path / "two", "train/x.jpg", "val/y.jpg")))) == 2


def test_files_that_are_no_images_are_counted(tmp_path):
    root = touch(tmp_path, "a/x.jfif", "a/y.JP2", "b/z.heic", "b/w.heic", "notes.txt", "LICENSE")
    others = collections.Counter()
    rows = list(folder(root, others))
    assert [row.labels for row in rows] == [("a",), ("a",)]
    said = layouts.write(io.BytesIO(), rows, others=others)
    kinds = ".heic (2), no suffix (1), .txt (1)"
    assert said == f"2 images, 1 classes; left out 4 files that are no images: {kinds}"


@pytest.mark.parametrize("names", [[], ["a/notes.txt", "b/.x.jpg"]])
def test_a_folder_without_an_image(tmp_path, names):
    root = touch(tmp_path, *names)
    with pytest.raises(DataError, match=f"{root}: no image below it"):
        list(folder(root))


# ---- coco --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "split, images, objects, classes", [("train", 85, 565, 67), ("val", 43, 374, 53)]
)
def test_real_coco(data, split, images, objects, classes):
    """Counts per class, taken from the text of the file by its lines of pairs, not as JSON."""
    root = data("coco2014_A")
    path = root / f"annotations/instances_{split}2014.json"
    rows = coco(str(root / f"{split}2014"), str(path))
    assert len(rows) == images and all(os.path.exists(row.path) for row in rows)
    text = path.read_text()
    pairs = re.findall(r'"image_id": (\d+), "bbox": [^]]*], "category_id": (\d+)', text)
    assert len(pairs) == objects
    names = dict(re.findall(r'"id": (\d+), "name": "([^"]+)"', text))
    assert len(names) == 80
    expected = collections.Counter(names[category] for _image, category in set(pairs))
    assert collections.Counter(name for row in rows for name in row.labels) == expected
    assert len(expected) == classes
    assert [row.path for row in rows] == sorted(row.path for row in rows)


def written(tmp_path, objects=(), **parts):
    """Write a COCO file of two images, 100 x 80, and two classes; return its name."""
    sizes = {"width": 100, "height": 80}
    content = {
        "images": [
            {"id": 7, "file_name": "b.jpg", **sizes},
            {"id": 3, "file_name": "a.jpg", **sizes},
        ],
        "categories": [{"id": 1, "name": "hot dog"}, {"id": 90, "name": "cat"}],
        "annotations": [{"id": i, **each} for i, each in enumerate(objects)],
    }
    (tmp_path / "c.json").write_text(json.dumps(content | parts))
    return str(tmp_path / "c.json")


def an_object(image=7, category=90, bbox=(10, 10, 20, 20), area=100.0, **more):
    return {"image_id": image, "category_id": category, "bbox": bbox, "area": area, **more}


def test_every_image_has_its_row(tmp_path):
    found = coco("pics/", written(tmp_path, [an_object(), an_object(), an_object(category=1)]))
    assert found == [Row("pics/a.jpg"), Row("pics/b.jpg", found[1].labels)]
    assert sorted(found[1].labels) == ["cat", "hot dog"]


@pytest.mark.parametrize(
    "shown, more",
    [
        (True, {"iscrowd": 1}),
        (True, {"ignore": 0}),
        (False, {"ignore": 1}),
        (False, {"area": 0}),
        (True, {"area": 1e-3}),
        (False, {"bbox": [10, 10, 1, 20]}),
        (False, {"bbox": [10, 10, 20, 1.0]}),
        (True, {"bbox": [10, 10, 1.5, 1.5]}),
        (False, {"bbox": [99, 10, 50, 20]}),  # one column of it lies in the image
        (True, {"bbox": [98, 10, 50, 20]}),
        (False, {"bbox": [-19.5, 10, 20, 20]}),
        (False, {"bbox": [10, 200, 20, 20]}),
    ],
)
def test_what_counts_as_an_object(tmp_path, shown, more):
    objects = [an_object(category=1), an_object(**more)]  # of a file where nothing counts: below
    [_a, b] = coco("pics", written(tmp_path, objects))
    assert set(b.labels) == ({"hot dog", "cat"} if shown else {"hot dog"})


def test_boxes_at_random_against_the_corners(tmp_path):
    """The published rule, in corners: clipped to the last pixel, right of left, below top."""
    rng = np.random.default_rng(0)
    boxes = rng.integers(-120, 240, (400, 4)) / 2
    boxes[:, 2:] = np.abs(boxes[:, 2:]) % 12
    objects = [an_object(bbox=box.tolist(), category=i) for i, box in enumerate(boxes)]
    classes = [{"id": i, "name": f"{i:03}"} for i in range(400)]
    low, size = boxes[:, :2], boxes[:, 2:]
    last = np.array([99.0, 79.0])
    high = np.clip(low + np.maximum(size - 1, 0), 0, last)
    expected = np.flatnonzero((high > np.clip(low, 0, last)).all(1))
    assert 40 < len(expected) < 360
    [_a, b] = coco("pics", written(tmp_path, objects, categories=classes))
    assert sorted(map(int, b.labels)) == expected.tolist()


@pytest.mark.parametrize(
    "objects, parts, message",
    [
        ((), {"images": {}}, "no list of images: is it instances_"),
        ((), {"images": []}, "images: there is none"),
        ((), {"categories": None}, "no list of categories"),
        ((), {"annotations": [3]}, "no list of annotations"),
        ((), {"images": [{"id": 7}]}, "images 7: file_name is None, which is no name"),
        ((), {"categories": [{"id": "a", "name": "b"}]}, "the id of {.* is no whole number"),
        ((), {"images": [{"id": i, "file_name": "a"} for i in (1, 2)]}, r"2 \(a\) stands twice"),
        ((), {"images": [{"id": 1, "file_name": n} for n in "ab"]}, r"1 \(b\) stands twice"),
        ((), {"categories": [{"id": i, "name": "cat"} for i in (1, 2)]}, r"2 \(cat\) stands twice"),
        ([an_object(), an_object(image=8)], {}, "annotation 1 is of image 8, which the"),
        ([an_object(category=2)], {}, "annotation 0 is of category 2, which"),
        ([an_object(image=[7])], {}, r"annotation 0 is of image \[7\], which"),
        ([{"image_id": 7, "category_id": 90}], {}, "annotation 0: bbox is None, not four"),
        ([an_object(area="large")], {}, "annotation 0: area is 'large', not in pixels"),
        ([an_object(area=None)], {}, "annotation 0: area is None, not in pixels"),
        ([an_object(area=float("nan"))], {}, "annotation 0: area is nan, not in pixels"),
        ([an_object(area=10**400)], {}, "annotation 0: area is 1000"),
        ([an_object(area=True)], {}, "annotation 0: area is True"),
        ([an_object(bbox=[1, 2])], {}, r"annotation 0: bbox is \[1, 2\], not four"),
        ([an_object(bbox=[1, 2, float("inf"), 4])], {}, r"annotation 0: bbox is \[1, 2, inf, 4\]"),
        ([an_object(bbox=[1, 2, "3", 4])], {}, "annotation 0: bbox is .*, not four numbers"),
        ([an_object(category=None)], {}, "annotation 0 is of category None, which"),
        ([an_object(area=0)] * 2, {}, "none of its 2 annotations counts as an object: see"),
        ([an_object(ignore=1)], {}, "none of its 1 annotations counts"),
        ((), {"images": [{"id": 7, "file_name": "a", "width": -1}]}, "images 7: width is -1, not"),
        ((), {"images": [{"id": 7, "file_name": "a", "height": "8"}]}, "images 7: height is '8'"),
        ((), {"images": [{"id": True, "file_name": "a"}]}, "is no whole number"),
        ((), {"images": [{"id": 7, "file_name": "a\tb.jpg"}]}, r"'pics/a\\tb.jpg': a name may not"),
        ((), {"images": [{"id": 7, "file_name": "\ud800.jpg"}]}, "the name is not UTF-8"),
        ([an_object()], {"categories": [{"id": 90, "name": "a,b"}]}, "may not hold a comma"),
    ],
)  # fmt: skip
def test_coco_files_that_are_not(tmp_path, objects, parts, message):
    path = written(tmp_path, objects, **parts)
    with pytest.raises(DataError, match=message) as caught:
        coco("pics", path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("sizes", [{}, {"width": 0, "height": 0}, {"width": None, "height": 0}])
def test_where_the_size_of_an_image_is_not_known_the_whole_box_counts(tmp_path, sizes):
    """As CVAT and Datumaro write it for images that they never opened."""
    images = {"images": [{"id": 7, "file_name": "b.jpg", **sizes}]}
    objects = [
        an_object(bbox=[500, 400, 2, 2]),
        an_object(category=1, bbox=[10, 10, 1, 20]),  # 1 pixel wide
        an_object(category=1, bbox=[-30, 10, 31, 20]),  # one column of it is in any image
    ]
    rows = coco("pics", written(tmp_path, objects, **images))
    assert rows == [Row("pics/b.jpg", ("cat",))]


@pytest.mark.parametrize("text", [b"", b"{", b"no json", b"\xff\xfe{}", b"[" * 100_000, b"[]"])
def test_what_is_no_coco_file_at_all(tmp_path, text):
    (tmp_path / "c.json").write_bytes(text)
    with pytest.raises(DataError, match=r"c.json: (not JSON|no list of images)") as caught:
        coco("pics", str(tmp_path / "c.json"))
    assert "\n" not in str(caught.value)
