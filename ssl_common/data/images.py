"""Bytes to RGB, whatever the file: CMYK, 16-bit, palette, gray, EXIF-turned, 1 pixel wide."""

import os
import warnings

from PIL import Image, ImageOps

from ssl_common.streams import DataError

MAX_AREA = 1 << 24  # pixels after resizing: a 1-pixel-wide image would otherwise fill the memory


class Unreadable(DataError):
    """An image file that cannot be read; the message says which and why."""


def read(path, root="."):
    """Return the image file PATH (relative to ROOT) as an RGB image, upright by its EXIF tag.

    Raises Unreadable for a file that is missing, cut short or not an image.
    """
    full = os.path.join(root, path)
    try:
        with warnings.catch_warnings(), Image.open(full) as image:
            warnings.simplefilter("ignore")  # odd tags and palettes are read all the same
            image.load()
            return rgb(ImageOps.exif_transpose(image))
    except Image.UnidentifiedImageError as error:
        raise Unreadable(f"{full}: not an image") from error
    except OSError as error:
        raise Unreadable(f"{full}: {error.strerror or error}") from error
    except Exception as error:  # decoders of broken files raise almost anything (SyntaxError, ...)
        raise Unreadable(f"{full}: {type(error).__name__}: {error}") from error


def rgb(image):
    """Return IMAGE as RGB; 16 bits are scaled to 8, where Pillow alone would clip them."""
    if image.mode.startswith("I"):
        image = image.point(lambda value: value / 256).convert("L")
    return image if image.mode == "RGB" else image.convert("RGB")


def resize_short(image, side):
    """Return IMAGE resized so that its short side is SIDE, the other floored (protocol 4.0).

    Bilinear and antialiased. The area is at most MAX_AREA, for which the long side gives way.
    """
    width, height = image.size
    short = min(width, height)
    size = [max(side, length * side // short) for length in (width, height)]
    size = tuple(min(length, MAX_AREA // side) for length in size)
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)
