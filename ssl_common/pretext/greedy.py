"""The greedy selections of permutations: far apart on average, or at least.

Noroozi and Favaro (ECCV 2016), algorithm 1; Goyal et al., section 3.1: |P| of the 9! permutations,
"maximal average" or "maximal minimum" distance.
"""

import numpy as np


def select(count, first, method, progress=lambda done, total: None):
    """Select COUNT permutations, of which the first is FIRST; return uint8 (COUNT, tiles).

    Each next one is the candidate whose mean distance (max-avg) or least distance (max-min) to
    those chosen so far is greatest; of equals, the first in lexicographic order. The means of
    max-avg are rounded as in the published script, so that ties end as in the released files: the
    distances, as fractions of the tiles in float64, are added up in the order of selection.
    """
    candidates = lexicographic(len(first))
    least = method == "max-min"
    distances = Distances(candidates, 1 if least else 1 / len(first))
    worth = np.full(candidates.shape[1], len(first) if least else 0, distances.table.dtype)
    chosen = np.empty((count, len(first)), np.uint8)
    best = (candidates == np.array(first)[:, None]).all(0).argmax()
    for k in range(count):
        chosen[k] = candidates[:, best]
        # Only the newest row is compared: the other distances are in the running sum or minimum.
        if least:
            np.minimum(worth, distances.to(chosen[k]), out=worth)
            best = worth.argmax()  # the first of equals; those chosen are at distance 0
        else:
            worth += distances.to(chosen[k])
            worth[best] = -np.inf
            best = first_mean(worth, k + 1)
        progress(k + 1, count)
    return chosen


def first_mean(sums, count):
    """Return where SUMS / COUNT is greatest, the first of equals; divide only the greatest."""
    best = sums.argmax()
    mean, lowest = sums[best] / count, sums[best]
    while (below := np.nextafter(lowest, 0)) / count == mean:
        lowest = below  # a smaller sum whose mean is rounded to the same
    return best if lowest == sums[best] else (sums >= lowest).argmax()


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


class Distances:
    """Distances, in units of UNIT, of one permutation to all CANDIDATES in lexicographic order.

    A block of candidates has one head, and then all orders of the values left, the tail. How far
    these orders are from a permutation is told by where its last values stand among those left: by
    one of few codes, which stands for a row of a table. So a block costs one look-up, not a
    comparison of each of its candidates.
    """

    def __init__(self, candidates, unit):
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
        self.found = np.empty((blocks.shape[1], orders.shape[1]), self.table.dtype)

    def to(self, permutation):
        """Return the distances of PERMUTATION; they stand until the next call."""
        codes = self.parts[np.arange(len(permutation)), permutation].sum(0)
        self.table.take(codes, 0, out=self.found, mode="clip")  # the mode that needs no copy
        return self.found.ravel()
