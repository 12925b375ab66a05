"""Detection: boxes, anchors, drawing, losses by plain references; C4 by torchvision's classes."""

import itertools
import math
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import tiny  # noqa: F401 (networks of few layers)
import torch
from torch import nn
from torch.nn import functional
from torchvision import ops
from torchvision.models.detection import _utils, anchor_utils, roi_heads, rpn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ssl_common.evaluation.detection import anchors, boxes, heads, networks, sampling, showing
from ssl_common.evaluation.detection import rpn as ours
from ssl_common.evaluation.detection.bodies import Body
from ssl_common.evaluation.detection.networks import Scene
from ssl_common.evaluation.detection.recipes import RECIPES, Design, Heading, Proposing
from ssl_common.models import registry
from ssl_common.streams import DataError
from ssl_common.training.plan import resolve
from ssl_common.training.schedules import rate


def some_boxes(rng, count, width=200, height=150):
    corners = rng.uniform(0, (width, height) * 2, (count, 4)).reshape(-1, 2, 2)
    found = np.concatenate([corners.min(1), corners.max(1) + 1], 1)
    return torch.from_numpy(found.clip(0, (width, height) * 2)).float()


def overlap(a, b):
    """The intersection over union of two boxes, written out."""
    across = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b))
    return across * down / (area - across * down) if across * down else 0.0


# ---- Boxes ---------------------------------------------------------------------------------------


def test_overlaps_with_their_definition_and_torchvision():
    rng = np.random.default_rng(0)
    a, b = some_boxes(rng, 30), some_boxes(rng, 20)
    a[3, 2:] = a[3, :2]  # without an area
    b[4] = a[3]
    found = boxes.iou(a, b)
    want = [[overlap(x, y) for y in b.tolist()] for x in a.tolist()]
    np.testing.assert_allclose(found, want, atol=1e-6)
    assert found[3, 4] == 0  # where torchvision's is not a number
    rows = torch.arange(30) != 3
    torch.testing.assert_close(found[rows], ops.box_iou(a[rows], b), rtol=0, atol=1e-6)


def test_codes_are_detectrons_and_torchvisions():
    """Detectron's boxes end on their last pixel; ours, 1 further, give the same numbers."""
    rng = np.random.default_rng(1)
    start, goals = some_boxes(rng, 50), some_boxes(rng, 50)
    codes = boxes.encode(start, goals, heads.WEIGHTS)
    for (x1, y1, x2, y2), goal, code in zip(start, goals, codes, strict=True):
        x2, y2, goal = x2 - 1, y2 - 1, goal - torch.tensor([0, 0, 1, 1])  # as Detectron's
        w, h, gw, gh = x2 - x1 + 1, y2 - y1 + 1, goal[2] - goal[0] + 1, goal[3] - goal[1] + 1
        dx = (goal[0] + 0.5 * gw - (x1 + 0.5 * w)) / w
        dy = (goal[1] + 0.5 * gh - (y1 + 0.5 * h)) / h
        want = [10 * dx, 10 * dy, 5 * math.log(gw / w), 5 * math.log(gh / h)]
        np.testing.assert_allclose(code, want, rtol=1e-4, atol=1e-4)
    coder = _utils.BoxCoder(heads.WEIGHTS)
    like = (codes[:, 2:] < 5 * boxes.GROWTH).all(1)  # else as large as a code may say
    start, goals, codes = start[like], goals[like], codes[like]
    torch.testing.assert_close(codes, coder.encode([goals], [start])[0])
    torch.testing.assert_close(
        boxes.decode(start, codes, heads.WEIGHTS), goals, rtol=1e-5, atol=1e-3
    )
    wild = torch.from_numpy(rng.normal(0, 30, (len(start), 7, 4))).float()
    want = coder.decode(wild.flatten(1), [start])
    torch.testing.assert_close(boxes.decode(start, wild, heads.WEIGHTS), want)


