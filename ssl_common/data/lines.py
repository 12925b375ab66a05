"""A list in a text file, one image a line: read by line number, never as a whole."""

import hashlib
import os
import shutil
import stat
import tempfile
import weakref
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from ssl_common import containers, streams
from ssl_common.data import packed
from ssl_common.streams import DataError

BLOCK = 64  # lines between two remembered offsets: 12 MB for 100 million lines
PIECE = 1 << 20  # bytes read at a time: they stay in the cache of the processor
SMALL = 1 << 26  # bytes of a list that is read anew in a moment: its index is not kept
MARK = "\ufeff"  # of byte order: some editors write it before the first line
FORMAT, HEAD = 1, 7  # of the index; numbers before its offsets


class OfAnImage(Protocol):
    """The content of a line: the image at `path`, and whatever else a list holds."""

    @property
    def path(self) -> str: ...


Line = TypeVar("Line", bound=OfAnImage)


def index_files(path: str, folder: str | None = None, ending: str = ".lines.npy") -> list[str]:
    """Return where the index of PATH, a list or shard, may be kept, the best place first.

    That is FOLDER; or else beside the manifest, or where that cannot be written, the cache folder.
    """
    real = os.path.realpath(path)
    name = f"{os.path.basename(real)}-{streams.digest(os.fsencode(real))}{ending}"
    if folder:
        return [os.path.join(folder, name)]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [f"{real}{ending}", os.path.join(cache, "ssl-bench", name)]


def keep_index(index: np.ndarray, files: Sequence[str]) -> str | None:
    """Write INDEX to the first of FILES, of index_files(), that can be written; return which.

    None where none can; OSError where there is one alone, which the user chose.
    """
    for target in files:
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with streams.writing(target) as stream:
                containers.write_array(stream, index)
            return target
        except OSError:
            if len(files) == 1:
                raise
    return None


