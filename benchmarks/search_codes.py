"""Search the cosets of which ssl_common/pretext/codes.py makes its codes at distances 5 and 4.

All cosets x G of a group are looked at, and of the sets of cosets those that are the powers of one
permutation b: G, b G, b^2 G ... or these and a G, b a G, b^2 a G ... Prints b, or b and a, the first
in lexicographic order (seconds).
"""

import sys

import numpy as np

from ssl_common.pretext import codes
from ssl_common.pretext.greedy import lexicographic

EVERY = lexicographic(codes.TILES).T.astype(np.intp)
PLACES = codes.TILES ** np.arange(codes.TILES)[::-1]
NUMBERS = EVERY @ PLACES  # ascending
IDENTITY = np.arange(codes.TILES)


def far(group, distance):
    """Return for EVERY x whether x GROUP is DISTANCE or more from GROUP.

    Elements g and x h differ where g^-1 x h moves a point, and so does its conjugate x h g^-1: x
    GROUP is near if x h moves few points for some h, or x = y h^-1 where y moves few.
    """
    few = EVERY[(EVERY != IDENTITY).sum(1) < distance]
    near = np.zeros(len(EVERY), bool)
    for element in group:
        near[rank(few[:, element])] = True
    return ~near


def rank(permutations):
    """Return where in EVERY the PERMUTATIONS stand."""
    return np.searchsorted(NUMBERS, permutations @ PLACES)


def cycles(is_far, length):
    """Yield each b, of order LENGTH, whose powers are representatives of cosets far apart."""
    power, good = EVERY, np.ones(len(EVERY), bool)
    for _ in range(1, length):
        good &= is_far[rank(power)]
        power = np.take_along_axis(EVERY, power, 1)
    yield from EVERY[good & (power == IDENTITY).all(1)]


def partners(is_far, b):
    """Return each a such that the powers of B, and these times a, represent cosets far apart."""
    inverse, good = np.argsort(EVERY, 1), np.ones(len(EVERY), bool)
    for power in codes.powers(b):
        moved = power[EVERY]
        good &= is_far[rank(moved)]
        if (power != IDENTITY).any():
            good &= is_far[rank(np.take_along_axis(inverse, moved, 1))]
    return EVERY[good]


def main():
    plane = codes.cosets(codes.general_linear(), codes.TRANSLATIONS)
    b = next(cycles(far(plane, 5), 7))
    sys.stdout.write(f"SEVEN = {b.tolist()}\n")
    line = far(codes.cosets(codes.affine(1, 2, 4), codes.powers(codes.SINGER)), 4)
    b, a = next((b, a) for b in cycles(line, 6) for a in partners(line, b))
    sys.stdout.write(f"SIX, OTHER = {b.tolist()}, {a.tolist()}\n")


if __name__ == "__main__":
    main()
