"""The parent of ranks: a command that starts itself again as the ranks of a torchrun.

torchrun (torch.distributed.run) brings the ranks together. By itself it would end them on a signal,
turn every exit status into 1 and talk at length, so the parent here keeps signals, status and talk
to itself; see mailbox.py for how.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from ssl_common import streams
from ssl_common.processes import die_with_parent
from ssl_common.ranks import placement
from ssl_common.ranks.mailbox import Mailbox

Stopping = Callable[[], str | None]


def lead(
    count: int, restarts: int, stopping: Stopping, message: Any = None, resumable: bool = True
) -> Exception | None:
    """Run this command again as COUNT ranks of a torchrun; return the error that ended it, or None.

    When a rank dies all go on from the last checkpoint, RESTARTS times. The signal that STOPPING()
    names is passed on to the ranks, which agree on the step to stop after; ranks that have nothing
    to go on from, and so nothing to save (not RESUMABLE), are killed. MESSAGE, plain values, is
    what mailbox.message() gives there. The error is that of the first rank that failed.
    """
    # -P: torchrun imports nothing from the current folder.
    torchrun = [sys.executable, "-P", "-m", "torch.distributed.run", "--no-python"]
    torchrun += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    torchrun += ["--nnodes=1", f"--nproc-per-node={count}", "--local-addr=127.0.0.1"]
    with streams.temporary_folder("ranks") as name:
        mailbox = Mailbox(name)
        mailbox.tell(message)
        torchrun += [f"--log-dir={mailbox.folder / 'torchrun'}", f"--max-restarts={restarts}"]
        torchrun += [f"--rdzv-id={mailbox.folder.name}"]  # by which ranks know the folder as theirs
        with open(mailbox.talk, "wb") as talk:
            process = subprocess.Popen(
                [*torchrun, sys.executable, *sys.orig_argv[1:]],
                env=_environment(count, name),
                stdin=2,  # standard error is the log now; the first rank finds ours here
                stderr=talk,
                start_new_session=True,  # Ctrl-C is for us to pass on
                preexec_fn=lambda: die_with_parent(signal.SIGTERM),
            )
        _wait(process, mailbox, stopping, resumable)
        return mailbox.complaint() if process.returncode else None


def _environment(count: int, folder: str) -> dict[str, str]:
    """Return the environment of COUNT ranks whose parent listens in FOLDER."""
    threads = max(1, len(os.sched_getaffinity(0)) // count)  # torchrun alone would say 1
    usual = {"OMP_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": "lo"}
    # Restarted ranks would find the addresses of the dead in a store that torchrun shares.
    usual["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    environment = usual | os.environ | {placement.FOLDER: folder}
    # PET_* are options of torchrun for whoever starts it.
    return {name: value for name, value in environment.items() if not name.startswith("PET_")}


def _wait(
    process: subprocess.Popen[bytes], mailbox: Mailbox, stopping: Stopping, resumable: bool
) -> None:
    """Wait for the end of PROCESS; a signal goes to its ranks, a second one ends all at once.

    So does the first where they are not RESUMABLE: they would take seconds to tidy up what goes
    away. What a rank complains of it would complain of again: that ends PROCESS before it restarts.
    """
    signalled: set[int] = set()
    terminated = False
    try:
        while process.poll() is None and (resumable or not stopping()):
            if reason := stopping():
                for rank in mailbox.pids() - signalled:
                    signalled.add(rank)
                    _signal(rank, signal.Signals[reason])
            if not terminated and mailbox.has_complaint():
                process.terminate()
                terminated = True
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            mailbox.close()
            process.kill()
            for rank in mailbox.pids():
                _signal(rank, signal.SIGKILL)
            process.wait()


def _signal(rank: int, number: signal.Signals) -> None:
    """Send NUMBER to the process RANK, and to its workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(rank, number)  # torchrun gives each rank a session of its own
