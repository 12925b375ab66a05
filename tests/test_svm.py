"""The SVM against its stated problem, and the choice of costs against scikit-learn's pieces."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import LinearSVC

from ssl_common.evaluation import svm
from ssl_common.streams import DataError


def made(count=60, width=12, seed=0):
    """Return rows of length 1 and the signs of a class they show faintly."""
    rng = np.random.default_rng(seed)
    signs = np.where(np.arange(count) % 4 == 0, 1, -1).astype(np.int8)
    rows = rng.normal(size=(count, width)) + 0.5 * (signs[:, None] == 1)
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5), signs


def primal(weights, rows, signs, cost):
    """Return the objective and its gradient, as liblinear() states them."""
    extended = np.column_stack([rows, np.ones(len(rows))])
    weight = np.where(signs == 1, 2, 1)
    slack = np.maximum(0, 1 - signs * (extended @ weights))
    value = weights @ weights / 2 + cost * np.sum(weight * slack**2)
    return value, weights - 2 * cost * extended.T @ (weight * signs * slack)


@pytest.mark.parametrize("cost", [1e-4, 0.5**6, 1.0, 10.0])
def test_solution_is_the_minimum_of_the_primal(cost):
    rows, signs = made()
    weights, unconverged = svm.liblinear(rows, [svm.Problem(signs, cost)], 0, 0, lambda: None)
    value, gradient = primal(weights[0], rows, signs, cost)
    at_zero = np.linalg.norm(primal(np.zeros_like(weights[0]), rows, signs, cost)[1])
    best = minimize(primal, np.zeros_like(weights[0]), (rows, signs, cost), "L-BFGS-B", jac=True)
    assert unconverged == 0
    assert np.linalg.norm(gradient) < 2e-3 * at_zero
    assert best.fun * (1 - 1e-9) <= value <= best.fun * (1 + 1e-5)


def test_rows_of_sign_0_take_no_part():
    rows, signs = made()
    part = signs.copy()
    part[:20] = 0
    weights, _ = svm.liblinear(rows, [svm.Problem(part, 1.0)], 0, 0, lambda: None)
    alone, _ = svm.liblinear(rows[20:], [svm.Problem(signs[20:], 1.0)], 0, 0, lambda: None)
    np.testing.assert_array_equal(weights, alone)


def test_unconverged_fits_are_counted_in_silence(monkeypatch):
    monkeypatch.setattr(svm, "MAX_ITERATIONS", 1)
    rows, signs = made()
    problems = [svm.Problem(signs, cost) for cost in (10.0, 100.0)]
    assert svm.liblinear(rows, problems, 0, 0, lambda: None)[1] == 2


def test_costs_are_the_papers():
    expected = {10.0**-e for e in range(1, 8)} | {1, 10, 100} | {2.0**-e for e in range(4, 20)}
    assert len(svm.COSTS) == 26
    np.testing.assert_allclose(svm.COSTS, sorted(expected), rtol=1e-15)


def test_cross_validation_equals_scikit_learns():
    """cross_val_score with cv=3, as the published code calls it."""
    rows, signs = made()

    def solve(problems):
        return svm.liblinear(rows, problems, 0, 0, lambda: None)

    ap, _ = svm.cross_validate(rows, signs[:, None], solve)
    state = int(np.random.default_rng(0).integers(2**32))
    for index in (0, 9, 16, 23, 25):
        one = LinearSVC(
            C=svm.COSTS[index], class_weight={1: 2, -1: 1}, max_iter=2000, random_state=state
        )
        scores = cross_val_score(one, rows, signs, cv=3, scoring="average_precision")
        assert ap[0, index] == pytest.approx(scores.mean(), abs=1e-12)


def test_folds_are_scikit_learns():
    rows, signs = made(31)
    asked = []

    def solve(problems):
        asked.extend(problems)
        return np.zeros((len(problems), rows.shape[1] + 1)), 0

    svm.cross_validate(rows, signs[:, None], solve)
    expected = [set(fit) for fit, _test in StratifiedKFold(3).split(rows, signs)]
    found = [set(np.flatnonzero(problem.signs)) for problem in asked]
    assert found == [fit for fit in expected for _ in svm.COSTS]
    for problem in asked:
        kept = problem.signs != 0
        np.testing.assert_array_equal(problem.signs[kept], signs[kept])


def test_the_smallest_of_equal_costs_and_the_commonest_for_the_few():
    ap = np.full((5, 26), np.nan)
    ap[0], ap[1], ap[2] = 0.5, 0.5, 0.5
    ap[0, [4, 9]] = ap[1, 9] = ap[2, 4] = 0.75
    cost, chosen = svm.choose(ap, np.array([3, 9, 4, 2, 0]))
    assert cost[:4].tolist() == [svm.COSTS[i] for i in (4, 9, 4, 4)]
    assert np.isnan(cost[4])
    assert chosen == ["folds", "folds", "folds", "others", "none"]
    ap[0] = 0.5
    ap[0, 11] = 1  # now 4, 9 and 11 once each
    assert svm.choose(ap, np.array([3, 9, 4, 2, 0]))[0][3] == svm.COSTS[4]


def test_no_class_for_the_folds():
    cost, chosen = svm.choose(np.full((2, 26), np.nan), np.array([2, 0]))
    assert (cost[0], chosen) == (1, ["default", "none"])


def write(folder, labels, features=None):
    """Write f.npy and m.tsv with LABELS, one an image; return their names."""
    features = (
        np.random.default_rng(0).normal(size=(len(labels), 5)) if features is None else features
    )
    np.save(folder / "f.npy", features)
    rows = [f"{i}.jpg" + (f"\t{label}" if label else "") for i, label in enumerate(labels)]
    (folder / "m.tsv").write_text("".join(f"{row}\n" for row in rows))
    return str(folder / "f.npy"), str(folder / "m.tsv")


def trained(folder, labels, **extra):
    return svm.train(*write(folder, labels, **extra), {}, 0, 0, lambda *_: None)


def test_difficult_images_are_negatives(tmp_path):
    labels = ["a", "a", "a", "?a", "b", "b", "b", ""]
    difficult = trained(tmp_path, labels)
    plain = trained(tmp_path, [label.replace("?a", "") for label in labels])
    np.testing.assert_array_equal(difficult.weights, plain.weights)


def test_few_and_none(tmp_path):
    found = trained(tmp_path, ["a", "a", "a", "b", "", "", "?c", "b"])
    assert found.classes == ["a", "b", "c"]
    assert found.chosen == ["folds", "others", "none"]
    assert found.cost[0] == found.cost[1]
    assert np.isnan(found.weights[2]).all()
    assert np.isfinite(found.weights[:2]).all()
    assert np.isnan(found.ap).all(axis=1).tolist() == [False, True, True]
    assert "for b" in found.summary() and "for c" in found.summary()


def test_one_class_of_every_image_has_no_classifier(tmp_path):
    with pytest.raises(DataError, match="no class has both"):
        trained(tmp_path, ["a"] * 6)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "u1", ">f4"])
def test_normalised_rows(tmp_path, kind):
    features = np.arange(2500 * 3).reshape(2500, 3) % 7
    files = write(tmp_path, [""] * 2500, features=features.astype(kind))
    rows = np.concatenate(list(svm.read_examples(*files, {}).normalised()))
    wide = features.astype(np.float64)
    expected = wide / (np.sqrt((wide**2).sum(axis=1)) + 1e-5)[:, None]
    np.testing.assert_allclose(rows, expected, rtol=1e-14)
    assert rows.dtype == np.float64


def test_the_same_from_a_shared_file():
    rows, _ = made()
    with svm.sharing(rows, 0) as alone, svm.sharing(rows, 2) as shared:
        assert isinstance(shared, np.memmap)
        np.testing.assert_array_equal(alone, shared)


@pytest.mark.parametrize("width", [5, 9, 40])
def test_compact_rows_change_nothing(tmp_path, width):
    """More features than images, with equal images among them, or fewer: the same classifiers."""
    features = np.random.default_rng(0).normal(size=(9, width))
    features[3] = features[8]
    labels = ["a", "b", "a", "", "a", "b", "b", "", ""]
    files = write(tmp_path, labels, features=features)
    examples = svm.read_examples(*files, {})
    whole = np.concatenate(list(examples.normalised()))
    rows, basis = svm.compact(examples)
    np.testing.assert_allclose(rows if basis is None else rows @ basis.T, whole, atol=1e-14)
    found = trained(tmp_path, labels, features=features)
    for c in range(2):
        signs = np.where(examples.labels[:, c] == 1, 1, -1)
        problem = svm.Problem(signs, found.cost[c])
        direct, _ = svm.liblinear(whole, [problem], 0, 0, lambda: None)
        np.testing.assert_allclose(found.weights[c], direct[0], rtol=1e-3, atol=1e-6)
