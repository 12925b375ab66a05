"""Generated scenes: a place and what stands there -> a picture and what it shows.

Scene i of a seed is drawn from (seed, i) alone. A scene is made so that neither a colour, nor the
place in the picture, nor the ground tells what an object is, or where a tile lies: see
benchmarks/cues.py, which measures it.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from ssl_common.data.targets import encode_normals
from ssl_common.scenes import objects, places
from ssl_common.scenes.rendering import CLUTTER, Camera, Solid, View

SIZES = [(320, 240), (320, 216), (320, 212), (240, 320), (216, 320), (256, 256)]  # width, height
SIZE_ODDS = [0.5, 0.2, 0.1, 0.1, 0.05, 0.05]
EYE = 1.6  # metres: the measure of all distances, as objects have any size
ROLL = 0.15  # radians that the camera turns at most
MOST = 4  # objects
AGAIN = 0.25  # how often an object is of the class of the one before: cows in a herd
LOOSE = 2  # parts without an object, at most
# Of the picture's shorter side: how large an object is, its longer side; the first, and the others.
MAIN, OTHERS = (0.75, 1.1), (0.3, 0.8)
LENS = 0.5  # pixels around each that its blur takes in
GRAINS = 300  # places of a picture in the table of grain, along each side
MIN_PIXELS = 30  # pixels: an object that shows fewer is left out
TINY = 80  # pixels: one that shows fewer is difficult,
HIDDEN = 1 / 3  # and so is one that shows less of itself than this


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
    """What a picture is rendered from: the view, the place, its objects, and CLUTTER, loose parts.

    Things is a list of Thing.
    """

    camera: Camera
    place: places.Place
    things: list[Thing]
    clutter: list[Solid]


class Picture(NamedTuple):
    """An IMAGE, what it shows, and the QUALITY of its JPEG.

    NORMALS and DEPTH as normals() and depth() have them; INTRINSICS are of its pixels: focal length
    along x and y, then the principal point's x and y.
    """

    image: Image.Image
    annotations: list[Annotation]
    normals: np.ndarray
    depth: np.ndarray
    intrinsics: tuple[float, float, float, float]
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
    return Picture(
        image, annotations, normals(view), depth(view), intrinsics(view.camera),
        int(rng.integers(70, 96)),
    )  # fmt: skip


# ---- Composition ------------------------------------------------------------------------------


def compose(rng: np.random.Generator) -> Scene:
    """Draw a scene: where, in what light, seen how, and the objects that find room in it."""
    width, height = SIZES[rng.choice(len(SIZES), p=SIZE_ODDS)]
    focal, horizon = max(width, height) * rng.uniform(0.75, 1.4), height * rng.uniform(-0.4, 0.7)
    camera = Camera(width, height, focal, horizon, EYE, rng.uniform(-ROLL, ROLL))
    scene = Scene(camera, places.draw_place(rng), [], [])
    names = list(objects.CLASSES)
    for _ in range(min(MOST, rng.geometric(0.42))):
        again = scene.things and rng.random() < AGAIN
        name = names[rng.integers(len(names))]
        name = scene.things[-1].name if again else name
        thing = _settle(name, objects.CLASSES[name](rng), scene, rng)
        if thing:
            scene.things.append(thing)
    for _ in range(rng.integers(LOOSE + 1)):
        parts = objects.CLASSES[names[rng.integers(len(names))]](rng)
        scene.clutter.append(_scatter(parts[rng.integers(len(parts))], camera, rng))
    return scene


def _settle(name, solids, scene, rng):
    """Return a Thing of SOLIDS where there is room in SCENE; None where none was found.

    The first is large, its middle near that of the picture: parts of it are in most tiles.
    """
    extent = np.hstack([solid.corners() for solid in solids])
    size, far = np.ptp(extent, axis=1).max(), np.hypot(extent[0], extent[2]).max()
    camera = scene.camera
    for _attempt in range(10):
        share = math.exp(rng.uniform(*np.log(OTHERS if scene.things else MAIN)))
        if scene.things:
            base = _stand(camera, rng)
        else:
            lower = share * extent[1].max() / size / 2 * min(camera.width, camera.height)
            row = camera.height * rng.uniform(0.4, 0.6) + lower
            base = _ground(camera, max(row, camera.horizon + 0.05 * camera.height),
                           camera.width * rng.uniform(-0.12, 0.12))  # fmt: skip
        scale = share * min(camera.width, camera.height) / camera.focal * base[2] / size
        if name == "balloon":
            base[1] = scale * size * rng.uniform(0, 0.1)
        radius = 0.75 * scale * far
        crowded = any(
            math.dist(base[::2], other.base[::2]) < 0.75 * (radius + other.radius)
            for other in scene.things
        )
        if not crowded:
            turn = objects.rotation(1, rng.uniform(-math.pi, math.pi))
            return Thing(name, [s.place(base, turn, scale) for s in solids], base, radius)
    return None


def _ground(camera, row, column):
    """Return the point of the ground, (x, 0, z), that level CAMERA sees at ROW, COLUMN.

    Columns count from the middle.
    """
    z = camera.focal * camera.eye / (row - camera.horizon)
    return np.array([z * column / camera.focal, 0.0, z])


def _stand(camera, rng):
    """Draw a point of the ground that is in the picture, or a little below."""
    highest = max(camera.horizon + 0.05 * camera.height, 0.35 * camera.height)
    row = rng.uniform(highest, 1.1 * camera.height)
    return _ground(camera, row, camera.width * rng.uniform(-0.47, 0.47))


def _scatter(part, camera, rng):
    """Return the solid PART somewhere in the picture, turned any way, smaller than most objects."""
    base = _stand(camera, rng)
    share = math.exp(rng.uniform(math.log(0.06), math.log(0.4)))
    scale = share * camera.height / camera.focal * base[2] / np.ptp(part.corners(), axis=1).max()
    turn = objects.rotation(1, rng.uniform(-math.pi, math.pi)) @ objects.rotation(
        int(rng.choice([0, 2])), rng.uniform(-math.pi, math.pi)
    )
    part = part.place(-part.centre, np.eye(3)).place((0, 0, 0), turn, scale)
    base[1] = -part.corners()[1].min() * rng.uniform(0.5, 1.5)
    return part.place(base, np.eye(3))


# ---- From the scene to the picture ------------------------------------------------------------


def render(scene: Scene) -> View:
    """Return the View of SCENE; the owner of a pixel is the number of the thing it shows."""
    view = View(scene.camera)
    places.paint(view, scene.place)
    view.add(scene.clutter, CLUTTER)
    for owner, thing in enumerate(scene.things):
        view.add(thing.solids, owner)
    return view


def shade(view: View, scene: Scene) -> np.ndarray:
    """Return the light of each pixel of VIEW, (3, H, W)."""
    standing = [(t.base[0], t.base[2], 0.8 * t.radius) for t in scene.things if t.base[1] == 0]
    return view.shade(scene.place.light, standing)


def develop(light: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Return LIGHT (3, H, W) as a camera's picture: exposure, white balance, lens, grain."""
    gain = rng.uniform(0.28, 0.4) / light.mean() * np.exp(rng.normal(0, 0.05, (3, 1, 1)))
    colour = (light * gain.astype(np.float32)).clip(0, 1)
    colour *= 0.75 + 0.5 * colour * (1.5 - colour)  # darker shadows, a shoulder in the light
    pixels = np.sqrt(colour, out=colour) * 255  # a gamma of 2
    image = Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels.astype(np.uint8), 0, 2)))
    image = image.filter(ImageFilter.BoxBlur(LENS))  # which also makes edges smooth
    top, left = rng.integers(GRAINS, size=2)
    grain = _grain()[top : top + image.height, left : left + image.width]
    pixels = np.asarray(image) + grain * np.float32(rng.uniform(1, 5)) + np.float32(0.5)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@functools.cache
