"""Search the representatives from which ssl_common/pretext/codes.py makes its codes (seconds).

At distance 5: cosets of AGL(2, 3), of which those of the powers of one permutation are tried, and
the first in lexicographic order is printed. At distance 4: the orbits of a group, of which a tabu
search takes as many permutations as it can. Janiszczak, Lempken, Ostergard and Staszewski search
codes in such orbits in "Permutation codes invariant under isometries" (2015).
"""

import sys

import numpy as np

from ssl_common.pretext import codes
from ssl_common.pretext.greedy import Distances, lexicographic

EVERY = lexicographic(codes.TILES).T.astype(np.intp)
IDENTITY = np.arange(codes.TILES)
PLACES = codes.TILES ** np.arange(codes.TILES)[::-1]
NUMBERS = EVERY @ PLACES  # ascending


def rank(permutations):
    """Return where in EVERY the PERMUTATIONS stand."""
    return np.searchsorted(NUMBERS, permutations @ PLACES)


def far(group, distance):
    """Return for EVERY x whether x GROUP is DISTANCE or more from GROUP.

    Elements g and x h differ where g^-1 x h moves a point, and so does its conjugate x h g^-1: x
    GROUP is near if x = y h for some h and a y that moves few points.
    """
    few = EVERY[(EVERY != IDENTITY).sum(1) < distance]
    found = np.ones(len(EVERY), bool)
    for element in group:
        found[rank(few[:, element])] = False
    return found


def cycle(is_far, length):
    """Return the first b, of order LENGTH, whose powers are representatives of cosets far apart."""
    power, good = EVERY, np.ones(len(EVERY), bool)
    for _ in range(1, length):
        good &= is_far[rank(power)]
        power = np.take_along_axis(EVERY, power, 1)
    return EVERY[(good & (power == IDENTITY).all(1)).argmax()]


def orbits(distance):
    """Return of each orbit its first member and its size, and whether each two are too near.

    An orbit whose members are too near one another is left out.
    """
    label, firsts = np.full(len(EVERY), -1), []
    while (label < 0).any():
        firsts.append((label < 0).argmax())
        label[rank(codes.orbit(EVERY[firsts[-1]]))] = len(firsts) - 1
    order, sizes = np.argsort(label, kind="stable"), np.bincount(label)
    starts = np.cumsum(sizes) - sizes
    distances = Distances(EVERY.T.astype(np.uint8), 1)
    apart = []
    for first in firsts:
        places = distances.to(EVERY[first])
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
    plane = codes.cosets(codes.general_linear(), codes.TRANSLATIONS)
    sys.stdout.write(f"SEVEN = {cycle(far(plane, 5), 7).tolist()}\n")
    members, sizes, near = orbits(4)
    chosen = largest(sizes, near, 1000)
    digits = ["".join(map(str, member)) for member in members[chosen]]
    sys.stdout.write(f"ORBITS, {sizes[chosen].sum()} permutations:\n")
    sys.stdout.writelines(" ".join(digits[k : k + 9]) + "\n" for k in range(0, len(digits), 9))


if __name__ == "__main__":
    main()
