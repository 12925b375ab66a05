"""The places of generated scenes: the weather and its sky, the ground, and what may stand where."""

import math
from typing import Any

import numpy as np

from ssl_common.scenes.objects import rgb, tint
from ssl_common.scenes.rendering import Light, View, noise

# How often each class is drawn, place by place.
ODDS = {
    "meadow": dict(cow=6, tree=4, fence=3.5, rock=2, house=1.5, person=1, balloon=1.5, ball=0.5),
    "street": dict(car=6, house=4, person=3, lamp=3.5, tree=2, fence=1.5, ball=0.7, balloon=0.4),
    "park": dict(tree=3.5, person=3, ball=4, lamp=2.5, rock=1, fence=1.5, balloon=2, cow=0.5),
    "shore": dict(boat=7, person=2, ball=2, rock=3.5, tree=1, balloon=1, house=0.6, lamp=0.5),
}
SOILS = {
    "meadow": [(0.16, 0.26, 0.06), (0.25, 0.3, 0.09), (0.4, 0.36, 0.16), (0.2, 0.22, 0.08)],
    "street": [(0.17, 0.24, 0.08), (0.4, 0.38, 0.35), (0.33, 0.27, 0.2)],
    "park": [(0.15, 0.28, 0.06), (0.2, 0.27, 0.08), (0.42, 0.36, 0.26), (0.8, 0.82, 0.86)],
    "shore": [(0.62, 0.53, 0.38), (0.5, 0.45, 0.37), (0.22, 0.28, 0.1)],
}
RIDGE = 300  # metres to the hills or woods at the horizon


class Sky:
    """The time of day and the weather: the light they give, and what the sky looks like."""

    def __init__(self, rng: np.random.Generator):
        high, around = math.radians(rng.uniform(9, 65)), rng.uniform(0, 2 * math.pi)
        across = math.cos(high)
        sun = (across * math.sin(around), math.sin(high), across * math.cos(around))
        self.sun = np.array(sun, np.float32)
        day = min(1, (math.degrees(high) - 8) / 25)
        clear, hazy, gray = 0.0, rng.uniform(0, 0.5), rng.uniform(0.7, 1)
        self.overcast = float(rng.choice([clear, hazy, gray], p=[0.4, 0.3, 0.3]))

        def mix(low, noon, covered):
            """Return a colour between that of a low sun, of noon, and of an overcast sky."""
            colour = (1 - day) * np.array(low) + day * np.array(noon)
            return (colour + self.overcast * (covered - colour)).astype(np.float32)

        self.zenith = mix((0.22, 0.28, 0.5), (0.16, 0.34, 0.72), (0.55, 0.57, 0.6))
        self.rim = mix((0.95, 0.66, 0.42), (0.66, 0.78, 0.9), (0.72, 0.73, 0.74))
        self.cloud = mix((1.0, 0.8, 0.62), (1.0, 1.0, 1.0), (0.75, 0.76, 0.78))
        self.cover, self.shift = rng.uniform(-1.2, 1.6), rng.uniform(0, 5000)
        self.light = Light(
            self.sun,
            sunlight=mix((1.5, 0.85, 0.42), (1.55, 1.45, 1.25), (0.12, 0.12, 0.12)),
            skylight=mix((0.38, 0.38, 0.5), (0.42, 0.5, 0.65), (0.85, 0.87, 0.9)),
            air=0.95 * self.rim,
            haze=math.exp(rng.uniform(math.log(0.0003), math.log(0.008))),
        )

    def radiance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the light from the directions (X, Y, 1), (3, ...): with glow and clouds."""
        far = np.sqrt(1 + x * x + y * y)
        up = np.maximum(y / far, 0)
        towards = ((x * self.sun[0] + y * self.sun[1] + self.sun[2]) / far).clip(0)
        glow = (1 - self.overcast) * (0.35 * towards**8 + 0.7 * towards**64)
        away = 1 / (up + 0.08)  # to the layer of clouds
        blur = np.log2(0.012 * away * away)
        lumps = noise(x / far * away + self.shift, away, 0.02, blur)
        cloud = (0.5 * (lumps + self.cover) + 1.2 * self.overcast).clip(0, 1)
        cloud *= 1 - np.exp(-12 * up)
        bright = 1 - 0.13 * lumps * cloud - 0.25 * self.overcast
        height = 1 - np.exp(-3.5 * up)
        light = np.empty((3, *up.shape), np.float32)
        for c, warm in enumerate((1, 0.85, 0.6)):
            blue = self.rim[c] + (self.zenith[c] - self.rim[c]) * height
            light[c] = blue + (self.cloud[c] * bright - blue) * cloud + warm * glow
        return light


class Ground:
    """The ground of a meadow, a street with its road, a park or a shore, in world coordinates."""

    def __init__(self, kind: str, rng: np.random.Generator):
        self.kind, self.shift = kind, rng.uniform(0, 5000)
        self.soil = self.other = tint(rng, *SOILS[kind], spread=0.1)
        if rng.random() < 0.4:
            self.other = tint(rng, *SOILS[kind], spread=0.1)
        self.other = self.other * np.float32(rng.uniform(0.6, 1))
        self.rough = rng.uniform(0.15, 0.35)
        self.shore = rng.uniform(7, 30) if kind == "shore" else math.inf
        street = kind == "street"
        self.road = street or (kind == "park" and rng.random() < 0.5)
        # The middle of the road passes (x, z) at an angle: 0 is from left to right.
        self.angle = rng.normal(0, 0.12) + (0 if rng.random() < 0.45 else math.pi / 2)
        self.middle = (rng.uniform(-4, 4), rng.uniform(9, 22))
        self.half = rng.uniform(2.6, 4) if street else rng.uniform(0.8, 1.5)
        tars = (
            [(0.14, 0.14, 0.15), (0.22, 0.22, 0.22)] if street else [(0.45, 0.38, 0.28), (0.4,) * 3]
        )
        self.tar = tint(rng, *tars)
        self.ridge = tint(rng, (0.1, 0.16, 0.07), (0.22, 0.2, 0.14), (0.16, 0.18, 0.2))
        self.rise, self.jagged = rng.uniform(0, 0.14), rng.uniform(0.002, 0.02)

    def on_road(self, x: Any, z: Any) -> tuple[Any, Any]:
        """Return how far (x, z) is along the road, and how far from its middle (left is less)."""
        x, z = x - self.middle[0], z - self.middle[1]
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return x * cos + z * sin, z * cos - x * sin

    def has_room(self, name: str, x: float, z: float, radius: float) -> bool:
        """Return whether an object NAME of RADIUS may be at (x, z)."""
        if name in ("balloon", "boat"):
            return True  # in the air; put on the water
        if z + radius > self.shore:
            return False
        if not self.road:
            return True
        off = abs(self.on_road(x, z)[1])
        if name == "car":
            return off + 0.8 < self.half
        return off > self.half + (0.3 if name in ("lamp", "person", "ball") else radius)

    def surface(
        self, x: np.ndarray, z: np.ndarray, blur: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the albedo (3, k) at the points X, Z (k), and where they are water."""
        fine = noise(x + self.shift, z, 0.02, blur)
        coarse = noise(x + self.shift, z, 0.35, blur)
        share = (0.5 + 0.6 * coarse).clip(0, 1)
        albedo = (self.soil + (self.other - self.soil) * share) * (1 + self.rough * fine)
        if self.road:
            along, off = self.on_road(x, z)
            off = np.abs(off)
            tar = self.tar * (1 + 0.12 * fine + 0.06 * coarse)
            if self.kind == "street":
                line = np.abs(off - self.half + 0.2) < 0.08
                dash = (off < 0.07) & (np.mod(along, 4) < 2)
                tar = np.where(line | dash, np.float32(0.7), tar)
            albedo = np.where(off < self.half + 0.03 * fine, tar, albedo)
        beyond = z - self.shore - 0.8 * coarse
        wet = (1 + beyond / 1.5).clip(0, 1)
        return albedo * (1 - 0.5 * wet), beyond > 0

    def skyline(self, x: np.ndarray) -> np.ndarray:
        """Return how high, y of the direction (X, y, 1), the ridge stands above the horizon."""
        hills = self.rise * (0.4 + 0.3 * noise(8 * x + self.shift, 0 * x, 0.1, -3))
        trees = self.jagged * noise(40 * x + self.shift, 0 * x, 0.05, -3)
        return hills + trees if self.kind != "shore" or self.rise > 0.05 else 0 * x


