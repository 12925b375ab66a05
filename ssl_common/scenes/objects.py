"""The objects of generated scenes: solids with skins, drawn from a generator.

An object stands at the origin of its own frame, y up; its length runs along x, its front to -z.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssl_common.scenes.rendering import (
    CUBE,
    CYLINDER,
    SPHERE,
    Blur,
    Cut,
    Faces,
    Shape,
    Skin,
    Solid,
    noise,
)

Colour = Sequence[float]  # red, green, blue from 0 to 1
Point = Sequence[float] | np.ndarray  # x, y, z in metres

# ---- Skins and cuts ---------------------------------------------------------------------------


def rgb(*values: float) -> np.ndarray:
    """Return a colour, red, green and blue from 0 to 1, as float32 (3, 1)."""
    return np.array(values, np.float32)[:, None]


def tint(rng: np.random.Generator, *values: Colour, spread: float = 0.15) -> np.ndarray:
    """Return one of the colours VALUES, somewhat changed."""
    colour = np.array(values[rng.integers(len(values))]) * rng.uniform(1 - spread, 1 + spread, 3)
    return rgb(*colour.clip(0.01, 0.95))


def speckle(p: np.ndarray, texel: float, blur: Blur) -> np.ndarray:
    """Return noise at the points P (3, N)."""
    return noise(p[0] + 0.7 * p[2] + 0.3 * p[1], p[1] - 0.6 * p[2], texel, blur)


def plain(colour: np.ndarray, grain: float = 0.1, texel: float = 0.02) -> Skin:
    """Return a skin of one COLOUR with a GRAIN of noise."""
    return lambda p, n, blur: colour * (1 + grain * speckle(p, texel, blur))


def patches(
    one: np.ndarray, other: np.ndarray, texel: float, level: float, grain: float = 0.06
) -> Skin:
    """Return a skin with patches of the colour OTHER on ONE, where the noise is above LEVEL."""

    def skin(p, n, blur):
        share = (4 * (speckle(p, texel, blur) - level) + 0.5).clip(0, 1)
        return (one + (other - one) * share) * (1 + grain * speckle(p, 0.015, blur))

    return skin


def along(p: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the way along an upright face: x on the front and back, z on the sides."""
    return np.where(np.abs(n[0]) > np.abs(n[2]), p[2], p[0])


def bands(
    colours: Sequence[np.ndarray],
    wave: Callable[[np.ndarray, np.ndarray], np.ndarray],
    grain: float = 0.1,
) -> Skin:
    """Return a skin of COLOURS in turn; WAVE(p, n) counts them."""
    table = np.hstack(colours)

    def skin(p, n, blur):
        index = np.floor(wave(p, n)).astype(np.int32) % table.shape[1]
        return table[:, index] * (1 + grain * speckle(p, 0.02, blur))

    return skin


def bricks(
    colour: np.ndarray, length: float = 0.5, height: float = 0.22, joint: float = 0.7
) -> Skin:
    """Return a skin of courses of bricks, tiles or planks; their joints are JOINT as bright."""

    def skin(p, n, blur):
        y = p[1] / height
        course = np.floor(y)
        x = along(p, n) / length + 0.5 * (course % 2)
        line = ((y - course) < 0.15) | ((x - np.floor(x)) < 0.15 * height / length)
        each = 1 + 0.13 * np.sin(37 * course + 91 * np.floor(x))
        return colour * np.where(line, joint, each) * (1 + 0.1 * speckle(p, 0.03, blur))

    return skin


def with_windows(wall: Skin, frame: np.ndarray, width: float, height: float) -> Skin:
    """Return the skin WALL with a grid of windows, WIDTH x HEIGHT metres from one to the next."""

    def skin(p, n, blur):
        x, y = along(p, n) / width, p[1] / height
        x, y = np.abs(x - np.floor(x) - 0.5), np.abs(y - np.floor(y) - 0.5)
        upright = np.abs(n[1]) < 0.5
        albedo = np.where((x < 0.27) & (y < 0.3) & upright, frame, wall(p, n, blur))
        pane = (x < 0.22) & (y < 0.26) & upright & (x > 0.02)
        return np.where(pane, GLASS * (1 + 0.5 * noise(p[0] + p[2], p[1], 0.1, blur)), albedo)

    return skin


