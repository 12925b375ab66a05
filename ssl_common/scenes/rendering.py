"""Convex solids on a ground, seen by a camera: rays -> depth, normals and colours -> light.

Lengths are in metres: x right, y up from the ground, z away from the camera. A vector of many
pixels is three arrays that broadcast; what is kept for the picture are arrays (3, H, W) or (H, W).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageFilter

NEAR = 0.5  # metres: nothing nearer is drawn
BACKGROUND, CLUTTER = -1, -2  # the owners of pixels that show no object
DARK = 0.35  # share of the ambient light that reaches the ground below an object


class Camera(NamedTuple):
    """A pinhole camera EYE metres above the ground; sizes, FOCAL and HORIZON in pixels.

    Level, it sees (x, y, z) at column width / 2 + focal x / z and at row horizon + focal (eye - y)
    / z: it is tilted by shifting its lens. ROLL, in radians, turns it clockwise about the middle of
    the picture, so that the scene leans to the left.
    """

    width: int
    height: int
    focal: float
    horizon: float
    eye: float
    roll: float = 0.0

    def rays(
        self, rows: slice = slice(None), columns: slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y, (h, w) each, of the rays through the pixels' centres; their z is 1."""
        right = (np.arange(self.width)[columns] + 0.5 - self.width / 2) / self.focal
        up = (self.height / 2 - np.arange(self.height)[rows, None] - 0.5) / self.focal
        x, y = self._turned(right, up, 1)
        return x.astype(np.float32), (y + self._shift()).astype(np.float32)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns and the rows at which POINTS (3, n) are seen."""
        x, y, z = points
        right, up = self._turned(x / z, (y - self.eye) / z - self._shift(), -1)
        return self.width / 2 + self.focal * right, self.height / 2 - self.focal * up

    def middle(self) -> tuple[float, float]:
        """Return the column and the row of the picture's principal point."""
        right, up = self._turned(0.0, -self._shift(), -1)
        return self.width / 2 + self.focal * right, self.height / 2 - self.focal * up

    def seen(self, normals: np.ndarray) -> np.ndarray:
        """Return NORMALS (3, ...) of the world as the camera's: x right, y up, z towards it."""
        return np.stack([*self._turned(normals[0], normals[1], -1), -normals[2]])

    def _turned(self, x: Any, y: Any, way: int) -> tuple[Any, Any]:
        c, s = math.cos(self.roll), math.sin(self.roll) * way
        return c * x + s * y, c * y - s * x

    def _shift(self) -> float:
        return (self.horizon - self.height / 2) / self.focal

    def window(self, points: np.ndarray) -> tuple[slice, slice] | None:
        """Return the slices of rows and columns around all POINTS (3, n); None out of sight."""
        if points[2].max() < NEAR:
            return None
        columns, rows = self.project(np.vstack([points[:2], points[2:].clip(NEAR)]))
        top, bottom = (int(v.clip(0, self.height)) for v in (rows.min(), rows.max() + 1))
        left, right = (int(v.clip(0, self.width)) for v in (columns.min(), columns.max() + 1))
        return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


# ---- Noise ------------------------------------------------------------------------------------

SIDE, LEVELS = 256, 7
Blur = Any  # log2 of the metres that a pixel covers: one number, or one of each point


@functools.cache
def _noise_levels():
    """Return 1/f noise that tiles, ever more blurred, flat (LEVELS x SIDE x SIDE); deviation 1."""
    spectrum = np.fft.rfft2(np.random.default_rng(1).standard_normal((SIDE, SIDE)))
    f = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)) + 1e-9
    spectrum *= (f > 1 / SIDE) / f
    levels = [np.fft.irfft2(spectrum * np.exp(-((f * 2**k) ** 2) * 2)) for k in range(LEVELS)]
    return (np.stack(levels) / levels[0].std()).astype(np.float32).ravel()


