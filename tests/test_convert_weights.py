"""convert-weights: files as others left them give the features that their networks had."""

import json
import re

import caffe2
import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as vision
from conftest import save_bomb
from PIL import Image
from skimage.color import rgb2lab
from test_archives import BESIDE
from torch.nn import functional
from torchvision import models

from ssl_common.evaluation import features
from ssl_common.models import networks, registry
from ssl_common.models.foreign import conversion, inspection, weights
from ssl_common.streams import DataError

BGR_MEAN, BGR_STD = (0.406, 0.456, 0.485), (0.225, 0.224, 0.229)  # of the paper's data_input
SIZES = {"resnet50": 224, "alexnet": 227, "caffenet": 227}
# Protocol 3: layer -> side, stride and padding of the averages, by network.
RESNET = {"conv1": (10, 10, 4), "pool1": (5, 5, 2), "res2": (16, 8, 0), "res3": (13, 5, 0)}
RESNET |= {"res4": (8, 3, 0), "res5": (6, 1, 0), "pool5": (1, 1, 0)}
JIGSAW = {"conv1": (28, 9, 0), "pool1": (6, 6, 3), "conv2": (24, 6, 0), "pool2": (4, 4, 0)}
JIGSAW |= {"conv3": (14, 3, 0), "conv4": (14, 3, 0), "conv5": (16, 2, 0), "pool5": (2, 2, 0)}
SLOW = {"conv1": (19, 4, 0), "conv2": (12, 3, 0), "conv3": (9, 1, 0), "conv4": (9, 1, 0)}
SLOW |= {"conv5": (8, 1, 0)}


def averages(found, side, stride, padding):
    """Average windows of maps N x C x H x W in numpy; what lies outside does not count."""
    found = found.double().numpy()
    count = (found.shape[-1] + 2 * padding - side) // stride + 1
    starts = [stride * i - padding for i in range(count)]
    windows = [slice(max(0, start), start + side) for start in starts]
    means = [[found[..., rows, columns].mean((2, 3)) for columns in windows] for rows in windows]
    return np.moveaxis(np.array(means), (0, 1), (2, 3))


def close(found, want):
    """Check that FOUND is WANT to 1e-5 of the largest."""
    assert found.shape == want.shape and np.abs(want).max() > 0
    assert np.abs(found - want).max() <= 1e-5 * np.abs(want).max()


@pytest.fixture(scope="module")
def theirs():
    """Return torchvision's ResNet-50 with statistics that batch norm cannot do without."""
    generator = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    network = models.resnet50(num_classes=5).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
            module.num_batches_tracked.fill_(2**25 + 1)
    return network


@pytest.fixture(scope="module")
def pixels():
    return torch.randint(256, (2, 3, 227, 227), generator=torch.Generator().manual_seed(3)).byte()


def converted(folder, blobs, name="w.pkl", **options):
    """Write BLOBS as Caffe2 does, convert them, and return the layers of the network."""
    caffe2.save(folder / name, blobs)
    found = weights.read(str(folder / name), **options)
    conversion.convert(found, str(folder / "w.pt"), "ssl-bench", {})
    return features.Layers(str(folder / "w.pt"), [], 0)


def standardized(pixels):
    """Return the float64 BGR images that the paper's code makes of uint8 RGB PIXELS."""
    images = pixels.flip(1).double() / 255
    return (images - torch.tensor(BGR_MEAN).view(3, 1, 1)) / torch.tensor(BGR_STD).view(3, 1, 1)


# ---- ResNet-50 ----------------------------------------------------------------------------------


def resnet_maps(network, images):
    """Return {layer: map} of torchvision's NETWORK, stage by stage."""
    found = {"conv1": network.relu(network.bn1(network.conv1(images)))}
    found["pool1"] = network.maxpool(found["conv1"])
    found["res2"] = network.layer1(found["pool1"])
    found["res3"] = network.layer2(found["res2"])
    found["res4"] = network.layer3(found["res3"])
    found["res5"] = network.layer4(found["res4"])
    found["pool5"] = found["res5"].mean((2, 3), keepdim=True)
    return found


