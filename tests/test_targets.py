"""Boxes and normals by line of a list, and stores: where the bytes of an image come from."""

import io
import json
import pickle
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_common import containers, formats
from ssl_common.data import images, stores, targets
from ssl_common.data.batches import batches
from ssl_common.data.datasets import SequentialImages
from ssl_common.data.manifest import Manifest
from ssl_common.data.targets import ObjectList, Objects, Pair, PairList
from ssl_common.streams import DataError

ALONE = Objects("a b.jpg", 9, 7, (), (), ())
SEVERAL = Objects(
    "d/1.jpg", 20, 10, ((0, 0, 20, 10), (1.5, 2, 3, 4.25)), ("cat", "dog"), (False, True)
)


@pytest.fixture
def listed(tmp_path):
    """Return a function that writes bytes as a list and reads it as a KIND."""

    def listed(kind, *lines):
        (tmp_path / "list").write_bytes(b"".join(lines))
        return kind(str(tmp_path / "list"))

    return listed


def test_objects_are_read_by_line_as_they_were_written(listed):
    rows = [SEVERAL, ALONE] * 100
    found = listed(ObjectList, *map(targets.format_objects, rows))
    assert len(found) == 200 and list(found) == rows
    assert [found[k] for k in (0, 63, 64, 199)] == [rows[k] for k in (0, 63, 64, 199)]
    assert pickle.loads(pickle.dumps(found))[130] == SEVERAL
    # Its paths are digested as those of a manifest, so that both are told to be of one list.
    (manifest := io.StringIO()).writelines(f"{row.path}\n" for row in rows)
    assert found.digest() == listed(Manifest, manifest.getvalue().encode()).digest()


def test_a_line_of_objects_is_json_that_others_read():
    assert json.loads(targets.format_objects(SEVERAL)) == {
        "path": "d/1.jpg",
        "width": 20,
        "height": 10,
        "boxes": [[0, 0, 20, 10], [1.5, 2, 3, 4.25]],
        "labels": ["cat", "dog"],
        "difficult": [False, True],
    }
    assert targets.format_objects(SEVERAL).count(b"\n") == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boxes": [[0, 0, 21, 10], [0, 0, 1, 1]]}, "boxes holds [0, 0, 21, 10], not x1, y1, x2"),
        ({"boxes": [[3, 0, 3, 10], [0, 0, 1, 1]]}, "boxes holds [3, 0, 3, 10]"),
        ({"boxes": [[0, 9, 3, 8], [0, 0, 1, 1]]}, "boxes holds [0, 9, 3, 8]"),
        ({"boxes": [[-1, 0, 3, 8], [0, 0, 1, 1]]}, "boxes is [[-1, 0, 3, 8]"),
        ({"boxes": [[0, 0, 3], [0, 0, 1]]}, "boxes is [[0, 0, 3], [0, 0, 1]], not B x 4 number"),
        ({"labels": ["cat"]}, 'labels is ["cat"], not B class names (B = 2 of boxes)'),
        ({"labels": ["cat", "a,b"]}, "labels holds 'a,b', not a class name"),
        ({"difficult": [0, 1]}, "difficult is [0, 1], not B of true or false (B = 2 of boxes)"),
        ({"difficult": True}, "difficult is true"),
        ({"width": 0}, "width is 0, not a whole number"),
        ({"path": "a\tb"}, "path holds 'a\\tb', not a path"),
    ],
)
def test_wrong_objects_are_named_by_line(listed, tmp_path, change, words):
    right = targets.format_objects(SEVERAL)
    wrong = json.dumps(json.loads(right) | change).encode() + b"\n"
    with pytest.raises(DataError) as error:
        listed(ObjectList, right, wrong, right)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/list:2: {words}") and "\n" not in message
    assert message.endswith(": mend the line or delete it")


def split_over_lines(data):
    """Return DATA, a list of objects, such that only all of it is what a list of them would be."""
    first, second, third = data.splitlines()
    a, b = second.split(b"[[0, 0, 20, 10], ")
    return [
        a + b"[[0, 0, 20, 10],\n" + b + b"\n" + first + b", " + third,
        first + b", " + second + b"\n{}\n" + third,
        first + b", " + second + b"\n\n" + third,
        first + b",\n" + second + b"\n" + third,
        first + b"\n" + second.replace(b"cat", b"c}\n{at") + b"\n" + third,
        first + b"\n" + second.replace(b'"width"', b'"width": 20, "width"') + b"\n" + third,
        first + b"\n" + second.replace(b"cat", rb"\ud800") + b"\n" + third,
    ]


