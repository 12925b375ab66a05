"""Files and pipes: read them whole, write them whole or not at all."""

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import select
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from ssl_common import legible, partials, processes

BUFFER = 1 << 16  # bytes that are read or written at a time
BINARY = "binary output to a terminal: redirect it to a file (>), or name one with -o"

# What the machine lacks, or a disk or server does not give: never the fault of what the file holds.
SHORTAGE = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOMEM", "EMFILE", "ENFILE", "ENOBUFS", "ENOLCK", "ENOSPC", "EDQUOT"),
        *("EIO", "EREMOTEIO", "EBADMSG", "EUCLEAN"),
        *("ESTALE", "ENOTCONN", "ESHUTDOWN", "ETIMEDOUT", "ECONNREFUSED", "ECONNRESET"),
        *("ECONNABORTED", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
    )
)


class DataError(Exception):
    """Bad data: one line that names the file, the line and the fix. Commands exit 1 with it."""


class TerminalError(Exception):
    """A terminal stands where data should: commands exit 2 with it."""


def name(path: str) -> str:
    """Return how messages call PATH."""
    return {"-": "standard input"}.get(path) or legible.text(path)


def stem(path: str) -> str | None:
    """Return the file name of PATH without its last ending: how records name a data set."""
    if path == "-" or descriptor(path) is not None:
        return None
    return utf8(os.path.splitext(os.path.basename(path))[0])


def descriptor(path: str) -> int | None:
    """Return the number of the open file of this process that PATH is, as /dev/fd/63; or None."""
    folder, base = os.path.split(os.path.abspath(path))
    if base.isdecimal() and os.path.realpath(folder) == os.path.realpath("/proc/self/fd"):
        return int(base)
    if os.path.islink(path) and os.path.exists(path):  # /dev/stdout
        return descriptor(os.path.join(folder, os.readlink(path)))
    return None


# ---- Reading ----------------------------------------------------------------------------------


class _Raw(io.FileIO):
    """An open file whose errors name it as KNOWN_AS; a signal is heard while it is waited for.

    Standard streams may be set not to block, by whoever shares them.
    """

    def __init__(
        self,
        file: str | int,
        mode: str,
        known_as: str,
        closefd: bool = True,
        opener: Callable[[str, int], int] | None = None,
    ) -> None:
        super().__init__(file, mode, closefd, opener)
        self.known_as = known_as
        self.waits = not stat.S_ISREG(os.fstat(self.fileno()).st_mode)
        # What one can write that is ready, without blocking: of a pipe, one page.
        self.most = 4096 if self.waits and os.get_blocking(self.fileno()) else 1 << 16
        self.deaf = False

    def readinto(self, buffer: Any) -> int:
        with naming(self.known_as):
            while True:
                if self.waits:
                    processes.wait(self.fileno(), select.POLLIN)
                if (count := super().readinto(buffer)) is not None:
                    return count

    def read(self, size: int | None = -1) -> bytes:
        return io.RawIOBase.read(self, -1 if size is None else size)  # by way of readinto

    def readall(self) -> bytes:
        with naming(self.known_as):
            if not self.waits:
                return super().readall()
        return b"".join(iter(lambda: self.read(1 << 16), b""))

    def write(self, data: Any) -> int:
        with naming(self.known_as):
            while not self.deaf:
                if self.waits:
                    processes.wait(self.fileno(), select.POLLOUT)
                if (count := super().write(memoryview(data)[: self.most])) is not None:
                    return count
        return len(data)


@contextlib.contextmanager
def reading(path: str) -> Iterator[io.BufferedReader]:
    """Open PATH ("-" is standard input) for reading bytes, a file or pipe; refuse a terminal."""
    if not path:
        raise DataError("the name of an input is empty: name a file")
    processes.heed()
    if path != "-":
        stream: io.BufferedReader = io.BufferedReader(
            _Raw(path, "rb", path, opener=_at_once), BUFFER
        )
        with stream:
            _check_readable(stream, path)
            yield stream
        return
    if sys.stdin is None or not _is_open(sys.stdin.fileno(), os.O_RDONLY):
        raise DataError("standard input: not open for reading: name a file, or pipe one in")
    raw = _Raw(sys.stdin.fileno(), "rb", name(path), closefd=False)
    if raw.isatty():
        raise TerminalError("no input: name a file, or pipe one in")
    yield io.BufferedReader(raw, BUFFER)


