"""Colorization as a picture: what the network is shown, the colours it gives, those there were."""

import numpy as np
import torch
from PIL import Image

from ssl_common.data import images
from ssl_common.data.order import draws
from ssl_common.pretext import color
from ssl_common.pretext.colorization import CROP, middles
from ssl_common.reporting.captions import LINE, MARGIN, SPACE, caption, fitting, sheet
from ssl_common.training import pretraining


def colored(paths, network, task, seed):
    """Yield (uint8 CROP x CROP x 3 in gray, by NETWORK, as it was; mean error in a and b) of PATHS.

    The crops are drawn as pretrain draws line k in its first epoch. The error is the distance of
    the colours predicted to those of the pixels in the middle of the places of the map.
    """
    for k, path in enumerate(paths):
        drawn = draws(seed, [0], [k], task.draws)
        pixels = task.crop(images.read(path, ""), drawn[0])
        image = task.images(pixels[None], drawn)
        with torch.inference_mode():
            lightness = color.lightness(image)
            ab = task.bins.decode(network(lightness))[0].numpy()  # h x w x 2
        true = task.middle_colors(image, ab.shape[:2])[0].numpy()
        lightness = lightness[0, 0].numpy() + 50
        panels = [color.rgb(lightness, plane) for plane in (np.zeros(2), spread(ab))]
        original = image[0].permute(1, 2, 0).numpy()
        yield [*panels, original], float(np.linalg.norm(ab - true, axis=2).mean())


def spread(values):
    """Return VALUES (h x w x C) of the places of a map for each pixel of the crop.

    Linear between the pixels in the middle of two places; as the nearest beyond the outermost.
    """
    rows, columns = (
        np.array([np.interp(np.arange(CROP), middles(n), unit) for unit in np.eye(n)])
        for n in values.shape[:2]
    )
    return np.einsum("hy,hwc,wx->yxc", rows, values, columns)


def show(paths, model, seed):
    """Return (picture, a line that says what it shows) of the image files PATHS and MODEL."""
    network, task = pretraining.load(model, "colorization")
    height = 2 * MARGIN + CROP + 2 * LINE
    picture, pen = sheet((2 * MARGIN + 3 * CROP + 2 * SPACE, height * len(paths)))
    errors = []
    for row, (panels, error) in enumerate(colored(paths, network, task, seed)):
        top = row * height + MARGIN
        said = [["as the network sees it", fitting(pen, paths[row], CROP)]]
        said += [["predicted", f"{error:.1f} off in a and b"], ["original"]]
        for column, (panel, lines) in enumerate(zip(panels, said, strict=True)):
            x = MARGIN + column * (CROP + SPACE)
            picture.paste(Image.fromarray(panel), (x, top))
            caption(pen, lines, (x, top + CROP))
        errors.append(error)
    said = f"{len(paths)} images, colours {np.mean(errors):.1f} off in a and b on average"
    return picture, said