def rustle(p: np.ndarray, texel: float, blur: Blur) -> np.ndarray:
    """Return noise over a surface that turns any way: of two views, as one alone is stretched."""
    return 0.7 * (
        speckle(p, texel, blur) + noise(p[2] - 0.5 * p[0], p[1] + 0.8 * p[0], texel, blur)
    )


def foliage(colour: np.ndarray) -> Skin:
    """Return a skin of COLOUR with much noise."""
    return lambda p, n, blur: colour * (1 + 0.5 * rustle(p, 0.04, blur)).clip(0.2)


def leaves(level: float, texel: float) -> Cut:
    """Return a cut with holes where the noise is below LEVEL."""
    return lambda p, blur: rustle(p, texel, blur) < level


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
GLASS, WHITE = rgb(0.06, 0.08, 0.1), rgb(0.8, 0.8, 0.78)
VIVID = [(0.7, 0.1, 0.08), (0.1, 0.22, 0.6), (0.85, 0.65, 0.08), (0.85, 0.85, 0.82),
         (0.12, 0.42, 0.2), (0.5, 0.17, 0.45), (0.8, 0.4, 0.12), (0.1, 0.1, 0.11)]  # fmt: skip
HAIR = [(0.03, 0.02, 0.02), (0.2, 0.11, 0.05), (0.5, 0.38, 0.2), (0.4, 0.4, 0.4)]
FACE = [(0.6, 0.4, 0.3), (0.35, 0.2, 0.13), (0.7, 0.5, 0.4), (0.2, 0.11, 0.07)]
TROUSERS = [(0.08, 0.1, 0.2), (0.05, 0.05, 0.05), (0.35, 0.3, 0.22), (0.3, 0.3, 0.32)]
WALL = [(0.75, 0.7, 0.6), (0.55, 0.25, 0.18), (0.8, 0.78, 0.75), (0.65, 0.5, 0.3)]
ROOF = [(0.45, 0.17, 0.1), (0.25, 0.24, 0.25), (0.35, 0.22, 0.14)]
LEAF = [(0.12, 0.24, 0.06), (0.2, 0.28, 0.07), (0.1, 0.2, 0.08), (0.45, 0.22, 0.05)]
PAINT = [(0.6, 0.05, 0.05), (0.7, 0.7, 0.72), (0.08, 0.08, 0.1), (0.06, 0.15, 0.45),
         (0.85, 0.84, 0.82), (0.75, 0.55, 0.08), (0.1, 0.3, 0.2)]  # fmt: skip

# ---- The classes ------------------------------------------------------------------------------


def house(rng: np.random.Generator) -> list[Solid]:
    width, depth, height = rng.uniform(6, 11), rng.uniform(5, 8), rng.uniform(2.7, 5.4)
    rise, colour = rng.uniform(0.3, 0.6) * depth, tint(rng, *WALL)
    wall = [bricks(colour), plain(colour, 0.06, 0.1), bricks(colour, 40, 0.3, 0.8)][rng.integers(3)]
    floors = 1 if height < 3.8 else 2
    wall = with_windows(wall, WHITE, width / rng.integers(3, 6), height / floors)
    door = plain(tint(rng, (0.25, 0.12, 0.06), (0.1, 0.25, 0.2), (0.5, 0.08, 0.06)))
    chimney = (0.28 * width, height + 0.8 * rise, 0.1 * depth)
    return [
        block((0, height / 2, 0), (width, height, depth), wall),
        block((0, height + rise / 2, 0), (depth + 1, rise, width + 0.8),
              bricks(tint(rng, *ROOF), 0.6, 0.35), GABLE, turn=rotation(1, np.pi / 2)),
        block(chimney, (0.8, rise, 0.8), bricks(0.7 * colour)),
        block((rng.uniform(-0.3, 0.3) * width, 1.05, -depth / 2), (1.1, 2.1, 0.2), door),
    ]  # fmt: skip


