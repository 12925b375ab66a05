"""What generated objects are made of: colours and skins, drawn whatever the object is.

So a colour or a grain says nothing of a class: its parts and their places do.
"""

import colorsys
from collections.abc import Callable, Sequence

import numpy as np

from ssl_common.scenes.rendering import Blur, Cut, Skin, noise


def rgb(*values: float) -> np.ndarray:
    """Return a colour, red, green and blue from 0 to 1, as float32 (3, 1)."""
    return np.array(values, np.float32)[:, None]


def any_colour(rng: np.random.Generator) -> np.ndarray:
    """Draw a colour, float32 (3, 1): of any hue, gray to strong, dark to light."""
    hue, saturation, value = rng.random(), 0.8 * rng.random(), rng.uniform(0.1, 0.85)
    return rgb(*colorsys.hsv_to_rgb(hue, saturation, value))


def any_material(rng: np.random.Generator, size: float) -> Skin:
    """Draw a skin, plain or of two colours, for an object about SIZE metres large."""
    one, other = any_colour(rng), any_colour(rng)
    texel, pitch = size * rng.uniform(0.003, 0.01), size * rng.uniform(0.04, 0.12)
    kind = rng.integers(5)
    if kind == 0:
        return patches(one, other, texel, rng.uniform(-0.5, 0.5))
    if kind == 1:
        axis = int(rng.integers(3))
        return bands([one, other], lambda p, n: p[axis] / pitch, 0.05)
    if kind == 2:
        return bricks(one, 2 * pitch, pitch, rng.uniform(0.6, 0.8))
    return plain(one, rng.uniform(0.04, 0.4), texel)


def speckle(p: np.ndarray, texel: float, blur: Blur) -> np.ndarray:
    """Return noise at the points P (3, N)."""
    return noise(p[0] + 0.7 * p[2] + 0.3 * p[1], p[1] - 0.6 * p[2], texel, blur)


def plain(colour: np.ndarray, grain: float = 0.1, texel: float = 0.02) -> Skin:
    """Return a skin of one COLOUR with a GRAIN of noise."""
    return lambda p, n, blur: colour * (1 + grain * speckle(p, texel, blur)).clip(0.2)


def patches(one: np.ndarray, other: np.ndarray, texel: float, level: float) -> Skin:
    """Return a skin with patches of the colour OTHER on ONE, where the noise is above LEVEL."""

    def skin(p: np.ndarray, n: np.ndarray, blur: Blur) -> np.ndarray:
        share = (4 * (speckle(p, texel, blur) - level) + 0.5).clip(0, 1)
        return one + (other - one) * share

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

    def skin(p: np.ndarray, n: np.ndarray, blur: Blur) -> np.ndarray:
        index = np.floor(wave(p, n)).astype(np.int32) % table.shape[1]
        return table[:, index] * (1 + grain * speckle(p, 0.02, blur))

    return skin


def bricks(colour: np.ndarray, length: float, height: float, joint: float) -> Skin:
    """Return a skin of courses of bricks or planks; their joints are JOINT as bright."""

    def skin(p: np.ndarray, n: np.ndarray, blur: Blur) -> np.ndarray:
        y = p[1] / height
        course = np.floor(y)
        x = along(p, n) / length + 0.5 * (course % 2)
        line = ((y - course) < 0.15) | ((x - np.floor(x)) < 0.15 * height / length)
        each = 1 + 0.13 * np.sin(37 * course + 91 * np.floor(x))
        return colour * np.where(line, joint, each)

    return skin


def with_windows(
    wall: Skin, frame: np.ndarray, glass: np.ndarray, width: float, height: float
) -> Skin:
    """Return the skin WALL with a grid of windows, WIDTH x HEIGHT metres from one to the next."""

    def skin(p: np.ndarray, n: np.ndarray, blur: Blur) -> np.ndarray:
        x, y = along(p, n) / width, p[1] / height
        x, y = np.abs(x - np.floor(x) - 0.5), np.abs(y - np.floor(y) - 0.5)
        upright = np.abs(n[1]) < 0.5
        albedo = np.where((x < 0.27) & (y < 0.3) & upright, frame, wall(p, n, blur))
        return np.where((x < 0.22) & (y < 0.26) & upright & (x > 0.02), glass, albedo)

    return skin


def rustle(p: np.ndarray, texel: float, blur: Blur) -> np.ndarray:
    """Return noise over a surface that turns any way: of two views, as one alone is stretched."""
    return 0.7 * (
        speckle(p, texel, blur) + noise(p[2] - 0.5 * p[0], p[1] + 0.8 * p[0], texel, blur)
    )


def leaves(level: float, texel: float) -> Cut:
    """Return a cut with holes where the noise is below LEVEL."""
    return lambda p, blur: rustle(p, texel, blur) < level