def _grain() -> np.ndarray:
    """Return white noise, float32, deviation 1, from which the grain of a picture is cut."""
    side = GRAINS + max(max(size) for size in SIZES)
    return np.random.default_rng(3).standard_normal((side, side, 3), np.float32)


def annotate(view: View, names: Sequence[str]) -> list[Annotation]:
    """Return what VIEW shows of the objects NAMES, as VOC says it, in pixels of the picture.

    The box is that of the visible part. Truncated: it meets the border. Difficult: tiny or mostly
    hidden. An object of which almost nothing is seen is left out.
    """
    annotations = []
    for owner, name in enumerate(names):
        visible = view.owner == owner
        pixels = np.count_nonzero(visible)
        if pixels < MIN_PIXELS:
            continue
        rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
        ends = (columns[0], rows[0], columns[-1], rows[-1])
        truncated = (
            0 in ends[:2] or ends[2] == view.camera.width - 1 or ends[3] == view.camera.height - 1
        )
        whole = np.count_nonzero(view.whole[owner])
        difficult = pixels < max(TINY, HIDDEN * whole)
        left, top, right, bottom = (int(end) + 1 for end in ends)
        box = (left, top, right, bottom)
        annotations.append(Annotation(name, box, bool(truncated), bool(difficult)))
    return annotations


def normals(view: View) -> np.ndarray:
    """Return the normals of VIEW, a picture as targets.encode_normals() makes it.

    A pixel has the normal at its middle, in the frame of the camera: x to the right,
    y up, z towards the camera. It has none where it shows the sky.
    """
    return encode_normals(view.camera.seen(view.normal), np.isfinite(view.depth))


def depth(view: View) -> np.ndarray:
    """Return how far VIEW sees, millimetres along its axis, uint16 (H, W) of the picture.

    It is 0 where nothing is within 65.535 metres.
    """
    millimetres = np.rint(view.depth * 1000)
    return np.where(millimetres < 1 << 16, millimetres, 0).astype(np.uint16)


def intrinsics(camera: Camera) -> tuple[float, float, float, float]:
    """Return (focal length along x, along y, x and y of the principal point) of CAMERA's picture.

    In pixels; x and y are 0 at the corner of the picture.
    """
    return camera.focal, camera.focal, *camera.middle()
