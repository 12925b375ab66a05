"""The exact solvers against their problem: plain Newton, LIBLINEAR, and their own bound."""

import itertools
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from ssl_common import containers, threads
from ssl_common.evaluation.svm import exact, newton, solver, subspace
from ssl_common.evaluation.svm.classifiers import COSTS as COSTS_OF_PAPER


@pytest.fixture(autouse=True)
def one_thread():
    """Let small products be made by one thread: several wait for each other on busy cores."""
    with threadpool_limits(1), threads.sharing(1):
        yield


def made(count, width, seed=0):
    """Return features, some of them awkward, and the signs of three classes and a fold."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, width)).clip(0) + 0.2
    signs = np.where(rng.random((3, count)) < [[0.5], [0.2], [0.05]], 1, -1).astype(np.int8)
    features[:, :3] += (signs == 1).T
    signs[:, :4] = (1, -1, 1, -1)
    features[5], features[6] = 0, features[7]  # a zero row; copies, of different signs in a class
    signs[0, 6:8] = (1, -1)
    features[:, -1] = 3  # a constant
    signs[2, count // 2 :] = 0
    return features, signs


def problem(features, signs, cost):
    """Return rows with their 1, and P(w) with its gradient, written down plainly."""
    rows = features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-5)
    rows = np.column_stack([rows, np.ones(len(rows))])
    c = 2 * cost * np.select([signs == 1, signs == -1], [2, 1], 0)

    def objective(w):
        error = np.maximum(0, 1 - signs * (rows @ w))
        return (w @ w + c @ error**2) / 2, w - rows.T @ (c * signs * error)

    return rows, objective


def space_of(features, kind):
    scale = torch.from_numpy(1 / (np.linalg.norm(features.astype(float), axis=1) + 1e-5))
    if kind == "gram":
        return solver.Gram(solver.gram(features, scale))
    return {"rows": solver.Rows, "columns": newton.Columns}[kind](features, scale, "cpu")


def solved(space, signs, costs, start=None):
    """Return (images, gaps, what another cost starts from) of SIGNS and COSTS, both numpy's."""
    signs, costs = torch.from_numpy(signs), torch.as_tensor(costs, dtype=torch.float64)
    if isinstance(space, newton.Columns):
        point, gaps = newton.solve(space, signs, costs, start)
        return point.images.clone(), gaps, point
    if isinstance(space, solver.Rows):
        solutions = subspace.solve(subspace.Preconditioner(space), signs, costs, start)
        return solutions.images.clone(), solutions.gaps, solutions
    solutions = solver.solve(space, solver.Preconditioner(space), signs, costs, start)
    return solutions.images, solutions.gaps, solutions


def newtons(features, signs, costs):
    """Yield the weights at each of COSTS, by plain Newton steps in float64, to the end."""
    w = np.zeros(features.shape[1] + 1)
    for cost in costs:
        rows, objective = problem(features, signs, cost)
        c = 2 * cost * np.select([signs == 1, signs == -1], [2, 1], 0)
        for _ in range(60):
            value, gradient = objective(w)
            active = c * (signs * (rows @ w) < 1)
            step = np.linalg.solve(np.eye(len(w)) + (rows.T * active) @ rows, -gradient)
            while objective(w + step)[0] > value * (1 + 1e-14):
                step = step / 2
            w = w + step
            if np.linalg.norm(step) <= 1e-14 * np.linalg.norm(w):
                break
        yield w


