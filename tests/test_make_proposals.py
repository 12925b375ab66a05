"""make-proposals: Selective Search, the files of others, and how near proposals are to objects."""

import io
import json
import pickle

import numpy as np
import pytest
import scipy.io
from PIL import Image

from ssl_common.data.targets import ObjectList, Objects
from ssl_common.evaluation.detection import proposals
from ssl_common.evaluation.detection.proposals import Boxes
from ssl_common.streams import DataError

PATHS = ["d/000005.jpg", "d/2008_000003.jpg", "a b.png"]
FOUND = [
    Boxes(np.array([[0, 0, 9, 7], [1.5, 2, 3, 4]], "f4"), np.array([2, 1], "f4")),
    Boxes(np.empty((0, 4), "f4"), np.empty(0, "f4")),
    Boxes(np.array([[3, 3, 3, 9]], "f4"), np.zeros(1, "f4")),
]


def saved(path, paths=PATHS, found=FOUND):
    with open(path, "wb") as stream:
        proposals.save(stream, proposals.gather("made", paths, found))
    return str(path)


# ---- The form -----------------------------------------------------------------------------------


def test_proposals_are_read_as_they_were_written(tmp_path):
    found = proposals.read(saved(tmp_path / "p.npz"))
    assert found.paths == PATHS and len(found) == 3
    for index, each in enumerate(FOUND):
        np.testing.assert_array_equal(found.of(index), each.boxes)
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert found.scores.tolist() == [2, 1, 0] and found.offsets.tolist() == [0, 2, 2, 3]


def test_others_read_the_file_by_numpy_alone(tmp_path):
    with np.load(saved(tmp_path / "p.npz")) as arrays:
        assert arrays["paths"].tobytes().decode().split("\n") == PATHS
        first, last = arrays["offsets"][:2]
        assert arrays["boxes"][first:last].tolist() == [[0, 0, 9, 7], [1.5, 2, 3, 4]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"offsets": np.array([0, 2, 2, 4])}, "offsets go from 0 to 4, where there are 3 boxes"),
        ({"offsets": np.array([0, 3, 2, 3])}, "offsets is not in order"),
        ({"paths": np.frombuffer(b"a\nb", np.uint8)}, "paths holds 2 names, where offsets part 3"),
        ({"paths": np.frombuffer(b"a\nb\n\xff", np.uint8)}, "paths are not UTF-8"),
        ({"boxes": np.array([[3, 0, 2, 1]] * 3, "f4")}, "boxes holds one that is not x1, y1, x2"),
        ({"boxes": np.array([[3, 0, np.nan, 1]] * 3, "f4")}, "boxes holds NaN or infinity"),
        ({"scores": np.zeros(2, "f4")}, "scores is 2 of float32"),
    ],
)
def test_what_are_no_proposals(tmp_path, change, words):
    with np.load(saved(tmp_path / "p.npz")) as arrays:
        content = dict(arrays) | change
    np.savez(tmp_path / "p.npz", **content)
    with pytest.raises(DataError) as error:
        proposals.read(str(tmp_path / "p.npz"))
    assert words in str(error.value) and str(error.value).endswith("make them with make-proposals")


def images(paths):
    return [Objects(path, 9, 9, (), (), ()) for path in paths]


def test_the_first_image_that_differs_is_named(tmp_path):
    found = proposals.read(saved(tmp_path / "p.npz"))
    proposals.match(found, images(PATHS))
    for others, words in (
        (PATHS[::-1], f"its image 1 is {PATHS[0]}, and that of the list {PATHS[2]}"),
        ([*PATHS[:2], "c.png"], "its image 3 is a b.png, and that of the list c.png"),
        (PATHS[:2], "it has 3 images, and the list 2: the first of those beyond is a b.png"),
        ([*PATHS, "e.jpg"], "it has 3 images, and the list 4: the first of those beyond is e.jpg"),
    ):
        with pytest.raises(DataError) as error:
            proposals.match(found, images(others))
        assert words in str(error.value) and "p.npz: " in str(error.value)