def noise(a: np.ndarray, b: np.ndarray, texel: float, blur: Blur) -> np.ndarray:
    """Return noise at (A, B) metres with detail down to TEXEL metres.

    BLUR is log2 of the metres that a pixel covers there: what is finer than a pixel is averaged.
    """
    a, b = a * (1 / texel), b * (1 / texel)
    whole = np.floor(a), np.floor(b)
    a, b = a - whole[0], b - whole[1]
    i, j = (w.astype(np.int32) for w in whole)
    level = np.clip(blur - math.log2(texel), 0, LEVELS - 1)
    base = np.asarray(level).astype(np.int32) * (SIDE * SIDE)
    table, last = _noise_levels(), SIDE - 1
    row, below = base + (i & last) * SIDE, base + (i + 1 & last) * SIDE
    left, right = j & last, j + 1 & last
    above = table[row + left] * (1 - b) + table[row + right] * b
    return above * (1 - a) + (table[below + left] * (1 - b) + table[below + right] * b) * a


# ---- Solids -----------------------------------------------------------------------------------


Skin = Callable[[np.ndarray, np.ndarray, Blur], np.ndarray]  # of a Solid: see there
Cut = Callable[[np.ndarray, Blur], np.ndarray]
Vector = Sequence[Any]  # x, y and z: numbers, or arrays that broadcast


class Shape(Protocol):
    """A convex solid around the origin, within the cube from -1 to 1 or near it."""

    def cross(self, origin: Vector, direction: Vector, /) -> tuple[np.ndarray, np.ndarray]:
        """Return where rays enter and leave, in lengths of DIRECTION; enter < leave at a hit."""

    def normal(self, point: np.ndarray, /) -> np.ndarray:
        """Return the outward normals, of any length, at POINT (3, n) of the surface."""


class Round:
    """The unit sphere, or the unit cylinder around y from -1 to 1."""

    def __init__(self, axes: Sequence[int]):
        self.axes = axes

    def cross(self, origin: Vector, direction: Vector) -> tuple[np.ndarray, np.ndarray]:
        """Return where rays enter and leave, in lengths of DIRECTION; enter < leave at a hit."""
        a: Any = 0
        b: Any = 0
        c: Any = -1
        for axis in self.axes:
            o, d = origin[axis], direction[axis]
            a, b, c = a + d * d, b + o * d, c + o * o
        with np.errstate(invalid="ignore"):
            root = np.sqrt(b * b - a * c)  # NaN, which compares false, where the ray passes by
        enter, leave = (-b - root) / a, (-b + root) / a
        if 1 in self.axes:
            return enter, leave
        first, second = CAPS.cross(origin, direction)
        return np.maximum(enter, first), np.minimum(leave, second)

    def normal(self, point: np.ndarray) -> np.ndarray:
        """Return the outward normals, not of unit length, at POINT (3, n) of the surface."""
        if 1 in self.axes:
            return point
        capped = np.abs(point[1]) > np.hypot(point[0], point[2])
        return point * np.stack([~capped, capped, ~capped])


class Faces:
    """The convex solid where n . p <= 1 for each row n of NORMALS (k, 3)."""

    def __init__(self, normals: Any):
        self.normals = np.asarray(normals, np.float32)

    def cross(self, origin: Vector, direction: Vector) -> tuple[np.ndarray, np.ndarray]:
        enter: Any = np.float32(-np.inf)
        leave: Any = np.float32(np.inf)
        for n in self.normals:
            axes = np.flatnonzero(n)  # most faces lie along an axis
            speed = _along(n, direction, axes) + np.float32(1e-9)
            time = (1 - _along(n, origin, axes)) / speed
            inwards = speed < 0
            enter = np.maximum(enter, np.where(inwards, time, -np.inf))
            leave = np.minimum(leave, np.where(inwards, np.inf, time))
        return enter, leave

    def normal(self, point: np.ndarray) -> np.ndarray:
        return self.normals[np.argmax(rotate(self.normals, point), axis=0)].T


def _along(n, vector, axes):
    """Return the product of N (3,) and VECTOR, x, y and z, of which N has no others than AXES."""
    total = n[axes[0]] * vector[axes[0]]
    for axis in axes[1:]:
        total = total + n[axis] * vector[axis]
    return total


SPHERE, CYLINDER = Round((0, 1, 2)), Round((0, 2))
CAPS = Faces([[0, 1, 0], [0, -1, 0]])
CUBE = Faces([*np.eye(3), *-np.eye(3)])
CORNERS = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, 8)


