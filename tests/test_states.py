"""States of networks: what does not fit is one line with file and tensor, in every command."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from ssl_common.evaluation import features
from ssl_common.evaluation.linear import testing
from ssl_common.models import networks, registry, states
from ssl_common.pretext import jigsaw
from ssl_common.streams import DataError
from ssl_common.training import pretraining


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def changed(state, name, value):
    """Return a copy of STATE whose NAME has VALUE; without it for None."""
    state = {**state, name: value}
    return {name: value for name, value in state.items() if value is not None}


FAULTS = {
    # how a tensor is changed -> what is said of it
    "missing": (lambda _tensor: None, "no 0.weight$"),
    "another shape": (lambda t: t[:, :1].clone(), "0.weight is real 4 x 1 x 3 x 3, not real 4 x 3"),
    "transposed": (lambda t: t.transpose(0, 1).clone(), "0.weight is real 3 x 4 x 3 x 3, not"),
    "flat": (lambda t: t.flatten(), "0.weight is real 108, not real 4 x 3 x 3 x 3$"),
    "half": (lambda t: t.half(), "0.weight is float16, not float32$"),
    "double": (lambda t: t.double(), "0.weight is float64, not float32$"),
    "integers": (lambda t: t.long(), "0.weight is integer 4 x 3 x 3 x 3, not real"),
    "complex": (lambda t: t.to(torch.complex64), "0.weight is complex 4 x 3 x 3 x 3, not real"),
    "sparse": (lambda t: t.to_sparse(), "0.weight is a tensor without plain numbers, not real"),
    "nowhere": (lambda t: t.to("meta"), "0.weight has no numbers$"),
    "a number": (lambda _tensor: 3.0, "0.weight is float, not real"),
    "text": (lambda _tensor: "weights", "0.weight is str, not real"),
    "NaN": (lambda t: t.masked_fill(t == t.max(), torch.nan), "0.weight holds NaN or infinity$"),
    "infinity": (lambda t: t.masked_fill(t == t.max(), -torch.inf), "0.weight holds NaN or infin"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_tensor_that_does_not_fit_is_named(fault):
    change, message = FAULTS[fault]
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = changed(before, "0.weight", change(before["0.weight"]))
    with pytest.raises(DataError, match=f"^w.pt: not the weights of tiny: {message}") as caught:
        states.fill(module, state, "w.pt", "tiny")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_other_faults():
    module = network()
    state = module.state_dict()
    for found, message in (
        (
            changed(state, "1.running_var", torch.tensor([1.0, 1, -1e-3, 1])),
            "1.running_var holds n",
        ),
        (changed(state, "2.weight", torch.ones(1)), "2.weight, for which it has no place$"),
        ({}, "no 0.weight, and 6 more like it$"),
        ([1], "not the weights of tiny, but list$"),
        (None, "not the weights of tiny, but NoneType$"),
    ):
        with pytest.raises(DataError, match=message):
            states.fill(module, found, "w.pt", "tiny")


def test_what_fits_is_there_exactly():
    source, module = network().eval(), network()
    with torch.no_grad():
        source[1].running_mean.fill_(0.5)
        module[0].weight.zero_()
    states.fill(module, source.state_dict(), "w.pt", "tiny")
    images = torch.randn(1, 3, 5, 5)
    assert torch.equal(module.eval()(images), source(images))


# ---- In every command ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trunk():
    return registry.build("alexnet", 0).state_dict()


SPOILT = {
    "missing": ("conv3.0.weight", None, "no conv3.0.weight"),
    "NaN": ("conv2.0.bias", torch.full((256,), torch.nan), "conv2.0.bias holds NaN or infinity"),
    "negative": ("conv1.1.running_var", -torch.ones(96), "conv1.1.running_var holds negative"),
    "misshapen": ("conv1.0.weight", torch.zeros(96, 1, 11, 11), "conv1.0.weight is real 96 x 1 x"),
    "one more": ("conv9.0.weight", torch.zeros(1), "conv9.0.weight, for which it has no place"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_features_of_a_spoilt_network(tmp_path, trunk, kind):
    name, value, message = SPOILT[kind]
    content = {"format": 1, "settings": {"arch": "alexnet", "pretext": "jigsaw"}, "head": {}}
    networks.save(str(tmp_path / "w.pt"), content | {"trunk": changed(trunk, name, value)})
    with pytest.raises(DataError, match=f"w.pt: (not the weights of alexnet|trunk): {message}"):
        features.network(str(tmp_path / "w.pt"), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arch": "lenet"}, "w.pt: lenet: no such network"),
        ({"arch": "alexnet", "reads": "lab"}, r"w.pt: .*conv1.0.weight is real 96 x 3 x 11 x 11"),
        ({"arch": "resnet50"}, "w.pt: .*no conv1.0.weight|w.pt: .*conv1.0.weight is real"),
    ],
)
def test_another_network_than_the_settings_say(tmp_path, trunk, settings, message):
    content = {"format": 1, "settings": {"pretext": "jigsaw"} | settings, "head": {}}
    networks.save(str(tmp_path / "w.pt"), content | {"trunk": trunk})
    with pytest.raises(DataError, match=message) as caught:
        features.network(str(tmp_path / "w.pt"), 0)
    assert "\n" not in str(caught.value)


def test_a_puzzle_cannot_be_played_on_spoilt_weights(tmp_path, trunk):
    task = jigsaw.Jigsaw(np.array([np.arange(9), np.arange(9)[::-1]]))
    head = {
        key: value
        for key, value in task.network(registry.build("alexnet", 0)).state_dict().items()
        if not key.startswith("trunk.")
    }
    settings = {"arch": "alexnet", "pretext": "jigsaw", **task.settings()}
    content = {"format": 1, "settings": settings, "trunk": trunk, "head": head, **task.arrays()}
    networks.save(str(tmp_path / "w.pt"), content)
    pretraining.load(str(tmp_path / "w.pt"), "jigsaw")
    first = next(iter(head))
    for part, name in (("trunk", "conv1.0.weight"), ("head", first)):
        spoilt = changed(content[part], name, torch.full_like(content[part][name], torch.nan))
        networks.save(str(tmp_path / "w.pt"), content | {part: spoilt})
        with pytest.raises(DataError, match=rf"w.pt: .*{name} holds NaN or infinity"):
            pretraining.load(str(tmp_path / "w.pt"), "jigsaw")


def test_classifiers_are_not_measured_on_spoilt_weights(scratch):
    """eval-linear: the network below, the classifiers, and a network that has become another."""
    content = networks.load_linear(str(scratch / "linear.pt"))

    def measure(changes):
        networks.save(str(scratch / "w.pt"), content | changes)
        files = (str(scratch / name) for name in ("w.pt", "test.tsv"))
        rows = testing.evaluate(*files, {}, str(scratch), "cpu", 0, lambda _done, _total: None)
        return json.dumps(list(rows))

    assert "top-1" in measure({})
    heads, frozen = content["heads"], content["frozen"]
    name = "heads.0.2.weight"
    for changes, message in (
        ({"frozen": changed(frozen, "conv2.0.bias", torch.full((256,), torch.inf))}, "conv2.0.bia"),
        ({"frozen": frozen | {"conv2.0.bias": torch.ones(256)}}, "otherwise than it did, or is"),
        ({"heads": changed(heads, name, heads[name] * torch.nan)}, f"{name} holds NaN"),
        ({"heads": changed(heads, name, None)}, f"no {name}"),
    ):
        with pytest.raises(DataError, match=f"w.pt: .*{message}"):
            measure(changes)


@pytest.mark.parametrize(
    "view",
    [
        lambda t: torch.cat([torch.ones(99), t.flatten()])[99:].view(t.shape),
        lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    ],
    ids=["a part of another", "in another order"],
)
def test_lent_numbers_are_saved_whole_and_alone(tmp_path, view):
    torch.manual_seed(1)
    state = {n: v if v.dim() < 2 else view(v) for n, v in network().state_dict().items()}
    with torch.device("meta"):
        module = network()
    states.lend(module, state)
    plain = {name: tensor.clone() for name, tensor in state.items()}
    assert all(torch.equal(module.state_dict()[name], plain[name]) for name in plain)
    assert module[1].weight.data_ptr() == state["1.weight"].data_ptr()  # no copy
    networks.save(str(tmp_path / "lent"), {"trunk": module.state_dict()})
    assert states.digest(module) == states.digest(filled(plain))
    for each in torch.load(tmp_path / "lent")["trunk"].values():
        assert each.is_contiguous() and each.untyped_storage().nbytes() == each.nbytes


def filled(state):
    module = network()
    states.fill(module, state, "w.pt", "it")
    return module


@pytest.mark.parametrize("arch", registry.TRUNKS)
def test_a_blank_network_has_the_names_and_shapes_of_one_that_was_drawn(arch):
    drawn, blank = registry.build(arch, 0).state_dict(), registry.blank(arch).state_dict()
    assert list(blank) == list(drawn) and all(each.is_meta for each in blank.values())
    assert all((blank[n].shape, blank[n].dtype) == (drawn[n].shape, drawn[n].dtype) for n in drawn)
