"""Sets of permutations of 9 tiles whose least distance is known: codes made of groups.

Two elements of a permutation group differ in as many places as their quotient moves, so a group
whose elements, save the identity, fix few points is a set of permutations far apart. So are unions
of its cosets, if these are chosen well. Blake, Cohen and Deza, "Coding with permutations"
(Information and Control 43, 1979); best sizes known: Smith and Montemanni, "A new table of
permutation codes" (Designs, Codes and Cryptography 63, 2012).
"""

import itertools

import numpy as np

from ssl_common.pretext.greedy import lexicographic

TILES = 9
# The least distance, and how many permutations have it here. No set has more than 9! / (d - 1)! at
# distance d, so 9, 8, 7, 3 and 2 reach as far as any can.
LIMITS = {9: 9, 8: 72, 7: 504, 6: 1512, 5: 3024, 4: 18_144, 3: 181_440, 2: 362_880}


def least_distance(count):
    """Return the distance that any two of rows(COUNT) have at least."""
    return next(distance for distance, limit in LIMITS.items() if count <= limit)


def rows(count):
    """Return COUNT permutations, (COUNT, 9), at least least_distance(COUNT) apart.

    They come in blocks of 9 of which any two differ in all places, so that each tile is at each
    place in COUNT / 9 rows, rounded up or down: no set has a greater mean distance.
    """
    heads, block = PARTS[least_distance(count)]()
    return heads[: -(-count // TILES)][:, block].reshape(-1, TILES)[:count]


def powers(permutation):
    """Return the identity, PERMUTATION, and so on to the last of its powers."""
    found = [list(range(len(permutation)))]
    while (following := [permutation[point] for point in found[-1]]) != found[0]:
        found.append(following)
    return np.array(found)


# ---- The affine plane over GF(3): point 3 x + y -------------------------------------------------

PLANE = [divmod(point, 3) for point in range(TILES)]
TRANSLATIONS = np.array([[(x + u) % 3 * 3 + (y + v) % 3 for x, y in PLANE] for u, v in PLANE])


def linear(a, b, c, d):
    return [(a * x + b * y) % 3 * 3 + (c * x + d * y) % 3 for x, y in PLANE]


def general_linear():
    """GL(2, 3), 48 elements; with the translations AGL(2, 3), 432 at distance 6."""
    matrices = itertools.product(range(3), repeat=4)
    return np.array([linear(*m) for m in matrices if (m[0] * m[3] - m[1] * m[2]) % 3])


def multiplications():
    """Multiplications in GF(9) = GF(3)[i], powers of 1 + i; with the translations AGL(1, 9)."""
    return powers(linear(1, -1, 1, 1))


# ---- The projective line over GF(8): points 0 to 7 as polynomials, and 8, infinity --------------

POWERS = [1, 2, 4, 3, 6, 7, 5]  # of w, where w^3 = w + 1
INFINITY = 8


def times(a, b):
    return POWERS[(POWERS.index(a) + POWERS.index(b)) % 7] if a and b else 0


def affine(*automorphisms):
    """The maps x -> a x^k + b, k in AUTOMORPHISMS (1, 2, 4 of GF(8)), which fix infinity.

    With the powers of SINGER they are PSL(2, 8), 504 elements at distance 7, if k is 1 alone, and
    PGammaL(2, 8), 1,512 at distance 6, if k is 1, 2 or 4.
    """
    images = {1: range(8)}
    images[2] = [times(x, x) for x in images[1]]
    images[4] = [times(x, x) for x in images[2]]
    maps = itertools.product(automorphisms, POWERS, range(8))
    return np.array([[times(a, x) ^ b for x in images[k]] + [INFINITY] for k, a, b in maps])


# x -> 1 / (x + w), whose 9 powers move every point to every other.
SINGER = [5, 6, 8, 1, 3, 4, 7, 2, 0]

# ---- The codes: the elements that fix one point, or a coset of them, and the block --------------

# Found by benchmarks/search_codes.py: the cosets of AGL(2, 3) by the powers of SEVEN are at
# distance 5, those of PGammaL(2, 8) by the powers of SIX, and these times OTHER, at distance 4.
SEVEN = [0, 1, 3, 4, 8, 6, 7, 2, 5]
SIX, OTHER = [0, 1, 2, 4, 5, 8, 3, 6, 7], [0, 1, 2, 3, 4, 6, 8, 5, 7]


def cosets(representatives, elements):
    return np.asarray(representatives)[:, elements].reshape(-1, TILES)


def fixing_zero(even):
    """All permutations that fix tile 0, or the even ones: with the translations, all or A(9)."""
    rest = lexicographic(TILES - 1) + 1
    pairs = itertools.combinations(rest, 2)
    keep = sum((a > b).view(np.uint8) for a, b in pairs) % 2 <= 1 - even
    return np.vstack([np.zeros(rest.shape[1], np.uint8), rest]).T[keep]


PARTS = {
    9: lambda: (np.arange(TILES)[None], TRANSLATIONS),
    8: lambda: (multiplications(), TRANSLATIONS),
    7: lambda: (affine(1), powers(SINGER)),
    6: lambda: (affine(1, 2, 4), powers(SINGER)),
    5: lambda: (cosets(powers(SEVEN), general_linear()), TRANSLATIONS),
    4: lambda: (
        cosets([*powers(SIX), *powers(SIX)[:, OTHER]], affine(1, 2, 4)),
        powers(SINGER),
    ),
    3: lambda: (fixing_zero(even=True), TRANSLATIONS),
    2: lambda: (fixing_zero(even=False), TRANSLATIONS),
}