def test_shown_boxes_lie_where_the_pixels_are():
    """A white box in a black image, made larger and mirrored, is still under its box."""
    for mirrored in (False, True):
        image = torch.zeros(120, 80, 3, dtype=torch.uint8)
        image[30:60, 20:70] = 255
        how = showing.view(120, 80, 200, 250, mirrored)
        assert how.size == (250, 167)  # the long side decides
        x1, y1, x2, y2 = how.shown(torch.tensor([[20.0, 30, 70, 60]]))[0].tolist()
        picture = showing.picture(image, how)
        assert picture.shape == (3, 250, 167)
        rows, columns = (picture[0] > 127).nonzero(as_tuple=True)
        assert abs(rows.min() - y1) <= 1 and abs(rows.max() + 1 - y2) <= 1
        assert abs(columns.min() - x1) <= 1 and abs(columns.max() + 1 - x2) <= 1
        back = how.original(how.shown(torch.tensor([[20.0, 30, 70, 60]])))
        torch.testing.assert_close(back, torch.tensor([[20.0, 30, 70, 60]]))
    assert showing.view(375, 500, 600, 1000).size == (600, 800)
    assert showing.view(1, 4000, 600, 1000).size == (1, 1000)


# ---- Anchors -------------------------------------------------------------------------------------

DETECTRON = {  # of size 64, as its code prints them: the last pixel is inside
    0.5: [-38, -16, 53, 31],
    1: [-24, -24, 39, 39],
    2: [-14, -36, 29, 51],
}


def test_cells_of_detectron_and_torchvision():
    found = anchors.cell("detectron", (64.0,), 16)
    np.testing.assert_array_equal(found - torch.tensor([0, 0, 1, 1]), list(DETECTRON.values()))
    sizes = (32.0, 64.0, 128.0, 256.0, 512.0)
    found = anchors.cell("detectron", sizes, 16)
    assert found.shape == (15, 4)
    middles = (found[:, :2] + found[:, 2:]) / 2  # of pixels 0 ... 15, whose edges are 0 and 16
    np.testing.assert_array_equal(middles, np.full((15, 2), 8))
    theirs = anchor_utils.AnchorGenerator((sizes,), (anchors.RATIOS,)).cell_anchors[0]
    np.testing.assert_array_equal(anchors.cell("torchvision", sizes, 16), theirs)


def test_the_stride_does_not_depend_on_the_size_of_the_image():
    """600 x 1000 pixels have 38 x 63 places: torchvision makes strides of 15 of them."""
    cpu = torch.device("cpu")
    found = anchors.grid("torchvision", (64.0, 128.0), 16, 38, 63, cpu).view(38, 63, 6, 4)
    cell = anchors.cell("torchvision", (64.0, 128.0), 16)
    for y, x in ((0, 0), (37, 62), (5, 40)):
        np.testing.assert_array_equal(found[y, x], cell + torch.tensor([x, y, x, y]) * 16)
    generator = anchor_utils.AnchorGenerator(((64, 128),), (anchors.RATIOS,))
    strides = [[torch.tensor(16), torch.tensor(16)]]
    (theirs,) = generator.grid_anchors([[38, 63]], strides)
    np.testing.assert_array_equal(found.reshape(-1, 4), theirs)


# ---- What is drawn -------------------------------------------------------------------------------


def matched(found, objects, high, low, best):
    """sampling.match(), box by box."""
    table = [[overlap(box, each) for each in objects] for box in found]
    highest = [max(row[m] for row in table) for m in range(len(objects))]
    result = []
    for row in table:
        nearest = int(np.argmax(row))
        among = any(row[m] == highest[m] > 0 for m in range(len(objects)))
        if row[nearest] >= high or (best and among):
            result.append(nearest)
        else:
            result.append(-1 if row[nearest] < low else -2)
    return result


