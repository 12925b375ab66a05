"""Files and pipes: read them whole, write them whole or not at all."""

import contextlib
import hashlib
import io
import os
import re
import shutil
import sys


class DataError(Exception):
    """Bad data: one line that names the file, the line and the fix. Commands exit 1 with it."""


class TerminalError(Exception):
    """A terminal stands where data should: commands exit 2 with it."""


def name(path):
    """Return how messages call PATH."""
    return {"-": "standard input"}.get(path, str(path))


@contextlib.contextmanager
def reading(path):
    """Open PATH ("-" is standard input) for reading bytes; refuse a terminal."""
    if path != "-":
        with open(path, "rb") as stream:
            yield stream
    elif sys.stdin is None:
        raise DataError("standard input is closed: name a file, or pipe one in")
    elif sys.stdin.isatty():
        raise TerminalError("no input: name a file, or pipe one in")
    else:
        yield sys.stdin.buffer


@contextlib.contextmanager
def writing(path, binary=True):
    """Open PATH ("-" is standard output) for writing bytes that appear whole or not at all.

    A named file is written beside its place and renamed over it when the block ends well; whatever
    goes wrong, what stood there before is untouched. BINARY output to a terminal is refused.
    """
    if path == "-":
        if binary and sys.stdout.isatty():
            raise TerminalError("binary output: redirect it to a file (>), or name one with -o")
        with naming("standard output"):
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    if is_special(path):
        # A device or FIFO cannot be replaced: renaming over /dev/null as root would destroy it.
        with naming(path), open(path, "wb") as stream:
            yield stream
        return
    with naming(path), writing_together([path]) as (stream,):
        yield stream


def is_special(path):
    """Tell whether PATH is standard output, a device or a FIFO, or a folder: not to be replaced."""
    return path == "-" or (os.path.exists(path) and not os.path.isfile(path))


@contextlib.contextmanager
def writing_together(paths, removed=()):
    """Open the files PATHS for writing bytes; they appear when the block ends well, whole.

    Once the bytes of all are on the disk, those of PATHS that are among REMOVED are taken away, and
    then each takes its place, in their order. Whatever goes wrong before, what stood there is
    untouched.
    """
    # Through a symbolic link: the link stays, its file is replaced.
    targets = {path: os.path.realpath(path) for path in paths}
    partials = {path: f"{target}.{os.getpid()}.partial" for path, target in targets.items()}
    for path, target in targets.items():
        if is_special(target):
            raise DataError(f"{path}: not a file, which could be replaced: remove it")
    try:
        with contextlib.ExitStack() as stack:
            opened = []
            for path, partial in partials.items():
                with naming(path, partial):
                    opened.append(stack.enter_context(open(partial, "wb")))
            yield opened
            for path, stream in zip(paths, opened, strict=True):
                with naming(path):
                    stream.flush()
                    os.fsync(stream.fileno())  # some file systems report a full disk only here
        for path in removed:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(targets[path])
        for path in paths:
            with naming(path, partials[path]):
                os.replace(partials[path], targets[path])
    finally:
        for partial in partials.values():
            with contextlib.suppress(OSError):
                os.unlink(partial)


def is_folder(path):
    """Tell whether PATH names a folder, there or to be made: DIR/."""
    return path.endswith("/") or os.path.isdir(path)


@contextlib.contextmanager
def making_folder(path):
    """Make the folder PATH unless it is there; take it away again if the block fails."""
    made = not os.path.isdir(path)
    if made:
        os.mkdir(path)
    try:
        with naming(path):
            yield
    except BaseException:
        if made:
            with contextlib.suppress(OSError):  # it is not empty: some files are in their place
                os.rmdir(path)
        raise


@contextlib.contextmanager
def writing_folder(path):
    """Yield a folder to fill, which becomes PATH, whole, when the block ends well.

    Raises DataError where PATH is there already, unless it is an empty folder.
    """
    target = os.path.realpath(path)
    if os.path.exists(target):
        if not os.path.isdir(target) or os.listdir(target):
            raise DataError(f"{path}: there already: remove it, or name a folder that is new")
        if os.path.samefile(target, os.curdir):
            raise DataError(f"{path}: the current folder cannot be replaced: name one in it")
    partial = f"{target}.{os.getpid()}.partial"
    try:
        with naming(path, partial):
            os.mkdir(partial)
            yield partial
            os.rename(partial, target)
    except OSError as error:
        inside = os.path.relpath(error.filename or path, partial)
        if not inside.startswith(os.pardir):  # the user knows it under PATH alone
            error.filename = os.path.join(path, inside)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def naming(path, alias=None):
    """Let an OSError that names no file, or ALIAS, name PATH: the file that the user knows."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename in (None, alias):
            error.filename, error.filename2 = path, None
        raise


def abandon(descriptor):
    """Send what is left in the buffer of DESCRIPTOR nowhere, so that exiting raises nothing."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, descriptor)
    os.close(devnull)


