"""Networks in the forms of others: what torchvision, timm, detectron2 and the Hub make of them."""

import json
import os
import re

import pytest
import safetensors
import safetensors.torch
import tiny  # noqa: F401 (networks of few layers)
import torch
import yaml
from torch import nn
from torch.nn import functional
from torchvision import models

from ssl_common import streams
from ssl_common.evaluation import features
from ssl_common.models import networks, registry
from ssl_common.models.foreign import conversion, inspection, metadata, weights
from ssl_common.models.foreign import safetensors as ours
from ssl_common.reporting import cards
from ssl_common.streams import DataError

SETTINGS = {"pretext": "jigsaw", "permutations": 2000, "images": 1_281_167, "data": "0f0e0d0c"}
SETTINGS |= {"data_name": "imagenet-1k", "seed": 3, "steps": 5000, "license": "cc-by-4.0"}
SETTINGS |= {"drops": [[0.3, 0.1], [0.6, 0.01]], "warm_up": None, "reads": "rgb"}


def save(path, trunk, **settings):
    """Write TRUNK to PATH as pretrain does."""
    arch = trunk.name.removesuffix("-lab")
    content = {"format": 1, "settings": SETTINGS | {"arch": arch, "reads": trunk.reads} | settings}
    networks.save(str(path), content | {"trunk": trunk.state_dict(), "head": {}})


def shaken(trunk):
    """Return TRUNK with statistics that batch norm cannot do without."""
    generator = torch.Generator().manual_seed(7)
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.num_batches_tracked.fill_(2**25 + 1)
    return trunk.eval()


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """Return a folder with a ResNet-50 in every form, {form: its file}, and the lines printed."""
    folder = tmp_path_factory.mktemp("forms")
    save(folder / "n.pt", shaken(registry.build("resnet50", 0)))
    files, lines = {"ssl-bench": folder / "n.pt"}, {}
    for form in conversion.FORMS[1:]:
        # torch.load goes by the name: it takes what is called .safetensors for that.
        ending = "pth" if form in ("torchvision", "detectron2") else "safetensors"
        files[form] = folder / ("hub" if form == "hub-dir" else f"n-{form}.{ending}")
        found = weights.read(str(folder / "n.pt"))
        _report, lines[form] = cards.convert(found, str(files[form]), form, {}, ())
    return files, lines


@pytest.fixture(scope="module")
def network(forms):
    """Return (torchvision's ResNet-50 without its head with those weights, its logits, images)."""
    theirs = models.resnet50(weights=None)
    theirs.fc = nn.Identity()
    state = torch.load(forms[0]["torchvision"], weights_only=True)
    theirs.load_state_dict(state, strict=True)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return theirs.eval(), theirs(images), images


# ---- Out ----------------------------------------------------------------------------------------


def test_torchvision_and_timm_load_them_strictly_and_compute_the_same(forms, network):
    import timm

    files, _lines = forms
    _theirs, logits, images = network
    trunk = registry.restored(
        {"arch": "resnet50"}, networks.load_network(str(files["ssl-bench"]))["trunk"], "n"
    )
    with torch.no_grad():
        torch.testing.assert_close(trunk.eval()(images).flatten(1), logits)
        options = {"num_classes": 0, "checkpoint_path": str(files["timm"])}  # strict is its default
        assert torch.equal(timm.create_model("resnet50", **options).eval()(images), logits)
        hub = timm.create_model(f"local-dir:{files['hub-dir']}", pretrained=True).eval()
        assert torch.equal(hub(images), logits)
    config = timm.data.resolve_model_data_config(hub)
    assert tuple(config["mean"]) == (0.485, 0.456, 0.406) and config["crop_mode"] == "squash"
    assert tuple(config["input_size"]) == (3, 224, 224) and hub.num_features == 2048


def detectron2_names(prefix, last):
    """Yield the names and shapes in detectron2's ResNet-50 (modeling/backbone/resnet.py).

    Stages up to 4 stand below PREFIX, res5 below LAST.
    """

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield f"{name}.norm.{part}", (channels,)

    yield f"{prefix}stem.conv1.weight", (64, 3, 7, 7)
    yield from norm(f"{prefix}stem.conv1", 64)
    inside = 64
    for stage, blocks, width in ((2, 3, 64), (3, 4, 128), (4, 6, 256), (5, 3, 512)):
        for block in range(blocks):
            name = f"{last if stage == 5 else prefix}res{stage}.{block}"
            sides = {"conv1": (width, inside, 1), "conv2": (width, width, 3)}
            sides["conv3"] = (4 * width, width, 1)
            if not block:
                sides["shortcut"] = (4 * width, inside, 1)
            for part, (out, into, side) in sides.items():
                yield f"{name}.{part}.weight", (out, into, side, side)
                yield from norm(f"{name}.{part}", out)
            inside = 4 * width


