"""extract-features as a real process, against the layers applied by hand."""

import json

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as vision
from PIL import Image
from test_pretrain import save_bomb

from ssl_common.data.manifest import Manifest
from ssl_common.models import registry

CONV3 = ["extract-features", "random:alexnet", "test.tsv", "--layer", "conv3"]


def by_hand(paths, seed, side=14, stride=3):
    """Features of conv3 by torchvision's transforms, numpy's average and the layers in turn."""
    trunk = registry.build("alexnet", seed).eval()
    rows = []
    for path in paths:
        image = Image.open(path)
        scale = 256 / min(image.size)
        image = image.resize([int(length * scale) for length in image.size], Image.BILINEAR)
        image = vision.pil_to_tensor(image.resize((227, 227), Image.BILINEAR)).float() / 255
        image = vision.normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])[None]
        with torch.no_grad():
            for stage in (trunk.conv1, trunk.pool1, trunk.conv2, trunk.pool2, trunk.conv3):
                image = stage(image)
        found = image[0].numpy()
        windows = np.lib.stride_tricks.sliding_window_view(found, (side, side), axis=(1, 2))
        rows.append(windows[:, ::stride, ::stride].mean((3, 4)).ravel())
    return np.stack(rows)


def test_features_and_sidecar(run, scratch):
    run(*CONV3, "--seed", "3", "-o", "f.npy", cwd=scratch, check=0)
    features = np.load(scratch / "f.npy")
    manifest = Manifest(str(scratch / "test.tsv"))
    want = by_hand([scratch / row.path for row in manifest], 3)
    assert features.shape == (4, 9600) and features.dtype == np.float32
    np.testing.assert_allclose(features, want, rtol=1e-3, atol=1e-4)
    sidecar = json.loads((scratch / "f.npy.json").read_text())
    assert sidecar["shape"] == [384, 5, 5] and sidecar["layer"] == "conv3"
    assert sidecar["manifest"] == manifest.digest() and sidecar["seed"] == 3
    assert (sidecar["arch"], sidecar["pretext"]) == ("alexnet", "random")
    assert sidecar["model"] == registry.weights_digest(registry.build("alexnet", 3))


def test_batch_workers_and_pipes_do_not_change_the_features(run, scratch):
    first = run(*CONV3, cwd=scratch, check=0).stdout
    again = run(*CONV3, "-j", "0", cwd=scratch, check=0).stdout
    assert first == again and first[:6] == b"\x93NUMPY"
    argv = ["extract-features", "random:alexnet", "-", "--layer", "conv3", "--batch", "1"]
    manifest = (scratch / "test.tsv").read_bytes()
    run(*argv, "-o", "one.npy", stdin=manifest, cwd=scratch, check=0)
    (scratch / "all.npy").write_bytes(first)
    one, whole = np.load(scratch / "one.npy"), np.load(scratch / "all.npy")
    np.testing.assert_allclose(one, whole, rtol=1e-5, atol=1e-5 * np.abs(whole).max())


def test_root(run, scratch, tmp_path):
    here = run(*CONV3, cwd=scratch, check=0).stdout
    argv = [arg if arg != "test.tsv" else scratch / arg for arg in CONV3]
    assert run(*argv, "--root", scratch, cwd=tmp_path, check=0).stdout == here


@pytest.mark.parametrize("kind", ["cut.jpg", "empty.jpg", "text.jpg", "gone.jpg"])
def test_an_unreadable_image_is_named_with_its_line(run, scratch, kind):
    jpeg = (scratch / "photos/cat/0.jpg").read_bytes()
    contents = {"cut.jpg": jpeg[: len(jpeg) // 2], "empty.jpg": b"", "text.jpg": b"no image"}
    if kind in contents:
        (scratch / kind).write_bytes(contents[kind])
    (scratch / "f.npy").write_bytes(b"what stood here before")
    with open(scratch / "test.tsv", "a") as stream:
        stream.write(f"{kind}\n")
    done = run(*CONV3, "-o", "f.npy", cwd=scratch, check=1)
    message = done.stderr.decode()
    assert message.startswith("extract-features: test.tsv:5: ") and kind in message
    assert message.count("\n") == 1
    assert (scratch / "f.npy").read_bytes() == b"what stood here before"
    assert not list(scratch.glob("*.partial"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["random:alexnet", "test.tsv", "--layer", "conv9"], "has no layer conv9: it has conv1,"),
        (["random:lenet", "test.tsv", "--layer", "conv1"], "lenet: no such network"),
        (["gone.pt", "test.tsv", "--layer", "conv1"], "gone.pt: No such file"),
        (["test.tsv", "test.tsv", "--layer", "conv1"], "test.tsv: not a file of pretrain"),
        (["bomb.pt", "test.tsv", "--layer", "conv1"], "bomb.pt: not a file of pretrain"),
    ],
)
def test_bad_models(run, scratch, argv, message):
    save_bomb(scratch / "bomb.pt", scratch / "exploded")
    done = run("extract-features", *argv, cwd=scratch, check=1)
    assert message in done.stderr.decode() and done.stderr.count(b"\n") == 1
    assert done.stdout == b"" and not (scratch / "exploded").exists()
