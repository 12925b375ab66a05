"""Sets of permutations of 9 tiles with a known least distance: codes made from groups.

Two elements of a permutation group differ in as many places as their quotient moves, so a group
whose elements, save the identity, fix few points is a set of permutations far apart. So is a union
of orbits of a group that acts from both sides, if they are chosen well. Blake, Cohen and Deza,
"Coding with permutations" (Information and Control 43, 1979); Smith and Montemanni, "A new table of
permutation codes" (Designs, Codes and Cryptography 63, 2012); benchmarks/search_codes.py.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ssl_common.pretext.greedy import lexicographic

TILES = 9
# The least distance, and how many permutations have it here. No set has more than 9! / (d - 1)! at
# distance d, so 9, 8, 7, 3 and 2 reach as far as any can.
LIMITS = {9: 9, 8: 72, 7: 504, 6: 1512, 5: 3132, 4: 19_224, 3: 181_440, 2: 362_880}


def least_distance(count: int) -> int:
    """Return the least distance between two of rows(COUNT)."""
    return next(distance for distance, limit in LIMITS.items() if count <= limit)


def rows(count: int) -> np.ndarray:
    """Return COUNT permutations, (COUNT, 9), at least least_distance(COUNT) apart.

    They come in blocks of 9 of which any two differ in all places, so that each tile is at each
    place in COUNT / 9 rows, rounded up or down: no set has a greater mean distance.
    """
    heads, block = PARTS[least_distance(count)]()
    return heads[: -(-count // TILES)][:, block].reshape(-1, TILES)[:count]


def powers(permutation: Sequence[int]) -> np.ndarray:
    """Return the identity, PERMUTATION, and so on to the last of its powers."""
    maps = [list(range(len(permutation)))]
    while (following := [permutation[point] for point in maps[-1]]) != maps[0]:
        maps.append(following)
    return np.array(maps)


# ---- The affine plane over GF(3): point 3 x + y -------------------------------------------------

PLANE = [divmod(point, 3) for point in range(TILES)]
TRANSLATIONS = np.array([[(x + u) % 3 * 3 + (y + v) % 3 for x, y in PLANE] for u, v in PLANE])


def linear(a: int, b: int, c: int, d: int) -> list[int]:
    """Return the map (x, y) -> (a x + b y, c x + d y) of the plane, as a list of 9 points."""
    return [(a * x + b * y) % 3 * 3 + (c * x + d * y) % 3 for x, y in PLANE]


def multiplications() -> np.ndarray:
    """Return those of GF(9) = GF(3)[i], by powers of 1 + i; with the translations AGL(1, 9)."""
    return powers(linear(1, -1, 1, 1))


# ---- The projective line over GF(8): points 0 to 7 as polynomials, and 8, infinity --------------

POWERS = [1, 2, 4, 3, 6, 7, 5]  # of w, where w^3 = w + 1
INFINITY = 8


def times(a: int, b: int) -> int:
    """Return the product of A and B in GF(8), each 0 to 7."""
    return POWERS[(POWERS.index(a) + POWERS.index(b)) % 7] if a and b else 0


def affine(*automorphisms: int) -> np.ndarray:
    """Return the maps x -> a x^k + b, k in AUTOMORPHISMS (1, 2, 4), which fix infinity.

    With the powers of SINGER they are PSL(2, 8), 504 elements at distance 7, if k is 1 alone, and
    PGammaL(2, 8), 1,512 at distance 6, if k is 1, 2 or 4.
    """
    images: dict[int, Sequence[int]] = {1: range(8)}
    images[2] = [times(x, x) for x in images[1]]
    images[4] = [times(x, x) for x in images[2]]
    maps = itertools.product(automorphisms, POWERS, range(8))
    return np.array([[times(a, x) ^ b for x in images[k]] + [INFINITY] for k, a, b in maps])


# x -> 1 / (x + w), whose 9 powers move every point to every other.
SINGER = [5, 6, 8, 1, 3, 4, 7, 2, 0]

# ---- The codes ----------------------------------------------------------------------------------

# What benchmarks/search_codes.py found at two distances: the turn of orbit(), and a member of each
# orbit that is in the code.
ORBITS = {
    5: (
        linear(1, 1, 0, 1),
        """
        012345678 012457368 012534786 012678345 012786534 012867453 013458672 013476285 013672458
        013856724 014236758 014526387 015248637 015328476 016452783 016783452 036147258 064283175
        """,
    ),
    4: (
        linear(1, -1, 1, 1),
        """
        012345786 012368475 012376548 012387654 012436587 012437856 012438765 012468357 012476835
        012487563 012568743 012576384 012587436 012678345 012786534 012867453 013256784 013267845
        013278456 013284567 013458276 013465782 013487625 013564872 013652874 013725486 013742865
        013784652 013872654 014283657 014362785 014657238 015348672 016253847 016532784
        """,
    ),
}


def cosets(representatives: np.ndarray, elements: np.ndarray) -> np.ndarray:
    """Return the products x y, each x of REPRESENTATIVES by all y of ELEMENTS."""
    return np.asarray(representatives)[:, elements].reshape(-1, TILES)


def orbit(permutation: np.ndarray, turn: Sequence[int]) -> np.ndarray:
    """Return the images, some of them equal, of PERMUTATION x under a group of 81 k elements.

    They are t r^i x TURN^i u: t and u are translations, and r is a reflection of the plane.
    """
    left, right = powers(linear(1, 0, 0, -1)), powers(turn)
    products = [
        left[i % len(left)][permutation][right[i % len(right)]]
        for i in range(math.lcm(len(left), len(right)))
    ]
    return cosets(cosets(TRANSLATIONS, np.array(products)), TRANSLATIONS)


def orbit_heads(turn: Sequence[int], members: str) -> np.ndarray:
    """Return the heads of the union of the orbits of MEMBERS, a text of permutations, (n, 9)."""
    images = np.vstack([orbit(np.array(list(map(int, x))), turn) for x in members.split()])
    return np.unique(images[images[:, 0] == 0], axis=0)  # one of each block, each block once


def fixing_zero() -> np.ndarray:
    """Return the 8! permutations that leave 0 where it is, (40320, 9)."""
    rest = lexicographic(TILES - 1) + 1
    return np.vstack([np.zeros(rest.shape[1], np.uint8), rest]).T


def even(permutations: np.ndarray) -> np.ndarray:
    """Return those of PERMUTATIONS (N, 9) that are made of an even number of swaps."""
    inversions = [a > b for a, b in itertools.combinations(permutations.T, 2)]
    return permutations[np.logical_xor.reduce(inversions) == 0]


# For each least distance a block of 9 and the heads whose products with it are the code. If the
# block is a group in which every point goes to every other, they may be the elements that fix one.
PARTS = {
    9: lambda: (np.arange(TILES)[None], TRANSLATIONS),
    8: lambda: (multiplications(), TRANSLATIONS),
    7: lambda: (affine(1), powers(SINGER)),
    6: lambda: (affine(1, 2, 4), powers(SINGER)),
    5: lambda: (orbit_heads(*ORBITS[5]), TRANSLATIONS),
    4: lambda: (orbit_heads(*ORBITS[4]), TRANSLATIONS),
    3: lambda: (even(fixing_zero()), TRANSLATIONS),
    2: lambda: (fixing_zero(), TRANSLATIONS),
}