@pytest.mark.slow
def test_features_of_the_jigsaw_resnet_are_those_of_torchvision(theirs, scratch, run):
    """As a process, from the file that Python 2 wrote to the features of photographs."""
    blobs = caffe2.jigsaw(theirs.state_dict(), 5000, np.random.default_rng(0))
    caffe2.save(scratch / "jigsaw.pkl", blobs)
    done = run("convert-weights", "jigsaw.pkl", "-o", "j.pt", cwd=scratch, check=0)
    said = done.stderr.decode()
    assert said.startswith("convert-weights: jigsaw.pkl: resnet50, jigsaw, 5,000 permutations: 265")
    assert said.count("\n") == 1 and "1728 of other towers, fc1_s0_b," in said
    run("extract-features", "j.pt", "test.tsv", "-o", "f/", "-j", "0", cwd=scratch, check=0)
    images = []
    for line in (scratch / "test.tsv").read_text().splitlines():
        image = vision.pil_to_tensor(Image.open(scratch / line.split("\t")[0]))
        scale = 256 / min(image.shape[1:])
        image = vision.resize(image, [int(side * scale) for side in image.shape[1:]])
        images.append(vision.resize(image, [224, 224]))
    # In BGR, as the network was trained: torchvision's own conv1 with its channels turned.
    network = models.resnet50(num_classes=5).double().eval()
    state = theirs.state_dict()
    network.load_state_dict(state | {"conv1.weight": state["conv1.weight"].flip(1)})
    with torch.no_grad():
        maps = resnet_maps(network, standardized(torch.stack(images)))
    for layer, window in RESNET.items():
        want = averages(maps[layer], *window).reshape(len(images), -1)
        close(np.load(scratch / f"f/{layer}.npy"), want)
    sidecar = json.loads((scratch / "f/res4.npy.json").read_text())
    assert (sidecar["arch"], sidecar["pretext"]) == ("resnet50", "jigsaw")
    assert (sidecar["permutations"], sidecar["images"], sidecar["data"]) == (5000, None, None)


def resnet_digest(folder, content, **options):
    """Return the digest of the trunk in CONTENT, pickled by torch or, for blobs, by Python 2."""
    if any(name.startswith("res2_") for name in content):
        caffe2.save(folder / "w", content)
    else:
        torch.save(content, folder / "w")
    return weights.read(str(folder / "w"), **options).trunk().digest()


@pytest.mark.slow
def test_every_kind_of_file_gives_the_same_resnet(theirs, tmp_path):
    state = {k: v for k, v in theirs.state_dict().items() if "num_batches" not in k}
    features_only = {f"_feature_blocks.{name}": tensor for name, tensor in state.items()}
    trunk = {f"trunk.{name}": tensor for name, tensor in features_only.items()}
    bgr = state | {"conv1.weight": state["conv1.weight"].flip(1)}
    want = resnet_digest(tmp_path, state)
    kinds = {
        "caffe2": caffe2.resnet(state),
        "its towers": caffe2.resnet(state, "_s0"),
        "vissl": {"classy_state_dict": {"base_model": {"model": {"trunk": features_only}}}},
        "vissl, the paper's": {"model_state_dict": state},
        "vissl, heads": {"classy_state_dict": {"base_model": {"model": trunk}}, "loss": 0.1},
        "moco": {"state_dict": {f"module.encoder_q.{name}": v for name, v in state.items()}},
    }
    for kind, content in kinds.items():
        assert resnet_digest(tmp_path, content) == want, kind
    assert resnet_digest(tmp_path, bgr, order="bgr") == want != resnet_digest(tmp_path, bgr)
    both = {"encoder_k": bgr, "encoder_q": state}
    assert resnet_digest(tmp_path, both, prefix="encoder_q") == want
    assert resnet_digest(tmp_path, both, prefix="encoder_k.") == resnet_digest(tmp_path, bgr)


