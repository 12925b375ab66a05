"""train-detector as a real process: what it writes, and that the loop's promises hold for it."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from conftest import TINY, ended, environment, tiny
from test_pretrain import finish, steps, untimed

from ssl_common.data.targets import ObjectList
from ssl_common.evaluation.detection import training
from ssl_common.streams import DataError

SMALL = ["--size", "64", "--max-size", "128"]


def line(
    *extra,
    output="d.pt",
    iterations=60,
    objects="scenes/objects.jsonl",
    model="random:tiny-resnet",
):
    argv = ["train-detector", model, *SMALL, "--iterations", str(iterations)]
    return [*argv, objects, "-o", output, "-j", "0", *extra]


def train(folder, *words, status=0, **options):
    """Train to the end; return (log, what was said)."""
    return ended(tiny(folder, *line(*words, **options)), status)


def start(folder, *words, **options):
    return subprocess.Popen(
        [sys.executable, TINY, *line(*words, **options)], cwd=folder, stdin=subprocess.DEVNULL,
        env=environment({"OMP_NUM_THREADS": "1"}), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


FASTER = ("--head", "faster", "--batch", "2")


@pytest.fixture(scope="module")
def whole(eight_scenes, tmp_path_factory):
    """The log and the file of a run that nothing stops."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "scenes").symlink_to(eight_scenes / "scenes")
    log, err = train(folder, *FASTER)
    rule, last = err.splitlines()
    assert rule == (
        "train-detector: batch 2: rate 0.001 for 60 steps; the recipe has 0.002 at 4, for 50,000"
        " steps"
    )
    assert last == "train-detector: d.pt: 15 epochs of 8 images"
    return log, (folder / "d.pt").read_bytes()


def test_log_and_file(whole, tmp_path):
    log, content = whole
    first, *rest = untimed(log)
    assert (first["task"], first["arch"], first["head"]) == ("detection", "tiny-resnet", "faster")
    assert (first["freeze"], first["pool"], first["stride"]) == ("res4", "roi-pool", 16)
    assert (first["recipe"], first["lr"], first["anchors"]) == ("voc07", 0.001, "detectron")
    assert first["warm_up"] == [0.01, pytest.approx(1 / 3)] and "fc" not in first
    assert [line["step"] for line in rest] == [50, 60]
    parts = ("loss_classes", "loss_boxes", "loss_objectness", "loss_places")
    for line in rest:
        assert line["loss"] == pytest.approx(sum(line[name] for name in parts))
        assert 0 < line["accuracy"] < 1
    (tmp_path / "d.pt").write_bytes(content)
    found = torch.load(tmp_path / "d.pt", weights_only=True)
    assert {name.split(".")[0] for name in found["frozen"]} == {"conv1", "res2", "res3", "res4"}
    assert {name.split(".")[0] for name in found["network"]} == {"rpn", "head"}
    assert len(found["classes"]) == first["classes"] and found["about"]["model"] == first["model"]


@pytest.mark.parametrize("freeze, trained", [("res2", {"res3", "res4"}), ("none", None)])
def test_what_is_not_frozen_is_trained(folder, freeze, trained):
    from tiny import TinyResNet

    from ssl_common.models import registry

    train(folder, *FASTER, "--freeze", freeze, "--lr", "0.01", iterations=2)
    found = torch.load(folder / "d.pt", weights_only=True)
    with registry.seeded(0):
        before = TinyResNet().state_dict()
    after = {k.removeprefix("tail."): v for k, v in found["network"].items() if k[:4] == "tail"}
    after |= found["frozen"]
    moved = {k.split(".")[0] for k, v in after.items() if not torch.equal(v, before[k])}
    assert moved == (trained or {"conv1", "res2", "res3", "res4"})
    norms = [k for k in after if "bn" in k or "downsample.1" in k or k.startswith("conv1.1")]
    assert norms and all(torch.equal(after[k], before[k]) for k in norms)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_and_resumed_is_uninterrupted(whole, folder, number):
    log, content = whole
    process = start(folder, *FASTER, "-j", "2", "--checkpoint-every", "20steps")
    assert [json.loads(process.stdout.readline()) for _ in range(2)][1]["step"] == 50
    os.killpg(process.pid, number)
    finish(process, 75 if number == signal.SIGTERM else -number)
    again, _ = train(folder, *FASTER)
    assert steps(again) == steps(log)
    assert (folder / "d.pt").read_bytes() == content


