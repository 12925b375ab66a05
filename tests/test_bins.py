"""Bins, soft labels and priors against slow ways to say the same, and others' files."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from ssl_common.pretext import bins, color
from ssl_common.streams import DataError

RELEASED = {5: 968, 10: 262, 15: 124, 20: 76}  # how many bins the authors' files have


@pytest.fixture(scope="module")
def gamut():
    """How often each a and b occurs in the 2**24 colours of 8 bits, int64 (256, 256)."""
    axis = torch.arange(256, dtype=torch.uint8)
    total = torch.zeros(1 << 16, dtype=torch.int64)
    for red in range(0, 256, 16):
        block = torch.cartesian_prod(axis[red : red + 16], axis, axis).T[:, None]
        _l, a, b = color.lab8(block).long()
        total += torch.bincount((256 * a + b).flatten(), minlength=1 << 16)
    return total.view(256, 256).numpy()


def test_the_hull_is_zhangs(data):
    points = bins.hull()
    assert points.shape == (313, 2) and points.dtype == np.int64
    assert np.array_equal(points, np.load(data("perms_colour/pts_in_hull.npy")))


@pytest.mark.parametrize("grid", RELEASED)
def test_all_colours_have_the_bins_that_the_authors_released(gamut, grid):
    """ImageNet has colours in every bin of sRGB."""
    points, prior = bins.grid_points(gamut, grid)
    assert len(points) == RELEASED[grid] and points.dtype == np.int64
    assert abs(prior.sum() - 1) < 1e-12 and (prior > 0).all()


def test_the_released_file(gamut, data):
    released = np.load(data("perms_colour/pts_in_hull_train_imagenet1k_bin20.npy"))
    assert np.array_equal(bins.grid_points(gamut, 20)[0], released)


@pytest.mark.parametrize("grid", RELEASED)
def test_cells_are_those_of_numpys_histogram(grid):
    rng = np.random.default_rng(grid)
    ab = rng.integers(-128, 128, (3000, 2))  # the last edge, and above it, too
    edges = np.arange(-128, 128, grid)
    want, _, _ = np.histogram2d(ab[:, 0], ab[:, 1], [edges, edges])
    histogram = np.zeros((256, 256), np.int64)
    np.add.at(histogram, tuple(ab.T + 128), 1)
    points, prior = bins.grid_points(histogram, grid)
    cells = [(edges[i], edges[j]) for i, j in zip(*np.nonzero(want), strict=True)]
    assert points.tolist() == [list(map(int, cell)) for cell in cells]
    assert abs(prior - want[want > 0] / want.sum()).max() < 1e-15


def test_soft_labels():
    """Against a loop over all points."""
    points = bins.hull()
    table = bins.Bins(points, None, 7)
    colours = np.random.default_rng(0).integers(-128, 128, (60, 2))
    colours[:4] = [0, 0], [5, 5], [-128, 127], [127, 127]  # points as near as others; far away
    nearest, share = table.encode(torch.from_numpy(colours))
    for ab, near, weights in zip(colours, nearest.tolist(), share.tolist(), strict=True):
        square = [int(((ab - point) ** 2).sum()) for point in points]
        order = sorted(range(len(points)), key=lambda q: (square[q], q))[:7]  # noqa: B023
        assert near == order
        want = np.array([np.exp((min(square) - square[q]) / 50) for q in order])
        assert weights == pytest.approx(want / want.sum(), abs=1e-6)


def test_beyond_twenty_neighbors_nothing_changes(gamut):
    """For all colours of sRGB; why the paper's curve over K is flat."""
    points = bins.hull()
    assert bins.Bins(points, None, 313).nearest.shape == (1 << 16, 20)
    ab = np.argwhere(gamut)[::29] - 128
    square = ((ab[:, None] - points) ** 2).sum(2)
    full = np.exp((square.min(1, keepdims=True) - square) / 50)
    full /= full.sum(1, keepdims=True)
    nearest, share = bins.Bins(points, None, 20).encode(torch.from_numpy(ab))
    kept = np.zeros_like(full)
    np.put_along_axis(kept, nearest.numpy(), share.numpy(), 1)
    assert abs(kept - full).max() < 3e-5
    # As good on a finer grid, of which more are within reach.
    fine = bins.grid_points(gamut, 5)[0]
    square = ((ab[::9, None] - fine) ** 2).sum(2)
    full = np.exp((square.min(1, keepdims=True) - square) / 50)
    top = bins.Bins(fine, None, 313).encode(torch.from_numpy(ab[::9]))[1][:, 0].numpy()
    assert abs(top - full.max(1) / full.sum(1)).max() < 1e-4


