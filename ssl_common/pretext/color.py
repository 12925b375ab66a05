"""Lab by the paper's 8-bit convention, and what a trunk reads of an image.

L, a and b of sRGB under D65 as whole numbers of 8 bits, L * 255 / 100, a + 128 and b + 128: what
OpenCV makes of 8-bit images, which the paper's code called. It is whole-number arithmetic and
tables, so a GPU and a CPU give the same.
"""

import functools

import numpy as np
import torch

from ssl_common.data.loading import standardize

_FIX, _GAMMA, _CBRT = 12, 8, 15  # bits of the matrix's fractions, steps a level, bits of the roots
# sRGB to XYZ (IEC 61966-2-1), each row by the D65 white point.
_XYZ = np.array([(0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169),
                 (0.019334, 0.119193, 0.950227)]) / [[0.950456], [1.0], [1.088754]]  # fmt: skip


@functools.cache
def _tables(device):
    """Return (what R, G and B add to X, Y and Z: 3 x 3 x 256, f of a sum), as int32 on DEVICE."""
    level = np.arange(256) / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    linear = np.rint(linear * 255 * _GAMMA)
    added = np.rint(_XYZ * (1 << _FIX))[:, :, None] * linear
    # Of white, in single precision: so every one of the 2**24 colours comes out as OpenCV's.
    share = np.arange(255 * _GAMMA * 3 // 2, dtype=np.float32) * np.float32(1 / (255 * _GAMMA))
    root = np.where(share > 0.008856, np.cbrt(share), share * 7.787 + 16 / 116)
    root = np.rint(root * (1 << _CBRT))
    return tuple(torch.from_numpy(t.astype(np.int32)).to(device) for t in (added, root))


def _roots(pixels, rows):
    """Yield f of X, Y and Z, those in ROWS, of uint8 RGB PIXELS (... x 3 x H x W), int32."""
    added, root = _tables(pixels.device)
    channels = [channel.int() for channel in pixels.unbind(-3)]
    for row in rows:
        total = sum(_looked_up(added[row, c], channel) for c, channel in enumerate(channels))
        yield _looked_up(root, _descaled(total, _FIX))


def _looked_up(table, index):
    return table.index_select(0, index.reshape(-1)).view(index.shape)


def _descaled(value, bits):
    """Return VALUE by 2**BITS, rounded."""
    return (value + (1 << (bits - 1))) >> bits


def lab8(pixels):
    """Return L, a, b, uint8 (... x 3 x H x W), of uint8 RGB PIXELS of that shape."""
    x, y, z = _roots(pixels, range(3))
    a = _descaled(500 * (x - y) + (128 << _CBRT), _CBRT)
    b = _descaled(200 * (y - z) + (128 << _CBRT), _CBRT)
    return torch.stack([_lightness8(y), a, b], -3).clamp_(0, 255).byte()


def _lightness8(y):
    """Return L * 255 / 100 of f of Y."""
    return _descaled(296 * y - ((16 * 255 * (1 << _CBRT) + 50) // 100), _CBRT)


def lightness(pixels):
    """Return L of uint8 RGB PIXELS (... x 3 x H x W), float32 ... x 1 x H x W, -50 to 50."""
    (y,) = _roots(pixels, [1])
    return (_lightness8(y).float() * (100 / 255) - 50).unsqueeze(-3)


def rgb(lightness, ab):
    """Return uint8 RGB (H x W x 3) of LIGHTNESS (H x W), 0 to 100, and AB (... x 2), arrays.

    Colours that sRGB does not have are clipped.
    """
    a, b = np.moveaxis(np.asarray(ab), -1, 0)
    y = (lightness + 16) / 116
    root = np.stack(np.broadcast_arrays(y + a / 500, y, y - b / 200), -1)
    xyz = np.where(root > 6 / 29, root**3, (root - 16 / 116) / 7.787)  # by the white point
    linear = (xyz @ np.linalg.inv(_XYZ).T).clip(0, 1)
    level = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * level).clip(0, 255).astype(np.uint8)


READERS = {"rgb": standardize, "lab": lightness}  # what a trunk reads, from uint8 RGB pixels