@pytest.mark.parametrize("seed", range(5))
def test_recall_is_counted_object_by_object(seed):
    rng = np.random.default_rng(seed)

    def boxes(count):
        corners = rng.integers(0, 40, (count, 2))
        return np.hstack([corners, corners + rng.integers(1, 25, (count, 2))])

    listed, found, expected = [], [], np.zeros(3, int)
    for image in range(20):
        mine, near = boxes(rng.integers(0, 4)), boxes(rng.integers(0, proposals.USUAL + 300))
        difficult = tuple((rng.random(len(mine)) < 0.3).tolist())
        listed.append(
            Objects(
                str(image), 99, 99, tuple(map(tuple, mine.tolist())), ("a",) * len(mine), difficult
            )
        )
        found.append(Boxes(near, np.zeros(len(near))))
        for box, off in zip(mine.tolist(), difficult, strict=True):
            if off:
                continue
            hits = []
            for number, other in enumerate(near.tolist()):
                wide = min(box[2], other[2]) - max(box[0], other[0])
                high = min(box[3], other[3]) - max(box[1], other[1])
                both = max(wide, 0) * max(high, 0)
                areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
                if 2 * both >= sum(areas) - both:
                    hits.append(number)
            expected += [1, any(n < proposals.USUAL for n in hits), bool(hits)]
    made = proposals.gather("made", [each.path for each in listed], found)
    assert tuple(proposals.recall(made, listed)) == tuple(expected)


# ---- The files of others ------------------------------------------------------------------------

LIST = [*PATHS[:2], "coco/COCO_val2014_000000000042.jpg"]
# By hand: what each form says of the box that covers columns 2 to 5 and rows 3 to 9 of pixels,
# counted from 0.
BOX = [2, 3, 6, 10]


def cells(values):
    """Return VALUES as a cell of MATLAB."""
    made = np.empty(len(values), object)
    made[:] = values
    return made


def girshick(path, boxes, names=None):
    content = {"boxes": cells(boxes)} | ({} if names is None else {"images": cells(names)})
    scipy.io.savemat(path, content, do_compression=True)


@pytest.fixture
def listing(tmp_path):
    """Write LIST as a manifest; return a function that converts files for it."""
    (tmp_path / "list.tsv").write_text("".join(f"{path}\n" for path in LIST))

    def convert(run, *files, check=0):
        words = [word for file in files for word in ("--from", file)]
        return run("make-proposals", "list.tsv", *words, "-o", "p.npz", check=check)

    return convert


NAMES = ["000005", "2008_000003", "COCO_val2014_000000000042"]


def test_girshicks_boxes_count_from_one_and_begin_with_y(tmp_path, run, listing):
    mine = np.array([[4, 3, 10, 6], [1, 1, 1, 1]], float)
    girshick(tmp_path / "ss.mat", [mine, np.empty((0, 4)), mine[:1]], NAMES)
    done = listing(run, "ss.mat")
    found = proposals.read(str(tmp_path / "p.npz"))
    assert found.paths == LIST
    assert [found.of(n).tolist() for n in range(3)] == [[BOX, [0, 0, 1, 1]], [], [BOX]]
    assert not found.scores.any()
    assert done.stderr == b"make-proposals: 3 images, 3 boxes, 1 an image\n"


def test_a_mat_without_names_goes_by_order_and_number(tmp_path, run, listing):
    one = np.array([[4, 3, 10, 6.0]])
    girshick(tmp_path / "ss.mat", [one] * 3)
    listing(run, "ss.mat")
    girshick(tmp_path / "ss.mat", [one] * 2)
    said = listing(run, "ss.mat", check=1).stderr.decode()
    words = "ss.mat: proposals of 2 images, without names, for a list of 3: the first without"
    assert f"{words} proposals is {LIST[2]}\n" in said
    assert not (tmp_path / "p.npz.partial").exists()


def test_an_image_without_proposals_is_named(tmp_path, run, listing):
    one = np.array([[4, 3, 10, 6.0]])
    girshick(tmp_path / "ss.mat", [one] * 3, ["000005", "2008_000004", NAMES[2]])
    said = listing(run, "ss.mat", check=1).stderr.decode()
    assert said == f"make-proposals: ss.mat: no proposals of {LIST[1]}, image 2 of the list\n"
    girshick(tmp_path / "ss.mat", [one] * 3, NAMES[:2])
    said = listing(run, "ss.mat", check=1).stderr.decode()
    assert "ss.mat: boxes of 3 images, but names of 2" in said
    girshick(tmp_path / "ss.mat", [one] * 2, [NAMES[0]] * 2)
    assert b"ss.mat: image 000005 stands twice" in listing(run, "ss.mat", check=1).stderr


