"""The codes: their groups, and their distances by brute force."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from conftest import CHECKOUT, environment
from scipy.spatial.distance import cdist

from ssl_common.pretext import codes

# The table of the manual: up to how many rows, and the least distance of two.
TABLE = [(9, 9), (72, 8), (504, 7), (1512, 6), (3132, 5), (19224, 4), (181440, 3), (362880, 2)]
# Each size of the table up to 19,224, the one after it, and some between.
SIZES = [2, 8, 9, 10, 40, 72, 73, 100, 504, 505, 701, 1000, 1512, 1513, 2000, 3132, 3133, 5000]
SIZES += [10_000, 19_224, 19_225]


def least_of_all_pairs(rows):
    found = 9
    for start in range(0, len(rows), 1000):
        apart = cdist(rows[start : start + 1000], rows[start:], "hamming") * 9
        apart[np.arange(len(apart)), np.arange(len(apart))] = 9
        found = min(found, round(apart.min()))
    return found


@pytest.mark.parametrize("count", SIZES)
def test_least_distance_of_all_pairs(count):
    rows = codes.rows(count)
    assert rows.shape == (count, 9)
    expected = next(distance for limit, distance in TABLE if count <= limit)
    assert least_of_all_pairs(rows) == codes.least_distance(count) == expected


def parity(rows):
    """Return 0 for even permutations: from the number of their cycles."""
    left, cycles = np.ones(rows.shape, bool), np.zeros(len(rows), int)
    for start in range(9):
        new = left[:, start].copy()
        cycles += new
        point = np.full(len(rows), start)
        for _ in range(9):
            left[new, point[new]] = False
            point = rows[np.arange(len(rows)), point]
    return (9 - cycles) % 2


@pytest.mark.parametrize("count", [19_225, 100_000, 181_440])
def test_even_permutations_differ_in_three_places_or_more(count):
    rows = codes.rows(count)
    # Two that differ in two places differ by a transposition, which is odd.
    assert not parity(rows).any()
    assert len(np.unique(rows, axis=0)) == count


@pytest.mark.parametrize("count", [181_441, 362_880])
def test_all_permutations_each_once(count):
    assert np.array_equal(np.sort(codes.rows(count), 1), np.tile(np.arange(9), (count, 1)))
    assert len(np.unique(codes.rows(count), axis=0)) == count


def test_no_set_can_be_larger_than_the_bound():
    assert list(TABLE) == [(limit, distance) for distance, limit in codes.LIMITS.items()]
    for limit, distance in TABLE:
        bound = math.factorial(9) // math.factorial(distance - 1)
        assert limit == bound if distance in (9, 8, 7, 3, 2) else limit < bound


@pytest.mark.parametrize("order, transitive", [(72, 2), (504, 3), (1512, 3)])
def test_whole_groups(order, transitive):
    """AGL(1,9), PSL(2,8) and PGammaL(2,8): closed, and as often transitive as their orders tell."""
    rows = codes.rows(order)
    products = {row.tobytes() for row in rows[:, rows].reshape(-1, 9)}
    assert products == {row.tobytes() for row in rows} and len(products) == order
    images = {tuple(row[:transitive]) for row in rows}
    assert images == set(itertools.permutations(range(9), transitive))


@pytest.mark.parametrize("count", [*range(2, 100), 504, 701, 2000, 3023, 5000, 10_000, 19_225])
def test_no_set_is_further_apart_on_average(count):
    rows = codes.rows(count)
    # Equal tiles at a place are fewest where each of the nine is there as often as the others.
    often, more = divmod(count, 9)
    equal = 9 * (more * math.comb(often + 1, 2) + (9 - more) * math.comb(often, 2))
    held = sum(math.comb(int(n), 2) for place in rows.T for n in np.bincount(place, minlength=9))
    assert held == equal


def test_the_search_finds_the_codes_again():
    script = str(CHECKOUT / "benchmarks/search_codes.py")
    done = subprocess.run([sys.executable, script], capture_output=True, env=environment())
    assert done.returncode == 0, done.stderr.decode()
    sizes = [line for line in done.stdout.decode().splitlines() if line.startswith("distance")]
    assert sizes == ["distance 5: 3132 permutations", "distance 4: 19224 permutations"]
