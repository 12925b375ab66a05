"""The log of a run in progress, MODEL.pt.state/log.jsonl; see ssl-formats(5)."""

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ssl_common import containers, locks, streams


class Log:
    """The log at PATH, JSON lines; a checkpoint stores `told`, the state of the log by then."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._opened: io.FileIO | None = None

    @property
    def _stream(self) -> io.FileIO:
        assert self._opened, "the log is open while a run has it"
        return self._opened

    @property
    def told(self) -> dict[str, int | str]:
        """Size, number of lines and digest of the log, by their names in a checkpoint."""
        digest = self._sha.hexdigest()[:16]  # as streams.digest() has it
        return {"log_bytes": self._bytes, "log_lines": self._lines, "log_digest": digest}

    def open(self) -> None:
        """Open the file for appending, and lock it against other processes until close()."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._opened = open(os.open(self.path, flags, 0o666), "r+b", buffering=0)  # noqa: SIM115
        locks.take(self._opened.fileno())

    def close(self) -> None:
        """Close the file, and so unlock it."""
        if self._opened and not self._opened.closed:
            locks.leave(self._opened.fileno())
            self._opened.close()

    def resume(self, state: Mapping[str, Any] | None) -> str | None:
        """Cut the log to the part before the checkpoint STATE, or to nothing if that is None.

        If that part is not as it was when the checkpoint was made, keep its intact lines only.
        Returns a message that says so, else None.
        """
        content, message = self._stream.readall() or b"", None
        kept = content[: state["log_bytes"]] if state else b""
        if state and not _is_as_told(kept, state):
            lines = [line for line in io.BytesIO(content) if _is_line(line, state["step"])]
            kept = b"".join(lines)
            of = f"of {state['log_lines']:,} lines" if "log_lines" in state else "lines"
            message = f"{self.path}: cut or changed since it was written: up to step"
            message += f" {state['step']:,} {len(lines):,} {of} are left, and kept"
        if not content.startswith(kept):
            self._stream.truncate(0)
            self._write(kept)
        self._stream.truncate(len(kept))
        self._bytes, self._lines, self._sha = len(kept), kept.count(b"\n"), hashlib.sha256(kept)
        return message

    def append(self, line: bytes) -> None:
        """Append LINE, bytes, completely or not at all."""
        try:
            self._write(line)
        except OSError:
            self._stream.truncate(self._bytes)
            raise
        self._bytes, self._lines = self._bytes + len(line), self._lines + 1
        self._sha.update(line)

    def _write(self, content: bytes) -> None:
        while content:  # a write may end early, with the reason in the next one
            content = content[self._stream.write(content) :]

    def sync(self) -> None:
        """Wait until everything written is on the disk."""
        os.fsync(self._stream.fileno())

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that are in the file, as bytes."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        with open(descriptor, "rb") as stream:
            yield from filter(_is_line, stream)


def _is_as_told(content: bytes, state: Mapping[str, Any]) -> bool:
    """Tell whether CONTENT is the log as it was when the checkpoint STATE was made."""
    if "log_digest" in state:
        return streams.digest(content) == state["log_digest"]
    lines = io.BytesIO(content)  # of 0.2.0: its length, and lines, have to do
    return len(content) == state["log_bytes"] and all(map(_is_line, lines))


def _is_line(line: bytes, last: int | None = None) -> bool:
    """Tell whether LINE, bytes, is a line of a log, for a step up to LAST if that is given."""
    try:
        record = containers.parse(line)
    except ValueError:
        return False
    if not isinstance(record, dict) or line[:1] + line[-1:] != b"{\n":  # no byte-order mark
        return False
    step = record.get("step", 0)
    return isinstance(step, int) and (last is None or step <= last)
