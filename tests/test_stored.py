"""Arrays read from their file a piece at a time, against numpy in memory; files that change."""

import errno
import itertools
import os
import pathlib
import pickle

import numpy as np
import pytest

from ssl_common import containers, stored
from ssl_common.streams import DataError

SHAPES = [(), (0,), (7,), (7, 0), (0, 5), (9, 5), (1, 5), (9, 1), (4, 3, 2)]


def saved(path, shape, dtype="<f4", order="C"):
    """Return an array of SHAPE, and what is Stored of it in the file PATH."""
    array = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    array = np.asarray(array, order=order)
    np.save(path, array)
    return array, containers.read_array(str(path))


@pytest.mark.parametrize("dtype", ["<f4", "<f2", ">f8", "u1", "<U3"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pieces_are_those_of_the_array(tmp_path, shape, order, dtype):
    array, found = saved(tmp_path / "a.npy", shape, dtype, order)
    assert isinstance(found, stored.Stored)
    assert (found.shape, found.dtype, found.ndim) == (array.shape, array.dtype, array.ndim)
    np.testing.assert_array_equal(np.asarray(found), array)
    if not array.ndim:
        return
    rng, count = np.random.default_rng(1), len(array)
    rows = [slice(None), slice(1, 4), slice(3, 1), slice(None, None, -2), np.zeros(count, bool)]
    rows += [0, -1, np.array([0, -1, 0]), rng.permutation(count)] if count else []
    columns = [(), *((s,) for s in (slice(None), slice(1, 3), slice(2, 2)) if array.ndim == 2)]
    for row, column in itertools.product(rows, columns):
        expected = array[(row, *column)]
        got = found[(row, *column)] if column else found[row]
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(got, expected)
    if array.ndim == 2:
        for count in (1, 2, 100):
            parts = [(part, rows.copy()) for part, rows in stored.blocks(found, count)]
            assert [len(rows) for _part, rows in parts[:-1]] == [count] * (len(parts) - 1)
            np.testing.assert_array_equal(
                np.concatenate([rows for _part, rows in parts] or [array]), array
            )


def test_blocks_are_of_a_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "PIECE", 4 * 5 * 3)
    _array, found = saved(tmp_path / "a.npy", (8, 5))
    assert [part for part, _rows in stored.blocks(found, 100)] == [
        slice(0, 3), slice(3, 6), slice(6, 8)
    ]  # fmt: skip


@pytest.mark.parametrize("order", ["C", "F"])
def test_another_process_opens_it_again(tmp_path, order):
    array, found = saved(tmp_path / "a.npy", (9, 5), order=order)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again[2:5], array[2:5])


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_that_shrinks_is_named(tmp_path, order):
    array, found = saved(tmp_path / "a.npy", (1000, 50), order=order)
    os.truncate(tmp_path / "a.npy", 100_000)
    whole = (slice(0, 10), slice(None)) if order == "C" else (slice(None), slice(0, 3))
    np.testing.assert_array_equal(found[whole], array[whole])
    for read in (np.asarray, lambda f: f[:], lambda f: f[-1], lambda f: [*stored.blocks(f, 99)]):
        with pytest.raises(DataError, match=r"a\.npy: cut short while in use"):
            read(found)


def test_a_disk_that_fails_is_an_error_of_the_file(tmp_path, monkeypatch):
    _array, found = saved(tmp_path / "a.npy", (9, 5))

    def fail(*_arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(OSError) as error:
        found[0]
    assert error.value.filename == str(tmp_path / "a.npy")


def test_nothing_is_mapped(tmp_path):
    _array, found = saved(tmp_path / "only-here.npy", (9, 5))
    assert found[0].sum() and "only-here" not in pathlib.Path("/proc/self/maps").read_text()


def test_rows_are_filled_in_any_order(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros((9, 5), "<f2"))
    rows = np.random.default_rng(0).normal(size=(9, 5)).astype("<f2")
    for first, last in ((6, 9), (0, 2), (2, 6), (3, 3)):
        stored.Filled(str(tmp_path / "a.npy")).write(first, rows[first:last])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), rows)

    def fail(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OSError) as error:
        stored.Filled(str(tmp_path / "a.npy")).write(0, rows)
    assert error.value.filename == str(tmp_path / "a.npy")