@pytest.mark.parametrize("best", [False, True])
def test_matches_box_by_box(best):
    rng = np.random.default_rng(2)
    objects = some_boxes(rng, 6).round()
    near = objects.repeat(20, 1) + torch.from_numpy(rng.normal(0, 9, (120, 4))).float()
    near = near.round()[(near[:, 2:] > near[:, :2] + 1).all(1)]
    found = torch.cat([some_boxes(rng, 60), near, near[:5]])
    for high, low in ((0.7, 0.3), (0.5, 0.5)):
        want = matched(found.tolist(), objects.tolist(), high, low, best)
        assert sampling.match(found, objects, high, low, best).tolist() == want
        theirs = _utils.Matcher(high, low, best)(ops.box_iou(objects, found)).tolist()
        assert theirs == want and {-1} < set(want)
    assert sampling.match(found, objects[:0], 0.7, 0.3, best).tolist() == [-1] * len(found)
    assert sampling.match(found[:0], objects, 0.7, 0.3, best).tolist() == []


def test_an_object_that_no_anchor_touches_takes_none():
    """Of the best at 0 there are many; torchvision takes all of these for its own."""
    found, objects = (
        torch.tensor([[0.0, 0, 9, 9], [9, 9, 20, 20]]),
        torch.tensor([[50.0, 50, 60, 60]]),
    )
    assert sampling.match(found, objects, 0.7, 0.3, best=True).tolist() == [-1, -1]
    assert _utils.Matcher(0.7, 0.3, True)(ops.box_iou(objects, found)).tolist() == [0, 0]


@pytest.mark.parametrize("objects, background", [(40, 500), (5, 500), (40, 20), (0, 100), (3, 0)])
def test_drawing(objects, background):
    matches = torch.tensor([1] * objects + [-1] * background + [-2] * 30)
    matches = matches[torch.randperm(len(matches), generator=torch.Generator().manual_seed(0))]
    drawn = [sampling.sample(matches, 64, 0.25, seed) for seed in np.linspace(0, 0.99, 50)]
    for positives, negatives in drawn:
        assert len(positives) == min(objects, 16)
        assert len(negatives) == min(background, 64 - len(positives))
        assert (matches[positives] == 1).all() and (matches[negatives] == -1).all()
        assert len({*positives.tolist(), *negatives.tolist()}) == len(positives) + len(negatives)
    if objects > 16:
        counts = torch.zeros(len(matches))
        for positives, _negatives in drawn:
            counts[positives] += 1
        assert counts[matches == 1].min() > 0 and counts.max() < 40  # 20 are expected of each
    again = sampling.sample(matches, 64, 0.25, 0.0)
    assert all(map(torch.equal, drawn[0], again))


def test_the_targets_of_an_rpn():
    """All that Detectron says: inside the image, .7 or the best of an object, below .3."""
    rng = np.random.default_rng(3)
    objects = some_boxes(rng, 4, 300, 200)
    begun = anchors.grid("detectron", (32.0, 64.0, 128.0), 16, 13, 19, torch.device("cpu"))
    inside = [
        i for i, (x1, y1, x2, y2) in enumerate(begun.tolist())
        if x1 >= 0 and y1 >= 0 and x2 <= 300 and y2 <= 200
    ]  # fmt: skip
    assert 0 < len(inside) < len(begun)
    want = np.full(len(begun), -2)
    want[inside] = matched(begun[inside].tolist(), objects.tolist(), 0.7, 0.3, True)
    found = ours.targets(begun, (200, 300), objects, Proposing())
    np.testing.assert_array_equal(found, want)
    want = matched(begun.tolist(), objects.tolist(), 0.7, 0.3, True)
    assert ours.targets(begun, (200, 300), objects, Proposing("torchvision")).tolist() == want


def smooth(x, beta):
    return 0.5 * x * x / beta if abs(x) < beta else abs(x) - 0.5 * beta


def test_the_losses_of_proposals_written_out():
    rng = np.random.default_rng(4)
    logits, codes = torch.from_numpy(rng.normal(0, 1, (9, 4))), rng.normal(0, 1, (9, 4, 4))
    labels, goals = torch.tensor([0, 2, 0, 3, 1, 0, 0, 2, 0]), rng.normal(0, 1, (9, 4))
    chosen = heads.Chosen(torch.zeros(9, 4), labels, torch.from_numpy(goals))
    found = heads.losses(logits, torch.from_numpy(codes), chosen)
    want = [0.0, 0.0]
    for row, label in enumerate(labels.tolist()):
        odds = np.exp(logits[row].numpy())
        want[0] -= math.log(odds[label] / odds.sum()) / 9
        if label:
            differences = codes[row, label] - goals[row]
            want[1] += sum(smooth(each, 1.0) for each in differences) / 9
    np.testing.assert_allclose(found, want)
    none = heads.Chosen(torch.zeros(0, 4), labels[:0], torch.zeros(0, 4))
    assert heads.losses(logits[:0], torch.zeros(0, 4, 4), none).tolist() == [0, 0]


