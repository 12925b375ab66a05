"""The puzzle against plain ways to say the same."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import Tiny

from ssl_common.models import registry
from ssl_common.pretext import jigsaw


@pytest.fixture
def image():
    """A 300 x 280 image in which every pixel is different."""
    x, y = np.meshgrid(np.arange(300), np.arange(280))
    return Image.fromarray(np.stack([x % 256, y % 256, x // 256 * 2 + y // 256], 2).astype("uint8"))


def test_cells_put_back_together_are_the_image(image):
    pixels = np.asarray(image)[:255, :255]
    corners = ((0, 0), (21, 0), (0, 21), (21, 21))
    cuts = [jigsaw.cut(pixels, np.tile(corner, (9, 1))) for corner in corners]
    for jitter, tiles in zip(corners, cuts, strict=True):
        for column in range(3):
            for row in range(3):  # tile 3 * column + row: column-major
                x, y = 85 * column + jitter[0], 85 * row + jitter[1]
                tile = tiles[3 * column + row].transpose(1, 2, 0)
                assert (tile == pixels[y : y + 64, x : x + 64]).all()
    # The four corners of a cell cover it to its last pixel: together the tiles are the image.
    seen = np.zeros((255, 255), bool)
    for tile in np.concatenate(cuts).transpose(0, 2, 3, 1).reshape(-1, 3).astype(int):
        seen[tile[1], tile[0] + 256 * (tile[2] // 2)] = True
    assert seen.all()


def test_gather_and_its_inverse():
    tiles = np.arange(9) * 10
    permutation = np.random.default_rng(0).permutation(9)
    shuffled = jigsaw.shuffle(tiles, permutation)
    assert [shuffled[place] for place in range(9)] == [tiles[p] for p in permutation]
    assert (jigsaw.shuffle(shuffled, np.argsort(permutation)) == tiles).all()


def test_a_puzzle_undone_shows_the_image(image):
    permutations = np.array([np.random.default_rng(s).permutation(9) for s in range(5)])
    puzzle = jigsaw.Puzzle(permutations)
    labels, jitters, grays = set(), set(), []
    resized = np.asarray(jigsaw.resize_short(image, 256))
    for seed in range(40):
        tiles, gray, label = puzzle(image, np.random.default_rng(seed))
        assert tiles.shape == (9, 3, 64, 64) and tiles.dtype == np.uint8
        undone = tiles[np.argsort(permutations[label])]
        places = []
        for tile in undone:  # find each tile in the image by its first pixel, unique but for ties
            first = (resized[:-63, :-63] == tile[:, 0, 0]).all(2)
            here = [
                (x, y) for y, x in np.argwhere(first)
                if (resized[y : y + 64, x : x + 64] == tile.transpose(1, 2, 0)).all()
            ]  # fmt: skip
            places.append(here[0])
        for index, (x, y) in enumerate(places):  # tile 3i + j in column i, row j, within its cell
            column, row = divmod(index, 3)
            assert 85 * column <= x <= 85 * column + 20 + (resized.shape[1] - 255)
            assert 85 * row <= y <= 85 * row + 20 + (resized.shape[0] - 255)
        jitters |= {(x % 85, y % 85) for x, y in places}
        labels.add(label)
        grays.append(gray)
    assert labels == set(range(5)) and len(jitters) > 200
    assert 10 < sum(grays) < 30  # p = 0.5, 40 draws


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
        maps = registry.maps(trunk, torch.randn(1, 3, 227, 227), list(trunk.pooling))
    sides = dict(conv1=109, pool1=54, conv2=54, pool2=26, conv3=26, conv4=26, conv5=26, pool5=12)
    widths = dict(conv1=9600, pool1=9600, conv2=9216, pool2=9216, conv3=9600, conv4=9600)
    widths |= dict(conv5=9216, pool5=9216)  # protocol 3.1
    for layer, found in maps.items():
        assert found.shape[2] == sides[layer] and (found >= 0).all()
        assert registry.pooled(trunk, layer, found).numel() == widths[layer]


def test_padding_does_not_count_in_the_average():
    trunk = registry.build("alexnet", 0)
    pooled = registry.pooled(trunk, "pool1", torch.ones(1, 96, 54, 54))
    assert (pooled == 1).all()


def test_maps_are_those_of_a_forward_pass_stage_by_stage():
    trunk = registry.build("alexnet", 3).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found = registry.maps(trunk, image, ["conv1", "conv3"])
        conv1 = trunk.conv1(image.clone()).clone()
        conv3 = trunk.conv3(trunk.pool2(trunk.conv2(trunk.pool1(conv1))))
    torch.testing.assert_close(found["conv1"], conv1)
    torch.testing.assert_close(found["conv3"], conv3)


def test_weights_come_from_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    digests = [registry.weights_digest(registry.build("alexnet", seed)) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    assert (torch.rand(3) == expected).all()