@pytest.mark.parametrize(
    ("prefix", "last"),
    [("backbone.bottom_up.", "backbone.bottom_up."), ("backbone.", "roi_heads.")],
)
def test_detectron2_matches_every_weight_by_the_ends_of_names(forms, network, prefix, last):
    """Its rule: of the names that the model's ends with, behind a dot, the longest is taken.

    One that two of the model end with is an error there (checkpoint/c2_model_loading.py).
    """
    theirs = network[0].state_dict()
    content = torch.load(forms[0]["detectron2"], weights_only=True)
    assert content["matching_heuristics"] is True and content["__author__"] != "Caffe2"
    others = dict.fromkeys(("rpn_head.conv.weight", "box_head.fc1.weight", "pixel_mean"), ())
    others |= {"backbone.fpn_lateral2.weight": (256, 256, 1, 1)}
    taken = {}
    for name, shape in {**dict(detectron2_names(prefix, last)), **others}.items():
        ends = [each for each in content["model"] if f".{name}".endswith(f".{each}")]
        if name in others:
            assert not ends
            continue
        taken[name] = max(ends, key=len)
        assert content["model"][taken[name]].shape == shape
    assert len(set(taken.values())) == len(taken)
    left = set(content["model"]) - set(taken.values())
    assert all(name.endswith("num_batches_tracked") for name in left)
    for name, ending in taken.items():  # to torchvision's names, by the rules of its own converter
        plain = re.sub(r"^.*?(stem|res\d)", r"\1", name)
        stage, *rest = plain.split(".")
        rest = ".".join(rest).replace("shortcut.norm", "downsample.1")
        rest = re.sub(r"conv(\d)\.norm", r"bn\1", rest.replace("shortcut", "downsample.0"))
        where = rest if stage == "stem" else f"layer{int(stage[-1]) - 1}.{rest}"
        assert torch.equal(content["model"][ending], theirs[where]), name


def test_the_lines_that_detectron2_needs(forms):
    files, lines = forms
    said = yaml.safe_load(lines["detectron2"])
    assert said["MODEL"]["WEIGHTS"] == str(files["detectron2"])
    assert said["MODEL"]["PIXEL_MEAN"] == [123.675, 116.28, 103.53]
    assert said["MODEL"]["PIXEL_STD"] == [58.395, 57.12, 57.375]
    assert said["MODEL"]["RESNETS"] == {"DEPTH": 50, "STRIDE_IN_1X1": False}
    assert said["INPUT"] == {"FORMAT": "RGB"} and not any(
        v for k, v in lines.items() if k != "detectron2"
    )


# ---- And back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", conversion.FORMS[1:])
def test_a_round_trip_changes_no_bit(forms, tmp_path, form):
    files, _lines = forms
    conversion.convert(weights.read(str(files[form])), str(tmp_path / "b.pt"), "ssl-bench", {})
    first, back = (networks.load_network(str(p)) for p in (files["ssl-bench"], tmp_path / "b.pt"))
    assert list(first["trunk"]) == list(back["trunk"])
    assert all(torch.equal(first["trunk"][name], each) for name, each in back["trunk"].items())
    if form == "torchvision":  # a state dict has no place for what trained it
        assert back["settings"]["pretext"] is None
    else:
        assert back["settings"] == first["settings"]


@pytest.mark.parametrize("form", ["timm", "safetensors", "hub-dir"])
def test_a_file_that_speaks_for_itself_is_a_model(forms, form):
    files, _lines = forms
    first, settings = features.network(str(files["ssl-bench"]), 0)
    trunk, said = features.network(str(files[form]), 0)
    assert trunk.digest() == first.digest() and not said.pop("left_out")
    assert said == settings


def test_timm_is_not_told_otherwise_than_the_file_says(forms):
    """The usual mean, too, is one that the file says, whatever the weights of the name have."""
    path = forms[0]["timm"]
    with pytest.raises(DataError, match=r"it says that mean is \(0.485, 0.456, 0.406\), not"):
        features.network(f"timm:resnet50?mean=0.1,0.1,0.1:{path}", 0)


