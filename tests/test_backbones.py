"""Networks of torchvision by name: their maps, the rule of the grid, their files."""

import contextlib
import dataclasses
import hashlib
import re
import subprocess
import types

import numpy as np
import pytest
import torch
from conftest import BIN, environment
from PIL import Image
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from ssl_common.data import augmentation
from ssl_common.evaluation import features
from ssl_common.models import backbones, registry
from ssl_common.models.foreign import conversion, recognition
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
        found = trunk.maps(layers, images)
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
        assert trunk.pooled(layer, ours).shape == (2, channels, grid, grid)
    for layer, (channels, side, grid) in NETWORKS[arch].items():
        assert found[layer].shape[1:] == (channels, side, side) and trunk.pooling[layer] == grid


def test_the_blocks_of_a_vision_transformer_are_its_patches():
    trunk = registry.build("vit_b_32", 3).eval()
    assert list(trunk.pooling) == [f"encoder.layers.encoder_layer_{i}" for i in range(12)]
    assert set(trunk.pooling.values()) == {3}  # 768 x 3 x 3 is 6,912, 768 x 4 x 4 is 12,288
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    name = "encoder.layers.encoder_layer_11"
    with torch.no_grad():
        found = trunk.maps([name], images)[name]
        tokens = create_feature_extractor(trunk.network, [name])(images)[name]
    assert tokens.shape == (1, 1 + 49, 768) and found.shape == (1, 768, 7, 7)
    for row, column in ((0, 0), (2, 5), (6, 6)):
        torch.testing.assert_close(found[0, :, row, column], tokens[0, 1 + 7 * row + column])


# ---- torchvision's own use of each of its networks ----------------------------------------------


@contextlib.contextmanager
def uninitialised(monkeypatch):
    """Let networks be made here without drawing weights, which takes longer than all else."""
    with monkeypatch.context() as patched:
        for name in dir(torch.nn.init):
            if name.endswith("_") and not name.startswith("_"):
                patched.setattr(torch.nn.init, name, lambda tensor, *_args, **_options: tensor)
        yield patched


def made(arch, options, monkeypatch):
    """Return the state of torchvision's network ARCH as it would be after training."""
    if arch in ("googlenet", "inception_v3"):
        options = {"init_weights": False}  # which takes a minute
    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.init, "trunc_normal_", torch.nn.init.normal_)  # quicker
        network, generator = models.get_model(arch, weights=None, **options), torch.Generator()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network.state_dict()


def theirs(arch, entry, state, monkeypatch):
    """Return torchvision's network ARCH with its weights ENTRY, which are STATE: none are fetched.

    It is built as torchvision builds a network that is to hold weights of its own.
    """
    with uninitialised(monkeypatch) as patched:
        patched.setattr(type(entry), "get_state_dict", lambda *_args, **_options: state)
        return models.get_model(arch, weights=entry).eval()


def check(arch, entry, folder, monkeypatch):
    """Compare extract-features' way from a file and 8-bit pixels with torchvision's own."""
    known = models.get_model_weights(arch)
    side = entry.transforms().crop_size[0]
    state = made(arch, {"image_size": side} if arch.startswith("vit_") else {}, monkeypatch)
    torch.save(state, folder / "w.pth")
    network, kept = theirs(arch, entry, state, monkeypatch), {}
    del state
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))
    # The weights' own transforms, on an image of their size: neither resized nor cropped.
    images = entry.transforms(resize_size=side)(image)[None]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    name = arch if entry is known.DEFAULT else f"{arch}-{entry.name}"
    with uninitialised(monkeypatch):
        trunk, settings = features.network(f"torchvision:{name}:{folder}/w.pth", 0)
    (folder / "w.pth").unlink()  # 2.5 GB, of the largest
    for layer in trunk.pooling:
        network.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output, layer=layer: kept.update({layer: output.clone()})
        )
    with torch.no_grad():
        network(images)
        del network
        found = features.maps(trunk.eval(), list(trunk.pooling), pixels)
    assert trunk.input_size == side and list(found) == list(trunk.pooling)
    assert settings["inferred"] == ["pretext"] and len(found) >= 3
    for layer, ours in found.items():
        want = kept[layer]
        if want.dim() == 3:  # the class token, and the patches row by row
            want = want[:, 1:].unflatten(1, (int((want.shape[1] - 1) ** 0.5), -1))
        if arch.startswith(("swin", "vit")):
            want = want.permute(0, 3, 1, 2)
        scale = want.abs().max()
        assert scale > 0 and (ours - want).abs().max() <= 1e-4 * scale, (arch, layer)
    return settings["arch"]


QUICK = ("alexnet", "googlenet", "mnasnet0_5", "swin_t")


@pytest.mark.parametrize("arch", QUICK)
def test_a_network_of_torchvision_is_used_as_torchvision_uses_it(arch, tmp_path, monkeypatch):
    named = check(arch, models.get_model_weights(arch).DEFAULT, tmp_path, monkeypatch)
    assert named == {"alexnet": "torchvision-alexnet"}.get(arch, arch)
    assert registry.build(named, 0).name == named


def uses():
    """Yield (arch, name of weights) of every network: its usual weights, and each that differs."""
    for arch in models.list_models(module=models):
        known, seen = models.get_model_weights(arch), set()
        for entry in (known.DEFAULT, *known):
            preset = entry.transforms()
            input = (preset.crop_size[0], *preset.mean, *preset.std)
            if input not in seen:
                yield arch, entry.name
            seen.add(input)


USES = [use for use in uses() if use[0] != "resnet50"]  # which is ours, and in test_weights


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "name"), USES)
def test_every_network_of_torchvision_is_used_as_it_says(arch, name, tmp_path, monkeypatch):
    check(arch, models.get_model_weights(arch)[name], tmp_path, monkeypatch)


