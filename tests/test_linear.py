"""Linear classifiers: heads, augmentation and labels against plain references."""

import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as vision
from sklearn.metrics import top_k_accuracy_score
from tiny import Tiny

from ssl_common.data import augmentation
from ssl_common.data.manifest import Manifest, single_labels
from ssl_common.data.order import draws
from ssl_common.data.pixels import resize
from ssl_common.evaluation.linear import recipes, training
from ssl_common.evaluation.linear.heads import Heads, Linear
from ssl_common.evaluation.metrics import places
from ssl_common.models import registry
from ssl_common.ranks import devices
from ssl_common.streams import DataError
from ssl_common.training import loop
from ssl_common.training.plan import resolve
from ssl_common.training.schedules import rate

SHAPES = {"a": (3, 2, 2), "b": (5, 1, 1)}


def task(**settings):
    """The task on a trunk of three layers, by the recipe of the ResNet-50 but for SETTINGS."""
    trunk = Tiny().eval()
    names, labels = list(trunk.pooling), np.arange(40, dtype=np.int32) % 3
    return Linear(trunk, names, labels, 3, replace(recipes.RECIPES["resnet50"], **settings))


def softmax(x):
    x = np.exp(x - x.max(1, keepdims=True))
    return x / x.sum(1, keepdims=True)


@pytest.mark.parametrize("recipe", ["resnet50", "alexnet", "resnet50-lab"])
def test_heads_against_their_formulas(recipe):
    """Three steps: batch norm, softmax, momentum and decay written out."""
    rng = np.random.default_rng(1)
    recipe = replace(recipes.RECIPES[recipe], bn_momentum=0.3)
    labels = rng.integers(0, 4, 50).astype(np.int32)
    work = Linear(None, list(SHAPES), labels, 4, recipe, SHAPES)
    heads = Heads(SHAPES.values(), 4, 0.3, recipe.bn_affine).train()
    assert all(0.005 < head[2].weight.std() < 0.02 for head in heads.heads)
    state = [
        {"w": h[2].weight.detach().numpy().astype(float), "b": np.zeros(4)} for h in heads.heads
    ]
    for each, shape in zip(state, SHAPES.values(), strict=True):
        each |= {"vw": 0.0, "vb": 0.0, "mean": np.zeros(shape[0]), "var": np.ones(shape[0])}
    chosen, lr, m, wd = loop.optimizer(heads, work, recipe), 0.05, 0.9, recipe.weight_decay
    for group in chosen.param_groups:
        group["lr"] = lr
    if recipe.bn_affine:  # its own arithmetic is torch's: here it stays as it was
        for head in heads.heads:
            head[0].requires_grad_(False)
    for step in range(3):
        lines = rng.permutation(50)[:8]
        rows = [rng.normal(1, 2, (8, *shape)) for shape in SHAPES.values()]
        pixels = torch.from_numpy(np.concatenate([r.reshape(8, -1) for r in rows], 1)).float()
        chosen.zero_grad()
        score = work.score(heads, pixels, None, torch.from_numpy(lines))
        loss, weight, (right, count) = score.loss, score.weight, score.measures["accuracy"]
        (loss / weight).backward()
        chosen.step()
        want_loss = want_right = 0
        for row, each in zip(rows, state, strict=True):
            mean, var = row.mean((0, 2, 3)), row.var((0, 2, 3))
            n = row.size / row.shape[1]
            each["mean"] = 0.7 * each["mean"] + 0.3 * mean
            each["var"] = 0.7 * each["var"] + 0.3 * var * n / (n - 1)
            x = (row - mean[:, None, None]) / np.sqrt(var[:, None, None] + 1e-5)
            x = x.reshape(8, -1)
            p = softmax(x @ each["w"].T + each["b"])
            y = np.eye(4)[labels[lines]]
            want_loss -= np.log((p * y).sum(1)).sum()
            want_right += (p.argmax(1) == labels[lines]).sum()
            decays = wd * recipe.decay_biases
            gradients = {"w": (p - y).T @ x / 8 + wd * each["w"]}
            gradients["b"] = (p - y).mean(0) + decays * each["b"]
            for name, g in gradients.items():
                each[f"v{name}"] = v = m * each[f"v{name}"] + g
                each[name] = each[name] - lr * (g + m * v if recipe.nesterov else v)
        assert loss.item() == pytest.approx(want_loss, rel=1e-5), step
        assert (weight.item(), right.item(), count) == (8, want_right, 16)
    for head, each in zip(heads.heads, state, strict=True):
        np.testing.assert_allclose(head[2].weight.detach(), each["w"], atol=2e-6)
        np.testing.assert_allclose(head[2].bias.detach(), each["b"], atol=2e-6)
        np.testing.assert_allclose(head[0].running_mean, each["mean"], atol=1e-5)
        np.testing.assert_allclose(head[0].running_var, each["var"], rtol=1e-5)


