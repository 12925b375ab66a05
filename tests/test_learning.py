"""Detectors learn: eight scenes by heart, and of others more than from labels that are shuffled."""

import json
import os

import numpy as np
import pytest
import torch
from conftest import cold
from test_detect import proposed, run
from test_train_detector import train

from ssl_common.data import images
from ssl_common.data.targets import ObjectList
from ssl_common.evaluation.detection import scoring
from ssl_common.models import networks, registry

SIZE = ("--size", "160", "--max-size", "240")


def trunk(folder, objects):
    """Write body.pt, an AlexNet that is not trained, whose batch norm has seen OBJECTS' images."""
    network = registry.build("alexnet", 0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all
    with torch.no_grad():
        for each in ObjectList(str(folder / objects)):
            pixels = images.read(each.path, str(folder)).permute(2, 0, 1)[None]
            network.train().maps(["conv5"], network.prepare(pixels))
    settings = {"arch": "alexnet", "pretext": "random", "seed": 0}
    content = {"format": 1, "settings": settings, "trunk": network.state_dict(), "head": {}}
    networks.save(str(folder / "body.pt"), content)


def precision(folder, objects, *words):
    """Return the mean average precision of d.pt, in percent, on the list OBJECTS."""
    out, _err = run(folder, "d.pt", objects, "-j", 0, *words)
    (folder / "found.jsonl").write_bytes(out)
    return scoring.evaluate(str(folder / "found.jsonl"), str(folder / objects), {})["value"]


@pytest.mark.slow
@pytest.mark.parametrize("head", ["fast", "faster"])
def test_eight_scenes_are_learned_by_heart(folder, head):
    objects = "scenes/objects.jsonl"
    trunk(folder, objects)
    given = ()
    if head == "fast":
        proposed(folder, objects)
        given = ("--proposals", "p.npz")
    words = ("--head", head, *given, *SIZE, "--fc", "1024", "--cache", "maps", "--batch", "2")
    train(folder, *words, "--lr", "0.005", model="body.pt", iterations=400)
    assert precision(folder, objects, *given) > 90


@pytest.mark.slow
def test_labels_that_are_right_teach_more_than_shuffled_ones(tmp_path):
    """On scenes that were not seen, with the same proposals."""
    folder = tmp_path
    cold(["make-scenes", "-n", "120", "-j", "0", "-o", "scenes", "-q"], folder)
    lines = (folder / "scenes/objects.jsonl").read_text().splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(lines[:60]))
    (folder / "test.jsonl").write_text("".join(lines[60:]))
    rows = [json.loads(line) for line in lines[:60]]
    every = np.concatenate([row["labels"] for row in rows])
    every = iter(np.random.default_rng(0).permutation(every).tolist())
    with open(folder / "shuffled.jsonl", "w", encoding="utf-8") as stream:
        for row in rows:
            labels = [next(every) for _ in row["labels"]]
            stream.write(json.dumps(row | {"labels": labels}) + "\n")
    trunk(folder, "train.jsonl")
    proposed(folder, "test.jsonl")
    os.rename(folder / "p.npz", folder / "test.npz")
    proposed(folder, "train.jsonl")
    words = ("--head", "fast", "--proposals", "p.npz", *SIZE, "--fc", "512", "--cache", "maps")
    values = []
    for objects in ("train.jsonl", "shuffled.jsonl"):
        options = {"model": "body.pt", "objects": objects, "iterations": 400}
        train(folder, *words, "--batch", "4", "--lr", "0.005", **options)
        values.append(precision(folder, "test.jsonl", "--proposals", "test.npz"))
        (folder / "d.pt").unlink()
    assert values[0] > 1.5 * values[1], values
