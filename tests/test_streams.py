"""Files and pipes: whole or not at all, and nothing read can run code."""

import hashlib
import os
import stat
import sys

import pytest

from ssl_common import streams
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


def test_a_closed_standard_input_is_named(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)  # as Python starts under `<&-`
    with pytest.raises(DataError, match="standard input is closed"), streams.reading("-"):
        pass


def test_digest_does_not_depend_on_the_pieces(tmp_path):
    content = bytes(range(256)) * 9000  # over 1 MiB: more than one piece of a file
    (tmp_path / "a").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()[:16]
    assert streams.digest(content) == expected
    assert streams.digest([content[:7], content[7:]]) == expected
    assert streams.file_digest(tmp_path / "a") == expected