def paint(view: View, sky: Sky, ground: Ground) -> None:
    """Fill VIEW with the SKY, the ridge below it and the GROUND."""
    camera = view.camera
    x, y = camera.rays()
    rows = math.ceil(camera.horizon - 0.5)  # of sky
    above, below = np.s_[..., :rows, :], np.s_[..., rows:, :]
    view.glow[above] = sky.radiance(*np.broadcast_arrays(x, y[:rows]))
    ridge = y[:rows] < ground.skyline(x)
    across, up = (v[ridge] for v in np.broadcast_arrays(x, y[:rows]))
    view.depth[above][ridge] = RIDGE
    view.glow[above][:, ridge] = 0
    view.albedo[above][:, ridge] = ground.ridge * (1 + noise(30 * across, 60 * up, 0.05, -4) / 4)
    view.normal[above][:, ridge] = rgb(0, 0.6, -0.8)

    x, down = np.broadcast_arrays(x, -y[rows:].clip(None, -1e-4))
    z = np.float32(camera.eye) / down
    # A pixel covers z / focal across and z^2 / (focal eye) along: their mean.
    blur = 1.5 * np.log2(z) - math.log2(camera.focal * math.sqrt(camera.eye))
    albedo, water = ground.surface((x * z).ravel(), z.ravel(), blur.ravel())
    water = water.reshape(z.shape)
    view.depth[below], view.albedo[below] = z, albedo.reshape(3, *z.shape)
    view.normal[1][below] = 1
    if water.any():
        x, down, z = x[water], down[water], z[water]
        wave = noise(0.35 * x * z + ground.shift, z, 0.06, blur[water])
        steep = down / np.sqrt(1 + x * x + down * down)
        mirrored = sky.radiance(x, np.abs(down + 0.03 + 0.08 * wave))
        share = (1.1 - 2.2 * steep).clip(0.15, 1) * (0.85 + 0.1 * wave)  # less where one looks down
        view.glow[below][:, water] = mirrored * share
        view.albedo[below][:, water] = rgb(0.03, 0.07, 0.08)