def test_several_files_make_one_and_others_images_are_counted(tmp_path, run, listing):
    one, other = np.array([[4, 3, 10, 6.0]]), np.array([[1, 1, 2, 2.0]])
    girshick(tmp_path / "07.mat", [one, other], ["000005", "000007"])
    girshick(tmp_path / "12.mat", [other, one], [NAMES[2], NAMES[1]])
    done = listing(run, "07.mat", "12.mat")
    found = proposals.read(str(tmp_path / "p.npz"))
    assert [found.of(n).tolist() for n in range(3)] == [[BOX], [BOX], [[0, 0, 2, 2]]]
    assert b", those of 1 other images left out\n" in done.stderr


INSIDE = np.array([[2, 3, 5, 9], [0, 0, 0, 0]], np.float32)  # the last pixels inside
OUTSIDE = np.array([[2, 3, 6, 10], [0, 0, 1, 1]], np.float32)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_detectrons_last_pixels_are_inside(tmp_path, run, listing, protocol):
    content = {
        "boxes": [INSIDE, INSIDE[:0], INSIDE],
        "scores": [np.zeros(2, "f4"), np.zeros(0, "f4"), np.array([1, 3], "f4")],
        "indexes": [5, 2008000003, 42],
    }
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(content, protocol))
    listing(run, "d.pkl")
    found = proposals.read(str(tmp_path / "p.npz"))
    expected = [OUTSIDE.tolist(), [], OUTSIDE[::-1].tolist()]  # the best score first
    assert [found.of(n).tolist() for n in range(3)] == expected
    assert found.scores.tolist() == [0, 0, 3, 1]


class BoxMode:
    """detectron2.structures.boxes.BoxMode, as far as a pickle knows it: a class called with 1."""

    def __reduce__(self):
        return BoxMode, (1,)

    def __init__(self, _value=1):
        pass


@pytest.mark.parametrize("mode", [None, 0, 1, BoxMode()])
def test_detectron2s_edges_are_outside_in_either_mode(tmp_path, run, listing, mode):
    boxes = OUTSIDE.copy()
    if mode not in (None, 0):
        boxes[:, 2:] -= boxes[:, :2]
    content = {
        "boxes": [boxes, boxes[:1], boxes[:0]],
        "objectness_logits": [np.array([1, 2], "f4"), np.zeros(1, "f4"), np.zeros(0, "f4")],
        "ids": ["2008_000003", 42, "000005"],
    } | ({} if mode is None else {"bbox_mode": mode})
    (tmp_path / "d2.pkl").write_bytes(pickle.dumps(content))
    listing(run, "d2.pkl")
    found = proposals.read(str(tmp_path / "p.npz"))
    expected = [[], OUTSIDE[::-1].tolist(), OUTSIDE[:1].tolist()]
    assert [found.of(n).tolist() for n in range(3)] == expected


def test_no_pickle_runs(tmp_path, run, listing):
    from conftest import Bomb

    content = {"boxes": [Bomb(f"touch {tmp_path}/ran")], "scores": [np.zeros(1)], "indexes": [5]}
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(content))
    done = listing(run, "bomb.pkl", check=1)
    assert done.stderr.count(b"\n") == 1 and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "neither a .mat of MATLAB 5 nor a pickle"),
        (b"MATLAB 5.0 MAT-file" + bytes(200), "not a .mat of MATLAB 5, or damaged"),
        (
            b"MATLAB 7.3 MAT-file" + bytes(105) + b"\x00\x02IM" + bytes(512),
            "not a .mat of MATLAB 5",
        ),
        (pickle.dumps({"boxes": []}), "it has neither boxes, scores and indexes, nor boxes, obj"),
        (pickle.dumps([1, 2]), "it has neither boxes, scores and indexes"),
        (pickle.dumps({"boxes": [], "scores": [], "indexes": []})[:-4], "damaged"),
        (
            pickle.dumps({"boxes": [np.zeros((1, 3))], "scores": [np.zeros(1)], "indexes": [5]}),
            "not a pickle of proposals, or damaged",
        ),
        (
            pickle.dumps({"boxes": [np.zeros((1, 4))], "scores": [np.zeros(2)], "indexes": [5]}),
            "not a pickle of proposals, or damaged (1 boxes and 2 scores)",
        ),
        (
            pickle.dumps(
                {"boxes": [np.full((1, 4), np.nan)], "scores": [np.zeros(1)], "indexes": [5]}
            ),
            "image 5: a box that is none",
        ),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, run, listing, data, words):
    (tmp_path / "x").write_bytes(data)
    said = listing(run, "x", check=1).stderr.decode()
    assert said.startswith("make-proposals: x: ") and words in said and said.count("\n") == 1


