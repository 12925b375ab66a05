"""Compressed files by their first bytes: those unpacked here, and commands for the others."""

import gzip
import io
import lzma
from collections.abc import Callable
from typing import Any, BinaryIO

from ssl_common.data.blocks import Unpacked

LONGEST = 4  # bytes that tell
# Each is given a stream, and how many threads it may use; the caller closes what it returns.
READERS: dict[bytes, Callable[[BinaryIO, int], Any]] = {
    b"\x1f\x8b": lambda packed, _threads: gzip.open(packed),  # noqa: SIM115
    b"BZh": lambda packed, threads: io.BufferedReader(Unpacked(packed, threads)),
    b"\xfd7zX": lambda packed, _threads: lzma.open(packed),  # noqa: SIM115
}
COMMANDS = {
    b"\x1f\x8b": "gzip -dc",
    b"BZh": "bzip2 -dc",
    b"\xfd7zX": "xz -dc",
    b"\x28\xb5\x2f\xfd": "zstd -dc",
    b"PK\x03\x04": "unzip -p",
}


def reader(start: bytes) -> Callable[[BinaryIO, int], Any] | None:
    """Return the function of READERS for a stream that begins with START, None for a plain file."""
    return next((READERS[magic] for magic in READERS if start.startswith(magic)), None)


def command(start: bytes) -> str | None:
    """Return the command that unpacks a file that begins with START, None for a plain file."""
    return next((COMMANDS[magic] for magic in COMMANDS if start.startswith(magic)), None)
