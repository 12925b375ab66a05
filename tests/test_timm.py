"""Networks of timm as models: their stages, their class token, their configuration, their files."""

import json
import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from ssl_common.evaluation import features
from ssl_common.evaluation.detection.bodies import Body
from ssl_common.models import registry, states
from ssl_common.models.foreign import weights
from ssl_common.streams import DataError

timm = pytest.importorskip("timm")
VIT = "vit_tiny_patch16_224"  # at 64 x 64 it has 4 x 4 patches


def theirs(name, **options):
    torch.manual_seed(5)
    network = timm.create_model(name, **options).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network


def shown(network, pixels):
    """Return what timm's own configuration makes of uint8 PIXELS."""
    config = timm.data.resolve_model_data_config(network)
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    return (pixels / 255 - mean) / std


def pixels(side):
    generator = torch.Generator().manual_seed(2)
    return torch.randint(256, (2, 3, side, side), generator=generator).byte()


def close(found, want):
    """Check that FOUND is WANT to 1e-5 of the largest."""
    assert found.shape == want.shape
    scale = want.abs().max()
    assert scale > 0 and (found - want).abs().max() <= 1e-5 * scale


@pytest.fixture(scope="module")
def vit():
    return theirs(VIT, img_size=64, num_classes=7)


def test_a_vision_transformer_is_its_patches_and_its_class_token(vit, tmp_path):
    """Against hooks on timm's blocks, and timm's own features before the head."""
    torch.save(vit.state_dict(), tmp_path / "w.pth")
    layers = features.Layers(f"timm:{VIT}?size=64:{tmp_path}/w.pth")
    assert layers.names == [*(f"blocks.{block}" for block in range(12)), "cls"]
    assert layers.left_out == "; left out head.bias, head.weight"
    assert layers.of_the_model["arch"] == f"timm:{VIT}?size=64"
    assert layers.of_the_model["inferred"] == ["pretext"]  # it stands with its head alone
    kept = {}
    for block in (0, 11):
        vit.blocks[block].register_forward_hook(
            lambda _module, _inputs, output, block=block: kept.update({block: output})
        )
    images = shown(vit, pixels(64))
    with torch.no_grad():
        final = vit.forward_features(images)
    found = layers(pixels(64))
    for block in (0, 11):
        tokens = kept[block][:, 1:]  # row by row
        whole = tokens.reshape(2, 4, 4, 192).permute(0, 3, 1, 2)
        close(found[f"blocks.{block}"], whole)  # 4 x 4 places give 3,072 numbers
    close(found["cls"], vit.pool(final, "token")[:, :, None, None])
    # A layer alone is the same, whether or not what follows it is run.
    for name in ("blocks.2", "cls"):
        alone = features.Layers(f"timm:{VIT}?size=64:{tmp_path}/w.pth", [name])(pixels(64))
        assert list(alone) == [name]
        torch.testing.assert_close(alone[name], found[name])


def test_the_stages_of_a_convolutional_network_are_those_of_timm(tmp_path):
    """Averaged over the largest square grid of no more than 9,600 numbers."""
    name = "convnext_atto"
    network = theirs(name)
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, tmp_path / "w.pth")
    layers = features.Layers(f"timm:{name}?size=64:{tmp_path}/w.pth")
    extractor = timm.create_model(name, features_only=True).eval()
    kept = {  # by the names that timm gives them there
        re.sub(r"^(stem|stages)\.(?=\d)", r"\1_", key): value
        for key, value in network.state_dict().items()
    }
    wanted = extractor.state_dict()
    extractor.load_state_dict({key: kept[key] for key in wanted})
    with torch.no_grad():
        maps = extractor(shown(network, pixels(64)))
    found = layers(pixels(64))
    assert layers.names == extractor.feature_info.module_name() and len(maps) == len(found)
    for (_name, got), whole in zip(found.items(), maps, strict=True):
        channels, side = whole.shape[1:3]
        places = max(g for g in range(1, side + 1) if g == 1 or g * g * channels <= 9600)
        close(got, functional.adaptive_avg_pool2d(whole, places))


def test_a_resnet_by_timm_is_torchvisions(tmp_path):
    """Of one file, both ways give the same maps; one that was trained otherwise is fed so."""
    network = theirs("resnet18")
    torch.save(network.state_dict(), tmp_path / "w.pth")
    ours = features.Layers(f"timm:resnet18?size=64:{tmp_path}/w.pth", ["layer4"])
    other, _settings = features.network(f"torchvision:resnet18:{tmp_path}/w.pth", 0)
    with torch.no_grad():
        want = other.eval().maps(["layer4"], other.prepare(pixels(64)))["layer4"]
    close(ours(pixels(64))["layer4"], want)


def test_a_network_is_its_name_wherever_it_stands():
    """What restores a trunk from the settings of a file gets the same network, fed the same way."""
    tagged = registry.build("timm:vit_small_patch16_224.dino?size=32", 0)
    untagged = registry.build("timm:vit_small_patch16_224?size=32", 0)
    assert (tagged.mean, untagged.mean) == ((0.485, 0.456, 0.406), (0.5, 0.5, 0.5))
    assert tagged.name == "timm:vit_small_patch16_224.dino?size=32"
    assert tagged.digest() != untagged.digest()  # of the same weights, fed otherwise
    assert states.digest(tagged) == states.digest(untagged)
    again = registry.restored({"arch": tagged.name}, tagged.state_dict(), "linear.pt")
    assert again.digest() == tagged.digest() and again.name == tagged.name


