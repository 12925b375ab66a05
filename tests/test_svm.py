"""The SVM against its stated problem, and the choice of costs against scikit-learn's pieces."""

import gc
import io
import itertools
import os

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import LinearSVC
from test_solver import newtons
from threadpoolctl import threadpool_limits

from ssl_common import threads
from ssl_common.evaluation.metrics import average_precision
from ssl_common.evaluation.svm import (
    backend,
    classifiers,
    exact,
    liblinear,
    lowshot,
    newton,
    solver,
    subspace,
)
from ssl_common.evaluation.svm.examples import read_examples
from ssl_common.streams import DataError


@pytest.fixture(autouse=True)
def one_thread():
    """Let small products be made by one thread: several wait for each other on busy cores."""
    with threadpool_limits(1), threads.sharing(1):
        yield


def made(count=60, width=12, seed=0):
    """Return rows of length 1 and the signs of a class they show faintly."""
    rng = np.random.default_rng(seed)
    signs = np.where(np.arange(count) % 4 == 0, 1, -1).astype(np.int8)
    rows = rng.normal(size=(count, width)) + 0.5 * (signs[:, None] == 1)
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5), signs


def on(rows, tmp_path, solver="liblinear"):
    """Return a solver for ROWS, which are of length 1."""
    files = write(tmp_path, ["a"] * len(rows), features=rows)
    return classifiers.solving(solver, read_examples(*files, {}), 0, 0, "cpu")


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
    monkeypatch.setattr(subspace, "MAX_STEPS", 1)
    rows, signs = made()
    with on(rows, tmp_path, "exact") as solve:
        assert solve.fit(np.stack([signs, signs]), np.array([10.0, 100.0]), ignore)[1] == 2


def test_costs_are_the_papers():
    expected = {10.0**-e for e in range(1, 8)} | {1, 10, 100} | {2.0**-e for e in range(4, 20)}
    assert len(classifiers.COSTS) == 26
    np.testing.assert_allclose(classifiers.COSTS, sorted(expected), rtol=1e-15)


@pytest.mark.parametrize("solver", ["exact", "liblinear"])
def test_cross_validation_equals_scikit_learns(tmp_path, solver):
    """cross_val_score with cv=3, as the published code calls it, of LIBLINEAR run to the end."""
    rows, signs = made()
    with on(rows, tmp_path, solver) as solve:
        ap, unconverged = classifiers.cross_validate(signs[None], solve, ignore)
    assert unconverged == 0 or solver == "liblinear"
    for index in (0, 9, 16, 23, 25):
        one = LinearSVC(
            C=classifiers.COSTS[index], class_weight={1: 2, -1: 1}, max_iter=10**6, tol=1e-8
        )
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
            found = backend.Solutions(np.zeros(signs.shape), np.zeros(len(signs)), 0)
            yield from [found] * len(costs)

    classifiers.cross_validate(np.stack([signs, -signs]), Spy, ignore)
    expected = [set(fit) for fit, _test in StratifiedKFold(3).split(rows, signs)]
    for sign, found in zip((signs, -signs), asked, strict=True):
        assert [set(np.flatnonzero(kept)) for kept in found] == expected
        for kept in found:
            np.testing.assert_array_equal(kept[kept != 0], sign[kept != 0])


def test_the_smallest_of_equal_costs_and_the_commonest_for_the_few():
    ap = np.full((5, 26), np.nan)
    ap[0], ap[1], ap[2] = 0.5, 0.5, 0.5
    ap[0, [4, 9]] = ap[1, 9] = ap[2, 4] = 0.75
    cost, chosen = classifiers.choose(ap, np.array([3, 9, 4, 2, 0]))
    assert cost[:4].tolist() == [classifiers.COSTS[i] for i in (4, 9, 4, 4)]
    assert np.isnan(cost[4])
    assert chosen == ["folds", "folds", "folds", "others", "none"]
    ap[0] = 0.5
    ap[0, 11] = 1  # now 4, 9 and 11 once each
    assert classifiers.choose(ap, np.array([3, 9, 4, 2, 0]))[0][3] == classifiers.COSTS[4]


