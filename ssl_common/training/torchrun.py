"""Many processes, the ranks of a torchrun: one that pretrain starts, or one that started it.

torchrun (torch.distributed.run) brings the ranks together. By itself it would end them on a signal,
turn every exit status into 1 and talk at length, so the parent here keeps signals, status and talk
to itself.
"""

import contextlib
import ctypes
import gc
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import torch
from torch import distributed

from ssl_common import streams
from ssl_common.cli import LAST_WORDS
from ssl_common.streams import DataError

FOLDER = "SSL_BENCH_RANKS"  # the folder where ranks leave process ids and last words for a parent
INPUT = "SSL_BENCH_INPUT"  # what they have for standard input
TALK = "torchrun.log"
RANK, RANKS = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
IS_RANK = "RANK" in os.environ
HERE = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # ranks on this machine


# ---- The parent -------------------------------------------------------------------------------


def keep_input():
    """Put what comes on standard input in a file, as which every rank can read it."""
    with streams.reading("-") as source, tempfile.TemporaryFile() as kept:
        shutil.copyfileobj(source, kept)
        kept.seek(0)
        os.dup2(kept.fileno(), 0)


def lead(ranks, device, stopping):
    """Run this command again as RANKS ranks of a torchrun, and wait for their end.

    The signal that STOPPING() names is passed on to the ranks, which agree on the step to stop
    after. Raises what the first rank that failed complained of, with torchrun's talk as a note.
    """
    if _kind(device) == "cuda" and ranks > torch.cuda.device_count():
        raise DataError(f"--gpus {ranks}: this machine has {torch.cuda.device_count()}")
    if _kind(device) == "cpu" and device is None:
        raise DataError(f"--gpus {ranks}: no GPU here: --device cpu trains on processors")
    options = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={ranks}", "--no-python"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *options]
    threads = max(1, len(os.sched_getaffinity(0)) // ranks)  # torchrun alone would say 1
    with tempfile.TemporaryDirectory(prefix="pretrain-") as name:
        folder = pathlib.Path(name)
        given = {FOLDER: name, INPUT: f"/proc/{os.getpid()}/fd/0"}
        with open(folder / TALK, "wb") as talk:
            process = subprocess.Popen(
                [*torchrun, sys.executable, *sys.orig_argv[1:]],
                env={"OMP_NUM_THREADS": str(threads)} | os.environ | given,
                stdin=2,  # standard error is the log now; the first rank finds ours here
                stderr=talk,
                start_new_session=True,  # Ctrl-C is for us to pass on
                preexec_fn=_die_with_parent,
            )
        _wait(process, folder, stopping)
        if process.returncode:
            raise _complaint(ranks, folder)


def _wait(process, folder, stopping):
    """Wait for the end of PROCESS; a signal goes to its ranks, a second one ends all at once."""
    told = set()
    try:
        while process.poll() is None:
            if stopping():
                for path in set(folder.glob("*.pid")) - told:
                    told.add(path)
                    _signal(path, signal.Signals[stopping()])
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            process.kill()
            for path in folder.glob("*.pid"):
                _signal(path, signal.SIGKILL)
            process.wait()


def _signal(path, number):
    """Send NUMBER to the rank whose process id stands in PATH, and to its workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int(path.read_text()), number)  # torchrun gives each rank a session of its own


def _complaint(ranks, folder):
    """Return the error of the first rank that failed, from what they left in FOLDER."""
    said = sorted(folder.glob("*.said"), key=lambda path: path.stat().st_mtime_ns)
    line = said[0].read_text("utf-8") if said else ""
    if said and not line:
        return BrokenPipeError()
    silent = [rank for rank in range(ranks) if not (folder / f"{rank}.said").exists()]
    if silent and (not said or line.startswith("internal error")):
        # The others only lost their connection to it.
        line = f"rank {silent[0]} died without a word (killed? out of memory?): see --debug, or run"
        line += " it again to go on from the last checkpoint"
    error = DataError(line)
    error.add_note((folder / TALK).read_text("utf-8", "replace"))
    return error


# ---- The ranks --------------------------------------------------------------------------------


def settle():
    """Take the place that a parent gave this rank: its talk, its input, its death."""
    if IS_RANK:
        _die_with_parent()
    if not (name := os.environ.get(FOLDER)):
        return
    if RANK == 0:
        os.dup2(0, 2)
    with open(os.environ[INPUT], "rb") as source:
        os.dup2(source.fileno(), 0)
    folder = pathlib.Path(name)
    os.environ[LAST_WORDS] = str(folder / f"{RANK}.said")
    partial = folder / f"{RANK}.partial"
    partial.write_text(str(os.getpid()))
    partial.rename(folder / f"{RANK}.pid")


@contextlib.contextmanager
def joined(device):
    """Join the ranks of this run, where there are any; yield the torch.device of this one."""
    device = torch.device(_kind(device))
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if RANKS == 1:
        yield device
        return
    # gloo is for what the ranks agree on: it travels between processors.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    yield device
    # DistributedDataParallel lies in a cycle, and holds the group: gloo would abort at the end.
    gc.collect()
    distributed.destroy_process_group()


def parallel(network, device):
    """Return NETWORK, with its gradients averaged over the ranks where there are any."""
    if RANKS == 1:
        return network
    ids = [device.index] if device.type == "cuda" else None
    return torch.nn.parallel.DistributedDataParallel(network, device_ids=ids)


def of_the_first(make):
    """Return on every rank what MAKE() returns on the first."""
    box = [make() if RANK == 0 else None]
    if RANKS > 1:
        distributed.broadcast_object_list(box, device=torch.device("cpu"))
    return box[0]


def total(values):
    """Return the sum over the ranks of the tensor VALUES, on the CPU."""
    values = values.to("cpu", copy=True)
    if RANKS > 1:
        distributed.all_reduce(values)
    return values


def any_of(*flags):
    """Return for each of FLAGS whether it is set on any rank; no GPU is waited for."""
    if RANKS == 1:
        return flags
    asked = torch.tensor(flags, dtype=torch.uint8)
    distributed.all_reduce(asked, distributed.ReduceOp.MAX)
    return [bool(flag) for flag in asked]


# ---- Both -------------------------------------------------------------------------------------


def _kind(device):
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


_LIBC = ctypes.CDLL(None)


def _die_with_parent():
    """Ask Linux to send this process SIGTERM when its parent dies, in whatever way."""
    pr_set_pdeathsig = 1
    _LIBC.prctl(pr_set_pdeathsig, signal.SIGTERM)
