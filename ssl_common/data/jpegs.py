"""JPEG decoders that are faster than Pillow and give the same pixels."""

import contextlib
import functools
import io
import os
import struct
import warnings
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

FRAMES = range(0xC0, 0xC3)  # markers: of a baseline, an extended and a progressive JPEG
SCAN = 0xDA
# Tables, a comment, JFIF, a profile of colours, what Photoshop and Adobe add.
PLAIN = (0xC4, 0xDB, 0xDD, 0xFE, 0xE0, 0xE2, 0xED, 0xEE)
# What hasten() found: a function from the bytes of a JPEG, a tensor, to pixels 3 x H x W.
_decoder: Callable[[torch.Tensor], torch.Tensor] | None = None


def hasten() -> None:
    """Look for a decoder that is faster than Pillow and gives the same pixels.

    torchvision takes a second and a half to import: some 5,000 images repay it.
    """
    global _decoder
    if not _decoder:
        _decoder = next(filter(_agrees, _decoders()), None)


def decode(data: bytes) -> torch.Tensor | None:
    """Return the pixels of DATA, a JPEG, uint8 H x W x 3; None where hasten() found nothing.

    None, too, for a broken file: Pillow has the last word on it.
    """
    if not _decoder:
        return None
    try:
        with _mute():
            return _by(_decoder, data)
    except RuntimeError:
        return None


def takes(start: bytes) -> bool:
    """Tell whether decode() may have the file that begins with START, and Pillow need not look.

    It is a JPEG of 8 bits, gray or of three colours, whose header ends in START, says nothing of
    how the picture is turned, and makes it no larger than Pillow reads without a word.
    """
    place, frames = 2, 0
    while _decoder and start[place : place + 1] == b"\xff" and len(start) > place + 20:
        kind, length = start[place + 1], int.from_bytes(start[place + 2 : place + 4])
        if kind == SCAN:
            return frames == 1 and start.startswith(b"\xff\xd8")
        if kind in FRAMES:
            bits, height, width, colours = struct.unpack_from(">BHHB", start, place + 4)
            large = height * width > (Image.MAX_IMAGE_PIXELS or 0)
            if bits != 8 or colours not in (1, 3) or large:
                return False
            frames += 1
        elif kind not in PLAIN:
            return False
        place += 2 + max(2, length)
    return False


def _by(decoder, data):
    return decoder(torch.frombuffer(bytearray(data), dtype=torch.uint8)).permute(1, 2, 0)


def _decoders():
    """Yield the decoders that are installed, the fastest first."""
    for decoder in (_of_simplejpeg, _of_torchcodec, _of_torchvision):
        with contextlib.suppress(ImportError, OSError, RuntimeError):  # built for another torch
            yield decoder()


def _of_simplejpeg():
    from simplejpeg import decode_jpeg

    def decode(data: torch.Tensor) -> torch.Tensor:
        try:  # what libjpeg only warns of is an error to it
            pixels = decode_jpeg(data.numpy(), "RGB", fastdct=False, fastupsample=False)
        except ValueError as error:
            raise RuntimeError(error) from error
        return torch.from_numpy(pixels).permute(2, 0, 1)

    return decode


def _of_torchcodec():
    from torchcodec.decoders import decode_jpeg  # from 0.16 on, as RGB

    return decode_jpeg


def _of_torchvision():
    from torchvision.io import ImageReadMode, decode_jpeg  # which it will drop

    return functools.partial(decode_jpeg, mode=ImageReadMode.RGB)


def _agrees(decoder):
    """Tell whether DECODER gives the pixels of Pillow, whose libjpeg may be another.

    They differ where colours are stored with fewer pixels, and in files cut after a first scan.
    """
    with warnings.catch_warnings(action="ignore"):  # torchvision warns of its removal
        for data in _probes():
            with Image.open(io.BytesIO(data)) as image:
                want = np.asarray(image.convert("RGB"))
            try:
                pixels = _by(decoder, data)
            except RuntimeError:
                return False
            if not np.array_equal(pixels, want):
                return False
    return True


def _probes():
    """Yield small JPEGs of every kind, as bytes."""
    y, x = np.mgrid[:48, :48]
    waves = np.stack([x * x // 9, 5 * y, (x + 2) * (y + 3) // 11], 2) % 256
    picture = Image.fromarray(waves.astype(np.uint8))
    for progressive in (False, True):
        for subsampling in (0, 1, 2):  # 4:4:4, 4:2:2, 4:2:0
            stream = io.BytesIO()
            how = {"subsampling": subsampling, "progressive": progressive, "quality": 80}
            picture.save(stream, "JPEG", **how)
            yield (data := stream.getvalue())
            if subsampling == 1:  # 4:4:0, of the same blocks
                yield data.replace(b"\1\x21\0\2\x11\1\3\x11\1", b"\1\x12\0\2\x11\1\3\x11\1")
            if progressive:  # its first scan alone
                end = data.index(b"\xff\xc4", data.index(b"\xff\xda"))
                yield data[:end] + b"\xff\xd9"


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
