"""The objects of generated scenes: solids with skins, drawn from a generator.

An object stands at the origin of its own frame, y up; its length runs along x, its front to -z. A
class is parts in an arrangement; what they are made of is drawn for each object.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssl_common.scenes.materials import (
    any_colour,
    any_material,
    bands,
    leaves,
    with_windows,
)
from ssl_common.scenes.rendering import (
    CUBE,
    CYLINDER,
    SPHERE,
    Faces,
    Shape,
    Skin,
    Solid,
)

Point = Sequence[float] | np.ndarray  # x, y, z in metres

# ---- Solids -----------------------------------------------------------------------------------


def rotation(axis: int, angle: float) -> np.ndarray:
    """Return the rotation by ANGLE around axis 0, 1 or 2."""
    c, s = np.cos(angle), np.sin(angle)
    return np.roll([[1, 0, 0], [0, c, -s], [0, s, c]], (axis, axis), (0, 1))


def bar(start: Point, end: Point, radius: float, skin: Skin, shape: Shape = CYLINDER) -> Solid:
    """Return a round bar from START to END."""
    start, end = np.array(start, float), np.array(end, float)
    way = end - start
    y = way / np.linalg.norm(way)
    x = np.cross(y, [0.0, 0.0, 1.0] if abs(y[2]) < 0.9 else [1.0, 0.0, 0.0])
    x /= np.linalg.norm(x)
    turn = np.stack([x, y, np.cross(x, y)], axis=1)
    size = (radius, np.linalg.norm(way) / 2, radius)
    return Solid(shape, (start + end) / 2, size, skin, turn)


def block(centre: Point, size: Point, skin: Skin, shape: Shape = CUBE, **more: Any) -> Solid:
    """Return a solid around CENTRE of whole SIZE (x, y, z)."""
    return Solid(shape, centre, np.array(size) / 2, skin, **more)


def ellipsoid(centre: Point, size: Point, skin: Skin, **more: Any) -> Solid:
    """Return an ellipsoid around CENTRE of whole SIZE (x, y, z)."""
    return Solid(SPHERE, centre, np.array(size) / 2, skin, **more)


def prism(lines: Sequence[Sequence[float]]) -> Faces:
    """Return the solid from z = -1 to 1 with the sides a x + b y <= 1 for LINES (a, b)."""
    return Faces([*[(a, b, 0) for a, b in lines], (0, 0, 1), (0, 0, -1)])


GABLE = prism([(0, -1), (2, 1), (-2, 1)])  # a roof: the ridge runs along z
CABIN = prism([(0, -1), (0, 1), (1.25, 0.25), (-1.15, 0.15)])
SAIL = prism([(0, -1), (-1, 0), (6.7, 5.7)])
HULL = Faces(
    [(0, 1, 0), (0, -1, 0), (1.15, -0.2, 0), (-1.05, -0.05, 0)]
    + [(1.2, -0.3, s) for s in (1, -1)]
    + [(0, -0.4, s) for s in (1, -1)]
)
ANGLES = np.arange(8) * np.pi / 4
CONE = Faces([(0, -1, 0), *[(2 * np.cos(a), 1, 2 * np.sin(a)) for a in ANGLES]])

# ---- The classes ------------------------------------------------------------------------------


def house(rng: np.random.Generator) -> list[Solid]:
    width, depth, height = rng.uniform(6, 11), rng.uniform(5, 8), rng.uniform(2.7, 5.4)
    rise, floors = rng.uniform(0.3, 0.6) * depth, 1 if height < 3.8 else 2
    wall, roof, door, stack = (any_material(rng, height) for _ in range(4))
    wall = with_windows(
        wall, any_colour(rng), any_colour(rng), width / rng.integers(3, 6), height / floors
    )
    chimney = (0.28 * width, height + 0.8 * rise, 0.1 * depth)
    return [
        block((0, height / 2, 0), (width, height, depth), wall),
        block((0, height + rise / 2, 0), (depth + 1, rise, width + 0.8), roof, GABLE,
              turn=rotation(1, np.pi / 2)),
        block(chimney, (0.8, rise, 0.8), stack),
        block((rng.uniform(-0.3, 0.3) * width, 1.05, -depth / 2), (1.1, 2.1, 0.2), door),
    ]  # fmt: skip


def tree(rng: np.random.Generator) -> list[Solid]:
    height = rng.uniform(4, 11)
    bark, crown = any_material(rng, height), any_material(rng, height)
    if rng.random() < 0.35:  # a conifer
        wide, cut = height * rng.uniform(0.32, 0.45), leaves(-1.3, 0.06)
        tiers = [(0.12, 0.55, 1.0), (0.35, 0.75, 0.78), (0.58, 1.0, 0.52)]
        return [bar((0, 0, 0), (0, height * 0.5, 0), height * 0.03, bark)] + [
            block((0, height * (low + top) / 2, 0), (wide * w, height * (top - low), wide * w),
                  crown, CONE, cut=cut)
            for low, top, w in tiers
        ]  # fmt: skip
    share = rng.uniform(0.5, 0.72)
    size, middle = height * share, height * (1 - share / 2)
    parts = [bar((0, 0, 0), (0, middle, 0), height * rng.uniform(0.03, 0.05), bark)]
    for _ in range(rng.integers(4, 7)):
        offset = rng.uniform(-0.32, 0.32, 3) * size
        clump = size * rng.uniform(0.45, 0.7) * np.array([1.15, 0.9, 1.15])
        parts.append(ellipsoid((0, middle, 0) + offset, clump, crown, cut=leaves(-1.1, 0.06)))
    return parts


def car(rng: np.random.Generator) -> list[Solid]:
    length, width, low = rng.uniform(3.7, 4.7), 1.75, rng.uniform(0.25, 0.32)
    high = low + rng.uniform(0.5, 0.62)
    top = high + rng.uniform(0.45, 0.75)
    body, tyre = any_material(rng, length), any_material(rng, 0.62)
    glass, lamps, rim = (any_colour(rng) for _ in range(3))

    def shell(p, n, blur):
        """Doors, lights and bumpers."""
        end = np.abs(n[0]) > 0.7
        lamp = end & (np.abs(np.abs(p[2]) - 0.62) < 0.16) & (np.abs(p[1] - 0.06) < 0.09)
        seam = ~end & (np.abs(np.abs(p[0] + 0.1) - 0.5) < 0.02)
        albedo = np.where(seam | (p[1] < -0.2), 0.4, 1) * body(p, n, blur)
        return np.where(lamp, lamps, albedo)

    def cabin(p, n, blur):
        """Glass between pillars under a roof."""
        pillar = (np.abs(p[0] + 0.05) < 0.05) & (np.abs(n[2]) > 0.7)
        return np.where((n[1] > 0.9) | pillar | (p[1] < -0.2), body(p, n, blur), glass)

    def wheel(p, n, blur):
        return np.where(np.hypot(p[0], p[2]) < 0.19, rim, tyre(p, n, blur))

    return [
        block((0, (low + high) / 2, 0), (length, high - low, width), shell),
        block((-0.15, (high + top) / 2, 0), (length * 0.62, top - high, width * 0.9), cabin, CABIN),
    ] + [
        block((x * length * 0.31, 0.31, z * (width / 2 - 0.1)), (0.62, 0.24, 0.62), wheel, CYLINDER,
              turn=rotation(0, np.pi / 2))
        for x in (-1, 1) for z in (-1, 1)
    ]  # fmt: skip


def cow(rng: np.random.Generator) -> list[Solid]:
    hide, pale, horn = (any_material(rng, 2.0) for _ in range(3))
    head = (1.25, 0.45, 0) if rng.random() < 0.5 else (1.3, 1.5, 0)  # it grazes, or looks up
    parts = [
        ellipsoid((0, 1.05, 0), (2.0, 0.85, 0.75), hide),
        bar((0.7, 1.15, 0), head, 0.17, hide),
        ellipsoid(head, (0.55, 0.34, 0.3), hide, turn=rotation(2, -0.7)),
        ellipsoid(np.add(head, (0.19, -0.16, 0)), (0.24, 0.2, 0.22), pale),
        bar((-0.95, 1.2, 0), (-1.05, 0.5, 0), 0.035, hide),
        bar(np.add(head, (-0.1, 0.1, -0.28)), np.add(head, (-0.1, 0.1, 0.28)), 0.05, horn, SPHERE),
    ]
    for x, z in ((0.62, 0.2), (0.55, -0.2), (-0.62, 0.2), (-0.7, -0.2)):
        step = rng.uniform(-0.12, 0.12)
        parts.append(bar((x, 0.95, z), (x + step, 0, z), 0.095, hide))
    return parts


def person(rng: np.random.Generator) -> list[Solid]:
    shirt, trousers, shoe = (any_material(rng, 1.0) for _ in range(3))
    skin, hair = any_material(rng, 0.5), any_material(rng, 0.5)
    step, swing = rng.uniform(0, 0.28), rng.uniform(-0.3, 0.5)
    parts = [
        ellipsoid((0, 1.2, 0), (0.3, 0.72, 0.44), shirt),
        block((0, 1.12, 0), (0.24, 0.42, 0.34), shirt, CYLINDER),
        bar((0, 1.4, 0), (0, 1.6, 0), 0.06, skin),
        ellipsoid((0, 1.66, 0), (0.21, 0.26, 0.19), skin),
        ellipsoid((-0.02, 1.71, 0), (0.24, 0.21, 0.215), hair),
    ]
    for side in (-1, 1):
        foot = (side * step, 0.06, side * 0.1)
        hand = (side * 0.6 * swing, 0.85 + 0.3 * abs(swing), side * 0.3)
        parts += [
            bar((0, 0.95, side * 0.09), foot, 0.085, trousers),
            ellipsoid(np.add(foot, (0.06, -0.01, 0)), (0.28, 0.1, 0.11), shoe),
            bar((0, 1.42, side * 0.21), hand, 0.055, shirt),
            ellipsoid(hand, (0.11, 0.14, 0.1), skin),
        ]
    return parts


def ball(rng: np.random.Generator) -> list[Solid]:
    one, other = any_colour(rng), any_colour(rng)
    skin = [
        bands([one, other] * 3, lambda p, n: np.arctan2(p[2], p[0]) * 3 / np.pi, 0.02),
        bands([one, other], lambda p, n: 0.7 + 0.6 * np.sin(p * 4.5).prod(0), 0.03),
        any_material(rng, 2.0),
    ][rng.integers(3)]
    turn = rotation(0, rng.uniform(-1, 1)) @ rotation(2, rng.uniform(-1, 1))
    return [ellipsoid((0, 1, 0), (2, 2, 2), skin, turn=turn)]


def boat(rng: np.random.Generator) -> list[Solid]:
    length = rng.uniform(4, 9)
    wide, high = length * 0.32, length * rng.uniform(0.14, 0.2)
    parts = [block((0, high * 0.4, 0), (length, high, wide), any_material(rng, length), HULL)]
    upper, wood = any_material(rng, length), any_material(rng, length)
    if rng.random() < 0.65:  # under sail
        top, foot = length * rng.uniform(0.9, 1.3), (0.1 * length, 0.6 * high, 0)
        mast = bar(foot, (foot[0], top, 0), length * 0.015, wood)
        for x, wide, tall, turn in ((-0.16, 0.48, 0.85, np.pi), (0.29, 0.3, 0.7, 0)):
            centre, size = (x * length, high + tall * top / 2, 0), (wide * length, tall * top, 0.06)
            parts.append(block(centre, size, upper, SAIL, turn=rotation(1, turn)))
        return [*parts, mast]
    wall = with_windows(upper, any_colour(rng), any_colour(rng), 0.9, high * 1.1)
    cabin = (length * 0.4, high * 1.1, wide * 0.6)
    return [*parts, block((-0.1 * length, high * 1.4, 0), cabin, wall)]


def fence(rng: np.random.Generator) -> list[Solid]:
    length, height = rng.uniform(3, 6), rng.uniform(0.9, 1.4)
    boards, stakes = any_material(rng, height), any_material(rng, height)
    rails, pitch = rng.random() < 0.5, rng.uniform(0.18, 0.3)

    def gaps(p, blur):
        beam = np.abs(np.abs(p[1]) - height * 0.25) < 0.06
        if rails:
            return ~(beam | (np.abs(p[1]) < 0.06))
        return ~(beam | (np.mod(p[0], pitch) < 0.62 * pitch))

    parts = [block((0, height / 2, 0), (length, height, 0.06), boards, cut=gaps)]
    posts = np.linspace(-length / 2, length / 2, int(length / 2) + 1)
    return parts + [
        block((x, height * 0.54, 0.06), (0.13, height * 1.08, 0.13), stakes) for x in posts
    ]


def rock(rng: np.random.Generator) -> list[Solid]:
    skin, parts = any_material(rng, 2.0), []
    for _ in range(rng.integers(1, 4)):
        normals = rng.normal(size=(16, 3))
        normals /= np.linalg.norm(normals, axis=1)[:, None] * rng.uniform(0.75, 1.0, (16, 1))
        each = 2 * rng.uniform(0.5, 1) * np.array([1.2, 0.8, 1.0])
        x, z = rng.normal(0, 0.7, 2)
        parts.append(block((x, each[1] * 0.3, z), each, skin, Faces([*normals, *CUBE.normals])))
    return parts


def lamp(rng: np.random.Generator) -> list[Solid]:
    height, reach = rng.uniform(2.5, 4), rng.uniform(0.5, 1.4)
    metal, head = any_material(rng, height), any_material(rng, 0.7)
    parts = [
        bar((0, 0, 0), (0, height, 0), 0.08, metal),
        bar((0, 0, 0), (0, 0.7, 0), 0.16, metal),
    ]
    if rng.random() < 0.5:
        return [*parts, ellipsoid((0, height + 0.15, 0), (0.65, 0.75, 0.65), head)]
    return [
        *parts,
        bar((0, height, 0), (reach, height + 0.25, 0), 0.06, metal),
        ellipsoid((reach, height + 0.2, 0), (0.9, 0.28, 0.4), head),
    ]


def balloon(rng: np.random.Generator) -> list[Solid]:
    one, other = any_colour(rng), any_colour(rng)
    skin = [
        bands([one, other], lambda p, n: np.arctan2(p[2], p[0]) * 6 / np.pi, 0.03),
        bands([one, other], lambda p, n: p[1] / 1.9, 0.03),
        any_material(rng, 13),
    ][rng.integers(3)]
    return [
        ellipsoid((0, 12, 0), (13, 14, 13), skin),
        block((0, 5.6, 0), (9.4, 9, 9.4), skin, CONE, turn=rotation(0, np.pi)),
        block((0, 0.6, 0), (1.5, 1.2, 1.5), any_material(rng, 1.5)),
    ]


CLASSES: dict[str, Callable[[np.random.Generator], list[Solid]]] = {f.__name__: f for f in
           (ball, balloon, boat, car, cow, fence, house, lamp, person, rock, tree)}  # fmt: skip
