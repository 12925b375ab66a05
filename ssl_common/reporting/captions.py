"""A sheet of panels with lines of text below them."""

from collections.abc import Iterable

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