# ---- What the file says -------------------------------------------------------------------------


def test_our_bytes_are_those_of_the_library(tmp_path):
    state = {
        "b.w": torch.randn(3, 4),
        "a": torch.arange(3),
        "z": torch.tensor(5),
        "u\u00e9": torch.ones(3).bool(),
    }
    state |= {"h": torch.randn(7).half(), "e": torch.empty(0, 2), "bf": torch.randn(5).bfloat16()}
    with streams.writing(str(tmp_path / "w")) as stream:
        ours.write(stream, state, {"format": "pt"})
    data = (tmp_path / "w").read_bytes()
    assert data == safetensors.torch.save(state, {"format": "pt"})
    back = ours.read(data)
    assert back.pop(ours.METADATA) == {"format": "pt"} and set(back) == set(state)
    assert all(torch.equal(back[name], each) for name, each in state.items())
    assert not {name for name, each in back.items() if not each.is_contiguous()}


def said_by(path):
    with safetensors.safe_open(path, "pt") as opened:
        return opened.metadata()


def test_the_file_says_how_it_is_fed_and_what_trained_it(forms, tmp_path):
    said = said_by(forms[0]["timm"])
    assert all(isinstance(value, str) for value in said.values()) and said["format"] == "pt"
    assert (said["channels"], said["arch"], said["names"]) == ("RGB", "resnet50", "timm")
    assert json.loads(said["mean"]) == [0.485, 0.456, 0.406]
    assert json.loads(said["std"]) == [0.229, 0.224, 0.225]
    assert json.loads(said["input_size"]) == [3, 224, 224]
    for name in ("pretext", "data_name", "data", "license"):
        assert said[name] == SETTINGS[name]
    for name in ("images", "steps", "seed", "permutations"):
        assert json.loads(said[name]) == SETTINGS[name]
    assert said["digest"] == features.network(str(forms[0]["ssl-bench"]), 0)[0].digest()
    # Lightness: its scale is stated, and a mean of three channels is not.
    save(tmp_path / "lab.pt", shaken(registry.build("tiny-lab", 0)), pretext="colorization")
    conversion.convert(
        weights.read(str(tmp_path / "lab.pt")), str(tmp_path / "lab.safetensors"), "safetensors", {}
    )
    said = said_by(tmp_path / "lab.safetensors")
    assert said["channels"] == "L" and "mean" not in said and "255" in said["lab"]
    first, back = (
        features.network(str(tmp_path / f"lab.{end}"), 0)[0] for end in ("pt", "safetensors")
    )
    assert back.reads == "lab" and back.digest() == first.digest()


@pytest.fixture
def small(tmp_path):
    """Return a function that writes a small network with other metadata, and where it is."""
    trunk = shaken(registry.build("tiny", 0))
    path = tmp_path / "w.safetensors"

    def written(state=None, **said):
        whole = metadata.of(trunk, trunk.digest(), SETTINGS | {"arch": "tiny"}, "ssl-bench") | said
        whole = {name: value for name, value in whole.items() if value is not None}
        with streams.writing(str(path)) as stream:
            ours.write(stream, state or trunk.state_dict(), whole)
        return str(path)

    return trunk, written


