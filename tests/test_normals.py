"""The predictor of normals: network, codes, loss and schedule against plain references."""

import math
import os
import pathlib
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_views
from scipy import io
from sklearn.cluster import KMeans
from tiny import Tiny
from torch import nn
from torch.nn import functional
from torchvision import models

from ssl_common.data import order
from ssl_common.data.pixels import size_within
from ssl_common.data.targets import PairList, decode_normals, encode_normals
from ssl_common.evaluation.normals import cache, codes, labels, metrics, showing, training
from ssl_common.evaluation.normals.labels import Truth
from ssl_common.evaluation.normals.pyramid import Body, Pyramid
from ssl_common.evaluation.normals.recipes import PAPER
from ssl_common.models import registry
from ssl_common.progress import silent
from ssl_common.streams import DataError
from ssl_common.training.plan import resolve
from ssl_common.training.schedules import rate

RNG = np.random.default_rng(0)


def random_normals(count, rng=RNG):
    found = rng.normal(size=(3, count))
    return (found / np.linalg.norm(found, axis=0)).astype(np.float32)


# ---- The network --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet():
    return registry.build("resnet50", 0)


def test_the_dilated_network_is_that_of_torchvision(resnet):
    """torchvision's own way to trade strides for holes, with the same weights."""
    names = {"conv1": "conv1.0.", "bn1": "conv1.1.", "layer": "res"}
    state = resnet.state_dict()
    theirs = models.resnet50(replace_stride_with_dilation=[False, True, True])
    renamed = {}
    for name in theirs.state_dict():
        part, _, rest = name.partition(".")
        if part.startswith("layer"):
            renamed[name] = state[f"res{int(part[5]) + 1}.{rest}"]
        elif part in names:
            renamed[name] = state[names[part] + rest]
    theirs.load_state_dict(renamed, strict=False)
    theirs.eval()
    pixels = torch.from_numpy(RNG.integers(0, 256, (2, 72, 104, 3), np.uint8))
    body = Body(resnet, "x")
    with torch.no_grad():
        x = resnet.prepare(pixels.permute(0, 3, 1, 2))
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        res4 = theirs.layer3(theirs.layer2(theirs.layer1(x)))
        res5 = theirs.layer4(res4)
        found = body(pixels)
        assert torch.allclose(found, res4, rtol=1e-4, atol=1e-5)
        assert found.shape == (2, 1024, 9, 13)
        assert torch.allclose(body.top(found), res5, rtol=1e-4, atol=1e-5)
    assert body.shape(72, 104) == (1024, 9, 13)
    assert (body.stride, body.first, body.layer) == (8, 0, "res5")
    assert not any(p is q for p in body.top.parameters() for q in resnet.parameters())


def test_the_colorization_network_keeps_what_its_res5_met():
    """Its res5 has no stride of its own: it met places 16 pixels apart, and so it does now."""
    body = Body(registry.build("resnet50-lab", 0), "x")
    middles = [m for name, m in body.top.named_modules() if name.endswith("conv2")]
    assert [m.dilation for m in middles] == [(2, 2)] * 3


@pytest.mark.parametrize("arch, stride", [("alexnet", 8), ("caffenet", 16), ("tiny", 16)])
def test_where_the_places_of_a_map_lie(arch, stride):
    """A place answers most to its middle pixel, and to the same amount on both of its sides."""
    body = Body(registry.build(arch, 0), "x")
    assert body.stride == stride
    pixels = torch.zeros(1, 160, 200, 3, dtype=torch.uint8)
    assert body.shape(160, 200) == tuple(body(pixels).shape[1:])
    convolution = list(body.trunk.children())
    for module in body.trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d | nn.LocalResponseNorm | nn.ReLU):
            module.forward = lambda x: x
        if isinstance(module, nn.MaxPool2d):
            module.forward = nn.AvgPool2d(module.kernel_size, module.stride).forward
    assert convolution
    image = torch.zeros(1, 3, 400, 400, dtype=torch.float64, requires_grad=True)
    whole = body.trunk.double().maps([body.ends], image)[body.ends]
    for place in (5, 9):
        (gradient,) = torch.autograd.grad(whole[0, 0, place, place], image, retain_graph=True)
        rows = gradient[0].sum((0, 2))
        middle = float((rows * torch.arange(400)).sum() / rows.sum())
        assert middle == pytest.approx(body.first + place * stride, abs=1e-6)