def tree(rng: np.random.Generator) -> list[Solid]:
    bark = plain(tint(rng, (0.2, 0.13, 0.08), (0.3, 0.27, 0.24)), 0.35, 0.03)
    if rng.random() < 0.35:  # a conifer
        height, green = rng.uniform(4, 11), tint(rng, (0.05, 0.14, 0.08), (0.08, 0.17, 0.07))
        wide, cut = height * rng.uniform(0.32, 0.45), leaves(-1.3, 0.06)
        tiers = [(0.12, 0.55, 1.0), (0.35, 0.75, 0.78), (0.58, 1.0, 0.52)]
        return [bar((0, 0, 0), (0, height * 0.5, 0), height * 0.02, bark)] + [
            block((0, height * (low + top) / 2, 0), (wide * w, height * (top - low), wide * w),
                  foliage(green), CONE, cut=cut)
            for low, top, w in tiers
        ]  # fmt: skip
    height, crown = rng.uniform(4, 12), rng.uniform(0.5, 0.72)
    green = tint(rng, *LEAF)
    size, middle = height * crown, height * (1 - crown / 2)
    parts = [bar((0, 0, 0), (0, middle, 0), height * rng.uniform(0.022, 0.04), bark)]
    for _ in range(rng.integers(6, 10)):
        offset = rng.uniform(-0.32, 0.32, 3) * size
        clump = size * rng.uniform(0.4, 0.65) * np.array([1.15, 0.9, 1.15])
        skin = foliage(green * rng.uniform(0.8, 1.2))
        parts.append(ellipsoid((0, middle, 0) + offset, clump, skin, cut=leaves(-1.1, 0.06)))
    return parts


def car(rng: np.random.Generator) -> list[Solid]:
    length, width, low = rng.uniform(3.7, 4.7), 1.75, rng.uniform(0.25, 0.32)
    high = low + rng.uniform(0.5, 0.62)
    top = high + rng.uniform(0.45, 0.75)
    body = plain(tint(rng, *PAINT), 0.02)

    def shell(p, n, blur):
        """Doors, lights and bumpers."""
        end = np.abs(n[0]) > 0.7
        lamp = end & (np.abs(np.abs(p[2]) - 0.62) < 0.16) & (np.abs(p[1] - 0.06) < 0.09)
        seam = ~end & (np.abs(np.abs(p[0] + 0.1) - 0.5) < 0.02)
        albedo = np.where(seam | (p[1] < -0.2), 0.35, 1) * body(p, n, blur)
        return np.where(lamp, np.where(n[0] > 0, rgb(0.9, 0.85, 0.7), rgb(0.6, 0.04, 0.03)), albedo)

    def cabin(p, n, blur):
        """Glass between pillars under a roof."""
        pillar = (np.abs(p[0] + 0.05) < 0.05) & (np.abs(n[2]) > 0.7)
        return np.where((n[1] > 0.9) | pillar | (p[1] < -0.2), body(p, n, blur), GLASS)

    tyre, rim = rgb(0.03, 0.03, 0.035), rgb(0.45, 0.45, 0.47)

    def wheel(p, n, blur):
        return np.where(np.hypot(p[0], p[2]) < 0.19, rim, tyre)

    return [
        block((0, (low + high) / 2, 0), (length, high - low, width), shell),
        block((-0.15, (high + top) / 2, 0), (length * 0.62, top - high, width * 0.9), cabin, CABIN),
    ] + [
        block((x * length * 0.31, 0.31, z * (width / 2 - 0.1)), (0.62, 0.24, 0.62), wheel, CYLINDER,
              turn=rotation(0, np.pi / 2))
        for x in (-1, 1) for z in (-1, 1)
    ]  # fmt: skip


