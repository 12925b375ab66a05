"""The image list, one image a line: `path` or `path<TAB>label,label,...`; see ssl-formats(5)."""

import hashlib
import os
import re
import shutil
import stat
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_common import containers, streams
from ssl_common.data import packed
from ssl_common.streams import DataError

BLOCK = 64  # lines between two remembered offsets: 12 MB for 100 million lines
PIECE = 1 << 20  # bytes read at a time: they stay in the cache of the processor
SMALL = 1 << 26  # bytes of a manifest that is read anew in a moment: its index is not kept
LABELS = re.compile(rb"(\t[^\n]*)")
SURROGATE = re.compile("[\ud800-\udfff]")
MARK = "\ufeff"  # of byte order: some editors write it before the first line
# What no line holds, or what no path begins with: a piece with any of it is read line by line.
ODD = re.compile(rb"[\r\0]|(?:^|\n)\?|" + MARK.encode())
FORMAT, HEAD = 1, 7  # of the index; numbers before its offsets
POSITIVE, DIFFICULT, NEGATIVE = 1, 0, -1


class Row(NamedTuple):
    """One line of a manifest: a path, the classes it shows, and those it shows with difficulty."""

    path: str
    labels: tuple[str, ...] = ()
    difficult: tuple[str, ...] = ()


def format_row(row: Row) -> bytes:
    """Return ROW as a line of a manifest, bytes with their newline.

    Raises DataError where a name holds what the format gives a meaning, or is not UTF-8.
    """
    for part in (row.path, *row.labels, *row.difficult):
        if not part or any(mark in part for mark in "\t\n\r\0") or part.startswith(("?", MARK)):
            raise DataError(
                f"{part!r}: a name may not be empty, hold a TAB or newline, or start with ?"
            )
        if not part.isascii() and SURROGATE.search(part):  # how Python holds what is not UTF-8
            raise DataError(f"{part!r}: the name is not UTF-8: rename it")
    for label in (*row.labels, *row.difficult):
        if "," in label:
            raise DataError(f"{label!r} ({row.path}): a label may not hold a comma")
    labels = sorted([*row.labels, *(f"?{label}" for label in row.difficult)], key=_class_order)
    return ("\t".join([row.path, ",".join(labels)] if labels else [row.path]) + "\n").encode()


def _class_order(label):
    return label.removeprefix("?").encode()


def index_files(path: str, folder: str | None = None) -> list[str]:
    """Return where the index of the manifest PATH may be kept, the best place first.

    That is FOLDER; or else beside the manifest, or where that cannot be written, the cache folder.
    """
    real = os.path.realpath(path)
    name = f"{os.path.basename(real)}-{streams.digest(os.fsencode(real))}.lines.npy"
    if folder:
        return [os.path.join(folder, name)]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [f"{real}.lines.npy", os.path.join(cache, "ssl-bench", name)]


