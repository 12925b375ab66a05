"""Compressed files by their first bytes: those unpacked here, and commands for the others."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from typing import Any, BinaryIO

LONGEST = 4  # bytes that tell
READERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zX": lzma.open,
}
COMMANDS = {
    b"\x1f\x8b": "gzip -dc",
    b"BZh": "bzip2 -dc",
    b"\xfd7zX": "xz -dc",
    b"\x28\xb5\x2f\xfd": "zstd -dc",
    b"PK\x03\x04": "unzip -p",
}


def reader(start: bytes) -> Callable[[BinaryIO], Any] | None:
    """Return the function that opens a stream that begins with START, None for a plain file."""
    return next((READERS[magic] for magic in READERS if start.startswith(magic)), None)


def command(start: bytes) -> str | None:
    """Return the command that unpacks a file that begins with START, None for a plain file."""
    return next((COMMANDS[magic] for magic in COMMANDS if start.startswith(magic)), None)
