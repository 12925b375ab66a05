"""Greedy selections of permutations, by their mean or their least distance.

Noroozi and Favaro (ECCV 2016), algorithm 1; Goyal et al., section 3.1: |P| of the 9! permutations,
"maximal average" or "maximal minimum" distance.
"""

from collections.abc import Callable

import numpy as np

PIECE = 400  # blocks of candidates, of 120 each


def select(
    count: int,
    first: np.ndarray,
    method: str,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> np.ndarray:
    """Select COUNT permutations, of which the first is FIRST; return uint8 (COUNT, tiles).

    Each next one is the candidate whose mean distance (max-avg) or least distance (max-min) to
    the rows selected so far is greatest; of equals, the first in lexicographic order. The means of
    max-avg are rounded as in the published script, so that ties end as in the released files: the
    distances, as fractions of the tiles in float64, are added up in the order of selection.
    """
    candidates = lexicographic(len(first))
    least = method == "max-min"
    distances = Distances(candidates, 1 if least else 1 / len(first))
    worth = np.full(candidates.shape[1], len(first) if least else 0, distances.table.dtype)
    rows = np.empty((count, len(first)), np.uint8)
    best = (candidates == np.array(first)[:, None]).all(0).argmax()
    for k in range(count):
        rows[k] = candidates[:, best]
        # Only the newest row is compared: the other distances are in the running sum or minimum.
        if least:
            distances.combine(np.minimum, worth, rows[k])
            best = int(worth.argmax())  # the first of equals; the rows before are at distance 0
        else:
            distances.combine(np.add, worth, rows[k])
            worth[best] = -np.inf
            best = first_mean(worth, k + 1)
        progress(k + 1, count)
    return rows


def first_mean(sums: np.ndarray, count: int) -> int:
    """Return where SUMS / COUNT is greatest, the first of equals; divide only the greatest."""
    best = sums.argmax()
    mean, lowest = sums[best] / count, sums[best]
    while (below := np.nextafter(lowest, 0)) / count == mean:
        lowest = below  # a smaller sum whose mean is rounded to the same
    return int(best if lowest == sums[best] else (sums >= lowest).argmax())


def lexicographic(tiles: int) -> np.ndarray:
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


class Distances:
    """The distances of permutations to all CANDIDATES in lexicographic order, in units of UNIT.

    A block of candidates has one head, and then all orders of the values left, the tail. How far
    these orders are from a permutation is told by where its last values stand among those left: by
    one of few codes, which stands for a row of a table. So a block costs one look-up, not a
    comparison of each of its candidates.
    """

    def __init__(self, candidates: np.ndarray, unit: float):
        tiles, tail = len(candidates), min(5, len(candidates))
        orders = lexicographic(tail)
        blocks = candidates[:, :: orders.shape[1]].astype(np.intp)  # their tails are sorted
        # A code has one digit for each place of the tail, in base tail + 1: the rank of the value
        # among those left, or TAIL where it is in the head. Before them stand the equal places of
        # the head.
        base = tail + 1
        codes = np.indices((base,) * tail, np.uint8).reshape(tail, -1, 1)
        equal = (codes == orders[:, None]).sum(0, dtype=np.uint8)
        heads = np.arange(tiles - tail + 1, dtype=np.uint8)[:, None, None]
        self.table = ((tiles - heads - equal) * unit).reshape(-1, orders.shape[1])
        rank = np.full(blocks.shape, tail)
        np.put_along_axis(rank, blocks[-tail:], np.arange(tail)[:, None], 0)
        # What each value (axis 1) at each place (axis 0) adds to the code of each block (axis 2).
        same = (blocks[:-tail, None] == np.arange(tiles)[:, None]) * base**tail
        digits = rank * base ** np.arange(tail)[::-1, None, None]
        self.parts = np.concatenate([same, digits])

    def combine(self, function: np.ufunc, worth: np.ndarray, permutation: np.ndarray) -> None:
        """Make WORTH[i] the FUNCTION, as np.minimum, of it and candidate i's distance, in place."""
        codes = self.parts[np.arange(len(permutation)), permutation].sum(0)
        worth = worth.reshape(len(codes), -1)
        # A piece of the distances is still in the processor's cache when it is used.
        for start in range(0, len(codes), PIECE):
            piece = worth[start : start + PIECE]
            function(piece, self.table.take(codes[start : start + PIECE], 0), out=piece)