COSTS = [1e-6, 0.01, 1.0, 100.0]
KINDS = ["gram", "rows", "columns"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(60, 20), (40, 90), (300, 150)])
def test_objectives_are_the_least(kind, shape):
    features, signs = made(*shape)
    space = space_of(features, kind)
    some, costs = np.repeat(signs, len(COSTS), axis=0), COSTS * len(signs)
    images, gaps, _start = solved(space, some, costs)
    assert gaps.max() <= 1
    for sign, image, cost, gap in zip(some, images.numpy(), costs, gaps, strict=True):
        rows, objective = problem(features, sign, cost)
        w = np.linalg.lstsq(rows, image, rcond=None)[0]  # the shortest: w is in their span
        np.testing.assert_allclose(image, rows @ w, atol=1e-9)
        value, best = objective(w)[0], objective(next(newtons(features, sign, [cost])))[0]
        assert value <= best * (1 + solver.TOLERANCE + 1e-9)
        assert best >= value * (1 - solver.TOLERANCE * gap.item() - 1e-9)  # the bound holds


@pytest.mark.parametrize(
    "kind, off", [("gram", solver.ORDER), ("rows", solver.ORDER), ("columns", 1e-7)]
)
@pytest.mark.parametrize("constant", [0, 50, 1e4])
def test_scores_are_newtons_but_for_a_part_of_their_spread(kind, off, constant):
    """Three classes that balance, rows nearly alike: the gap alone leaves scores in any order."""
    rng = np.random.default_rng(0)
    labels, costs = np.arange(48) % 3, COSTS_OF_PAPER
    features = rng.normal(size=(3, 10))[labels] + rng.normal(size=(48, 10))
    features = np.column_stack([features, np.full(48, constant)])
    features[7] = features[8]  # of two classes
    signs = np.where(labels == 0, 1, -1).astype(np.int8)
    signs[::5] = 0
    space, start = space_of(features, kind), None
    rows, _objective = problem(features, signs, 1)
    for cost, w in zip(costs, newtons(features, signs, costs), strict=True):
        expected = rows @ w
        images, gaps, start = solved(space, signs[None], [cost], start)
        assert gaps.max() <= 1
        assert np.std(images[0].numpy() - expected) <= off * np.std(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_objectives_equal_liblinears(kind):
    features, signs = made(80, 200)
    space = space_of(features, kind)
    for cost in COSTS:
        images, _gaps, _start = solved(space, signs, [cost] * 3)
        for sign, image in zip(signs, images.numpy(), strict=True):
            rows, objective = problem(features, sign, cost)
            part = sign != 0
            svm = LinearSVC(
                C=cost, class_weight={1: 2, -1: 1}, max_iter=10**6, tol=1e-9, random_state=0
            ).fit(rows[part, :-1], sign[part])
            theirs = objective(np.append(svm.coef_[0], svm.intercept_))[0]
            w = np.linalg.lstsq(rows, image, rcond=None)[0]  # the shortest: w is in the span
            assert objective(w)[0] == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_warm_start_ends_in_the_same_place(kind):
    features, signs = made(80, 200)
    space = space_of(features, kind)
    cold, gaps, _start = solved(space, signs, [10] * 3)
    warm, others, _start = solved(space, signs, [10] * 3, solved(space, signs, [0.1] * 3)[2])
    assert torch.allclose(cold, warm, atol=2e-2)
    assert max(gaps.max(), others.max()) <= 1


@pytest.mark.parametrize("order", ["C", "F"])
def test_half_and_whole_numbers_in_a_file(tmp_path, order):
    """Rows of any kind are those numbers, and their file is only read."""
    rng = np.random.default_rng(0)
    for kind in ("f2", "f4", "f8", "u1", ">f4"):
        array = rng.integers(0, 9, (50, 7)).astype(kind)
        np.save(tmp_path / "f.npy", np.asarray(array, order=order))
        before = (tmp_path / "f.npy").read_bytes()
        scale = torch.rand(50, dtype=torch.float64) + 1
        space = solver.Rows(containers.read_array(str(tmp_path / "f.npy")), scale, "cpu")
        w = torch.randn(3, 8, dtype=torch.float64)
        rows = torch.from_numpy(array.astype("f8")) * scale[:, None]
        rows = torch.column_stack([rows, torch.ones(50)])
        torch.testing.assert_close(space.image(w), w @ rows.T)
        a = torch.randn(3, 50, dtype=torch.float64)
        torch.testing.assert_close(space.combination(a), a @ rows)
        assert space.image(w.float()).dtype == torch.float32
        assert (tmp_path / "f.npy").read_bytes() == before


def test_gram_is_of_the_rows_and_their_ones():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(9, 3000)), rng.normal(size=(5, 3000))
    scales = torch.from_numpy(rng.random(9)), torch.from_numpy(rng.random(5))
    expected = (scales[0].numpy()[:, None] * left) @ (scales[1].numpy()[:, None] * right).T + 1
    for rows in (slice(None), np.array([7, 2])):
        found = solver.cross_gram(left, scales[0], rows, right, scales[1])
        np.testing.assert_allclose(found, expected[rows], rtol=1e-12)
        own = solver.gram(left, scales[0], "cpu", rows)
        both = solver.cross_gram(left, scales[0], rows, left[rows], scales[0][rows])
        np.testing.assert_allclose(own, both, rtol=1e-12)