def test_the_losses_of_anchors_written_out():
    rng = np.random.default_rng(5)
    rules = Proposing("detectron", (32.0, 64.0), drawn=32)
    network = ours.ProposalNetwork(8, 16, rules)
    assert {p.std().item() < 0.02 for n, p in network.named_parameters() if "weight" in n} == {True}
    begun = anchors.grid("detectron", rules.sizes, 16, 9, 12, torch.device("cpu"))
    objects = some_boxes(rng, 3, 190, 140)
    logits = torch.from_numpy(rng.normal(0, 1, len(begun)))
    codes = torch.from_numpy(rng.normal(0, 0.3, (len(begun), 4)))
    found = network.losses(begun.double(), logits, codes, (140, 190), objects.double(), 0.3)
    matches = ours.targets(begun, (140, 190), objects, rules)
    positives, negatives = sampling.sample(matches, 32, 0.5, 0.3)
    assert len(positives) and len(positives) + len(negatives) == 32
    want = [0.0, 0.0]
    for index in [*positives.tolist(), *negatives.tolist()]:
        p = 1 / (1 + math.exp(-logits[index]))
        want[0] -= math.log(p if index in positives else 1 - p) / 32
    for index in positives.tolist():
        (x1, y1, x2, y2), (a1, b1, a2, b2) = begun[index].tolist(), objects[matches[index]].tolist()
        goal = [
            ((a1 + a2) - (x1 + x2)) / 2 / (x2 - x1),
            ((b1 + b2) - (y1 + y2)) / 2 / (y2 - y1),
            math.log((a2 - a1) / (x2 - x1)),
            math.log((b2 - b1) / (y2 - y1)),
        ]
        want[1] += sum(smooth(c - g, 1 / 9) for c, g in zip(codes[index], goal, strict=True)) / 32
    np.testing.assert_allclose(found.detach(), want, rtol=1e-5)


def test_chosen_proposals_and_what_they_are_to_find():
    rng = np.random.default_rng(6)
    objects, labels = some_boxes(rng, 5), torch.tensor([3, 1, 4, 1, 5])
    near = objects.repeat(30, 1) + torch.from_numpy(rng.normal(0, 4, (150, 4))).float()
    proposals = torch.cat([some_boxes(rng, 300), near[(near[:, 2:] > near[:, :2] + 1).all(1)]])
    found = heads.choose(proposals, objects, labels, Heading(), 0.5)
    assert len(found.labels) == 64 and (found.labels > 0).sum() == 16
    for box, label, goal in zip(*found, strict=True):
        table = [overlap(box.tolist(), each) for each in objects.tolist()]
        best = int(np.argmax(table))
        assert label == (labels[best] if table[best] >= 0.5 else 0)
        want = boxes.encode(box[None], objects[best][None], heads.WEIGHTS)[0] if label else 0 * goal
        torch.testing.assert_close(goal, want)
    alone = heads.choose(torch.zeros(0, 4), objects, labels, Heading(), 0.5)
    assert sorted(alone.labels.tolist()) == sorted(labels.tolist())  # an object is its own proposal
    empty = heads.choose(proposals, objects[:0], labels[:0], Heading(), 0.5)
    assert len(empty.labels) == 64 and not empty.labels.any()
    assert len(heads.choose(proposals[:0], objects[:0], labels[:0], Heading(), 0.5).labels) == 0


# ---- Pooling -------------------------------------------------------------------------------------


