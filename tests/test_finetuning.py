"""Full fine-tuning: update rules, losses, heads and figures against plain references."""

import contextlib
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from tiny import Tiny
from torch import nn
from torchvision.models import resnet50

from ssl_common.data import augmentation
from ssl_common.data.manifest import Manifest
from ssl_common.data.order import draws
from ssl_common.evaluation.finetuning import heads, recipes, rules, testing, training
from ssl_common.evaluation.finetuning.heads import Tuned, head, tuned
from ssl_common.evaluation.finetuning.options import FinetuneOptions
from ssl_common.evaluation.finetuning.recipes import RECIPES
from ssl_common.models import networks, registry
from ssl_common.processes import Stopped
from ssl_common.progress import Conversation
from ssl_common.streams import DataError
from ssl_common.training import loop
from ssl_common.training.plan import TrainingOptions, resolve
from ssl_common.training.schedules import rate

SHAPES = {"resnet50": (2048, 1, 1)}  # of what a head reads; an AlexNet's is 256 x 6 x 6


def made(arch, rule):
    """Return (the network of the recipe ARCH, what its UPDATE_RULE says), without any numbers."""
    recipe = replace(RECIPES[arch], update_rule=rule)
    with torch.device("meta"):
        trunk = heads.registry.TRUNKS["alexnet-stride4" if arch == "alexnet" else arch]()
        shape = SHAPES.get(arch.removesuffix("-lab"), (256, 6, 6))
        network = Tuned(trunk, head(recipe, shape, 20), "pool5")
    return network, rules.rules(network, recipe)


def by_rule(found):
    """Return {rule: names of the parameters that have it}."""
    names = {}
    for name, rule in found.items():
        names.setdefault(tuple(rule), set()).add(name)
    return names


# ---- Update rules --------------------------------------------------------------------------------


def test_the_rule_of_the_papers_program_for_a_resnet():
    """All 52 convolutions in branches learn twice as fast, and nothing decays."""
    network, found = made("resnet50", "paper")
    theirs = dict(resnet50(weights=None).named_parameters())
    inside = [n for n in theirs if re.fullmatch(r"layer\d\.\d\.(conv\d|downsample\.0)\.weight", n)]
    assert len(inside) == 52
    twice = {re.sub(r"layer(\d)", lambda m: f"trunk.res{int(m[1]) + 1}", name) for name in inside}
    assert by_rule(found)[1.0, 2.0, 0.0] == twice | {"head.pred.bias"}
    assert by_rule(found)[1.0, 1.0, 0.0] == {"trunk.conv1.0.weight", "head.pred.weight"}
    norms = {
        f"{name}.{end}"
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        for end in ("weight", "bias")
    }
    assert by_rule(found)[0.0, 1.0, 0.0] == norms and len(norms) == 2 * 54
    assert len(found) == len(list(network.parameters())) == 52 + 3 + 108


def test_the_rule_of_the_papers_program_for_alexnets():
    layers = [f"trunk.conv{n}" for n in range(1, 6)]
    full = ["head.fc6", "head.fc7", "head.fc8"]
    weights = {f"{name}.0.weight" for name in layers} | {f"{name}.weight" for name in full}
    biases = {f"{name}.0.bias" for name in layers} | {f"{name}.bias" for name in full}
    norms = [f"{name}.1" for name in layers] + ["head.norm6", "head.norm7"]
    scales, shifts = ({f"{name}.{end}" for name in norms} for end in ("weight", "bias"))
    # Jigsaw's batch norm has no gradient, and decays.
    assert by_rule(made("alexnet", "paper")[1]) == {
        (1.0, 1.0, 0.0): weights,
        (1.0, 2.0, 0.0): biases,
        (0.0, 1.0, 1e-4): scales | shifts,
    }
    # Colorization's is called conv1norm: a weight and a bias among others.
    assert by_rule(made("alexnet-lab", "paper")[1]) == {
        (1.0, 1.0, 0.0): weights | scales,
        (1.0, 2.0, 0.0): biases | shifts,
    }
    assert by_rule(made("caffenet", "paper")[1]) == {(1.0, 1.0, 1e-6): weights | biases}


