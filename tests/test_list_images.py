"""list-images as a process."""

import json
import os

import pytest

from ssl_common.data.manifest import Manifest, label_matrix

VOC = "VOCdevkit/VOC2007"


def test_voc_split(scratch, run):
    done = run("list-images", "voc", VOC, "--split", "train", check=0)
    assert done.stdout.decode().splitlines() == [
        f"{VOC}/JPEGImages/000007.jpg\tcat",
        f"{VOC}/JPEGImages/000022.jpg\tdog",
        f"{VOC}/JPEGImages/000037.jpg\ttrain",
        f"{VOC}/JPEGImages/000052.jpg\tcat,?dog",
    ]
    assert done.stderr == b"list-images: 4 images, 3 classes\n"


def test_voc_reads_lists_alone(scratch, run):
    expected = run("list-images", "voc", VOC, "--split", "test", check=0).stdout
    for path in (scratch / VOC / "JPEGImages").iterdir():
        path.unlink()
    assert run("list-images", "voc", VOC, "--split", "test", check=0).stdout == expected


def test_folder_and_its_manifest(scratch, run):
    done = run("list-images", "folder", "photos", "-o", "photos.tsv", check=0)
    assert (done.stdout, done.stderr) == (b"", b"list-images: 16 images, 2 classes\n")
    rows = Manifest(str(scratch / "photos.tsv"))
    assert [row.path for row in rows] == [
        f"photos/{c}/{n}.jpg" for c in ["cat", "dog"] for n in range(8)
    ]
    classes, labels = label_matrix(rows)
    assert classes == ["cat", "dog"] and (labels == 1).sum(0).tolist() == [8, 8]
    assert all((scratch / row.path).exists() for row in rows)


def test_images_of_ones_own_have_no_label(scratch, run):
    done = run("list-images", "folder", "photos/cat/", check=0)
    assert done.stdout.decode().splitlines() == [f"photos/cat/{n}.jpg" for n in range(8)]
    assert done.stderr == b"list-images: 8 images, 0 classes\n"


def test_no_such_split(scratch, run):
    done = run("list-images", "voc", VOC, "--split", "all", check=1)
    message = f"list-images: {VOC}/ImageSets/Main: no split 'all': there are "
    assert done.stderr.decode() == f"{message}test, train, trainval, val\n"


def test_a_malformed_label_is_named_by_its_line(scratch, run):
    with open(scratch / VOC / "ImageSets/Main/dog_val.txt", "a") as stream:
        stream.write("000012 yes\n")
    (scratch / "old.tsv").write_bytes(b"old")
    done = run("list-images", "voc", VOC, "--split", "val", "-o", "old.tsv", check=1)
    assert b"dog_val.txt:5: '000012 yes' is not the id of an image" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert (scratch / "old.tsv").read_bytes() == b"old"


def test_coco_from_a_file_and_a_pipe(scratch, run):
    size = {"width": 96, "height": 80}
    names = ["dog/1.jpg", "cat/1.jpg", "cat/0.jpg"]
    objects = {"cat": (1, 2), "person": (1,)}  # places in NAMES
    content = {
        "images": [{"id": 9 + i, "file_name": name, **size} for i, name in enumerate(names)],
        "categories": [{"id": 3 * i, "name": name} for i, name in enumerate(objects)],
        "annotations": [
            {"image_id": 9 + i, "category_id": 3 * c, "bbox": [1, 1, 30, 30], "area": 500}
            for c, places in enumerate(objects.values())
            for i in places
        ],
    }
    (scratch / "c.json").write_text(json.dumps(content))
    done = run("list-images", "coco", "photos", "c.json", check=0)
    assert done.stdout.decode().splitlines() == [
        "photos/cat/0.jpg\tcat",
        "photos/cat/1.jpg\tcat,person",
        "photos/dog/1.jpg",
    ]
    assert done.stderr == b"list-images: 3 images, 2 classes\n"
    piped = run("list-images", "coco", "photos", "-", stdin=(scratch / "c.json").read_bytes())
    assert piped.stdout == done.stdout


@pytest.mark.parametrize("name", ["gone.json", "train.tsv", "photos"])
def test_a_bad_coco_file_is_named(scratch, run, name):
    done = run("list-images", "coco", "photos", name, "-o", "new.tsv", check=1)
    assert done.stderr.decode().startswith(f"list-images: {name}: ")
    assert done.stderr.count(b"\n") == 1 and not (scratch / "new.tsv").exists()


BAD_NAMES = {
    "tab": b"photos/cat/a\tb.jpg",
    "newline": b"photos/cat/a\nb.jpg",
    "comma": b"photos/a,b/x.jpg",
    "question": b"photos/?cat/x.jpg",
    "latin-1": b"photos/cat/caf\xe9.jpg",
}


@pytest.mark.parametrize("kind", BAD_NAMES)
def test_a_name_the_manifest_cannot_hold(scratch, run, kind):
    name = os.path.join(os.fsencode(scratch), BAD_NAMES[kind])
    os.makedirs(os.path.dirname(name), exist_ok=True)
    with open(name, "wb"):
        pass
    done = run("list-images", "folder", "photos", "-o", "photos.tsv", check=1)
    assert done.stderr.count(b"\n") == 1 and not (scratch / "photos.tsv").exists()
    shown = {
        "tab": rb"'photos/cat/a\tb.jpg': a name may not",
        "newline": rb"'photos/cat/a\nb.jpg': a name may not",
        "comma": b"'a,b' (photos/a,b/x.jpg): a label may not hold a comma",
        "question": b"'?cat': a name may not",
        "latin-1": rb"'photos/cat/caf\udce9.jpg': the name is not UTF-8",
    }
    assert shown[kind] in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["voc", VOC],
        ["folder"],
        ["coco", "photos"],
        ["coco", "photos", "c.json", "--split", "train"],
        ["coco", "photos", "c.json", "d.json"],
        ["voc", VOC, "c.json", "--split", "train"],
        ["nyu", "photos"],
        ["folder", "photos", "--split", "train"],
        ["folder", "photos", "dogs"],
    ],
)
def test_a_bad_command_line_is_2(scratch, run, wrong):
    done = run("list-images", *wrong, check=2)
    assert done.stdout == b"" and done.stderr.count(b"\n") == 1
