"""Pickles read without running what is in them.

A pickle is a program that may call whatever it names. Here a name leads to a stand-in, which takes
down what it is given and does nothing. Those of NumPy's arrays and torch's tensors can be asked
for what they stand for; any other, Foreign, keeps its name and what is in it. NumPy and torch see
bytes only: their own ways to take in what is pickled trust what the pickle says of memory.
"""

import io
import math
import pickle
import re
import struct
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar, Self, cast

import numpy as np
import torch

from ssl_common.streams import DataError

MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # begins what read_saved() reads
CODE = re.compile(r"[biuf][1248]|O8?|\?")
BYTES: dict[type, Callable[[Any], bytes]] = {
    str: lambda text: text.encode("latin1"),
    bytes: bytes,
    bytearray: bytes,
}
# What torch calls the type of numbers, and how it is called in files: FloatStorage, float32.
STORAGES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16,
    "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16,
    "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
    "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
}  # fmt: skip
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *STORAGES.values(), torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn,
        torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
    )
}  # fmt: skip

Persistent = Callable[[Any], Any]  # gives what a pickle keeps outside of itself, by its id


def read(stream: BinaryIO, path: str, persistent: Persistent | None = None) -> Any:
    """Return what the pickle in STREAM holds: stand-ins, strings, numbers and containers of them.

    PERSISTENT(id) gives what it keeps outside of itself. PATH is what messages call it. Raises
    DataError for a damaged one.
    """
    try:
        return Reader(stream, persistent).load()
    except (DataError, OSError):
        raise
    except Exception as error:  # a damaged one raises almost anything, MemoryError among it
        reason = " ".join(str(error).split())[:99] or type(error).__name__
        raise DataError(f"{path}: not a pickle of weights, or damaged ({reason})") from error


def read_npy(stream: BinaryIO, path: str) -> Any:
    """Return what the .npy in STREAM holds: an array, or the one object that it wraps."""
    try:
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, _fortran, dtype = header(stream)
    except Exception as error:  # a damaged one raises almost anything
        reason = " ".join(str(error).split())[:99] or type(error).__name__
        raise DataError(f"{path}: not a .npy array, or damaged ({reason})") from error
    if shape != () or not dtype.hasobject:
        raise DataError(f"{path}: one array, not a network: a file of weights names many")
    array = read(stream, path)
    state: Any = array.state if isinstance(array, Array) else ()
    inside = state[4] if isinstance(state, tuple) and len(state) == 5 else None
    if not isinstance(inside, list) or len(inside) != 1:
        raise DataError(f"{path}: not a .npy of weights, or damaged")
    return inside[0]


def read_saved(stream: BinaryIO, path: str) -> Any:
    """Return what torch.save before 1.6 wrote: pickles, then the numbers of each storage."""
    storages: dict[Any, Storage] = {}
    _magic, _protocol, system = (read(stream, path) for _ in range(3))
    whole = read(stream, path, lambda saved: storage(saved, storages))
    for key in read(stream, path):
        storages[key].read(stream, not system["little_endian"])
    return whole


def storage(saved: Any, storages: "dict[Any, Storage]") -> Any:
    """Return the Storage of SAVED, as a pickle of torch names it; STORAGES has those of before."""
    if saved[0] == "module":  # a class, whose source stands beside it
        return saved[1]
    what, kind, key, _where, count, *views = saved
    if what != "storage":
        raise ValueError(f"an object outside of the file, {what}")
    if key not in storages:
        storages[key] = Storage(kind.name, count)
    if not any(views):
        return storages[key]
    _key, start, count = views[0]
    return Storage(kind.name, count, storages[key], start)


# ---- Stand-ins ----------------------------------------------------------------------------------


