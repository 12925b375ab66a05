"""make-scenes as a process."""

import contextlib
import os
import pathlib
import resource
import signal
import subprocess
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from conftest import BIN, environment, readers
from PIL import Image

from ssl_common.data import layouts
from ssl_common.data.manifest import Manifest
from ssl_common.data.targets import ObjectList, PairList, read_normals
from ssl_common.scenes.objects import CLASSES

COUNT = 24


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with scenes/ and scenes.tsv."""
    folder = tmp_path_factory.mktemp("made")
    with open(folder / "scenes.tsv", "wb") as stdout:
        argv = [BIN / "make-scenes", "-n", str(COUNT), "-j", "2", "-o", "scenes", "-q"]
        subprocess.run(argv, cwd=folder, env=environment(), stdout=stdout, check=True)
    return folder


def tree(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def objects_of(path):
    """Return (name, difficult, box) of each object in the annotation PATH."""
    fields = ("xmin", "ymin", "xmax", "ymax")
    return [
        (
            each.findtext("name"),
            each.findtext("difficult") == "1",
            [int(each.findtext(f"bndbox/{field}")) for field in fields],
        )
        for each in ET.parse(path).iter("object")
    ]


def test_the_folder_is_a_devkit(made):
    root = made / "scenes"
    ids = [f"{number + 1:06d}" for number in range(COUNT)]
    assert sorted(p.name for p in (root / "JPEGImages").iterdir()) == [f"{i}.jpg" for i in ids]
    assert sorted(p.name for p in (root / "Annotations").iterdir()) == [f"{i}.xml" for i in ids]
    splits = ("train", "val", "trainval", "test")
    assert sorted(p.name for p in (root / "Normals").iterdir()) == [f"{i}.png" for i in ids]
    expected = {f"{s}.txt" for s in splits} | {f"{c}_{s}.txt" for c in CLASSES for s in splits}
    assert {p.name for p in (root / "ImageSets/Main").iterdir()} == expected
    for image in ids:
        annotation = ET.parse(root / f"Annotations/{image}.xml")
        assert annotation.findtext("filename") == f"{image}.jpg"
        size = [int(annotation.findtext(f"size/{side}")) for side in ("width", "height")]
        with Image.open(root / f"JPEGImages/{image}.jpg") as picture:
            picture.load()
            assert (list(picture.size), picture.mode, picture.format) == (size, "RGB", "JPEG")
        for name, _difficult, (left, top, right, bottom) in objects_of(
            root / f"Annotations/{image}.xml"
        ):
            assert name in CLASSES
            assert 1 <= left <= right <= size[0] and 1 <= top <= bottom <= size[1]


def test_lists_labels_and_annotations_agree(made, run):
    """list-images reads the lists; what it says is what the annotations say, and the manifest."""
    rows = {}
    for split in ("trainval", "test"):
        done = run("list-images", "voc", "scenes", "--split", split, cwd=made, check=0)
        rows |= {line.split("\t")[0]: line for line in done.stdout.decode().splitlines()}
    assert (made / "scenes.tsv").read_text().splitlines() == [rows[path] for path in sorted(rows)]
    manifest = list(Manifest(str(made / "scenes.tsv")))
    assert len(manifest) == COUNT
    for row in manifest:
        image = pathlib.Path(row.path).stem
        found = objects_of(made / f"scenes/Annotations/{image}.xml")
        easy = {name for name, difficult, _box in found if not difficult}
        assert found and set(row.labels) == easy
        assert set(row.difficult) == {name for name, _difficult, _box in found} - easy


def test_boxes_are_those_of_the_annotations(made):
    """Objects count from 0, and their right and lower edges lie outside; VOC from 1, inside."""
    found = ObjectList(str(made / "scenes/objects.jsonl"))
    manifest = Manifest(str(made / "scenes.tsv"))
    assert [each.path for each in found] == [row.path for row in manifest]
    assert found.digest() == manifest.digest()
    for each in found:
        image = pathlib.Path(each.path).stem
        annotation = made / f"scenes/Annotations/{image}.xml"
        size = [int(ET.parse(annotation).findtext(f"size/{side}")) for side in ("width", "height")]
        assert [each.width, each.height] == size
        boxes = [[x1 + 1, y1 + 1, x2, y2] for x1, y1, x2, y2 in each.boxes]
        assert list(zip(each.labels, each.difficult, boxes, strict=True)) == objects_of(annotation)


def test_each_picture_has_its_normals(made):
    pairs = PairList(str(made / "scenes/normals.tsv"))
    assert len(pairs) == COUNT
    for index, pair in enumerate(pairs):
        number = f"{index + 1:06d}"
        assert pair == (f"scenes/JPEGImages/{number}.jpg", f"scenes/Normals/{number}.png")
        normals = read_normals(pairs, index, str(made))
        with Image.open(made / pair.path) as picture:
            assert normals.shape == (3, picture.height, picture.width)
            size = picture.size
        with Image.open(made / pair.target) as picture:
            assert (picture.mode, picture.format) == ("RGB", "PNG")
        assert 0.2 < normals.any(0).mean() <= 1
        with Image.open(made / f"scenes/Depth/{number}.png") as depth:
            assert (depth.size, depth.mode, depth.format) == (size, "I;16", "PNG")
            assert (np.asarray(depth) > 0).mean() > 0.2


def test_depth_and_intrinsics_are_listed_as_the_pictures_are(made):
    paths = [row.path for row in Manifest(str(made / "scenes.tsv"))]
    depth = list(PairList(str(made / "scenes/depth.tsv")))
    assert [each.path for each in depth] == paths
    assert [each.target for each in depth] == [
        f"scenes/Depth/{number + 1:06d}.png" for number in range(COUNT)
    ]
    lines = (made / "scenes/intrinsics.tsv").read_text().splitlines()
    for path, line in zip(paths, lines, strict=True):
        named, numbers = line.split("\t")
        fx, fy, cx, _cy = map(float, numbers.split(","))
        assert named == path and fx == fy > 100 and -500 < cx < 800


def test_half_is_test_and_a_quarter_each_train_and_val(made):
    split = {
        name: [pathlib.Path(row.path).stem for row in layouts.voc(str(made / "scenes"), name)]
        for name in ("train", "val", "trainval", "test")
    }
    assert sorted(split["train"] + split["val"]) == split["trainval"]
    assert [len(split[name]) for name in split] == [COUNT // 4, COUNT // 4, COUNT // 2, COUNT // 2]
    assert not set(split["trainval"]) & set(split["test"])


def test_fewer_are_the_beginning_of_more_and_workers_change_nothing(made, tmp_path, run):
    done = run("make-scenes", "-n", "9", "-j", "0", "-o", "scenes", check=0)
    assert (made / "scenes.tsv").read_bytes().startswith(done.stdout)
    more, fewer = tree(made / "scenes"), tree(tmp_path / "scenes")
    for path, content in fewer.items():
        if path.parts[0] == "ImageSets" or len(path.parts) == 1:  # lists
            assert more[path].startswith(content)
        else:
            assert more[path] == content
    assert sum(path.suffix == ".jpg" for path in fewer) == 9


def test_another_seed_gives_other_pictures(made, tmp_path, run):
    run("make-scenes", "-n", "4", "--seed", "1", "-j", "0", "-o", "scenes", check=0)
    other, before = tree(tmp_path / "scenes"), tree(made / "scenes")
    assert not [p for p in other if p.suffix == ".jpg" and other[p] == before[p]]


def test_an_empty_folder_is_filled(tmp_path, run):
    (tmp_path / "scenes").mkdir()
    done = run("make-scenes", "-n", "4", "-j", "0", "-o", "scenes/", check=0)
    assert done.stderr.startswith(b"make-scenes: scenes/: 4 images, ")
    assert (tmp_path / "scenes/JPEGImages/000004.jpg").exists()
    assert os.listdir(tmp_path) == ["scenes"]


@pytest.mark.parametrize("there", ["file", "full folder", "the current folder", "nowhere"])
def test_what_is_there_is_kept(there, tmp_path, run):
    (tmp_path / "here").mkdir()
    target, reason = {
        "file": ("here/old", "here/old: there already: remove it, or name a folder that is new"),
        "full folder": (".", ".: there already: remove it, or name a folder that is new"),
        "the current folder": (".", ".: the current folder cannot be replaced: name one in it"),
        "nowhere": ("no/scenes", "no/scenes: No such file or directory"),
    }[there]
    if there != "the current folder":
        (tmp_path / "here/old").write_bytes(b"old")
    before = tree(tmp_path)
    cwd = tmp_path / "here" if target == "." else tmp_path
    done = run("make-scenes", "-n", "4", "-j", "0", "-o", target, cwd=cwd, check=1)
    assert done.stderr.decode() == f"make-scenes: {reason}\n"
    assert done.stdout == b"" and tree(tmp_path) == before and os.listdir(tmp_path) == ["here"]


@contextlib.contextmanager
def started(folder, **more):
    """Start a run of an hour, in a session of its own; yield it when it writes pictures."""
    argv = [BIN / "make-scenes", "-n", "99999", "-j", "2", "-o", "scenes"]
    process = subprocess.Popen(
        argv,
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **more,
    )
    try:
        while process.poll() is None and len(list(folder.glob("*.partial/JPEGImages/*"))) < 3:
            time.sleep(0.02)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("to", ["it", "its group"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_it_leaves_nothing(number, to, tmp_path):
    with started(tmp_path) as process:
        (os.kill if to == "it" else os.killpg)(process.pid, number)
        said = process.communicate(timeout=60)[1].decode()
    assert said == f"make-scenes: stopped by {number.name}: run it again to go on\n"
    assert process.returncode == 75 and os.listdir(tmp_path) == []


def test_a_killed_worker_is_one_line(tmp_path):
    with started(tmp_path) as process:
        workers = readers(process.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        said = process.communicate(timeout=5)[1].decode()
    reason = "a process beside this one was killed by SIGKILL (memory full?): give a smaller -j"
    assert said == f"make-scenes: {reason}\n"
    assert process.returncode == 1 and os.listdir(tmp_path) == []


def test_workers_end_where_their_parent_was_killed(tmp_path, run):
    with started(tmp_path) as process:
        process.kill()
        process.communicate(timeout=60)  # until the last process that holds its stderr is gone
    (left,) = os.listdir(tmp_path)
    assert left.endswith(".partial")
    run("make-scenes", "-n", "4", "-j", "0", "-o", "scenes", check=0)
    assert os.listdir(tmp_path) == ["scenes"]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_full_disk_names_the_file(workers, tmp_path):
    done = subprocess.run(
        [BIN / "make-scenes", "-n", "8", "-j", workers, "-o", "scenes"],
        cwd=tmp_path,
        env=environment({"PYTHONDONTWRITEBYTECODE": "1"}),
        capture_output=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    expected = "make-scenes: scenes/Annotations/000001.xml: File too large\n"
    assert (done.returncode, done.stderr.decode()) == (1, expected)
    assert os.listdir(tmp_path) == []


def test_nothing_is_left_where_nobody_takes_the_manifest(tmp_path):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [BIN / "make-scenes", "-n", "4", "-j", "0", "-o", "scenes"],
            cwd=tmp_path,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1 and os.listdir(tmp_path) == []


@pytest.mark.parametrize("wrong", [[], ["-n", "8"], ["-o", "x"], ["-n", "3", "-o", "x"]])
def test_a_bad_command_line_is_2(wrong, tmp_path, run):
    done = run("make-scenes", *wrong, check=2)
    assert done.stdout == b"" and done.stderr.count(b"\n") == 1 and os.listdir(tmp_path) == []
