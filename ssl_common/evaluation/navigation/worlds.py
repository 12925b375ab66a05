"""Worlds that a policy moves in: child processes that get actions and give frames over pipes.

The format is ssl-formats(5): `reset SEED` or `step ACTION` in, a line of JSON and the bytes of a
frame out.
"""

import contextlib
import os
import select
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_common import containers, formats, legible
from ssl_common.data.order import draws
from ssl_common.evaluation.navigation.options import WorldOptions
from ssl_common.processes import die_with_parent, heed
from ssl_common.streams import DataError

PATIENCE = 5.0  # seconds for a child to end by itself
LONGEST = 1 << 16  # bytes of a reply without its frame
PIECE = 1 << 16
WAIT = 500  # milliseconds after which a signal that fell between two calls is heard
RECORDING, TESTING, TRAINING = 1, 2, 3  # purposes, whose episodes are others
SEEDS = 2**31  # of an episode: what every environment takes


def episode_seed(seed: int, purpose: int, episode: int) -> int:
    """Return the seed of EPISODE of a command with SEED and a PURPOSE, RECORDING or another."""
    return int(draws(seed, [purpose], [episode], 1)[0, 0] * SEEDS)


@dataclass(frozen=True)
class Seen:
    """What a world shows after a step: its FRAME, uint8 H x W x 3, and what it says of itself.

    None is what it does not say. EXPERT is the action that an expert would take now, DISTANCE the
    length of the shortest path to the goal, LENGTH that of the path so far.
    """

    frame: np.ndarray
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    success: bool | None = None
    distance: float | None = None
    length: float | None = None
    expert: int | None = None

    @property
    def ended(self) -> bool:
        """Whether the episode is over."""
        return self.terminated or self.truncated