def test_round_trips_are_exact(theirs, tmp_path):
    def convert(source, output, form):
        found = weights.read(str(tmp_path / source))
        conversion.convert(found, str(tmp_path / output), form, {})

    state = theirs.state_dict()
    torch.save(state, tmp_path / "a.pth")
    convert("a.pth", "b.pt", "ssl-bench")
    convert("b.pt", "c.pth", "torchvision")
    convert("a.pth", "d.pth", "torchvision")
    back = torch.load(tmp_path / "c.pth", weights_only=True)
    assert list(back) == [name for name in state if not name.startswith("fc.")]
    assert all(torch.equal(back[name], state[name]) for name in back)
    assert (tmp_path / "c.pth").read_bytes() == (tmp_path / "d.pth").read_bytes()
    # torchvision takes it.
    missing = models.resnet50(num_classes=5).load_state_dict(back, strict=False)
    assert missing == (["fc.weight", "fc.bias"], [])
    convert("c.pth", "e.pt", "ssl-bench")
    first, again = (
        networks.load_network(str(tmp_path / name))["trunk"] for name in ("b.pt", "e.pt")
    )
    assert list(first) == list(again) and all(torch.equal(first[k], again[k]) for k in first)


# ---- AlexNet ------------------------------------------------------------------------------------


def alexnet_maps(blobs, images, style):
    """Return {layer: map}: the paper's network in Caffe2's terms, from its BLOBS by their names.

    STYLE is (stride of conv1, names of a convolution and its batch norm, whether LRN).
    """
    stride, names, lrn = style
    blobs = {name: torch.from_numpy(blob).double() for name, blob in blobs.items()}
    found, options = {}, {1: {"stride": stride}, 2: {"padding": 2, "groups": 2}}
    options |= {3: {"padding": 1}, 4: {"padding": 1, "groups": 2}, 5: {"padding": 1, "groups": 2}}
    for layer in range(1, 6):
        name, norm = (part.format(layer) for part in names.split("/"))
        images = functional.conv2d(images, blobs[f"{name}_w"], blobs[f"{name}_b"], **options[layer])
        if f"{norm}_riv" in blobs:  # the variance, whatever its name says
            mean, var, scale, bias = (
                blobs[f"{norm}_{end}"].view(-1, 1, 1) for end in ("rm", "riv", "s", "b")
            )
            images = (images - mean) / (var + 1.0000001e-5).sqrt() * scale + bias
        found[f"conv{layer}"] = images = images.clamp(min=0)
        if layer in (1, 2, 5):
            if lrn and layer < 5:  # over five channels, whose mean square is scaled by alpha
                squares = functional.pad(images**2, (0, 0, 0, 0, 2, 2))
                total = sum(squares[:, i : i + images.shape[1]] for i in range(5))
                images = images / (1 + 1e-4 / 5 * total) ** 0.75
            found[f"pool{layer}"] = images = functional.max_pool2d(images, 3, 2)
    return found


def test_features_of_the_jigsaw_alexnet(tmp_path, pixels):
    blobs = caffe2.alexnet(np.random.default_rng(0), "conv{}_s0/conv{}_s0_bn", (3, 4, 5))
    found = converted(tmp_path, blobs | {"fc8_w": np.zeros((701, 4), np.float32)})(pixels)
    maps = alexnet_maps(blobs, standardized(pixels), (2, "conv{}_s0/conv{}_s0_bn", False))
    assert list(found) == list(JIGSAW)
    for layer, window in JIGSAW.items():
        close(found[layer].numpy(), averages(maps[layer], *window))
    settings = networks.load_network(str(tmp_path / "w.pt"))["settings"]
    assert (settings["arch"], settings["pretext"]) == ("alexnet", "jigsaw")
    assert settings["permutations"] == 701 and settings["converted"]["left_out"] == ["fc8_w"]


