"""Files and pipes: read them whole, write them whole or not at all."""

import contextlib
import hashlib
import os
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
