"""The permutation set of the Jigsaw puzzle: rows far apart in Hamming distance, made and read."""

import math

import numpy as np

from ssl_common import formats, streams
from ssl_common.pretext import codes, greedy
from ssl_common.streams import DataError


def make(count, tiles=9, method="code", first=None, seed=0, progress=lambda done, total: None):
    """Make COUNT permutations of TILES tiles: int64 (COUNT, TILES), 0-based.

    Returns them, the METHOD that made them, and the least distance of two in places, or None where
    the method does not tell. code is for 9 tiles, and max-min in its place for others. FIRST is
    the first row, or None to draw it by SEED. Raises DataError where COUNT is above TILES!.
    """
    limit = math.factorial(tiles)
    if count > limit:
        raise DataError(f"{tiles} tiles have {limit:,} permutations: ask for -n {limit} or less")
    rng = np.random.default_rng(seed)
    drawn = greedy.lexicographic(tiles)[:, rng.integers(limit)]
    first = drawn if first is None else np.array(first, np.uint8)
    if method == "code" and tiles == codes.TILES:
        # Neither another order of the places nor other names of the tiles change a distance.
        rows = codes.rows(count)[:, rng.permutation(tiles)]
        rows, least = first[np.argsort(rows[0])][rows], codes.least_distance(count)
    else:
        method = "max-min" if method == "code" else method
        rows = greedy.select(count, first, method, progress)
        # The least distance of max-min falls row by row: it is that of the last one.
        least = (rows[:-1] != rows[-1]).sum(1).min(initial=tiles) if method == "max-min" else None
    return rows.astype(np.int64, order="C"), method, least


def histogram(permutations, progress=lambda done, total: None):
    """Return how many pairs of PERMUTATIONS (N, t) are 0, 1 ... t places apart, int64 (t + 1,)."""
    rows, tiles = permutations.shape
    columns = permutations.T.astype(np.min_scalar_type(tiles), order="C")
    counts = np.zeros(tiles + 1, np.int64)
    for k in range(1, rows):
        apart = (columns[:, :k] != columns[:, k, None]).sum(0, dtype=columns.dtype)
        counts += np.bincount(apart, minlength=tiles + 1)
        progress(k + 1, rows)
    return counts


def report(permutations, progress=lambda done, total: None):
    """Tell the distances of PERMUTATIONS (N, t): the text of --check, and the least distance.

    A line is a name, a TAB and a number: n, tiles, min, mean, and the pairs at each distance.
    """
    counts = histogram(permutations, progress)
    found = {distance: int(pairs) for distance, pairs in enumerate(counts) if pairs}
    rows, tiles = permutations.shape
    lines = {"n": rows, "tiles": tiles}
    if found:
        lines |= {"min": min(found), "mean": f"{mean_distance(permutations):.6f}"}
    lines |= {f"pairs {distance} apart": pairs for distance, pairs in found.items()}
    return "".join(f"{key}\t{value}\n" for key, value in lines.items()), min(found, default=None)


def mean_distance(permutations):
    """Return the mean Hamming distance of PERMUTATIONS (N, t), in places, over pairs of rows."""
    rows, tiles = permutations.shape
    pairs = math.comb(rows, 2)
    held = [math.comb(int(n), 2) for column in permutations.T for n in np.bincount(column)]
    return tiles - sum(held) / pairs if pairs else math.nan


def load(path):
    """Read permutations from the .npy file PATH; return int64 (N, t), 0-based.

    Takes whole numbers of any type, 0-based as make-permutations writes them or 1-based as the
    authors released some. Raises DataError naming the row that is not a permutation or stands
    twice; rows are counted from 0, as in the labels of the puzzle.
    """
    array, where = formats.PERMUTATIONS.read(path)["permutations"], streams.name(path)
    permutations = np.array(array, np.int64, order="C")
    base = 1 if permutations[0].min() == 1 else 0
    permutations -= base
    tiles = permutations.shape[1]
    wrong = (np.sort(permutations, 1) != np.arange(tiles)).any(1)
    if wrong.any():
        row = int(wrong.argmax())
        found = " ".join(map(str, array[row, :16]))
        what = f"not a permutation of {base} to {tiles - 1 + base}: {found}"
        raise DataError(f"{where}: row {row} is {what}; write it again by make-permutations")
    seen = {}
    for row, permutation in enumerate(permutations):
        first = seen.setdefault(permutation.tobytes(), row)
        if first != row:
            raise DataError(f"{where}: row {row} is row {first} again: delete it")
    return permutations