class World:
    """A process that is a world, as OPTIONS say. Close it: that ends the process.

    `actions` are the names of what it takes, known after the first reset. One request is made at a
    time: ask_reset() or ask_step(), then answer().
    """

    def __init__(self, options: WorldOptions) -> None:
        self.options, self.actions = options, list[str]()
        self.name = options.env or shlex.split(str(options.env_command))[0]
        self.size: tuple[int, ...] | None = None
        self.steps, self.data = 0, bytearray()
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 (its standard error, for as long as it lives)
        ours = options.env is not None
        import ctypes  # noqa: F401 (which die_with_parent needs, and a child should not load)

        try:
            # In a session of its own: a signal to our group is for us. Ours end when their input
            # does, and take their engine along; others are ended with us by the system.
            self.process = subprocess.Popen(
                options.argv(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.said,
                bufsize=0,
                start_new_session=True,
                preexec_fn=None if ours else _end_with_us,
            )
        except (OSError, ValueError) as error:
            self.said.close()
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"{legible.text(self.name)}: cannot be started ({reason})") from error

    # ---- Requests --------------------------------------------------------------------------------

    def ask_reset(self, seed: int) -> None:
        """Ask for the beginning of the episode of SEED."""
        self.steps, self.asked = 0, "reset"
        self._write(f"reset {seed}\n")

    def ask_step(self, action: int) -> None:
        """Ask for what follows ACTION."""
        self.steps, self.asked = self.steps + 1, "step"
        self._write(f"step {action}\n")

    def answer(self) -> Seen:
        """Return what it shows, as was asked; wait for it. Raises DataError where it fails."""
        reply = self._reply()
        height, width, _three = reply["shape"]
        pixels = self._bytes(height * width * 3)
        frame = np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
        if self.size not in (None, frame.shape):
            raise self._error(f"a frame of {width} x {height} pixels after others")
        self.size = frame.shape
        if self.asked == "reset":
            self._take_actions(reply)
        expert = reply.get("expert")
        if expert is not None and expert >= len(self.actions):
            raise self._error(f"expert is {expert}, where there are {len(self.actions)} actions")
        terminated = bool(reply.get("terminated"))
        truncated = bool(reply.get("truncated")) or self.steps >= self.options.max_steps
        return Seen(
            frame,
            float(reply.get("reward") or 0.0) if self.asked == "step" else 0.0,
            terminated,
            truncated and not terminated,
            reply.get("success"),
            reply.get("distance_to_goal"),
            reply.get("path_length"),
            expert,
        )

    def reset(self, seed: int) -> Seen:
        """Return the beginning of the episode of SEED."""
        self.ask_reset(seed)
        return self.answer()

    def step(self, action: int) -> Seen:
        """Return what follows ACTION."""
        self.ask_step(action)
        return self.answer()

    def _take_actions(self, reply: Mapping[str, Any]) -> None:
        said = reply.get("actions")
        if said is None:
            raise self._error("actions is missing in the reply to reset")
        names = [str(each) for each in range(said)] if isinstance(said, int) else list(said)
        if self.actions not in ([], names):
            raise self._error("actions are not those of the episode before")
        self.actions = names

    def _reply(self) -> dict[str, Any]:
        while (end := self.data.find(b"\n")) < 0:
            if len(self.data) > LONGEST:
                raise self._error(f"a reply of more than {LONGEST:,} bytes without an end of line")
            self._read()
        try:
            said = containers.json_object(bytes(self._bytes(end + 1)), "a reply")
            if isinstance(said.get("error"), str):
                raise self._error(said["error"])
            return formats.REPLY.check(said, "a reply")
        except DataError as error:
            if str(error).startswith("a reply"):
                raise self._error(str(error)) from None
            raise

    # ---- The process -----------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor that is ready when an answer is: for poll()."""
        assert self.process.stdout
        return self.process.stdout.fileno()

    def _write(self, line: str) -> None:
        assert self.process.stdin
        try:
            self.process.stdin.write(line.encode())
        except OSError:
            raise self._ended() from None

    def _bytes(self, count: int) -> bytearray:
        """Return the next COUNT bytes of its output."""
        while len(self.data) < count:
            self._read()
        taken = self.data[:count]
        del self.data[:count]
        return taken

    def _read(self) -> None:
        """Take what comes next of its output; a signal is heard while that is waited for."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        while not poll.poll(WAIT):
            heed()
        if not (piece := os.read(self.fileno(), PIECE)):
            raise self._ended()
        self.data += piece

    def _ended(self) -> DataError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        code = self.process.poll()
        how = "closed its output"
        if code is not None:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else "ended"
            how += f" with status {code}" if code > 0 else ""
        self.said.seek(0)
        words = self.said.read()[-LONGEST:].decode(errors="backslashreplace").split("\n")
        last = next((legible.line(line) for line in reversed(words) if line.strip()), "")
        return self._error(how + (f": {last}" if last else ""))

    def _error(self, what: str) -> DataError:
        return DataError(f"{legible.text(self.name)}: {legible.line(what)}")

    def close(self) -> None:
        """End the process, and all that it started."""
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE if self.options.env else PATIENCE / 10)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.said.close()


def _end_with_us() -> None:
    die_with_parent(signal.SIGKILL)


@contextlib.contextmanager
def several(options: WorldOptions, count: int) -> Iterator[list[World]]:
    """Yield COUNT worlds as OPTIONS say; they end with the block."""
    opened: list[World] = []
    try:
        for _ in range(count):
            opened.append(World(options))
        yield opened
    finally:
        for world in opened:
            with contextlib.suppress(OSError):
                assert world.process.stdin
                world.process.stdin.close()  # of all of them first: they end side by side
        for world in opened:
            world.close()


def first_ready(worlds: Sequence[World]) -> World:
    """Return one of WORLDS that has an answer, the first in their order; wait for it."""
    poll, by = select.poll(), {world.fileno(): world for world in worlds}
    for descriptor in by:
        poll.register(descriptor, select.POLLIN)
    while True:
        heed()
        ready = {descriptor for descriptor, _event in poll.poll(WAIT)}
        if ready:
            return next(world for descriptor, world in by.items() if descriptor in ready)


class Pace:
    """How many frames a second, since it was made."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def of(self, frames: int) -> float:
        """Return the frames a second where FRAMES have come."""
        return frames / max(1e-9, time.monotonic() - self.began)