def test_pooling_takes_the_pixels_of_detectrons_boxes():
    """RoIPoolF, place by place: of a box's first to last pixel, by 16, rounded half up."""
    rng = np.random.default_rng(7)
    places = torch.from_numpy(rng.normal(0, 1, (1, 3, 12, 15))).float()
    found = torch.cat(
        [some_boxes(rng, 20, 240, 192), torch.tensor([[8.0, 8, 9, 9], [0, 0, 240, 192]])]
    )
    pooled = heads.Pool("roi-pool", 7, 16)(places, found)
    for box, part in zip(found.tolist(), pooled, strict=True):
        first, last = np.array(box[:2]) / 16, (np.array(box[2:]) - 1) / 16
        (x1, y1), (x2, y2) = (np.floor(np.abs(each) + 0.5).astype(int) for each in (first, last))
        wide, high = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
        for row, column in itertools.product(range(7), range(7)):
            top, bottom = y1 + math.floor(row * high / 7), y1 + math.ceil((row + 1) * high / 7)
            left, right = (
                x1 + math.floor(column * wide / 7),
                x1 + math.ceil((column + 1) * wide / 7),
            )
            area = places[0, :, max(top, 0) : min(bottom, 12), max(left, 0) : min(right, 15)]
            want = area.amax((1, 2)) if area.numel() else torch.zeros(3)
            torch.testing.assert_close(part[:, row, column], want)


def test_aligned_pooling_reads_a_slope_where_it_is():
    """Of a map that grows by 1 a place, a part is where its middle lies, half a place less."""
    places = torch.arange(20.0).expand(1, 1, 16, 20)
    box = torch.tensor([[64.0, 64, 192, 160]])
    found = heads.Pool("roi-align", 4, 16)(places, box)[0, 0, 0]
    want = (64 + 128 * (np.arange(4) + 0.5) / 4) / 16 - 0.5
    np.testing.assert_allclose(found, want, rtol=1e-6)
    assert heads.Pool("roi-align", 4, 16)(places, box[:0]).shape == (0, 1, 4, 4)
    assert heads.Pool("roi-pool", 4, 16)(places, box[:0]).shape == (0, 1, 4, 4)


# ---- Trunks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["resnet50", "resnet50-lab", "resnet18", "tiny-resnet"])
def test_the_body_of_a_resnet(arch):
    trunk = registry.build(arch, 0).eval()
    layer = {"resnet18": "layer3"}.get(arch, "res4")
    pixels = torch.randint(0, 256, (1, 3, 75, 130), dtype=torch.uint8)
    with torch.no_grad():
        images = trunk.prepare(pixels)
        want = trunk.maps([layer], images)[layer]
        body = Body(trunk, arch)
        frozen, trained = body.split("res4", arch)
        found = trained(frozen(images))
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4 * want.abs().max().item())
    assert found.shape[1:] == (body.channels, 5, 9) and body.stride == 16
    assert list(body.stages) == ["conv1", "pool1", "res2", "res3", "res4"] and not len(trained)
    norms = [
        m for part in (frozen, body.last) for m in part.modules() if "Norm" in type(m).__name__
    ]
    assert norms and all(isinstance(m, ops.FrozenBatchNorm2d) and m.eps == 1e-5 for m in norms)


