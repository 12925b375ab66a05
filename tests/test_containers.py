"""Containers: what is read is whole, or one line that names the file; nothing read can run code."""

import io
import os
import sys

import numpy as np
import pytest

from ssl_common import containers
from ssl_common.stored import Stored
from ssl_common.streams import DataError


def array_bytes(array):
    stream = io.BytesIO()
    containers.write_array(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.int64).reshape(3, 4),
        np.arange(12, dtype=">f4").reshape(3, 4),
        np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
        np.arange(24, dtype=np.int8).reshape(4, 6)[::2, ::3],
        np.zeros((0, 9), np.int64),
        np.array([True, False]),
    ],
    ids=["int64", "big endian", "Fortran", "strided", "empty", "bool"],
)
def test_arrays_are_c_order_and_little_endian(array):
    written = array_bytes(array)
    plain = io.BytesIO()
    np.save(plain, np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")))
    assert written == plain.getvalue()


def test_a_file_and_a_pipe_read_the_same(tmp_path, monkeypatch):
    array = np.arange(6, dtype=np.int64).reshape(2, 3)
    (tmp_path / "a.npy").write_bytes(array_bytes(array))
    mapped = containers.read_array(str(tmp_path / "a.npy"))
    assert isinstance(mapped, Stored)
    read_end, write_end = os.pipe()
    os.write(write_end, array_bytes(array))
    os.close(write_end)
    with open(read_end) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        piped = containers.read_array("-")
    np.testing.assert_array_equal(mapped, piped)


class Bomb:
    """Pickles to something that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_nothing_read_runs_code(tmp_path):
    bomb = np.array([Bomb(tmp_path / "exploded")], dtype=object)
    np.save(tmp_path / "a.npy", bomb, allow_pickle=True)
    np.savez(tmp_path / "a.npz", bomb=bomb)
    (tmp_path / "raw.npy").write_bytes(bomb.dumps())
    for name, read in (
        ("a.npy", containers.read_array),
        ("raw.npy", containers.read_array),
        ("a.npz", containers.read_arrays),
    ):
        with pytest.raises(DataError, match=name):
            read(str(tmp_path / name))
    assert not (tmp_path / "exploded").exists()
    bomb[0].__reduce__()[0](*bomb[0].__reduce__()[1])  # it would have
    assert (tmp_path / "exploded").exists()


WHOLE = array_bytes(np.arange(100))


@pytest.mark.parametrize(
    "content", [b"", b"hello", WHOLE[:5], WHOLE[:60], WHOLE[:-1], b"\x93NUMPY\x07\x00" + WHOLE[8:]]
)
def test_a_broken_array_is_one_error_that_names_it(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match="a.npy") as error:
        containers.read_array(str(tmp_path / "a.npy"))
    assert "allow_pickle" not in str(error.value)  # the user cannot give it, and should not


def test_an_archive_is_no_array_and_an_array_no_archive(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    with pytest.raises(DataError, match="a.npz"):
        containers.read_array(str(tmp_path / "a.npz"))
    np.save(tmp_path / "a.npy", np.arange(3))
    with pytest.raises(DataError, match="a.npy"):
        containers.read_arrays(str(tmp_path / "a.npy"))


def test_a_cut_archive_is_one_error(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(1000))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="a.npz"):
        containers.read_arrays(str(tmp_path / "a.npz"))
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255  # the archive's checksum is wrong now
    (tmp_path / "a.npz").write_bytes(damaged)
    with pytest.raises(DataError, match="a.npz"):
        containers.read_arrays(str(tmp_path / "a.npz"))
