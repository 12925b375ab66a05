"""A picture as SVG of rectangles of few colours, for a page that may load nothing."""

import numpy as np
from PIL import Image

from ssl_common.streams import DataError

PIXELS, COLOURS = 40_000, 24  # of a picture on a page
WIDTH = 620  # pixels that it is shown in, at most


def svg(path: str, label: str, pixels: int = PIXELS) -> str:
    """Return the picture in the file PATH as an <svg> called LABEL, of so many PIXELS at most.

    Raises DataError where it cannot be read.
    """
    try:
        with Image.open(path) as opened:
            shown = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: no picture: {error}") from error
    full = shown.size
    part = min(1.0, (pixels / (full[0] * full[1])) ** 0.5)
    size = tuple(max(1, round(part * side)) for side in full)
    few = shown.resize(size, Image.Resampling.BOX).quantize(COLOURS, dither=Image.Dither.NONE)
    palette = np.array(few.getpalette()).reshape(-1, 3)
    indices = np.asarray(few)
    paths = [_runs(indices == i, palette[i]) for i in np.unique(indices)]
    wide = min(WIDTH, full[0])
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 -0.5 {size[0]} {size[1]}"'
        f' width="{wide}" height="{round(wide * size[1] / size[0])}"'
        f' shape-rendering="crispEdges">{"".join(paths)}</svg>'
    )


def _runs(inside: np.ndarray, colour: np.ndarray) -> str:
    """Return the pixels INSIDE (H, W) as one path of horizontal strokes of COLOUR."""
    edges = np.diff(np.pad(inside, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    ys, starts = np.nonzero(edges == 1)
    _ys, ends = np.nonzero(edges == -1)
    steps, x, y = [], 0, 0
    for row, start, end in zip(ys.tolist(), starts.tolist(), ends.tolist(), strict=True):
        steps.append(f"m{start - x} {row - y}h{end - start}")
        x, y = end, row
    red, green, blue = colour.tolist()
    return f'<path stroke="#{red:02x}{green:02x}{blue:02x}" d="{"".join(steps)}"/>'
