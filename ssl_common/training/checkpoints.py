"""The files of a run: MODEL.pt.state/ while it lasts, then MODEL.pt; see ssl-formats(5)."""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ssl_common import streams
from ssl_common.models import networks
from ssl_common.records import version
from ssl_common.streams import DataError
from ssl_common.training.log import Log

KEPT = 2  # checkpoints of a run in progress
# What a run writes into its folder. All else there is somebody else's: neither read nor removed.
LOG, STOPPED, FEATURES = "log.jsonl", "stopped", "features"
CHECKPOINT = re.compile(r"step-(\d{12})\.pt")
PARTIAL = re.compile(rf"({CHECKPOINT.pattern}|{STOPPED})\.([0-9a-f]+)\.partial")
FILE = re.compile(f"{CHECKPOINT.pattern}|{PARTIAL.pattern}")
# Settings that no option is called by.
OPTIONS = {"micro_batch": "--gpus x --accumulate", "synced_ranks": "GPUs of --sync-bn"}


class Run:
    """The files of one training run: its checkpoints, its log, and in the end its network.

    SETTINGS are all that decides the result: a run goes on only with those it began with. Besides
    the newest checkpoints those after every KEEPING-th step stay, where that is not 0. COMMAND is
    the one that trains; SAY gets a line where the state is not what was left.
    """

    def __init__(
        self,
        output: str,
        settings: dict[str, Any],
        keeping: int = 0,
        command: str = "pretrain",
        say: Callable[[str], object] = lambda _line: None,
    ) -> None:
        self.output, self.settings, self.keeping = output, settings, keeping
        self.command, self.say = command, say
        self.folder = f"{output}.state"
        self.log = Log(os.path.join(self.folder, LOG))
        self._stop_path = os.path.join(self.folder, STOPPED)
        self._newest: int | None = None  # the step of the last checkpoint that is known to be whole
        self.resumed: str | None = None  # the file of the one that it goes on from

    # ---- The network ------------------------------------------------------------------------

    def complete(self) -> bool:
        """Tell whether the finished network exists; raise DataError if it has other settings."""
        if os.path.isdir(self.folder):
            self._check_names()
        if not os.path.exists(self.output):
            return False
        content = networks.load(self.output, self.command)
        self._check(self.output, content)
        if not networks.is_finished(content, self.command):
            advice = f"remove it and go on from {self.folder}, or give another -o"
            raise DataError(f"{self.output}: a checkpoint, not a finished network: {advice}")
        for path in self._spare(0):  # what one that was killed in finish() left
            if self._is_of_this_run(path):
                os.unlink(path)
        return True

    def _is_of_this_run(self, path: str) -> bool:
        with contextlib.suppress(DataError):
            self._check(path, networks.load_checkpoint(path, self.command))
            return True
        return False

    def finish(self, network: dict[str, Any]) -> None:
        """Write the network, then remove the checkpoints; the log stays."""
        network |= {"format": networks.FORMAT, "settings": self.settings}
        self._with_room(lambda: networks.save(self.output, network))
        self.close()
        for path in self._spare(0):
            os.unlink(path)

    def close(self) -> None:
        """Unlock the run for other processes."""
        self.log.close()

    def _check(self, path: str, content: Mapping[str, Any]) -> None:
        """Raise DataError if CONTENT, read from PATH, was made with other settings."""
        then, now = _as_given(content["settings"]), _as_given(self.settings)
        del now["data_name"]  # the digest tells the images, under whatever name
        other = [
            f"{OPTIONS.get(k, k)} {then.get(k)}, not {now[k]}" for k in now if then.get(k) != now[k]
        ]
        if other:
            advice = f"give the same, another -o, or remove {self.output} and {self.folder}"
            raise DataError(f"{path}: made with {'; '.join(other)}: {advice}")

    # ---- The state --------------------------------------------------------------------------

    def open(self) -> None:
        """Lock the run for this process, and find its newest checkpoint.

        Raises DataError if the run is locked, or was made with other settings.
        """
        os.makedirs(self.folder, exist_ok=True)
        self._check_names()
        self._lock()
        self.forget_stop()
        for name in filter(PARTIAL.fullmatch, os.listdir(self.folder)):  # of one that was killed
            os.unlink(os.path.join(self.folder, name))
        self._state = self._newest_whole()
        self._newest = self._state["step"] if self._state else None

    def resume(self) -> dict[str, Any] | None:
        """Return the newest intact checkpoint, or None at the start; cut the log to match."""
        state, self._state = self._state, None
        if message := self.log.resume(state):
            self.say(message)
        return state

    def _check_names(self) -> None:
        """Raise DataError if a link, pipe or the like has the name of a file of the run.

        What is written there would end up elsewhere; so it would by another name of the log.
        """
        with os.scandir(self.folder) as entries:
            listed = list(entries)
        for entry in listed:
            if entry.name == FEATURES:
                right = entry.is_dir(follow_symlinks=False)
            elif entry.name in (LOG, STOPPED) or FILE.fullmatch(entry.name):
                right = entry.is_file(follow_symlinks=False)
            else:
                continue
            if not right:
                what = "a link" if entry.is_symlink() else "no regular file"
                raise DataError(f"{entry.path}: {what} by the name of a file of this run: move it")
            if entry.name == LOG and entry.stat().st_nlink > 1:  # of a copy by cp -l, say
                message = "has another name (a hard link), under which it would change too"
                raise DataError(f"{entry.path}: {message}: put a copy in its place")

    def _lock(self) -> None:
        """Open the log, and lock the run against other processes while it is open."""
        try:
            self.log.open()
        except BlockingIOError:
            message = f"{self.folder}: another process trains this network: give another -o"
            raise DataError(message) from None
        except OSError as error:  # a file system without locks
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise

    def _newest_whole(self) -> dict[str, Any] | None:
        """Return the newest intact checkpoint; say so if a newer one is damaged."""
        damaged = []
        for path in reversed(self._checkpoints()):
            try:
                state = networks.load_checkpoint(path, self.command)
            except DataError as error:
                damaged.append(error)
                continue
            self._check(path, state)
            self.resumed = path
            if damaged:
                self.say(f"{damaged[0]}: going on from the one of step {state['step']:,}")
            return state
        if damaged:
            advice = f"remove {self.folder} to begin anew"
            raise DataError(f"{damaged[0]}, and no checkpoint before it is whole: {advice}")
        return None

    def _checkpoints(self) -> dict[str, int]:
        """Return the checkpoints and their steps, oldest first."""
        return saved(self.folder)

    def _spare(self, kept: int) -> list[str]:
        """Return the checkpoints that may be removed, the least needed first.

        They are what is newer than the newest that is whole, and what is older than the newest KEPT
        and does not stay for good.
        """
        steps = self._checkpoints()
        newest = self._newest if self._newest is not None else max(steps.values(), default=0)
        whole = [path for path in steps if steps[path] <= newest]
        older = whole[: max(0, len(whole) - kept)]
        stale = [path for path in steps if steps[path] > newest]
        return stale + [p for p in older if not self.keeping or steps[p] % self.keeping]

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the checkpoint of STEP and remove old ones."""
        self.log.sync()
        state |= {"format": networks.FORMAT, "settings": self.settings}
        state |= {"step": step, "version": version()} | self.log.told
        path = os.path.join(self.folder, f"step-{step:012}.pt")
        self._with_room(lambda: networks.save(path, state))
        self._newest = step
        for spare in self._spare(KEPT):
            os.unlink(spare)

    def _with_room(self, write: Callable[[], object]) -> None:
        """Call WRITE(); on a full disk remove old checkpoints for it, but never the newest."""
        while True:
            try:
                write()
                return
            except OSError as error:
                spare = self._spare(1)
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not spare:
                    raise
                os.unlink(spare[0])

    def log_lines(self) -> Iterator[bytes]:
        """Yield the log so far, line by line, as bytes."""
        yield from self.log.lines()

    def append(self, line: bytes) -> None:
        """Add a LINE of bytes to the log."""
        self._with_room(lambda: self.log.append(line))

    def stop(self, reason: str) -> None:
        """Record in the folder that REASON, a signal, stopped the run."""
        self._with_room(lambda: self._leave(f"{reason}\n"))

    def _leave(self, word: str) -> None:
        with streams.writing(self._stop_path, binary=False) as stream:
            stream.write(word.encode())

    def forget_stop(self) -> None:
        """Remove the record of stop()."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._stop_path)

    def stopped(self) -> str | None:
        """Return the signal that stopped the run, or None."""
        with contextlib.suppress(FileNotFoundError), open(self._stop_path, "rb") as stream:
            return stream.read().decode().strip()
        return None


def saved(folder: str) -> dict[str, int]:
    """Return the checkpoints in FOLDER, that of a run, and their steps, oldest first."""
    try:
        matches = map(CHECKPOINT.fullmatch, sorted(os.listdir(folder)))
    except FileNotFoundError:
        return {}
    return {os.path.join(folder, match[0]): int(match[1]) for match in matches if match}


def _as_given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return SETTINGS with the micro-batch given as the options give it: the number of pieces."""
    batch, piece = settings.get("batch"), settings.get("micro_batch")
    return dict(settings) | {"micro_batch": batch // piece if batch and piece else None}
