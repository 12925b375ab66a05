"""Messages between the command that leads ranks and its ranks: files in a private folder.

FOLDER, drawn anew for each run; its name is the run's id in the ranks' environment
|-- told.json      from the parent: where standard input is, and what it has for the ranks
|-- 0.pid 1.pid    from a rank that has come up: its process
|-- 0.said         from a rank that failed: its one line, "" for a reader that left
|-- 0.unsure       the same, where the reason may be that another rank died
|-- closed         from the parent: a rank that comes up from now on ends by itself
`-- torchrun.log   what torchrun said
"""

import json
import os
import pathlib
import re
import shutil
import signal
import stat
import tempfile
from typing import Any

from ssl_common import streams
from ssl_common.processes import STOPPED, die_with_parent
from ssl_common.ranks import placement
from ssl_common.ranks.placement import IS_RANK, RANK
from ssl_common.streams import DataError

TALK, TOLD, CLOSED = "torchrun.log", "told.json", "closed"


# ---- The parent ----------------------------------------------------------------------------------


class Mailbox:
    """The files in FOLDER, as the parent reads and writes them."""

    def __init__(self, folder: str) -> None:
        self.folder = pathlib.Path(folder)
        self.talk = self.folder / TALK

    def tell(self, message: Any) -> None:
        """Leave MESSAGE, plain values, for the ranks, and the path of their standard input."""
        (self.folder / TOLD).write_text(json.dumps({"input": _input(), "tell": message}))

    def close(self) -> None:
        """Make every rank that starts from now on end by itself."""
        (self.folder / CLOSED).touch()

    def pids(self) -> set[int]:
        """Return the process ids of the ranks that have started."""
        return {int(path.read_text()) for path in self.folder.glob("*.pid")}

    def has_complaint(self) -> bool:
        """Tell whether a rank has said why it failed."""
        return any(self.folder.glob("*.said"))

    def complaint(self) -> Exception:
        """Return the error of the first rank that failed, with the output of torchrun as a note."""
        talk = self.talk.read_text("utf-8", "replace")
        said = sorted(self.folder.glob("*.said"), key=lambda path: path.stat().st_mtime_ns)
        if said and not said[0].read_text("utf-8"):
            return BrokenPipeError()
        # The others lost their connection to the first that failed: what they say is no news.
        ends = re.findall(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)", talk)
        status, rank = ends[-1] if ends else ("", "")
        unsure = self.folder / f"{rank}.{placement.UNSURE}"
        if not said and rank and unsure.exists():
            said = [unsure]
        line = said[0].read_text("utf-8") if said else "torchrun failed: see --debug"
        if ends and not said:
            how = f"status {status}"
            if int(status) < 0:
                how = signal.Signals(-int(status)).name
            line = f"rank {rank} died without a word ({how}; out of memory?): see --debug, or run"
            line += " it again to go on from the last checkpoint"
        error = DataError(line)
        error.add_note(talk)
        return error


def _input() -> str:
    """Return the path at which ranks read the standard input: a file, after share_input()."""
    try:
        if stat.S_ISREG(os.fstat(0).st_mode):
            return f"/proc/{os.getpid()}/fd/0"
    except OSError:  # it is closed
        pass
    return os.devnull


# ---- A rank --------------------------------------------------------------------------------------


def enter() -> None:
    """Connect this rank to its parent: messages, standard input, and the end of the parent.

    Raises DataError where the environment is only in part that of a rank.
    """
    if not placement.place():
        return
    die_with_parent(signal.SIGTERM, to_the_end=True)
    if not (folder := placement.folder()):
        return
    if not folder.is_dir():  # the parent ended before it could be heard
        os._exit(STOPPED)
    # Left by this rank before its restart.
    (folder / f"{RANK}.{placement.UNSURE}").unlink(missing_ok=True)
    if RANK == 0:
        os.dup2(0, 2)
    with open(_told(folder)["input"], "rb") as source:
        os.dup2(source.fileno(), 0)
    partial = folder / f"{RANK}.partial"
    partial.write_text(str(os.getpid()))
    partial.rename(folder / f"{RANK}.pid")
    if (folder / CLOSED).exists():  # the parent may have looked for this rank before
        os._exit(STOPPED)


def message() -> Any:
    """Return the message of the parent of this rank; raise DataError if it has no parent."""
    if not (folder := placement.folder()):
        raise DataError("under torchrun: this command starts its ranks itself: give --gpus alone")
    return _told(folder)["tell"]


def _told(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / TOLD).read_text())


# ---- Both ----------------------------------------------------------------------------------------


def share_input(leads: bool) -> None:
    """Copy standard input, in a process that LEADS, to where every rank can read it.

    Raises DataError for a rank that no such process leads: torchrun gives all ranks one pipe.
    """
    if IS_RANK and not placement.folder():
        raise DataError("standard input: under torchrun every rank would read it: name a file")
    if leads:
        with streams.reading("-") as source, tempfile.TemporaryFile() as kept:
            shutil.copyfileobj(source, kept)
            kept.seek(0)
            os.dup2(kept.fileno(), 0)
