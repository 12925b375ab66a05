"""Normals as a picture: the image, what is true of it, and what a predictor says."""

import numpy as np
import torch
from PIL import Image

from ssl_common.data.pixels import resize
from ssl_common.data.targets import PairList, encode_normals
from ssl_common.evaluation.normals.metrics import angles
from ssl_common.evaluation.normals.testing import Predictor, predicted
from ssl_common.reporting.captions import in_rows
from ssl_common.streams import DataError

SIDE = 256  # pixels, of the longer side of a panel


def show(model: str, pairs: str, count: int, root: str) -> tuple[Image.Image, str]:
    """Return (picture, a line that says what it shows) of the first COUNT lines of PAIRS.

    MODEL is a file of train-normals. A pixel without a normal is black where the truth is shown.
    """
    predictor, listed = Predictor(model, torch.device("cpu")), PairList(pairs)
    count = min(count, len(listed))
    rows, medians = list[tuple[list[np.ndarray], list[list[str]]]](), list[float]()
    for pixels, label, found in predicted(predictor, listed, root, 0, count):
        known = label.known
        if not known.any():
            line = len(rows) + 1
            raise DataError(f"{pairs}:{line}: no pixel of {listed[line - 1].target} has a normal")
        medians.append(float(np.median(angles(found[:, known], label.normals[:, known]))))
        whole = np.ones_like(known)
        panels = [pixels.numpy(), encode_normals(label.normals, known)]
        texts = [["image", listed[len(rows)].path], ["normals"]]
        texts += [["predicted", f"median {medians[-1]:.1f} degrees"]]
        rows.append(([_scaled(each) for each in (*panels, encode_normals(found, whole))], texts))
    said = f"{count} images, {np.mean(medians):.1f} degrees off (mean of medians)"
    return in_rows(rows, SIDE), said


def _scaled(panel: np.ndarray) -> np.ndarray:
    """Return PANEL, uint8 H x W x 3, with a longer side of SIDE."""
    scale = SIDE / max(panel.shape[:2])
    size = [max(1, round(length * scale)) for length in panel.shape[:2]]
    return resize(torch.from_numpy(panel), size).numpy()
