"""ResNet-50: torchvision's own network gives the same maps, numpy the same averages."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from ssl_common.models import registry
from ssl_common.pretext import jigsaw

# Layer -> torchvision's node, the map for 224 x 224, and the features (extract-features(1)).
LAYERS = {
    "conv1": ("relu", (64, 112, 112), 9216),
    "pool1": ("maxpool", (64, 56, 56), 9216),
    "res2": ("layer1", (256, 56, 56), 9216),
    "res3": ("layer2", (512, 28, 28), 8192),
    "res4": ("layer3", (1024, 14, 14), 9216),
    "res5": ("layer4", (2048, 7, 7), 8192),
    "pool5": ("avgpool", (2048, 1, 1), 2048),
}


@pytest.fixture(scope="module")
def maps():
    """(ours, theirs): the map of every layer for two images, with the same drawn weights."""
    trunk = registry.build("resnet50", 3)
    theirs = models.resnet50(weights=None)
    generator = torch.Generator().manual_seed(0)
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):  # else it would be the identity
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    # In the order of their networks: no name of ours is needed.
    for own, other in zip(trunk.state_dict().values(), theirs.state_dict().values(), strict=False):
        other.copy_(own)
    extractor = create_feature_extractor(theirs, {node: k for k, (node, *_) in LAYERS.items()})
    images = torch.randn(2, 3, 224, 224, generator=generator)
    with torch.no_grad():
        return trunk.eval().maps(list(trunk.pooling), images), extractor.eval()(images)


def test_every_map_is_torchvisions(maps):
    ours, theirs = maps
    assert list(ours) == list(theirs) == list(LAYERS)
    for layer, (_node, shape, _width) in LAYERS.items():
        assert ours[layer].shape == (2, *shape) and ours[layer].std() > 0
        torch.testing.assert_close(ours[layer], theirs[layer])
        assert (ours[layer] >= 0).all(), "after the ReLU"


def test_the_averages_are_numpys_without_the_padding(maps):
    """Windows written out as slices of the map, so that what lies outside is not in them."""
    trunk = registry.build("resnet50", 0)
    for layer, (_node, _shape, width) in LAYERS.items():
        found = maps[0][layer]
        pooled = trunk.pooled(layer, found)
        assert pooled[0].numel() == width
        kernel, stride, padding = trunk.pooling[layer]
        starts = [stride * i - padding for i in range(pooled.shape[-1])]
        windows = [slice(max(0, start), start + kernel) for start in starts]
        array = found.double().numpy()
        want = [[array[..., rows, columns].mean((2, 3)) for columns in windows] for rows in windows]
        want = np.moveaxis(np.array(want), (0, 1), (2, 3))
        np.testing.assert_allclose(pooled.numpy(), want, rtol=1e-4, atol=1e-6)
    assert trunk.pooling["conv1"] == (10, 10, 4) and trunk.pooling["pool1"] == (5, 5, 2)


def test_the_stride_is_in_the_3_x_3_and_the_weights_are_msra():
    trunk = registry.build("resnet50", 0)
    block = trunk.res3[0]
    assert (block.conv1.stride, block.conv2.stride, block.conv3.stride) == ((1, 1), (2, 2), (1, 1))
    assert {m.eps for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}
    convolutions = [m for m in trunk.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 53
    for convolution in convolutions:  # MSRA by the outputs: variance 2 / (k k filters)
        fan_out = convolution.out_channels * convolution.kernel_size[0] ** 2
        assert convolution.weight.var().item() * fan_out / 2 == pytest.approx(1, abs=0.06)


def test_the_jigsaw_network_learns_through_it():
    network = jigsaw.JigsawNet(registry.build("resnet50", 0), 5).train()
    assert network.fc6.in_features == 2048
    tiles = torch.randn(2, 9, 3, 64, 64)
    logits = network(tiles)
    assert logits.shape == (2, 5)
    nn.functional.cross_entropy(logits, torch.tensor([0, 3])).backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert all(grad is not None and grad.abs().sum() > 0 for grad in gradients.values())
    # A 64 x 64 tile ends in a map of 2 x 2, which is averaged.
    with torch.no_grad():
        found = network.trunk.eval().maps(["res5", "pool5"], tiles[0])
    assert found["res5"].shape == (9, 2048, 2, 2)
    torch.testing.assert_close(found["pool5"], found["res5"].mean((2, 3), keepdim=True))


def test_torchvision_is_not_imported_for_another_network(run):
    body = """
import sys
from ssl_common.models import registry
registry.build("alexnet", 0)
assert "torchvision" not in sys.modules
registry.build("resnet50", 0)
assert "torchvision" in sys.modules
"""
    run("python", "-c", body, check=0)


@pytest.mark.slow
def test_pretrain_and_extract(run, scratch):
    lines = (scratch / "train.tsv").read_text().splitlines(keepends=True)
    (scratch / "eight.tsv").write_text("".join(lines[:8]))
    options = ["--arch", "resnet50", "--epochs", "2", "--batch", "4", "--device", "cpu", "-j", "0"]
    argv = ["pretrain", "jigsaw", "eight.tsv", "--permutations", "p4.npy", "-o", "r.pt"]
    done = run(*argv, *options, cwd=scratch, check=0)
    log = [json.loads(line) for line in done.stdout.splitlines()]
    assert log[-1]["step"] == 4 and np.isfinite(log[-1]["loss"])
    run("extract-features", "r.pt", "test.tsv", "-o", "f/", "-j", "0", cwd=scratch, check=0)
    for layer, (_node, _shape, width) in LAYERS.items():
        features = np.load(scratch / f"f/{layer}.npy")
        assert features.shape == (4, width) and np.isfinite(features).all() and features.std() > 0
    sidecar = json.loads((scratch / "f/res4.npy.json").read_text())
    assert (sidecar["arch"], sidecar["pretext"], sidecar["images"]) == ("resnet50", "jigsaw", 8)