@pytest.mark.slow
@pytest.mark.parametrize("freeze", ["res4", "res2"])
def test_two_ranks_take_the_steps_of_one(folder, freeze):
    words = ("--head", "faster", "--batch", "4", "--freeze", freeze)
    two, _ = train(folder, *words, "--gpus", "2", "--device", "cpu", iterations=20)
    one, _ = train(folder, *words, "--accumulate", "2", output="one.pt", iterations=20)
    (a,), (b,) = steps(two)[1:], steps(one)[1:]
    assert a.keys() == b.keys()
    for name in a:
        assert a[name] == pytest.approx(b[name], rel=1e-5), name
    a, b = (torch.load(folder / name, weights_only=True)["network"] for name in ("d.pt", "one.pt"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["faster"])
def test_bf16_learns_what_fp32_does(folder, head):
    words = ("--head", head, "--batch", "4", "--lr", "0.01", "--freeze", "none")
    logs = [
        train(folder, *words, "--precision", each, output=f"{each}.pt", iterations=20)[0]
        for each in ("fp32", "bf16")
    ]
    one, other = (untimed(log)[-1] for log in logs)
    assert one["loss"] == pytest.approx(other["loss"], rel=0.05) and one != other


def changed(folder, change):
    """Write the list of scenes again, each line changed by CHANGE."""
    lines = map(json.loads, (folder / "scenes/objects.jsonl").read_text().splitlines())
    with open(folder / "changed.jsonl", "w", encoding="utf-8") as stream:
        for number, line in enumerate(lines):
            stream.write(json.dumps(change(number, line)) + "\n")
    return "changed.jsonl"


def test_images_without_objects_and_all_difficult(folder):
    """They are background: what is said of them is right, and no box is learned."""

    def change(number, line):
        if number % 2:
            return line | {"boxes": [], "labels": [], "difficult": []}
        return line | {"difficult": [True] * len(line["boxes"])}

    name = changed(folder, change)
    log, _ = train(folder, *FASTER, "--lr", "0.01", objects=name, iterations=20)
    last = untimed(log)[-1]
    assert last["loss_boxes"] == last["loss_places"] == 0 and last["accuracy"] > 0.9
    images = ObjectList(str(folder / name))
    classes, _digest = training.learned_classes(images)
    assert len(classes) > 1  # difficult ones have a class


def test_a_list_without_any_object_is_refused(folder, run):
    name = changed(folder, lambda _n, line: line | {"boxes": [], "labels": [], "difficult": []})
    with pytest.raises(DataError, match=r"changed.jsonl: no object in any image"):
        training.learned_classes(ObjectList(str(folder / name)))


def test_one_image(folder):
    lines = (folder / "scenes/objects.jsonl").read_text().splitlines(keepends=True)
    (folder / "one.jsonl").write_text(lines[0])
    argv, one = ("--head", "faster"), {"objects": "one.jsonl", "iterations": 3}
    _, err = train(folder, *argv, "--batch", "1", **one)
    assert err.splitlines()[-1] == "train-detector: d.pt: 3 epochs of 1 images"
    _, err = train(folder, *argv, output="e.pt", **one, status=1)
    assert err == (
        "train-detector: one.jsonl: 1 image is less than one batch of 4: give --batch 1\n"
    )


def test_a_box_without_width_and_an_image_of_another_size_are_refused(folder):
    def narrow(number, line):
        if number == 4:
            line["boxes"][0][2] = line["boxes"][0][0]
        return line

    _, err = train(folder, *FASTER, objects=changed(folder, narrow), status=1)
    assert err.startswith("train-detector: changed.jsonl:5: boxes holds [") and err.count("\n") == 1
    name = changed(folder, lambda n, line: line | {"width": 400} if n == 2 else line)
    _, err = train(folder, *FASTER, objects=name, status=1)
    assert "train-detector: changed.jsonl:3: scenes/JPEGImages/000003.jpg is 320 x 240" in err


@pytest.mark.parametrize(
    "words, status, said",
    [
        (("--head", "fast"), 2, "--head fast: give --proposals, or --head faster"),
        (("--head", "faster", "--proposals", "p.npz"), 2, "--proposals: --head faster makes its"),
        (("--head", "faster", "--size", "200"), 2, "--size 200: more than --max-size 128"),
        (("--head", "faster", "--batch", "3", "--accumulate", "2"), 2, "--batch 3 is no multiple"),
        (("--head", "faster", "--freeze", "conv5"), 1, "--freeze conv5: the body of random:tiny"),
    ],
)
def test_what_is_refused(folder, words, status, said):
    _, err = train(folder, *words, status=status)
    assert err.startswith(f"train-detector: {said}") and err.count("\n") == 1
    assert not (folder / "d.pt").exists()
