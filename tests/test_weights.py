"""State dicts of torchvision: which weights are taken, what is left out, and what is refused."""

import json
import os
import re

import caffe2
import numpy as np
import pytest
import torch
from conftest import save_bomb
from torchvision import models

from ssl_common.evaluation import features
from ssl_common.models.foreign import conversion
from ssl_common.streams import DataError


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(7)
    return models.resnet50(num_classes=5).eval()


def prefixed(state, prefix="module."):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


FORMS = {
    "bare": lambda state: state,
    "a checkpoint": lambda state: {"epoch": 3, "arch": "resnet50", "state_dict": state},
    "parallel": prefixed,
    "a parallel checkpoint": lambda state: {"state_dict": prefixed(state), "best_acc1": 76.1},
    "without counts": lambda state: {k: v for k, v in state.items() if "num_batches" not in k},
    "momentum contrast": lambda state: {"state_dict": prefixed(prefixed(state, "encoder_q."))},
    "half precision": lambda state: {k: v.half() for k, v in state.items()},
    "averaged": lambda state: prefixed(state) | {"n_averaged": torch.tensor(7)},
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "compiled in parallel": lambda state: prefixed(prefixed(state, "_orig_mod.")),
    "a part in parallel": lambda state: {k.replace("layer4.", "layer4.module."): state[k]
                                         for k in state},
    "sharded": lambda state: {k.replace(".conv2.", "._fsdp_wrapped_module.conv2."): state[k]
                              for k in state},
    "numbered": lambda state: prefixed({
        re.sub(r"^\w+", lambda n: CHILDREN.get(n[0], n[0]), k): state[k] for k in state
    }, "backbone."),
}  # fmt: skip
# The places of a ResNet's children in it, as nn.Sequential(*resnet.children()) counts them.
CHILDREN = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
# A head tells that labels taught the network only where it stands with it and nothing else.
SUPERVISED = ("bare", "parallel", "without counts", "half precision", "averaged", "compiled",
              "compiled in parallel", "a part in parallel", "sharded")  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_trunk_computes_what_the_network_does(theirs, tmp_path, form):
    torch.save(FORMS[form](theirs.state_dict()), tmp_path / "w.pth")
    trunk, settings = conversion.torchvision("resnet50", str(tmp_path / "w.pth"))
    assert "fc.bias, fc.weight" in settings["left_out"]
    taught = {"pretext": "supervised", "inferred": ["pretext"]} if form in SUPERVISED else {}
    assert settings == {"arch": "resnet50", "pretext": None, **taught} | {
        "left_out": settings["left_out"]
    }
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        logits = theirs.fc(trunk.eval()(images).flatten(1))
        close = {"rtol": 0.02, "atol": 0.02} if "half" in form else {}
        torch.testing.assert_close(logits, theirs(images), **close)


