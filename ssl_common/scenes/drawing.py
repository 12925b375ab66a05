"""Generated scenes: a place and what stands there -> a picture and what it shows.

Scene i of a seed is drawn from (seed, i) alone.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssl_common.data.targets import encode_normals
from ssl_common.scenes import objects, places
from ssl_common.scenes.rendering import Camera, Solid, View

DETAIL = 1.5  # rendered pixels to one of the picture, which is their mean
SIZES = [(320, 240), (320, 216), (320, 212), (240, 320), (216, 320), (256, 256)]  # width, height
SIZE_ODDS = [0.5, 0.2, 0.1, 0.1, 0.05, 0.05]
MOST = 8  # objects
AGAIN = 0.35  # how often an object is of the class of the one before: cows in a herd
MIN_PIXELS = 30  # pixels: an object that shows fewer is left out
TINY = 80  # pixels: one that shows fewer is difficult,
HIDDEN = 1 / 3  # and so is one that shows less of itself than this
# The share of the picture's height that an object takes: its usual span.
SPANS = {"house": (0.2, 0.75), "tree": (0.18, 0.9), "lamp": (0.2, 0.8), "boat": (0.08, 0.5),
         "balloon": (0.1, 0.45), "ball": (0.05, 0.35), "rock": (0.06, 0.35), "fence": (0.08, 0.4),
         "person": (0.12, 0.7), "cow": (0.08, 0.5), "car": (0.08, 0.45)}  # fmt: skip


class Annotation(NamedTuple):
    """An object in a picture; BOX is (xmin, ymin, xmax, ymax) of what is seen, counted from 1."""

    name: str
    box: tuple[int, int, int, int]
    truncated: bool
    difficult: bool


class Thing(NamedTuple):
    """An object of a scene: its SOLIDS stand around BASE (x, y, z), RADIUS metres at most away."""

    name: str
    solids: list[Solid]
    base: np.ndarray
    radius: float


class Scene(NamedTuple):
    """What a picture is rendered from: the view, the place, and the list of its Thing."""

    camera: Camera
    sky: places.Sky
    ground: places.Ground
    things: list[Thing]


class Picture(NamedTuple):
    """An IMAGE, what it shows, and the QUALITY of its JPEG; NORMALS as normals() has them."""

    image: Image.Image
    annotations: list[Annotation]
    normals: np.ndarray
    quality: int


def draw(seed: int, index: int) -> Picture:
    """Return picture INDEX of SEED."""
    rng = np.random.default_rng((seed, index))
    annotations: list[Annotation] = []
    while not annotations:  # seldom: the one object that found room is all but hidden
        scene = compose(rng)
        view = render(scene)
        annotations = annotate(view, [thing.name for thing in scene.things])
    image = develop(shade(view, scene), rng)
    return Picture(image, annotations, normals(view), int(rng.integers(70, 96)))


# ---- Composition ------------------------------------------------------------------------------


def compose(rng: np.random.Generator) -> Scene:
    """Draw a scene: where, under what sky, seen how, and the objects that find room in it."""
    width, height = (round(DETAIL * v) for v in SIZES[rng.choice(len(SIZES), p=SIZE_ODDS)])
    focal, horizon = max(width, height) * rng.uniform(0.75, 1.4), height * rng.uniform(0.3, 0.6)
    eye = math.exp(rng.uniform(math.log(1.2), math.log(5)))
    camera = Camera(width, height, focal, horizon, eye)
    kind = list(places.ODDS)[rng.integers(len(places.ODDS))]
    scene = Scene(camera, places.Sky(rng), places.Ground(kind, rng), [])
    names, odds = list(places.ODDS[kind]), list(places.ODDS[kind].values())
    for _ in range(min(MOST, 1 + rng.geometric(0.26))):
        again = scene.things and rng.random() < AGAIN
        name = names[rng.choice(len(names), p=np.divide(odds, sum(odds)))]
        name = scene.things[-1].name if again else name
        thing = _settle(name, objects.CLASSES[name](rng), scene, rng)
        if thing:
            scene.things.append(thing)
    return scene


def _settle(name, solids, scene, rng):
    """Return a Thing of SOLIDS where there is room in SCENE; None where none was found."""
    extent = np.hstack([solid.corners() for solid in solids])
    tall, radius = extent[1].max(), 0.75 * np.hypot(extent[0], extent[2]).max()
    for _attempt in range(25):
        base, turn = _stand(name, tall, scene, rng)
        crowded = any(
            math.dist(base[::2], other.base[::2]) < 0.75 * (radius + other.radius)
            for other in scene.things
        )
        if not crowded and scene.ground.has_room(name, base[0], base[2], radius):
            rotation = objects.rotation(1, turn)
            return Thing(name, [s.place(base, rotation) for s in solids], base, radius)
    return None


def _stand(name, tall, scene, rng):
    """Draw where an object TALL metres high stands, (x, y, z), and the angle it is turned by.

    Its distance comes from the share of the picture that it is to take; the first is larger.
    """
    camera = scene.camera
    low, high = SPANS[name]
    share = math.exp(rng.uniform(math.log(low * (0.8 if scene.things else 1.5)), math.log(high)))
    y, z = 0.0, camera.focal * tall / (share * camera.height)
    if name == "boat":
        z = max(z, scene.ground.shore + rng.uniform(6, 20))
    if name == "balloon":
        row = rng.uniform(0.05, 0.9) * (camera.horizon - 0.05 * camera.height)
        y = max(1.0, camera.eye + z * (camera.horizon - row) / camera.focal - tall / 2)
    else:  # the foot is in the picture, or a little below
        z = max(z, camera.focal * camera.eye / (1.03 * camera.height - camera.horizon))
    x = z * rng.uniform(-0.47, 0.47) * camera.width / camera.focal
    turn = rng.uniform(-math.pi, math.pi)
    if name in ("fence", "house"):
        turn = rng.normal(0, 0.5)
    if name == "car" and scene.ground.road:
        turn = rng.integers(2) * math.pi - scene.ground.angle
    return np.array([x, y, z]), turn


# ---- From the scene to the picture ------------------------------------------------------------


def render(scene: Scene) -> View:
    """Return the View of SCENE; the owner of a pixel is the number of the thing it shows."""
    view = View(scene.camera)
    places.paint(view, scene.sky, scene.ground)
    for owner, thing in enumerate(scene.things):
        view.add(thing.solids, owner)
    return view


def shade(view: View, scene: Scene) -> np.ndarray:
    """Return the light of each pixel of VIEW, (3, H, W)."""
    standing = [(t.base[0], t.base[2], 0.8 * t.radius) for t in scene.things if t.base[1] == 0]
    return view.shade(scene.sky.light, standing)


def develop(light: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Return LIGHT (3, H, W) as a camera's picture: exposure, white balance, vignette, grain."""
    gain = rng.uniform(0.28, 0.4) / light.mean() * np.exp(rng.normal(0, 0.05, (3, 1, 1)))
    colour = (light * gain.astype(np.float32)).clip(0, 1)
    colour *= 0.75 + 0.5 * colour * (1.5 - colour)  # darker shadows, a shoulder in the light
    height, width = light.shape[1:]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    colour *= (1 - rng.uniform(0, 0.12) * (x * x + y * y)).astype(np.float32)
    pixels = np.sqrt(colour, out=colour) * 255  # a gamma of 2
    image = Image.fromarray(np.moveaxis(pixels, 0, 2).astype(np.uint8))
    image = image.resize((round(width / DETAIL), round(height / DETAIL)), Image.Resampling.BOX)
    grain = rng.standard_normal((image.height, image.width, 3), np.float32)
    pixels = np.asarray(image) + grain * np.float32(rng.uniform(1, 5)) + np.float32(0.5)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def annotate(view: View, names: Sequence[str]) -> list[Annotation]:
    """Return what VIEW shows of the objects NAMES, as VOC says it, in pixels of the picture.

    The box is that of the visible part. Truncated: it meets the border. Difficult: tiny or mostly
    hidden. An object of which almost nothing is seen is left out.
    """
    annotations = []
    for owner, name in enumerate(names):
        visible = view.owner == owner
        pixels = np.count_nonzero(visible)
        if pixels < MIN_PIXELS * DETAIL**2:
            continue
        rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
        ends = (columns[0], rows[0], columns[-1], rows[-1])
        truncated = (
            0 in ends[:2] or ends[2] == view.camera.width - 1 or ends[3] == view.camera.height - 1
        )
        whole = np.count_nonzero(view.whole[owner])
        difficult = pixels < max(TINY * DETAIL**2, HIDDEN * whole)
        left, top, right, bottom = (int(end / DETAIL) + 1 for end in ends)
        box = (left, top, right, bottom)
        annotations.append(Annotation(name, box, bool(truncated), bool(difficult)))
    return annotations


def normals(view: View) -> np.ndarray:
    """Return the normals of VIEW, a picture as targets.encode_normals() makes it.

    A pixel of the picture has the normal at its middle, in the frame of the camera: x to the right,
    y up, z towards the camera. It has none where it shows the sky, or what is as far as the ridge.
    """
    rows, columns = (
        ((np.arange(round(side / DETAIL)) + 0.5) * DETAIL).astype(int) for side in view.depth.shape
    )
    at = np.ix_(rows, columns)
    x, y, z = (part[at] for part in view.normal)
    return encode_normals(np.stack([x, y, -z]), view.depth[at] < places.RIDGE)
