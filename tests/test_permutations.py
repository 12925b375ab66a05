"""Making permutations by each method, their distances, and the reader of their files."""

import itertools
import math

import numpy as np
import pytest

from ssl_common.pretext.permutations import histogram, load, make, mean_distance, report
from ssl_common.streams import DataError


def rows(*given, **options):
    return make(*given, **options)[0]


def pairs(permutations):
    """Return the distance of every pair."""
    both = itertools.combinations(permutations.tolist(), 2)
    return [sum(x != y for x, y in zip(a, b, strict=True)) for a, b in both]


@pytest.mark.parametrize("count", [1, 2, 9, 60, 200])
@pytest.mark.parametrize("method", ["code", "max-min", "max-avg"])
def test_what_is_made_and_what_is_told_of_it(count, method):
    made, by, least = make(count, method=method)
    assert made.dtype == np.int64 and made.flags.c_contiguous and made.shape == (count, 9)
    assert (np.sort(made) == np.arange(9)).all() and by == method
    if method == "max-avg":
        assert least is None
    elif count > 1:
        assert least == min(pairs(made))


@pytest.mark.parametrize("tiles", range(2, 9))
def test_other_tiles_are_made_by_max_min(tiles):
    code, by, least = make(2, tiles)
    assert by == "max-min" and least == tiles
    assert np.array_equal(code, rows(2, tiles, "max-min"))


@pytest.mark.parametrize("method", ["code", "max-min", "max-avg"])
def test_the_first_row_is_given_or_drawn(method):
    first = [3, 4, 1, 7, 2, 6, 0, 8, 5]
    assert rows(20, method=method, first=first)[0].tolist() == first
    assert len({tuple(rows(1, method=method, seed=seed)[0]) for seed in range(20)}) == 20


@pytest.mark.parametrize("first", [None, [8, 7, 6, 5, 4, 3, 2, 1, 0]])
def test_the_seed_relabels_a_code(first):
    zero, one = (rows(100, first=first, seed=seed) for seed in (0, 1))
    assert pairs(zero) == pairs(one)  # row by row
    assert {tuple(row) for row in zero} != {tuple(row) for row in one}


def test_histogram_equals_that_of_all_pairs():
    made = rows(60, 6, "max-avg")
    assert histogram(made).tolist() == [pairs(made).count(d) for d in range(7)]
    told = []
    assert histogram(made[:1], lambda *what: told.append(what)).tolist() == [0] * 7
    histogram(made[:3], lambda *what: told.append(what))
    assert told == [(2, 3), (3, 3)]


def test_mean_distance_equals_that_of_all_pairs():
    made = rows(15, 5, "max-min")
    found = pairs(made)
    assert mean_distance(made) == pytest.approx(sum(found) / len(found), rel=1e-14)
    assert math.isnan(mean_distance(made[:1]))


def test_the_report():
    made = np.array([[0, 1, 2, 3], [1, 0, 3, 2], [0, 1, 3, 2]])
    text = "n\t3\ntiles\t4\nmin\t2\nmean\t2.666667\npairs 2 apart\t2\npairs 4 apart\t1\n"
    assert report(made) == (text, 2)
    assert report(made[:1]) == ("n\t1\ntiles\t4\n", None)


@pytest.mark.parametrize("method", ["code", "max-min", "max-avg"])
def test_more_than_there_are(method):
    with pytest.raises(DataError, match="4 tiles have 24 permutations: ask for -n 24 or less"):
        make(25, 4, method)
    with pytest.raises(DataError, match="ask for -n 362880 or less"):
        make(362_881, method=method)


# ---- Reading ----------------------------------------------------------------------------------


def saved(tmp_path, array):
    np.save(tmp_path / "p.npy", array)
    return str(tmp_path / "p.npy")


@pytest.mark.parametrize("dtype", ["<i8", "<i4", "u1", ">i4", ">i8", "<i2"])
@pytest.mark.parametrize("base", [0, 1])
def test_load_takes_both_bases_and_all_types(tmp_path, dtype, base):
    chosen = rows(20, 5)
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
        ([0, 1, 2], "permutations is 3 of int64, not P x tiles"),
        (np.zeros((0, 9), int), "permutations is 0 x 9 of int64"),
        ([[0.0, 1.0], [1.0, 0.0]], "permutations is 2 x 2 of float64"),
        ([["a", "b"]], "permutations is 1 x 2 of <U1"),
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