@pytest.mark.parametrize("arch, stride", [("alexnet", 8), ("alexnet-lab", 16), ("caffenet", 16)])
def test_the_places_of_an_alexnets_body_lie_at_its_stride(arch, stride):
    """What a change of a pixel reaches lies, on the whole, around its own place."""
    body = Body(registry.build(arch, 0), arch)
    assert (body.stride, body.last, body.channels) == (stride, None, 256)
    network = nn.Sequential(body.stages)
    lightness = 1 if arch.endswith("lab") else 3
    for size in (97, 256):
        image = torch.randn(1, lightness, size, size + 30, requires_grad=True)
        found = network(image)
        assert found.shape[2:] == (-(-size // stride), -(-(size + 30) // stride))
    for place in (8, 4, 11):
        image.grad = None
        network(image)[0, :, place, place].abs().sum().backward()
        weight = image.grad.abs().sum((0, 1))
        middle = (weight.sum(1) * torch.arange(size)).sum() / weight.sum()
        assert abs(middle - place * stride) < stride


def test_what_is_frozen_and_what_no_detector_is_made_of():
    body = Body(registry.build("alexnet", 0), "random:alexnet")
    for freeze, count in (("none", 0), ("conv2", 3), ("conv5", 7)):
        frozen, trained = body.split(freeze, "random:alexnet")
        assert (len(frozen), len(trained)) == (count, 7 - count)
        assert not any(p.requires_grad for p in frozen.parameters())
    with pytest.raises(DataError, match=r"^--freeze res4: the body of random:alexnet has no such"):
        body.split("res4", "random:alexnet")
    for arch in ("tiny", "squeezenet1_1"):
        with pytest.raises(DataError, match=f"^random:{arch}: no network that a detector is made"):
            Body(registry.build(arch, 0), f"random:{arch}")


# ---- The whole, against torchvision --------------------------------------------------------------


class Predictor(nn.Module):
    """The two last layers of HEAD as torchvision's RoIHeads calls them."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, features):
        return self.head.classes(features), self.head.boxes(features)


class Pooled(nn.Module):
    """Aligned pooling as torchvision's RoIHeads calls it."""

    def forward(self, features, found, _shapes):
        return ops.roi_align(features["0"], found, 14, 1 / 16, aligned=True)


class Averaged(nn.Module):
    def __init__(self, stage):
        super().__init__()
        self.stage = stage

    def forward(self, parts):
        return functional.adaptive_avg_pool2d(self.stage(parts), 1).flatten(1)


def both(kind, everything, size):
    """A detector of ours, and the same weights in torchvision's classes."""
    design = Design("faster", "res2", "roi-align", kind, size, 1000)
    made = networks.make(registry.build("tiny-resnet", 3), 4, design, "random:tiny-resnet", 5)
    network = made.network
    with torch.no_grad():  # so that classes, boxes and proposals differ from place to place
        for layer in (network.head.classes, network.head.boxes, network.rpn.head.cls_logits):
            layer.weight.mul_(20)
        network.rpn.head.bbox_pred.weight.mul_(5)
    if everything:
        network.rpn.rules = replace(network.rpn.rules, drawn=10**6)
        network.heading = replace(network.heading, drawn=10**6, share=0.5)
    rules, heading = network.rpn.rules, network.heading
    body = nn.Sequential(OrderedDict(frozen=made.frozen, tail=network.tail))
    body.out_channels = 64
    generator = anchor_utils.AnchorGenerator((rules.sizes,), (anchors.RATIOS,))
    generator.cell_anchors = [anchors.cell(kind, rules.sizes, 16)]
    proposing = rpn.RegionProposalNetwork(
        generator, network.rpn.head, rules.high, rules.low, rules.drawn, rules.share,
        {"training": rules.kept_in_training[0], "testing": rules.kept[0]},
        {"training": rules.kept_in_training[1], "testing": rules.kept[1]}, rules.nms,
    )  # fmt: skip
    looking = roi_heads.RoIHeads(
        Pooled(), Averaged(network.head.last), Predictor(network.head), 0.5, 0.5, heading.drawn,
        heading.share, heads.WEIGHTS, heading.least, heading.nms, heading.most,
    )  # fmt: skip
    transform = GeneralizedRCNNTransform(size, 1000, [0.0] * 3, [1.0] * 3, size_divisible=1)
    return made, GeneralizedRCNN(body, proposing, looking, transform)


def scene_of(rng, made, height, width, seed=0):
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8))
    objects, labels = some_boxes(rng, 5, width, height), torch.from_numpy(rng.integers(1, 5, 5))
    return image, Scene(made.features(image), (height, width), None, objects, labels)


@pytest.mark.parametrize("height, width", [(160, 224), (224, 160)])
def test_a_c4_finds_what_torchvisions_classes_find(height, width):
    rng = np.random.default_rng(8)
    made, theirs = both("detectron", False, 160)
    image, scene = scene_of(rng, made, height, width)
    network = made.network.eval()
    with torch.no_grad():  # or one class is ahead everywhere
        parts = network.head.pool(network.tail(scene.features[None]), scene.objects)
        network.head.classes.bias -= network.head(parts)[0].mean(0)
    found = made.network.detect(scene)
    with torch.no_grad():
        (want,) = theirs.eval()([made.trunk.prepare(image[None])[0]])
    assert 5 < len(want["boxes"]) <= 100 and len(set(want["labels"].tolist())) > 1
    assert found.labels.tolist() == want["labels"].tolist()
    torch.testing.assert_close(found.scores, want["scores"], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.boxes, want["boxes"], rtol=1e-5, atol=1e-3)


