"""Shards: tars and ZIPs whose members are read like files, by an index beside each.

The index of x.tar is x.tar.index.npy, see ssl-formats(5): a member is found by two reads of it, in
whatever order, so it is not held in memory, and all processes share what the system keeps of it.
"""

import collections
import contextlib
import fcntl
import functools
import hashlib
import io
import os
import re
import resource
import stat
import time
import weakref
import zlib
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from ssl_common import processes, streams
from ssl_common.data import tars, zips
from ssl_common.data.lines import index_files, keep_index
from ssl_common.data.members import DEFLATED, PLAIN, REFUSED, Broken, Entry, plain_name
from ssl_common.streams import DataError

MEMBER = re.compile(r"\.(?:tar|zip)(?=/)", re.IGNORECASE)
ENDING = ".index.npy"
FORMAT, HEAD = 1, 7  # of the index; numbers before the beginnings of its buckets
WORD, ENTRY = 8, 24  # bytes of a number; of a member
IN_A_BUCKET = 4  # the logarithm of how many members have the same first bits, about
KIND = 56  # the bit of the third number of a member where its kind begins
AT_ONCE = 1 << 26  # bytes of a member that are read at once; a larger one is read as a file is
PATIENCE = 600  # seconds that one process waits for another to make an index
LEAST = 16  # shards that stay open
SPARE = zips.LOCAL.size + 1024  # bytes before the data of a member of a ZIP, mostly less


# ---- The index ----------------------------------------------------------------------------------


def digest(name: bytes) -> bytes:
    """Return what an index has of NAME: 8 bytes of its BLAKE2b."""
    return hashlib.blake2b(name, digest_size=WORD).digest()


class Maker:
    """The index of a shard in the making: its entries, one after the other."""

    def __init__(self) -> None:
        self._digests, self._offsets, self._sizes = bytearray(), array("Q"), array("Q")

    def add(self, entries: Sequence[Entry]) -> None:
        """Add ENTRIES; of two with the same name the later one counts, as in unpacking."""
        self._digests += b"".join([digest(entry.name) for entry in entries])
        self._offsets.extend([entry.offset for entry in entries])
        self._sizes.extend([entry.size | entry.kind << KIND for entry in entries])

    def count(self) -> int:
        """Return how many entries were added."""
        return len(self._offsets)

    def index(self, status: os.stat_result, broken: bool) -> np.ndarray:
        """Return the index, uint64, of the shard of STATUS; it says whether that is BROKEN."""
        digests = np.frombuffer(self._digests, "<u8")
        offsets, sizes = (np.frombuffer(each, np.uint64) for each in (self._offsets, self._sizes))
        return lay_out(digests, offsets, sizes, status, broken)


def lay_out(
    digests: np.ndarray,
    offsets: np.ndarray,
    sizes: np.ndarray,
    status: os.stat_result,
    broken: bool,
) -> np.ndarray:
    """Return the index of a shard of STATUS, BROKEN or not, from three numbers of each member."""
    order = np.argsort(digests, kind="stable")
    last = np.ones(len(order), bool)
    last[:-1] = digests[order[1:]] != digests[order[:-1]]
    order = order[last]
    count = len(order)
    bits = max(0, count.bit_length() - IN_A_BUCKET)
    # NumPy has no shift by 64 bits: what would be one is in the one bucket there is.
    first = digests[order] >> np.uint64(64 - bits) if bits else np.zeros(count, np.uint64)
    begins = np.searchsorted(first, np.arange((1 << bits) + 1, dtype=np.uint64))
    head = np.array([0, FORMAT, *_state(status), count, bits, broken], np.uint64)
    head[0] = zlib.crc32(head[1:].data)
    entries = np.empty((count, 3), np.uint64)
    for column, numbers in enumerate((digests, offsets, sizes)):
        entries[:, column] = numbers[order]
    return np.concatenate([head, begins.astype(np.uint64), entries.reshape(-1)])


def _state(status):
    """Return by what it is known that an index is of this shard."""
    return status.st_size, status.st_mtime_ns


def files(path: str) -> list[str]:
    """Return where the index of the shard PATH may be kept, the best place first."""
    return index_files(path, ending=ENDING)