class Manifest:
    """A manifest by line number, as a sequence of Row; its lines stay in the file.

    PATH is a file, or "-" or a pipe, which is kept in a temporary file. It is read once: every line
    is checked, and where every BLOCK-th one starts is remembered, for a file of more than SMALL
    bytes in the first of the files KEPT that can be written, and mapped from it later. Raises
    DataError for a line that is wrong, and for a manifest without one.
    """

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
        """Return what tells whether the file is the one an index was made of."""
        status = os.fstat(self._file)
        return [FORMAT, status.st_size, status.st_mtime_ns, status.st_ctime_ns]

    # The index is int64: a checksum of the rest, the state of the file, how many lines it has, the
    # digest of its paths, and where every BLOCK-th line starts.

    def _kept_index(self):
        """Return the index that one of the files KEPT holds, mapped; None where none is right."""
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
        for path in self._kept:
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with streams.writing(path) as stream:
                    containers.write_array(stream, self._index)
            except OSError:
                if len(self._kept) == 1:  # the user's own choice
                    raise
                continue
            mapped = self._kept_index()
            self._index = self._index if mapped is None else mapped
            return

    def _make_index(self):
        """Read the file and return its index. Raises DataError for the first line that is wrong."""
        state = self._state_of_file()
        offsets, sha, lines = [], hashlib.sha256(), 0
        for start, piece in self._pieces():
            ends = np.flatnonzero(np.frombuffer(piece, np.uint8) == ord("\n"))
            sha.update(self._paths(piece, ends, lines))
            starts = np.concatenate([[0], ends[:-1] + 1])
            offsets.append(start + starts[-lines % BLOCK :: BLOCK])
            lines += len(ends)
        if not lines:
            raise DataError(
                f"{streams.name(self.path)}: no line: a manifest names one image a line"
            )
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

    def _paths(self, piece, ends, before):
        """Return the paths of PIECE, whole lines that end at ENDS, each with its newline.

        Checks each line; BEFORE is how many there are before them.
        """
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
        if b"\t" in piece:
            parts = LABELS.split(piece)
            paths, kinds = b"".join(parts[::2]), set(parts[1::2])  # labels recur
            empty = paths[0] == ord("\n") or b"\n\n" in paths
        else:
            paths, kinds = piece, set()
            empty = ends[0] == 0 or (np.diff(ends) == 1).any()
        if empty or ODD.search(piece) or not all(map(self._are_labels, kinds)):
            for line, text in enumerate(piece[:-1].split(b"\n"), before + 1):
                self._parse(text, line)
        return paths

    def _are_labels(self, text):
        try:
            self._parse(b"path" + text, 0)
        except DataError:
            return False
        return True

    def __len__(self) -> int:
        return int(self._index[5])

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(index)
        block, line = divmod(index, BLOCK)
        start, *end = self._index[HEAD + block : HEAD + block + 2].tolist()
        size = (end[0] if end else self._size()) - start
        lines = os.pread(self._file, size, start).split(b"\n", line + 1)
        if len(lines) <= line:
            raise self._cut_short()
        return self._parse(lines[line], index + 1)

    def __iter__(self) -> Iterator[Row]:
        before = 0
        for _start, piece in self._pieces():
            lines = piece[:-1].split(b"\n")
            for line, text in enumerate(lines, before + 1):
                yield self._parse(text, line)
            before += len(lines)

    def _parse(self, line_bytes, line):
        path, *fields = line_bytes.decode().split("\t")
        if b"\r" in line_bytes:
            raise self.error(line, "holds a carriage return: convert it with dos2unix")
        if b"\0" in line_bytes:
            raise self.error(line, "holds a zero byte: is it a list of images?")
        if path.startswith(MARK):
            raise self.error(line, "starts with a byte-order mark: save it as UTF-8 without one")
        if not path:
            raise self.error(line, "no path: delete the line")
        if path.startswith("?"):
            raise self.error(line, "a path may not start with a question mark: write ./?...")
        if len(fields) > 1:
            raise self.error(line, "more than one TAB: write path<TAB>label,label")
        labels = fields[0].split(",") if fields and fields[0] else []
        if any(label in ("", "?") for label in labels):
            raise self.error(line, "an empty label: write path<TAB>label,label")
        if any(label.startswith("??") for label in labels):
            raise self.error(line, "a label may not start with a question mark, but for one ?")
        return Row(
            path,
            tuple(label for label in labels if label[0] != "?"),
            tuple(label[1:] for label in labels if label[0] == "?"),
        )

    def error(self, line: int, message: str) -> DataError:
        """Return a DataError about LINE (counted from 1) of this manifest."""
        return DataError(f"{streams.name(self.path)}:{line}: {message}")

    def _cut_short(self):
        return DataError(f"{streams.name(self.path)}: cut short while in use: run it again")

    def digest(self) -> str:
        """Return the digest of the path column, which ties features to their manifest."""
        return int(self._index[6]).to_bytes(8, "big", signed=True).hex()

    def digest_of_rows(self) -> str:
        """Return the digest of paths and labels, the same from a file and a pipe."""
        return streams.digest(repr(tuple(row)).encode() for row in self)

    def __getstate__(self) -> dict[str, Any]:  # worker processes open and map the files again
        index = getattr(self._index, "filename", self._index)
        return {"path": self.path, "_source": self._source, "_index": index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self._kept, self._index = state["path"], (), state["_index"]
        self._open(state["_source"])
        if isinstance(self._index, str):
            self._index = containers.read_array(self._index)


class ClassRows(NamedTuple):
    """The rows, counted from 0 and ascending, that show each class: 4 bytes a label in memory."""

    images: int  # rows in all
    classes: list[str]  # all that occur, in the order of their bytes
    positive: list[np.ndarray]  # int32, of each class
    difficult: list[np.ndarray]


def class_rows(manifest: Manifest) -> ClassRows:
    """Return the rows of each class of MANIFEST, in one pass.

    Raises DataError where a path is repeated or a line says two things.
    """
    hashes = np.empty(len(manifest), np.int64)
    rows: dict[str, tuple[array[int], array[int]]] = {}  # class -> (positive, difficult)
    for index, row in enumerate(manifest):
        hashes[index] = hash(row.path)
        names = (*row.labels, *row.difficult)
        if len(names) > 1 and len(set(names)) < len(names):
            raise manifest.error(index + 1, "a label stands twice: delete one")
        for place, name in enumerate(names):
            pair = rows.get(name) or rows.setdefault(name, (array("i"), array("i")))
            pair[place >= len(row.labels)].append(index)
    _refuse_repeated(manifest, hashes)
    classes = sorted(rows, key=str.encode)
    positive, difficult = (
        [np.frombuffer(rows[name][which], np.int32) for name in classes] for which in (0, 1)
    )
    return ClassRows(len(manifest), classes, positive, difficult)


def _refuse_repeated(manifest, hashes):
    """Raise DataError for the first line whose path stands before: its hash does, in HASHES."""
    ordered = np.sort(hashes)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    first: dict[str, int] = {}
    for index in np.flatnonzero(np.isin(hashes, twice)).tolist() if len(twice) else ():
        path = manifest[index].path
        if (line := first.setdefault(path, index + 1)) <= index:
            message = f"{path} stands on line {line} already: delete one"
            raise manifest.error(index + 1, message)


def label_matrix(
    manifest: Manifest, classes: Sequence[str] | None = None
) -> tuple[list[str], np.ndarray]:
    """Return (classes, labels): labels[i, c] is POSITIVE, DIFFICULT or NEGATIVE, int8 (N, C).

    Without CLASSES they are all that occur, in the order of their bytes. A label outside CLASSES
    is left out of the matrix. Raises DataError for what class_rows() refuses.
    """
    rows = class_rows(manifest)
    classes = list(rows.classes if classes is None else classes)
    column = {name: index for index, name in enumerate(classes)}
    labels = np.full((rows.images, len(classes)), NEGATIVE, np.int8)
    for name, positive, difficult in zip(*rows[1:], strict=True):
        if name in column:
            labels[positive, column[name]] = POSITIVE
            labels[difficult, column[name]] = DIFFICULT
    return classes, labels


def single_labels(
    manifest: Manifest, classes: Sequence[str] | None = None
) -> tuple[list[str], np.ndarray]:
    """Return (classes, labels): labels[i] is the index of the one class of line i + 1, int32 (N,).

    Without CLASSES they are all that occur, in the order of their bytes. Raises DataError for a
    line without a class, with several or with a difficult one, and for a class that is not among
    CLASSES.
    """
    column = {name: index for index, name in enumerate(classes or ())}
    labels = np.empty(len(manifest), np.int32)
    for line, row in enumerate(manifest, 1):
        if len(row.labels) != 1 or row.difficult:
            labelled = ",".join([*row.labels, *(f"?{name}" for name in row.difficult)])
            message = f"{labelled or 'no label'}, where one class is needed: write path<TAB>class"
            raise manifest.error(line, message)
        (name,) = row.labels
        if classes and name not in column:
            some = ", ".join(classes[:3]) + (", ..." if classes[3:] else "")
            message = f"{name}: not one of the {len(classes)} classes of the training ({some})"
            raise manifest.error(line, message)
        labels[line - 1] = column.setdefault(name, len(column))
    if classes:
        return list(classes), labels
    ordered = sorted(column, key=str.encode)
    place = {name: index for index, name in enumerate(ordered)}
    return ordered, np.array([place[name] for name in column], np.int32)[labels]
