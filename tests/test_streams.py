"""Files and pipes: whole or not at all, and nothing read can run code."""

import hashlib
import io
import os
import stat
import sys

import numpy as np
import pytest

from ssl_common import stored, streams
from ssl_common.streams import DataError


def write(path, content, **extra):
    with streams.writing(str(path), **extra) as stream:
        stream.write(content)


def test_a_named_file_appears_whole(tmp_path):
    with streams.writing(str(tmp_path / "a")) as stream:
        stream.write(b"new")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_what_stood_there_survives_a_failure(tmp_path, error):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(error), streams.writing(str(tmp_path / "a")) as stream:
        stream.write(b"new")
        raise error
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/file")
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far/file").read_bytes() == b"new"


def test_a_mode_is_that_of_an_ordinary_new_file(tmp_path):
    write(tmp_path / "a", b"")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_missing_folder_is_named_as_the_user_did(tmp_path):
    with pytest.raises(OSError) as caught:
        write(tmp_path / "no/such", b"")
    assert caught.value.filename == str(tmp_path / "no/such")


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, streams.writing(str(tmp_path / "a")):
        (tmp_path / "other").read_bytes()
    assert str(caught.value.filename) == str(tmp_path / "other")


def test_a_device_is_written_to_and_not_replaced():
    write("/dev/null", b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OSError) as caught:
        write("/dev/full", b"no room")
    assert (caught.value.errno, caught.value.filename) == (28, "/dev/full")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError):
        write(tmp_path, b"")
    assert os.listdir(tmp_path) == []


def array_bytes(array):
    stream = io.BytesIO()
    streams.write_array(stream, array)
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
    mapped = streams.read_array(str(tmp_path / "a.npy"))
    assert isinstance(mapped, stored.Stored)
    read_end, write_end = os.pipe()
    os.write(write_end, array_bytes(array))
    os.close(write_end)
    with open(read_end) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        piped = streams.read_array("-")
    np.testing.assert_array_equal(mapped, piped)


def test_a_closed_standard_input_is_named(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)  # as Python starts under `<&-`
    with pytest.raises(DataError, match="standard input is closed"), streams.reading("-"):
        pass


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
        ("a.npy", streams.read_array),
        ("raw.npy", streams.read_array),
        ("a.npz", streams.read_arrays),
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
        streams.read_array(str(tmp_path / "a.npy"))
    assert "allow_pickle" not in str(error.value)  # the user cannot give it, and should not


def test_an_archive_is_no_array_and_an_array_no_archive(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    with pytest.raises(DataError, match="a.npz"):
        streams.read_array(str(tmp_path / "a.npz"))
    np.save(tmp_path / "a.npy", np.arange(3))
    with pytest.raises(DataError, match="a.npy"):
        streams.read_arrays(str(tmp_path / "a.npy"))


def test_a_cut_archive_is_one_error(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(1000))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="a.npz"):
        streams.read_arrays(str(tmp_path / "a.npz"))
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255  # the archive's checksum is wrong now
    (tmp_path / "a.npz").write_bytes(damaged)
    with pytest.raises(DataError, match="a.npz"):
        streams.read_arrays(str(tmp_path / "a.npz"))


def test_digest_does_not_depend_on_the_pieces(tmp_path):
    content = bytes(range(256)) * 9000  # over 1 MiB: more than one piece of a file
    (tmp_path / "a").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()[:16]
    assert streams.digest(content) == expected
    assert streams.digest([content[:7], content[7:]]) == expected
    assert streams.file_digest(tmp_path / "a") == expected