def test_what_the_file_says_is_obeyed(small):
    """Channels in the other order, another mean and deviation: as plain torch feeds them."""
    trunk, written = small
    said = {"mean": "[0.1, 0.2, 0.3]", "std": "[0.5, 0.6, 0.7]", "channels": "BGR"}
    found, settings = features.network(written(**said, digest=None), 0)
    assert settings["arch"] == found.name == "tiny?mean=0.3,0.2,0.1&std=0.7,0.6,0.5"
    pixels = torch.randint(256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    images = pixels.flip(1).float() / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    images = images / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    with torch.no_grad():
        want = functional.avg_pool2d(trunk(images), 3, 1)
        got = features.pooled_maps(found, features.maps(found.eval(), ["conv3"], pixels))["conv3"]
    torch.testing.assert_close(got, want)
    assert found.digest() != trunk.digest()
    again = registry.restored(settings, found.state_dict(), "linear.pt")
    assert again.digest() == found.digest()


CONTRADICTIONS = {
    "another version": ({"ssl_bench": "2"}, "ssl_bench 2, where this version reads 1"),
    "no such network": ({"arch": "vit"}, "arch is 'vit': there are alexnet, "),
    "channels": ({"channels": "YUV"}, "channels holds 'YUV', not one of RGB, BGR, L"),
    "lightness with a mean": ({"channels": "L"}, "channels is L, and mean and std are of RGB"),
    "colours by lightness": ({"lab": metadata.LAB}, "lab is 'L of CIE Lab"),
    "another lightness": (
        {"channels": "L", "mean": None, "std": None, "lab": "L from 0 to 100"},
        "lab is 'L from 0 to 100': that of channels L is",
    ),
    "channels of another number": (
        {"channels": "L", "mean": None, "std": None, "input_size": None},
        "conv1.0.weight is real 8 x 3 x 7 x 7, not real 8 x 1 x 7 x 7",
    ),
    "a mean of one": ({"mean": "[0.5]"}, r"mean is \[0.5\], not 3 numbers"),
    "no deviation": ({"std": "[0, 1, 1]"}, r"std is \[0, 1, 1\], not 3 numbers above 0"),
    "no numbers": ({"mean": "gray"}, "mean: not JSON "),
    "another size": ({"input_size": "[3, 99, 99]"}, r"input_size is \[3, 99, 99\], and tiny takes"),
    "other weights": ({"digest": "0" * 16}, "damaged, or changed by hand: it is not what"),
    "other settings": (
        {"settings": "[1]"},
        "settings: not a JSON object: write them as ssl-formats",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_contradiction_is_refused(small, case):
    said, message = CONTRADICTIONS[case]
    path = small[1](**said)
    with pytest.raises(DataError, match=message) as caught:
        features.network(path, 0)
    assert "w.safetensors: " in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_line_does_not_contradict_the_file(forms, small, tmp_path):
    with pytest.raises(DataError, match="it says itself how its channels stand: leave out"):
        weights.read(small[1](), order="bgr")
    trunk = registry.build("resnet50?mean=0.5,0.5,0.5&std=0.5,0.5,0.5", 0)
    save(tmp_path / "half.pt", trunk, arch=trunk.name)
    found = weights.read(str(tmp_path / "half.pt"))
    with pytest.raises(DataError, match="half.pt: it takes images by another mean=0.5.*--to timm"):
        conversion.convert(found, str(tmp_path / "no"), "torchvision", {})
    conversion.convert(found, str(tmp_path / "half"), "timm", {})
    with pytest.raises(DataError, match=r"it says that it is resnet50\?mean=0.5.*, of RGB: name"):
        features.network(f"torchvision:resnet50:{tmp_path}/half", 0)
    with pytest.raises(
        DataError, match=r"half: not the weights of timm's resnet50: it says that mean is \(0.5"
    ):
        features.network(f"timm:resnet50?mean=0.1,0.1,0.1:{tmp_path}/half", 0)
    with pytest.raises(DataError, match="timm's resnet18: it says that it is resnet50"):
        features.network(f"timm:resnet18:{tmp_path}/half", 0)
    assert features.network(f"timm:resnet50:{tmp_path}/half", 0)[0].mean == (0.5, 0.5, 0.5)
    assert features.network(str(tmp_path / "half"), 0)[0].digest() == trunk.digest()
    hub = forms[0]["hub-dir"]
    os.makedirs(tmp_path / "hub")
    os.symlink(hub / "model.safetensors", tmp_path / "hub" / "model.safetensors")
    config = json.loads((hub / "config.json").read_text())
    config["pretrained_cfg"]["mean"] = [0, 0, 0]
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"say mean \[0.485.*config.json beside it \[0, 0, 0\]"):
        features.network(str(tmp_path / "hub"), 0)


def test_what_there_is_not_in_a_form_is_refused(tmp_path):
    save(tmp_path / "lab.pt", registry.build("tiny-lab", 0))
    found = weights.read(str(tmp_path / "lab.pt"))
    for form in conversion.OTHERS:
        with pytest.raises(
            DataError, match=f"lab.pt: {form} has no tiny-lab like this one: --to s"
        ):
            conversion.convert(found, str(tmp_path / "no"), form, {})
    with pytest.raises(DataError, match="a network of ours: it can become one --to torchvision, "):
        conversion.convert(found, str(tmp_path / "no"), "ssl-bench", {})
    assert not (tmp_path / "no").exists()


def test_safetensors_where_something_else_was_expected(small, tmp_path):
    path = small[1]()
    with pytest.raises(
        DataError, match="safetensors, which holds a network alone, and not a file of train-linear"
    ):
        networks.load_linear(path)
    with pytest.raises(DataError, match="a folder without config.json and model.safetensors"):
        features.network(str(tmp_path), 0)
    safetensors.torch.save_file({"layer1.0.conv1.weight": torch.ones(2)}, tmp_path / "bare")
    with pytest.raises(DataError, match="bare: it does not say which network it is, nor how"):
        features.network(str(tmp_path / "bare"), 0)
    trunk = registry.build("tiny", 0)
    save(tmp_path / "n.safetensors", trunk)  # a file of pretrain by another name
    assert features.network(str(tmp_path / "n.safetensors"), 0)[0].digest() == trunk.digest()
    # One that was put into a pickle under the other's name is read by what it is.
    torch.save({"ssl_bench": {}, "a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert weights.read(str(tmp_path / "a.safetensors")).network is None


def test_detectron2_of_others_is_asked_how_it_takes_images(forms, tmp_path):
    content = torch.load(forms[0]["detectron2"], weights_only=True)
    del content["ssl_bench"]
    torch.save(content, tmp_path / "d2.pth")
    for order in (None, "bgr"):
        with pytest.raises(
            DataError, match="names do not tell how it takes images: --channels rgb"
        ):
            weights.read(str(tmp_path / "d2.pth"), order=order)
    trunk = weights.read(str(tmp_path / "d2.pth"), order="rgb").trunk()
    assert trunk.digest() == features.network(str(forms[0]["ssl-bench"]), 0)[0].digest()


# ---- The card -----------------------------------------------------------------------------------


def test_the_card_has_the_measured_tasks(tmp_path):
    from huggingface_hub import ModelCard

    trunk = shaken(registry.build("tiny", 0))
    save(tmp_path / "n.pt", trunk)
    mine = {"task": "svm", "metric": "mAP", "data_set": "voc2007", "model": trunk.digest()}
    mine |= {"arch": "tiny", "pretext": "jigsaw"}
    records = [mine | {"layer": "conv2", "value": 31.25}, mine | {"layer": "conv3", "value": 42.5}]
    records += [mine | {"model": "f" * 16, "layer": "conv3", "value": 99.0}]
    records += [mine | {"task": "detection", "metric": "AP50 (11-point)", "value": 12.5}]
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    (tmp_path / "r.jsonl").write_text(lines)
    found = weights.read(str(tmp_path / "n.pt"))
    results = [str(tmp_path / "r.jsonl")]
    report, _ = cards.convert(found, str(tmp_path / "mine"), "hub-dir", {}, results)
    assert report.endswith("; 2 rows of results")
    assert sorted(os.listdir(tmp_path / "mine")) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    card = ModelCard.load(tmp_path / "mine" / "README.md", ignore_metadata_errors=False)
    assert card.data.license == "cc-by-4.0" and card.data.library_name == "ssl-bench"
    measured = {(r.task_name, r.dataset_name, r.metric_value) for r in card.data.eval_results}
    assert measured == {("svm", "voc2007", 42.5), ("detection", "voc2007", 12.5)}
    assert "31.25" in card.text and "99" not in card.text
    (tmp_path / "r.jsonl").write_text(lines.splitlines()[2])
    with pytest.raises(DataError, match="r.jsonl: no record is of this network, model "):
        cards.convert(found, str(tmp_path / "no"), "hub-dir", {}, results)
    with pytest.raises(DataError, match="mine: there already"):
        cards.convert(found, str(tmp_path / "mine"), "hub-dir", {}, ())
    assert not (tmp_path / "no").exists()


def test_inspect_shows_what_the_file_says(small):
    trunk, written = small
    found = weights.read(written(mean="[0.1, 0.2, 0.3]", channels="BGR", digest=None))
    lines = list(inspection.lines(found))
    assert "setting\t__metadata__.data_name\timagenet-1k" in lines
    assert "network\ttiny?mean=0.3,0.2,0.1&std=0.225,0.224,0.229" in lines
    assert "input\tBGR, 0 to 1, less [0.1, 0.2, 0.3], by [0.229, 0.224, 0.225]" in lines
    assert sum(line.startswith("used\t") for line in lines) == len(trunk.state_dict())
