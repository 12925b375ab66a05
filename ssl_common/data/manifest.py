"""The image list, one image a line: `path` or `path<TAB>label,label,...`; see ssl-formats(5)."""

import codecs
import mmap
import os
from typing import NamedTuple

import numpy as np

from ssl_common import streams
from ssl_common.streams import DataError

BLOCK = 64  # lines between two remembered offsets: 12 MB for 100 million lines
POSITIVE, DIFFICULT, NEGATIVE = 1, 0, -1


class Row(NamedTuple):
    """One line of a manifest: a path, the classes it shows, and those it shows with difficulty."""

    path: str
    labels: tuple = ()
    difficult: tuple = ()


def format_row(row):
    """Return ROW as a line of a manifest, bytes with their newline.

    Raises DataError where a name holds what the format gives a meaning.
    """
    for part in (row.path, *row.labels, *row.difficult):
        if not part or any(mark in part for mark in "\t\n\r") or part.startswith("?"):
            raise DataError(
                f"{part!r}: a name may not be empty, hold a TAB or newline, or start with ?"
            )
    for label in (*row.labels, *row.difficult):
        if "," in label:
            raise DataError(f"{label!r} ({row.path}): a label may not hold a comma")
    labels = sorted([*row.labels, *(f"?{label}" for label in row.difficult)], key=_class_order)
    return ("\t".join([row.path, ",".join(labels)] if labels else [row.path]) + "\n").encode()


def _class_order(label):
    return label.lstrip("?").encode()


class Manifest:
    """A manifest by line number, as a sequence of Row; its lines stay in the file.

    PATH is a file, mapped, or "-" or a pipe, read whole. Raises DataError for one without a line,
    and for bytes that are not UTF-8.
    """

    def __init__(self, path):
        self.path = path
        self._open()
        self._index()

    def _open(self):
        if self.path != "-" and os.path.isfile(self.path) and os.path.getsize(self.path):
            with open(self.path, "rb") as stream:
                self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        else:
            with streams.reading(self.path) as stream:
                self._bytes = stream.read()

    def _index(self):
        """Count the lines and remember where every BLOCK-th one starts."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        offsets, self._length, size = [np.zeros(1, np.int64)], 0, len(self._bytes)
        for start in range(0, size, 1 << 22):
            piece = self._bytes[start : start + (1 << 22)]
            held = len(decoder.getstate()[0])  # the first bytes of a character, from the last piece
            try:
                decoder.decode(piece, final=start + len(piece) == size)
            except UnicodeDecodeError as error:
                line = self._length + piece.count(b"\n", 0, max(0, error.start - held)) + 1
                raise self.error(line, "not UTF-8: convert it with iconv") from error
            ends = np.flatnonzero(np.frombuffer(piece, np.uint8) == ord("\n"))
            first = -(self._length + 1) % BLOCK  # the first end after which a block starts
            offsets.append(start + 1 + ends[first::BLOCK])
            self._length += len(ends)
        if size and self._bytes[size - 1] != ord("\n"):
            self._length += 1
        if not self._length:
            raise DataError(
                f"{streams.name(self.path)}: no line: a manifest names one image a line"
            )
        self._offsets = np.concatenate(offsets)

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        if not 0 <= index < self._length:
            raise IndexError(index)
        start = int(self._offsets[index // BLOCK])
        for _ in range(index % BLOCK):
            start = self._bytes.find(b"\n", start) + 1
        end = self._bytes.find(b"\n", start)
        return self._parse(self._bytes[start : end if end >= 0 else None], index + 1)

    def __iter__(self):
        start, size = 0, len(self._bytes)
        for line in range(1, self._length + 1):
            end = self._bytes.find(b"\n", start)
            end = size if end < 0 else end
            yield self._parse(self._bytes[start:end], line)
            start = end + 1

    def _parse(self, line_bytes, line):
        path, *fields = line_bytes.decode().split("\t")
        if not path:
            raise self.error(line, "no path: delete the line")
        if path.endswith("\r") or (fields and fields[-1].endswith("\r")):
            raise self.error(line, "ends in a carriage return: convert it with dos2unix")
        if len(fields) > 1:
            raise self.error(line, "more than one TAB: write path<TAB>label,label")
        labels = fields[0].split(",") if fields and fields[0] else []
        if any(label in ("", "?") for label in labels):
            raise self.error(line, "an empty label: write path<TAB>label,label")
        return Row(
            path,
            tuple(label for label in labels if label[0] != "?"),
            tuple(label[1:] for label in labels if label[0] == "?"),
        )

    def error(self, line, message):
        """Return a DataError about LINE (counted from 1) of this manifest."""
        return DataError(f"{streams.name(self.path)}:{line}: {message}")

    def digest(self):
        """Return the digest of the path column, which ties features to their manifest."""
        return streams.digest(row.path.encode() + b"\n" for row in self)

    def __getstate__(self):  # worker processes map the file again instead of receiving its bytes
        mapped = isinstance(self._bytes, mmap.mmap)
        return {k: v for k, v in self.__dict__.items() if not (mapped and k == "_bytes")}

    def __setstate__(self, state):
        self.__dict__.update(state)
        if "_bytes" not in state:
            self._open()


def label_matrix(manifest, classes=None):
    """Return (classes, labels): labels[i, c] is POSITIVE, DIFFICULT or NEGATIVE, int8 (N, C).

    Without CLASSES they are all that occur, in the order of their bytes. A label outside CLASSES
    is left out of the matrix. Raises DataError where a path is repeated or a line says two things.
    """
    rows, seen = list(manifest), {}
    for line, row in enumerate(rows, 1):
        if seen.setdefault(row.path, line) != line:
            message = f"{row.path} stands on line {seen[row.path]} already: delete one"
            raise manifest.error(line, message)
        said = [*row.labels, *row.difficult]
        if len(set(said)) < len(said):
            raise manifest.error(line, "a label stands twice: delete one")
    if classes is None:
        classes = sorted({c for row in rows for c in (*row.labels, *row.difficult)}, key=str.encode)
    column = {name: index for index, name in enumerate(classes)}
    labels = np.full((len(rows), len(classes)), NEGATIVE, np.int8)
    for index, row in enumerate(rows):
        for names, value in ((row.labels, POSITIVE), (row.difficult, DIFFICULT)):
            labels[index, [column[name] for name in names if name in column]] = value
    return list(classes), labels