class _Stand:
    """What a pickle may call; each takes the arguments as they are and looks at them later.

    `name` is how messages call what it stands for.
    """

    name: ClassVar[str]
    arguments: tuple[Any, ...]
    state: Any = ()

    def __new__(cls, *arguments: Any, **_named: Any) -> Self:
        stand = super().__new__(cls)
        stand.arguments = arguments
        return stand

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Foreign(_Stand):
    """Whatever is neither an array nor a tensor: an object of the class or function `name`."""

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__dict__.setdefault("items", {})[key] = value

    def append(self, _value: Any) -> None:
        """Take an item of a list, and a set: none is looked at."""

    add = append

    def contents(self) -> dict[Any, Any]:
        """Return {name: value} of what is in it: its items and attributes, a module's weights."""
        attributes: dict[Any, Any] = {}
        for part in self.state if isinstance(self.state, tuple) else (self.state,):
            attributes |= part if isinstance(part, dict) else {}  # two parts: those of slots second
        if isinstance(attributes.get("_modules"), dict):  # an nn.Module that was saved whole
            kinds = (attributes.get(f"_{kind}") for kind in ("parameters", "buffers", "modules"))
            items = [item for kind in kinds if kind for item in kind.items()]
            return {key: value for key, value in items if value is not None}
        return attributes | self.__dict__.get("items", {})


def foreign(name: str) -> type[Foreign]:
    """Return the class of what stands for NAME, which means nothing here."""
    return type("Foreign", (Foreign,), {"name": name})


class _Ordered(dict[Any, Any]):
    """collections.OrderedDict; the state that torch gives it, _metadata, is of no use here."""

    def __setstate__(self, _state: Any) -> None:
        pass


class _Empty(bytes):
    """bytes, which Python 3 calls for an older protocol where there are none."""

    def __new__(cls) -> Self:
        return super().__new__(cls)


class _Encoded(bytes):
    """codecs.encode, by which Python 3 writes bytes for an older protocol."""

    def __new__(cls, text: Any, encoding: Any) -> bytes:  # type: ignore[misc]  # plain bytes do
        if encoding != "latin1" or not isinstance(text, str):
            raise ValueError(f"text encoded as {encoding!r}")
        return text.encode(encoding)


class Numbers(_Stand):
    """What stands for numbers; tensor() gives them."""

    def tensor(self) -> torch.Tensor:
        """Return them as a tensor; raise ValueError where what was taken down makes none."""
        try:
            return self._tensor()
        except (
            AttributeError, LookupError, TypeError, RuntimeError, OverflowError, struct.error,
            DataError,
        ) as error:  # fmt: skip
            raise ValueError(self.name) from error

    def _tensor(self) -> torch.Tensor:
        raise NotImplementedError


class _NumPy(Numbers):
    name = "no array of numbers"

    def array(self) -> np.ndarray:
        """Return them as an array; raise ValueError where what was taken down makes none."""
        try:
            return self._array()
        except (AttributeError, LookupError, TypeError) as error:
            raise ValueError("a damaged array") from error

    def _array(self) -> np.ndarray:
        raise NotImplementedError

    def _tensor(self) -> torch.Tensor:
        return torch.from_numpy(self.array())


class _Type(_Stand):
    """numpy.dtype, or numpy.ndarray, which says no more than that."""

    name = "numpy.dtype"

    def dtype(self) -> np.dtype:
        code, order = self.arguments[0], self.state[1] if self.state else "<"
        if not isinstance(code, str) or not CODE.fullmatch(code) or order not in tuple("<>|="):
            raise ValueError(f"an array of {code!r}")
        if code.startswith("O"):
            raise ValueError("an array of objects")
        return np.dtype(code).newbyteorder(cast(Any, order))


class Array(_NumPy):
    """numpy.ndarray: its state is (version, shape, type, Fortran order, bytes)."""

    def _array(self) -> np.ndarray:
        _version, shape, kind, fortran, data = self.state
        return _array(data, kind, shape, "F" if fortran else "C")


class _Buffer(_NumPy):
    """The array of pickle protocol 5: its arguments are bytes, type, shape and order."""

    def _array(self) -> np.ndarray:
        return _array(*self.arguments)