def there_and_back(table, ab):
    """Return how far decoding takes the labels of AB (N, 2), as logits, from AB."""
    nearest, share = table.encode(torch.from_numpy(ab))
    logits = torch.full((len(ab), len(table.points)), -torch.inf).scatter_(1, nearest, share.log())
    return np.linalg.norm(table.decode(logits).numpy() - ab, axis=1)


@pytest.mark.parametrize("neighbors, error", [(2, 5.0), (5, 2.8), (10, 2.8), (20, 2.8)])
def test_encoding_and_decoding_a_photograph(data, neighbors, error):
    path = sorted(data("voc2007_A").rglob("*.jpg"))[0]
    with Image.open(path) as image:
        exact = rgb2lab(np.asarray(image.convert("RGB")))[..., 1:].reshape(-1, 2)
    rounded = np.rint(exact).astype(np.int64)
    back = there_and_back(bins.Bins(bins.hull(), None, neighbors), np.unique(rounded, axis=0))
    assert 0.5 * error < back.max() <= error + 1e-5
    assert abs(rounded - exact).max() <= 0.5


def test_decoding_is_the_annealed_mean():
    points = bins.hull()
    logits = torch.randn(2, 3, 313, generator=torch.Generator().manual_seed(0)) * 3
    probability = np.exp(logits.double().numpy()) ** (1 / 0.38)
    want = probability @ points / probability.sum(-1, keepdims=True)
    assert abs(bins.Bins(points).decode(logits).numpy() - want).max() < 1e-3


def test_rebalancing():
    """As Zhang et al. write it: w = ((1 - lambda) p + lambda / Q) ** -1, of mean 1 under p."""
    prior = np.random.default_rng(0).dirichlet(np.full(313, 0.1))
    weight = bins.rebalancing(bins.hull(), prior)
    want = [1 / (0.5 * p + 0.5 / 313) for p in prior]
    assert weight == pytest.approx(np.array(want) / sum(p * w for p, w in zip(prior, want)))  # noqa: B905
    some = np.array([0.75, 0.25, 0.0])  # uniform over the two that occur
    got = bins.rebalancing(bins.hull()[:3], some)
    assert got == pytest.approx(np.array([1 / 0.625, 1 / 0.375, 1 / 0.25]) / (1.2 + 2 / 3))
    assert (bins.rebalancing(bins.hull(), None) == 1).all()


def test_the_loss_of_a_constant(gamut):
    """Against the minimum that gradient descent finds, under the prior."""
    points, prior = bins.grid_points(gamut, 20)
    table = bins.Bins(points, prior, 5)
    nearest, share = table.encode(torch.from_numpy(points))
    weight = torch.from_numpy(prior).float() * table.weight
    logits = torch.zeros(len(points), requires_grad=True)
    descent = torch.optim.LBFGS([logits], max_iter=60, line_search_fn="strong_wolfe")

    def loss():
        descent.zero_grad()
        value = -(weight[:, None] * share * logits.log_softmax(0)[nearest]).sum() / weight.sum()
        value.backward()
        return value

    descent.step(loss)
    assert table.constant() == pytest.approx(float(loss().detach()), abs=1e-3)


