"""The greedy selection, against the published loop over all pairs."""

import itertools

import numpy as np
import pytest

from ssl_common.pretext.greedy import Distances, first_mean, lexicographic, select


def published(first, count, method):
    """Select as the authors' script does: every candidate left against every row chosen."""
    left = list(itertools.permutations(range(len(first))))
    chosen = [left.pop(left.index(tuple(first)))]
    while len(chosen) < count:
        distances = [
            [sum(x != y for x, y in zip(candidate, row, strict=True)) for row in chosen]
            for candidate in left
        ]
        part = 1 / len(first)
        worth = [
            min(d) if method == "max-min" else sum([places * part for places in d]) / len(d)
            for d in distances
        ]
        chosen.append(left.pop(worth.index(max(worth))))
    return np.array(chosen)


@pytest.mark.parametrize("method", ["max-avg", "max-min"])
@pytest.mark.parametrize("tiles, count", [(2, 2), (3, 6), (4, 24), (5, 40), (6, 25)])
@pytest.mark.parametrize("seed", [0, 1])
def test_selection_equals_the_loop_over_all_pairs(tiles, count, method, seed):
    first = np.random.default_rng(seed).permutation(tiles)
    assert np.array_equal(select(count, first, method), published(first, count, method))


@pytest.mark.parametrize("method", ["max-avg", "max-min"])
def test_nine_tiles_begin_as_the_loop_over_all_pairs_does(method):
    candidates = np.array(list(itertools.permutations(range(9))), np.uint8)
    chosen = select(20, [3, 4, 1, 7, 2, 6, 0, 8, 5], method)
    sums, least = np.zeros(len(candidates)), np.full(len(candidates), 9)
    for k in range(1, 20):
        apart = (candidates != chosen[k - 1]).sum(1)
        sums, least = sums + apart * (1 / 9), np.minimum(least, apart)
        worth = least if method == "max-min" else np.where(least == 0, -1, sums / k)
        assert np.array_equal(chosen[k], candidates[worth.argmax()])


@pytest.mark.parametrize("tiles", range(2, 10))
@pytest.mark.parametrize("unit", [1, 0.125])
def test_distances_to_all_candidates(tiles, unit):
    candidates = lexicographic(tiles)
    distances = Distances(candidates, unit)
    for seed in range(3):
        permutation = np.random.default_rng(seed).permutation(tiles)
        expected = (permutation != candidates.T).sum(1) * unit
        found = np.full(len(expected), 3 * unit, distances.table.dtype)
        distances.combine(np.minimum, found, permutation)
        assert np.array_equal(found, np.minimum(expected, 3 * unit))
        distances.combine(np.add, found, permutation)
        assert np.array_equal(found, np.minimum(expected, 3 * unit) + expected)


def test_the_first_of_equal_means_may_have_a_smaller_sum():
    count, found = 11, False
    for top in np.random.default_rng(0).uniform(1, 10, 100):
        below = np.nextafter(top, 0)
        sums = np.array([0.5, below, top, top])
        assert first_mean(sums, count) == (sums / count).argmax()
        found |= below / count == top / count
    assert found


@pytest.mark.parametrize("tiles", [1, 2, 5, 6])
def test_candidates_are_in_lexicographic_order(tiles):
    assert lexicographic(tiles).T.tolist() == [
        list(p) for p in itertools.permutations(range(tiles))
    ]


@pytest.mark.parametrize("method", ["max-avg", "max-min"])
def test_all_permutations_each_once(method):
    assert len(np.unique(select(120, [4, 2, 0, 1, 3], method), axis=0)) == 120


def test_a_larger_set_begins_with_the_smaller():
    first = [5, 0, 1, 2, 3, 4]
    assert np.array_equal(select(30, first, "max-avg")[:10], select(10, first, "max-avg"))


def test_progress_is_told_of_every_row():
    told = []
    select(3, range(4), "max-min", lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