def cow(rng: np.random.Generator) -> list[Solid]:
    scale = rng.uniform(0.85, 1.1)
    light, dark = rgb(0.75, 0.72, 0.68), tint(rng, (0.04, 0.035, 0.03), (0.28, 0.13, 0.06))
    hide = patches(light, dark, 0.03, rng.uniform(-0.3, 0.4))
    if rng.random() < 0.3:
        hide = plain(dark * 1.3 + 0.02, 0.15)
    graze = rng.random() < 0.5
    head = (1.25, 0.45, 0) if graze else (1.3, 1.5, 0)
    pale, horn = plain(rgb(0.5, 0.38, 0.32)), plain(rgb(0.6, 0.55, 0.45))
    parts = [
        ellipsoid((0, 1.05, 0), (2.0, 0.85, 0.75), hide),
        ellipsoid((-0.55, 1.1, 0), (0.9, 0.8, 0.72), hide),
        ellipsoid((0.6, 1.1, 0), (0.8, 0.8, 0.68), hide),
        bar((0.7, 1.15, 0), head, 0.17, hide),
        ellipsoid(head, (0.55, 0.34, 0.3), hide, turn=rotation(2, -0.7)),
        ellipsoid(np.add(head, (0.19, -0.16, 0)), (0.24, 0.2, 0.22), pale),
        bar((-0.95, 1.2, 0), (-1.05, 0.5, 0), 0.035, hide),
        bar(np.add(head, (-0.1, 0.1, -0.28)), np.add(head, (-0.1, 0.1, 0.28)), 0.05, horn, SPHERE),
    ]
    for x, z in ((0.62, 0.2), (0.55, -0.2), (-0.62, 0.2), (-0.7, -0.2)):
        step = rng.uniform(-0.12, 0.12)
        parts.append(bar((x, 0.95, z), (x + step, 0, z), 0.095, hide))
    return enlarge(parts, scale)


def enlarge(parts: list[Solid], factor: float) -> list[Solid]:
    """Return PARTS made larger by FACTOR; their skins keep their grain."""
    for part in parts:
        part.centre, part.size = part.centre * factor, part.size * factor
    return parts


def person(rng: np.random.Generator) -> list[Solid]:
    skin, hair = plain(tint(rng, *FACE), 0.03), plain(tint(rng, *HAIR), 0.3)
    cloth, trousers = [tint(rng, *VIVID), tint(rng, *VIVID)], plain(tint(rng, *TROUSERS))
    striped = rng.random() < 0.3
    shirt = bands(cloth, lambda p, n: p[1] / 0.08, 0.05) if striped else plain(cloth[0], 0.08)
    step, swing, shoe = rng.uniform(0, 0.28), rng.uniform(-0.3, 0.5), plain(rgb(0.05, 0.04, 0.04))
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
    return enlarge(parts, rng.uniform(0.75, 1.08))


def ball(rng: np.random.Generator) -> list[Solid]:
    radius, colours = rng.uniform(0.14, 0.45), [tint(rng, *VIVID) for _ in range(3)]
    gores = [each for colour in colours for each in (colour, WHITE)]
    skin = [
        bands(gores, lambda p, n: np.arctan2(p[2], p[0]) * 3 / np.pi, 0.02),
        bands([WHITE, GLASS], lambda p, n: 0.7 + 0.6 * np.sin(p * (4.5 / radius)).prod(0), 0.03),
        plain(colours[0], 0.05, 0.01),
    ][rng.integers(3)]
    turn = rotation(0, rng.uniform(-1, 1)) @ rotation(2, rng.uniform(-1, 1))
    return [ellipsoid((0, radius, 0), (2 * radius,) * 3, skin, turn=turn)]


def boat(rng: np.random.Generator) -> list[Solid]:
    length = rng.uniform(4, 9)
    wide, high = length * 0.32, length * rng.uniform(0.14, 0.2)
    paint = tint(rng, (0.8, 0.8, 0.8), (0.1, 0.2, 0.4), (0.5, 0.1, 0.08), (0.35, 0.22, 0.1))
    hull = bands([paint * 0.3, paint, paint, WHITE], lambda p, n: 2 + 3.9 * p[1] / high)
    parts = [block((0, high * 0.4, 0), (length, high, wide), hull, HULL)]
    if rng.random() < 0.65:  # under sail
        top, foot = length * rng.uniform(0.9, 1.3), (0.1 * length, 0.6 * high, 0)
        cloth = plain(tint(rng, (0.85, 0.83, 0.78), (0.7, 0.3, 0.2)), 0.04)
        mast = bar(foot, (foot[0], top, 0), length * 0.012, plain(rgb(0.35, 0.25, 0.15)))
        for x, wide, tall, turn in ((-0.16, 0.48, 0.85, np.pi), (0.29, 0.3, 0.7, 0)):
            centre, size = (x * length, high + tall * top / 2, 0), (wide * length, tall * top, 0.06)
            parts.append(block(centre, size, cloth, SAIL, turn=rotation(1, turn)))
        return [*parts, mast]
    wall = with_windows(plain(WHITE, 0.03), GLASS, 0.9, high * 1.1)
    cabin = (length * 0.4, high * 1.1, wide * 0.6)
    return [*parts, block((-0.1 * length, high * 1.4, 0), cabin, wall)]


