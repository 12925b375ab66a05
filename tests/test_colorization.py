"""Colorization against plain ways to say the same."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab
from tiny import TinyLab

from ssl_common.data.images import read
from ssl_common.data.order import draws
from ssl_common.models import registry
from ssl_common.pretext import bins
from ssl_common.pretext.colorization import CROP, Colorization, ColorNet, middles
from ssl_common.pretext.recipes import COLORIZATION
from ssl_common.training.loop import optimizer


@pytest.fixture(scope="module")
def task():
    prior = np.random.default_rng(0).dirichlet(np.full(313, 0.2))
    return Colorization(bins.Bins(bins.hull(), prior, 5), 5)


@pytest.fixture
def batch():
    """Four crops: two of all colours, a gray one, and one that is gray but for a corner."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, CROP, CROP, 3), np.uint8)
    pixels[2:] = pixels[2:, :, :, :1]
    pixels[3, :40, :40] = (250, 30, 60)
    return torch.from_numpy(pixels), draws(0, [0] * 4, range(4), 3)


def test_crops_and_mirrors_are_drawn_evenly(task):
    x, y = np.meshgrid(np.arange(300), np.arange(256))
    image = torch.from_numpy(np.stack([x // 2, y, x % 2], 2).astype(np.uint8))
    drawn = draws(0, [0] * 400, range(400), task.draws)
    corners = torch.stack([task.crop(image, each)[0, 0] for each in drawn]).numpy().astype(int)
    left, top = corners[:, 0] * 2 + corners[:, 2], corners[:, 1]
    assert task.crop(image, drawn[0]).shape == (CROP, CROP, 3)
    for values, last in ((left, 300 - CROP), (top, 256 - CROP)):
        assert 0 <= values.min() < 4 and last - 4 < values.max() <= last
        assert abs(values.mean() - last / 2) < 5
    pixels = torch.stack([task.crop(image, each) for each in drawn[:40]])
    images = task.images(pixels, drawn[:40])
    mirrored = [bool((i != p.permute(2, 0, 1)).any()) for i, p in zip(images, pixels, strict=True)]
    assert 10 < sum(mirrored) < 30
    for image, crop, turned in zip(images, pixels.numpy(), mirrored, strict=True):
        want = crop[:, ::-1] if turned else crop
        assert (image.permute(1, 2, 0).numpy() == want).all()


@pytest.mark.parametrize("arch, side", [("alexnet", 10), ("resnet50", 12)])
def test_a_label_is_the_colour_in_the_middle_of_the_field_of_view(arch, side):
    """The middle by the arithmetic of strides and paddings; exact for AlexNet, 1 off for ResNet."""
    trunk = registry.build(arch, 0, "lab").eval()
    with torch.no_grad():
        assert ColorNet(trunk, 313).maps(torch.zeros(1, 1, CROP, CROP)).shape[2:] == (side, side)
    at, jump = 0.0, 1
    for name, stage in trunk.named_children():
        for layer in stage.modules() if name != "pool5" else ():
            if hasattr(layer, "kernel_size") and "downsample" not in str(name):
                kernel, stride, padding = (
                    value if isinstance(value, int) else value[0]
                    for value in (layer.kernel_size, layer.stride, layer.padding)
                )
                if arch == "resnet50" and kernel == 1:
                    continue  # moves nothing; the strides lie in the 3 x 3
                at += ((kernel - 1) / 2 - padding) * jump
                jump *= stride
    assert jump == 16
    off = middles(side).numpy() - (at + jump * np.arange(side))
    assert (off == (0 if arch == "alexnet" else 1)).all()


def test_targets(task, batch):
    """Against a loop over places, each colour from scikit-image."""
    images = task.images(*batch)
    nearest, share, weight = (each.numpy() for each in task.targets(images, (10, 9)))
    assert nearest.shape == share.shape == (4 * 90, 5) and weight.shape == (360,)
    lab = np.rint(rgb2lab(images.permute(0, 2, 3, 1).numpy()))[..., 1:]
    points, prior = bins.hull(), task.bins.prior
    scale = sum(p / (p / 2 + 0.5 / 313) for p in prior)
    place, close = 0, 0
    for n in range(4):
        for i in range(10):
            for j in range(9):
                ab = lab[n, 17 + 16 * i, 25 + 16 * j]
                mean = (share[place, :, None] * points[nearest[place]]).sum(0)
                square = ((ab - points) ** 2).sum(1)
                five = np.sort(square)[:5]
                gauss = np.exp((five[0] - five) / 50)
                want = (gauss / gauss.sum()) @ points[np.argsort(square, kind="stable")[:5]]
                close += abs(mean - want).max() < 1.5  # 8-bit a, b are 1 off here and there
                counts = 1 / (prior[nearest[place, 0]] / 2 + 0.5 / 313) / scale
                assert weight[place] == pytest.approx(0 if n == 2 else counts, rel=1e-4)
                place += 1
    assert close >= 0.97 * place


def test_score_and_its_gradient(task, batch):
    """The loss op of the authors: sum of w * CE over sum of w; gradient w (p - t) / sum of w."""
    logits = torch.randn(4, 10, 10, 313, generator=torch.Generator().manual_seed(1))
    logits.requires_grad_()
    score = task.score(lambda _lightness: logits, *batch, None)
    loss, weights, (right, count) = score.loss, score.weight, score.measures["accuracy"]
    (loss / weights).backward()
    nearest, share, weight = (t.numpy() for t in task.targets(task.images(*batch), (10, 10)))
    target = np.zeros((400, 313))
    np.put_along_axis(target, nearest, share, 1)
    flat = logits.detach().double().view(400, 313).numpy()
    probability = np.exp(flat) / np.exp(flat).sum(1, keepdims=True)
    entropy = -(target * np.log(probability)).sum(1)
    assert float(weights) == pytest.approx(weight.sum(), rel=1e-5)
    assert float(loss.detach() / weights) == pytest.approx(np.average(entropy, weights=weight))
    want = weight[:, None] * (probability - target) / weight.sum()
    assert abs(logits.grad.view(400, 313).numpy() - want).max() < 1e-8
    assert count == 400
    assert int(right) == (flat.argmax(1) == nearest[:, 0]).sum()


def test_parts_of_a_batch_add_up(task, batch):
    pixels, drawn = batch
    torch.manual_seed(0)
    network = task.network(TinyLab()).eval()
    with torch.no_grad():
        scores = [
            task.score(network, pixels[s], drawn[s], None)
            for s in (slice(4), slice(1), slice(1, 4))
        ]
    numbers = [(each.loss, each.weight, *each.measures["accuracy"]) for each in scores]
    for whole, *parts in zip(*numbers, strict=True):
        assert float(whole) == pytest.approx(float(sum(parts)), rel=1e-5)


def test_nothing_but_gray_weighs_nothing(task, batch):
    pixels, drawn = batch
    network = task.network(TinyLab()).eval()
    score = task.score(network, pixels[2:3], drawn[2:3], None)
    assert float(score.loss.detach()) == float(score.weight) == 0


def test_fc6_is_a_dilated_convolution():
    torch.manual_seed(0)
    trunk = TinyLab()
    trunk.head_width = 8
    network = ColorNet(trunk, 20).eval()
    seen = {}
    network.bn6.register_forward_hook(lambda _module, inputs, _out: seen.update(fc6=inputs[0]))
    lightness = torch.randn(2, 1, CROP, CROP)
    out = network(lightness)
    maps = torch.nn.functional.max_pool2d(network.maps(lightness), 3, 1, 1)
    weight = network.fc6.weight.view(8, 16, 6, 6)
    want = torch.nn.functional.conv2d(maps, weight, network.fc6.bias, padding=5, dilation=2)
    assert out.shape == (2, *maps.shape[2:], 20)
    assert abs(seen["fc6"].view(2, *maps.shape[2:], 8).permute(0, 3, 1, 2) - want).max() < 1e-5


def test_it_is_restored_from_what_it_leaves(task):
    for each in (task, Colorization(bins.Bins(bins.hull(), None, 40), 40)):
        again = Colorization.restore({"settings": each.settings(), **each.arrays()})
        assert again.settings() == each.settings()
        assert torch.equal(again.bins.weight, each.bins.weight)
        assert torch.equal(again.bins.share, each.bins.share)


@pytest.mark.slow
def test_sixteen_photographs_are_learned(data):
    """Crops and mirrors as in training; AlexNet, a narrow head, Adam and decay of the recipe."""
    folder = data("scenes8_sun_A")
    names = sorted(folder.rglob("*.jpg"))[:: len(sorted(folder.rglob("*.jpg"))) // 16][:16]
    task = Colorization(bins.Bins(bins.hull(), None, 10), 10)
    photos = [read(name) for name in names]
    trunk = registry.build("alexnet", 0, "lab")
    trunk.head_width = 256
    torch.manual_seed(0)
    network = task.network(trunk)
    chosen = optimizer(network, task, COLORIZATION)

    def batch(epoch):
        drawn = draws(0, [epoch] * 16, range(16), task.draws)
        pixels = [task.crop(photo, each) for photo, each in zip(photos, drawn, strict=True)]
        return torch.stack(pixels), drawn

    for epoch in range(100):
        for group in chosen.param_groups:
            group["lr"] = 1e-3 if epoch < 70 else 1e-4
        score = task.score(network.train(), *batch(epoch), None)
        chosen.zero_grad()
        (score.loss / score.weight).backward()
        chosen.step()

    network.eval()
    pixels, drawn = batch(0)
    images = task.images(pixels, drawn)
    nearest, share, _weight = task.targets(images, (10, 10))
    targets = torch.zeros(len(nearest), 313, dtype=torch.double).scatter_(
        1, nearest, share.double()
    )
    entropy = -torch.xlogy(targets, targets).sum(1).mean()
    mean = targets.mean(0)
    constant = -torch.xlogy(mean, mean).sum()
    task.bins.weight[:] = 1
    uncoloured = task.targets(images, (10, 10))[2] == 0
    assert not uncoloured.any(), "every photograph has colour"
    with torch.no_grad():
        score = task.score(network, pixels, drawn, None)
    excess = float(score.loss / score.weight - entropy)
    assert 0 < excess < 0.7 * float(constant - entropy)