@pytest.mark.parametrize("npy", [False, True])
def test_features_of_caffenet(tmp_path, pixels, npy):
    """Its pixels are 0 to 255 in BGR, less the mean; response normalisation before pooling."""
    blobs = caffe2.alexnet(np.random.default_rng(1), "conv{}/", ())
    blobs["conv1_w"] /= 50  # else the normalisation is hardly seen, or all there is
    images = pixels.flip(1).double() - torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
    maps = alexnet_maps(blobs, images, (4, "conv{}/", True))
    if npy:
        np.save(tmp_path / "w.npy", blobs, allow_pickle=True)
        found = weights.read(str(tmp_path / "w.npy"))
        conversion.convert(found, str(tmp_path / "w.pt"), "ssl-bench", {})
        found = features.Layers(str(tmp_path / "w.pt"), [], 0)(pixels)
    else:
        found = converted(tmp_path, blobs)(pixels)
    assert list(found) == list(SLOW)
    for layer, window in SLOW.items():
        close(found[layer].numpy(), averages(maps[layer], *window))
    settings = networks.load_network(str(tmp_path / "w.pt"))["settings"]
    assert (settings["arch"], settings["pretext"]) == ("caffenet", "supervised")


def vissl(blobs, names):
    """Return the AlexNet BLOBS by VISSL's names and in its order of channels."""
    places, state = dict(zip(range(1, 6), (0, 2, 4, 5, 6), strict=True)), {}
    ends = {"w": "0.weight", "b": "0.bias"}, {"s": "weight", "b": "bias"}
    ends[1].update(rm="running_mean", riv="running_var")
    for layer, place in places.items():
        name, norm = (part.format(layer) for part in names.split("/"))
        for end, theirs in ends[0].items():
            state[f"{place}.{theirs}"] = blobs[f"{name}_{end}"]
        for end, theirs in ends[1].items():
            if f"{norm}_{end}" in blobs:
                state[f"{place}.1.{theirs}"] = blobs[f"{norm}_{end}"]
    if blobs[f"{names.split('/')[0].format(1)}_w"].shape[1] == 3:
        state["0.0.weight"] = state["0.0.weight"][:, ::-1].copy()
    return {f"_feature_blocks.{name}": torch.from_numpy(value) for name, value in state.items()}


ALEXNETS = {
    "jigsaw": ("conv{}_s0/conv{}_s0_bn", (3, 4, 5), 3),
    "colorization": ("conv{}/conv{}norm", (1, 2, 3, 4, 5), 1),
    "supervised": ("conv{}/none", (), 3),
}


@pytest.mark.parametrize("pretext", ALEXNETS)
def test_vissl_gives_the_same_alexnet(tmp_path, pretext):
    names, layers, channels = ALEXNETS[pretext]
    blobs = caffe2.alexnet(np.random.default_rng(2), names, layers, channels)
    caffe2.save(tmp_path / "w.pkl", blobs)
    torch.save({"model_state_dict": vissl(blobs, names)}, tmp_path / "w.torch")
    both = [weights.read(str(tmp_path / f"w.{end}")) for end in ("pkl", "torch")]
    first, second = (found.trunk().digest() for found in both)
    assert first == second and [found.network.pretext for found in both] == [pretext, pretext]
    assert both[0].left_out() == both[1].left_out() == []


# ---- Lightness alone ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coloured():
    """Return (uint8 RGB pixels 2 x 3 x 227 x 227, their L by scikit-image in 8 bits, float64).

    Of colours whose L is nearer to one of the 256 levels than to the next by more than the whole
    numbers of the 8-bit convention err, which is most in the dark.
    """
    colours = np.random.default_rng(4).integers(0, 256, (500_000, 3), np.uint8)
    levels = rgb2lab(colours)[:, 0] * 255 / 100
    clear = (np.abs(levels - np.rint(levels)) < 0.2) & (levels > 100)
    chosen = np.flatnonzero(clear)[: 2 * 227 * 227]
    pixels = torch.from_numpy(colours[chosen]).view(2, 227, 227, 3).permute(0, 3, 1, 2)
    return pixels, torch.from_numpy(np.rint(levels[chosen]) * 100 / 255).view(2, 1, 227, 227)


def test_features_of_the_colorization_alexnet(tmp_path, coloured):
    names, layers, channels = ALEXNETS["colorization"]
    blobs = caffe2.alexnet(np.random.default_rng(3), names, layers, channels)
    pixels, lightness = coloured
    want = alexnet_maps(blobs, lightness - 50, (4, names, False))
    found = converted(tmp_path, blobs)(pixels)
    assert list(found) == list(SLOW | {"pool5": ()})
    for layer, window in (SLOW | {"pool5": (1, 1, 0)}).items():
        close(found[layer].numpy(), averages(want[layer], *window))


