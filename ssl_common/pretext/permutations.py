"""The permutation set of the Jigsaw puzzle: far apart in Hamming distance, chosen greedily.

Noroozi and Favaro (ECCV 2016), algorithm 1; Goyal et al., section 3.1: |P| of the 9! permutations,
"maximal average" or "maximal minimum" distance.
"""

import math

import numpy as np

from ssl_common.streams import DataError, name, read_array

METHODS = {"max-avg": np.add, "max-min": np.minimum}  # how distances to the chosen rows combine
TAKEN = np.iinfo(np.int32).min // 2  # stays below every distance, whatever is added


def select(count, tiles=9, method="max-avg", seed=0, progress=lambda done, total: None):
    """Select COUNT permutations of TILES tiles; return int64 (COUNT, TILES), 0-based.

    The first one is drawn by SEED. Each next one is the candidate whose mean distance (max-avg) or
    least distance (max-min) to those chosen so far is greatest; of equals, the first in
    lexicographic order. Distances are numbers of places, summed as integers, so ties are exact.
    Raises DataError where COUNT is above TILES!.
    """
    limit = math.factorial(tiles)
    if count > limit:
        raise DataError(f"{tiles} tiles have {limit:,} permutations: ask for -n {limit} or less")
    candidates = lexicographic(tiles)
    combine = METHODS[method]
    # The sum of distances ranks the candidates as their mean does.
    distance = np.full(limit, 0 if combine is np.add else tiles, np.int32)
    chosen = np.empty(count, np.int64)
    best = np.random.default_rng(seed).integers(limit)
    for k in range(count):
        chosen[k] = best
        # Only the newest row is compared: the other distances are in the running sum or minimum.
        moved = (candidates != candidates[:, best, None]).sum(0, dtype=np.uint8)
        combine(distance, moved, out=distance)
        distance[best] = TAKEN
        best = distance.argmax()  # the first of equals
        progress(k + 1, count)
    return candidates[:, chosen].T.astype(np.int64, order="C")


def lexicographic(tiles):
    """Return all permutations of TILES tiles in lexicographic order, uint8 (TILES, TILES!).

    A column is a permutation: each place lies together in memory, and is compared in one sweep.
    """
    if tiles == 1:
        return np.zeros((1, 1), np.uint8)
    rest = lexicographic(tiles - 1)
    blocks = []
    for first in range(tiles):  # the others keep their order, and step over FIRST
        head = np.full((1, rest.shape[1]), first, np.uint8)
        blocks.append(np.vstack([head, rest + (rest >= first)]))
    return np.hstack(blocks)


def mean_distance(permutations):
    """Return the mean Hamming distance of PERMUTATIONS (N, t), in places, over pairs of rows."""
    rows, tiles = permutations.shape
    pairs = math.comb(rows, 2)
    held = [math.comb(int(n), 2) for column in permutations.T for n in np.bincount(column)]
    return tiles - sum(held) / pairs if pairs else math.nan


def load(path):
    """Read permutations from the .npy file PATH; return int64 (N, t), 0-based.

    Takes int32, int64 and uint8, 0-based as make-permutations writes them or 1-based as the
    authors released some. Raises DataError naming the row that is not a permutation or stands
    twice; rows are counted from 0, as in the labels of the puzzle.
    """
    array = read_array(path)
    if array.ndim != 2 or not array.size:
        raise DataError(f"{name(path)}: shape {array.shape}: permutations are (N, tiles)")
    if array.dtype.newbyteorder("=") not in (np.int32, np.int64, np.uint8):
        raise DataError(f"{name(path)}: {array.dtype}: permutations are int64, int32 or uint8")
    permutations = np.array(array, np.int64, order="C")
    base = 1 if permutations[0].min() == 1 else 0
    permutations -= base
    tiles = permutations.shape[1]
    wrong = (np.sort(permutations, 1) != np.arange(tiles)).any(1)
    if wrong.any():
        row = int(wrong.argmax())
        found = " ".join(map(str, array[row, :16]))
        what = f"not a permutation of {base} to {tiles - 1 + base}: {found}"
        raise DataError(f"{name(path)}: row {row} is {what}; write it again by make-permutations")
    seen = {}
    for row, permutation in enumerate(permutations):
        first = seen.setdefault(permutation.tobytes(), row)
        if first != row:
            raise DataError(f"{name(path)}: row {row} is row {first} again: delete it")
    return permutations