def entries(path: str, file: int) -> Iterator[list[Entry]]:
    """Yield the entries of the shard PATH, open as FILE, several at a time.

    Raises Broken, after the good ones, where it is cut short or damaged.
    """
    if path.lower().endswith(".zip"):
        return zips.walk(file)
    size = os.fstat(file).st_size
    if not size:
        raise Broken("empty")
    return tars.walk(file, 0, size)


def keep(path: str, index: np.ndarray) -> str | None:
    """Write the INDEX of the shard PATH to the first of its files() that can be; return which."""
    return keep_index(index, files(path))


class Index:
    """The index of a shard, in the file TARGET or, where none could be written, in memory."""

    def __init__(self, words: np.ndarray | None, target: str | None) -> None:
        self._memory = None if words is None else words.tobytes()
        self._start = 0
        if target is not None:
            self._file = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            weakref.finalize(self, os.close, self._file)
            begin = os.pread(self._file, 16, 0)
            if begin[:8] != b"\x93NUMPY\1\0":
                raise ValueError("not an index")
            self._start = 10 + int.from_bytes(begin[8:10], "little")
        head = np.frombuffer(self._read(0, HEAD), "<u8")
        if zlib.crc32(head[1:].tobytes()) != head[0] or head[1] != FORMAT:
            raise ValueError("not an index of this format")
        self.state = int(head[2]), int(head[3])
        self.count, self._bits, self.broken = int(head[4]), int(head[5]), bool(head[6])
        self._entries = HEAD + (1 << self._bits) + 1

    def _read(self, word, count):
        """Return COUNT numbers from number WORD on, as bytes."""
        if self._memory is not None:
            return self._memory[WORD * word : WORD * (word + count)]
        data = os.pread(self._file, WORD * count, self._start + WORD * word)
        if len(data) < WORD * count:
            raise ValueError("cut short")
        return data

    def find(self, name: bytes) -> tuple[int, int, int] | None:
        """Return (kind, offset, size) of the member NAME, or None."""
        wanted = digest(name)
        bucket = int.from_bytes(wanted, "little") >> (64 - self._bits)
        begins = self._read(HEAD + bucket, 2)
        first, stop = (int.from_bytes(begins[at : at + WORD], "little") for at in (0, WORD))
        if not first <= stop <= self.count:
            raise ValueError("damaged")
        found = self._read(self._entries + 3 * first, 3 * (stop - first))
        at = found.find(wanted)
        while at % ENTRY and at >= 0:  # a number that looks like it
            at = found.find(wanted, at + 1)
        if at < 0:
            return None
        offset = int.from_bytes(found[at + WORD : at + 2 * WORD], "little")
        rest = int.from_bytes(found[at + 2 * WORD : at + ENTRY], "little")
        return rest >> KIND, offset, rest & (1 << KIND) - 1


def _kept(path, status):
    """Return the Index that is kept of the shard PATH, of STATUS; None if none is of it."""
    for target in files(path):
        with contextlib.suppress(OSError, ValueError):
            index = Index(None, target)
            if index.state == _state(status):
                return index
    return None


def _made(path, file, status):
    """Return the Index of the shard PATH, which is made, and kept if it can be."""
    maker, broken = Maker(), None
    try:
        for some in entries(path, file):
            maker.add(some)
    except Broken as error:
        broken = error
    words = maker.index(status, broken is not None)
    if broken and words[4] == 0:
        raise broken
    return Index(words, None) if (target := keep(path, words)) is None else Index(None, target)