class Solid:
    """SHAPE stretched to the half sizes SIZE, turned by TURN (3, 3) and moved to CENTRE.

    SKIN(p, n, blur) gives the albedo (3, k) at points P (3, k), in metres from the centre before
    the turn, with normals N; BLUR as noise() takes it. Where CUT(p, blur) is true are holes. Both
    are given lengths before the solid was made SCALE times as large.
    """

    def __init__(
        self,
        shape: Shape,
        centre: Any,
        size: Any,
        skin: "Skin",
        turn: np.ndarray | None = None,
        cut: "Cut | None" = None,
        scale: float = 1.0,
    ):
        self.shape, self.skin, self.cut, self.scale = shape, skin, cut, scale
        self.centre, self.size = np.asarray(centre, float), np.asarray(size, float)
        self.turn = np.eye(3) if turn is None else turn

    def place(self, base: Any, turn: np.ndarray, scale: float = 1.0) -> "Solid":
        """Return this solid SCALE times as large, turned around the origin, then moved by BASE."""
        return Solid(
            self.shape,
            turn @ self.centre * scale + base,
            self.size * scale,
            self.skin,
            turn @ self.turn,
            self.cut,
            self.scale * scale,
        )

    def corners(self) -> np.ndarray:
        """Return the corners of the box around the shape, (3, 8)."""
        return self.turn @ (CORNERS * self.size[:, None]) + self.centre[:, None]

    def hit(
        self, origin: Vector, direction: Vector, blur: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return where rays enter and leave, and whether they hit, as arrays (h, w).

        ORIGIN is seen from the centre. It should be near, as float32 has 7 digits.
        """
        into = (self.turn.T / self.size[:, None]).astype(np.float32)
        origin, direction = (
            [m[0] * v[0] + m[1] * v[1] + m[2] * v[2] for m in into] for v in (origin, direction)
        )
        enter, leave = self.shape.cross(origin, direction)
        hits = enter < leave
        if self.cut is not None and hits.any():
            rays = np.broadcast_arrays(*origin, *direction)
            o, d, t = np.stack([v[hits] for v in rays[:3]]), rays[3:], enter[hits]
            size = (self.size / self.scale).astype(np.float32)[:, None]
            point = (o + t * np.stack([v[hits] for v in d])) * size
            hits[hits] = ~self.cut(point, blur - math.log2(self.scale))
        return enter, leave, hits

    def surface(self, point: np.ndarray, blur: float) -> tuple[np.ndarray, np.ndarray]:
        """Return albedo and normals, (3, k) each, at POINT (3, k), seen from the centre."""
        local = rotate(self.turn.T, point)
        size = self.size[:, None].astype(np.float32)
        normal = unit(self.shape.normal(local / size) / size)
        local *= np.float32(1 / self.scale)
        return self.skin(local, normal, blur - math.log2(self.scale)), rotate(self.turn, normal)


def rotate(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return MATRIX (k, 3) times VECTORS (3, n), float32, without BLAS and its threads."""
    return np.einsum("kj,jn->kn", matrix.astype(np.float32), vectors)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return VECTORS (3, ...) with length 1."""
    return vectors / np.sqrt((vectors * vectors).sum(0))


# ---- The view ---------------------------------------------------------------------------------


class View:
    """What CAMERA sees: for each pixel the DEPTH (z), the OWNER, ALBEDO, NORMAL and GLOW.

    GLOW is the light that does not come from the sun or the sky by way of the surface.
    """

    def __init__(self, camera: Camera):
        self.camera, shape = camera, (camera.height, camera.width)
        self.depth = np.full(shape, np.inf, np.float32)
        self.owner = np.full(shape, BACKGROUND, np.int16)
        self.albedo, self.normal, self.glow = np.zeros((3, 3, *shape), np.float32)
        self.solids: list[Solid] = []
        self.whole: dict[int, np.ndarray] = {}

    def add(self, solids: list[Solid], owner: int) -> None:
        """Draw SOLIDS as the object OWNER; keep in WHOLE where it is, hidden or not.

        As CLUTTER they are no object's.
        """
        if owner != CLUTTER:
            self.whole[owner] = np.zeros(self.depth.shape, bool)
        for solid in solids:
            self._draw(solid, owner)
        self.solids += solids

    def _draw(self, solid, owner):
        camera, (cx, cy, cz) = self.camera, solid.centre.astype(np.float32)
        window = camera.window(solid.corners())
        if window is None or cz < NEAR:
            return
        x, y = camera.rays(*window)
        blur = math.log2(cz / camera.focal)
        origin = (x * cz - cx, y * cz + np.float32(camera.eye) - cy, np.float32(0))
        enter, _leave, hits = solid.hit(origin, (x, y, np.float32(1)), blur)
        if owner != CLUTTER:
            self.whole[owner][window] |= hits
        depth = enter + cz
        hits &= (depth < self.depth[window]) & (depth > NEAR)
        rows, columns = np.nonzero(hits)
        depth, x, y = depth[hits], x[hits], y[hits]
        point = np.stack([x * depth - cx, y * depth + np.float32(camera.eye) - cy, depth - cz])
        at = (rows + window[0].start) * camera.width + (columns + window[1].start)
        self.depth.ravel()[at], self.owner.ravel()[at] = depth, owner
        albedo, normal = solid.surface(point, blur)
        for axis in range(3):
            self.albedo[axis].ravel()[at], self.normal[axis].ravel()[at] = (
                albedo[axis],
                normal[axis],
            )
            self.glow[axis].ravel()[at] = 0

    def shade(self, light: "Light", contacts: Sequence[tuple[float, float, float]]) -> np.ndarray:
        """Return the light of each pixel, (3, H, W).

        CONTACTS are (x, z, radius) of what stands on the ground and keeps the sky's light from it.
        """
        sun = unit(np.asarray(light.sun, np.float32))
        lit, ambience = (soft(part) for part in self._shadows(sun, contacts))
        facing = sum(s * n for s, n in zip(sun, self.normal, strict=True)).clip(0) * lit
        ambience *= 0.6 + 0.4 * self.normal[1]
        shaded = np.empty_like(self.albedo)
        for c in range(3):
            falling = light.sunlight[c] * facing + light.skylight[c] * ambience
            np.add(self.albedo[c] * falling, self.glow[c], out=shaded[c])
        return shaded

    def _shadows(self, sun, contacts):
        """Return the shares of sun and of sky that reach every other pixel, (H/2, W/2) each."""
        depth = self.depth[::2, ::2]
        x, y = self.camera.rays(slice(None, None, 2), slice(None, None, 2))
        lit, ambience = np.ones((2, *depth.shape), np.float32)
        z = np.where(np.isinf(depth), np.float32(1e6), depth)
        points = (x * z, y * z + np.float32(self.camera.eye), z)
        for solid in self.solids:
            corners = solid.corners()
            shadow = corners - sun[:, None] * (corners[1] / sun[1])
            window = self._halved(np.hstack([corners, shadow]))
            if window is None:
                continue
            origin = [p[window] - np.float32(c) for p, c in zip(points, solid.centre, strict=True)]
            away = max(float(solid.centre[2]), NEAR)  # what is behind the camera casts shadows too
            _enter, leave, hits = solid.hit(origin, sun, math.log2(away / self.camera.focal))
            lit[window][hits & (leave > 0.02 * solid.size.max())] = 0
        for cx, cz, radius in contacts:
            ring = np.array([[-2, -2, 2, 2], [0, 0.5, 0, 0.5], [-2, 2, -2, 2]]) * radius
            window = self._halved(ring + [[cx], [0], [cz]])
            if window is not None:
                px, py, pz = (p[window] for p in points)
                far = ((px - cx) ** 2 + (pz - cz) ** 2 + 4 * py**2) / radius**2
                ambience[window] *= 1 - (1 - DARK) * np.exp(-1.5 * far)
        return lit, ambience

    def _halved(self, points):
        window = self.camera.window(points)
        return window and tuple(slice(s.start // 2, (s.stop + 1) // 2) for s in window)


def soft(shares: np.ndarray) -> np.ndarray:
    """Return SHARES (h, w) from 0 to 1 blurred, at twice the size."""
    height, width = shares.shape
    image = Image.fromarray((shares * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(1))
    image = image.resize((2 * width, 2 * height), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32) / 255


class Light(NamedTuple):
    """Where the SUN is (3,), and the colours (3,) of its light and of the sky's."""

    sun: np.ndarray
    sunlight: np.ndarray
    skylight: np.ndarray
