"""Figures of angles: streamed in bins, against all of them kept as float64."""

import math
import tracemalloc

import numpy as np
import pytest

from ssl_common.evaluation.normals import metrics
from ssl_common.evaluation.normals.metrics import Angles

RNG = np.random.default_rng(0)


def pools():
    """Lists of images with angles: usual ones, very small, at both ends, on edges of bins."""
    usual = [RNG.gamma(1.5, 12, n).clip(0, 180) for n in (5000, 1, 2, 40_001)]
    return {
        "usual": usual,
        "small": [RNG.uniform(0, 0.02, 999), RNG.uniform(0, 0.02, 1000)],
        "ends": [np.array([0.0, 180.0]), np.array([180.0, 180.0, 0.0])],
        "edges": [np.arange(0, 180, 0.01), np.array(metrics.WITHIN)],
        "one empty": [*usual, np.empty(0)],
    }


@pytest.mark.parametrize("name", pools())
def test_the_pool_and_its_images(name):
    images = pools()[name]
    angles = Angles()
    for each in images:
        angles.add(each)
    whole, found = np.concatenate(images), angles.pooled()
    assert angles.pixels == len(whole)
    assert found["mean"] == pytest.approx(whole.mean(), rel=1e-12)
    assert found["rmse"] == pytest.approx(math.sqrt(np.mean(whole**2)), rel=1e-12)
    assert abs(found["median"] - np.median(whole)) <= 0.005 + 1e-9
    for most, field in ((11.25, "within_11_25"), (22.5, "within_22_5"), (30, "within_30")):
        assert found[field] == pytest.approx(100 * np.mean(whole < most), rel=1e-12)
    full = [each for each in images if len(each)]
    own = angles.per_image()
    assert own["median"] == pytest.approx(np.mean([np.median(each) for each in full]), rel=1e-12)
    assert own["mean"] == pytest.approx(np.mean([each.mean() for each in full]), rel=1e-12)
    assert own["within_30"] == pytest.approx(100 * np.mean([(e < 30).mean() for e in full]))


def test_two_parts_are_the_whole():
    first, second, whole = Angles(), Angles(), Angles()
    for number, each in enumerate(pools()["usual"]):
        (first if number < 2 else second).add(each)
        whole.add(each)
    first.merge(second)
    assert first.pooled() == pytest.approx(whole.pooled(), rel=1e-12)
    assert first.per_image() == whole.per_image()


def test_without_an_angle_there_is_no_figure():
    assert all(math.isnan(value) for value in Angles().pooled().values())
    assert Angles().per_image() == {}


@pytest.mark.parametrize("degrees", [0, 1e-6, 1e-3, 0.5, 30, 90, 179.9999, 180])
def test_angles_are_exact_where_the_arc_cosine_is_not(degrees):
    turn = math.radians(degrees)
    one = np.array([1.0, 0, 0])
    other = 3 * np.array([math.cos(turn), math.sin(turn), 0])
    assert metrics.angles(one, other) == pytest.approx(degrees, rel=1e-9, abs=1e-9)


def test_memory_is_that_of_one_image():
    image = RNG.uniform(0, 180, (480, 640))
    angles = Angles()
    angles.add(image)
    tracemalloc.start()
    for _ in range(20):
        angles.add(image)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1e5 and peak < 10 * image.nbytes


def test_names_of_fields():
    found = metrics.in_fields({"mean": 1.0, "within_22_5": 2.0}, "image_")
    assert found == {"image_mean_error": 1.0, "image_within_22_5": 2.0}
