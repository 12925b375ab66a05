"""detect as a real process: its lines, whatever reads the images; its other forms; its refusals."""

import io
import json

import numpy as np
import pytest
import torch
from conftest import tiny
from test_train_detector import train

from ssl_common.data.targets import ObjectList
from ssl_common.evaluation.detection import proposals as of_images
from ssl_common.evaluation.detection import scoring
from ssl_common.evaluation.detection.detections import DetectionList
from ssl_common.streams import DataError


def proposed(folder, objects="scenes/objects.jsonl"):
    """Write p.npz, proposals: all of OBJECTS, moved a little, and some boxes beside them."""
    rng, found = np.random.default_rng(0), []
    objects = ObjectList(str(folder / objects))
    for each in objects:
        near = np.array(each.boxes * 4) + rng.normal(0, 3, (4 * len(each.boxes), 4))
        corners = rng.uniform(0, 1, (40, 4)) * ([each.width, each.height] * 2)
        wild = np.concatenate([corners[:, :2], corners[:, :2] + 20 + corners[:, 2:] / 2], 1)
        boxes = np.concatenate([near, wild]).astype("f4")
        boxes = boxes[rng.permutation(len(boxes))]
        found.append(of_images.Boxes(boxes, np.zeros(len(boxes), "f4")))
    made = of_images.gather("p.npz", [each.path for each in objects], found)
    with open(folder / "p.npz", "wb") as stream:
        of_images.save(stream, made)


def run(folder, *words, given=None, status=0):
    done = tiny(folder, "detect", *words, given=given)
    assert done.returncode == status, done.stderr.decode()
    return done.stdout, done.stderr.decode()


