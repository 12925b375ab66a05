"""Arrays that stay in their file: read a piece at a time, or written row by row.

They are not mapped: under a map, a file that shrinks or a disk that fails is a deadly signal; else
it is an error that names the file.
"""

import math
import os
import weakref
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.lib import format as npy

from ssl_common import streams
from ssl_common.streams import DataError

PIECE = 1 << 26  # bytes of a block of rows at most


class Stored:
    """The array in the .npy file PATH: its `shape` and `dtype` here, its numbers in the file.

    [rows] reads an array, of a number, a slice, numbers or a mask, and of two dimensions
    [rows, columns], a slice; np.asarray() reads all. Raises DataError where the file has become
    shorter, and an OSError that names it where it cannot be read.
    """

    def __init__(
        self,
        path: str,
        dtype: Any,
        shape: tuple[int, ...],
        order: Literal["C", "F"],
        start: int,
        file: int | None = None,
    ) -> None:
        """Take the number of an open FILE, or open PATH; from byte START on it holds the array.

        ORDER is C or F, as numpy has it.
        """
        self.filename, self.dtype, self.shape = path, np.dtype(dtype), shape
        self._order: Literal["C", "F"] = order if len(shape) > 1 else "C"
        self.start = start
        self._file = os.open(path, os.O_RDONLY) if file is None else os.dup(file)
        weakref.finalize(self, os.close, self._file)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __reduce__(self) -> tuple:  # another process opens the file again
        return Stored, (self.filename, self.dtype, self.shape, self._order, self.start)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = np.empty(self.shape, self.dtype, self._order)
        self._fill(found.reshape(-1, order="A"), 0)  # a view, in the order of the file
        return found if dtype is None else found.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> np.ndarray:
        part: slice
        rows, part = key if isinstance(key, tuple) else (key, slice(None))
        rows = _numbers(rows, len(self))
        if isinstance(rows, int):
            return self[rows : rows + 1, part][0]
        if self.ndim > 2 and self._order == "F":
            return np.asarray(self)[rows]
        width = math.prod(self.shape[1:])
        columns = range(width)[part]
        if self._order == "F":  # it lies there as columns x rows
            span = range(min(rows), max(rows) + 1) if len(rows) else range(0)
            found = self._matrix(columns, span, len(self)).T
            whole = isinstance(rows, range) and rows == span
            return found if whole else found[np.asarray(rows, np.int64) - span.start]
        found = self._matrix(rows, columns, width)
        return found if self.ndim == 2 else found.reshape(-1, *self.shape[1:])

    def _matrix(self, lines: Any, part: range, width: int) -> np.ndarray:
        """Return PART, a range, of the LINES of WIDTH numbers each that the file holds."""
        found, done = np.empty((len(lines), len(part)), self.dtype), 0
        for run in _runs(lines) if len(part) == width else ([line] for line in lines):
            rows = found[done : done + len(run)]
            self._fill(rows.reshape(-1), int(run[0]) * width + part.start)
            done += len(run)
        return found

    def _fill(self, array: np.ndarray, first: int) -> None:
        """Read into ARRAY, of one dimension, from number FIRST of the file on."""
        rest = array.view(np.uint8).data
        place = self.start + first * self.dtype.itemsize
        with streams.naming(self.filename):
            while len(rest):
                done = os.preadv(self._file, [rest], place)
                if not done:
                    name = streams.name(self.filename)
                    raise DataError(f"{name}: cut short while in use: run it again")
                rest, place = rest[done:], place + done


class Filled:
    """The array in the .npy file PATH, all of it there, whose rows are written in any order.

    It is one of our own making, in C order; several processes may write into one.
    """

    def __init__(self, path: str) -> None:
        with streams.regular(path) as stream:
            npy.read_magic(stream)
            shape, _fortran, dtype = npy.read_array_header_1_0(stream)
            self._array = Stored(path, dtype, shape, "C", stream.tell())
        self._file = os.open(path, os.O_WRONLY)
        weakref.finalize(self, os.close, self._file)

    def write(self, first: int, rows: np.ndarray) -> None:
        """Put ROWS from row FIRST on."""
        rest = np.ascontiguousarray(rows, self._array.dtype).reshape(-1).view(np.uint8).data
        row = math.prod(self._array.shape[1:]) * self._array.dtype.itemsize
        place = self._array.start + first * row
        with streams.naming(self._array.filename):
            while len(rest):
                done = os.pwrite(self._file, rest, place)
                rest, place = rest[done:], place + done


def blocks(array: Any, count: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (slice, its rows) of ARRAY (N, D), at most COUNT and PIECE bytes at a time.

    Those of a Stored stay until the next are asked for, which take their place.
    """
    count = max(1, min(count, PIECE // max(1, array.shape[1] * array.dtype.itemsize)))
    memory = None
    if isinstance(array, Stored) and array._order == "C":
        memory = np.empty((count, array.shape[1]), array.dtype)
    for start in range(0, len(array), count):
        part = slice(start, min(start + count, len(array)))
        if memory is not None:
            array._fill(memory[: part.stop - start].reshape(-1), start * array.shape[1])
            yield part, memory[: part.stop - start]
        else:
            yield part, array[part]


def _numbers(key: Any, count: int) -> Any:
    """Return which of COUNT lines KEY names: an int, a range, or an array of numbers."""
    if isinstance(key, (int, np.integer, slice)):
        return range(count)[key]
    return np.arange(count)[key]


def _runs(numbers: Any) -> list[range]:
    """Return NUMBERS cut into ranges, so that few reads do."""
    if isinstance(numbers, range) and numbers.step == 1:
        return [numbers] if numbers else []
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    parts = np.split(np.asarray(numbers), cuts)
    return [range(part[0], part[-1] + 1) for part in parts if len(part)]
