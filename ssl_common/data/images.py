"""Bytes to RGB, whatever the file: CMYK, 16-bit, palette, gray, EXIF-turned, 1 pixel wide.

An image is uint8 H x W x 3, a tensor, from here on: torch resizes it three times as fast as Pillow.
"""

import contextlib
import functools
import os
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.ExifTags import Base
from torch.nn.functional import interpolate

from ssl_common.streams import DataError

MAX_AREA = 1 << 24  # pixels after resizing: a 1-pixel-wide image would otherwise fill the memory
TURNED = range(2, 9)  # values of EXIF's Orientation


class Unreadable(DataError):
    """An image file that cannot be read; the message says which and why."""


_decode_jpeg = None  # what hasten() found: a function from the bytes of a JPEG to 3 x H x W


def hasten():
    """Let JPEGs be decoded by what is faster than Pillow, to the same pixels, if it is there.

    torchvision takes a second and a half to import: some 5,000 images repay it.
    """
    global _decode_jpeg
    if _decode_jpeg:
        return
    try:
        from torchcodec.decoders import decode_jpeg as _decode_jpeg  # as RGB
    except (ImportError, OSError, RuntimeError):  # the last two: built for another torch
        try:
            from torchvision.io import ImageReadMode, decode_jpeg
        except ImportError:  # torchvision will drop it
            return
        _decode_jpeg = functools.partial(decode_jpeg, mode=ImageReadMode.RGB)


def read(path, root="."):
    """Return the image file PATH (relative to ROOT) as RGB, uint8 H x W x 3.

    It is upright by its EXIF tag. Raises Unreadable for a file that is missing, cut short or not an
    image.
    """
    full = os.path.join(root, path)
    try:
        # Odd tags and palettes are read all the same, and torchvision warns of its removal.
        quiet = warnings.catch_warnings(action="ignore")
        with quiet, open(full, "rb") as stream, Image.open(stream) as image:
            return decode(image, stream)
    except Image.UnidentifiedImageError as error:
        raise Unreadable(f"{full}: not an image") from error
    except OSError as error:
        raise Unreadable(f"{full}: {error.strerror or error}") from error
    except Exception as error:  # decoders of broken files raise almost anything (SyntaxError, ...)
        raise Unreadable(f"{full}: {type(error).__name__}: {error}") from error


def decode(image, stream):
    """Return the pixels of IMAGE, which Pillow opened on STREAM and did not load yet.

    After hasten() Pillow has all but upright gray and RGB JPEGs, and the last word on broken ones.
    """
    upright = image.getexif().get(Base.Orientation, 1) not in TURNED
    if _decode_jpeg and image.format == "JPEG" and image.mode in ("L", "RGB") and upright:
        stream.seek(0)
        try:
            data = torch.from_numpy(np.fromfile(stream, np.uint8))
            with _mute():
                return _decode_jpeg(data).permute(1, 2, 0)
        except RuntimeError:
            stream.seek(0)
            image = Image.open(stream)
    image.load()
    return torch.from_numpy(np.array(rgb(ImageOps.exif_transpose(image))))


@contextlib.contextmanager
def _mute():
    """Let nothing through to standard error: libjpeg talks there of every odd byte."""
    try:
        kept = os.dup(2)
    except OSError:  # closed
        yield
        return
    try:
        os.dup2(_devnull(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@functools.cache
def _devnull():
    return os.open(os.devnull, os.O_WRONLY)


def rgb(image):
    """Return Pillow's IMAGE as RGB; 16 bits are scaled to 8, where Pillow alone would clip them."""
    if image.mode.startswith("I"):
        image = image.point(lambda value: value / 256).convert("L")
    return image if image.mode == "RGB" else image.convert("RGB")


def resize(image, size):
    """Return IMAGE (H x W x 3) at SIZE (height, width): 8-bit, bilinear and antialiased.

    Within 1 of what Pillow makes of it, whose filter it is.
    """
    planes = image[None].permute(0, 3, 1, 2)  # channels last, as torch is fastest
    return interpolate(planes, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)


def resize_short(image, side):
    """Return IMAGE (H x W x 3) with a short side of SIDE, the other floored (protocol 4.0).

    The area is at most MAX_AREA, for which the long side gives way.
    """
    old = image.shape[:2]
    new = [min(max(side, length * side // min(old)), MAX_AREA // side) for length in old]
    if new == list(old):
        return image
    if max(new) < max(old) and min(new) > min(old):  # a strip: first what makes it smaller
        image = resize(image, [min(lengths) for lengths in zip(old, new, strict=True)])
    return resize(image, new)


def crop(image, side, drawn):
    """Return the SIDE x SIDE part of IMAGE (H x W x 3) whose corner DRAWN says: x, y in [0, 1)."""
    (x, y), (height, width) = drawn, image.shape[:2]
    left, top = int(x * (width - side + 1)), int(y * (height - side + 1))
    return image[top : top + side, left : left + side]