def _at_once(path: str, flags: int) -> int:
    """Open PATH, where a FIFO that nobody writes to would otherwise be waited for."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _check_readable(stream: io.BufferedReader, path: str) -> None:
    """Raise the error of PATH, open as STREAM, where it is a device."""
    kind = os.fstat(stream.fileno()).st_mode
    if stream.isatty():
        raise TerminalError(f"{path}: a terminal: name a file, or a pipe")
    if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
        raise DataError(f"{path}: a device: name a file, or a pipe")


def _is_open(number: int, way: int) -> bool:
    """Tell whether the descriptor NUMBER is open, and for WAY, os.O_RDONLY or O_WRONLY."""
    try:
        return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE in (way, os.O_RDWR)
    except OSError:
        return False


def regular(path: str) -> io.BufferedReader:
    """Open the file PATH for reading bytes; no FIFO is waited for, and no device touched.

    Raises OSError where it is one of these, or a socket.
    """
    kind = os.stat(path).st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "not a regular file", path)
    return io.BufferedReader(_Raw(path, "rb", path, opener=_at_once), BUFFER)


# ---- Writing ----------------------------------------------------------------------------------


@contextlib.contextmanager
def writing(path: str, binary: bool = True) -> Iterator[BinaryIO]:
    """Open PATH ("-" is standard output) for writing bytes that appear whole or not at all.

    A named file is written beside its place and renamed over it when the block ends well; whatever
    goes wrong, what stood there before is untouched. BINARY output to a terminal is refused.
    """
    if is_special(path):
        known_as = "standard output" if path == "-" else path
        with naming(known_as), _sending(path, known_as, binary) as stream:
            yield stream
        return
    with naming(path), writing_together([path]) as (stream,):
        yield stream


def is_special(path: str) -> bool:
    """Tell whether PATH is standard output, a device or a FIFO, or a folder: not to be replaced."""
    if path == "-" or descriptor(path) is not None:
        return True
    return os.path.exists(path) and not os.path.isfile(path)


@contextlib.contextmanager
def _sending(path: str, known_as: str, binary: bool) -> Iterator[BinaryIO]:
    """Open PATH, which is special, for writing: a rename over /dev/null would destroy it."""
    processes.heed()
    number = 1 if path == "-" else descriptor(path)
    if number == 1 and sys.stdout:
        sys.stdout.flush()
        number = sys.stdout.fileno()
    opened = _reader_awaited(path) if number is None else number
    if not _is_open(opened, os.O_WRONLY):
        raise DataError(f"{known_as}: not open for writing: redirect it to a file (>)")
    raw = _Raw(opened, "wb", known_as, closefd=number is None)
    with contextlib.closing(io.BufferedWriter(raw, BUFFER)) as stream:
        try:
            if binary and raw.isatty():
                raise TerminalError(BINARY)
            yield stream
            stream.flush()
        except BaseException:
            raw.deaf = True  # to the rest of it
            raise


def _reader_awaited(path: str) -> int:
    """Open PATH for writing; of a FIFO, as soon as somebody reads it."""
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(path).st_mode):
                raise
        processes.heed()
        time.sleep(0.05)


@contextlib.contextmanager
def writing_together(
    paths: Sequence[str], removed: Collection[str] = ()
) -> Iterator[Sequence[BinaryIO]]:
    """Open the files PATHS for writing bytes; they appear when the block ends well, whole.

    Once the bytes of all are on the disk, those of PATHS that are among REMOVED are taken away, and
    then each takes its place, in their order. Whatever goes wrong before, what stood there is
    untouched.
    """
    processes.heed()
    targets = [_replaceable(path) for path in paths]
    with contextlib.ExitStack() as stack:
        opened = []
        for path, (target, old) in zip(paths, targets, strict=True):
            with naming(path, target):
                mode = 0o600 if old else 0o666  # nobody reads early what only some may read
                opened.append(stack.enter_context(partials.file(target, mode)))
        yield opened
        for path, stream in zip(paths, opened, strict=True):
            with naming(path):
                stream.flush()
                os.fsync(stream.fileno())  # some file systems report a full disk only here
        for path, (target, _) in zip(paths, targets, strict=True):
            if path in removed:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(target)
        for path, (target, old), stream in zip(paths, targets, opened, strict=True):
            with naming(path, stream.name):
                if old:
                    _take_after(stream.fileno(), old)
                os.replace(stream.name, target)


def check_output(path: str) -> None:
    """Raise the error of writing the file PATH, which is to be replaced, before any work for it."""
    target, _old = _replaceable(path)
    with naming(path, target), partials.file(target):
        pass


def _replaceable(path: str) -> tuple[str, os.stat_result | None]:
    """Return (the file that PATH is, its status or None); raise the error of what is not to be.

    Through a symbolic link: the link stays, its file is replaced.
    """
    if not path:
        raise DataError("the name of the output is empty: name a file")
    target, old = os.path.realpath(path), None
    with contextlib.suppress(FileNotFoundError):
        old = os.stat(path)
    if path.endswith("/") or (old and stat.S_ISDIR(old.st_mode)):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if is_special(path):
        raise DataError(f"{path}: not a file, which could be replaced: name one")
    if old and not _is_writable(target, old):
        raise DataError(f"{path}: read-only: allow it with chmod u+w, or name another file")
    return target, old


def _is_writable(path: str, status: os.stat_result) -> bool:
    """Tell whether PATH, of STATUS, may be written; what nobody may write is closed to root too."""
    return bool(status.st_mode & 0o222) and os.access(path, os.W_OK, effective_ids=True)


def _take_after(opened: int | str, old: os.stat_result) -> None:
    """Give what is OPENED, a descriptor or path, the owner and the mode of OLD, where we may."""
    for owner, group in ((-1, old.st_gid), (old.st_uid, -1)):
        with contextlib.suppress(PermissionError):
            os.chown(opened, owner, group)
    with contextlib.suppress(PermissionError):
        os.chmod(opened, stat.S_IMODE(old.st_mode))


def is_folder(path: str) -> bool:
    """Tell whether PATH names a folder, there or to be made: DIR/."""
    return path.endswith("/") or os.path.isdir(path)


@contextlib.contextmanager
def making_folder(path: str) -> Iterator[None]:
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
def writing_folder(path: str) -> Iterator[str]:
    """Yield a folder to fill, which becomes PATH, whole, when the block ends well.

    Raises DataError where PATH is there already, unless it is an empty folder.
    """
    if not path:
        raise DataError("the name of the output is empty: name a folder")
    target, old = os.path.realpath(path), None
    if os.path.exists(target):
        if not os.path.isdir(target) or os.listdir(target):
            raise DataError(f"{path}: there already: remove it, or name a folder that is new")
        if os.path.samefile(target, os.curdir):
            raise DataError(f"{path}: the current folder cannot be replaced: name one in it")
        old = os.stat(target)
    partial = target
    try:
        with naming(path, target), partials.folder(target) as partial:
            yield partial
            if old:
                _take_after(partial, old)
            os.rename(partial, target)
    except OSError as error:
        inside = os.path.relpath(error.filename or path, partial)
        if not inside.startswith(os.pardir):  # the user knows it under PATH alone
            error.filename, error.filename2 = os.path.normpath(os.path.join(path, inside)), None
        raise


def temporary_folder(purpose: str) -> contextlib.AbstractContextManager[str]:
    """Return the context of a folder of this process alone, in TMPDIR; killed ones' are removed."""
    import tempfile

    return partials.folder(os.path.join(tempfile.gettempdir(), f"ssl-bench-{purpose}"), 0o700)


