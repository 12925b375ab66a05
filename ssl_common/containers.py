"""The content of files, arrays, tensors and JSON: read completely, and trusted in nothing.

Nothing that is read runs code. Bytes that are of another kind, damaged or cut short are a DataError
in one line; no more is taken into memory than is there, or than a stated limit.
"""

import contextlib
import errno
import io
import json
import math
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from ssl_common import legible, shortage, streams
from ssl_common.streams import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike

    from ssl_common.stored import Stored

# An archive may unpack to so many times its size, and always to so many bytes: weights and features
# do not shrink to a half.
UNPACKED, ALWAYS = 100, 1 << 26
LONGEST = 200  # characters of what a parser says
LONGEST_HEADER = 1 << 17  # bytes, of a .npy: NumPy reads no longer one
PIECE = 1 << 20  # bytes


@contextlib.contextmanager
def understanding(path: str, kind: str) -> Iterator[None]:
    """Read KIND in this block: what a parser raises on other bytes is a DataError that names PATH.

    It may be almost anything. What the machine lacks or a disk does not give is no fault of the
    file and passes; warnings of the parser are dropped.
    """
    with streams.naming(path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except DataError:
            raise
        except Exception as error:
            # A parser that seeks where a damaged file sends it fails by an OSError too.
            of_the_system = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
            if of_the_system or shortage.lacking(error):
                raise
            message = f"not {kind}, or damaged ({_reason(error)})"
            raise DataError(f"{streams.name(path)}: {message}") from error


def _reason(error: Exception) -> str:
    """Return what ERROR says, in one line of a bounded length."""
    text = legible.line(str(error)) or type(error).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


# ---- Arrays -------------------------------------------------------------------------------------

ARRAY, ARRAYS = "a .npy array", "a .npz archive"


def read_array(path: str) -> "Stored | np.ndarray":
    """Return the array of a .npy file, as Stored, or of a pipe, in memory; refuse pickles."""
    if path != "-" and os.path.isfile(path):
        return stored_array(path)
    with streams.reading(path) as stream:
        data = bytearray().join(iter(lambda: stream.read(PIECE), b""))
    with understanding(path, ARRAY):
        return _array(data)


def stored_array(path: str) -> "Stored":
    """Return the array in the .npy file PATH, which stays there; no pipe is waited for."""
    from ssl_common.stored import Stored

    with streams.regular(path) as stream, understanding(path, ARRAY):
        dtype, shape, order = _header(stream, os.fstat(stream.fileno()).st_size)
        return Stored(path, dtype, shape, order, stream.tell(), stream.fileno())


def read_arrays(path: str) -> "dict[str, np.ndarray]":
    """Read the named arrays of a .npz file or pipe as a dict; refuse pickles."""
    with streams.reading(path) as stream:
        return _arrays(path, io.BytesIO(stream.read()))


def read_either(path: str) -> "np.ndarray | dict[str, np.ndarray]":
    """Return what read_array() or read_arrays() gives of the file or pipe PATH, in memory."""
    with streams.reading(path) as stream:
        data = stream.read()
    if not data.startswith(b"\x93NUMPY"):
        return _arrays(path, io.BytesIO(data))
    with understanding(path, ARRAY):
        return _array(bytearray(data))


def _arrays(path: str, data: BinaryIO) -> "dict[str, np.ndarray]":
    """Return the named arrays that DATA, of PATH, holds."""
    with understanding(path, ARRAYS), _archive(data) as archive:
        arrays = {}
        for member in archive.infolist():
            with understanding(f"{streams.name(path)}: {member.filename}", "an array"):
                array = _array(_unpacked(archive, member))
            arrays[member.filename.removesuffix(".npy")] = array
        return arrays


def _archive(stream: BinaryIO) -> zipfile.ZipFile:
    """Return the zip archive in STREAM, whose members can be read: there once and of a right size.

    Raises ValueError for another; the checksum of a member is looked at as it is read.
    """
    if not (size := stream.seek(0, os.SEEK_END)):
        raise ValueError("it is empty")
    archive = zipfile.ZipFile(stream)
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(ALWAYS, UNPACKED * size):
        raise ValueError(f"it would unpack to {unpacked:,} bytes, over {UNPACKED} times its size")
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename} is packed in a way that is not read")
    if len(set(archive.namelist())) < len(members):
        raise ValueError("a name stands there twice")
    return archive


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytearray:
    """Return what MEMBER of ARCHIVE holds, a bytearray, with no copy of it in between."""
    data = bytearray(member.file_size)
    with archive.open(member) as stream:
        for start in range(0, len(data), PIECE):
            piece = stream.read(min(PIECE, len(data) - start))
            data[start : start + len(piece)] = piece
        if stream.tell() != len(data):
            raise ValueError("it is shorter than it says")
    return data


def _array(data: bytearray) -> "np.ndarray":
    """Return the array that the .npy in DATA, a bytearray, holds: native, C order, writable."""
    import numpy as np

    start = io.BytesIO(data[:LONGEST_HEADER])
    dtype, shape, order = _header(start, len(data))
    array = np.frombuffer(data, dtype, offset=start.tell()).reshape(shape, order=order)
    return np.require(array, dtype.newbyteorder("="), ["C", "A", "W"])


