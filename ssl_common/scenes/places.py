"""The places of generated scenes: the light, and a ground and a sky that look alike.

Ground and sky are drawn from the same colours and textures, which know no distance: neither tells
where in a picture it lies. What tells that is the objects.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from ssl_common.scenes.materials import any_colour
from ssl_common.scenes.rendering import Light, View

SIDE = 1024  # pixels of the texture that surfaces are cut from; more than a view has


class Surface(NamedTuple):
    """A texture: patches of a colour OTHER on ONE, (3, 1, 1), and its ROUGHness; CORNER of each."""

    one: np.ndarray
    other: np.ndarray
    rough: float
    level: float
    corners: tuple[int, int, int, int]


class Place(NamedTuple):
    """The LIGHT of a scene, its GROUND and what is above the horizon, its SKY."""

    light: Light
    ground: Surface
    sky: Surface


def draw_place(rng: np.random.Generator) -> Place:
    """Draw a place: light from anywhere above the ground, of any colour that the day gives."""
    high, around = math.radians(rng.uniform(20, 75)), rng.uniform(0, 2 * math.pi)
    across = math.cos(high)
    sun = (across * math.sin(around), math.sin(high), across * math.cos(around))
    overcast = rng.uniform(0, 0.8)
    warm = np.array([1.15, 1.0, 0.85]) ** rng.uniform(-0.7, 1.3)
    light = Light(
        np.array(sun, np.float32),
        sunlight=(1.5 * (1 - overcast) * warm).astype(np.float32),
        skylight=((0.45 + 0.4 * overcast) / warm).astype(np.float32),
    )
    return Place(light, draw_surface(rng), draw_surface(rng))


def draw_surface(rng: np.random.Generator) -> Surface:
    """Draw a Surface."""
    one = any_colour(rng)[:, :, None]
    other = any_colour(rng)[:, :, None] if rng.random() < 0.15 else one * rng.uniform(0.7, 0.95)
    corners = tuple(int(v) for v in rng.integers(SIDE, size=4))
    return Surface(one, other, rng.uniform(0.02, 0.08), rng.uniform(-0.5, 0.5), corners)  # type: ignore[arg-type]


def painted(surface: Surface, height: int, width: int) -> np.ndarray:
    """Return the albedo of SURFACE, float32 (3, HEIGHT, WIDTH)."""
    top, left, down, right = surface.corners
    lumps, fine = (
        _texture()[y : y + height, x : x + width] for y, x in ((top, left), (down, right))
    )
    share = (1.5 * (lumps - surface.level) + 0.5).clip(0, 1)
    albedo = surface.one + (surface.other - surface.one) * share
    albedo *= 1 + np.float32(surface.rough) * fine
    return albedo.astype(np.float32, copy=False)


@functools.cache
def _texture() -> np.ndarray:
    """Return 1/f noise, float32, deviation 1: a SIDE x SIDE tile, laid two by two."""
    spectrum = np.fft.rfft2(np.random.default_rng(2).standard_normal((SIDE, SIDE)))
    f = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)) + 1e-9
    tile = np.fft.irfft2(spectrum * (f > 4 / SIDE) / f)
    return np.tile((tile / tile.std()).astype(np.float32), (2, 2))


def paint(view: View, place: Place) -> None:
    """Fill VIEW with the ground of PLACE and, above the horizon, its sky."""
    height, width = view.depth.shape
    _x, y = view.camera.rays()
    above, light = y >= 0, place.light
    view.albedo[:] = painted(place.ground, height, width)
    view.normal[1] = 1
    np.divide(np.float32(-view.camera.eye), y, out=view.depth, where=~above)
    if above.any():
        view.albedo *= ~above
        view.normal[1] *= ~above
        falling = light.sunlight * light.sun[1] + light.skylight  # as bright as the lit ground
        glow = painted(place.sky, height, width) * falling[:, None, None]
        np.multiply(glow, above, out=view.glow)
