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
BACKGROUND = -1  # the owner of a pixel that shows no object
DARK = 0.35  # share of the ambient light that reaches the ground below an object


class Camera(NamedTuple):
    """A level pinhole camera EYE above the ground; sizes, FOCAL and the HORIZON's row in pixels.

    (x, y, z) is seen at column width / 2 + focal x / z and at row horizon + focal (eye - y) / z.
    """

    width: int
    height: int
    focal: float
    horizon: float
    eye: float

    def rays(
        self, rows: slice = slice(None), columns: slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return x (1, w) and y (h, 1) of the rays through the pixels' centres; their z is 1."""
        x = (np.arange(self.width)[columns] + 0.5 - self.width / 2) / self.focal
        y = (self.horizon - np.arange(self.height)[rows] - 0.5) / self.focal
        return x.astype(np.float32)[None], y.astype(np.float32)[:, None]

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns and the rows at which POINTS (3, n) are seen."""
        x, y, z = points
        return self.width / 2 + self.focal * x / z, self.horizon + self.focal * (self.eye - y) / z

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
            speed = sum(n[axis] * direction[axis] for axis in range(3)) + np.float32(1e-9)
            time = (1 - sum(n[axis] * origin[axis] for axis in range(3))) / speed
            enter = np.maximum(enter, np.where(speed < 0, time, -np.inf))
            leave = np.minimum(leave, np.where(speed < 0, np.inf, time))
        return enter, leave

    def normal(self, point: np.ndarray) -> np.ndarray:
        return self.normals[np.argmax(rotate(self.normals, point), axis=0)].T


SPHERE, CYLINDER = Round((0, 1, 2)), Round((0, 2))
CAPS = Faces([[0, 1, 0], [0, -1, 0]])
CUBE = Faces([*np.eye(3), *-np.eye(3)])
CORNERS = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, 8)


class Solid:
    """SHAPE stretched to the half sizes SIZE, turned by TURN (3, 3) and moved to CENTRE.

    SKIN(p, n, blur) gives the albedo (3, k) at points P (3, k), in metres from the centre before
    the turn, with normals N; BLUR as noise() takes it. Where CUT(p, blur) is true are holes.
    """

    def __init__(
        self,
        shape: Shape,
        centre: Any,
        size: Any,
        skin: "Skin",
        turn: np.ndarray | None = None,
        cut: "Cut | None" = None,
    ):
        self.shape, self.skin, self.cut = shape, skin, cut
        self.centre, self.size = np.asarray(centre, float), np.asarray(size, float)
        self.turn = np.eye(3) if turn is None else turn

    def place(self, base: np.ndarray, turn: np.ndarray) -> "Solid":
        """Return this solid turned by TURN around the origin, then moved by BASE."""
        centre = turn @ self.centre + base
        return Solid(self.shape, centre, self.size, self.skin, turn @ self.turn, self.cut)

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
            point = (o + t * np.stack([v[hits] for v in d])) * self.size[:, None].astype(np.float32)
            hits[hits] = ~self.cut(point, blur)
        return enter, leave, hits

    def surface(self, point: np.ndarray, blur: float) -> tuple[np.ndarray, np.ndarray]:
        """Return albedo and normals, (3, k) each, at POINT (3, k), seen from the centre."""
        local = rotate(self.turn.T, point)
        size = self.size[:, None].astype(np.float32)
        normal = unit(self.shape.normal(local / size) / size)
        return self.skin(local, normal, blur), rotate(self.turn, normal)


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
        """Draw SOLIDS as the object OWNER; keep in WHOLE where it is, hidden or not."""
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
        self.whole[owner][window] |= hits
        depth = enter + cz
        hits &= (depth < self.depth[window]) & (depth > NEAR)
        rows, columns = np.nonzero(hits)
        depth, x, y = depth[hits], x[0, columns], y[rows, 0]
        point = np.stack([x * depth - cx, y * depth + np.float32(camera.eye) - cy, depth - cz])
        at = (rows + window[0].start, columns + window[1].start)
        self.depth[at], self.owner[at] = depth, owner
        self.albedo[:, *at], self.normal[:, *at] = solid.surface(point, blur)
        self.glow[:, *at] = 0

    def shade(self, light: "Light", contacts: Sequence[tuple[float, float, float]]) -> np.ndarray:
        """Return the light of each pixel, (3, H, W).

        CONTACTS are (x, z, radius) of what stands on the ground and keeps the sky's light from it.
        """
        sun = unit(np.asarray(light.sun, np.float32))
        lit, ambience = (soft(part) for part in self._shadows(sun, contacts))
        facing = sum(s * n for s, n in zip(sun, self.normal, strict=True)).clip(0) * lit
        upward = (0.5 + 0.5 * self.normal[1]) * ambience
        air = np.exp(-light.haze * np.minimum(self.depth, 5000))
        shaded = np.empty_like(self.albedo)
        for c in range(3):
            falling = light.sunlight[c] * facing + light.skylight[c] * (upward * 0.8 + 0.2)
            reflected = self.albedo[c] * falling + self.glow[c]
            shaded[c] = np.where(
                np.isinf(self.depth), self.glow[c], light.air[c] * (1 - air) + reflected * air
            )
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
            _enter, leave, hits = solid.hit(
                origin, sun, math.log2(solid.centre[2] / self.camera.focal)
            )
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
    image = Image.fromarray((shares * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.8))
    image = image.resize((2 * width, 2 * height), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32) / 255


class Light(NamedTuple):
    """Where the SUN is (3,), and colours (3,): its light, the sky's, and that of the hazy air.

    HAZE is the share of light that the air takes a metre.
    """

    sun: np.ndarray
    sunlight: np.ndarray
    skylight: np.ndarray
    air: np.ndarray
    haze: float