def test_a_folder_of_the_hub_says_how_its_network_is_fed(vit, tmp_path):
    """Written by timm itself, with another mean and its size; read offline."""
    vit.pretrained_cfg = vit.pretrained_cfg | {"mean": (0.1, 0.2, 0.3)}
    timm.models.save_for_hf(vit, tmp_path, model_config={"num_classes": 7}, safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == VIT and config["pretrained_cfg"]["mean"] == [0.1, 0.2, 0.3]
    trunk, _settings = features.network(f"timm:{VIT}?size=64:{tmp_path}", 0)
    assert trunk.mean == (0.1, 0.2, 0.3) and "mean=0.1,0.2,0.3" in trunk.name
    for asked, message in {
        f"timm:{VIT}?size=64&mean=0.2,0.2,0.2": r"it says that mean is \(0.1, 0.2, 0.3\), not",
        "timm:vit_small_patch16_224": "config.json beside it says vit_tiny_patch16_224, not vit_sm",
    }.items():
        with pytest.raises(DataError, match=message):
            features.network(f"{asked}:{tmp_path}", 0)


def test_a_detector_is_made_of_a_plain_resnet():
    """The stages of its body give what those of torchvision's, cut in the same way, give."""
    trunk, other = registry.build("timm:resnet18", 0), registry.build("resnet18", 1)
    states.fill(other, trunk.state_dict(), "a", "resnet18")
    image = torch.randn(1, 3, 75, 98)
    both = [Body(each.eval(), "model") for each in (trunk, other)]
    assert both[0].stride == both[1].stride == 16 and list(both[0].stages) == list(both[1].stages)
    with torch.no_grad():
        found, want = (nn.Sequential(body.stages).eval()(image) for body in both)
    close(found, want)
    # Training looks at the trunk, and then makes the detector of it.
    assert list(Body(trunk, "model").stages) == list(both[0].stages)
    for later in ("timm:resnet18d", "timm:resnetblur18", "timm:convnext_atto"):
        with pytest.raises(DataError, match="ours, torchvision's and plain ones of timm$"):
            Body(registry.build(f"{later}?size=64", 0), later)


REFUSED = {
    "timm:vit_gigantic": "timm:vit_gigantic: no such network in timm ",
    "timm:hf-hub:timm/resnet18": "timm:hf-hub.*: no such network in timm ",
    f"timm:{VIT}.none": f"timm:{VIT}.none: no such weights of {VIT}: there are ",
    f"timm:{VIT}?side=3": "after the [?] stand mean=, std= and size=, each once",
    f"timm:{VIT}?size=0": "size is a number of pixels",
    f"timm:{VIT}?mean=1": "mean is three numbers",
}


@pytest.mark.parametrize("model", REFUSED)
def test_no_such_network(model, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(DataError, match=REFUSED[model]):
        registry.build(model, 0)
    with pytest.raises(DataError, match="no file of weights: write timm:resnet18:FILE"):
        features.network("timm:resnet18", 0)


def test_every_weight_is_accounted_for(vit, tmp_path):
    state = vit.state_dict()
    model = f"timm:{VIT}?size=64:{tmp_path}/w.pth"

    def refused(message, **changed):
        whole = {key: value for key, value in (state | changed).items() if value is not None}
        torch.save(whole, tmp_path / "w.pth")
        with pytest.raises(DataError, match=message):
            features.network(model, 0)

    refused("no blocks.3.norm1.bias$", **{"blocks.3.norm1.bias": None})
    refused("blocks.12.norm1.bias, for which the trunk of timm:vit_tiny.* has no place$",
            **{"blocks.12.norm1.bias": torch.ones(192)})  # fmt: skip
    refused("pos_embed is real 1 x 197 x 192, not real 1 x 17 x 192$",
            pos_embed=torch.ones(1, 197, 192))  # fmt: skip
    refused("norm.bias holds NaN", **{"norm.bias": torch.full((192,), torch.nan)})
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        DataError, match="not the weights of timm's vit_tiny.*: its weights are conv1"
    ):
        features.network(model, 0)


def test_without_the_library_there_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(DataError, match=r"timm: a network of timm needs it: pip install 'ssl-be"):
        registry.build("timm:resnet18", 0)


def test_the_remedy_names_the_line(tmp_path, vit):
    torch.save(vit.state_dict(), tmp_path / "w.pth")
    with pytest.raises(DataError, match="takes it as timm:vit_tiny_patch16_224:FILE"):
        weights.read(str(tmp_path / "w.pth")).trunk()


def test_a_command_takes_one(scratch, run, vit):
    """The features of photographs, and what their sidecar says."""
    torch.save(vit.state_dict(), scratch / "w.pth")
    model = f"timm:{VIT}?size=64:w.pth"
    run("extract-features", model, "test.tsv", "--layer", "cls", "-j", "0", "-o", "f.npy",
        cwd=scratch, check=0)  # fmt: skip
    sidecar = json.loads((scratch / "f.npy.json").read_text())
    assert sidecar["arch"] == f"timm:{VIT}?size=64" and sidecar["shape"] == [192, 1, 1]
    done = run("extract-features", model, "--show-layers", cwd=scratch, check=0)
    assert done.stdout.decode().splitlines()[-1] == "cls\t192 x 1 x 1\t192 x 1 x 1"
