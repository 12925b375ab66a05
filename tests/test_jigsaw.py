"""The puzzle against plain ways to say the same."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import Tiny

from ssl_common.data.order import draws
from ssl_common.data.pixels import resize_short
from ssl_common.models import registry
from ssl_common.pretext import jigsaw


@pytest.fixture
def image():
    """A 300 x 280 image in which every pixel is different."""
    x, y = np.meshgrid(np.arange(300), np.arange(280))
    return Image.fromarray(np.stack([x % 256, y % 256, x // 256 * 2 + y // 256], 2).astype("uint8"))


def test_cells_put_back_together_are_the_image(image):
    pixels = torch.from_numpy(np.asarray(image)[:255, :255].copy())
    corners = ((0, 0), (20, 0), (0, 20), (20, 20))
    order = torch.arange(9).expand(4, 9)
    jitter = torch.tensor(corners)[:, None].expand(4, 9, 2)
    cuts = jigsaw.cut(pixels.expand(4, -1, -1, -1), order, jitter)
    assert cuts.shape == (4, 9, 3, 64, 64)
    for (left, top), tiles in zip(corners, cuts, strict=True):
        for column in range(3):
            for row in range(3):  # tile 3 * column + row: column-major
                x, y = 85 * column + left, 85 * row + top
                tile = tiles[3 * column + row].permute(1, 2, 0)
                assert (tile == pixels[y : y + 64, x : x + 64]).all()


def test_each_image_has_its_own_order_and_jitter(image):
    """Against loops that say the same: place t gets tile order[t], each with its own jitter."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 255, 255, 3), dtype=np.uint8)
    order = np.stack([rng.permutation(9) for _ in range(3)])
    jitter = rng.integers(0, 21, (3, 9, 2))
    got = jigsaw.cut(*map(torch.from_numpy, (pixels, order, jitter)))
    for n in range(3):
        for place, tile in enumerate(order[n]):
            x = 85 * (tile // 3) + jitter[n, tile, 0]
            y = 85 * (tile % 3) + jitter[n, tile, 1]
            want = pixels[n, y : y + 64, x : x + 64].transpose(2, 0, 1)
            assert (got[n, place].numpy() == want).all()


def test_what_is_drawn_covers_its_range_evenly(image):
    permutations = np.array([np.random.default_rng(s).permutation(9) for s in range(5)])
    task = jigsaw.Jigsaw(permutations)
    drawn = draws(0, np.zeros(4000), range(4000), task.draws)
    label, jitter, gray = task.draw(drawn)
    for values, kinds in ((label, 5), (jitter.ravel(), 21), (gray.astype(int), 2)):
        seen = np.bincount(values, minlength=kinds)
        expected = len(values) / kinds
        assert len(seen) == kinds
        assert ((seen - expected) ** 2 / expected).sum() < 3 * kinds + 10  # chi-square
    assert abs(np.corrcoef(jitter.reshape(4000, 18).T) - np.eye(18)).max() < 0.08


def test_a_crop_lies_in_the_resized_image(image):
    task = jigsaw.Jigsaw(np.arange(9)[None])
    image = torch.from_numpy(np.array(image))
    resized = resize_short(image, 256)  # 256 x 274
    places = set()
    for index in range(200):
        drawn = draws(0, [0], [index], task.draws)[0]
        pixels = task.crop(image, drawn)
        left, top = int(drawn[0] * 20), int(drawn[1] * 2)
        assert (pixels == resized[top : top + 255, left : left + 255]).all()
        places.add((left, top))
    assert {x for x, _ in places} == set(range(20)) and {y for _, y in places} == {0, 1}


def test_the_loss_is_the_sum_of_cross_entropies():
    permutations = np.array([np.random.default_rng(s).permutation(9) for s in range(5)])
    task = jigsaw.Jigsaw(permutations)
    network = task.network(Tiny()).eval()
    pixels = torch.randint(0, 256, (6, 255, 255, 3), dtype=torch.uint8)
    drawn = draws(3, [1] * 6, range(6), task.draws)
    with torch.no_grad():
        score = task.score(network, pixels, drawn, None)
        tiles, label = task.puzzle(pixels, drawn)
        chances = network(tiles).softmax(1).numpy()
    assert np.isclose(score.loss, -np.log(chances[np.arange(6), label]).sum(), rtol=1e-5)
    right, count = score.measures["accuracy"]
    assert (score.weight, count) == (6, 6)
    assert right == (chances.argmax(1) == label.numpy()).sum()
    assert task.chance == pytest.approx(np.log(5))


def test_colors_are_standardised_and_gray_is_their_mean():
    tiles = torch.randint(0, 256, (2, 9, 3, 64, 64), dtype=torch.uint8)
    got = jigsaw.normalize(tiles, torch.tensor([False, True]))
    torchvision = pytest.importorskip("torchvision.transforms.v2.functional")
    want = torchvision.normalize(
        torchvision.to_dtype(tiles, torch.float32, scale=True),
        [0.485, 0.456, 0.406], [0.229, 0.224, 0.225],
    )  # fmt: skip
    torch.testing.assert_close(got[0], want[0])
    gray = want[1].numpy().mean(axis=1)
    for channel in range(3):
        np.testing.assert_allclose(got[1, :, channel], gray, rtol=1e-4, atol=1e-5)


def test_the_siamese_network_is_nine_towers_of_the_same_weights():
    torch.manual_seed(0)
    network = jigsaw.JigsawNet(Tiny(), 7).eval()
    tiles = torch.randn(2, 9, 3, 64, 64)
    towers = []
    for tile in range(9):
        features = network.trunk(tiles[:, tile]).reshape(2, -1)
        towers.append(torch.relu(network.bn6(network.fc6(features))))
    torch.testing.assert_close(network(tiles), network.fc7(torch.cat(towers, 1)))
    assert network(tiles).shape == (2, 7) and network.fc7.in_features == 9216


def test_alexnet_on_tiles_and_on_images():
    trunk = registry.build("alexnet", 0).eval()
    with torch.no_grad():
        assert trunk(torch.zeros(1, 3, 64, 64)).shape == (1, 256, 2, 2)
        maps = trunk.maps(list(trunk.pooling), torch.randn(1, 3, 227, 227))
    sides = dict(conv1=109, pool1=54, conv2=54, pool2=26, conv3=26, conv4=26, conv5=26, pool5=12)
    widths = dict(conv1=9600, pool1=9600, conv2=9216, pool2=9216, conv3=9600, conv4=9600)
    widths |= dict(conv5=9216, pool5=9216)  # as the authors' AlexNet has them
    for layer, found in maps.items():
        assert found.shape[2] == sides[layer] and (found >= 0).all()
        assert trunk.pooled(layer, found).numel() == widths[layer]


def test_padding_does_not_count_in_the_average():
    trunk = registry.build("alexnet", 0)
    pooled = trunk.pooled("pool1", torch.ones(1, 96, 54, 54))
    assert (pooled == 1).all()


def test_maps_are_those_of_a_forward_pass_stage_by_stage():
    trunk = registry.build("alexnet", 3).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found = trunk.maps(["conv1", "conv3"], image)
        conv1 = trunk.conv1(image.clone()).clone()
        conv3 = trunk.conv3(trunk.pool2(trunk.conv2(trunk.pool1(conv1))))
    torch.testing.assert_close(found["conv1"], conv1)
    torch.testing.assert_close(found["conv3"], conv3)


def test_weights_come_from_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    digests = [registry.build("alexnet", seed).digest() for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    assert (torch.rand(3) == expected).all()


def test_color_projection_takes_what_is_along_its_axis():
    """A quarter of the images, by Noroozi and Favaro's matrix; gray ones and the others stay."""
    matrix = np.array(
        [[0.8333, 0.3333, -0.1667], [0.3333, 0.3333, 0.3333], [-0.1667, 0.3333, 0.8333]]
    )
    permutations, count = np.arange(9)[None], 400
    plain, projecting = jigsaw.Jigsaw(permutations), jigsaw.Jigsaw(permutations, True)
    drawn = draws(0, np.zeros(count), range(count), plain.draws)
    colours = np.random.default_rng(0).integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    pixels = torch.from_numpy(np.broadcast_to(colours, (count, 255, 255, 3)).copy())
    (before, _), (after, _) = (task.puzzle(pixels, drawn) for task in (plain, projecting))
    before, after = before[:, 0, :, 0, 0].numpy(), after[:, 0, :, 0, 0].numpy()
    changed = abs(after - before).max(1) > 1e-3
    assert 0.18 < changed.mean() < 0.32
    np.testing.assert_allclose(after[changed], before[changed] @ matrix.T, atol=1e-3)
    gray = drawn[:, -1] < 0.5
    assert not (gray & changed).any()
    assert projecting.settings() != plain.settings()
