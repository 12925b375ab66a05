"""Colorization as a picture: the gray crop, the predicted colours, and the true ones."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import nn

from ssl_common.data import images
from ssl_common.data.order import draws
from ssl_common.pretext import color
from ssl_common.pretext.colorization import CROP, Colorization, middles
from ssl_common.reporting.captions import in_rows
from ssl_common.training import pretraining


def colored(
    paths: Sequence[str], network: nn.Module, task: Colorization, seed: int
) -> Iterator[tuple[list[np.ndarray], float]]:
    """Yield (uint8 CROP x CROP x 3 in gray, by NETWORK, as it was; mean error in a and b) of PATHS.

    The crops are drawn as pretrain draws line k in its first epoch. The error is the distance of
    the colours predicted to those of the pixels in the middle of the places of the map.
    """
    for k, path in enumerate(paths):
        randoms = draws(seed, [0], [k], task.draws)
        pixels = task.crop(images.read(path, ""), randoms[0])
        image = task.images(pixels[None], randoms)
        with torch.inference_mode():
            lightness = color.lightness(image)
            ab = task.bins.decode(network(lightness))[0].numpy()  # h x w x 2
        true = task.middle_colors(image, ab.shape[:2])[0].numpy()
        gray = lightness[0, 0].numpy() + 50
        panels = [color.rgb(gray, plane) for plane in (np.zeros(2), spread(ab))]
        original = image[0].permute(1, 2, 0).numpy()
        yield [*panels, original], float(np.linalg.norm(ab - true, axis=2).mean())


def spread(values: np.ndarray) -> np.ndarray:
    """Return VALUES (h x w x C) of the places of a map for each pixel of the crop.

    Linear between the pixels in the middle of two places; as the nearest beyond the outermost.
    """
    rows, columns = (
        np.array([np.interp(np.arange(CROP), middles(n), unit) for unit in np.eye(n)])
        for n in values.shape[:2]
    )
    return np.einsum("hy,hwc,wx->yxc", rows, values, columns)


def show(paths: Sequence[str], model: str, seed: int) -> tuple[Image.Image, str]:
    """Return (picture, a line that says what it shows) of the image files PATHS and MODEL."""
    network, task = pretraining.load(model, "colorization")
    assert isinstance(task, Colorization)
    rows, errors = [], []
    for path, (panels, error) in zip(paths, colored(paths, network, task, seed), strict=True):
        texts = [["as the network sees it", path]]
        texts += [["predicted", f"{error:.1f} off in a and b"], ["original"]]
        rows.append((panels, texts))
        errors.append(error)
    summary = f"{len(paths)} images, colours {np.mean(errors):.1f} off in a and b on average"
    return in_rows(rows, CROP), summary