@pytest.mark.parametrize("arch", ["timm:convnext_atto", "timm:mobilenetv2_035"])
def test_where_the_places_of_other_networks_lie(arch):
    """As above: with all weights the same, a place answers alike on both sides of its middle."""
    pytest.importorskip("timm")
    body = Body(registry.build(arch, 0), "x")
    for module in body.trunk.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm | nn.ReLU | nn.GELU):
            module.forward = lambda x: x
        if isinstance(module, nn.MaxPool2d):
            module.forward = nn.AvgPool2d(module.kernel_size, module.stride, module.padding).forward
    side, place = 608, 9
    image = torch.zeros(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    whole = body.trunk.double().maps([body.ends], image)[body.ends]
    (gradient,) = torch.autograd.grad(whole[0, 0, place, place], image)
    rows = gradient[0].sum((0, 2))
    middle = float((rows * torch.arange(side)).sum() / rows.sum())
    # Of an even number of pixels the middle is between two.
    assert middle - 0.51 < body.first + place * body.stride < middle + 0.01


def test_a_resnet_of_others_has_holes_as_timm_makes_them():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", num_classes=0, output_stride=8).eval()
    pixels = torch.from_numpy(RNG.integers(0, 256, (2, 72, 104, 3), np.uint8))
    for arch in ("timm:resnet18", "resnet18"):
        trunk = registry.build(arch, 0)
        trunk.network.load_state_dict(theirs.state_dict())
        images = trunk.prepare(pixels.permute(0, 3, 1, 2))
        body = Body(trunk, "x")
        with torch.no_grad():
            want = theirs.forward_intermediates(images, intermediates_only=True)
            found = body(pixels)
            assert torch.allclose(found, want[-2], rtol=1e-4, atol=1e-5)
            assert torch.allclose(body.top(found), want[-1], rtol=1e-4, atol=1e-5)
        assert (body.stride, body.first, body.channels, body.ends) == (8, 0, 512, "layer3")


def test_a_transformer_sees_images_of_any_size():
    pytest.importorskip("timm")
    trunk = registry.build("timm:vit_tiny_patch16_224?size=64", 0)
    pixels = torch.from_numpy(RNG.integers(0, 256, (1, 64, 64, 3), np.uint8))
    digest = trunk.digest()
    with torch.no_grad():
        want = trunk.eval().maps(["blocks.11"], trunk.prepare(pixels.permute(0, 3, 1, 2)))
    body = Body(trunk, "x")
    assert trunk.digest() == digest
    assert torch.allclose(body(pixels), want["blocks.11"], atol=1e-5)
    assert (body.stride, body.first, body.channels) == (16, 7, 192)
    wider = functional.pad(pixels, (0, 0, 0, 40))  # 104 pixels: 7 patches, the last filled up
    assert tuple(body(wider).shape) == (1, *body.shape(64, 104)) == (1, 192, 4, 7)


@pytest.mark.parametrize(
    "arch, why",
    [
        ("vit_b_32", "and it takes images of 224 alone"),
        ("timm:swin_tiny_patch4_window7_224", "and where the places of layers.3 lie cannot be"),
    ],
)
def test_a_network_that_cannot_serve_is_told_why(arch, why):
    if arch.startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(DataError, match=f"random:x: normals need a map of any size, {why}"):
        Body(registry.build(arch, 0), "random:x")


def test_the_pyramid_in_plain_terms():
    """Pooling, 1 x 1, resizing written with loops over the places."""
    torch.manual_seed(0)
    network = Pyramid(nn.Identity(), 6, 5).eval().double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean)
    maps = torch.randn(1, 6, 7, 12, dtype=torch.float64)

    def convolved(sequence, x):
        convolution, norm = sequence
        x = nn.functional.conv2d(x, convolution.weight, padding=convolution.padding)
        mean, var = (v.view(-1, 1, 1) for v in (norm.running_mean, norm.running_var))
        weight, bias = (v.view(-1, 1, 1) for v in (norm.weight, norm.bias))
        return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)

    parts = [maps[0]]
    for scale, branch in zip((1, 2, 3, 6), network.means, strict=True):
        cells = torch.zeros(6, scale, scale, dtype=torch.float64)
        for i, j in np.ndindex(scale, scale):
            rows = slice(i * 7 // scale, -(-(i + 1) * 7 // scale))
            columns = slice(j * 12 // scale, -(-(j + 1) * 12 // scale))
            cells[:, i, j] = maps[0, :, rows, columns].mean((1, 2))
        small = convolved(branch[1:3], cells[None])[0].detach().numpy()
        grids = []
        for n in (7, 12):
            at = (np.arange(n) + 0.5) * scale / n - 0.5
            grids.append(np.stack([np.interp(at, np.arange(scale), u) for u in np.eye(scale)], 1))
        parts.append(torch.from_numpy(np.einsum("yi,cij,xj->cyx", grids[0], small, grids[1])))
    x = convolved(network.head[:2], torch.cat(parts)[None])
    last = network.head[-1]
    expected = nn.functional.conv2d(x, last.weight, last.bias)
    assert torch.allclose(network(maps), expected, atol=1e-9)
    assert isinstance(network.head[3], nn.Dropout2d) and network.head[3].p == 0.1


def test_the_rate_falls_by_a_power():
    plan = resolve(PAPER, "paper", 795)
    assert (plan.steps, plan.batch, plan.lr) == (20_000, 16, 0.02)
    for step in (0, 1, 7_777, 19_999):
        assert rate(step, plan) == pytest.approx(0.02 * (1 - step / 20_000) ** 0.9, rel=1e-12)


# ---- Codes --------------------------------------------------------------------------------------


def test_codes_of_well_separated_normals():
    """As k-means of scikit-learn finds them."""
    centres = np.array([[0, 0, 1], [1, 0, 0.3], [0, 1, 0.3], [-1, 0.2, 0.5]])
    normals = codes.unit((centres[RNG.integers(0, 4, 2000)] + RNG.normal(0, 0.05, (2000, 3))).T)
    found = codes.learn(normals.astype(np.float32), 4, 0)
    theirs = codes.unit(KMeans(4, random_state=0, n_init=5).fit(normals.T).cluster_centers_.T).T
    cosines = found @ theirs.T
    assert sorted(cosines.argmax(1)) == [0, 1, 2, 3] and cosines.max(1).min() > 0.9999
    assert np.allclose((found**2).sum(1), 1)


def test_codes_are_a_fixed_point_and_of_their_seed():
    normals = random_normals(5000)
    found = codes.learn(normals, 40, 3)
    assert np.array_equal(found, codes.learn(normals, 40, 3))
    assert not np.array_equal(found, codes.learn(normals, 40, 4))
    own = np.array([max(range(40), key=lambda k: found[k] @ n) for n in normals.T])
    for k in range(40):
        mean = normals[:, own == k].astype(float).mean(1)
        assert metrics.angles(mean, found[k]) < 2
    one_by_one = [np.degrees(np.arccos(min(1, (found @ n).max()))) for n in normals.T.astype(float)]
    assert np.allclose(codes.errors(normals, found), one_by_one, atol=0.05)


def test_too_few_normals_for_the_codes():
    with pytest.raises(DataError, match="fewer than 40 normals: give a smaller --codes"):
        codes.learn(np.repeat(random_normals(39), 9, axis=1), 40, 0)


def test_codes_of_a_file(tmp_path):
    """Ours, and MATLAB's as vocab40.mat is: a cell that holds a struct with the normals."""
    book = codes.learn(random_normals(3000), 40, 0)
    book[:, 2] = abs(book[:, 2])
    np.save(tmp_path / "c.npy", 3 * book)
    cell = np.empty((1, 1), object)
    cell[0, 0] = {"normals": book.astype(np.float64)}
    io.savemat(tmp_path / "vocab40.mat", {"vocabs": cell})
    for name in ("c.npy", "vocab40.mat"):
        assert np.allclose(codes.read(str(tmp_path / name)), book, atol=1e-6)
    io.savemat(tmp_path / "other.mat", {"vocab": book})
    with pytest.raises(DataError, match="other.mat: not the authors' vocab40.mat, or damaged"):
        codes.read(str(tmp_path / "other.mat"))


@pytest.mark.parametrize(
    "content, message",
    [
        (np.ones((3, 40)), "float64 .3, 40., where codes are K x 3 numbers"),
        (np.ones((1, 3)), "codes are 2 to 1,000 rows of numbers, none of them 0, 0, 0"),
        (np.eye(4, 3), "none of them 0, 0, 0"),
        (np.full((2, 3), np.nan), "rows of numbers"),
        (np.array([[0, 0, -1.0], [0, 1, -1], [0, 0, 1]]), "most codes have their back to the came"),
    ],
)
def test_codes_that_are_refused(tmp_path, content, message):
    np.save(tmp_path / "c.npy", content)
    with pytest.raises(DataError, match=f"c.npy: .*{message}"):
        codes.read(str(tmp_path / "c.npy"))


# ---- Labels and pixels --------------------------------------------------------------------------


def test_the_code_of_each_place():
    """One by one, for an image of another size than its normals; mirrored, x is negated."""
    normals = random_normals(30 * 40).reshape(3, 30, 40)
    normals[:, 3:9, 5:30] = 0
    book = codes.learn(random_normals(500), 12, 0)
    picture = encode_normals(normals, normals.any(0))
    normals = decode_normals(picture)
    for mirrored in (False, True):
        places = showing.places_of(picture, (60, 80), 8, 3, mirrored)
        found = showing.codes_of(places, book, mirrored)
        assert found.shape == (8, 10) and found.dtype == np.int16
        for i, j in np.ndindex(*found.shape):
            row, column = (3 + 8 * i) // 2, (3 + 8 * j) // 2
            normal = normals[:, row, 39 - column if mirrored else column]
            normal = normal * ([-1, 1, 1] if mirrored else [1, 1, 1])
            right = max(range(12), key=lambda k: book[k] @ normal) if normal.any() else -1
            assert found[i, j] == right, (i, j)


def test_scores_brought_back_to_pixels():
    """Of a code that is certain everywhere, and linear between two places."""
    book = torch.from_numpy(codes.learn(random_normals(100), 5, 0))
    scores = torch.full((5, 3, 4), -1e4)
    scores[2] = 0
    found = showing.normals_of(scores, book, (24, 32), (48, 64), 8, 3)
    assert torch.allclose(found, book[2].view(3, 1, 1).expand(3, 48, 64), atol=1e-6)
    scores = torch.randn(5, 3, 4)
    found = showing.normals_of(scores, book, (24, 32), (24, 32), 8, 3)
    for row, column in ((3, 3), (11, 19)):  # the middles of places
        mean = scores[:, (row - 3) // 8, (column - 3) // 8].softmax(0) @ book
        assert torch.allclose(found[:, row, column], mean / mean.norm(), atol=1e-5)
    between = (scores[:, 0, 0] + scores[:, 0, 1]) / 2
    mean = between.softmax(0) @ book
    assert torch.allclose(found[:, 3, 7], mean / mean.norm(), atol=1e-5)


def test_sizes_are_those_of_the_paper():
    assert size_within(480, 640, 600, 1000) == (600, 800)
    assert size_within(480, 640, 300, 1000) == (300, 400)
    assert size_within(200, 1000, 450, 1000) == (200, 1000)
    images = [torch.zeros(30, 41, 3), torch.zeros(33, 20, 3)]
    assert showing.full_size(images) == (40, 48)


# ---- The objective ------------------------------------------------------------------------------


def objective(book, **recipe):
    return training.Normals(Body(Tiny().eval(), "tiny"), book, replace(PAPER, **recipe))


def test_the_loss_is_a_sum_over_places_that_have_a_normal():
    book = codes.learn(random_normals(100), 5, 0)
    task = objective(book)
    torch.manual_seed(0)
    network = Pyramid(task.body.top, task.body.channels, 5).eval()
    pixels = torch.from_numpy(RNG.integers(0, 256, (2, 160, 192, 3), np.uint8))
    maps = task.body(pixels)
    height, width = maps.shape[2:]
    places = torch.from_numpy(RNG.integers(-1, 5, (2, height + 1, width - 1)).astype(np.int16))
    score = task.score(network, (pixels, places), np.zeros((2, 2)), torch.arange(2))
    with torch.no_grad():
        chances = network(maps).double().softmax(1)
    loss = count = hits = 0
    for n, i, j in np.ndindex(2, height, width - 1):
        if (code := int(places[n, i, j])) >= 0:
            loss -= math.log(chances[n, code, i, j])
            count += 1
            hits += int(chances[n, :, i, j].argmax() == code)
    assert score.loss.item() == pytest.approx(loss, rel=1e-4)
    assert (float(score.weight), score.measures["accuracy"][1]) == (count, count)
    assert int(score.measures["accuracy"][0]) == hits


@pytest.fixture
def pairs(tmp_path):
    make_views(tmp_path)
    (tmp_path / "views.tsv").rename(tmp_path / "p.tsv")
    return PairList(str(tmp_path / "p.tsv")), tmp_path


def test_a_batch_is_filled_up(pairs):
    """Images of two sizes: the smaller one has no normal beyond its edges."""
    listed, root = pairs
    book = codes.learn(random_normals(100), 5, 0)
    dataset = training.Shuffled(listed, str(root), objective(book, sides=[80, 120]), 0)
    items = dataset.__getitems__([(epoch, 1) for epoch in range(8)])
    sizes = {tuple(item[3][0].shape) for item in items}
    assert sizes == {(80, 96, 3), (120, 144, 3)}
    *numbers, (pixels, places) = dataset.collate(items)
    assert [n.tolist() for n in numbers] == [[0] * 8, list(range(8)), [1] * 8]
    assert pixels.shape == (8, 120, 144, 3)
    for item, image, there in zip(items, pixels, places, strict=True):
        height, width = item[3][0].shape[:2]
        assert torch.equal(image[:height, :width], item[3][0])
        filling = torch.cat([image[height:].reshape(-1, 3), image[:, width:].reshape(-1, 3)])
        assert (filling == torch.tensor(showing.FILLING, dtype=torch.uint8)).all()
        h, w = item[3][1].shape
        assert torch.equal(there[:h, :w], item[3][1]) and (there[h:] == -1).all()
        assert (there[:, w:] == -1).all() and (item[3][1] >= 0).all()


def test_a_mirrored_image_has_mirrored_normals(pairs):
    """The wall of line 1 looks to the right, mirrored to the left: to the code of line 0."""
    listed, root = pairs
    book = np.array([[-0.6, 0, 0.8], [0.6, 0, 0.8]], np.float32)
    dataset = training.Shuffled(listed, str(root), objective(book, sides=[80], flip=True), 0)
    seen = set()
    plain = training.Shuffled(listed, str(root), objective(book, sides=[80]), 0)
    for epoch in range(12):
        (item,), (same,) = (each.__getitems__([(epoch, 1)]) for each in (dataset, plain))
        mirrored = not torch.equal(item[3][0], same[3][0])
        assert (item[3][1] == (0 if mirrored else 1)).all() and (same[3][1] == 1).all()
        assert not mirrored or torch.equal(item[3][0], same[3][0].flip(1))
        seen.add(mirrored)
    assert seen == {False, True}


def cached(listed, root, task, folder, seed=0):
    """Return the Cached maps of LISTED for the objective TASK, made in FOLDER."""
    made = cache.Cache(str(folder), task.body, task.recipe, listed, str(root), "a digest")
    if not made.there():
        made.make(torch.device("cpu"), 0, silent)
    return cache.Cached(made, task.book, seed)


def test_kept_maps_are_those_of_the_images(pairs, tmp_path):
    """Of one image alone, at every size, mirrored or not: to the last digit of float16."""
    listed, root = pairs
    book = codes.learn(random_normals(100), 5, 0)
    task = objective(book, sides=[80, 120], flip=True)
    kept_maps = cached(listed, root, task, tmp_path / "maps")
    plain = training.Shuffled(listed, str(root), task, 0)
    seen = set()
    for item in ((epoch, line) for epoch in range(6) for line in range(4)):
        *numbers, (pixels, there) = plain[item]
        *same, (found, places) = kept_maps[item]
        assert same == numbers
        right = task.body(showing.padded(pixels, showing.full_size([pixels]))[None])[0]
        assert torch.equal(found, right.half())
        assert torch.equal(places, showing.filled([there], right.shape[1:])[0])
        seen.add((tuple(found.shape[1:]), bool(plain.task.recipe.view(draws(0, *item))[1])))
    assert len(seen) == 4


def draws(seed, epoch, line):
    return order.draws(seed, [epoch], [line], 2)[0]


def test_the_loss_on_kept_maps_is_that_on_images(pairs, tmp_path):
    """Where all images of a batch have one size; up to the rounding of float16."""
    listed, root = pairs
    book = codes.learn(random_normals(100), 5, 0)
    task = objective(book, sides=[160], flip=True)
    on_maps = training.Normals(task.body, book, task.recipe, cached=True)
    kept_maps = cached(listed, root, task, tmp_path / "maps")
    sets = training.Shuffled(listed, str(root), task, 0), kept_maps
    torch.manual_seed(0)
    network = Pyramid(task.body.top, task.body.channels, 5).train()
    network.head[3].p = 0
    losses, gradients = [], []
    for each, dataset in zip((task, on_maps), sets, strict=True):
        *_numbers, batch = dataset.collate([dataset[0, line] for line in range(4)])
        network.zero_grad()
        score = each.score(network, batch, np.zeros((4, 2)), torch.arange(4))
        score.loss.backward()
        losses.append((score.loss.item(), float(score.weight)))
        gradients.append(network.head[0].weight.grad.clone())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert (gradients[0] - gradients[1]).norm() < 0.02 * gradients[0].norm()


def test_kept_maps_are_filled_up_as_images_are(pairs, tmp_path):
    """Two sizes in a batch: equal but at the edges of the smaller image, of 4 x 5 places alone."""
    listed, root = pairs
    book = codes.learn(random_normals(100), 5, 0)
    task = objective(book, sides=[80, 320])
    kept_maps = cached(listed, root, task, tmp_path / "maps")
    plain = training.Shuffled(listed, str(root), task, 0)
    items = [(epoch, 1) for epoch in range(6)]
    *_numbers, (pixels, there) = plain.collate(plain.__getitems__(items))
    *_numbers, (found, places) = kept_maps.collate([kept_maps[item] for item in items])
    right = task.body(pixels)
    assert found.shape == right.shape and found.dtype == torch.float16
    height, width = found.shape[2:]
    small = (places == -1).flatten(1).any(1)
    assert 0 < small.sum() < len(items)
    edge = torch.zeros(height, width, dtype=bool)
    edge[4, :6], edge[:5, 5] = True, True
    off = ((found - right).abs() > 2e-3 * right.abs().clamp(min=1)).any(1)
    assert not (off & ~edge).any() and not off[~small].any() and off[small].flatten(1).any(1).all()
    other = places != showing.fitted(there, (height, width))
    assert not (other & ~edge).any() and (places[other] == -1).all()


def test_kept_maps_that_cannot_be_used(pairs, tmp_path, monkeypatch):
    listed, root = pairs
    task = objective(codes.learn(random_normals(100), 5, 0), sides=[80])
    made = cached(listed, root, task, tmp_path / "maps").maps.kept
    assert "the maps of 4 images at 1 size, 0.00 GB are there" in made.notice()
    content = bytearray(pathlib.Path(made.path).read_bytes())
    content[-1] ^= 1
    pathlib.Path(made.path).write_bytes(content)
    again = cache.Cached(made, task.book, 0)
    assert again[0, 0]
    with pytest.raises(DataError, match="map 4 is not what was written there: remove it, and it"):
        again[0, 3]
    pathlib.Path(made.path).write_bytes(content[:-2])
    with pytest.raises(DataError):
        cache.Cached(made, task.book, 0)
    pathlib.Path(made.digests).unlink()
    full = types.SimpleNamespace(f_bavail=1, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda folder: full)
    message = "no room for the maps of 4 images at 1 size, .* are free: name a folder on a larger"
    with pytest.raises(DataError, match=message):
        made.notice()
    nn.init.constant_(task.body.trunk.conv1[0].weight, 1e30)
    with pytest.raises(DataError, match="p.tsv:1: its map is NaN, or too large for float16"):
        cached(listed, root, task, tmp_path / "other")
    assert not list((tmp_path / "other").glob("*"))


def test_what_the_labels_of_a_list_hold(pairs):
    listed, root = pairs
    found = codes.survey(listed, str(root))
    assert found.truth == Truth("walls", "exact")
    assert found.normals.shape == (3, 4 * codes.ROWS * codes.COLUMNS)
    assert metrics.angles(found.mean, np.array([0, 0, 1])) < 0.5
    assert np.allclose(found.mean_image, [0, 0, 0.8], atol=0.01)


WALLS = Truth("walls", "exact")


def written(folder, number, normal, truth=WALLS, size=(80, 96)):
    whole = np.broadcast_to(np.reshape(normal, (3, 1, 1)), (3, *size))
    content = labels.written(whole, np.ones(size, bool), truth)
    (folder / f"{number}.png").write_bytes(content)


def test_labels_of_another_sign_or_kind_are_refused(tmp_path):
    for number, normal in enumerate(([0, 0, -1], [0, 0.6, -0.8], [0, 0, 1])):
        written(tmp_path, number, normal)
    (tmp_path / "p.tsv").write_text("".join(f"a\t{n}.png\n" for n in (0, 1, 2)))
    listed = PairList(str(tmp_path / "p.tsv"))
    with pytest.raises(DataError, match="the median normal is 14.* degrees from the way to the"):
        codes.survey(listed, str(tmp_path))
    written(tmp_path, 1, [0, 0, 1], Truth("depth", "plane"))
    with pytest.raises(DataError, match="p.tsv:2: normals of another kind .depth, plane. than"):
        codes.survey(listed, str(tmp_path))


def test_an_image_and_normals_of_other_proportions(pairs, tmp_path):
    written(tmp_path, 0, [0, 0, 1], size=(80, 80))
    (tmp_path / "q.tsv").write_text("views/0.jpg\t0.png\n")
    listed = PairList(str(tmp_path / "q.tsv"))
    image = torch.zeros(80, 96, 3)
    message = "q.tsv:1: views/0.jpg has 96 x 80 pixels, and its normals 80 x 80: they show"
    with pytest.raises(DataError, match=message):
        showing.picture_of(listed, 0, str(tmp_path), image)
