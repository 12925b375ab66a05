"""A sheet of panels with lines of text below them."""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssl_common import legible

FONT, LINE = 12, 16  # pixels: of a letter, from line to line
MARGIN, SPACE = 12, 24  # pixels around the picture, between panels
INK = "black"


def sheet(size: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return (white picture of SIZE, a pen for it)."""
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    pen.font = ImageFont.load_default(FONT)
    return picture, pen


def in_rows(
    rows: Sequence[tuple[Sequence[np.ndarray], Sequence[Sequence[str]]]], side: int
) -> Image.Image:
    """Return a sheet of ROWS: three panels each, uint8 and SIDE pixels wide and high at most.

    Below each panel stand its lines of text, two at most, the end of what is too long.
    """
    height = 2 * MARGIN + side + 2 * LINE
    picture, pen = sheet((2 * MARGIN + 3 * side + 2 * SPACE, height * len(rows)))
    for row, (panels, texts) in enumerate(rows):
        top = row * height + MARGIN
        for column, (panel, lines) in enumerate(zip(panels, texts, strict=True)):
            x = MARGIN + column * (side + SPACE)
            picture.paste(Image.fromarray(panel), (x, top))
            shown = [fitting(pen, line, side) for line in lines]
            caption(pen, shown, (x, top + panel.shape[0]))
    return picture


def fitting(pen: ImageDraw.ImageDraw, name: str, width: int) -> str:
    """Return what of the end of a file NAME fits WIDTH pixels."""
    text = whole = legible.text(name)
    while pen.textlength(text) > width:
        whole = whole[1:]
        text = f"\u2026{whole}"
    return text


def caption(
    pen: ImageDraw.ImageDraw, lines: Iterable[str], corner: tuple[int, int], hue: str = INK
) -> None:
    """Write LINES below the panel whose lower left CORNER that is, the first in the colour HUE."""
    x, y = corner[0], corner[1] + LINE // 4
    for index, line in enumerate(lines):
        pen.text((x, y + index * LINE), line, hue if index == 0 else INK)