@contextlib.contextmanager
def _turn(file):
    """Let no other process make the index of the shard FILE meanwhile, where there are locks."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            processes.heed()
            time.sleep(0.05)
            continue
        except OSError:
            pass
        break
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


# ---- Shards -------------------------------------------------------------------------------------


def contents(file: int, kind: int, offset: int, size: int) -> bytes:
    """Return the bytes of a member of the shard FILE: of KIND, SIZE bytes there from OFFSET on.

    Raises DataError where they are damaged, or end too early.
    """
    if kind == PLAIN:
        return _read(file, offset, size)
    data = os.pread(file, size + SPARE, offset)
    start = zips.begin(data)
    packed = data[start : start + size]
    if len(packed) < size:
        packed = _read(file, offset + start, size)
    return zips.inflate(packed, data) if kind == DEFLATED else packed


def _read(file, offset, size):
    data = os.pread(file, size, offset)
    while len(data) < size:  # a read gives 2 GB at most
        more = os.pread(file, size - len(data), offset + len(data))
        if not more:
            raise DataError("its shard is cut short")
        data += more
    return data


class Shard:
    """The shard PATH, open, with its index; SEEN is the state it must have, if any."""

    def __init__(self, path: str, seen: tuple[int, int] | None = None) -> None:
        with streams.naming(path):
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
            weakref.finalize(self, os.close, self._file)
            status = os.fstat(self._file)
        self.state = _state(status)
        if seen not in (None, self.state):
            raise _changed()
        index = _kept(path, status)
        if index is None:
            with _turn(self._file), streams.naming(path):
                index = _kept(path, status) or _made(path, self._file, status)
        self.index = index

    def find(self, name: str) -> tuple[int, int, int]:
        """Return (kind, offset, size) of the member NAME; raise DataError if there is none."""
        try:
            found = self.index.find(plain_name(os.fsencode(name)))
        except ValueError as error:
            raise DataError(f"the index of its shard is damaged ({error}): delete it") from error
        if found is None:
            broken = ", which is cut short or damaged" if self.index.broken else ""
            raise DataError(f"no such member of the shard{broken}")
        return found

    def open(self, name: str) -> BinaryIO:
        """Return the bytes of the member NAME as a stream; raise DataError if there are none."""
        self._check()
        kind, offset, size = self.find(name)
        if kind in REFUSED or kind > DEFLATED:
            raise DataError(REFUSED.get(kind, "of a kind that is not known"))
        if size > AT_ONCE and kind != DEFLATED:
            start = offset if kind == PLAIN else zips.place(self._file, offset)
            self._fits(start, size)
            return io.BufferedReader(_Part(self, self._file, start, size), streams.BUFFER)
        self._fits(offset, size)
        return io.BytesIO(contents(self._file, kind, offset, size))

    def _check(self):
        """Raise DataError where the shard was written to since it was opened."""
        if _state(os.fstat(self._file)) != self.state:
            raise _changed()

    def _fits(self, offset, size):
        """Raise DataError where no SIZE bytes lie at OFFSET, before memory is taken for them."""
        if offset + size > self.state[0]:
            raise DataError("its shard is cut short")


class _Part(io.RawIOBase):
    """The SIZE bytes from START on of FILE, the descriptor that SHARD keeps open."""

    def __init__(self, shard: Shard, file: int, start: int, size: int) -> None:
        self._shard, self._source = shard, file
        self._start, self._size, self._at = start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self._size - self._at)]
        count = os.preadv(self._source, [view], self._start + self._at) if len(view) else 0
        if len(view) and not count:
            raise DataError("its shard is cut short")
        self._at += count
        return count


def _changed():
    return DataError("its shard changed while it was in use: start again")


# ---- Shards by the paths of their members -------------------------------------------------------

_open: "collections.OrderedDict[str, Shard]" = collections.OrderedDict()
_seen: dict[str, tuple[int, int]] = {}  # the states of all that this process has opened


@functools.cache
def _most() -> int:
    """Return how many shards stay open: two descriptors each, a quarter of those there may be."""
    limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if limit == resource.RLIM_INFINITY else max(LEAST, min(4096, limit // 8))


def look_anew() -> None:
    """Forget the shards that were opened: whichever lie there now are read."""
    _open.clear()
    _seen.clear()


def split(path: str) -> tuple[str, str] | None:
    """Return (shard, member) where PATH leads into a file that is a tar or ZIP by its name."""
    for found in MEMBER.finditer(path):
        shard = path[: found.end()]
        if shard in _open:
            return shard, path[found.end() + 1 :]
        with contextlib.suppress(OSError, ValueError):
            if stat.S_ISREG(os.stat(shard).st_mode):
                return shard, path[found.end() + 1 :]
    return None


def shard(path: str) -> Shard:
    """Return the shard PATH, which may be open already."""
    known = _open.get(path)
    if known is None:
        known = Shard(path, _seen.get(path))
        _seen[path] = known.state
        while len(_open) >= _most():
            _open.popitem(last=False)
    else:
        del _open[path]
    _open[path] = known
    return known