def test_recall_is_said_where_objects_are_known(scratch, run):
    done = run("make-proposals", "objects.jsonl", "--from", "proposals.pkl", "-o", "p.npz", check=0)
    found = proposals.read(str(scratch / "p.npz"))
    listed = ObjectList(str(scratch / "objects.jsonl"))
    proposals.match(found, listed)
    said = "4 images, 13 boxes, 3 an image; recall at IoU .5: 100.0% of 4 objects"
    assert done.stderr.decode() == f"make-proposals: {said}\n"


# ---- Selective Search ---------------------------------------------------------------------------


@pytest.fixture
def opencv():
    pytest.importorskip("cv2")


def test_selective_search_finds_what_stands_out(tmp_path, run, opencv):
    pixels = np.full((120, 160, 3), 230, np.uint8)
    pixels[30:90, 40:110] = (200, 30, 30)
    Image.fromarray(pixels).save(tmp_path / "red.png")
    row = {"path": "red.png", "width": 160, "height": 120, "boxes": [[40, 30, 110, 90]],
           "labels": ["red"], "difficult": [False]}  # fmt: skip
    (tmp_path / "o.jsonl").write_text(json.dumps(row))
    done = run("make-proposals", "o.jsonl", "-j", 0, "-o", "p.npz", check=0)
    assert b"recall at IoU .5: 100.0% of 1 objects\n" in done.stderr
    found = proposals.read(str(tmp_path / "p.npz")).of(0)
    assert (found[:, :2] >= 0).all() and (found[:, 2:] <= [160, 120]).all()


def test_the_same_bytes_for_any_number_of_workers_and_again(scratch, run, opencv):
    argv = ["make-proposals", "train.tsv"]
    first = run(*argv, "-j", 0, check=0).stdout
    assert run(*argv, "-j", 2, check=0).stdout == first
    assert run(*argv, "-j", 1, "--seed", 1, check=0).stdout != first
    arrays = np.load(io.BytesIO(first))
    assert len(arrays["offsets"]) == 13 and (np.diff(arrays["offsets"]) > 0).all()
    # An image by itself has the same boxes: nothing of those before it.
    last = (scratch / "train.tsv").read_bytes().splitlines()[-1]
    alone = np.load(io.BytesIO(run(*argv[:1], "-", "-j", 0, stdin=last, check=0).stdout))
    start = arrays["offsets"][-2]
    np.testing.assert_array_equal(alone["boxes"], arrays["boxes"][start:])


def test_images_of_a_few_pixels_have_proposals(tmp_path, run, opencv):
    sizes = [(1, 1), (1, 40), (2, 2), (30, 2)]
    for width, height in sizes:
        Image.new("L", (width, height), 77).save(tmp_path / f"{width}x{height}.png")
    (tmp_path / "l.tsv").write_text("".join(f"{w}x{h}.png\n" for w, h in sizes))
    run("make-proposals", "l.tsv", "-j", 0, "-o", "p.npz", check=0)
    found = proposals.read(str(tmp_path / "p.npz"))
    for index, (width, height) in enumerate(sizes):
        assert [0, 0, width, height] in found.of(index).tolist()


def test_an_image_of_another_size_or_none_is_named(scratch, run, opencv):
    lines = (scratch / "objects.jsonl").read_text().splitlines()
    wrong = json.loads(lines[1]) | {"width": 101}
    (scratch / "o.jsonl").write_text("\n".join([lines[0], json.dumps(wrong)]))
    said = run("make-proposals", "o.jsonl", "-j", 0, check=1).stderr.decode()
    assert said.startswith(
        "make-proposals: o.jsonl:2: VOCdevkit/VOC2007/JPEGImages/000032.jpg is 1"
    )
    assert "100 x 80 pixels, not 101 x 80: list its objects again" in said
    (scratch / "l.tsv").write_text("photos/cat/0.jpg\nlisting.tsv\n")
    said = run("make-proposals", "l.tsv", "-j", 2, check=1).stderr.decode()
    assert said.startswith("make-proposals: l.tsv:2: ./listing.tsv: not an image")


def test_without_opencv_there_is_one_line(scratch, run):
    code = """
import sys
sys.modules["cv2"] = None
from ssl_tools.make_proposals import main
main(["train.tsv"])
"""
    done = run("python", "-c", code, check=1)
    words = "Selective Search needs opencv-contrib-python-headless: pip install 'ssl-bench[prop"
    assert words in done.stderr.decode() and done.stdout == b"" and done.stderr.count(b"\n") == 1