def fence(rng: np.random.Generator) -> list[Solid]:
    length, height = rng.uniform(4, 10), rng.uniform(0.9, 1.4)
    wood = plain(tint(rng, (0.8, 0.8, 0.77), (0.32, 0.21, 0.12), (0.45, 0.42, 0.38)), 0.2, 0.02)
    rails, pitch = rng.random() < 0.5, rng.uniform(0.18, 0.3)

    def gaps(p, blur):
        beam = np.abs(np.abs(p[1]) - height * 0.25) < 0.06
        if rails:
            return ~(beam | (np.abs(p[1]) < 0.06))
        return ~(beam | (np.mod(p[0], pitch) < 0.62 * pitch))

    parts = [block((0, height / 2, 0), (length, height, 0.06), wood, cut=gaps)]
    posts = np.linspace(-length / 2, length / 2, int(length / 2) + 1)
    return parts + [
        block((x, height * 0.54, 0.06), (0.13, height * 1.08, 0.13), wood) for x in posts
    ]


def rock(rng: np.random.Generator) -> list[Solid]:
    colour = tint(rng, (0.36, 0.34, 0.32), (0.42, 0.36, 0.28), (0.25, 0.25, 0.27))
    skin = patches(colour, colour * 0.55, 0.015, 0.5, 0.3)
    size, parts = rng.uniform(0.6, 2.4), []
    for _ in range(rng.integers(1, 4)):
        normals = rng.normal(size=(16, 3))
        normals /= np.linalg.norm(normals, axis=1)[:, None] * rng.uniform(0.75, 1.0, (16, 1))
        each = size * rng.uniform(0.5, 1) * np.array([1.2, 0.8, 1.0])
        x, z = rng.normal(0, 0.35, 2) * size
        parts.append(block((x, each[1] * 0.3, z), each, skin, Faces([*normals, *CUBE.normals])))
    return parts


def lamp(rng: np.random.Generator) -> list[Solid]:
    height, reach = rng.uniform(3.5, 7), rng.uniform(0.5, 1.4)
    metal = plain(tint(rng, (0.08, 0.09, 0.09), (0.4, 0.41, 0.42), (0.08, 0.16, 0.12)), 0.08)
    head = bands([rgb(0.85, 0.82, 0.7), rgb(0.1, 0.1, 0.1)], lambda p, n: 1 + p[1] * 5, 0.02)
    parts = [
        bar((0, 0, 0), (0, height, 0), 0.07, metal),
        bar((0, 0, 0), (0, 0.7, 0), 0.14, metal),
    ]
    if rng.random() < 0.5:
        return [*parts, ellipsoid((0, height + 0.15, 0), (0.55, 0.65, 0.55), head)]
    return [
        *parts,
        bar((0, height, 0), (reach, height + 0.25, 0), 0.05, metal),
        ellipsoid((reach, height + 0.2, 0), (0.9, 0.28, 0.4), head),
    ]


def balloon(rng: np.random.Generator) -> list[Solid]:
    colours = [tint(rng, *VIVID) for _ in range(rng.integers(2, 4))]
    waves = [lambda p, n: np.arctan2(p[2], p[0]) * 6 / np.pi, lambda p, n: p[1] / 1.9]
    skin = bands(colours, waves[rng.integers(2)], 0.03)
    return [
        ellipsoid((0, 12, 0), (13, 14, 13), skin),
        block((0, 5.6, 0), (9.4, 9, 9.4), skin, CONE, turn=rotation(0, np.pi)),
        block((0, 0.6, 0), (1.5, 1.2, 1.5), bricks(rgb(0.35, 0.22, 0.1), 0.3, 0.15)),
    ]


CLASSES: dict[str, Callable[[np.random.Generator], list[Solid]]] = {f.__name__: f for f in
           (ball, balloon, boat, car, cow, fence, house, lamp, person, rock, tree)}  # fmt: skip