class _Scalar(_NumPy):
    """One number of NumPy: its arguments are type and bytes."""

    def _array(self) -> np.ndarray:
        kind, data = self.arguments
        return _array(data, kind, (), "C")


def _array(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    """Return the array of SHAPE whose bytes are DATA, checked to be as many."""
    if not isinstance(kind, _Type):
        raise ValueError("an array of no type")
    dtype, shape = kind.dtype(), tuple(shape)
    data = BYTES[type(data) if type(data) in BYTES else bytes](data)
    if any(type(side) is not int or side < 0 for side in shape) or order not in ("C", "F"):
        raise ValueError(f"an array of shape {shape}")
    if len(data) != dtype.itemsize * math.prod(shape):
        raise ValueError(f"an array of {shape} in {len(data)} bytes")
    native = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
    return native.reshape(shape, order=order)


class Storage:
    """The numbers of one or more tensors: COUNT of the type that torch calls NAME.

    A part of another one, WHOLE, begins at its number START.
    """

    def __init__(
        self, name: str, count: int, whole: "Storage | None" = None, start: int = 0
    ) -> None:
        kind = name.rpartition(".")[2].removesuffix("Storage")
        if kind not in STORAGES or any(type(n) is not int or n < 0 for n in (count, start)):
            raise ValueError(f"{count} numbers of {name}")
        self.name, self.dtype, self.untyped = name, STORAGES[kind], kind == "Untyped"
        self.count, self.start, self.whole = count, start, whole or self
        self.data: bytes | memoryview = b""

    def size(self) -> int:
        """Return how many bytes its numbers have."""
        return self.count * self.dtype.itemsize

    def read(self, stream: BinaryIO, swapped: bool = False) -> None:
        """Take them from STREAM, where their number stands before them."""
        (count,) = struct.unpack("<q", stream.read(8))
        if count != self.count:
            raise ValueError(f"{self.count} numbers, but {count} in the file")
        self.take(stream.read(self.size()), swapped)

    def take(self, data: bytes | memoryview, swapped: bool) -> None:
        """Take its bytes, DATA; SWAPPED are those of a machine that begins with the highest."""
        if len(data) != self.size():
            raise ValueError(f"{self.size()} bytes of numbers, of which there are {len(data)}")
        if swapped and self.untyped:
            raise ValueError("numbers of a big-endian machine, and of no type")
        if swapped and self.dtype.itemsize > 1:
            parts = 2 if self.dtype.is_complex else 1
            data = np.frombuffer(data, f"u{self.dtype.itemsize // parts}").byteswap().tobytes()
        self.data = data

    def numbers(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return them all, as a tensor of one dimension; as another DTYPE if it is untyped."""
        dtype = dtype if self.untyped and dtype else self.dtype
        start, data = self.start * self.dtype.itemsize, self.whole.data
        if len(data) < start + self.size() or self.size() % dtype.itemsize:
            raise ValueError("a tensor beyond its numbers")
        return from_bytes(data[start : start + self.size()], dtype)


def from_bytes(data: bytes | memoryview, dtype: torch.dtype) -> torch.Tensor:
    """Return the numbers of DTYPE whose bytes are DATA, as a tensor of one dimension.

    They share their memory, unless its address is one that no number of DTYPE may have.
    """
    if not data:
        return torch.empty(0, dtype=dtype)
    if np.frombuffer(data, np.uint8).ctypes.data % dtype.itemsize:
        data = bytes(data)
    with warnings.catch_warnings(action="ignore"):  # that it cannot be written to: it never is
        return torch.frombuffer(data, dtype=dtype)


class _Saved(_Stand):
    """A storage in a pickle that torch.save did not write: its argument is what that would."""

    def numbers(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return them all, as those of Storage."""
        return read_saved(io.BytesIO(self.arguments[0]), "a tensor").numbers(dtype)


class Tensor(Numbers):
    """torch.Tensor: its arguments are a storage, where in it, shape and strides, ..., type."""

    name = "no whole tensor"

    def _tensor(self) -> torch.Tensor:
        storage, offset, shape, strides, *rest = self.arguments
        types = [cast(Any, part) for part in rest if isinstance(part, type)]
        named = [stand.name.rpartition(".")[2] for stand in types]
        dtype = next((DTYPES[name] for name in named if name in DTYPES), None)
        if any(isinstance(part, dict) and {"conj", "neg"} & set(part) for part in rest):
            raise ValueError("a tensor whose sign stands beside it")
        shape, strides = tuple(shape), tuple(strides)
        if any(type(n) is not int or n < 0 for n in (offset, *shape, *strides)):
            raise ValueError(f"a tensor of shape {shape}")
        numbers = storage.numbers(dtype)
        steps = zip(shape, strides, strict=True)
        last = offset + sum((side - 1) * step for side, step in steps)
        if 0 not in shape and last >= len(numbers):
            raise ValueError("a tensor beyond its numbers")
        return numbers.as_strided(shape, strides, 0 if 0 in shape else offset)


class _Wrapped(Numbers):
    """What has a tensor or an array as its first argument: a parameter, a tensor of a TPU."""

    name = "no whole tensor"

    def _tensor(self) -> torch.Tensor:
        return self.arguments[0].tensor()


class _Subclassed(Numbers):
    """A tensor of a class of its own: its arguments are how it is made, the class, with what."""

    name = "no whole tensor"

    def _tensor(self) -> torch.Tensor:
        make, _kind, arguments = self.arguments[:3]
        return make(*arguments).tensor()


ARRAYS = (Array, _Buffer, _Scalar)
_NUMPY: dict[str, dict[str, type]] = {
    "multiarray": {"_reconstruct": Array, "scalar": _Scalar},
    "numeric": {"_frombuffer": _Buffer},
}
KNOWN = {
    f"numpy.{core}.{module}.{name}": stand
    for core in ("core", "_core")
    for module, names in _NUMPY.items()
    for name, stand in names.items()
} | {
    "numpy.ndarray": _Type,
    "numpy.dtype": _Type,
    "_codecs.encode": _Encoded,
    "builtins.bytes": _Empty,
    "__builtin__.bytes": _Empty,
    "collections.OrderedDict": _Ordered,
    "torch.storage._load_from_bytes": _Saved,
    "torch._utils._rebuild_tensor": Tensor,
    "torch._utils._rebuild_tensor_v2": Tensor,
    "torch._utils._rebuild_tensor_v3": Tensor,
    "torch._utils._rebuild_parameter": _Wrapped,
    "torch._utils._rebuild_parameter_with_state": _Wrapped,
    "torch._utils._rebuild_device_tensor_from_numpy": _Wrapped,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _Wrapped,
    "torch._utils._rebuild_xla_tensor": _Wrapped,
    "torch.nn.parameter.Parameter": _Wrapped,
    "torch.autograd.variable.Variable": _Wrapped,
    "torch._tensor._rebuild_from_type_v2": _Subclassed,
}


class Reader(pickle._Unpickler):  # the one in C sets aside what memory a damaged memo asks for
    """The unpickler of stand-ins."""

    def __init__(self, stream: BinaryIO, persistent: Persistent | None = None) -> None:
        super().__init__(stream, encoding="latin1")  # Python 2's strings, bytes among them
        self._persistent = persistent
        self._foreign: dict[str, type[Foreign]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of MODULE.NAME; nothing is imported."""
        name = f"{module}.{name}"
        if name not in KNOWN and name not in self._foreign:
            self._foreign[name] = foreign(name)
        return KNOWN.get(name) or self._foreign[name]

    def persistent_load(self, saved: Any) -> Any:
        """Return what the pickle keeps outside of itself under SAVED."""
        if not self._persistent:
            raise ValueError("an object outside of the file")
        return self._persistent(saved)