def test_a_c4_loses_and_learns_what_torchvisions_classes_do(monkeypatch):
    """With all anchors and proposals drawn, and their beta, losses and gradients are equal."""
    monkeypatch.setattr(heads, "BETA", 1 / 9)
    rng = np.random.default_rng(9)
    made, theirs = both("torchvision", True, 160)
    image, scene = scene_of(rng, made, 160, 224)
    found = made.network([scene]).values[:, 0]
    found.sum().backward()
    gradients = {name: p.grad.clone() for name, p in made.network.named_parameters()}
    made.network.zero_grad()
    target = {"boxes": scene.objects, "labels": scene.labels}
    losses = theirs.train()([made.trunk.prepare(image[None])[0]], [target])
    names = ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")
    want = torch.stack([losses[name] for name in names])
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
    want.sum().backward()
    assert found.min() > 0.01
    for name, parameter in made.network.named_parameters():
        close = {"rtol": 1e-3, "atol": 1e-5 * (1 + gradients[name].abs().max().item())}
        torch.testing.assert_close(gradients[name], parameter.grad, **close, msg=name)


@pytest.mark.parametrize("head", ["fast", "faster"])
def test_images_do_not_depend_on_those_beside_them(head):
    """Of several sizes, one without objects, one without proposals: each as if it were alone."""
    rng = np.random.default_rng(10)
    design = Design(head, "res4", size=96)
    made = networks.make(registry.build("tiny-resnet", 3), 4, design, "random:tiny-resnet", 5)
    scenes = [
        scene_of(rng, made, *size)[1]._replace(proposals=some_boxes(rng, 80), seeds=(0.3, 0.6))
        for size in ((96, 128), (130, 96), (96, 30), (1, 1))
    ]
    nothing = {"objects": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    scenes[1] = scenes[1]._replace(**nothing)
    scenes[2] = scenes[2]._replace(proposals=torch.zeros(0, 4), **nothing)
    together = made.network(scenes).values
    alone = torch.cat([made.network([scene]).values for scene in scenes], 1)
    torch.testing.assert_close(together, alone)
    assert together.isfinite().all() and together[1, 1] == 0 and together[0, 1] > 0
    assert (together.sum(0)[2] == 0) == (head == "fast")  # there is nothing to be said
    for scene in scenes if head == "faster" else scenes[2:3]:
        made.network.zero_grad()
        made.network([scene]).values.sum().backward()
        assert all(p.grad is not None for p in made.network.parameters())  # for several ranks
    found = made.network.eval().detect(scenes[2])
    assert found.boxes.shape == (len(found.scores), 4)


# ---- Recipes -------------------------------------------------------------------------------------


def test_the_published_settings():
    for key, steps, drop in (
        (("voc07", "faster"), 50_000, 38_000), (("voc07", "fast"), 30_000, 22_000),
        (("voc07+12", "faster"), 100_000, 65_000), (("voc07+12", "fast"), 80_000, 66_000),
    ):  # fmt: skip
        plan = resolve(RECIPES[key], key[0], 5011)
        assert (plan.steps, plan.batch, plan.lr) == (steps, 4, 0.002)
        assert rate(0, plan) == pytest.approx(0.002 / 3) and rate(250, plan) == pytest.approx(
            0.002 * 2 / 3
        )
        for step, want in ((500, 2e-3), (drop - 1, 2e-3), (drop, 2e-4), (steps - 1, 2e-4)):
            assert rate(step, plan) == pytest.approx(want)
    assert Design().proposing.sizes == (64, 128, 256, 512)
    assert Design(size=300).proposing.sizes == (32, 64, 128, 256)