def test_the_published_settings():
    plan = resolve(recipes.RECIPES["resnet50"], "resnet50", 1_281_167)
    assert (plan.steps, plan.batch) == (140_000, 256)
    assert plan.epochs == pytest.approx(28, abs=0.1)  # ImageNet's, as the authors count
    for step, want in ((0, 1e-2), (39_999, 1e-2), (40_000, 1e-3), (80_000, 1e-4), (120_000, 1e-5)):
        assert rate(step, plan) == pytest.approx(want)
    own = resolve(recipes.RECIPES["alexnet"], "alexnet", 1000, batch=100, epochs=7)
    assert own.steps == 70 and own.lr == pytest.approx(0.01 * 100 / 256)
    for name in registry.TRUNKS:
        assert name in recipes.RECIPES or name.startswith("tiny")


def test_a_crop_of_any_size_and_shape():
    """Its extent is told by an image whose pixels say where they are."""
    x, y = np.meshgrid(np.arange(180), np.arange(180))
    image = torch.from_numpy(np.stack([x, y, 0 * x], 2).astype(np.uint8))
    areas, aspects, corners = [], [], []
    for drawn in draws(0, [0] * 400, range(400), 50):
        found = augmentation.sized_crop(image, 64, drawn.reshape(10, 5)).numpy().astype(float)
        wide, high = ((found[-1, -1] - found[0, 0])[:2] * 64 / 63).tolist()
        areas.append(wide * high / 180**2)
        aspects.append(wide / high)
        corners.append(found[0, 0, :2])
    assert 0.07 < min(areas) < 0.12 and 0.9 < max(areas) < 1.03
    assert 0.70 < min(aspects) < 0.8 and 1.25 < max(aspects) < 1.42
    assert 0.4 < np.mean(np.array(aspects) > 1) < 0.6
    assert np.mean(areas) == pytest.approx(0.5, abs=0.08)
    assert np.ptp(corners, axis=0).min() > 90


def test_a_strip_gives_its_middle():
    x = np.arange(300, dtype=np.uint8)[None, :, None]
    strip = torch.from_numpy(np.broadcast_to(x, (3, 300, 3)).copy())
    found = augmentation.sized_crop(strip, 3, np.full((10, 5), 0.99))
    assert found.shape == (3, 3, 3) and found[0, :, 0].tolist() == [149, 150, 151]


@pytest.mark.parametrize("how, differ", [("sized", True), ("random", True), ("center", False)])
def test_crops_by_recipe(how, differ):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 280, 3), np.uint8)
    work, image = task(crop=how), torch.from_numpy(pixels)
    one, two = (work.crop(image, row) for row in draws(0, [0, 1], [0, 0], work.draws))
    assert one.shape == two.shape == (64, 64, 3) and one.dtype == torch.uint8
    assert (not torch.equal(one, two)) == differ
    if not differ:  # 280 x 300 -> 256 x 274, of which the middle 64
        whole = resize(image, (274, 256))
        assert torch.equal(one, whole[105:169, 96:160])
        square = task(crop=how, warp=True).crop(image, draws(0, [0], [0], 58)[0])
        assert torch.equal(square, resize(image, (256, 256))[96:160, 96:160])