@pytest.fixture(scope="module")
def trained(eight_scenes, tmp_path_factory):
    """A folder with detectors of both kinds, fast.pt and faster.pt."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "scenes").symlink_to(eight_scenes / "scenes")
    proposed(folder)
    usual = ("--batch", "2", "--lr", "0.02", "--freeze", "none", "--pool", "roi-align")
    for head in (("--head", "faster"), ("--head", "fast", "--proposals", "p.npz")):
        train(folder, *head, *usual, output=f"{head[1]}.pt", iterations=40)
    return folder


HEADS = pytest.mark.parametrize(
    "words", [("faster.pt",), ("fast.pt", "--proposals", "p.npz")], ids=["faster", "fast"]
)
OBJECTS = "scenes/objects.jsonl"


@HEADS
def test_a_line_an_image_whatever_reads_it(trained, words):
    out, err = run(trained, *words, OBJECTS, "-j", 0)
    (trained / "found.jsonl").write_bytes(out)
    found, listed = DetectionList(str(trained / "found.jsonl")), ObjectList(str(trained / OBJECTS))
    assert [each.path for each in found] == [each.path for each in listed]
    content = torch.load(trained / words[0], weights_only=True)
    for each, of_list in zip(found, listed, strict=True):
        assert (each.width, each.height) == (of_list.width, of_list.height)
        assert len(each.boxes) <= 100 and set(each.labels) <= set(content["classes"])
        assert sorted(each.scores, reverse=True) == list(each.scores)
        for score, (x1, y1, x2, y2) in zip(each.scores, each.boxes, strict=True):
            assert 0.05 < score <= 1 and 0 <= x1 < x2 <= each.width and 0 <= y1 < y2 <= each.height
    boxes = sum(len(each.boxes) for each in found)
    assert boxes > 20 and err == f"detect: 8 images, {boxes:,} boxes\n"
    assert run(trained, *words, OBJECTS, "-j", 2)[0] == out
    manifest = "".join(f"{each.path}\n" for each in listed).encode()
    assert run(trained, *words, "-", "-j", 0, given=manifest)[0] == out
    if words[0] == "faster.pt":  # what is found in an image depends on no other
        lines = (trained / OBJECTS).read_bytes().splitlines(keepends=True)
        assert run(trained, *words, "-j", 0, given=lines[5] + lines[2])[0] == b"".join(
            out.splitlines(keepends=True)[line] for line in (5, 2)
        )


def test_a_named_file_has_a_sidecar_that_records_take(trained):
    run(trained, "faster.pt", OBJECTS, "-o", "named.jsonl", "-j", 0)
    about = json.loads((trained / "named.jsonl.json").read_text())
    content = torch.load(trained / "faster.pt", weights_only=True)
    assert about["model"] == content["about"]["model"] and about["pretext"] == "random"
    assert (about["head"], about["freeze"], about["steps"]) == ("faster", "none", 40)
    assert about["train_manifest"] == ObjectList(str(trained / OBJECTS)).digest()
    with pytest.raises(DataError, match=r"named.jsonl: the detector was trained on all images"):
        scoring.evaluate(str(trained / "named.jsonl"), str(trained / OBJECTS), {})
    names = str(trained / "named.jsonl"), str(trained / OBJECTS)
    found = scoring.evaluate(*names, {"data_set": "x"}, allow_seen=True)
    assert (found["detector_seed"], found["train_images"], found["arch"]) == (0, 8, "tiny-resnet")


@pytest.mark.slow
@HEADS
def test_ranks_find_the_same(trained, words):
    out, _err = run(trained, *words, OBJECTS, "-j", 0)
    several = run(trained, *words, OBJECTS, "-j", 2, "--gpus", 3, "--device", "cpu", "-q")
    assert several == (out, "")


def test_the_forms_of_others(trained, tmp_path):
    (lines, _), (text, err) = (
        run(trained, "faster.pt", OBJECTS, "-j", 0, *words)
        for words in ((), ("--format", "comp4", "-o", tmp_path / "voc", "--set", "val"))
    )
    found = [json.loads(line) for line in lines.splitlines()]
    assert text == b"" and err.startswith("detect: 8 images")
    rows = []
    for each in found:
        name = each["path"].split("/")[-1].removesuffix(".jpg")
        for box, label, score in zip(each["boxes"], each["labels"], each["scores"], strict=True):
            rows.append((label, name, score, box[0] + 1, box[1] + 1, *box[2:]))
    files = sorted((tmp_path / "voc").iterdir())
    read = [
        (path.stem.removeprefix("comp4_det_val_"), line.split()[0], *map(float, line.split()[1:]))
        for path in files
        for line in path.read_text().splitlines()
    ]
    assert sorted(read) == sorted(rows)
    assert len(files) == len(torch.load(trained / "faster.pt", weights_only=True)["classes"])
    names = sorted({label for each in found for label in each["labels"]})
    annotations = {
        "images": [
            {"id": 100 + n, "file_name": e["path"], "width": e["width"], "height": e["height"]}
            for n, e in enumerate(found)
        ],
        "categories": [{"id": 3 * n + 1, "name": name} for n, name in enumerate(names)],
        "annotations": [],
    }
    (trained / "instances.json").write_text(json.dumps(annotations))
    words = ("--format", "coco", "--annotations", "instances.json")
    out, _ = run(trained, "faster.pt", OBJECTS, "-j", 0, *words)
    results = json.loads(out)
    assert len(results) == len(rows) and {each["image_id"] for each in results} <= set(
        range(100, 108)
    )
    first = found[results[0]["image_id"] - 100]
    x1, y1, x2, y2 = first["boxes"][0]
    assert results[0]["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1])
    assert names[(results[0]["category_id"] - 1) // 3] == first["labels"][0]


def test_proposals_of_another_list_are_not_trained_on(trained):
    lines = (trained / OBJECTS).read_text().splitlines(keepends=True)
    (trained / "turned.jsonl").write_text("".join(lines[::-1]))
    words = ("--head", "fast", "--proposals", "p.npz")
    _, err = train(trained, *words, objects="turned.jsonl", output="other.pt", status=1)
    assert err == (
        "train-detector: p.npz: its image 1 is scenes/JPEGImages/000001.jpg, and that of the list"
        " scenes/JPEGImages/000008.jpg: make proposals of this list\n"
    )


@pytest.mark.parametrize(
    "words, status, said",
    [
        (("fast.pt", OBJECTS), 1, "fast.pt: trained with --head fast: give --proposals"),
        (
            ("faster.pt", OBJECTS, "--proposals", "p.npz"),
            1,
            "faster.pt: trained with --head f",
        ),
        (("faster.pt", OBJECTS, "--format", "comp4"), 2, "--format comp4 makes a folder"),
        (("faster.pt", OBJECTS, "--format", "coco"), 2, "--annotations goes with --format coco"),
        (("p.npz", OBJECTS), 1, "p.npz: "),
        (("fast.pt", "few.jsonl", "--proposals", "p.npz"), 1, "p.npz: its image 1 is scenes/"),
        (("faster.pt", "other.jsonl"), 1, "other.jsonl:1: scenes/JPEGImages/000001.jpg is 320 x"),
        (("faster.pt", "none.tsv"), 1, "none.tsv:2: "),
    ],
)
def test_what_is_refused(trained, words, status, said):
    lines = (trained / OBJECTS).read_text().splitlines(keepends=True)
    (trained / "few.jsonl").write_text(lines[3])
    (trained / "other.jsonl").write_text(lines[0].replace('"width": 320', '"width": 321'))
    (trained / "none.tsv").write_text("scenes/JPEGImages/000001.jpg\nno.jpg\n")
    out, err = run(trained, *words, "-j", 0, status=status)
    assert err.startswith(f"detect: {said}") and err.count("\n") == 1


def test_a_damaged_detector_is_refused(trained, tmp_path):
    content = torch.load(trained / "faster.pt", weights_only=True)
    for change in ({"classes": ["one"]}, {"network": {}}, {"frozen": {"x": torch.zeros(1)}}):
        buffer = io.BytesIO()
        torch.save({k: v for k, v in (content | change).items() if k != "digest"}, buffer)
        (tmp_path / "d.pt").write_bytes(buffer.getvalue())
        _out, err = run(trained, tmp_path / "d.pt", OBJECTS, "-j", 0, status=1)
        assert err.startswith(f"detect: {tmp_path}/d.pt: ") and err.count("\n") == 1
