"""What gives generated scenes away: the cues that tell where a tile lies, and what a picture shows.

    cues.py floors SEED COUNT                  # no network: how far colours and gradients go
    cues.py draw VARIANT SEED COUNT FOLDER     # the same scenes, a cue taken away; their manifest

`floors` prints name<TAB>percent. `draw` writes pictures to pre-train on; RESULTS.md has what the
puzzle was worth on each.
"""

import os
import sys

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_common import Layers, LinearSVMs, image_features, make_permutations
from ssl_common.data.pixels import resize
from ssl_common.pretext.jigsaw import TILES, Jigsaw, cut
from ssl_common.scenes import drawing, objects, rendering

torch.set_num_threads(1)
CLASSES = sorted(objects.CLASSES)

# ---- Variants -----------------------------------------------------------------------------------


def full(scene):
    return drawing.shade(drawing.render(scene), scene)


def no_objects(scene):
    return full(scene._replace(things=[]))


def objects_alone(scene):
    """On one gray."""
    view = drawing.render(scene)
    behind = view.owner < 0
    view.depth[behind], view.albedo[:, behind], view.glow[:, behind] = np.inf, 0, 0.4
    return drawing.shade(view, scene)


def one_texture(scene):
    """On one texture that knows no ground, sky or distance."""
    view = drawing.render(scene)
    behind = view.owner < 0
    light = drawing.shade(view, scene)
    y, x = (v.astype(np.float32).ravel() for v in np.mgrid[: behind.shape[0], : behind.shape[1]])
    x += np.float32(1000 * (scene.camera.focal % 1) * 8)  # another part of it in each picture
    lumps = rendering.noise(x / 8, y / 8, 1.0, np.float32(0)).reshape(behind.shape)
    colour = light[:, behind].mean(1)[:, None, None]
    return np.where(behind, colour * (1 + 0.25 * lumps), light)


def flat_light(scene):
    """Every surface as bright as its colour says, the sky of one colour."""
    view = drawing.render(scene)
    sky = np.isinf(view.depth)
    light = view.albedo + np.where(sky, 0, view.glow)
    if sky.any():
        light[:, sky] = view.glow[:, sky].mean(1)[:, None]
    return light


def no_horizon(scene):
    return full(scene)  # compose() is given a camera that looks down


VARIANTS = {f.__name__: f for f in (full, no_objects, objects_alone, one_texture, flat_light,
                                    no_horizon)}  # fmt: skip


def draw(variant, seed, count, folder):
    """Write COUNT pictures of SEED without what VARIANT takes away, and their manifest."""
    os.makedirs(folder)
    plain = drawing.Camera
    if variant == "no_horizon":
        drawing.Camera = looking_down(plain)
    with open(f"{folder}/list.tsv", "w") as stream:
        for index in range(count):
            rng = np.random.default_rng((seed, index))
            light = VARIANTS[variant](drawing.compose(rng))
            drawing.develop(light, rng).save(f"{folder}/{index}.jpg", quality=90)
            stream.write(f"{folder}/{index}.jpg\n")
    drawing.Camera = plain


def looking_down(camera):
    """Return what makes a CAMERA, but with the horizon at the upper edge."""
    return lambda *values, **more: camera(*values, **more)._replace(horizon=0.0)


# ---- Floors -------------------------------------------------------------------------------------


def pictures(seed, count):
    """Return the pictures of SEED, uint8 tensors H x W x 3, and their classes, bool (count, C)."""
    images, shown = [], np.zeros((count, len(CLASSES)), bool)
    for index in range(count):
        picture = drawing.draw(seed, index)
        images.append(torch.from_numpy(np.array(picture.image)))
        for each in picture.annotations:
            shown[index, CLASSES.index(each.name)] = True
    return images, shown


