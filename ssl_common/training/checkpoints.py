"""Runs in progress: MODEL.pt.state/, and in the end MODEL.pt; see ssl-formats(5)."""

import contextlib
import errno
import fcntl
import glob
import os
import re

from ssl_common import streams
from ssl_common.models import networks
from ssl_common.records import version
from ssl_common.streams import DataError

KEPT = 2  # checkpoints of a run in progress


class Run:
    """The files of one training run: its state, its log, and in the end its network.

    SETTINGS are all that decides the result: a run goes on only with those it began with. Besides
    the newest checkpoints those after every KEEPING-th step stay, where that is not 0. COMMAND is
    the one that trains.
    """

    def __init__(self, output, settings, keeping=0, command="pretrain"):
        self.output, self.settings, self.keeping = output, settings, keeping
        self.command = command
        self.folder = f"{output}.state"
        self.log_path = os.path.join(self.folder, "log.jsonl")
        self._stop_path = os.path.join(self.folder, "stopped")
        self._log = None

    def complete(self):
        """Tell whether the network is there, trained with these settings."""
        if not os.path.exists(self.output):
            return False
        self._check(self.output, networks.load(self.output, self.command))
        self._sweep()  # what one that was killed in finish() left
        return True

    def resume(self):
        """Return the newest checkpoint, or None at the start; open the log where it stopped."""
        os.makedirs(self.folder, exist_ok=True)
        self._log = open(self.log_path, "ab")  # noqa: SIM115 (open as long as the run)
        self._lock()
        self.forget_stop()
        for name in glob.glob(os.path.join(glob.escape(self.folder), "*.partial")):
            os.unlink(name)
        names = self._checkpoints()
        state = None
        if names:
            state = networks.load(names[-1], self.command)
            self._check(names[-1], state)
        self._log.truncate(state["log_bytes"] if state else 0)
        return state

    def _lock(self):
        """Keep others from this run for as long as the log is open."""
        try:
            fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{self.folder}: another process trains this network: give another -o"
            raise DataError(message) from None
        except OSError as error:  # a file system without locks
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise

    def _check(self, path, content):
        then, now = content["settings"], self.settings
        other = [f"{k} {then.get(k)}, not {now[k]}" for k in now if then.get(k) != now[k]]
        if other:
            advice = f"give the same, another -o, or remove {self.output} and {self.folder}"
            raise DataError(f"{path}: made with {'; '.join(other)}: {advice}")

    def _checkpoints(self):
        return sorted(glob.glob(os.path.join(glob.escape(self.folder), "*.pt")))

    def _sweep(self, kept=0):
        """Remove all checkpoints but the newest KEPT, and those that stay for good."""
        names = self._checkpoints()
        for name in names[: len(names) - kept]:
            step = int(re.sub(r"\D", "", os.path.basename(name)) or 0)
            if self.keeping and step % self.keeping == 0:
                continue
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)

    def log_lines(self):
        """Yield the log so far, line by line, as bytes."""
        with contextlib.suppress(FileNotFoundError), open(self.log_path, "rb") as stream:
            yield from stream

    def append(self, line):
        """Add a LINE of bytes to the log."""
        self._log.write(line)
        self._log.flush()

    def save(self, step, state):
        """Write the checkpoint of STEP and remove old ones."""
        os.fsync(self._log.fileno())
        state |= {"format": networks.FORMAT, "settings": self.settings}
        state |= {"step": step, "version": version()}
        state["log_bytes"] = os.path.getsize(self.log_path)
        networks.save(os.path.join(self.folder, f"step-{step:012}.pt"), state)
        self._sweep(KEPT)

    def stop(self, reason):
        """Leave word that REASON, a signal, stopped the run."""
        with streams.writing(self._stop_path, binary=False) as stream:
            stream.write(f"{reason}\n".encode())

    def forget_stop(self):
        """Take back what stop() left."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._stop_path)

    def stopped(self):
        """Return the signal that stopped the run, None where none did."""
        with contextlib.suppress(FileNotFoundError), open(self._stop_path, "rb") as stream:
            return stream.read().decode().strip()
        return None

    def finish(self, network):
        """Write the network, then remove the checkpoints; the log stays."""
        networks.save(self.output, network | {"format": networks.FORMAT, "settings": self.settings})
        self._log.close()
        self._sweep()
