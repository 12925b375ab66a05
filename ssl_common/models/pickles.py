"""Pickles of arrays, as Caffe2 left them, read without running what is in them.

A pickle is a program that may call whatever it names. Here a name leads to one of six stand-ins,
which take down what they are given, and any other ends the reading. NumPy itself sees bytes only:
its own way to take in a pickled array trusts what the pickle says of memory.
"""

import math
import pickle
import re

import numpy as np

from ssl_common.streams import DataError

CODE = re.compile(r"[biuf][1248]|O8?|\?")
BYTES = {str: lambda text: text.encode("latin1"), bytes: bytes, bytearray: bytes}


def read(stream, path):
    """Return what the pickle in STREAM holds: arrays, strings, numbers and containers of them.

    PATH is what messages call it. Raises DataError for one that asks for anything else, naming it,
    and for a damaged one.
    """
    try:
        return _Reader(stream, encoding="latin1").load()  # Python 2's strings, bytes among them
    except (DataError, MemoryError, OSError):
        raise
    except _Refused as error:
        message = "which no file of weights needs: refused, and nothing was run"
        raise DataError(f"{path}: a pickle that asks for {error}, {message}") from None
    except Exception as error:  # a damaged one raises almost anything
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: not a pickle of weights, or damaged ({reason})") from error


def read_npy(stream, path):
    """Return what the .npy in STREAM holds: an array, or the one object that it wraps."""
    try:
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, _fortran, dtype = header(stream)
    except ValueError as error:
        raise DataError(f"{path}: not a .npy array, or damaged ({error})") from error
    if shape != () or not dtype.hasobject:
        raise DataError(f"{path}: one array, not a network: a file of weights names many")
    found = read(stream, path)
    inside = found.state[4] if isinstance(found, Array) and len(found.state) == 5 else None
    if not isinstance(inside, list) or len(inside) != 1:
        raise DataError(f"{path}: not a .npy of weights, or damaged")
    return inside[0]


class _Refused(Exception):
    """What a pickle asked for, module.name."""


class _Stand:
    """What a pickle may call; each takes the arguments as they are and looks at them later."""

    state = ()

    def __init__(self, *arguments):
        self.arguments = arguments

    def __setstate__(self, state):
        self.state = state

    def array(self):
        """Return the array; raise ValueError where what was taken down makes none."""
        try:
            return self.numpy()
        except (AttributeError, LookupError, TypeError) as error:
            raise ValueError("a damaged array") from error


class _Type(_Stand):
    """numpy.dtype, or numpy.ndarray, which says no more than that."""

    def numpy(self):
        code, order = self.arguments[0], self.state[1] if self.state else "<"
        if not isinstance(code, str) or not CODE.fullmatch(code) or order not in tuple("<>|="):
            raise ValueError(f"an array of {code!r}")
        if code.startswith("O"):
            raise ValueError("an array of objects")
        return np.dtype(code).newbyteorder(order)


class Array(_Stand):
    """numpy.ndarray: its state is (version, shape, type, Fortran order, bytes)."""

    def numpy(self):
        _version, shape, kind, fortran, data = self.state
        return _array(data, kind, shape, "F" if fortran else "C")


class _Buffer(_Stand):
    """The array of pickle protocol 5: its arguments are bytes, type, shape and order."""

    def numpy(self):
        return _array(*self.arguments)


class _Scalar(_Stand):
    """One number of NumPy: its arguments are type and bytes."""

    def numpy(self):
        kind, data = self.arguments
        return _array(data, kind, (), "C")


class _Bytes(_Stand):
    """codecs.encode, by which Python 3 writes bytes for Python 2."""

    def __new__(cls, text, encoding):
        if encoding != "latin1" or not isinstance(text, str):
            raise ValueError(f"text encoded as {encoding!r}")
        return text.encode(encoding)


def _array(data, kind, shape, order):
    """Return the array of SHAPE whose bytes are DATA, checked to be as many."""
    if not isinstance(kind, _Type):
        raise ValueError("an array of no type")
    dtype, shape = kind.numpy(), tuple(shape)
    data = BYTES[type(data)](data)
    if any(type(side) is not int or side < 0 for side in shape) or order not in ("C", "F"):
        raise ValueError(f"an array of shape {shape}")
    if len(data) != dtype.itemsize * math.prod(shape):
        raise ValueError(f"an array of {shape} in {len(data)} bytes")
    native = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
    return native.reshape(shape, order=order)


ARRAYS = (Array, _Buffer, _Scalar)
_NUMPY = {
    "multiarray": {"_reconstruct": Array, "scalar": _Scalar},
    "numeric": {"_frombuffer": _Buffer},
}
ALLOWED = {
    f"numpy.{core}.{module}.{name}": stand
    for core in ("core", "_core")
    for module, names in _NUMPY.items()
    for name, stand in names.items()
} | {
    "numpy.ndarray": _Type,
    "numpy.dtype": _Type,
    "_codecs.encode": _Bytes,
    "collections.OrderedDict": dict,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module, name):
        if f"{module}.{name}" not in ALLOWED:
            raise _Refused(f"{module}.{name}")
        return ALLOWED[f"{module}.{name}"]

    def persistent_load(self, _id):
        raise _Refused("an object outside of the file")
