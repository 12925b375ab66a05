"""The image list, one image a line: `path` or `path<TAB>label,label,...`; see ssl-formats(5)."""

import re
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssl_common import streams
from ssl_common.data.lines import MARK, Lines
from ssl_common.streams import DataError

LABELS = re.compile(rb"(\t[^\n]*)")
SURROGATE = re.compile("[\ud800-\udfff]")
# What no line holds, or what no path begins with: a piece with any of it is read line by line.
ODD = re.compile(rb"[\r\0]|(?:^|\n)\?|" + MARK.encode())
POSITIVE, DIFFICULT, NEGATIVE = 1, 0, -1


class Row(NamedTuple):
    """One line of a manifest: a path, its labels, and its difficult labels."""

    path: str
    labels: tuple[str, ...] = ()
    difficult: tuple[str, ...] = ()


def check_name(name: str) -> None:
    """Raise DataError where NAME, a path or a label, may not stand in a list."""
    if not name or any(mark in name for mark in "\t\n\r\0") or name.startswith(("?", MARK)):
        raise DataError(
            f"{name!r}: a name may not be empty, hold a TAB or newline, or start with ?"
        )
    if not name.isascii() and SURROGATE.search(name):  # how Python holds what is not UTF-8
        raise DataError(f"{name!r}: the name is not UTF-8: rename it")


def format_row(row: Row) -> bytes:
    """Return ROW as a line of a manifest, bytes with their newline.

    Raises DataError where a name holds what the format gives a meaning, or is not UTF-8.
    """
    for part in (row.path, *row.labels, *row.difficult):
        check_name(part)
    for label in (*row.labels, *row.difficult):
        if "," in label:
            raise DataError(f"{label!r} ({row.path}): a label may not hold a comma")
    labels = sorted([*row.labels, *(f"?{label}" for label in row.difficult)], key=_class_order)
    return ("\t".join([row.path, ",".join(labels)] if labels else [row.path]) + "\n").encode()


def _class_order(label):
    return label.removeprefix("?").encode()


class Manifest(Lines[Row]):
    """A manifest by line number, as a sequence of Row: see Lines."""

    NO_LINE = "no line: a manifest names one image a line"

    def parse(self, data: bytes, line: int) -> Row:
        """Return the Row of DATA, line number LINE; raise DataError for one that is wrong."""
        path, *fields = data.decode().split("\t")
        if b"\r" in data:
            raise self.error(line, "holds a carriage return: convert it with dos2unix")
        if b"\0" in data:
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

    def check(self, piece: bytes, ends: np.ndarray, before: int) -> bytes:
        """Return the paths of PIECE as Lines.check() does, faster: labels recur."""
        if b"\t" in piece:
            parts = LABELS.split(piece)
            paths, kinds = b"".join(parts[::2]), set(parts[1::2])  # labels recur
            empty = paths[0] == ord("\n") or b"\n\n" in paths
        else:
            paths, kinds = piece, set()
            empty = ends[0] == 0 or (np.diff(ends) == 1).any()
        if empty or ODD.search(piece) or not all(map(self._are_labels, kinds)):
            for line, text in enumerate(piece[:-1].split(b"\n"), before + 1):
                self.parse(text, line)
        return paths

    def _are_labels(self, text):
        try:
            self.parse(b"path" + text, 0)
        except DataError:
            return False
        return True

    def digest_of_rows(self) -> str:
        """Return the digest of paths and labels, the same from a file and a pipe."""
        return streams.digest(repr(tuple(row)).encode() for row in self)


class ClassRows(NamedTuple):
    """The rows, counted from 0 and ascending, that show each class: 4 bytes a label in memory."""

    images: int  # rows in all
    classes: list[str]  # all that occur, in the order of their bytes
    positive: list[np.ndarray]  # int32, of each class
    difficult: list[np.ndarray]


def class_rows(manifest: Manifest, unique: bool = True) -> ClassRows:
    """Return the rows of each class of MANIFEST, in one pass.

    Raises DataError where a line says two things, or a path is repeated and is to be UNIQUE.
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
    if unique:
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
    manifest: Manifest, classes: Sequence[str] | None = None, unique: bool = True
) -> tuple[list[str], np.ndarray]:
    """Return (classes, labels): labels[i, c] is POSITIVE, DIFFICULT or NEGATIVE, int8 (N, C).

    Without CLASSES they are all that occur, in the order of their bytes. A label outside CLASSES
    is left out of the matrix. Raises DataError for what class_rows() refuses.
    """
    rows = class_rows(manifest, unique)
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