@pytest.mark.parametrize("large", [0, 1 << 20])
@pytest.mark.parametrize("dtype, off", [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_products_by_the_matrix_are_numpys(monkeypatch, large, dtype, off):
    """However many vectors there are, none among them."""
    monkeypatch.setattr(solver, "LARGE", large)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(33, 50))
    space = solver.Gram(torch.from_numpy(rows @ rows.T))
    for count in range(36):
        weights = rng.normal(size=(count, 33))
        image = space.image(torch.from_numpy(weights).to(dtype))
        assert image.dtype == dtype and image.is_contiguous()
        expected = weights @ rows @ rows.T
        np.testing.assert_allclose(image, expected, atol=100 * off)


def test_a_start_is_least_among_the_last_solutions_and_moves():
    """Of all places tried around it, none has a lower P; its images are those of its weights."""
    features, signs = made(80, 200)
    space = space_of(features, "gram")
    preconditioner, some = solver.Preconditioner(space), torch.from_numpy(signs)
    last = []
    for cost in (0.01, 0.02, 0.04):
        costs = torch.full((3,), cost, dtype=torch.float64)
        last.append(solver.solve(space, preconditioner, some, costs, last[-1] if last else None))
    costs *= 2
    for few in (last[2:], last[1:], last):
        start = solver.extrapolate(space, some, costs, few)
        torch.testing.assert_close(start.images, space.image(start.weights), rtol=0, atol=1e-12)
        moves = [few[-1].weights, *(b.weights - a.weights for a, b in itertools.pairwise(few))]
        for p, sign in enumerate(signs):
            rows, objective = problem(features, sign, costs[p].item())
            ways = np.stack([move[p].numpy() @ rows for move in moves])
            w = start.weights[p].numpy() @ rows
            least = objective(w)[0]
            assert least < objective(few[-1].weights[p].numpy() @ rows)[0]
            for way in (*ways, *-ways):
                assert objective(w + 0.05 * way)[0] > least * (1 - 1e-6)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "u1", ">f4"])
def test_products_of_rows_are_numpys(kind, kept, monkeypatch):
    """Whatever the type of the features, and however few rows are read and converted at a time."""
    rng = np.random.default_rng(0)
    features = rng.integers(0, 200, (103, 7)).astype(kind)
    scale = 1 / np.linalg.norm(features.astype("f8"), axis=1)
    monkeypatch.setattr(solver, "BLOCK", 40)
    monkeypatch.setattr(solver, "WIDENED", 9)
    monkeypatch.setattr(solver, "HELD", 1 << 20 if kept else 0)
    space = solver.Rows(features, torch.from_numpy(scale), "cpu")
    space.hold()
    assert bool(space.held) == (kept and kind != "f8")  # which float32 does not hold
    rows = np.column_stack([features.astype("f8") * scale[:, None], np.ones(103)])
    weights, signs = rng.normal(size=(3, 8)), np.ones((3, 103), "i1")
    signs[1, 35:85] = 0  # all of the block from 40 to 80
    for dtype, off in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        some = torch.from_numpy(weights).to(dtype)
        image = space.image(some)
        assert image.dtype == dtype
        np.testing.assert_allclose(image, weights @ rows.T, atol=off)
        sparse = image * torch.from_numpy(signs)
        expected = (weights @ rows.T * signs) @ rows
        np.testing.assert_allclose(space.combination(sparse), expected, rtol=off, atol=30 * off)
        skipped = space.image(some, torch.from_numpy(signs))
        there = signs != 0  # products of fewer vectors round otherwise on some processors
        np.testing.assert_allclose(skipped[there], image[there], atol=off)


