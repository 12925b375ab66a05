"""Average precision against its definition, closed forms and scikit-learn."""

import fractions

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ssl_common.evaluation.metrics import RULES, average_precision


def by_definition(scores, positive):
    """Integrate the highest precision at a recall of at least r, over r, threshold by threshold."""
    points = []
    for threshold in set(scores):
        chosen = [p for s, p in zip(scores, positive, strict=True) if s >= threshold]
        points.append((sum(chosen) / sum(positive), sum(chosen) / len(chosen)))
    steps = [k / sum(positive) for k in range(sum(positive) + 1)]
    return sum(
        (high - low) * max(p for r, p in points if r >= high - 1e-12)
        for low, high in zip(steps, steps[1:], strict=False)
    )


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 60))
    positive = rng.random(count) < rng.uniform(0.1, 0.9)
    positive[0] = True
    scores = rng.normal(size=count).round(rng.integers(0, 3))  # rounded: with and without ties
    expected = by_definition(scores.tolist(), positive.tolist())
    assert average_precision(scores, positive) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_bounds(seed):
    """The envelope lies on or above the curve that scikit-learn sums, and below 1."""
    rng = np.random.default_rng(seed)
    positive, scores = rng.random(500) < 0.1, rng.normal(size=500)
    ap = average_precision(scores, positive)
    assert average_precision_score(positive, scores) <= ap + 1e-12
    assert ap <= 1
    assert average_precision(scores + 10 * positive, positive) == 1


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([3, 2, 1], [1, 0, 1], 1 / 2 * 1 + 1 / 2 * 2 / 3),
        ([4, 3, 2, 1], [0, 1, 1, 0], 2 / 3),  # the envelope lifts precision 1/2 to 2/3
        ([1, 2, 3, 4], [1, 0, 0, 0], 1 / 4),
        ([7, 7, 7, 7], [1, 0, 0, 1], 1 / 2),  # all equal: the share of positives
        ([0.0, -0.0, 1], [1, 0, 0], 1 / 3),  # both zeros are one score
    ],
)
def test_closed_forms(scores, positive, expected):
    assert average_precision(scores, positive) == pytest.approx(expected, abs=1e-15)


def test_order_does_not_matter():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 5, 200).astype(float), rng.random(200) < 0.3
    values = set()
    for _ in range(20):
        order = rng.permutation(200)
        values.add(average_precision(scores[order], positive[order]))
    assert len(values) == 1


def test_no_positive_is_nan():
    assert np.isnan(average_precision([1, 2], [False, False]))


def pairs(seed, count=80):
    """Return scores with many ties and which are positive."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=count).round(1), rng.random(count) < 0.3


@pytest.mark.parametrize("seed", range(20))
def test_steps_are_scikit_learns(seed):
    scores, positive = pairs(seed)
    expected = average_precision_score(positive, scores)
    assert average_precision(scores, positive, "steps") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_eleven_points(seed):
    """The highest precision at a recall of at least 0, 0.1 ... 1, threshold by threshold."""
    scores, positive = pairs(seed, 11 + 4 * seed)
    points = []
    for threshold in set(scores):
        chosen = positive[scores >= threshold]
        points.append((fractions.Fraction(int(chosen.sum()), int(positive.sum())), chosen.mean()))
    tenths = [fractions.Fraction(tenth, 10) for tenth in range(11)]
    expected = np.mean([max(p for r, p in points if r >= tenth) for tenth in tenths])
    assert average_precision(scores, positive, "eleven") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_weights_repeat_images(rule):
    scores, positive = pairs(0)
    counts = np.random.default_rng(1).integers(0, 4, (30, 80))
    counts[0] = 1
    counts[1, positive] = 0
    found = average_precision(scores, positive, rule, counts)
    assert found[0] == pytest.approx(average_precision(scores, positive, rule), abs=1e-12)
    assert np.isnan(found[1])
    for count, value in zip(counts[2:], found[2:], strict=True):
        written = np.repeat(scores, count), np.repeat(positive, count)
        assert value == pytest.approx(average_precision(*written, rule), abs=1e-12)