def test_no_class_for_the_folds():
    cost, chosen = classifiers.choose(np.full((2, 26), np.nan), np.array([2, 0]))
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


def trained(folder, labels, solver="exact", **extra):
    files = write(folder, labels, **extra)
    return classifiers.train(*files, {}, 0, 0, lambda *_: None, solver=solver)


def test_difficult_images_are_negatives(tmp_path):
    labels = ["a", "a", "a", "?a", "b", "b", "b", ""]
    difficult = trained(tmp_path, labels)
    plain = trained(tmp_path, [label.replace("?a", "") for label in labels])
    np.testing.assert_array_equal(difficult.weights, plain.weights)


def test_few_and_none(tmp_path):
    found = trained(tmp_path, ["a", "a", "a", "b", "", "", "?c", "b"])
    assert found.classes == ["a", "b", "c"]
    assert found.cost_from == ["folds", "others", "none"]
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
    found = classifiers.train(*files, {}, 0, 0, lambda *_: None, solver=solver)
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
        classifiers.train(*files, {}, 0, 0, lambda *_: None, solver=name)
        for name in ("exact", "liblinear")
    )
    assert ours.fields["unconverged"] == 0
    np.testing.assert_allclose(ours.ap, theirs.ap, atol=0.02)
    for c in range(3):
        at = np.flatnonzero(ours.cost[c] == classifiers.COSTS)[0]
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


@pytest.mark.parametrize("few", [0, newton.FEW])
@pytest.mark.parametrize("width", [10, 80])
def test_order_and_costs_at_the_least_costs(tmp_path, monkeypatch, width, few):
    """Three classes that balance, one number large in all rows: AP as of Newton's steps to the end.

    What the folds have at 1e-7 and 1e-6 decides, since the smallest of equal costs is taken.
    """
    monkeypatch.setattr(newton, "FEW", few)
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 3
    features = rng.normal(size=(3, width))[labels] + rng.normal(size=(48, width))
    features = np.column_stack([features, np.full(48, 50)])
    found = trained(tmp_path, [f"c{label}" for label in labels], features=features)
    rows = features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-5)
    rows = np.column_stack([rows, np.ones(48)])
    expected = np.empty((3, 3, 26))
    for c in range(3):
        signs = np.where(labels == c, 1, -1)
        for fold, (fit, test) in enumerate(StratifiedKFold(3).split(rows, signs)):
            some = np.zeros(48, int)
            some[fit] = signs[fit]
            for k, w in enumerate(newtons(features, some, classifiers.COSTS)):
                scores = rows[test] @ w
                expected[c, fold, k] = average_precision(scores, signs[test] == 1, "steps")
    expected = expected.mean(axis=1)
    np.testing.assert_allclose(found.ap, expected, atol=1e-12)
    np.testing.assert_array_equal(found.cost, classifiers.choose(expected, np.array([16] * 3))[0])


