"""Lab in the paper's 8-bit convention, and the lightness that a trunk reads.

L, a and b of sRGB under D65 as whole numbers of 8 bits, L * 255 / 100, a + 128 and b + 128: what
OpenCV makes of 8-bit images, which the paper's code called. It is whole-number arithmetic, its
tables too, so every GPU and every CPU gives the same.
"""

import functools

import numpy as np
import torch

from ssl_common.data.pixels import standardize

_FIX, _CBRT = 12, 15  # bits of the fractions of the matrix, and of the roots
_WHITE = 8 * 255  # the light of white: 8 steps a level
# sRGB to XYZ (IEC 61966-2-1), each row by the D65 white point.
_XYZ = np.array([(0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169),
                 (0.019334, 0.119193, 0.950227)]) / [[0.950456], [1.0], [1.088754]]  # fmt: skip


@functools.cache
def _tables(device):
    """Return (what R, G and B add to X, Y and Z: 3 x 3 x 256, f of a sum), as int32 on DEVICE."""
    added = np.rint(_XYZ * (1 << _FIX))[:, :, None] * [_linear(level) for level in range(256)]
    # The sums by that of white in single precision, as OpenCV has them, whose root of the 49th
    # falls short by one: so every one of the 2**24 colours comes out as OpenCV's.
    shares = np.arange(_WHITE + 1, dtype=np.float32) * np.float32(1 / _WHITE)
    roots = np.array([_f(*share.as_integer_ratio()) for share in shares.tolist()])
    roots[49] -= 1
    return tuple(torch.from_numpy(t.astype(np.int32)).to(device) for t in (added, roots))


# Whole numbers, since the last bit of a power or a cube root depends on the processor.


def _linear(level):
    """Return the light of LEVEL, 0 to 255 of sRGB, where that of white is _WHITE."""
    if level <= 10:  # of 255: 0.04045
        return _rounded(_WHITE * level * 100, 255 * 1292)
    # (level / 255 + 0.055) / 1.055 is (40 level + 561) / 10761; to the power of 12 / 5.
    fifth_power = (2 * _WHITE) ** 5 * (40 * level + 561) ** 12 // 10761**12
    return (_root(fifth_power, 5) + 1) // 2


def _f(numerator, denominator):
    """Return f of CIE Lab of a share of white, times 2**_CBRT."""
    if numerator * 1_000_000 > 8856 * denominator:
        return (_root((numerator << 3 * (_CBRT + 1)) // denominator, 3) + 1) // 2
    # 7.787 of it and 16 / 116.
    return _rounded((7787 * 29 * numerator + 4000 * denominator) << _CBRT, 29_000 * denominator)


def _rounded(numerator, denominator):
    return (2 * numerator + denominator) // (2 * denominator)


def _root(value, degree):
    """Return the whole part of the root of VALUE, a whole number."""
    root = int(value ** (1 / degree))  # near it
    while root**degree > value:
        root -= 1
    while (root + 1) ** degree <= value:
        root += 1
    return root


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
    """Return VALUE / 2**BITS, rounded."""
    return (value + (1 << (bits - 1))) >> bits


def lab8(pixels: torch.Tensor) -> torch.Tensor:
    """Return L, a, b, uint8 (... x 3 x H x W), of uint8 RGB PIXELS of that shape."""
    x, y, z = _roots(pixels, range(3))
    a = _descaled(500 * (x - y) + (128 << _CBRT), _CBRT)
    b = _descaled(200 * (y - z) + (128 << _CBRT), _CBRT)
    return torch.stack([_lightness8(y), a, b], -3).clamp_(0, 255).byte()


def _lightness8(y):
    """Return L * 255 / 100 of f of Y."""
    return _descaled(296 * y - ((16 * 255 * (1 << _CBRT) + 50) // 100), _CBRT)


def lightness(pixels: torch.Tensor) -> torch.Tensor:
    """Return L of uint8 RGB PIXELS (... x 3 x H x W), float32 ... x 1 x H x W, -50 to 50."""
    (y,) = _roots(pixels, [1])
    return (_lightness8(y).float() * (100 / 255) - 50).unsqueeze(-3)


def rgb(lightness: np.ndarray, ab: np.ndarray) -> np.ndarray:
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
