"""Normals as a picture: the image, what is true of it, and what a predictor says."""

import numpy as np
import torch
from PIL import Image

from ssl_common.data.pixels import resize
from ssl_common.data.targets import PairList, encode_normals
from ssl_common.evaluation.normals.metrics import angles
from ssl_common.evaluation.normals.testing import Predictor, predicted
from ssl_common.reporting.captions import LINE, MARGIN, SPACE, caption, fitting, sheet
from ssl_common.streams import DataError

SIDE = 256  # pixels, of the longer side of a panel


def show(model: str, pairs: str, count: int, root: str) -> tuple[Image.Image, str]:
    """Return (picture, a line that says what it shows) of the first COUNT lines of PAIRS.

    MODEL is a file of train-normals. A pixel without a normal is black where the truth is shown.
    """
    predictor, listed = Predictor(model, torch.device("cpu")), PairList(pairs)
    count = min(count, len(listed))
    rows, medians = list[list[np.ndarray]](), list[float]()
    for pixels, label, found in predicted(predictor, listed, root, 0, count):
        known = label.known
        if not known.any():
            line = len(rows) + 1
            raise DataError(f"{pairs}:{line}: no pixel of {listed[line - 1].target} has a normal")
        medians.append(float(np.median(angles(found[:, known], label.normals[:, known]))))
        whole = np.ones_like(known)
        panels = [pixels.numpy(), encode_normals(label.normals, known)]
        rows.append([_scaled(each) for each in (*panels, encode_normals(found, whole))])
    height = 2 * MARGIN + SIDE + 2 * LINE
    picture, pen = sheet((2 * MARGIN + 3 * SIDE + 2 * SPACE, height * count))
    for row, panels in enumerate(rows):
        top = row * height + MARGIN
        name = fitting(pen, listed[row].path, SIDE)
        texts = [["image", name], ["normals"], ["predicted", f"median {medians[row]:.1f} degrees"]]
        for column, (panel, lines) in enumerate(zip(panels, texts, strict=True)):
            x = MARGIN + column * (SIDE + SPACE)
            picture.paste(Image.fromarray(panel), (x, top))
            caption(pen, lines, (x, top + panel.shape[0]))
    return picture, f"{count} images, {np.mean(medians):.1f} degrees off (mean of medians)"


def _scaled(panel: np.ndarray) -> np.ndarray:
    """Return PANEL, uint8 H x W x 3, with a longer side of SIDE."""
    scale = SIDE / max(panel.shape[:2])
    size = [max(1, round(length * scale)) for length in panel.shape[:2]]
    return resize(torch.from_numpy(panel), size).numpy()