def test_half_are_mirrored():
    work = task(jitter=0.0, lighting=0.0)
    pixels = torch.randint(0, 256, (400, 2, 3, 3), dtype=torch.uint8)
    seen = work.augmented(pixels, draws(0, [0] * 400, range(400), work.draws))
    same = [torch.equal(s, p.permute(2, 0, 1)) for s, p in zip(seen, pixels, strict=True)]
    turned = [torch.equal(s, p.permute(2, 0, 1).flip(2)) for s, p in zip(seen, pixels, strict=True)]
    assert 160 < sum(same) < 240 and sum(same) + sum(turned) == 400


def test_jitter_against_torchvision():
    """In each order; its gray has other last digits."""
    numbers = torch.Generator().manual_seed(0)
    # Little to clip, as torchvision does: three changes by 1.4 make 0.36 of 1.
    pixels = 0.15 + 0.2 * torch.rand(60, 3, 5, 4, generator=numbers)
    drawn = torch.rand(60, 4, dtype=torch.float64, generator=numbers)
    found = augmentation.jitter(pixels, drawn[:, :3], drawn[:, 3], 0.4)
    changes = (vision.adjust_brightness, vision.adjust_contrast, vision.adjust_saturation)
    for image, (*amounts, order), got in zip(pixels, drawn.tolist(), found, strict=True):
        for which in augmentation.ORDERS[int(order * 6)]:
            image = changes[which](image, 1 + 0.4 * (2 * amounts[which] - 1))
        np.testing.assert_allclose(got, image, atol=5e-4)


def test_light_has_the_covariance_of_colours():
    added = augmentation.light(torch.from_numpy(draws(0, [0] * 20_000, range(20_000), 3)), 0.1)
    added = added[:, :, 0, 0].numpy()
    axes = np.array(augmentation.COMPONENTS)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-3)
    want = axes @ np.diag((0.1 * np.array(augmentation.DEVIATIONS)) ** 2) @ axes.T
    np.testing.assert_allclose(np.cov(added.T), want, rtol=0.04)
    np.testing.assert_allclose(added.mean(0), 0, atol=5e-4)
    # Of a normal number 4.55% are two deviations away.
    along = added @ axes[:, 0] / (0.1 * 0.2175)
    assert np.mean(abs(along) > 2) == pytest.approx(0.0455, abs=0.006)


def test_the_trunk_is_frozen():
    work = task()
    digest = work.trunk.digest()
    pixels = torch.randint(0, 256, (6, 64, 64, 3), dtype=torch.uint8)
    drawn = draws(0, [0] * 6, range(6), work.draws)
    shapes = [tuple(each.shape[1:]) for each in work.features(pixels, drawn)]
    assert [shape[0] for shape in shapes] == [8, 16, 16]
    heads = Heads(shapes, 3, 0.1, False)
    work.score(heads, pixels, drawn, torch.arange(6)).loss.backward()
    assert all(p.grad is not None for p in heads.parameters())
    assert all(p.grad is None for p in work.trunk.parameters())
    assert work.trunk.digest() == digest  # the statistics of its batch norm too
    assert work.chance == pytest.approx(3 * math.log(3))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_places_against_scikit_learn(k):
    rng = np.random.default_rng(k)
    scores, labels = rng.normal(size=(500, 9)), rng.integers(0, 9, 500)
    want = top_k_accuracy_score(labels, scores, k=k, labels=np.arange(9))
    assert (places(scores, labels) < k).mean() == pytest.approx(want)


def test_equal_scores_stand_in_the_order_of_the_classes():
    scores = np.array([[1, 1, 1], [2, 1, 1], [0, 3, 3]])
    assert places(scores, np.array([0, 2, 1])).tolist() == [0, 2, 0]
    assert places(scores, np.array([2, 0, 2])).tolist() == [2, 0, 1]


def listed(folder, text):
    (folder / "list.tsv").write_text(text)
    return Manifest(str(folder / "list.tsv"))


def test_single_labels(tmp_path):
    images = listed(tmp_path, "a.jpg\tsea\nb.jpg\tcity\nc.jpg\tsea\n")
    classes, labels = single_labels(images)
    assert classes == ["city", "sea"] and labels.tolist() == [1, 0, 1]
    classes, labels = single_labels(images, ["sea", "air", "city"])
    assert classes == ["sea", "air", "city"] and labels.tolist() == [0, 2, 0]