def test_prior_of_given_bins(gamut):
    points = bins.hull()
    ab = np.argwhere(gamut)[::97]
    histogram = np.zeros_like(gamut)
    histogram[tuple(ab.T)] = np.arange(1, len(ab) + 1)
    want = np.zeros(313)
    for count, colour in enumerate(ab - 128, 1):
        want[((colour - points) ** 2).sum(1).argmin()] += count
    assert np.allclose(bins.prior(histogram, points), want / want.sum(), atol=1e-15)


def npz(path, **arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    path.write_bytes(stream.getvalue())
    return str(path)


def test_a_file_is_read_as_it_was_written(tmp_path):
    prior = np.random.default_rng(0).dirichlet(np.ones(313))
    with open(tmp_path / "b.npz", "wb") as stream:
        bins.save(stream, bins.hull(), prior)
    points, read = bins.load(str(tmp_path / "b.npz"))
    assert np.array_equal(points, bins.hull()) and np.array_equal(read, prior)


def test_files_of_other_projects(data):
    """Zhang et al.'s bins and prior, and the authors' bins, each an array by itself."""
    folder = data("perms_colour")
    points, prior = bins.load(str(folder / "pts_in_hull.npy"))
    assert np.array_equal(points, bins.hull()) and prior is None
    points, prior = bins.load(str(folder / "prior_probs.npy"))
    assert np.array_equal(points, bins.hull())
    assert np.array_equal(prior, np.load(folder / "prior_probs.npy"))
    path = folder / "pts_in_hull_train_imagenet1k_bin20.npy"
    points, prior = bins.load(str(path))
    assert np.array_equal(points, np.load(path)) and len(points) == 76 and prior is None


@pytest.mark.parametrize(
    "array, said",
    [
        (np.full(312, 1 / 312), "prior is 312 of float64"),
        (np.full(313, 1.0), "prior is of sum 313, not 1"),
        (np.zeros((2, 3), int), "points is 2 x 3 of int64"),
        (np.zeros((2, 2, 2)), "points is 2 x 2 x 2 of float64"),
    ],
)
def test_an_array_that_holds_no_bins(tmp_path, array, said):
    np.save(tmp_path / "b.npy", array)
    with pytest.raises(DataError, match=said):
        bins.load(str(tmp_path / "b.npy"))


GOOD = {"format": 1, "points": np.array([[0, 0], [10, 0]]), "prior": np.array([0.5, 0.5])}


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"format": 2}, "format 2, where this version reads 1"),
        ({"points": np.zeros((2, 3), int)}, "points is 2 x 3 of int64, not Q x 2 whole numbers"),
        ({"points": np.zeros((2, 2))}, "points is 2 x 2 of float64, not Q x 2 whole numbers"),
        ({"points": np.zeros((2, 2), int)}, "points holds a row twice"),
        (
            {"points": np.array([[0, 0], [0, 200]])},
            "points holds 200, not a whole number from -128",
        ),
        (
            {"points": np.zeros((1, 2), int)},
            "points is 1 x 2 of int64, not Q x 2 whole numbers",
        ),
        ({"prior": np.array([1.0])}, "prior is 1 of float64, not Q real numbers from 0 on (Q = 2"),
        ({"prior": np.array([0.5, 0.6])}, "prior is of sum 1.1, not 1"),
        ({"prior": np.array([1.5, -0.5])}, "prior holds -0.5, not a real number from 0 on"),
        ({"prior": np.array([0.5, np.nan])}, "prior holds NaN or infinity"),
    ],
)
def test_a_file_that_holds_no_bins(tmp_path, wrong, said):
    path = npz(tmp_path / "b.npz", **(GOOD | wrong))
    with pytest.raises(DataError, match="make them with make-color-bins") as error:
        bins.load(path)
    assert str(error.value).startswith(f"{path}: {said}")