def test_there_is_a_use_of_every_network():
    assert len({arch for arch, _name in USES}) == len(models.list_models(module=models)) - 1 >= 79
    assert ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1") in USES and (
        "vgg16",
        "IMAGENET1K_FEATURES",
    ) in USES


# ---- What a file does not hold ------------------------------------------------------------------


def test_a_file_of_torchvisions_own_is_known_by_its_digest(tmp_path, monkeypatch):
    """The names of its files end with their digest: such a one is fed as its weights are."""
    torch.save(models.vgg11().state_dict(), tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
    model = f"torchvision:vgg11:{tmp_path}/w.pth"
    assert features.network(model, 0)[1]["inferred"] == ["pretext"]
    other = models.VGG16_Weights.IMAGENET1K_FEATURES  # of other means and deviations
    named = dataclasses.replace(other.value, url=f"https://x.org/vgg-{digest[:8]}.pth")
    entry = types.SimpleNamespace(
        name="FEATURES", url=named.url, transforms=named.transforms, value=named
    )

    class Known(dict):
        DEFAULT = models.VGG11_Weights.DEFAULT
        __members__ = {"DEFAULT": DEFAULT, "FEATURES": entry}

        def __iter__(self):
            return iter([self.DEFAULT, entry])

    known = Known(Known.__members__)
    monkeypatch.setattr(backbones, "weights_of", lambda _arch: known)
    trunk, settings = features.network(model, 0)
    assert settings["arch"] == "vgg11-FEATURES" and "inferred" not in settings
    assert settings["pretext"] == "supervised"
    gray = features.maps(trunk.eval(), ["features.1"], torch.zeros(1, 3, 224, 224).byte())
    want = trunk.network.features[:2](-torch.tensor([0.48235, 0.45882, 0.40784]).view(1, 3, 1, 1)
                                      .expand(1, 3, 224, 224) * 255)  # fmt: skip
    torch.testing.assert_close(gray["features.1"], want.detach(), rtol=1e-4, atol=1e-3)


def test_all_files_of_torchvision_have_their_digest_in_their_name():
    for arch in models.list_models(module=models):
        for entry in models.get_model_weights(arch):
            (digest,) = re.findall(r"-([0-9a-f]{8,})\.pth$", entry.url)
            assert recognition.weights_by_digest(arch, f"{digest}{'0' * 16}"[:16]) == entry.name


def test_the_patches_of_a_vision_transformer_tell_its_size(tmp_path):
    """Its weights for 384 pixels have 24 x 24 places, and are no others of the same name."""
    network = models.vit_b_16(image_size=384, num_classes=2).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    trunk, settings = features.network(f"torchvision:vit_b_16:{tmp_path}/w.pth", 0)
    assert settings["arch"] == "vit_b_16-IMAGENET1K_SWAG_E2E_V1" and trunk.input_size == 384
    again = registry.restored(settings, trunk.state_dict(), "linear.pt")
    assert again.digest() == trunk.digest()


def renamed(state):
    """Return STATE by the names of torchvision's own files of DenseNet and ViT, which are old."""
    old = {r"(denselayer\d+\.(?:norm|conv))([12]\.)": r"\1.\2"}
    old |= {r"mlp\.0\.": "mlp.linear_1.", r"mlp\.3\.": "mlp.linear_2."}
    for new, before in old.items():
        state = {re.sub(new, before, name): value for name, value in state.items()}
    return state


@pytest.mark.parametrize("arch", ["densenet121", "vit_b_32"])
def test_the_old_names_of_torchvisions_files(arch, tmp_path, monkeypatch):
    state = models.get_model(arch, weights=None).state_dict()
    # Nor do they have counts, which is younger than they are.
    old = renamed({name: value for name, value in state.items() if "num_batches" not in name})
    assert set(old) != set(state)
    known = models.get_model_weights(arch)
    same = theirs(arch, known.DEFAULT, dict(old), monkeypatch).state_dict()  # as torchvision says
    torch.save(old, tmp_path / "w.pth")
    trunk, settings = features.network(f"torchvision:{arch}:{tmp_path}/w.pth", 0)
    for name, value in trunk.network.state_dict().items():
        assert torch.equal(value, same[name]), name
    assert settings["left_out"].startswith("; left out ")


@pytest.mark.parametrize(
    ("arch", "changed"),
    [("resnet18", False), ("efficientnet_b1", True), ("googlenet", True)],
)
def test_how_images_are_taken_is_of_the_models_identity(arch, changed):
    """Features that were made another way are another model's; the usual way changes no digest."""
    trunk = registry.build(arch, 0)
    state = trunk.state_dict()
    plain = hashlib.sha256()
    for name, tensor in state.items():
        plain.update(name.encode() + tensor.numpy().tobytes())
    assert (trunk.digest() != plain.hexdigest()[:16]) == changed


def test_large_images_are_not_made_small_first():
    """600 pixels come of a short side of 600, not of 256; and a middle of that size is there."""
    board = (np.indices((900, 1200)).sum(0) // 3 % 2 * 255).astype(np.uint8)
    image = torch.from_numpy(board)[..., None].expand(-1, -1, 3)
    warped = features.Warp(600)(image)
    assert warped.shape == (3, 600, 600) and warped.float().std() > 40  # 256 would leave gray
    assert features.Warp(224)(image).shape == (3, 224, 224)
    assert augmentation.side_crop(image, 600, False).shape == (600, 600, 3)
    assert augmentation.side_crop(image, 299, True).shape == (299, 299, 3)


# ---- Files --------------------------------------------------------------------------------------


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
        conversion.torchvision("resnet18", str(tmp_path / "w.pth"))


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
