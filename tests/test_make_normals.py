"""make-normals as a process: planes, generated scenes, and real frames."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ssl_common.data import targets
from ssl_common.data.targets import PairList
from ssl_common.evaluation.normals import depth, labels, metrics

CAMERA = (90.0, 110.0, 32.0, 24.0)


def plane(scale=1000, dtype=np.uint16):
    """Return the values of the depth of a plane, and its normal."""
    normal = np.array([0.2, 0.5, 0.8])
    normal /= np.linalg.norm(normal)
    fx, fy, cx, cy = CAMERA
    x, y = (np.arange(64) + 0.5 - cx) / fx, (cy - np.arange(48) - 0.5) / fy
    metres = -2 / (normal[0] * x + normal[1] * y[:, None] - normal[2])
    return np.rint(metres * scale).astype(dtype), normal


@pytest.fixture
def flat(tmp_path):
    """A list of two images and the depth of a plane, in tmp_path; a hole in the second."""
    values, normal = plane()
    holed = values.copy()
    holed[10:30, 10:40] = 0
    for number, each in enumerate((values, holed)):
        Image.fromarray(each).save(tmp_path / f"{number}.png")
    (tmp_path / "depth.tsv").write_text("a.jpg\t0.png\nb.jpg\t1.png\n")
    return normal


def errors(folder, normal, index=0):
    label = labels.read(PairList(str(folder / "n.tsv")), index, folder)
    return label, metrics.angles(label.normals[:, label.known], normal[:, None])


@pytest.mark.parametrize("k", [5, 9])
def test_a_plane(flat, run, tmp_path, k):
    """To what eight bits, and depth in millimetres, leave of it."""
    words = ("depth.tsv", "--intrinsics", "90,110,32,24", "-j", "0", "-o", "normals")
    done = run("make-normals", *words, "-k", k, check=0)
    assert done.stdout == b"a.jpg\tnormals/000001.png\nb.jpg\tnormals/000002.png\n"
    said = done.stderr.decode()
    wide = {5: 7, 9: 13}[k]
    assert said.startswith(f"make-normals: 2 images, plane {k} x {k} within 5%, ")
    assert f"% of the pixels; {wide} x {wide} is 0." in said
    (tmp_path / "n.tsv").write_bytes(done.stdout)
    label, found = errors(tmp_path, flat)
    assert label.known.all() and np.median(found) < 0.5
    assert label.truth == labels.Truth("depth", f"plane {k} x {k} within 5%")
    label, _found = errors(tmp_path, flat, 1)
    assert not label.known[10:30, 10:40].any() and label.known[:10].all()


def test_other_units_and_workers(flat, run, tmp_path):
    Image.fromarray(plane(5000)[0]).save(tmp_path / "0.png")
    (tmp_path / "depth.tsv").write_text("a.jpg\t0.png\n")
    (tmp_path / "cameras.tsv").write_text("a.jpg\t90,110,32,24\n")
    words = ("depth.tsv", "--intrinsics", "cameras.tsv", "--scale", "5000", "-k", "5")
    outputs = []
    for workers in ("0", "2"):
        done = run("make-normals", *words, "-j", workers, "-o", f"n{workers}", check=0)
        outputs.append((tmp_path / f"n{workers}/000001.png").read_bytes())
    assert outputs[0] == outputs[1]
    (tmp_path / "n.tsv").write_bytes(done.stdout)
    assert np.median(errors(tmp_path, flat)[1]) < 0.4


def test_below_another_root(flat, run, tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("0.png", "1.png"):
        shutil.move(tmp_path / name, tmp_path / "set" / name)
    words = ("depth.tsv", "--intrinsics", "90,110,32,24", "-j", "0", "--root", "set", "-o", "n")
    done = run("make-normals", *words, check=0)
    (tmp_path / "n.tsv").write_bytes(done.stdout)
    label = labels.read(PairList(str(tmp_path / "n.tsv")), 0, tmp_path / "set")
    assert label.known.all()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: (f / "1.png").unlink(), "depth.tsv:2: ./1.png: No such file or directory: mend"),
        (lambda f: (f / "1.png").write_bytes(b"\x89PNG"), "depth.tsv:2: ./1.png: cannot identify"),
        (lambda f: Image.new("RGB", (9, 9)).save(f / "1.png"), "depth.tsv:2: ./1.png: pixels of"),
        (lambda f: Image.new("L", (9, 9)).save(f / "1.png"), "depth.tsv:2: 1.png: no pixel has a"),
        (lambda f: (f / "c.tsv").write_text("a.jpg\t1,1,1,1\nc.jpg\t1,1,1,1\n"),
         "c.tsv:2: c.jpg, where depth.tsv has b.jpg"),
        (lambda f: (f / "c.tsv").write_text("a.jpg\t1,1,1,1\n"),
         "c.tsv:2: no line more, where depth.tsv has b.jpg"),
        (lambda f: (f / "c.tsv").write_text("a.jpg\t1,0,1,1\n"), "c.tsv:1: not an image, a TAB"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(flat, run, tmp_path, change, message):
    change(tmp_path)
    cameras = "c.tsv" if (tmp_path / "c.tsv").exists() else "90,110,32,24"
    words = ("depth.tsv", "--intrinsics", cameras, "-k", "5", "-j", "0", "-o", "n")
    done = run("make-normals", *words, check=1)
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"make-normals: {message}") and not done.stdout
    assert not (tmp_path / "n").exists()


def test_a_window_has_a_middle(flat, run):
    words = ("depth.tsv", "--intrinsics", "90,110,32,24", "-o", "n")
    assert b"odd" in run("make-normals", *words, "-k", "4", check=2).stderr
    done = run("make-normals", "depth.tsv", "--intrinsics", "1,2,3,x", "-o", "n", check=1)
    assert b"--intrinsics 1,2,3,x: not fx,fy,cx,cy" in done.stderr


def test_generated_scenes_against_their_own_normals(run, tmp_path):
    """Of the depth that make-scenes writes; most pixels lie far from the edges of objects."""
    run("make-scenes", "-n", "6", "-j", "0", "-o", "scenes", check=0)
    words = ("scenes/depth.tsv", "--intrinsics", "scenes/intrinsics.tsv", "-k", "5", "-j", "0")
    done = run("make-normals", *words, "-o", "made", check=0)
    (tmp_path / "n.tsv").write_bytes(done.stdout)
    made, true = PairList(str(tmp_path / "n.tsv")), PairList(str(tmp_path / "scenes/normals.tsv"))
    every = metrics.Angles()
    for index in range(6):
        assert made[index].path == true[index].path
        label = labels.read(made, index, tmp_path)
        exact = targets.read_normals(true, index, tmp_path)
        near = depth.read_depth(
            PairList(str(tmp_path / "scenes/depth.tsv")), index, 1000.0, tmp_path
        )
        both = label.known & exact.any(0) & (near < 10)
        every.add(metrics.angles(label.normals[:, both], exact[:, both]))
    assert every.pixels > 50_000 and every.median() < 4


@pytest.mark.slow
def test_windows_disagree_on_real_frames(data, run, tmp_path):
    """On three frames of a Kinect 5 x 5 and 9 x 9 differ by about ten degrees."""
    root = data("nyu_raw_samples_metric3d")
    said = json.loads((root / "test_annotations.json").read_text())["files"]
    names = [tuple(f[part].rpartition("/")[2] for part in ("rgb", "depth")) for f in said]
    files = [(root / "rgb" / image, root / "depth" / depth) for image, depth in names]
    (tmp_path / "depth.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in files))
    camera = ",".join(map(str, said[0]["cam_in"]))
    lists = []
    for k in (5, 9):
        words = ("depth.tsv", "--intrinsics", camera, "-k", k, "-j", "0", "-o", f"n{k}")
        (tmp_path / f"{k}.tsv").write_bytes(run("make-normals", *words, check=0).stdout)
        lists.append(PairList(str(tmp_path / f"{k}.tsv")))
    medians = []
    for index in range(3):
        five, nine = (labels.read(each, index, tmp_path) for each in lists)
        both = five.known & nine.known
        both[:45], both[465:] = False, False
        medians.append(np.median(metrics.angles(five.normals[:, both], nine.normals[:, both])))
    assert all(8 < median < 14 for median in medians)
