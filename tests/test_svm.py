"""The SVM against its stated problem, and the choice of costs against scikit-learn's pieces."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import LinearSVC

from ssl_common.evaluation import liblinear, newton, solver, svm
from ssl_common.evaluation.examples import read_examples
from ssl_common.streams import DataError


def made(count=60, width=12, seed=0):
    """Return rows of length 1 and the signs of a class they show faintly."""
    rng = np.random.default_rng(seed)
    signs = np.where(np.arange(count) % 4 == 0, 1, -1).astype(np.int8)
    rows = rng.normal(size=(count, width)) + 0.5 * (signs[:, None] == 1)
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5), signs


def on(rows, tmp_path, solver="liblinear"):
    """Return a solver for ROWS, which are of length 1."""
    files = write(tmp_path, ["a"] * len(rows), features=rows)
    return svm.solving(solver, read_examples(*files, {}), 0, 0, "cpu")


def ignore(_costs):
    pass


def test_rows_of_sign_0_take_no_part(tmp_path):
    rows, signs = made()
    part = signs.copy()
    part[:20] = 0
    whole, _ = liblinear.fit(rows, part, 1.0, 0)
    alone, _ = liblinear.fit(rows[20:], signs[20:], 1.0, 0)
    np.testing.assert_array_equal(whole, alone)


def test_unconverged_fits_are_counted_in_silence(tmp_path, monkeypatch):
    monkeypatch.setattr(liblinear, "MAX_ITERATIONS", 1)
    rows, signs = made()
    with on(rows, tmp_path) as solve:
        assert solve.fit(np.stack([signs, signs]), np.array([10.0, 100.0]), ignore)[1] == 2


@pytest.mark.parametrize("few", [0, newton.FEW])
def test_exact_fits_that_stop_early_are_counted(tmp_path, monkeypatch, few):
    monkeypatch.setattr(newton, "FEW", few)
    monkeypatch.setattr(solver, "MAX_NEWTON", 1)
    rows, signs = made()
    with on(rows, tmp_path, "exact") as solve:
        assert solve.fit(np.stack([signs, signs]), np.array([10.0, 100.0]), ignore)[1] == 2


def test_costs_are_the_papers():
    expected = {10.0**-e for e in range(1, 8)} | {1, 10, 100} | {2.0**-e for e in range(4, 20)}
    assert len(svm.COSTS) == 26
    np.testing.assert_allclose(svm.COSTS, sorted(expected), rtol=1e-15)


@pytest.mark.parametrize("solver", ["exact", "liblinear"])
def test_cross_validation_equals_scikit_learns(tmp_path, solver):
    """cross_val_score with cv=3, as the published code calls it, of LIBLINEAR run to the end."""
    rows, signs = made()
    with on(rows, tmp_path, solver) as solve:
        ap, unconverged = svm.cross_validate(signs[None], solve, ignore)
    assert unconverged == 0 or solver == "liblinear"
    for index in (0, 9, 16, 23, 25):
        one = LinearSVC(C=svm.COSTS[index], class_weight={1: 2, -1: 1}, max_iter=10**6, tol=1e-8)
        scores = cross_val_score(one, rows, signs, cv=3, scoring="average_precision")
        assert ap[0, index] == pytest.approx(scores.mean(), abs=1e-3 if solver == "exact" else 5e-3)


def test_folds_are_scikit_learns():
    rows, signs = made(31)
    asked = []

    class Spy:
        block, map = 1, map

        @staticmethod
        def path(signs, costs, _advance):
            asked.append(signs.copy())
            yield from [(np.zeros(signs.shape), 0)] * len(costs)

    svm.cross_validate(np.stack([signs, -signs]), Spy, ignore)
    expected = [set(fit) for fit, _test in StratifiedKFold(3).split(rows, signs)]
    for sign, found in zip((signs, -signs), asked, strict=True):
        assert [set(np.flatnonzero(kept)) for kept in found] == expected
        for kept in found:
            np.testing.assert_array_equal(kept[kept != 0], sign[kept != 0])


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
    rows = np.concatenate(list(read_examples(*files, {}).normalised()))
    wide = features.astype(np.float64)
    expected = wide / (np.sqrt((wide**2).sum(axis=1)) + 1e-5)[:, None]
    np.testing.assert_allclose(rows, expected, rtol=1e-14)
    assert rows.dtype == np.float64


def test_processes_change_nothing():
    rows, signs = made()
    signs, costs = np.stack([signs, -signs, np.roll(signs, 1)]), np.array([0.1, 1.0, 10.0])
    found = [liblinear.Liblinear(rows, 0, workers).fit(signs, costs, ignore) for workers in (0, 2)]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize("width", [5, 9, 40])
@pytest.mark.parametrize("solver", ["exact", "liblinear"])
def test_shape_changes_nothing(tmp_path, width, solver):
    """More features than images, with equal images among them, or fewer: the same classifiers."""
    features = np.random.default_rng(0).normal(size=(9, width))
    features[3] = features[8]
    labels = ["a", "b", "a", "", "a", "b", "b", "", ""]
    files = write(tmp_path, labels, features=features)
    examples = read_examples(*files, {})
    whole = np.concatenate(list(examples.normalised()))
    found = svm.train(*files, {}, 0, 0, lambda *_: None, solver=solver)
    for c in range(2):
        signs = np.where(examples.labels[:, c] == 1, 1, -1)
        direct, _ = liblinear.fit(whole, signs, found.cost[c], 0)
        np.testing.assert_allclose(found.weights[c], direct, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("width", [30, 400])
def test_the_solvers_agree_on_the_protocol(tmp_path, width, monkeypatch):
    """LIBLINEAR run to the end: the same costs or ties, and the same decision values."""
    monkeypatch.setattr(liblinear, "MAX_ITERATIONS", 10**5)
    rng = np.random.default_rng(0)
    labels = rng.random((120, 3)) < [0.5, 0.2, 0.1]
    features = rng.normal(size=(120, width)).clip(0)
    features[:, :3] += 1.5 * labels
    names = [",".join(np.array(["a", "b", "c"])[row]) for row in labels]
    files = write(tmp_path, names, features=features)
    ours, theirs = (
        svm.train(*files, {}, 0, 0, lambda *_: None, solver=name) for name in ("exact", "liblinear")
    )
    assert ours.fields["unconverged"] == 0
    np.testing.assert_allclose(ours.ap, theirs.ap, atol=0.02)
    for c in range(3):
        at = np.flatnonzero(ours.cost[c] == svm.COSTS)[0]
        assert theirs.ap[c].max() - theirs.ap[c, at] < 1e-3


def test_constant_and_zero_features(tmp_path):
    """All rows alike: nothing can be told, and the score is the same for all."""
    for value in (0, 2):
        features = np.full((9, 4), value)
        found = trained(tmp_path, ["a", "b", "a", "", "a", "b", "b", "", ""], features=features)
        rows = features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-5)
        assert np.ptp(rows @ found.weights[:, :-1].T, axis=0).max() == 0
        assert found.fields["unconverged"] == 0 and found.cost.tolist() == [1e-7, 1e-7]


def test_one_class(tmp_path):
    found = trained(tmp_path, ["a", "", "a", "", "a", ""])
    assert found.classes == ["a"] and np.isfinite(found.weights).all()