def _header(stream: BinaryIO, size: int) -> "tuple[np.dtype, tuple[int, ...], Literal['C', 'F']]":
    """Return (dtype, shape, order) of the .npy in STREAM; the rest of its SIZE bytes is the array.

    Raises ValueError where it is not.
    """
    from numpy.lib import format as npy

    version = npy.read_magic(stream)
    try:  # a later version has the same header but for names of fields, which we do not read
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except MemoryError as error:  # of a text of 10,000 bytes at most: it is nested too deep
        raise ValueError("no header of an array") from error
    if dtype.hasobject:
        raise ValueError("objects, which only a program could read")
    claimed, there = dtype.itemsize * math.prod(shape), size - stream.tell()
    if claimed != there or min(shape, default=0) < 0:
        raise ValueError(f"{there:,} bytes follow, where its header promises {claimed:,}")
    return dtype, tuple(map(int, shape)), "F" if fortran else "C"


def write_array_header(stream: BinaryIO, dtype: "DTypeLike", shape: Iterable[int]) -> None:
    """Write the header of a .npy array (C order, little endian); its bytes follow in any pieces."""
    import numpy as np

    descr = np.lib.format.dtype_to_descr(np.dtype(dtype).newbyteorder("<"))
    header = {"descr": descr, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(stream, header)


def write_array(stream: BinaryIO, array: "np.ndarray") -> None:
    """Write ARRAY as .npy: C order, little endian, never pickled."""
    import numpy as np

    write_array_header(stream, array.dtype, array.shape)
    stream.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)


def write_arrays(stream: BinaryIO, **arrays: Any) -> None:
    """Write named ARRAYS, or what NumPy makes arrays of, as .npz: to a pipe as to a file."""
    import numpy as np

    buffer = io.BytesIO()  # what seeks gets other bytes than what cannot
    np.savez(buffer, **arrays)
    stream.write(buffer.getvalue())


# ---- Tensors ------------------------------------------------------------------------------------

SAFETENSORS_BEGIN = 9  # bytes: the length of a header below 4 GB, and its first character


def is_safetensors(begin: bytes) -> bool:
    """Tell whether a file that BEGINs so is one of safetensors."""
    return begin[5:] == b"\0\0\0{"


def read_tensors(path: str, kind: str) -> Any:
    """Return what torch.save wrote to the file PATH of ours, on the CPU; run no code.

    Raises DataError for what is not KIND, or damaged. The checksums of the archive are looked at
    first: torch looks at none of them.
    """
    import torch

    with streams.regular(path) as stream:
        if is_safetensors(stream.read(SAFETENSORS_BEGIN)):
            message = f"safetensors, which holds a network alone, and not {kind}"
            raise DataError(f"{streams.name(path)}: {message}")
    with streams.regular(path) as stream, understanding(path, kind), _archive(stream) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"the checksum of {damaged} is wrong")
    with understanding(path, kind), contextlib.ExitStack() as stack:
        # By its name torch takes it for what it is not.
        misnamed = path.endswith(".safetensors")
        source = stack.enter_context(streams.regular(path)) if misnamed else path
        try:
            return torch.load(source, map_location="cpu", weights_only=True)
        except Exception as error:
            if isinstance(error, OSError) or shortage.lacking(error):
                raise
            # Its other sentences tell how to read the file by running what it names.
            raise ValueError(str(error).split(". ")[0] or type(error).__name__) from error


# ---- JSON ---------------------------------------------------------------------------------------

DIGITS = 400  # of a whole number in JSON; Python refuses to read ten times that


def parse(text: str | bytes) -> Any:
    """Return what the JSON TEXT, str or UTF-8 bytes, says; raise ValueError for what is none.

    That is stricter than Python: no NaN or infinity, by name or by size, no key twice in an object,
    no half of a character.
    """
    text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    if not text.strip():
        raise ValueError("it is empty: delete it")
    try:
        value = _DECODER.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from error
    except UnicodeEncodeError as error:
        raise ValueError("half of a surrogate pair") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _value in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{json.dumps(twice)} stands there twice")
    return value


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return number


def parse_quickly(text: str) -> Any:
    """Return what parse() does of TEXT, in a fifth of the time where there are many numbers.

    But who calls it sees to numbers that are not finite, to half of a character, and to errors: any
    ValueError or RecursionError, which parse() then tells in words.
    """
    return _QUICK.decode(text)


_QUICK = json.JSONDecoder(object_pairs_hook=_object)
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_whole, parse_float=_finite, parse_constant=_finite
)


def json_object(data: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in DATA, bytes, as a dict; raise DataError that names WHERE."""
    try:
        value = parse(data)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({legible.line(error)})") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: not a JSON object")
    return value


def read_json(path: str) -> dict[str, Any]:
    """Return the JSON object in the file PATH, as a dict."""
    with streams.regular(path) as stream:
        return json_object(stream.read(), streams.name(path))