class Lines(Generic[Line]):
    """A list by line number, as a sequence of what its lines say; the lines stay in the file.

    PATH is a file, or "-" or a pipe, which is kept in a temporary file. It is read once: every line
    is checked, and where every BLOCK-th one starts is remembered, for a file of more than SMALL
    bytes in the first of the files KEPT that can be written, and mapped from it later. Raises
    DataError for a line that is wrong, and for a list without one.

    A subclass says what a line is: `parse`.
    """

    NO_LINE = "no line: a list names one image a line"

    def parse(self, data: bytes, line: int) -> Line:
        """Return the content of DATA, line number LINE; raise error(LINE, ...) if wrong."""
        raise NotImplementedError

    def parse_lines(self, data: bytes, line: int) -> Iterable[Line]:
        """Return the contents of DATA, lines with a newline between; the first is number LINE."""
        return (self.parse(text, number) for number, text in enumerate(data.split(b"\n"), line))

    def check(self, piece: bytes, ends: np.ndarray, before: int) -> bytes:
        """Return the paths of PIECE, whole lines that end at ENDS, each with its newline.

        Raises DataError for a line that is wrong; BEFORE is how many lines come before them.
        """
        lines = self.parse_lines(piece[:-1], before + 1)
        return "".join(f"{each.path}\n" for each in lines).encode()

    def __init__(self, path: str, kept: Sequence[str] = ()):
        self.path = path
        self._open(path)
        self._kept = kept if self._source == path and self._size() > SMALL else ()
        self._index = self._kept_index()
        if self._index is None:
            self._index = self._make_index()
            self._keep_index()

    def _open(self, path):
        with streams.reading(path) as stream:
            file, kind = stream.fileno(), os.fstat(stream.fileno()).st_mode
            if stat.S_ISREG(kind) and os.lseek(file, 0, os.SEEK_CUR) == 0:
                self._file = os.dup(file)
            else:
                with streams.naming(tempfile.gettempdir()), tempfile.TemporaryFile() as spool:
                    shutil.copyfileobj(stream, spool, PIECE)
                    spool.flush()
                    self._file = os.dup(spool.fileno())
        weakref.finalize(self, os.close, self._file)
        # Where a process that is not forked from this one finds it, as long as this one lives.
        named = path != "-" and stat.S_ISREG(kind)
        self._source = path if named else f"/proc/{os.getpid()}/fd/{self._file}"

    def _size(self):
        return os.fstat(self._file).st_size

    def _state_of_file(self):
        """Return values by which the file is known to be the one that an index was made of."""
        status = os.fstat(self._file)
        return [FORMAT, status.st_size, status.st_mtime_ns, status.st_ctime_ns]

    # The index is int64: a checksum of the rest, the state of the file, how many lines it has, the
    # digest of its paths, and where every BLOCK-th line starts.

    def _kept_index(self):
        """Return the index in one of the files KEPT, memory-mapped; None if none matches."""
        for path in self._kept:
            try:
                index = containers.stored_array(path)
            except (OSError, DataError):
                continue
            if index.dtype != np.int64 or index.ndim != 1 or index.size <= HEAD:
                continue
            if [zlib.crc32(index[1:].data), *self._state_of_file()] == index[:5].tolist():
                return index
        return None

    def _keep_index(self):
        """Write the index to the first of the files KEPT that can be written, and map it."""
        if keep_index(self._index, self._kept):
            mapped = self._kept_index()
            self._index = self._index if mapped is None else mapped

    def _make_index(self):
        """Read the file and return its index. Raises DataError for the first line that is wrong."""
        state = self._state_of_file()
        offsets, sha, lines = [], hashlib.sha256(), 0
        for start, piece in self._pieces():
            ends = np.flatnonzero(np.frombuffer(piece, np.uint8) == ord("\n"))
            self._check_text(piece, lines)
            sha.update(self.check(piece, ends, lines))
            starts = np.concatenate([[0], ends[:-1] + 1])
            offsets.append(start + starts[-lines % BLOCK :: BLOCK])
            lines += len(ends)
        if not lines:
            raise DataError(f"{streams.name(self.path)}: {self.NO_LINE}")
        if state != self._state_of_file():
            raise DataError(
                f"{streams.name(self.path)}: it changed while it was read: run it again"
            )
        digest = int.from_bytes(sha.digest()[:8], "big", signed=True)
        index = np.concatenate([[0, *state, lines, digest], *offsets]).astype(np.int64)
        index[0] = zlib.crc32(index[1:].data)
        return index

    def _pieces(self):
        """Yield (offset, bytes) of whole lines, about PIECE bytes each; all have their newline."""
        start, size, want = 0, self._size(), PIECE
        while start < size:
            piece = os.pread(self._file, want, start)
            if start + len(piece) == size:
                yield start, piece if piece.endswith(b"\n") else piece + b"\n"
                return
            end = piece.rfind(b"\n") + 1
            if not piece:
                raise self._cut_short()
            if not end:  # a line longer than that
                want *= 2
                continue
            yield start, piece[:end]
            start, want = start + end, PIECE

    def _check_text(self, piece, before):
        """Raise DataError for the first line of PIECE, after BEFORE others, that is not UTF-8."""
        if not piece.isascii():
            try:
                piece.decode()
            except UnicodeDecodeError as error:
                line = before + piece.count(b"\n", 0, error.start) + 1
                by = packed.command(os.pread(self._file, packed.LONGEST, 0))
                advice = (
                    f"packed: unpack it with {by}" if by else "not UTF-8: convert it with iconv"
                )
                raise self.error(line, advice) from error

    def __len__(self) -> int:
        return int(self._index[5])

    def __getitem__(self, index: int) -> Line:
        if not 0 <= index < len(self):
            raise IndexError(index)
        block, line = divmod(index, BLOCK)
        start, *end = self._index[HEAD + block : HEAD + block + 2].tolist()
        size = (end[0] if end else self._size()) - start
        lines = os.pread(self._file, size, start).split(b"\n", line + 1)
        if len(lines) <= line:
            raise self._cut_short()
        return self.parse(lines[line], index + 1)

    def __iter__(self) -> Iterator[Line]:
        before = 0
        for _start, piece in self._pieces():
            yield from self.parse_lines(piece[:-1], before + 1)
            before += piece.count(b"\n")

    def error(self, line: int, message: str) -> DataError:
        """Return a DataError about LINE, counted from 1, of this list."""
        return DataError(f"{streams.name(self.path)}:{line}: {message}")

    def _cut_short(self):
        return DataError(f"{streams.name(self.path)}: cut short while in use: run it again")

    def digest(self) -> str:
        """Return the digest of the path column, which ties features to their list."""
        return int(self._index[6]).to_bytes(8, "big", signed=True).hex()

    def __getstate__(self) -> dict[str, Any]:  # worker processes open and map the files again
        index = getattr(self._index, "filename", self._index)
        return {"path": self.path, "_source": self._source, "_index": index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self._kept, self._index = state["path"], (), state["_index"]
        self._open(state["_source"])
        if isinstance(self._index, str):
            self._index = containers.read_array(self._index)
