"""The exact solver against its stated problem: another minimiser, LIBLINEAR, and its own bound."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.svm import LinearSVC

from ssl_common.evaluation import solver


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
    return solver.Rows(features, scale, "cpu")


COSTS = [1e-6, 0.01, 1.0, 100.0]


@pytest.mark.parametrize("kind", ["gram", "rows"])
@pytest.mark.parametrize("shape", [(60, 20), (40, 90), (300, 150)])
def test_objectives_are_the_least(kind, shape):
    features, signs = made(*shape)
    space = space_of(features, kind)
    some = torch.from_numpy(np.repeat(signs, len(COSTS), axis=0))
    costs = torch.tensor(COSTS * len(signs), dtype=torch.float64)
    weights, images, gaps = solver.solve(space, solver.Preconditioner(space), some, costs)
    assert gaps.max() <= solver.TOLERANCE
    for p in range(len(costs)):
        rows, objective = problem(features, some[p].numpy(), costs[p].item())
        w = weights[p].numpy() @ rows if kind == "gram" else weights[p].numpy()
        np.testing.assert_allclose(images[p], rows @ w, atol=1e-9)
        zero = np.zeros(rows.shape[1])
        options = {"maxiter": 10_000, "maxfun": 100_000, "ftol": 1e-15, "gtol": 1e-9}
        best = minimize(objective, zero, method="L-BFGS-B", jac=True, options=options).fun
        value = objective(w)[0]
        assert value <= best * (1 + 1e-6)
        assert best >= value * (1 - gaps[p].item() - 1e-9)  # the bound holds


def test_objectives_equal_liblinears():
    features, signs = made(80, 200)
    space = space_of(features, "gram")
    for cost in COSTS:
        some = torch.from_numpy(signs)
        costs = torch.full((3,), cost, dtype=torch.float64)
        _weights, images, _gaps = solver.solve(space, solver.Preconditioner(space), some, costs)
        for sign, image in zip(signs, images.numpy(), strict=True):
            rows, objective = problem(features, sign, cost)
            part = sign != 0
            svm = LinearSVC(
                C=cost, class_weight={1: 2, -1: 1}, max_iter=10**6, tol=1e-9, random_state=0
            ).fit(rows[part, :-1], sign[part])
            theirs = objective(np.append(svm.coef_[0], svm.intercept_))[0]
            w = np.linalg.lstsq(rows, image, rcond=None)[0]  # the shortest: w is in the span
            assert objective(w)[0] == pytest.approx(theirs, rel=1e-6)


def test_a_warm_start_ends_in_the_same_place():
    features, signs = made(80, 200)
    space = space_of(features, "gram")
    preconditioner, some = solver.Preconditioner(space), torch.from_numpy(signs)
    low, high = (torch.full((3,), cost, dtype=torch.float64) for cost in (0.1, 10))
    cold = solver.solve(space, preconditioner, some, high)
    warm = solver.solve(
        space, preconditioner, some, high, solver.solve(space, preconditioner, some, low)[:2]
    )
    assert torch.allclose(cold[1], warm[1], atol=2e-2)
    assert max(cold[2].max(), warm[2].max()) <= solver.TOLERANCE


def test_mapped_half_and_whole_numbers(tmp_path):
    """Rows of any kind are those numbers, and a mapped file is only read."""
    rng = np.random.default_rng(0)
    for kind in ("f2", "f4", "f8", "u1", ">f4"):
        array = rng.integers(0, 9, (50, 7)).astype(kind)
        np.save(tmp_path / "f.npy", array)
        before = (tmp_path / "f.npy").read_bytes()
        scale = torch.rand(50, dtype=torch.float64) + 1
        space = solver.Rows(np.load(tmp_path / "f.npy", mmap_mode="r"), scale, "cpu")
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
    scales = torch.rand(9).double(), torch.rand(5).double()
    found = solver.gram(left, scales[0], "cpu", right, scales[1])
    expected = (scales[0].numpy()[:, None] * left) @ (scales[1].numpy()[:, None] * right).T + 1
    np.testing.assert_allclose(found, expected, rtol=1e-12)
