"""Search the orbits of which ssl_common/pretext/codes.py makes its codes at distances 5 and 4.

A tabu search takes as many permutations as it can, in whole orbits of a group (seconds).
Janiszczak, Lempken, Ostergard and Staszewski search such orbits exhaustively in "Permutation codes
invariant under isometries" (Designs, Codes and Cryptography 75, 2015).
"""

import sys

import numpy as np

from ssl_common.pretext import codes
from ssl_common.pretext.greedy import Distances, lexicographic

EVERY = lexicographic(codes.TILES).T.astype(np.intp)
PLACES = codes.TILES ** np.arange(codes.TILES)[::-1]
NUMBERS = EVERY @ PLACES  # ascending


def rank(permutations):
    """Return where in EVERY the PERMUTATIONS stand."""
    return np.searchsorted(NUMBERS, permutations @ PLACES)


def orbits(distance, turn):
    """Return of each orbit its first member and its size, and whether each two are too near.

    An orbit whose members are too near one another is left out.
    """
    label, firsts = np.full(len(EVERY), -1), []
    while (label < 0).any():
        firsts.append((label < 0).argmax())
        label[rank(codes.orbit(EVERY[firsts[-1]], turn))] = len(firsts) - 1
    order, sizes = np.argsort(label, kind="stable"), np.bincount(label)
    starts = np.cumsum(sizes) - sizes
    distances = Distances(EVERY.T.astype(np.uint8), 1)
    apart = []
    for first in firsts:
        places = np.zeros(len(EVERY), np.uint8)
        distances.combine(np.add, places, EVERY[first])
        places[first] = codes.TILES  # from itself
        apart.append(np.minimum.reduceat(places[order], starts))
    near = np.array(apart) < distance
    good = ~near.diagonal()
    return EVERY[firsts][good], sizes[good], near[good][:, good]


def largest(sizes, near, steps, seed=0):
    """Return the heaviest set of orbits that a tabu search finds; no two are NEAR."""
    rng = np.random.default_rng(seed)
    inside, barred_until = np.zeros(len(sizes), bool), np.zeros(len(sizes), int)
    best = inside.copy()
    for step in range(steps):
        gain = sizes - near @ (sizes * inside) + rng.random(len(sizes))
        gain[inside | (barred_until > step)] = -np.inf
        taken = gain.argmax()
        given_up = inside & near[taken]
        barred_until[given_up] = step + rng.integers(5, 15, given_up.sum())
        inside[taken], inside[given_up] = True, False
        if sizes[inside].sum() > sizes[best].sum():
            best = inside.copy()
    return best


def main():
    for distance, (turn, _) in codes.ORBITS.items():
        members, sizes, near = orbits(distance, turn)
        chosen = largest(sizes, near, 1000)
        words = ["".join(map(str, member)) for member in members[chosen]]
        sys.stdout.write(f"distance {distance}: {sizes[chosen].sum()} permutations\n")
        sys.stdout.writelines(" ".join(words[k : k + 9]) + "\n" for k in range(0, len(words), 9))


if __name__ == "__main__":
    main()
