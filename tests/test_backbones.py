"""Networks of torchvision by name: their maps, the rule of the grid, their files."""

import subprocess

import numpy as np
import pytest
import torch
from conftest import BIN, environment
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from ssl_common.evaluation import features
from ssl_common.models import registry, weights
from ssl_common.models.backbones import Backbone
from ssl_common.streams import DataError

# Network -> its layers, as far as they are told here, each with channels, side and grid.
NETWORKS = {
    "resnet18": {"relu": (64, 112, 12), "layer1": (64, 56, 12), "layer4": (512, 7, 4)},
    "vgg11": {"features.1": (64, 224, 12), "features.20": (512, 7, 4)},
    "densenet121": {"features.denseblock1": (256, 56, 6), "features.denseblock3": (1024, 14, 3)},
    "mobilenet_v3_small": {"features.1": (16, 56, 24), "features.12": (576, 7, 4)},
    "convnext_tiny": {"features.1": (96, 56, 10), "features.7": (768, 7, 3)},
    "swin_t": {"features.1": (96, 56, 10), "features.5": (384, 14, 5), "features.7": (768, 7, 3)},
    "shufflenet_v2_x0_5": {"stage2": (48, 28, 14), "conv5": (1024, 7, 3)},
}

FAST = ("resnet18", "mobilenet_v3_small")


@pytest.mark.parametrize(
    "arch",
    [arch if arch in FAST else pytest.param(arch, marks=pytest.mark.slow) for arch in NETWORKS],
)
def test_maps_are_those_of_torchvision(arch):
    trunk = registry.build(arch, 3).eval()
    torch.manual_seed(3)
    theirs = models.get_model(arch, weights=None).eval()  # the head comes last of what is drawn
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    layers = list(trunk.pooling)
    with torch.no_grad():
        found = registry.maps(trunk, images, layers)
        want = create_feature_extractor(theirs, layers).eval()(images)
    assert list(found) == layers
    sides = [found[layer].shape[-1] for layer in layers]
    assert sides == sorted(set(sides), reverse=True), "one layer for each size"
    for layer in layers:
        ours, other = found[layer], want[layer]
        other = other.permute(0, 3, 1, 2) if arch == "swin_t" else other
        torch.testing.assert_close(ours, other)
        channels, side = ours.shape[1:3]
        grid = trunk.pooling[layer]
        # The largest square of no more than 9,600 numbers, and no more places than the map has.
        assert grid == max(g for g in range(1, side + 1) if g == 1 or g * g * channels <= 9600)
        assert registry.pooled(trunk, layer, ours).shape == (2, channels, grid, grid)
    for layer, (channels, side, grid) in NETWORKS[arch].items():
        assert found[layer].shape[1:] == (channels, side, side) and trunk.pooling[layer] == grid


def test_the_blocks_of_a_vision_transformer_are_its_patches():
    trunk = registry.build("vit_b_32", 3).eval()
    assert list(trunk.pooling) == [f"encoder.layers.encoder_layer_{i}" for i in range(12)]
    assert set(trunk.pooling.values()) == {3}  # 768 x 3 x 3 is 6,912, 768 x 4 x 4 is 12,288
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    name = "encoder.layers.encoder_layer_11"
    with torch.no_grad():
        found = registry.maps(trunk, images, [name])[name]
        tokens = create_feature_extractor(trunk.network, [name])(images)[name]
    assert tokens.shape == (1, 1 + 49, 768) and found.shape == (1, 768, 7, 7)
    for row, column in ((0, 0), (2, 5), (6, 6)):
        torch.testing.assert_close(found[0, :, row, column], tokens[0, 1 + 7 * row + column])


@pytest.mark.slow
@pytest.mark.parametrize("arch", [a for a in models.list_models(module=models) if "h_14" not in a])
def test_every_network_of_torchvision_has_layers(arch):
    trunk = Backbone(arch)
    assert len(trunk.pooling) >= 3
    assert all(grid >= 1 for grid in trunk.pooling.values())


def test_a_file_of_weights(tmp_path):
    torch.manual_seed(5)
    theirs = models.resnet18(num_classes=7).eval()
    state = {f"module.backbone.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.pth")
    layers = features.Layers(f"torchvision:resnet18:{tmp_path}/w.pth", ["layer4"], 0)
    assert layers.left_out == "; left out fc.bias, fc.weight"
    pixels = torch.randint(256, (2, 3, 224, 224), dtype=torch.uint8)
    preset = models.ResNet18_Weights.IMAGENET1K_V1.transforms(crop_size=224, resize_size=224)
    with torch.no_grad():
        want = create_feature_extractor(theirs, ["layer4"])(preset(pixels))["layer4"].double()
    found = layers(pixels)["layer4"].numpy()
    # 7 places in 4: each averages 2, at 0, 1, 3 and 5 (from floor(7 i / 4) to ceil(7 (i + 1) / 4)).
    spans = [slice(7 * i // 4, -(-7 * (i + 1) // 4)) for i in range(4)]
    want = np.array([[want[..., a, b].mean((2, 3)).numpy() for b in spans] for a in spans])
    np.testing.assert_allclose(found, np.moveaxis(want, (0, 1), (2, 3)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ("resnet34", "layer1.2.conv1.weight, for which the trunk of resnet18 has no place"),
        ("resnet50", "layer1.0.conv1.weight is real 64 x 64 x 1 x 1, not real 64 x 64 x 3 x 3"),
        ("mobilenet_v2", "w.pth: not the weights of torchvision's resnet18"),
    ],
)
def test_another_network_is_refused(tmp_path, theirs, message):
    torch.save(models.get_model(theirs, weights=None).state_dict(), tmp_path / "w.pth")
    with pytest.raises(DataError, match=message):
        weights.torchvision("resnet18", str(tmp_path / "w.pth"))


def test_the_layers_are_shown(tmp_path):
    done = subprocess.run(
        [BIN / "extract-features", "random:squeezenet1_1", "--show-layers", "-q"],
        env=environment(), cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.decode().splitlines() == [
        "features.1\t64 x 111 x 111\t64 x 12 x 12",
        "features.4\t128 x 55 x 55\t128 x 8 x 8",
        "features.7\t256 x 27 x 27\t256 x 6 x 6",
        "features.12\t512 x 13 x 13\t512 x 4 x 4",
    ]
    done = subprocess.run(
        [BIN / "extract-features", "random:alexnet", "--layer", "conv3", "--show-layers", "-q"],
        env=environment(), cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == b"conv3\t384 x 26 x 26\t384 x 5 x 5\n"