@pytest.mark.parametrize("arch", ["alexnet", "alexnet-lab", "caffenet", "resnet50", "resnet50-lab"])
def test_the_clean_rule(arch):
    """What the configurations say: weights decay, biases do not, batch norm stays or learns."""
    network, found = made(arch, "clean")
    recipe = RECIPES[arch]
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            learns = arch.endswith("-lab")
            assert found[f"{name}.weight"] == found[f"{name}.bias"] == (learns, 1.0, 0.0)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            assert found[f"{name}.weight"] == (1.0, 1.0, recipe.weight_decay)
            if module.bias is not None:
                of_biases = (1.0, 1.0, 1e-6) if arch == "caffenet" else (1.0, 2.0, 0.0)
                assert found[f"{name}.bias"] == of_biases


def test_the_names_of_the_authors():
    """As their configurations' networks have them."""
    names = {blob for _name, blob in rules.blob_names(made("resnet50", "clean")[0])}
    assert {"conv1_w", "res_conv1_bn_s", "res2_0_branch1_w", "res5_2_branch2c_bn_b"} < names
    names = {blob for _name, blob in rules.blob_names(made("alexnet-lab", "clean")[0])}
    assert {"conv1_w", "conv1norm_s", "conv5norm_b", "fc6_w", "fc8_b"} < names
    with pytest.raises(DataError, match="by the names of the paper's networks, and tiny is none"):
        list(rules.blob_names(tuned(Tiny(), RECIPES["resnet50"], 2)))


@pytest.mark.parametrize("rule", recipes.RULES)
def test_a_step_against_its_formula(rule):
    """Nesterov's first step is (1 + m) times gradient and decay, at the rate of each parameter."""
    recipe = replace(RECIPES["alexnet"], update_rule=rule, weight_decay=0.1, bn_decay=0.3, fc=5)
    with registry.seeded(1):
        trunk = registry.TRUNKS["alexnet-stride4"]()
    trunk.input_size = 67  # its map is 256 x 1 x 1
    network = tuned(trunk, recipe, 3)
    found = rules.rules(network, recipe)
    work = training.Finetuning(network, np.array([0, 1, 2, 1], np.int32), recipe, found)
    network.train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    lines = torch.arange(4)
    drawn = draws(0, [0] * 4, range(4), work.draws)
    pixels = torch.randint(256, (4, 67, 67, 3), dtype=torch.uint8)
    work.score(network, pixels, drawn, lines).loss.backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    network.zero_grad()
    rules.prepare(network, found)
    sgd = loop.optimizer(network, work, recipe)
    for group in sgd.param_groups:
        group["lr"] = 0.01 * group["rate"]
    work.score(network, pixels, drawn, lines).loss.backward()
    sgd.step()
    moved = 0
    for name, parameter in network.named_parameters():
        norm = ".1." in name or "norm" in name
        if rule == "paper":
            times, decay = (1 + name.endswith("bias")), 0.3 if norm else 0.0
        else:
            times, decay = (1 + name.endswith("bias")), 0.0
            decay = 0.1 if name.endswith("weight") and not norm else 0.0
        gradient = 0 * gradients[name] if norm else times * gradients[name]
        want = before[name] - 0.01 * 1.9 * (gradient + decay * before[name])
        assert torch.allclose(parameter, want, rtol=1e-5, atol=1e-7), name
        moved += not torch.equal(parameter, before[name])
    assert moved == 16 + (7 if rule == "paper" else 0)  # the shifts of batch norm are zeros


# ---- Recipes and heads ---------------------------------------------------------------------------