def described(tiles, colours=True, gradients=True):
    """Return the mean colour of TILES (N x 9 x 3 x 64 x 64) and the mean gradient of their gray."""
    gray = tiles.mean(2)
    slopes = [
        gray.diff(dim=-1).mean((-1, -2)),
        gray.diff(dim=-2).mean((-1, -2)),
        gray.diff(dim=-1).abs().mean((-1, -2)),
        gray.diff(dim=-2).abs().mean((-1, -2)),
    ]
    parts = [tiles.mean((-1, -2))] if colours else []
    return torch.cat(parts + ([torch.stack(slopes, 2)] if gradients else []), 2).numpy()


def tile_floors(images, rng):
    """Yield how often a linear classifier of one tile's means names its place, or solves 100."""
    puzzle = Jigsaw(make_permutations(100)[0])
    crops = torch.stack([puzzle.crop(image, rng.random(2)) for image in images])
    order = torch.arange(TILES).expand(len(crops), -1)
    jitter = torch.from_numpy(rng.integers(0, 21, (len(crops), TILES, 2)))
    tiles = cut(crops, order, jitter).float() / 255
    half = len(tiles) // 2
    place = np.tile(np.arange(TILES), half)
    for name, which in (("mean colour", (True, False)), ("mean gradient", (False, True)),
                        ("both", (True, True))):  # fmt: skip
        values = described(tiles, *which)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=500))
        model.fit(values[:half].reshape(half * TILES, -1), place)
        odds = model.predict_log_proba(values[half:].reshape(-1, values.shape[2]))
        yield f"place of a tile by its {name} (chance 11.1)", (odds.argmax(1) == place).mean()
        odds = odds.reshape(-1, TILES, TILES)  # image, tile, place
        right = 0
        for image in range(len(odds)):
            named = rng.integers(100)
            shuffled = odds[image][puzzle.permutations[named]]  # position t holds tile order[t]
            scores = shuffled[np.arange(TILES), puzzle.permutations].sum(1)
            right += scores.argmax() == named
        yield f"puzzle of 100 by its tiles' {name} (chance 1)", right / len(odds)


def histogram(image):
    """Return the share of each of 512 colours in IMAGE, square-rooted."""
    bins = (image.numpy().reshape(-1, 3) >> 5) @ [64, 8, 1]
    return np.sqrt(np.bincount(bins, minlength=512) / len(bins)).astype(np.float32)


def thumbnail(image, side):
    return resize(image, (side, side)).numpy().ravel().astype(np.float32) / 255


def class_floors(images, shown):
    """Yield the mAP of linear SVMs on colours, thumbnails and random features."""
    described = {
        "a histogram of 512 colours": [histogram(image) for image in images],
        "3 x 3 mean colours": [thumbnail(image, 3) for image in images],
        "a thumbnail of 16 x 16": [thumbnail(image, 16) for image in images],
    }
    random = Layers("random:alexnet", ["conv1", "conv3", "conv5"])
    for name, values in image_features(random, [each.numpy() for each in images]).items():
        described[f"{name} of random weights"] = values
    half = len(images) // 2
    yield "classes of a picture that shows all (mAP of chance)", shown[half:].mean()
    for name, values in described.items():
        values = np.stack(values)
        values = (values - values[:half].mean(0)) / (values[:half].std(0) + 1e-6)
        svms = LinearSVMs().fit(values[:half], shown[:half])
        yield f"classes by {name} (mAP)", svms.score(values[half:], shown[half:])


def floors(seed, count):
    images, shown = pictures(seed, count)
    yield from tile_floors(images, np.random.default_rng(seed))
    yield from class_floors(images, shown)


if __name__ == "__main__":
    if sys.argv[1:2] == ["floors"]:
        for name, share in floors(*map(int, sys.argv[2:4])):
            sys.stdout.write(f"{name}\t{100 * share:.1f}\n")
            sys.stdout.flush()
    elif sys.argv[1:2] == ["draw"] and sys.argv[2] in VARIANTS:
        draw(sys.argv[2], *map(int, sys.argv[3:5]), sys.argv[5])
    else:
        sys.exit(__doc__)
