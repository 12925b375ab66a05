"""The permutation set of the Jigsaw puzzle: rows far apart in Hamming distance, made and read."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ssl_common import formats, streams
from ssl_common.pretext import codes, greedy
from ssl_common.streams import DataError


def make(
    count: int,
    tiles: int = 9,
    method: str = "code",
    first: Sequence[int] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> tuple[np.ndarray, str, int | None]:
    """Make COUNT permutations of TILES tiles: int64 (COUNT, TILES), 0-based.

    Returns them, the METHOD that made them, and the least distance of two in places, or None where
    the method does not tell. code is for 9 tiles, and max-min in its place for others. FIRST is
    the first row, or None to draw it by SEED. Raises DataError where COUNT is above TILES!.
    """
    limit = math.factorial(tiles)
    if count > limit:
        raise DataError(f"{tiles} tiles have {limit:,} permutations: ask for -n {limit} or less")
    rng = np.random.default_rng(seed)
    start = greedy.lexicographic(tiles)[:, rng.integers(limit)]  # always, for what is drawn next
    start = start if first is None else np.array(first, np.uint8)
    least: int | None
    if method == "code" and tiles == codes.TILES:
        # Neither another order of the places nor other names of the tiles change a distance.
        rows = codes.rows(count)[:, rng.permutation(tiles)]
        rows, least = start[np.argsort(rows[0])][rows], codes.least_distance(count)
    else:
        method = "max-min" if method == "code" else method
        rows = greedy.select(count, start, method, progress)
        least = None
        if method == "max-min":  # the least distance falls row by row: it is that of the last one
            least = int((rows[:-1] != rows[-1]).sum(1).min(initial=tiles))
    return rows.astype(np.int64, order="C"), method, least


def histogram(
    permutations: np.ndarray, progress: Callable[[int, int], object] = lambda done, total: None
) -> np.ndarray:
    """Return how many pairs of PERMUTATIONS (N, t) are 0, 1 ... t places apart, int64 (t + 1,)."""
    rows, tiles = permutations.shape
    columns = permutations.T.astype(np.min_scalar_type(tiles), order="C")
    counts = np.zeros(tiles + 1, np.int64)
    for k in range(1, rows):
        apart = (columns[:, :k] != columns[:, k, None]).sum(0, dtype=columns.dtype)
        counts += np.bincount(apart, minlength=tiles + 1)
        progress(k + 1, rows)
    return counts


def report(
    permutations: np.ndarray, progress: Callable[[int, int], object] = lambda done, total: None
) -> tuple[str, int | None]:
    """Return the text of --check for PERMUTATIONS (N, t), and their least distance.

    A line is a name, a TAB and a number: n, tiles, min, mean, and the pairs at each distance.
    """
    counts = histogram(permutations, progress)
    pairs = {distance: int(number) for distance, number in enumerate(counts) if number}
    rows, tiles = permutations.shape
    lines: dict[str, object] = {"n": rows, "tiles": tiles}
    if pairs:
        lines |= {"min": min(pairs), "mean": f"{mean_distance(permutations):.6f}"}
    lines |= {f"pairs {distance} apart": number for distance, number in pairs.items()}
    return "".join(f"{key}\t{value}\n" for key, value in lines.items()), min(pairs, default=None)


def mean_distance(permutations: np.ndarray) -> float:
    """Return the mean Hamming distance of PERMUTATIONS (N, t), in places, over pairs of rows."""
    rows, tiles = permutations.shape
    pairs = math.comb(rows, 2)
    equal = [math.comb(int(n), 2) for column in permutations.T for n in np.bincount(column)]
    return tiles - sum(equal) / pairs if pairs else math.nan


def load(path: str) -> np.ndarray:
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
        values = " ".join(map(str, array[row, :16]))
        what = f"not a permutation of {base} to {tiles - 1 + base}: {values}"
        raise DataError(f"{where}: row {row} is {what}; write it again by make-permutations")
    row_of: dict[bytes, int] = {}
    for row, permutation in enumerate(permutations):
        first = row_of.setdefault(permutation.tobytes(), row)
        if first != row:
            raise DataError(f"{where}: row {row} is row {first} again: delete it")
    return permutations