def test_the_older_file_format(theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "new.pth")
    torch.save(theirs.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    digests = [
        conversion.torchvision("resnet50", str(tmp_path / name))[0].digest()
        for name in ("new.pth", "old.pth")
    ]
    assert digests[0] == digests[1]


def changed(state, **changes):
    state = dict(state)
    for name, tensor in changes.items():
        name = name.replace("__", ".")
        state.pop(name)
        if tensor is not None:
            state[name] = tensor
    return state


REFUSED = {
    "resnet18": (
        lambda state: models.resnet18(num_classes=2).state_dict(),
        "its weights are conv1",
    ),
    "resnet101": (
        lambda state: (
            {k: v.flatten()[:1] for k, v in models.resnet101().state_dict().items()} | state
        ),
        "layer3.6.conv1.weight, for which the trunk of resnet50 has no place, and 305 more",
    ),
    "one missing": (
        lambda state: changed(state, layer4__2__bn3__bias=None),
        "PyTorch's resnet50: no layer4.2.bn3.bias$",
    ),
    "two missing": (
        lambda state: changed(state, conv1__weight=None, layer1__0__bn1__running_var=None),
        "no conv1.weight, and 1 more like it$",
    ),
    "two channels": (
        lambda state: changed(state, conv1__weight=torch.zeros(64, 2, 7, 7)),
        "conv1.weight is real 64 x 2 x 7 x 7, not real 64 x 3 x 7 x 7$",
    ),
    "integers": (
        lambda state: changed(state, bn1__weight=torch.ones(64, dtype=torch.int8)),
        "bn1.weight is integer 64, not real 64$",
    ),
    "a number": (lambda state: changed(state, bn1__bias=3.0), "bn1.bias is float, not real 64$"),
    "a list": (lambda state: list(state.values()), "w.pth: no weights, but list: save model"),
    "empty": (lambda state: {}, "w.pth: no weights, but dict"),
    "numbers": (lambda state: {"conv1.weight": 3.0}, "no weights, but dict"),
    "twice": (
        lambda state: {"a.b": torch.zeros(1), "a": {"b": torch.zeros(1)}},
        "two weights have the name a.b$",
    ),
    "two networks": (
        lambda state: prefixed(state, "first.") | {"second": state},
        "w.pth: 2 networks, first and second: convert-weights takes one, by --prefix$",
    ),
    "of pretrain": (
        lambda state: {"format": 1, "settings": {"arch": "resnet50"}, "trunk": state},
        "w.pth: .*torchvision's resnet50, but a network of ours: name the file alone$",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_the_network_is_refused(theirs, tmp_path, kind):
    make, message = REFUSED[kind]
    state = {k: v.new_zeros(()).expand(v.shape) for k, v in theirs.state_dict().items()}  # small
    torch.save(make(state), tmp_path / "w.pth")
    with pytest.raises(DataError, match=message) as caught:
        conversion.torchvision("resnet50", str(tmp_path / "w.pth"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_refused_in_one_line(tmp_path, zipped, recwarn):
    """Bytes changed and ends cut off, at random: the reader raises almost anything."""
    path, rng = tmp_path / "w.pth", np.random.default_rng(0)
    torch.save({"conv1.weight": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    whole, refused = path.read_bytes(), 0
    for trial in range(200):
        spoilt = bytearray(whole)
        if trial % 2:
            spoilt = spoilt[: rng.integers(len(whole))]
        else:
            for place in rng.integers(len(whole), size=4):
                spoilt[place] = rng.integers(256)
        path.write_bytes(spoilt)
        with pytest.raises(DataError) as caught:  # with whole bytes: no network is known
            conversion.torchvision("resnet50", str(path))
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
        refused += "damaged" in str(caught.value)
    assert refused > 100 and not recwarn.list


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: caffe2.alexnet(np.random.default_rng(0), "conv{}/", ()), "it is Caffe2's: conv"),
        (lambda: prefixed(models.resnet18().state_dict(), "model_ema.")
         | prefixed(models.resnet18().state_dict(), "model."),
         "2 networks, model_ema and model: save one of them alone$"),
    ],
)  # fmt: skip
def test_the_way_out_is_one(tmp_path, content, message):
    content, arch = content(), "resnet18" if "2 networks" in message else "resnet50"
    if "conv1_w" in content:
        caffe2.save(tmp_path / "w.pth", content)
    else:
        torch.save(content, tmp_path / "w.pth")
    with pytest.raises(DataError, match=message):
        conversion.torchvision(arch, str(tmp_path / "w.pth"))


@pytest.mark.parametrize("name", ["caffenet", "alexnet-lab", "lenet", "torchvision-lenet"])
def test_what_torchvision_does_not_have(name):
    with pytest.raises(DataError, match="no such"):
        conversion.torchvision(name, "w.pth")


def test_features_are_those_of_torchvision(theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    layers = features.Layers(f"torchvision:resnet50:{tmp_path}/w.pth", ["pool5"], 0)
    pixels = torch.randint(256, (2, 3, 224, 224), dtype=torch.uint8)
    # What torchvision's weights expect of an image, by its own transform.
    preset = models.ResNet50_Weights.IMAGENET1K_V1.transforms(crop_size=224, resize_size=224)
    with torch.no_grad():
        want = theirs(preset(pixels))
        got = theirs.fc(layers(pixels)["pool5"].flatten(1).clone())
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


# ---- As a process -------------------------------------------------------------------------------


def test_the_command_says_what_it_left_out(theirs, scratch, run):
    torch.save({"state_dict": prefixed(theirs.state_dict())}, scratch / "a:b.pth")
    argv = ["extract-features", "torchvision:resnet50:a:b.pth", "test.tsv", "--layer", "res5"]
    done = run(*argv, "-o", "f.npy", "-j", "0", cwd=scratch, check=0)
    said = "4 images, features: res5 8,192; left out fc.bias, fc.weight"
    assert done.stderr.decode() == f"extract-features: {said}\n"
    sidecar = json.loads((scratch / "f.npy.json").read_text())
    assert (sidecar["arch"], sidecar["pretext"]) == ("resnet50", None)
    for name in ("data", "data_name", "images", "permutations", "seed"):
        assert sidecar[name] is None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("torchvision:resnet50:gone.pth", "gone.pth: No such file or directory"),
        ("torchvision:resnet50:", "no file of weights: write torchvision:resnet50:FILE"),
        ("torchvision:resnet50", "no file of weights: write torchvision:resnet50:FILE"),
        ("torchvision:resnet50:fifo", "fifo: not a regular file"),
        (
            "torchvision:resnet50:photos",
            "photos: a folder without config.json and model.safetensors",
        ),
        ("torchvision:resnet50:test.tsv", "test.tsv: not a file of weights, but text"),
        ("torchvision:resnet50:bomb.pt", "bomb.pt: a pickle that asks for posix.system"),
        ("torchvision:lenet:test.tsv", "lenet: no such network"),
    ],
)
def test_bad_files(scratch, run, model, message):
    save_bomb(scratch / "bomb.pt", scratch / "exploded")
    os.mkfifo(scratch / "fifo")
    done = run("extract-features", model, "test.tsv", "--layer", "res5", cwd=scratch, check=1)
    assert message in done.stderr.decode() and done.stderr.count(b"\n") == 1
    assert done.stdout == b"" and not (scratch / "exploded").exists()


def test_tags_lead_to_the_published_row(tmp_path, run):
    """A supervised network is compared with the paper's where the user says what taught it."""
    rng = np.random.default_rng(0)
    fields = {"format": 1, "model": "0123456789abcdef", "arch": "resnet50", "layer": "res4"}
    fields |= {"pretext": "supervised", "data": None, "data_name": None, "images": None}
    for split, count in (("train", 40), ("test", 4952)):
        signs = rng.integers(2, size=count)
        lines = (f"{split}/{i}.jpg" + "\tcat" * int(sign) for i, sign in enumerate(signs))
        (tmp_path / f"{split}.tsv").write_text("".join(f"{line}\n" for line in lines))
        rows = rng.normal(size=(count, 3)) + signs[:, None]
        np.save(tmp_path / f"{split}.npy", rows.astype(np.float32))
        (tmp_path / f"{split}.npy.json").write_text(json.dumps(fields))
    tags = ["--tag", "data_set=voc2007", "--tag", "data_name=imagenet-1k"]
    tags += ["--tag", "images=1281167"]
    run("train-svm", "train.npy", "train.tsv", *tags, "-o", "svm.npz", check=0)
    done = run("eval-svm", "svm.npz", "test.npy", "test.tsv", check=0)
    (tmp_path / "r.jsonl").write_bytes(done.stdout)
    table = run("report", "r.jsonl", check=0).stdout.decode()
    assert "80.36" in table and "resnet50 supervised (imagenet-1k, 1,281,167 images)" in table