def test_features_of_the_colorization_resnet(theirs, tmp_path, coloured):
    state = dict(theirs.state_dict())
    state["conv1.weight"] = state["conv1.weight"][:, :1]
    caffe2.save(tmp_path / "w.pkl", caffe2.resnet(state))
    found = weights.read(str(tmp_path / "w.pkl"))
    assert (found.network.arch, found.network.reads, found.network.pretext) == (
        "resnet50",
        "lab",
        "colorization",
    )
    # torchvision's network with one channel, and with res5 at the size of res4.
    network = models.resnet50(num_classes=5)
    network.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    network.layer4[0].conv2.stride = network.layer4[0].downsample[0].stride = (1, 1)
    network.load_state_dict(state)
    pixels, lightness = (each[..., :224, :224] for each in coloured)
    with torch.no_grad():
        want = resnet_maps(network.double().eval(), lightness - 50)
    assert want["res5"].shape == (2, 2048, 14, 14)
    conversion.convert(found, str(tmp_path / "w.pt"), "ssl-bench", {})
    found = features.Layers(str(tmp_path / "w.pt"), [], 0)(pixels)
    for layer, window in (RESNET | {"res5": (12, 2, 0)}).items():
        close(found[layer].numpy(), averages(want[layer], *window))


# ---- Accounts -----------------------------------------------------------------------------------


def test_every_name_is_used_or_listed(theirs, tmp_path):
    blobs = caffe2.jigsaw(theirs.state_dict(), 100, np.random.default_rng(0))
    caffe2.save(tmp_path / "w.pkl", blobs)
    said = [line.split("\t") for line in inspection.lines(weights.read(str(tmp_path / "w.pkl")))]
    about = {word: rest[0] for word, *rest in said if word not in ("used", "unused", "setting")}
    assert about["network"] == "resnet50" and about["pretext"] == "jigsaw"
    assert about["permutations"] == "100" and about["input"].startswith(
        "BGR, 0 to 1, less the mean"
    )
    assert about["layers"].split() == list(RESNET)
    assert about["parameters"].startswith("23508032 of the trunk")  # 25,557,032 less the classifier
    assert ["setting", "model_iter", "450450"] in said
    names = [rest[0] for word, *rest in said if word in ("used", "unused", "setting")]
    assert sorted(names) == sorted(blobs)
    used = {rest[0] for word, *rest in said if word == "used"}
    # Of the trunk, and the first tower's: res2 ... res5 are no towers for the s in their names.
    pattern = re.compile(r"(conv1|res_conv1_bn|res\d_\d_branch\w+?)_s0_(w|s|b|rm|riv)")
    assert used == {name for name in blobs if pattern.fullmatch(name)} and len(used) == 265
    assert "wrong" not in about and "unusual" not in about


def test_a_file_without_towers_is_not_mistaken_for_one(theirs, tmp_path):
    """res2 ends in "s2": what looks for s1 to s8 as a part of a name would drop all of it."""
    blobs = caffe2.resnet(theirs.state_dict())
    blobs |= {"pred_w": np.zeros((1000, 2048), np.float32), "pred_b": np.zeros(1000, np.float32)}
    caffe2.save(tmp_path / "w.pkl", blobs)
    found = weights.read(str(tmp_path / "w.pkl"))
    assert (found.network.pretext, found.network.permutations, found.wrong) == (
        "supervised",
        None,
        [],
    )
    assert len(found.taken) == 265 and found.left_out() == ["pred_b", "pred_w"]


