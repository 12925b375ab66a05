"""list-pairs as a process."""

import json

import numpy as np
import pytest
from scipy import io

from ssl_common.data.targets import PairList


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_two_folders_of_the_same_names(tmp_path, run):
    touch(tmp_path, "images/b.jpg", "images/a/1.jpeg", "images/.hidden.png", "images/notes.txt")
    touch(tmp_path, "normals/b.png", "normals/a/1.png", "normals/c.png")
    done = run("list-pairs", "folder", "images", "normals", check=0)
    assert done.stdout == b"images/a/1.jpeg\tnormals/a/1.png\nimages/b.jpg\tnormals/b.png\n"
    assert done.stderr == b"list-pairs: 2 pairs\n"
    (tmp_path / "p.tsv").write_bytes(done.stdout)
    assert PairList(str(tmp_path / "p.tsv"))[1] == ("images/b.jpg", "normals/b.png")
    touch(tmp_path, "images/d.jpg")
    done = run("list-pairs", "folder", "images", "normals", "-o", "none.tsv", check=1)
    message = b"list-pairs: images/d.jpg: no target of that name in normals: move the image away\n"
    assert done.stderr == message and not (tmp_path / "none.tsv").exists()
    touch(tmp_path, "images/b.png")
    assert b"has the same name" in run("list-pairs", "folder", "images", "normals", check=1).stderr
    assert b"nowhere" in run("list-pairs", "folder", "nowhere", "normals", check=1).stderr


def test_dsine(tmp_path, run):
    for split, numbers in (("train", (2, 0)), ("test", (1,))):
        for n in numbers:
            names = (f"{n:06d}_img.png", f"{n:06d}_normal.png", f"{n:06d}_intrins.npy")
            touch(tmp_path, *(f"nyu/{split}/{name}" for name in names))
    done = run("list-pairs", "dsine", "nyu", "--split", "train", check=0)
    assert done.stdout.decode().splitlines() == [
        f"nyu/train/{n:06d}_img.png\tnyu/train/{n:06d}_normal.png" for n in (0, 2)
    ]
    assert run("list-pairs", "dsine", "nyu", "--split", "val").returncode == 1
    (tmp_path / "nyu/test/000001_normal.png").unlink()
    done = run("list-pairs", "dsine", "nyu", "--split", "test", check=1)
    assert b"nyu/test/000001_img.png: no 000001_normal.png beside it" in done.stderr


def test_nyuv2_by_the_lists_of_the_authors(tmp_path, run):
    """test_SN40.json: the name of an image begins with its number, from 1."""
    touch(tmp_path, *(f"{part}/{n:04d}.png" for part in ("images", "normals") for n in range(1, 8)))
    entries = [{"img": f"{n:04d}_rgb.jpg", "lab": f"{n:04d}_SN40.png"} for n in (5, 2, 900)]
    (tmp_path / "test_SN40.json").write_text(json.dumps(entries))
    words = ("list-pairs", "nyuv2", "images", "normals", "test_SN40.json")
    done = run(*words, check=0)
    numbers = ("0002", "0005")
    assert done.stdout.decode() == "".join(f"images/{n}.png\tnormals/{n}.png\n" for n in numbers)
    assert b"and splits.mat and --split or a list" in run(*words, "--split", "test", check=2).stderr
    assert run(*words[:-1], "splits.mat", check=2).returncode == 2
    for content in ('[{"img": "room_rgb.jpg"}]', "[]", "[1]", "{"):
        (tmp_path / "test_SN40.json").write_text(content)
        done = run(*words, check=1)
        assert b"test_SN40.json: not the test_SN40.json of NYUv2, or damaged" in done.stderr
        assert len(done.stderr.splitlines()) == 1 and not done.stdout


def save_splits(path, train, test):
    columns = {f"{name}Ndxs": np.array(numbers, np.uint16)[:, None]
               for name, numbers in (("train", train), ("test", test))}  # fmt: skip
    io.savemat(path, columns)


def test_nyuv2_by_number(tmp_path, run):
    """Of a part of the set those that are there; numbers count from 1, or from 0."""
    save_splits(tmp_path / "splits.mat", [3, 4, 9], [1, 2, 10])
    touch(tmp_path, *(f"images/{n:04d}.png" for n in range(1, 8)), "images/cover.png")
    touch(tmp_path, *(f"normals/{n:04d}.png" for n in range(1, 8)))
    words = ("list-pairs", "nyuv2", "images", "normals", "splits.mat", "--split")
    found = [run(*words, split, check=0).stdout.decode() for split in ("train", "test")]
    expected = [[3, 4], [1, 2]]
    for lines, numbers in zip(found, expected, strict=True):
        assert lines == "".join(f"images/{n:04d}.png\tnormals/{n:04d}.png\n" for n in numbers)
    zero = run(*words, "train", "--first", "0", check=0).stdout.decode()
    assert zero == "".join(f"images/{n:04d}.png\tnormals/{n:04d}.png\n" for n in (2, 3))
    (tmp_path / "normals/0004.png").unlink()
    assert b"images/0004.png: no target of that number in normals" in run(*words, "train").stderr
    assert run(*words, "val", check=2).stdout == b""


@pytest.mark.parametrize(
    "line",
    [
        "folder images", "folder images normals --split train", "dsine images", "nyuv2 images",
        "nyuv2 images normals splits.mat", "folder images normals splits.mat --split test",
    ],
)  # fmt: skip
def test_what_a_layout_needs(line, run):
    done = run("list-pairs", *line.split(), check=2)
    assert b" takes " in done.stderr


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + b" " * 200, b"x" * 600])
def test_a_damaged_list_of_splits_is_one_line(content, tmp_path, run):
    (tmp_path / "splits.mat").write_bytes(content)
    touch(tmp_path, "images/1.png", "normals/1.png")
    done = run("list-pairs", "nyuv2", "images", "normals", "splits.mat", "--split", "test", check=1)
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("list-pairs: splits.mat: not the splits.mat of NYUv2, or damaged")


def test_the_real_splits(data, tmp_path, run):
    """795 and 654 that share none; of 100 frames, numbered from 0, 48 are of the test."""
    from ssl_common.data import pairings

    path = str(data("nyuv2_A") / "splits.mat")
    train, test = (pairings.split_numbers(path, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (795, 654) and not {*train} & {*test}
    assert {*train} | {*test} == {*range(1, 1450)}
    root = data("nyuv2_A")
    words = ("nyuv2", root / "nyu_images", root / "nyu_depths", root / "splits.mat", "--first", "0")
    for split, count in (("train", 52), ("test", 48)):
        done = run("list-pairs", *words, "--split", split, check=0)
        assert len(done.stdout.splitlines()) == count