def test_held_out_rows_are_scored_where_float64_ends_it(monkeypatch):
    """Blocks of rows that are held out are skipped in float32; the scores are of all rows."""
    monkeypatch.setattr(solver, "BLOCK", 20)
    monkeypatch.setattr(solver, "NEAR", 1e3)  # float32 is trusted much too early, and once
    monkeypatch.setattr(subspace, "TRIALS", 0)
    features, signs = made(200, 30)
    signs[:, 100:160] = 0
    space, start = space_of(features, "rows"), None
    exact, kinds = subspace.Search.descend, []
    monkeypatch.setattr(
        subspace.Search, "descend", lambda self: (kinds.append(self.kind), exact(self))
    )
    for cost in (0.1, 1.0, 10.0):
        images, gaps, start = solved(space, signs, [cost] * 3, start)
        assert gaps.max() <= 1
        rows, _objective = problem(features, signs[0], cost)
        np.testing.assert_allclose(images, start.weights.numpy() @ rows.T, atol=1e-9)
    assert torch.float64 in kinds


def test_columns_are_read_again_where_they_are_not_held(tmp_path, monkeypatch):
    features, signs = made(300, 20)
    np.save(tmp_path / "f.npy", features)
    held = space_of(features, "columns")
    monkeypatch.setattr(newton, "HELD", 0)
    monkeypatch.setattr(newton, "BLOCK", 1000)
    file = containers.read_array(str(tmp_path / "f.npy"))
    read = newton.Columns(file, held.scale, "cpu")
    assert read.held is None and len(list(read.blocks())) > 3
    for cost in COSTS:
        both = [solved(space, signs, [cost] * 3)[0] for space in (held, read)]
        torch.testing.assert_close(*both, rtol=1e-9, atol=1e-12)


def test_several_systems_by_several_threads():
    """MKL finds no pivots for a batch of large matrices by several threads; torch then raises."""
    features, signs = made(200, 300)
    space = space_of(features, "columns")
    alone = solved(space, signs, [1.0] * 3)[0]
    with threads.sharing(2):
        together = solved(space, signs, [1.0] * 3)[0]
    torch.testing.assert_close(alone, together, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_fits_on_some_rows_come_in_their_order(count):
    """Whichever thread took which; an error is that of its item, and who stops asking ends it."""
    rows = SimpleNamespace(features=np.ones((4, 300)), scale=lambda: np.ones(4))
    sizes, taken = np.random.default_rng(0).permutation(50).tolist(), []

    def negative(size):
        taken.append(size)
        if size > 60:
            raise ValueError(f"too large: {size}")
        return -size

    with exact.solving_parts(rows, np.arange(2), 2, 0, count, "cpu") as parts:
        assert list(parts.map(negative, sizes, int)) == [-size for size in sizes]
        assert sorted(taken) == list(range(50))
        assert count > 1 or taken == sorted(sizes)
        with pytest.raises(ValueError, match="too large: 99"):
            list(parts.map(negative, [*sizes, 99], int))
        taken.clear()
        some = parts.map(lambda size: time.sleep(0.01) or negative(size), range(60), int)
        assert next(some) == 0
        some.close()
        assert len(taken) < 60
