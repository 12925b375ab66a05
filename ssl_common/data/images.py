"""Bytes to RGB, whatever the file: CMYK, 16-bit, palette, gray, turned by EXIF, 1 pixel wide.

An image is uint8 H x W x 3, a tensor, from here on: torch resizes it three times as fast as Pillow.
"""

import contextlib
import io
import os
import re
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from PIL.ExifTags import Base

from ssl_common import shortage
from ssl_common.data import jpegs, metadata
from ssl_common.data.stores import Store, store
from ssl_common.data.suffixes import FORMATS, UNMARKED
from ssl_common.streams import SHORTAGE, DataError

AT_ONCE = 1 << 28  # bytes
DECODING = 20  # bytes that a pixel takes at most while it is decoded
HEADER = 1 << 16  # bytes, in which that of a JPEG ends
SAMPLE_FORMAT = 339  # of TIFF
TURNS = {  # values of EXIF's Orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)  # fmt: skip


class Unreadable(DataError):
    """An image file that cannot be read; the message says which and why."""


def read(
    path: str, root: str | Store = ".", hook: Callable[[BinaryIO], object] = lambda stream: None
) -> torch.Tensor:
    """Return the image PATH of the folder or store ROOT as RGB, uint8 H x W x 3.

    It is upright by its EXIF tag. HOOK is called with the file, open at its start, once the pixels
    are read. Raises Unreadable for a file that is missing, cut short or not an image, and DataError
    where it is the machine that lacks something.
    """
    place = store(root)
    name = place.name(path)
    try:
        # Odd tags and palettes are read all the same, and torchvision warns of its removal.
        with warnings.catch_warnings(action="ignore"), place.open(path) as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            # In memory, where a damaged header gets no more room than there are bytes.
            if size <= AT_ONCE:
                source: BinaryIO = io.BytesIO(stream.read())
                pixels = _decode_again(source, name)
            else:
                source = stream
                pixels = decode(source, name)
            source.seek(0)
            hook(source)
            return pixels
    except Exception as error:  # decoders of broken files raise almost anything (SyntaxError, ...)
        raise _complaint(name, error) from error


def size(path: str, root: str | Store = ".") -> tuple[int, int]:
    """Return (height, width) of the image PATH of ROOT as read() gives it, by its header if it can.

    Raises what read() does; the pixels of a file whose header is whole may be damaged all the same.
    """
    place = store(root)
    with (
        contextlib.suppress(Exception),  # then read() has the last word
        warnings.catch_warnings(action="ignore"),
        place.open(path) as stream,
    ):
        image = Image.open(stream, formats=_formats(path))
        turned = TURNS.get(_orientation(image)) in SIDEWAYS
        return image.size if turned else image.size[::-1]
    height, width = read(path, place).shape[:2]
    return height, width


def _complaint(name, error):
    """Return the error that says why the image NAME could not be read."""
    if lacks := lacking(error):
        return DataError(f"{name}: {lacks}")
    if isinstance(error, Image.UnidentifiedImageError):
        return Unreadable(f"{name}: not an image, or of a kind that is not read")
    if isinstance(error, OSError):
        return Unreadable(f"{name}: {error.strerror or error}")
    if isinstance(error, DataError):
        return Unreadable(f"{name}: {error}")
    return Unreadable(f"{name}: {type(error).__name__}: {error}")


def lacking(error: BaseException) -> str | None:
    """Return what the machine lacks by ERROR, and what to do; None if the input is at fault."""
    if isinstance(error, Image.UnidentifiedImageError):
        return None  # its text has the name of the file, which may be anything
    if lacks := shortage.lacking(error):
        return f"{lacks}: give a smaller -j"
    if isinstance(error, OSError) and error.errno in SHORTAGE:
        return f"{error.strerror}: the disk fails, or its server, not the image"
    return None


def _decode_again(stream, path):
    """Return the pixels of STREAM, the bytes of PATH: if need be, without its metadata."""
    try:
        return decode(stream, path)
    except DataError:
        raise
    except Exception as error:
        without = None if lacking(error) else metadata.bare(stream.getvalue())
        if without is None:
            raise
        try:
            return decode(io.BytesIO(without), path)
        except Exception as again:
            raise again if lacking(again) else error from None


def decode(stream: BinaryIO, path: str) -> torch.Tensor:
    """Return the pixels of STREAM, which stands at PATH, as read() does.

    Pillow has all but the upright gray and RGB JPEGs that jpegs.decode() takes, and the last word
    on broken ones.
    """
    start = stream.read(HEADER)
    if jpegs.takes(start) and (pixels := jpegs.decode(start + stream.read())) is not None:
        return pixels
    stream.seek(0)
    formats = _formats(path)
    image: Any = Image.open(stream, formats=formats)
    if image.format == "JPEG" and image.mode in ("L", "RGB") and _orientation(image) not in TURNS:
        stream.seek(0)
        if (pixels := jpegs.decode(stream.read())) is not None:
            return pixels
        stream.seek(0)
        image = Image.open(stream, formats=formats)
    _load(image)
    turn = TURNS.get(_orientation(image))
    image = rgb(image)
    return torch.from_numpy(np.array(image if turn is None else image.transpose(turn)))


def _formats(path):
    """Return the formats in which the file PATH is read: one has no mark, and goes by its name."""
    unmarked = path.lower().endswith(FORMATS[UNMARKED])
    return [name for name in FORMATS if unmarked or name != UNMARKED]


def _load(image):
    """Decode IMAGE, which Pillow opened; raise MemoryError where there is no room for it."""
    try:
        image.load()
    except Exception as error:
        # For want of memory, too, decoders say that a file is broken; and of broken ones, that
        # memory is wanting.
        try:
            np.empty(DECODING * image.width * image.height + (1 << 24), np.uint8)
        except MemoryError:
            raise MemoryError from error  # not that for this array
        wanting = shortage.lacking(error)
        if not wanting:
            raise
    else:
        return
    raise ValueError(f"broken: {wanting}")


def _orientation(image):
    """Return EXIF's Orientation of IMAGE, or 1 if none can be read."""
    # Alone: another tag that is broken would hide it.
    with contextlib.suppress(Exception):
        alone = Image.Exif()
        alone.load(metadata.bare(re.sub(rb"^(Exif\0\0)+", b"", image.info["exif"])) or b"")
        return _whole(alone[Base.Orientation])
    with contextlib.suppress(Exception):
        return _whole(image.getexif()[Base.Orientation])
    return 1


def _whole(value):
    """Return the VALUE of a tag that is one number, of whatever type."""
    return value[0] if isinstance(value, bytes) else value


def rgb(image: Any) -> Image.Image:
    """Return Pillow's IMAGE as RGB; more bits than 8 of a gray one are scaled to 8.

    Raises DataError for pixels that RGB cannot be made of.
    """
    tags = image.tag_v2 if image.format == "TIFF" else {}
    if not _known_range(image, tags):
        message = "pixels of 32 bits, signed or floating-point, whose range is not known"
        raise DataError(f"{message}: save it with 8 or 16 bits")
    apart = tags.get(Base.PlanarConfiguration) == 2 and tags.get(Base.Compression) == 1
    if apart and max(tags[Base.BitsPerSample]) > 8:  # which Pillow mistakes
        raise DataError("16 bits, one colour after another: save it compressed, or with 8 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image) >> (tags.get(Base.BitsPerSample, (16,))[0] - 8)
        inverse = tags.get(Base.PhotometricInterpretation) == 0
        return Image.fromarray((255 - values if inverse else values).astype(np.uint8)).convert(
            "RGB"
        )
    try:
        return image if image.mode == "RGB" else image.convert("RGB")
    except ValueError as error:
        raise DataError(f"pixels of mode {image.mode}: save it as RGB") from error


def _known_range(image, tags):
    """Return whether it is known which value of IMAGE, with the TAGS of a TIFF, is white."""
    if image.mode == "I":  # as Pillow widens 16 bits
        return image.format in ("PNG", "PPM")
    unsigned, void = 1, 4
    return image.mode != "F" and {*tags.get(SAMPLE_FORMAT, [])} <= {unsigned, void}
