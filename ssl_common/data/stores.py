"""Stores: where the bytes of an image come from. A file of a folder is the only kind so far."""

import os
from typing import BinaryIO, NamedTuple, Protocol

from ssl_common import streams


class Store(Protocol):
    """Gives the bytes of each path of a list. It pickles, as every worker has one.

    `name` is what messages call the thing at a path. `open` returns its bytes as a stream that can
    be read and sought, and raises OSError or DataError where it cannot be had; the caller closes
    it. `exists` tells whether there is anything at a path.
    """

    def name(self, path: str, /) -> str: ...

    def open(self, path: str, /) -> BinaryIO: ...

    def exists(self, path: str, /) -> bool: ...


class Files(NamedTuple):
    """The files of a folder, FOLDER; absolute paths are those of any file."""

    folder: str

    def name(self, path: str) -> str:
        return os.path.join(self.folder, path)

    def open(self, path: str) -> BinaryIO:
        """Open a regular file; of a FIFO or device nothing is read."""
        return streams.regular(self.name(path))

    def exists(self, path: str) -> bool:
        return os.path.exists(self.name(path))


def store(root: "str | os.PathLike[str] | Store") -> Store:
    """Return the store that ROOT, the value of --root, names; a store is one already."""
    return Files(os.fspath(root)) if isinstance(root, str | os.PathLike) else root