@pytest.mark.parametrize(
    "solver, few, kind",
    [("liblinear", 0, "f4"), *itertools.product(["exact"], [0, newton.FEW], ["f4", "f2", ">f8"])],
)
@pytest.mark.parametrize("shape", [(30, 6), (12, 40)])
def test_the_order_of_a_file_changes_nothing(tmp_path, monkeypatch, solver, few, shape, kind):
    monkeypatch.setattr(newton, "FEW", few)
    features = np.random.default_rng(0).normal(size=shape).astype(kind)
    labels, found = ["a", "b", "b"] * (shape[0] // 3), []
    for order in "CF":
        array = np.asarray(features, order=order)
        found.append(trained(tmp_path, labels, features=array, solver=solver))
    np.testing.assert_array_equal(found[0].weights, found[1].weights)
    np.testing.assert_array_equal(found[0].ap, found[1].ap)


@pytest.mark.parametrize("solver", ["exact", "liblinear"])
def test_two_images_a_class(tmp_path, solver):
    """No class has enough for the folds: the cost is 1."""
    labels = [f"c{i % 3}" for i in range(6)]
    found = trained(tmp_path, labels, solver=solver)
    assert found.cost.tolist() == [1, 1, 1] and found.cost_from == ["default"] * 3
    assert np.isfinite(found.weights).all() and np.isnan(found.ap).all()


@pytest.mark.parametrize("few", [0, newton.FEW])
def test_features_cut_short_while_in_use(tmp_path, monkeypatch, few):
    monkeypatch.setattr(newton, "FEW", few)
    monkeypatch.setattr(newton, "HELD", 0)
    files = write(
        tmp_path, ["a", "b"] * 300, features=np.random.default_rng(0).normal(size=(600, 5))
    )

    def progress(*_done):
        os.truncate(files[0], 10_000)

    with pytest.raises(DataError, match=r"f\.npy: cut short while in use"):
        classifiers.train(*files, {}, 0, 0, progress)


def few_shot(folder, features, draws=2, k=2, progress=lambda *_: None):
    """Train on DRAWS samples of K images of each of a, b and c, of FEATURES (3n, D); return all."""
    count, rng = len(features), np.random.default_rng(0)
    files = write(folder, ["a", "b", "c"] * (count // 3), features=features)
    (folder / "few").mkdir(exist_ok=True)
    for number in range(1, draws + 1):
        rows = np.concatenate([rng.choice(count // 3, k, False) * 3 + c for c in range(3)])
        matrix = np.full((count, 3), -1, np.int8)
        matrix[rows] = np.repeat(np.eye(3, dtype=np.int8), k, axis=0)
        np.save(folder / f"few/sample{number}_k{k}.npy", matrix)
    return files, lowshot.train(*files, str(folder / "few"), {}, 0, 2, progress)


def test_threads_are_as_they_were(tmp_path):
    before = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            files = write(tmp_path, ["a", "b"] * 6)
            classifiers.train(*files, {}, 0, 2, lambda *_: None)
            assert torch.get_num_threads() == count
            few_shot(tmp_path, np.eye(12))
            assert torch.get_num_threads() == count
            with pytest.raises(ZeroDivisionError):
                classifiers.train(*files, {}, 0, 2, lambda *_: 1 / 0)
            assert torch.get_num_threads() == count
            with pytest.raises(ZeroDivisionError) as error:
                few_shot(tmp_path, np.eye(12), progress=lambda *_: 1 / 0)
            del error
            gc.collect()
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("few", [0, newton.FEW])
@pytest.mark.parametrize("shape", [(30, 6), (12, 40)])
@pytest.mark.parametrize("together", [1, 1 << 20])
def test_low_shot_is_liblinears(tmp_path, monkeypatch, few, shape, together):
    """Each classifier is LIBLINEAR's, run to the end, of its rows; a file of either order."""
    monkeypatch.setattr(newton, "FEW", few)
    monkeypatch.setattr(exact, "PARTS", together)
    features = np.random.default_rng(1).normal(size=shape)
    _files, found = few_shot(tmp_path, np.asfortranarray(features))
    assert found.fields["unconverged"] == 0 and found.fields["fits"] == 2 * 3 * 26
    rows = features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-5)
    for machines in found.machines.values():
        for c, some, coefficients in machines.parts():
            assert (coefficients[0] > 0).tolist() == [row % 3 == c for row in some]
            for k in (0, 15, 25):
                one = LinearSVC(
                    C=classifiers.COSTS[k], class_weight={1: 2, -1: 1}, max_iter=10**6, tol=1e-9
                ).fit(rows[some], np.where(some % 3 == c, 1, -1))
                w = coefficients[k] @ np.column_stack([rows[some], np.ones(len(some))])
                theirs = np.append(one.coef_[0], one.intercept_)
                np.testing.assert_allclose(w, theirs, rtol=5e-3, atol=5e-3 * abs(theirs).max())


def test_low_shot_is_measured_alike_by_products_and_by_weights(tmp_path, monkeypatch):
    """Where the inner products are too many, the weights are made, a class at a time."""
    features = np.random.default_rng(1).normal(size=(30, 20)) + np.eye(20)[np.arange(30) % 3]
    files, found = few_shot(tmp_path, features)
    (tmp_path / "test").mkdir()
    labels = [*["a", "b", "c"] * 8, ""]  # the last one shows nothing, and changes nothing
    test = np.random.default_rng(2).normal(size=(25, 20))
    test = read_examples(*write(tmp_path / "test", labels, features=test), {})
    told = []
    for products, scores in ((1 << 30, 1 << 28), (1 << 30, 1), (0, 1 << 28), (0, 1)):
        monkeypatch.setattr(lowshot, "PRODUCTS", products)
        monkeypatch.setattr(lowshot, "SCORES", scores)
        told.append(list(lowshot.evaluate("few", found, files[0], test)))
    assert told[1:] == told[:1] * 3
    assert [record["metric"] for record in told[0]] == ["mAP", "top-1"]
    assert told[0][0]["sample_rule"] == "single" and 0 < told[0][1]["value"] < 100


def measured(folder, labels, **options):
    """Return the record of classifiers of a and b on images with LABELS, and their scores."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 6))
    features[::2, 0] += 1
    found = trained(folder, ["a", "b"] * 20, features=features)
    files = write(folder, labels, features=rng.normal(size=(len(labels), 6)))
    scores = io.BytesIO()
    record = classifiers.evaluate("svm", found, read_examples(*files, {}), scores, **options)
    return record, np.load(io.BytesIO(scores.getvalue()))


FEW_POSITIVES = ["a", *["?a"] * 2, *[""] * 9]


@pytest.mark.parametrize("labels", [FEW_POSITIVES, [*FEW_POSITIVES, "b"]])
def test_draws_without_a_positive_are_left_out(tmp_path, labels):
    """The interval is of the draws that have one; each by hand, its images written out."""
    record, scores = measured(tmp_path, labels, bootstrap=40, seed=3)
    said, means = np.array(labels), []
    for number in range(40):
        drawn = np.random.default_rng((3, number)).integers(len(labels), size=len(labels))
        a, aps = drawn[said[drawn] != "?a"], []
        for c, some, name in ((0, a, "a"), (1, drawn, "b")):
            if name in said[some]:
                aps.append(average_precision(scores[some, c], said[some] == name))
        means += [100 * np.mean(aps)] if aps else []
    assert record["bootstrap_left_out"] == 40 - len(means) > 0
    assert record["interval"] == pytest.approx(np.percentile(means, [2.5, 97.5]))


def test_no_draw_with_a_positive(tmp_path):
    seed = next(
        s for s in range(99) if 0 not in np.random.default_rng((s, 0)).integers(12, size=12)
    )
    with pytest.raises(DataError, match="--bootstrap 1: no draw has a positive: draw more"):
        measured(tmp_path, FEW_POSITIVES, bootstrap=1, seed=seed)


def test_a_class_whose_images_are_all_difficult_is_null(tmp_path):
    record, _scores = measured(tmp_path, ["?a,b", "?a", "?a"], bootstrap=20)
    assert record["per_class"]["a"] is None and record["classes"] == 1
    with pytest.raises(DataError, match="shows no class"):
        measured(tmp_path, ["?a", "?a", "?a"])


def test_measured_alike_in_pieces(tmp_path, monkeypatch):
    """Some classes, or draws, at a time: the same record and scores."""
    labels = ["a", "b", "?a", "b,a", ""] * 5
    whole = measured(tmp_path, labels, bootstrap=30)
    for name in ("SCORES", "COUNTS"):
        monkeypatch.setattr(classifiers, name, 1)
    parts = measured(tmp_path, labels, bootstrap=30)
    assert parts[0] == whole[0]
    np.testing.assert_array_equal(parts[1], whole[1])