def test_the_published_settings():
    plan = resolve(RECIPES["alexnet"], "alexnet", 5011)
    assert (plan.steps, plan.batch, plan.recipe.crops) == (80_000, 16, 10)
    for step, want in ((0, 1e-3), (9_999, 1e-3), (10_000, 5e-4), (79_999, 1e-3 / 128)):
        assert rate(step, plan) == pytest.approx(want)
    assert resolve(RECIPES["alexnet-lab"], "alexnet-lab", 5011).lr == 0.005
    for name, lr, steps, drop in (
        ("resnet50", 0.01, 3_000, 1_600),
        ("resnet50-lab", 0.15, 3_000, 1_600),
        ("resnet50-places", 0.15, 3_000, 1_600),
        ("resnet50-random", 0.1, 12_000, 4_000),
    ):
        plan = resolve(RECIPES[name], name, 5011)
        assert (plan.steps, plan.batch, plan.lr, plan.recipe.crops) == (steps, 128, lr, 1)
        assert rate(drop - 1, plan) == pytest.approx(lr)
        assert rate(drop, plan) == pytest.approx(lr / 10)
        assert rate(steps - 1, plan) == pytest.approx(lr / 100 if steps > 9_000 else lr / 10)
    assert resolve(RECIPES["alexnet"], "alexnet", 300, batch=32, epochs=7).steps == 63


@pytest.mark.parametrize(
    "arch, pretext, name",
    [
        ("alexnet", "jigsaw", "alexnet"),
        ("alexnet", "random", "alexnet"),
        ("alexnet-stride4", "fine-tuned jigsaw", "alexnet"),
        ("alexnet-lab", "colorization", "alexnet-lab"),
        ("caffenet", "supervised", "caffenet"),
        ("resnet50", "jigsaw", "resnet50"),
        ("resnet50", "random", "resnet50-random"),
        ("resnet50-lab", "random", "resnet50-lab"),
        ("resnet18", "supervised", "resnet50"),
        ("torchvision-alexnet", "random", "resnet50-random"),
    ],
)
def test_the_recipe_of_a_network(arch, pretext, name):
    assert recipes.usual(arch, {"pretext": pretext}) == name


def test_heads():
    gaussian = head(RECIPES["alexnet"], (256, 2, 2), 20)
    kinds = [type(layer).__name__ for layer in gaussian]
    assert kinds == ["Flatten", *["Linear", "BatchNorm1d", "ReLU", "Dropout"] * 2, "Linear"]
    assert (gaussian.fc6.in_features, gaussian.fc7.out_features) == (1024, 4096)
    assert gaussian.fc6.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not gaussian.fc7.bias.any() and gaussian.drop6.p == 0.5
    xavier = head(replace(RECIPES["alexnet-lab"], fc=300), (256, 2, 2), 20).fc6.weight
    assert xavier.abs().max().item() == pytest.approx(math.sqrt(3 / 1024), rel=1e-3)
    plain = head(replace(RECIPES["caffenet"], fc=300), (256, 2, 2), 20)
    assert not [layer for layer in plain if isinstance(layer, nn.BatchNorm1d)]
    assert plain.fc6.weight.std().item() == pytest.approx(0.005, rel=0.02)
    assert plain.fc8.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert torch.all(plain.fc7.bias == 0.01) and not plain.fc8.bias.any()
    pooled = head(RECIPES["resnet50"], (16, 3, 3), 5)
    assert (pooled.pred.in_features, pooled.norm.momentum) == (16, 0.1)


def test_an_alexnet_is_tuned_at_stride_4_with_the_same_weights():
    with registry.seeded(0):
        trunk = registry.TRUNKS["alexnet"]()
    other = heads.at_stride(trunk, 4)
    assert other.name == "alexnet-stride4" and other.conv1[0].stride == (4, 4)
    state = trunk.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    pixels = torch.zeros(1, 3, 227, 227, dtype=torch.uint8)
    assert other.maps(["pool5"], other.prepare(pixels))["pool5"].shape == (1, 256, 6, 6)
    assert heads.at_stride(trunk, None) is trunk and heads.at_stride(tiny := Tiny(), 4) is tiny