@pytest.mark.parametrize(
    "line, wrong",
    [
        ("b.jpg", "no label, where one class is needed: write path<TAB>class"),
        ("b.jpg\tsea,city", "sea,city, where one class is needed: write path<TAB>class"),
        ("b.jpg\t?sea", "?sea, where one class is needed: write path<TAB>class"),
        ("b.jpg\tcow", "cow: not one of the 2 classes of the training (city, sea)"),
    ],
)
def test_labels_that_are_not_one_class(tmp_path, line, wrong):
    images = listed(tmp_path, f"a.jpg\tsea\n{line}\n")
    with pytest.raises(DataError) as error:
        single_labels(images, ["city", "sea"])
    assert str(error.value) == f"{images.path}:2: {wrong}"


# ---- Memory ---------------------------------------------------------------------------------


def test_memory_is_what_the_optimizer_holds():
    """Weights, gradients and momentum of two steps of SGD, counted in torch's own tensors."""
    heads = Heads(SHAPES.values(), 40, 0.1, False).train()
    chosen = loop.optimizer(heads, task(), recipes.RECIPES["resnet50"])
    for _step in range(2):
        sum(out.sum() for out in heads([torch.randn(4, *s) for s in SHAPES.values()])).backward()
        chosen.step()
    weights = list(heads.parameters())
    held = [*weights, *(w.grad for w in weights)]
    held += [chosen.state[w]["momentum_buffer"] for w in weights]
    assert sum(t.numel() * t.element_size() for t in held) == sum(
        training.memory(SHAPES, 40).values()
    )


ALEXNET = {"conv1": (96, 10, 10), "pool1": (96, 10, 10), "conv5": (256, 6, 6)}
GIGABYTES = (2.304, 2.304, 2.212)  # 3 x 4 bytes x 20,000 classes x (9,600, 9,600, 9,216 and 1)


def test_memory_is_told_where_it_is_much():
    assert training.memory_in_words(ALEXNET, 2900, 0) is None  # 0.99 GB
    said = training.memory_in_words(ALEXNET, 20_000, sum(GIGABYTES) * 1e9 + 1e6)
    assert said == (
        "the classifiers of 20,000 classes take 6.8 GB of memory for weights, gradients and "
        "momentum (conv1 2.3, pool1 2.3, conv5 2.2): less with fewer --layer"
    )


@pytest.mark.parametrize(
    "free, advice",
    [
        (6.81e9, "and 6.8 are free: leave out conv1: --layer names the others"),
        (2.22e9, "and 2.2 are free: leave out conv1, pool1: --layer names the others"),
        (2.2e9, "and 2.2 are free: no layer fits; take a machine with more, or fewer classes"),
    ],
)
def test_memory_that_is_not_there_is_refused(free, advice):
    with pytest.raises(DataError) as error:
        training.memory_in_words(ALEXNET, 20_000, free)
    assert str(error.value).endswith(advice)


def test_what_memory_there_is(tmp_path, monkeypatch):
    """That of the machine, unless a control group or ulimit -v holds the process to less."""
    cpu = torch.device("cpu")
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = devices.available(cpu)
    assert 0 < free < 2 * machine
    job = tmp_path / "slurm/job_7/step_0"
    job.mkdir(parents=True)
    (job / "memory.max").write_text("max\n")
    (job.parent / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.max").write_text("7\n")  # the whole machine is no group
    monkeypatch.setattr(devices, "GROUPS", {"": (str(tmp_path), "memory.max")})
    (tmp_path / "cgroup").write_text("9:cpu:/x\n0::/slurm/job_7/step_0\n")
    monkeypatch.setattr(devices, "MEMBERSHIPS", str(tmp_path / "cgroup"))
    assert devices.available(cpu) == 1_000_000
    monkeypatch.setattr(devices.resource, "getrlimit", lambda _kind: (400_000, 500_000))
    assert devices.available(cpu) == 400_000