@contextlib.contextmanager
def naming(path: str, alias: str | None = None) -> Iterator[None]:
    """Let an OSError that names no file, or ALIAS, name PATH: the file that the user knows."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename in (None, alias):
            error.filename, error.filename2 = path, None
        raise


# ---- The standard streams ---------------------------------------------------------------------


def settle() -> None:
    """Make sure that there are three standard streams, and that no file takes the number of one.

    One that is closed can be used in no way, save that what is said on standard error is lost.
    """
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # it gets the lowest number
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 (for as long as we live)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None or not os.get_blocking(2):
        raw = _Raw(2, "wb", "standard error", closefd=False)
        buffered = io.BufferedWriter(raw)
        sys.stderr = io.TextIOWrapper(buffered, errors="backslashreplace", line_buffering=True)


def abandon(descriptor: int) -> None:
    """Send what is left in the buffer of DESCRIPTOR nowhere, so that exiting raises nothing."""
    os.close(descriptor)  # first: the process may have as many open as it is allowed
    devnull = os.open(os.devnull, os.O_WRONLY)
    if devnull != descriptor:
        os.dup2(devnull, descriptor)
        os.close(devnull)


def digest(data: bytes | Iterable[bytes]) -> str:
    """Return the first 16 hex digits of the SHA-256 of bytes, or of an iterable of bytes."""
    sha = hashlib.sha256()
    for piece in (data,) if isinstance(data, bytes) else data:
        sha.update(piece)
    return sha.hexdigest()[:16]


def file_digest(path: str) -> str:
    """Return digest() of what the file PATH holds."""
    with open(path, "rb") as stream:
        return digest(iter(lambda: stream.read(1 << 20), b""))


def utf8(argument: str) -> str:
    """Return an ARGUMENT of the command line, its bytes that are not UTF-8 spelled out: \\xff."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