def test_lines_together_are_what_they_are_alone(listed):
    """Every list of a few lines, spoilt at a byte: as the format says of its lines, one by one."""
    data = b"".join(map(targets.format_objects, (ALONE, SEVERAL, ALONE)))
    rng, cases = np.random.default_rng(0), split_over_lines(data)
    for place, byte in zip(
        rng.integers(len(data), size=600), rng.choice(list(b'{}[],:"01a.-\n\\e '), 600), strict=True
    ):
        cases.append(data[:place] + bytes([byte]) + data[place + rng.integers(2) :])
    refused = 0
    for case in cases:
        lines = case.removesuffix(b"\n").split(b"\n")
        try:
            expected = [
                formats.OBJECTS.check(containers.json_object(line, ""), "") for line in lines
            ]
        except DataError:
            refused += 1
            with pytest.raises(DataError):
                listed(ObjectList, case)
            continue
        found = [each._asdict() for each in listed(ObjectList, case)]
        assert [
            (each["path"], each["width"], list(map(list, each["boxes"]))) for each in found
        ] == [(each["path"], each["width"], each["boxes"]) for each in expected]
        assert [list(each["labels"]) for each in found] == [each["labels"] for each in expected]
    assert 300 < refused < len(cases) - 50


@pytest.mark.parametrize("missing", ALONE._fields[:-1])  # no crowd is none
def test_an_object_list_has_all_fields(listed, missing):
    content = json.loads(targets.format_objects(ALONE))
    del content[missing]
    with pytest.raises(DataError, match=f"list:1: .*{missing} is missing"):
        listed(ObjectList, json.dumps(content).encode())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "list: no line: it holds one JSON object an image"),
        (b"\n", "list:1: not JSON"),
        (b"a.jpg\tcat\n", "list:1: not JSON"),
        (b"[]\n", "list:1: not a JSON object"),
        (b"\xff\n", "list:1: not UTF-8"),
    ],
)
def test_what_is_no_object_list(listed, data, words):
    with pytest.raises(DataError) as error:
        listed(ObjectList, data)
    assert words in str(error.value)


def test_pairs_are_read_by_line_as_they_were_written(listed):
    rows = [Pair(f"d/{n}.jpg", f"t {n}.png") for n in range(150)]
    found = listed(PairList, *map(targets.format_pair, rows))
    assert list(found) == rows and found[149] == rows[149]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "list: no line: a list of pairs"),
        (b"a.jpg\ta.png\na.jpg\n", "list:2: not an image, a TAB and its target"),
        (b"a.jpg\ta.png\tb.png\n", "list:1: not an image"),
        (b"\ta.png\n", "list:1: not an image"),
        (b"a.jpg\t\n", "list:1: not an image"),
        (b"a.jpg\ta.png\r\n", "list:1: holds a carriage return"),
        (b"?a.jpg\ta.png\n", "list:1: starts with a question mark"),
    ],
)
def test_what_is_no_list_of_pairs(listed, data, words):
    with pytest.raises(DataError) as error:
        listed(PairList, data)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["", "a\tb", "?a", "a\nb", "a\udcff"])
def test_no_list_is_written_that_could_not_be_read(path):
    with pytest.raises(DataError):
        targets.format_objects(ALONE._replace(path=path))
    with pytest.raises(DataError):
        targets.format_pair(Pair(path, "a.png"))


def test_normals_survive_as_pictures_within_half_a_level(tmp_path, listed):
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(3, 40, 50))
    normals /= np.linalg.norm(normals, axis=0)
    normals[:, 0, :3] = [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    known = rng.random((40, 50)) < 0.8
    known[0, :3] = True
    picture = targets.encode_normals(normals, known)
    assert picture[0, :3].tolist() == [[128, 128, 255], [128, 255, 128], [255, 128, 128]]
    # As others read such pictures: by / 255 * 2 - 1, without those that are black.
    apart = np.abs(picture / 255 * 2 - 1 - np.moveaxis(normals, 0, 2)).max(2)
    assert (apart[known] <= 1 / 255 + 1e-9).all() and not picture[~known].any()
    Image.fromarray(picture).save(tmp_path / "n.png")
    pairs = listed(PairList, b"n.jpg\tn.png\n", b"n.jpg\tgone.png\n")
    found = targets.read_normals(pairs, 0, str(tmp_path))
    assert found.shape == (3, 40, 50) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), known, atol=1e-6)
    degrees = np.degrees(np.arccos((found * normals).sum(0).clip(-1, 1)))
    assert degrees[known].max() < 0.45
    with pytest.raises(DataError, match="list:2: .*gone.png: No such file"):
        targets.read_normals(pairs, 1, str(tmp_path))


