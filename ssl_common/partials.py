"""Files and folders that are being written: each is renamed into place when complete.

Its name is drawn, so nobody can have put anything there. It is locked for as long as its process
lives: what nobody holds was left by one that was killed, and goes when the same is made again.
"""

import contextlib
import io
import os
import re
import shutil
import stat
from collections.abc import Callable, Collection, Iterator

from ssl_common import locks, shortage

_NAME = re.compile(r"(.+)\.[0-9a-f]{16}\.partial", re.DOTALL)
_ROOM = 255 - 25  # bytes that the longest file name leaves for what stands before the ending
TRIES = 10  # to remove a folder that another process still writes into


@contextlib.contextmanager
def file(target: str, mode: int = 0o666) -> Iterator[io.BufferedWriter]:
    """Yield a new file beside TARGET, open for writing; unless it is renamed it is gone at the end.

    Its `name` is its path, and it is locked until the end of the block. MODE is that of os.open.
    """

    def create(path: str) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)

    def remove(path: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(path)

    with _made(target, create, remove) as (path, descriptor):
        stream = open(descriptor, "wb", closefd=False)  # noqa: SIM115 (closed below)
        stream.raw.name = path  # type: ignore[attr-defined]
        try:
            yield stream
        finally:
            with contextlib.suppress(OSError):  # what failed to be written is known already
                stream.close()


@contextlib.contextmanager
def folder(target: str, mode: int = 0o777) -> Iterator[str]:
    """Yield the path of a new folder beside TARGET; unless it is renamed it is gone at the end."""

    def create(path: str) -> int:
        os.mkdir(path, mode)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)

    with _made(target, create, _remove_folder) as (path, _):
        yield path


@contextlib.contextmanager
def _made(
    target: str, create: Callable[[str], int], remove: Callable[[str], None]
) -> Iterator[tuple[str, int]]:
    """Yield (path, descriptor) of what CREATE(path) makes and opens, locked; REMOVE(path) ends it.

    An OSError of CREATE names TARGET.
    """
    clear([target])
    while True:
        path, ours = _drawn(target), True
        descriptor: int | None = None
        shortage.unfinished(path)
        try:
            try:
                descriptor = create(path)
            except OSError as error:
                ours = not isinstance(error, FileExistsError)
                error.filename = target
                raise
            # Before it is locked, another process may take it for a leftover.
            if _lock(descriptor) is not False and os.fstat(descriptor).st_nlink:
                yield path, descriptor
                return
        finally:
            if ours:
                remove(path)
            if descriptor is not None:
                locks.leave(descriptor)
                os.close(descriptor)


def _remove_folder(path: str) -> None:
    """Remove the folder PATH and what is in it, even what a process that ends now still puts in."""
    for _ in range(TRIES):
        shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path):
            return


def _drawn(target: str) -> str:
    """Return a name for what becomes TARGET."""
    place, name = os.path.split(target)
    return os.path.join(place, f"{_cut(name)}.{os.urandom(8).hex()}.partial")


def _cut(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_ROOM])


def _lock(descriptor: int) -> bool | None:
    """Lock DESCRIPTOR; return False where another process has it, None where there are no locks."""
    try:
        locks.take(descriptor)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def clear(targets: Collection[str]) -> None:
    """Remove what processes that were killed have left in the making of TARGETS, and that is ours.

    Where a file system has no locks, all is left. Where those of another machine are not seen
    here, the worst is that it cannot put its file in its place, and says so.
    """
    for place in {os.path.dirname(target) for target in targets}:
        paths = (target for target in targets if os.path.dirname(target) == place)
        names = {_cut(os.path.basename(path)) for path in paths}
        with contextlib.suppress(OSError), os.scandir(place or os.curdir) as entries:
            for entry in entries:
                if (made := _NAME.fullmatch(entry.name)) and made[1] in names:
                    _remove_left(entry.path, entry.is_dir(follow_symlinks=False))


def _remove_left(path: str, is_folder: bool) -> None:
    """Remove PATH if it is ours and nobody holds it."""
    flags = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_WRONLY | os.O_NONBLOCK
    with contextlib.suppress(OSError):  # another process was quicker
        descriptor = os.open(path, flags | os.O_NOFOLLOW)
        try:
            found = os.fstat(descriptor)
            if found.st_uid != os.geteuid() or not _lock(descriptor):
                return
            if is_folder:
                _remove_folder(path)
            elif stat.S_ISREG(found.st_mode):
                os.unlink(path)
        finally:
            locks.leave(descriptor)
            os.close(descriptor)
