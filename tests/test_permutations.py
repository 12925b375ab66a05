"""The greedy selection, against the published loop over all pairs, and readers of its files."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from ssl_common.pretext.permutations import lexicographic, load, mean_distance, select
from ssl_common.streams import DataError


def hamming(a, b):
    return sum(x != y for x, y in zip(a, b, strict=True))


def published(first, count, method):
    """Select as the authors' script does: every candidate left against every row chosen."""
    left = list(itertools.permutations(range(len(first))))
    chosen = [left.pop(left.index(tuple(first)))]
    while len(chosen) < count:
        distances = [[hamming(candidate, row) for row in chosen] for candidate in left]
        worth = [min(d) if method == "max-min" else Fraction(sum(d), len(d)) for d in distances]
        chosen.append(left.pop(worth.index(max(worth))))
    return np.array(chosen)


@pytest.mark.parametrize("method", ["max-avg", "max-min"])
@pytest.mark.parametrize("tiles, count", [(2, 2), (3, 6), (4, 24), (5, 40)])
@pytest.mark.parametrize("seed", [0, 1])
def test_selection_equals_the_loop_over_all_pairs(tiles, count, method, seed):
    chosen = select(count, tiles, method, seed)
    assert chosen.dtype == np.int64 and chosen.flags.c_contiguous
    assert np.array_equal(chosen, published(chosen[0], count, method))


def test_nine_tiles_begin_as_the_loop_over_all_pairs_does():
    candidates = np.array(list(itertools.permutations(range(9))))
    chosen = select(6)
    for k in range(1, 6):
        mean = (candidates[:, None] != chosen[None, :k]).sum(2).mean(1)
        taken = (candidates[:, None] == chosen[None, :k]).all(2).any(1)
        assert np.array_equal(chosen[k], candidates[np.where(taken, -1, mean).argmax()])


@pytest.mark.parametrize("tiles", [1, 2, 5, 6])
def test_candidates_are_in_lexicographic_order(tiles):
    assert lexicographic(tiles).T.tolist() == [
        list(p) for p in itertools.permutations(range(tiles))
    ]


def test_all_permutations_each_once():
    assert len(np.unique(select(120, 5), axis=0)) == 120


def test_a_larger_set_begins_with_the_smaller():
    assert np.array_equal(select(30, 6)[:10], select(10, 6))


def test_the_seed_draws_the_first():
    assert len({tuple(select(1, seed=seed)[0]) for seed in range(20)}) == 20


def test_progress_is_told_of_every_row():
    told = []
    select(3, 4, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_mean_distance_equals_that_of_all_pairs():
    chosen = select(15, 5, "max-min")
    pairs = [hamming(a, b) for a, b in itertools.combinations(chosen, 2)]
    assert mean_distance(chosen) == pytest.approx(sum(pairs) / len(pairs), rel=1e-14)
    assert math.isnan(mean_distance(chosen[:1]))


def test_more_than_there_are():
    with pytest.raises(DataError, match="4 tiles have 24 permutations: ask for -n 24 or less"):
        select(25, 4)


# ---- Reading ----------------------------------------------------------------------------------


def saved(tmp_path, array):
    np.save(tmp_path / "p.npy", array)
    return str(tmp_path / "p.npy")


@pytest.mark.parametrize("dtype", ["<i8", "<i4", "u1", ">i4"])
@pytest.mark.parametrize("base", [0, 1])
def test_load_takes_both_bases_and_three_types(tmp_path, dtype, base):
    chosen = select(20, 5)
    found = load(saved(tmp_path, (chosen + base).astype(dtype)))
    assert found.dtype == np.int64 and np.array_equal(found, chosen)


@pytest.mark.parametrize(
    "array, message",
    [
        ([[0, 1, 2], [0, 2, 2]], "row 1 is not a permutation of 0 to 2: 0 2 2"),
        ([[1, 2, 3], [0, 1, 2]], "row 1 is not a permutation of 1 to 3: 0 1 2"),
        ([[2, 3, 4], [2, 4, 3]], "row 0 is not a permutation of 0 to 2: 2 3 4"),
        ([[0, 1, 2], [-1, 1, 2]], "row 1 is not a permutation"),
        ([[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 1, 0]], "row 3 is row 1 again"),
        ([0, 1, 2], r"shape \(3,\)"),
        (np.zeros((0, 9), int), r"shape \(0, 9\)"),
        ([[0.0, 1.0], [1.0, 0.0]], "float64"),
        ([["a", "b"]], "<U1"),
    ],
)
def test_load_names_file_and_row(tmp_path, array, message):
    with pytest.raises(DataError, match=f"p.npy: {message}"):
        load(saved(tmp_path, np.array(array)))


@pytest.mark.parametrize("content", [b"", b"0 1 2\n", b"\x93NUMPY\x01\x00"])
def test_load_of_something_else(tmp_path, content):
    (tmp_path / "p.npy").write_bytes(content)
    with pytest.raises(DataError, match="p.npy: not a .npy array"):
        load(str(tmp_path / "p.npy"))


def test_files_of_other_projects(data):
    released = load(str(data("perms_colour/naroozi_perms_100_patches_9_max.npy")))
    assert released.shape == (100, 9) and released.min() == 0
    assert mean_distance(released) == pytest.approx(8.08, abs=0.005)
    for count in (30, 31, 100, 1000):
        found = load(str(data(f"perms_colour/jigen_permutations_{count}.npy")))
        assert found.shape == (count, 9)
    assert mean_distance(found) == pytest.approx(8.0054, abs=5e-5)