def read_array(path):
    """Return the array of a .npy file, as Stored, or of a pipe, in memory; refuse pickles.

    Raises DataError when PATH does not hold one whole .npy array.
    """
    import numpy as np

    try:
        if path != "-" and os.path.isfile(path):
            return _stored(path)
        else:
            with reading(path) as stream:  # np.load seeks, and a pipe cannot
                array = np.load(io.BytesIO(stream.read()), allow_pickle=False)
    except (ValueError, EOFError, SyntaxError) as error:
        message = f"not a .npy array, or cut short ({_without_advice(error)})"
        raise DataError(f"{name(path)}: {message}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{name(path)}: a .npz archive where a .npy array should be")
    return array


def _stored(path):
    """Return the array of the .npy file PATH, which stays there; raise ValueError for another."""
    import math

    from numpy.lib import format as npy

    from ssl_common.stored import Stored

    with open(path, "rb") as stream:
        if stream.read(2) == b"PK":
            raise ValueError("a .npz archive")
        stream.seek(0)
        read = {
            (1, 0): npy.read_array_header_1_0,
            (2, 0): npy.read_array_header_2_0,
        }.get(npy.read_magic(stream))
        if not read:
            raise ValueError("of another version of the format")
        shape, turned, dtype = read(stream)
        there = os.fstat(stream.fileno()).st_size - stream.tell()
        if (
            dtype.hasobject
            or min(shape, default=0) < 0
            or there < dtype.itemsize * math.prod(shape)
        ):
            raise ValueError(f"{shape} of {dtype}")
        return Stored(path, dtype, shape, "F" if turned else "C", stream.tell(), stream.fileno())


def _without_advice(error):
    """Return what NumPy says of a file: of one that is nothing it knows, to unpickle it."""
    return "another kind of file" if "pickle" in str(error) else error


def read_arrays(path):
    """Read the named arrays of a .npz file or pipe as a dict; refuse pickles."""
    import zipfile

    import numpy as np

    try:
        with reading(path) as stream, np.load(io.BytesIO(stream.read()), allow_pickle=False) as npz:
            return dict(npz)
    except (ValueError, EOFError, zipfile.BadZipFile, TypeError, AttributeError) as error:
        message = f"not a .npz archive, or cut short ({_without_advice(error)})"
        raise DataError(f"{name(path)}: {message}") from error


def read_tensors(path, kind, stream=None):
    """Return what torch.save wrote to the file PATH, or to STREAM, on the CPU; run no code.

    Raises DataError for what is not KIND, or damaged.
    """
    import warnings

    import torch

    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")  # protocol 3 is read all the same
            return torch.load(stream or path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file raises almost anything
        for warning in warned:
            if newer := re.search(r"pickle protocol ([4-9])", str(warning.message)):
                message = f"pickle protocol {newer[1]}, which torch reads only by running its code"
                advice = "save it again with torch.save as it is, without pickle_protocol"
                raise DataError(f"{path}: {message}: {advice}") from error
        reason = str(error).split(". ")[0].splitlines() or [type(error).__name__]
        raise DataError(f"{path}: not {kind}, or damaged ({reason[0].strip()})") from error


def write_array_header(stream, dtype, shape):
    """Write the header of a .npy array (C order, little endian); its bytes follow in any pieces."""
    import numpy as np

    descr = np.lib.format.dtype_to_descr(np.dtype(dtype).newbyteorder("<"))
    header = {"descr": descr, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(stream, header)


def write_array(stream, array):
    """Write ARRAY as .npy: C order, little endian, never pickled."""
    import numpy as np

    write_array_header(stream, array.dtype, array.shape)
    stream.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)


def write_arrays(stream, **arrays):
    """Write named ARRAYS as .npz, the same bytes to a file and a pipe."""
    import numpy as np

    buffer = io.BytesIO()  # what seeks gets other bytes than what cannot
    np.savez(buffer, **arrays)
    stream.write(buffer.getvalue())


def digest(data):
    """Return the first 16 hex digits of the SHA-256 of bytes, or of an iterable of bytes."""
    sha = hashlib.sha256()
    for piece in (data,) if isinstance(data, bytes) else data:
        sha.update(piece)
    return sha.hexdigest()[:16]


def file_digest(path):
    """Return digest() of what the file PATH holds."""
    with open(path, "rb") as stream:
        return digest(iter(lambda: stream.read(1 << 20), b""))


def stem(path):
    """Return the file name of PATH without its last ending: how records name a data set."""
    return None if path == "-" else os.path.splitext(os.path.basename(path))[0]