def test_what_the_head_does_not_hear_of_does_not_learn():
    class Tailed(Tiny):
        def __init__(self):
            super().__init__()
            self.deaf = nn.Parameter(torch.zeros(3))

    network = tuned(Tailed(), RECIPES["resnet50"], 2)
    assert [n for n, p in network.named_parameters() if not p.requires_grad] == ["trunk.deaf"]
    assert "trunk.deaf" not in rules.rules(network, RECIPES["resnet50"])
    assert all(p.grad is None for p in network.parameters())


# ---- Labels and losses ---------------------------------------------------------------------------


def listed(folder, text):
    (folder / "list.tsv").write_text(text)
    return Manifest(str(folder / "list.tsv"))


def test_labels_say_the_loss(tmp_path):
    single = listed(tmp_path, "a.jpg\tsea\nb.jpg\tcity\na.jpg\tsea\n")
    loss, classes, labels = training.read_labels(single, None)
    assert (loss, classes, labels.tolist()) == ("softmax", ["city", "sea"], [1, 0, 1])
    loss, _classes, labels = training.read_labels(single, "sigmoid")
    assert loss == "sigmoid" and labels.tolist() == [[-1, 1], [1, -1], [-1, 1]]
    several = listed(tmp_path, "a.jpg\tsea\nb.jpg\t?city\nc.jpg\n")
    loss, classes, labels = training.read_labels(several, None)
    assert (loss, labels.tolist()) == ("sigmoid", [[-1, 1], [0, -1], [-1, -1]])
    with pytest.raises(DataError, match="list.tsv:2: .city, where one class is needed"):
        training.read_labels(several, "softmax")
    with pytest.raises(DataError, match="all are sea: list other classes, or give --loss sigmoid"):
        training.read_labels(listed(tmp_path, "a.jpg\tsea\n"), None)
    for text, message in (("a.jpg\nb.jpg\n", "no label that"), ("a\t?b\n", "no label that is not")):
        with pytest.raises(DataError, match=f"list.tsv: {message}"):
            training.read_labels(listed(tmp_path, text), None)