def test_who_writes_targets_needs_no_torch():
    code = "import sys; from ssl_common.data import targets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---- Stores -------------------------------------------------------------------------------------


class Memory(dict):
    """A store whose images are in memory: of what a store says, and no more."""

    def name(self, path):
        return f"memory:{path}"

    def open(self, path):
        if path not in self:
            raise FileNotFoundError(2, "No such image")
        return io.BytesIO(self[path])

    def exists(self, path):
        return path in self


@pytest.fixture
def memory():
    files = {}
    for n in range(6):
        stream = io.BytesIO()
        Image.new("RGB", (8, 6), (40 * n, n, 7)).save(stream, "PNG")
        files[f"{n}.png"] = stream.getvalue()
    return Memory(files)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_come_from_any_store(memory, listed, workers):
    manifest = listed(Manifest, *(f"{n}.png\n".encode() for n in range(6)))
    dataset = SequentialImages(manifest, memory, torch.clone)
    found = list(batches(dataset, [[0, 1, 2], [3, 4, 5]], workers, False))
    colours = torch.cat(found)[:, 0, 0].tolist()
    assert colours == [[40 * n, n, 7] for n in range(6)]


class Batch(NamedTuple):
    images: list
    boxes: tuple
    about: dict


class Boxes:
    """A data set of images of several sizes, each with any number of boxes."""

    def __init__(self, manifest):
        self.manifest = manifest

    def prepare(self):
        pass

    def __getitem__(self, index):
        boxes = self.manifest[index].boxes
        image = torch.full((self.manifest[index].height, 5), index, dtype=torch.uint8)
        return image, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), len(boxes)

    def collate(self, items):
        images, boxes, numbers = zip(*items, strict=True)
        return Batch(list(images), boxes, {"number": sum(numbers), "name": "batch"})


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_is_what_the_data_set_collates(listed, workers):
    rows = [SEVERAL, ALONE, SEVERAL._replace(height=12)]
    dataset = Boxes(listed(ObjectList, *map(targets.format_objects, rows)))
    first, second = batches(dataset, [[0, 1], [2]], workers, False)
    assert [tuple(image.shape) for image in first.images] == [(10, 5), (7, 5)]
    assert [image.unique().tolist() for image in first.images] == [[0], [1]]
    assert isinstance(first.boxes, tuple) and first.about == {"number": 2, "name": "batch"}
    assert first.boxes[0].tolist() == [list(box) for box in SEVERAL.boxes]
    assert first.boxes[1].shape == (0, 4)
    assert second.images[0].shape == (12, 5) and second.about["number"] == 2


def test_errors_name_what_the_store_names(memory, listed):
    with pytest.raises(images.Unreadable, match=r"^memory:gone.png: No such image$"):
        images.read("gone.png", memory)
    memory["broken.png"] = b"broken"
    with pytest.raises(images.Unreadable, match=r"^memory:broken.png: not an image"):
        images.read("broken.png", memory)
    dataset = SequentialImages(listed(Manifest, b"0.png 3\n"), memory, torch.clone)
    with pytest.raises(DataError, match="write a TAB, not a space, between 0.png and its label 3"):
        dataset[0]


def test_a_folder_is_a_store(tmp_path, memory):
    (tmp_path / "0.png").write_bytes(memory["0.png"])
    folder = stores.store(tmp_path)
    assert folder == stores.store(str(tmp_path))
    assert folder.exists("0.png") and not folder.exists("1.png")
    assert folder.name("0.png") == f"{tmp_path}/0.png" and folder.name("/x.png") == "/x.png"
    with folder.open("0.png") as stream:
        assert stream.read() == memory["0.png"]
    assert torch.equal(images.read("0.png", folder), images.read("0.png", memory))
    assert stores.store(folder) is folder