CHANGES = {
    "missing": ("conv3_s0_bn_riv", None, "Caffe2's alexnet: no conv3_bn_riv$"),
    "missing last": ("conv5_s0_w", None, "Caffe2's alexnet: no conv5_w$"),
    "of the second tower": ("conv4_s0_w", "conv4_s1_w", "Caffe2's alexnet: no conv4_w$"),
    "misshapen": ("conv2_s0_w", np.zeros((256, 96, 5, 5), np.float32), "conv2_s0_w is real 256 x"),
    "integers": ("conv2_s0_b", np.zeros(256, np.int32), "conv2_s0_b is integer 256, not real 256"),
    "one more": ("conv1_s0_bn_s", np.ones(96, np.float32), "alexnet: conv1_s0_bn_s, for which the"),
    "twice": ("conv1_w", np.zeros((96, 3, 11, 11), np.float32), "both conv1_s0_w and conv1_w: "),
    "text": ("conv5_s0_b", 3, "conv5_s0_b is int, not real 256"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_is_named(tmp_path, change):
    name, value, message = CHANGES[change]
    blobs = caffe2.alexnet(np.random.default_rng(0), "conv{}_s0/conv{}_s0_bn", (3, 4, 5))
    if value is None:
        del blobs[name]
    elif isinstance(value, str):
        blobs[value] = blobs.pop(name)
    else:
        blobs[name] = value
    caffe2.save(tmp_path / "w.pkl", blobs)
    with pytest.raises(DataError, match=f"w.pkl: .*{message}") as caught:
        weights.read(str(tmp_path / "w.pkl")).trunk()
    assert "\n" not in str(caught.value)


def test_oddities_are_told_and_what_no_network_has_is_refused(tmp_path):
    blobs = caffe2.alexnet(np.random.default_rng(0), "conv{}_s0/conv{}_s0_bn", (3, 4, 5))
    blobs["conv1_s0_b"] = blobs["conv1_s0_b"].astype(np.float64)
    caffe2.save(tmp_path / "w.pkl", blobs)
    assert weights.read(str(tmp_path / "w.pkl")).unusual == ["conv1_s0_b is float64"]
    halves = {name: blob.astype(np.float16) for name, blob in blobs.items()}
    caffe2.save(tmp_path / "w.pkl", halves)
    assert weights.read(str(tmp_path / "w.pkl")).unusual == ["22 weights are float16"]
    blobs["conv3_s0_bn_riv"][7] = -1
    blobs["conv2_s0_w"][0, 0, 0, 0] = np.nan
    blobs["conv1_s0_b"][0] = 1e300  # beyond what the network will hold
    blobs["fc8_w"] = np.full((9, 4), np.nan, np.float32)  # of no use here
    caffe2.save(tmp_path / "w.pkl", blobs)
    found = weights.read(str(tmp_path / "w.pkl"))
    assert set(found.wrong) == {
        "conv3_s0_bn_riv holds negative variances",
        "conv2_s0_w holds NaN or infinity",
        "conv1_s0_b holds NaN or infinity",
    }
    assert "wrong\tconv3_s0_bn_riv holds negative variances" in list(inspection.lines(found))
    with pytest.raises(DataError, match="holds NaN or infinity, and 2 more like it$"):
        conversion.convert(found, str(tmp_path / "w.pt"), "ssl-bench", {})
    assert not (tmp_path / "w.pt").exists()


# ---- The command --------------------------------------------------------------------------------


def test_tags_become_settings(tmp_path, run):
    torch.save(
        vissl(caffe2.alexnet(np.random.default_rng(0), "conv{}/", ()), "conv{}/"), tmp_path / "w"
    )
    tags = ["--tag", "data_name=imagenet-1k", "--tag", "images=1281167"]
    run("convert-weights", "w", *tags, "-o", "w.pt", check=0)
    settings = networks.load_network(str(tmp_path / "w.pt"))["settings"]
    assert (settings["data_name"], settings["images"]) == ("imagenet-1k", 1281167)


def test_what_stands_beside_the_weights_makes_no_file_that_we_refuse(tmp_path):
    """Numbers, text and names that a file of ours does not hold stay out of its settings."""
    state = vissl(caffe2.alexnet(np.random.default_rng(0), "conv{}/", ()), "conv{}/")
    odd = {"half \ud800": 1, "half": "\ud800", "large": 2**200, "none": float("nan"), "deep": {}}
    odd |= {"of \ud800": torch.ones(2), "list": [1, 2], "objects": [object, {"a": 1}]}
    torch.save(BESIDE | odd | {"model_state_dict": state}, tmp_path / "w.torch")
    found = weights.read(str(tmp_path / "w.torch"))
    conversion.convert(found, str(tmp_path / "w.pt"), "ssl-bench", {})
    trunk, settings = features.network(str(tmp_path / "w.pt"), 0)
    assert trunk.digest() == found.trunk().digest()
    said = settings["converted"]["settings"]
    assert (said["namespace.lr"], said["number"], said["objects.1.a"]) == (0.3, 60.6, 1)
    assert settings["converted"]["left_out"] == ["of \\ud800"]


PRETEXTS = {
    # what a file holds, its tags -> pretext, permutations, and whether the pretext is inferred
    "caffenet": (lambda: {"conv{}/": ()}, {}, "supervised", None, True),
    "caffenet, told": (lambda: {"conv{}/": ()}, {"pretext": "random"}, "random", None, False),
    "jigsaw": (lambda: {"conv{}_s0/conv{}_s0_bn": (3, 4, 5)}, {}, "jigsaw", 701, True),
    "jigsaw, told": (
        lambda: {"conv{}_s0/conv{}_s0_bn": (3, 4, 5)}, {"pretext": "jigsaw"}, "jigsaw", 701, False,
    ),
    "jigsaw, it is not": (
        lambda: {"conv{}_s0/conv{}_s0_bn": (3, 4, 5)}, {"pretext": "rotation"}, "rotation", None,
        False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", PRETEXTS)
def test_a_tag_wins_over_what_the_names_suggest(tmp_path, kind):
    made, tags, pretext, permutations, inferred = PRETEXTS[kind]
    ((names, layers),) = made().items()
    blobs = caffe2.alexnet(np.random.default_rng(0), names, layers)
    caffe2.save(tmp_path / "w.pkl", blobs | {"fc8_w": np.zeros((701, 4), np.float32)})
    conversion.convert(
        weights.read(str(tmp_path / "w.pkl")), str(tmp_path / "w.pt"), "ssl-bench", tags
    )
    settings = networks.load_network(str(tmp_path / "w.pt"))["settings"]
    assert (settings["pretext"], settings["permutations"]) == (pretext, permutations)
    assert settings.get("inferred") == (["pretext"] if inferred else None)


@pytest.mark.parametrize("tag", [{"arch": "resnet50"}, {"reads": "lab"}, {"permutations": "5"}])
def test_a_tag_does_not_win_over_what_the_file_says(tmp_path, tag):
    names = ("conv{}_s0/conv{}_s0_bn", (3, 4, 5))
    blobs = caffe2.alexnet(np.random.default_rng(0), *names)
    caffe2.save(tmp_path / "w.pkl", blobs | {"fc8_w": np.zeros((701, 4), np.float32)})
    with pytest.raises(DataError, match=r"^--tag \w+=\w+: \S+w.pkl says \w+$"):
        conversion.convert(weights.read(str(tmp_path / "w.pkl")), "-", "ssl-bench", tag)


def test_two_networks_of_which_one_is_bare(tmp_path):
    """And names that stand inside a network and outside of it, as of an epoch."""
    state = vissl(caffe2.alexnet(np.random.default_rng(0), "conv{}/", ()), "conv{}/")
    other = {name: value + 1 for name, value in state.items()}
    torch.save({"ema": state | {"epoch": 1}, "epoch": 5} | other, tmp_path / "w.torch")
    with pytest.raises(DataError, match="2 networks, ema and one bare: choose by --prefix$"):
        weights.read(str(tmp_path / "w.torch"))
    found = weights.read(str(tmp_path / "w.torch"), prefix="ema")
    trunk = found.trunk().state_dict()
    want = state["_feature_blocks.0.0.bias"]
    assert torch.equal(trunk["conv1.0.bias"], want) and found.settings() == {
        "epoch": 1,
        "/epoch": 5,
    }
    assert len(found.left_out()) == len(state) and found.left_out()[0].startswith("/_feature_bl")


def test_a_linear_probe_is_not_called_supervised(theirs, tmp_path):
    """A checkpoint with a classifier: of labels, or of a frozen trunk; it does not say which."""
    state = {f"module.{name}": value for name, value in theirs.state_dict().items()}
    content = {"epoch": 100, "arch": "resnet50", "state_dict": state, "best_acc1": np.float64(60.6)}
    torch.save(content, tmp_path / "w.pth")
    for tags, pretext in (({}, None), ({"pretext": "moco"}, "moco")):
        found = weights.read(str(tmp_path / "w.pth"))
        conversion.convert(found, str(tmp_path / "w.pt"), "ssl-bench", tags)
        settings = networks.load_network(str(tmp_path / "w.pt"))["settings"]
        assert settings["pretext"] == pretext and "inferred" not in settings
    trunk, settings = features.network(f"torchvision:resnet50:{tmp_path}/w.pth", 0)
    assert settings["pretext"] is None


def test_no_name_forges_a_line_of_inspect(tmp_path, run):
    content = {
        "a\nused\tfc\treal 1\tfc": torch.ones(2),
        "b\x1b[2J": "x\u202e\r\n",
        "c": torch.ones(2),
    }
    torch.save({"w": content}, tmp_path / "w.pth")
    done = run("convert-weights", "--inspect", "w.pth", check=0)
    lines = done.stdout.decode().splitlines()
    assert "unused\t" + r"w.a\nused\tfc\treal 1\tfc" + "\treal 2" in lines
    assert "setting\t" + r"w.b\x1b[2J" + "\t" + r"x\u202e\r\n" in lines
    assert not [line for line in lines if line.startswith("used")] and b"\x1b" not in done.stdout


@pytest.fixture
def bad(tmp_path):
    """Return a folder of files that are no weights, or none that can be had."""
    save_bomb(tmp_path / "bomb.pt", tmp_path / "exploded")
    # What pickle writes of os.system, in as many bytes as its name has.
    command = f"touch {tmp_path}/exploded".encode()
    call = b"X" + len(command).to_bytes(4, "little") + command
    (tmp_path / "bomb.pkl").write_bytes(b"\x80\x02cposix\nsystem\n" + call + b"\x85R.")
    (tmp_path / "test.tsv").write_text("a.jpg\tcat\n")
    (tmp_path / "photos").mkdir()
    np.save(tmp_path / "p4.npy", np.zeros((4, 9), np.int64))
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "new.pth", pickle_protocol=4)
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "alone.pth")
    trunk = registry.build("alexnet", 0).state_dict()
    settings = {"arch": "alexnet", "pretext": "jigsaw"}
    torch.save({"format": 1, "settings": settings, "trunk": trunk}, tmp_path / "model.pt")
    return tmp_path


def test_bad_files(bad):
    messages = {
        "test.tsv": "test.tsv: not a file of weights, but text: 'a.jpg",
        "bomb.pt": "bomb.pt: a pickle that asks for posix.system, and has no weights",
        "bomb.pkl": "bomb.pkl: a pickle that asks for posix.system, and has no weights; nothing",
        "p4.npy": "p4.npy: one array, not a network",
        "new.pth": "new.pth: no network known here, its weights are a.weight",
        "alone.pth": "alone.pth: no network known here, its weights are a.weight",
        "model.pt": "model.pt: a network of ours",
    }
    for name, message in messages.items():
        with pytest.raises(DataError, match=message) as caught:
            conversion.convert(weights.read(str(bad / name)), str(bad / "out.pt"), "ssl-bench", {})
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="model.pt: torchvision has no alexnet like this one"):
        conversion.convert(
            weights.read(str(bad / "model.pt")), str(bad / "out.pt"), "torchvision", {}
        )
    assert not (bad / "out.pt").exists() and not (bad / "exploded").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.pkl", "gone.pkl: No such file or directory"),
        ("photos", "photos: a folder without config.json and model.safetensors"),
        ("bomb.pkl", "bomb.pkl: a pickle that asks for posix.system"),
    ],
)
def test_bad_files_in_one_line(bad, run, name, message):
    (bad / "out.pt").write_bytes(b"old")
    done = run("convert-weights", name, "-o", "out.pt", check=1)
    assert message in done.stderr.decode() and done.stderr.count(b"\n") == 1
    assert (bad / "out.pt").read_bytes() == b"old" and not (bad / "exploded").exists()