class Given(nn.Module):
    """A network that gives LOGITS, whatever it is shown."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, _images):
        return self.logits


def scored(labels, logits, lines):
    recipe = RECIPES["resnet50"]
    work = training.Finetuning(tuned(Tiny(), recipe, 3), labels, recipe, {})
    network = Given(logits)
    pixels = torch.zeros(len(lines), 64, 64, 3, dtype=torch.uint8)
    drawn = draws(0, [0] * len(lines), range(len(lines)), work.draws)
    return network, work.score(network, pixels, drawn, torch.tensor(lines)), work


def test_sigmoid_leaves_difficult_labels_out():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (9, 3)).astype(np.int8)
    logits, lines = rng.normal(0, 3, (6, 3)).astype(np.float32), [3, 0, 8, 5, 1, 7]
    network, score, work = scored(labels, logits, lines)
    score.loss.backward()
    want, count, right = 0.0, 0, 0
    for row, line in zip(logits.astype(float), lines, strict=True):
        for c in range(3):
            p, label = 1 / (1 + np.exp(-row[c])), labels[line, c]
            if label:
                want -= np.log(p if label == 1 else 1 - p)
                count += 1
        right += labels[line, row.argmax()] == 1
    assert score.loss.item() == pytest.approx(want, rel=1e-5) and score.weight.item() == count
    assert score.measures["accuracy"][0].item() == right and score.measures["accuracy"][1] == 6
    difficult = torch.from_numpy(labels[lines] == 0)
    assert torch.equal(network.logits.grad == 0, difficult) and difficult.any()
    # The best guess for all: no share of the positives gives a lower loss.
    known = labels != 0
    grid = np.linspace(0.001, 0.999, 999)
    counts = [((labels[:, c] == 1).sum(), (labels[:, c] == -1).sum()) for c in range(3)]
    losses = [np.min(-yes * np.log(grid) - no * np.log(1 - grid)) for yes, no in counts]
    assert work.chance == pytest.approx(sum(losses) / known.sum(), rel=1e-3)
    assert training.chance(np.array([[1], [1]], np.int8)) == 0


def test_softmax_of_one_label():
    labels, lines = np.array([2, 0, 1, 1], np.int32), [2, 0, 3]
    logits = np.array([[1.0, 2, 3], [0, 0, 9], [-1, 5, 2]], np.float32)
    _network, score, work = scored(labels, logits, lines)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    want = -sum(np.log(p[row, labels[line]]) for row, line in enumerate(lines))
    assert score.loss.item() == pytest.approx(want, rel=1e-5) and score.weight.item() == 3
    assert score.measures["accuracy"][0].item() == 2 and work.chance == math.log(3)


# ---- Pictures ------------------------------------------------------------------------------------


def test_sized_crops_have_the_areas_of_the_recipe():
    """Their extent is told by an image whose pixels say where they are."""
    x, y = np.meshgrid(np.arange(240), np.arange(240))
    image = torch.from_numpy(np.stack([x, y, 0 * x], 2).astype(np.uint8))
    area, areas = RECIPES["alexnet"].crop_area, []
    for drawn in draws(0, [0] * 200, range(200), 50):
        found = augmentation.sized_crop(image, 64, drawn.reshape(10, 5), area).numpy().astype(float)
        areas.append(np.prod((found[-1, -1] - found[0, 0])[:2] * 64 / 63) / 240**2)
    assert 0.08 < min(areas) < 0.13 and 0.45 < max(areas) < 0.54
    assert np.mean(areas) == pytest.approx(0.3, abs=0.03)


def test_random_crops_of_testing(tmp_path):
    """A pixel of these pictures says where it is."""
    x, y = np.meshgrid(np.arange(300), np.arange(256))
    picture = Image.fromarray(np.stack([x % 256, y, x // 256], 2).astype(np.uint8))
    for name in "ab":
        picture.save(tmp_path / f"{name}.png")
    listing = listed(tmp_path, "a.png\nb.png\n")

    def corners(crops, line):
        found = crops[line]
        assert found.shape[1:] == (3, 64, 64) and found.dtype == torch.uint8
        first, last = found[:, :, 0, 0].long(), found[:, :, -1, -1].long()
        at = [tuple((c[0] + 256 * c[2], c[1])) for c in (first.T, last.T)]
        assert all(
            torch.equal(end - begin, torch.full_like(end, 63))
            for begin, end in zip(*at, strict=True)
        )
        return list(zip(*(axis.tolist() for axis in at[0]), strict=True))

    crops = testing.Crops(listing, str(tmp_path), 64, False, 10, 0)
    first = corners(crops, 0)
    assert len(set(first)) == 10 and np.ptp(first, axis=0).min() > 60
    assert corners(crops, 0) == first != corners(crops, 1)
    assert corners(testing.Crops(listing, str(tmp_path), 64, False, 10, 1), 0) != first
    assert corners(testing.Crops(listing, str(tmp_path), 64, False, 1, 0), 0) == [(118, 96)]


# ---- Figures -------------------------------------------------------------------------------------


def test_figures_by_three_rules():
    """scikit-learn's own function, with the authors' shift, which ties and near ties feel."""
    rng = np.random.default_rng(3)
    labels = rng.integers(-1, 2, (200, 4)).astype(np.int8)
    labels[:, 3] = -1
    scores = np.round(rng.normal(labels, 2), 1) + rng.choice([0, 4e-6], (200, 4))
    found = testing.figures(scores, labels, list("abcd"))
    want, area, eleven, shifted = [], [], [], 0
    for c in range(3):
        known = labels[:, c] != 0
        truth, score = labels[known, c] == 1, scores[known, c]
        want.append(100 * average_precision_score(truth, score - 1e-5 * truth))
        shifted += want[-1] != 100 * average_precision_score(truth, score)
        order = sorted(set(score), reverse=True)
        curve = [(truth[score >= s].sum() / truth.sum(), truth[score >= s].mean()) for s in order]
        best = [max(p for r, p in curve if r >= recall) for recall, _ in curve]
        steps = np.diff([0, *(r for r, _ in curve)])
        area.append(100 * float(steps @ best))
        tops = [max([p for r, p in curve if r >= t / 10 - 1e-9], default=0) for t in range(11)]
        eleven.append(100 * float(np.mean(tops)))
    assert shifted == 3
    assert [found["per_class"][name] for name in "abc"] == pytest.approx(want, abs=1e-10)
    assert found["per_class"]["d"] is None and found["classes"] == 3
    assert (found["metric"], found["value"]) == ("mAP (scikit-learn)", pytest.approx(np.mean(want)))
    assert found["map_area"] == pytest.approx(np.mean(area))
    assert found["map_11_point"] == pytest.approx(np.mean(eleven))


def test_figures_of_one_label():
    scores = np.array([[3.0, 2, 1], [1, 2, 3], [1, 3, 2], [9, 1, 0]])
    found = testing.figures(scores, np.array([0, 2, 0, 1], np.int32), list("abc"))
    assert (found["metric"], found["value"], found["top_5"]) == ("top-1", 50, 100)
    assert found["per_class"] == {"a": 50, "b": 0, "c": 100}


# ---- A run in this process -----------------------------------------------------------------------


def train(folder, steps=None, wanted=FinetuneOptions(), **changes):  # noqa: B008
    """Fine-tune in this process, up to step STEPS; return the content of the file."""
    done = []
    given = {"batch": 4, "iterations": 7, "checkpoint_every": ((3, "step"),), **changes}
    options = TrainingOptions(
        output="t.pt", precision="fp32", device="cpu", root=".", lr=0.02, **given
    )
    talk = Conversation(
        emit=lambda _line: None,
        say=done.append,
        stopping=lambda: "SIGTERM" if steps in done else None,
        progress=lambda step, *_: done.append(step),
    )
    with contextlib.chdir(folder):
        try:
            training.train("random:tiny", "train.tsv", "alexnet", wanted, options, talk)
        except Stopped:
            return None
    return networks.load_tuned(str(folder / "t.pt"))


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path):
    """With dropout, batch norm of its own, momentum and a new order of images."""
    rng, runs = np.random.default_rng(0), []
    for name in range(8):
        pixels = rng.integers(0, 256, (70, 90, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    lines = "".join(f"../{name}.png\t{'ab'[name % 2]}\n" for name in range(8))
    for number, stops in enumerate([(None,), (2, 5, None)]):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        (folder / "train.tsv").write_text(lines)
        for stop in stops:
            found = train(folder, stop, FinetuneOptions(fc=8))
            assert (found is None) == (stop is not None)
        runs.append(found)
    whole, again = runs
    for part in ("trunk", "head"):
        assert all(torch.equal(again[part][name], value) for name, value in whole[part].items())
    with registry.seeded(0):
        before = Tiny().state_dict()
    assert not torch.equal(whole["trunk"]["conv1.0.weight"], before["conv1.0.weight"])
    assert torch.equal(whole["trunk"]["conv1.1.weight"], before["conv1.1.weight"])  # batch norm
    assert not torch.equal(whole["trunk"]["conv1.1.running_mean"], torch.zeros(8))
    settings = whole["settings"]
    assert (settings["loss"], settings["head"], settings["fc"]) == ("softmax", "fc-bn", 8)
    assert "stride" not in settings and settings["pretext"] == "fine-tuned random"
