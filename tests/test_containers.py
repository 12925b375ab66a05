"""Containers: what is read is whole, or one line that names the file; nothing read can run code."""

import errno
import io
import os
import sys
import tracemalloc
import warnings
import zipfile
import zlib

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


def test_an_older_header_is_read_without_a_word(tmp_path):
    """Python 2 wrote its whole numbers with an L."""
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (2L, 3L), }\n"
    length = len(header).to_bytes(2, "little")
    data = b"\x93NUMPY\x01\x00" + length + header + np.arange(6).tobytes()
    (tmp_path / "a.npy").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = containers.read_array(str(tmp_path / "a.npy"))
    assert np.array_equal(found, np.arange(6).reshape(2, 3))


def test_what_follows_an_array_is_not_passed_over(tmp_path):
    (tmp_path / "a.npy").write_bytes(WHOLE + WHOLE)
    with pytest.raises(DataError, match="a.npy: .*1,728 bytes follow, where its header promises"):
        containers.read_array(str(tmp_path / "a.npy"))


@pytest.mark.parametrize("claim", [(1 << 40,), (1 << 62, 1 << 62), (-1,), (-1, -100)])
def test_no_memory_is_taken_for_a_claim(tmp_path, claim):
    stream = io.BytesIO()
    containers.write_array_header(stream, "f8", claim)
    data = stream.getvalue() + bytes(800)
    (tmp_path / "a.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", data)
    tracemalloc.start()
    try:
        for name, read in (("a.npy", containers.read_array), ("a.npz", containers.read_arrays)):
            with pytest.raises(DataError, match=f"{name}: .*its header promises"):
                read(str(tmp_path / name))
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_an_archive_may_be_packed_but_is_no_bomb(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros(1_000_000))
    assert not containers.read_arrays(str(path))["x"].any()
    tracemalloc.start()
    try:
        np.savez_compressed(path, x=np.zeros(8_500_000, "u1"), y=np.zeros(60_000_000, "u1"))
        tracemalloc.reset_peak()
        with pytest.raises(DataError, match="a.npz: .*it would unpack to 68,500,256 bytes"):
            containers.read_arrays(str(path))
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


FLAGS = b"PK\1\2\x14\3\x14\0\0\0"  # begins the entry of a member in the list of a zip


@pytest.mark.parametrize(
    "change, said",
    [
        ([(b"x.npy", b"\xff.npy"), (FLAGS, FLAGS[:-2] + b"\0\x08")], "invalid start byte"),
        ([(FLAGS, FLAGS[:-2] + b"\1\0")], "is encrypted, password required"),
        ([(FLAGS + b"\0\0", FLAGS + b"\x0e\0")], "x.npy is packed in a way that is not read"),
        ([(FLAGS, b"PK\1\2\xff\3\xff\0" + FLAGS[-2:])], "zip file version 25.5"),
    ],
    ids=["a name that is not UTF-8", "a password", "another method", "another version"],
)
def test_an_archive_that_python_reads_otherwise_is_one_line(tmp_path, change, said):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("x.npy", WHOLE)
    content = data.getvalue()
    for old, new in change:
        assert old in content
        content = content.replace(old, new)
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=f"a.npz: .*{said}") as error:
        containers.read_arrays(str(tmp_path / "a.npz"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_archive_that_cannot_be_bounded_is_refused(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("x.npy", WHOLE)
    with pytest.raises(DataError, match="x.npy is packed in a way that is not read"):
        containers.read_arrays(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    "error, passes",
    [
        (MemoryError(), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), True),
        (OSError(errno.EINVAL, "Invalid argument"), False),
        (OSError("no gzip"), False),
        (RecursionError(), False),
        (KeyError("x"), False),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), False),
        (zlib.error("Error -3"), False),
        (ValueError("two\nlines" + 999 * "."), False),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_the_machine_lacks_is_not_held_against_the_file(error, passes):
    wanted = pytest.raises(type(error) if passes else DataError)
    with wanted as caught, containers.understanding("a.npy", "an array"):
        raise error
    if not passes:
        assert str(caught.value).startswith("a.npy: not an array, or damaged (")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
