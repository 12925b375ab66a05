"""Stores: where the bytes of an image come from: a file of a folder, or a member of a shard."""

import os
from typing import BinaryIO, NamedTuple, Protocol

from ssl_common import streams
from ssl_common.data import shards
from ssl_common.streams import DataError


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
    """The files of a folder, FOLDER; absolute paths are those of any file.

    A path that leads through a file called *.tar or *.zip is that of a member: see shards.
    """

    folder: str

    def name(self, path: str) -> str:
        return os.path.join(self.folder, path)

    def open(self, path: str) -> BinaryIO:
        """Open a regular file or a member; of a FIFO or device nothing is read."""
        name = self.name(path)
        if member := shards.split(name):
            return shards.shard(member[0]).open(member[1])
        return streams.regular(name)

    def exists(self, path: str) -> bool:
        name = self.name(path)
        if member := shards.split(name):
            try:
                shards.shard(member[0]).find(member[1])
            except (OSError, DataError):
                return False
            return True
        return os.path.exists(name)


def store(root: "str | os.PathLike[str] | Store") -> Store:
    """Return the store that ROOT, the value of --root, names; a store is one already."""
    return Files(os.fspath(root)) if isinstance(root, str | os.PathLike) else root
