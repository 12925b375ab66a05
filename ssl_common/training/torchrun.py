"""Many processes, the ranks of a torchrun: one that a command starts, or one that started it.

torchrun (torch.distributed.run) brings the ranks together. By itself it would end them on a signal,
turn every exit status into 1 and talk at length, so the parent here keeps signals, status and talk
to itself.
"""

import contextlib
import gc
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

import torch
from torch import distributed

from ssl_common import ranks, streams
from ssl_common.processes import STOPPED, die_with_parent
from ssl_common.streams import DataError

TALK = "torchrun.log"
TOLD = "told.json"  # what the parent tells its ranks, in ranks.folder()
CLOSED = "closed"  # ... that it takes no more of them


def _place():
    with contextlib.suppress(DataError):  # settle() says it, where it matters
        return ranks.place()


IS_RANK = _place() is not None
RANK, RANKS, LOCAL_RANK, LOCAL_RANKS, RESTARTED = _place() or ranks.ALONE


# ---- The parent -------------------------------------------------------------------------------


def lead(count, restarts, stopping, tell=None, resumable=True):
    """Run this command again as COUNT ranks of a torchrun; return the error that ended it, or None.

    When a rank dies all go on from the last checkpoint, RESTARTS times. The signal that STOPPING()
    names is passed on to the ranks, which agree on the step to stop after; ranks that have nothing
    to go on from, and so nothing to save (not RESUMABLE), are killed. What is to TELL them, plain
    values, told() gives there. The error is that of the first rank that failed, with torchrun's
    talk as a note.
    """
    # -P: torchrun imports nothing from the current folder.
    torchrun = [sys.executable, "-P", "-m", "torch.distributed.run", "--no-python"]
    torchrun += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    threads = max(1, len(os.sched_getaffinity(0)) // count)  # torchrun alone would say 1
    with streams.temporary_folder("ranks") as name:
        folder = pathlib.Path(name)
        (folder / TOLD).write_text(json.dumps({"input": _input(), "tell": tell}))
        torchrun += ["--nnodes=1", f"--nproc-per-node={count}", "--local-addr=127.0.0.1"]
        torchrun += [f"--log-dir={folder / 'torchrun'}", f"--max-restarts={restarts}"]
        torchrun += [f"--rdzv-id={folder.name}"]  # by which the ranks know the folder as theirs
        environment = {"OMP_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": "lo"}
        # Restarted ranks would find the addresses of the dead in a store that torchrun shares.
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        environment |= os.environ | {ranks.FOLDER: name}
        for option in [name for name in environment if name.startswith("PET_")]:
            del environment[option]  # an option of torchrun for whoever starts it
        with open(folder / TALK, "wb") as talk:
            process = subprocess.Popen(
                [*torchrun, sys.executable, *sys.orig_argv[1:]],
                env=environment,
                stdin=2,  # standard error is the log now; the first rank finds ours here
                stderr=talk,
                start_new_session=True,  # Ctrl-C is for us to pass on
                preexec_fn=lambda: die_with_parent(signal.SIGTERM),
            )
        _wait(process, folder, stopping, resumable)
        return _complaint(folder) if process.returncode else None


def _input():
    """Return where ranks find the standard input of this process: a file, after share_input()."""
    with contextlib.suppress(OSError):  # it is closed
        if stat.S_ISREG(os.fstat(0).st_mode):
            return f"/proc/{os.getpid()}/fd/0"
    return os.devnull


def _wait(process, folder, stopping, resumable):
    """Wait for the end of PROCESS; a signal goes to its ranks, a second one ends all at once.

    So does the first where they are not RESUMABLE: they would take seconds to tidy up what goes
    away. What a rank complains of it would complain of again: that ends PROCESS before it restarts.
    """
    told, ended = set(), False
    try:
        while process.poll() is None and (resumable or not stopping()):
            if stopping():
                for rank in _ranks(folder) - told:
                    told.add(rank)
                    _signal(rank, signal.Signals[stopping()])
            if not ended and any(folder.glob("*.said")):
                process.terminate()
                ended = True
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            (folder / CLOSED).touch()  # a rank that comes up from now on ends by itself
            process.kill()
            for rank in _ranks(folder):
                _signal(rank, signal.SIGKILL)
            process.wait()


def _ranks(folder):
    """Return the process ids of the ranks that have come up."""
    return {int(path.read_text()) for path in folder.glob("*.pid")}


def _signal(rank, number):
    """Send NUMBER to the process RANK, and to its workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(rank, number)  # torchrun gives each rank a session of its own


def _complaint(folder):
    """Return the error of the first rank that failed, from what they left in FOLDER."""
    talk = (folder / TALK).read_text("utf-8", "replace")
    said = sorted(folder.glob("*.said"), key=lambda path: path.stat().st_mtime_ns)
    if said and not said[0].read_text("utf-8"):
        return BrokenPipeError()
    # The others have lost their connection to the first that failed: what they say is no news.
    failed = re.findall(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)", talk)
    status, rank = failed[-1] if failed else (None, None)
    if not said and rank and (folder / f"{rank}.{ranks.UNSURE}").exists():
        said = [folder / f"{rank}.{ranks.UNSURE}"]
    line = said[0].read_text("utf-8") if said else "torchrun failed: see --debug"
    if failed and not said:
        how = f"status {status}"
        with contextlib.suppress(ValueError):
            how = signal.Signals(-int(status)).name
        line = f"rank {rank} died without a word ({how}; out of memory?): see --debug, or run"
        line += " it again to go on from the last checkpoint"
    error = DataError(line)
    error.add_note(talk)
    return error


# ---- The ranks --------------------------------------------------------------------------------


def settle():
    """Take the place that a parent gave this rank: its talk, its input, its death.

    Raises DataError where the environment is only in part that of a rank.
    """
    if not ranks.place():
        return
    die_with_parent(signal.SIGTERM, to_the_end=True)
    if not (folder := ranks.folder()):
        return
    if not folder.is_dir():  # the parent ended before it could be heard
        os._exit(STOPPED)
    (folder / f"{RANK}.{ranks.UNSURE}").unlink(missing_ok=True)  # of this rank before its restart
    if RANK == 0:
        os.dup2(0, 2)
    with open(_told("input"), "rb") as source:
        os.dup2(source.fileno(), 0)
    partial = folder / f"{RANK}.partial"
    partial.write_text(str(os.getpid()))
    partial.rename(folder / f"{RANK}.pid")
    if (folder / CLOSED).exists():  # the parent may have looked for this rank before
        os._exit(STOPPED)


def told():
    """Return what the parent of this rank had to TELL; raise DataError where it has none."""
    if not ranks.folder():
        raise DataError("under torchrun: this command starts its ranks itself: give --gpus alone")
    return _told("tell")


def _told(what):
    return json.loads((ranks.folder() / TOLD).read_text())[what]


@contextlib.contextmanager
def joined(device):
    """Join the ranks of this run, where there are any; yield the torch.device of this one.

    DEVICE is what chosen() gave.
    """
    device = torch.device(device)
    if device.type == "cuda":
        device = torch.device("cuda", LOCAL_RANK)
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
    return torch.nn.parallel.DistributedDataParallel(
        network,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
    )


def of_the_first(make):
    """Return on every rank what MAKE() returns on the first."""
    box = [make() if RANK == 0 else None]
    if RANKS > 1:
        distributed.broadcast_object_list(box, device=torch.device("cpu"))
    return box[0]


def total(values):
    """Return the sum over the ranks of VALUES, a tensor that may be overwritten."""
    if RANKS > 1:
        distributed.all_reduce(values)
    return values


def sums_of(*numbers):
    """Return the sum over the ranks of each of NUMBERS, whole; no GPU is waited for."""
    return total(torch.tensor(numbers, dtype=torch.int64)).tolist() if RANKS > 1 else numbers


def least(number):
    """Return the least over the ranks of NUMBER, a tensor of one."""
    number = number.cpu()
    if RANKS > 1:
        distributed.all_reduce(number, distributed.ReduceOp.MIN)
    return number.item()


def gathered(value):
    """Return a list of what VALUE, anything, is on each rank."""
    values = [value] * RANKS
    if RANKS > 1:
        distributed.all_gather_object(values, value)
    return values


def random_states():
    """Return the state of torch's random numbers on each rank, processor and GPU."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state())
    return gathered(states)


def set_random_states(states):
    """Go on from what random_states() gave, on as many ranks of the same kind."""
    if len(states) != RANKS:
        return  # fewer ranks with more micro-batches each: nothing that they draw is the same
    own = states[RANK]
    torch.set_rng_state(own[0])
    if own[1:] and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(own[1])


# ---- Both -------------------------------------------------------------------------------------


def share_input(leads):
    """Let a process that LEADS put what comes on standard input where every rank can read it.

    Raises DataError for a rank that no such process leads: torchrun gives all ranks one pipe.
    """
    if IS_RANK and not ranks.folder():
        raise DataError("standard input: under torchrun every rank would read it: name a file")
    if leads:
        with streams.reading("-") as source, tempfile.TemporaryFile() as kept:
            shutil.copyfileobj(source, kept)
            kept.seek(0)
            os.dup2(kept.fileno(), 0)


def chosen(device, count, leads):
    """Return DEVICE, or cuda where there is one; raise DataError where COUNT ranks lack GPUs.

    A process that LEADS is asked for GPUs: processors are not what it makes of it by itself.
    """
    found = torch.cuda.device_count()
    if leads and not found and device is None:
        raise DataError(f"--gpus {count}: no GPU here: --device cpu runs on processors")
    if device == "cuda" and not found:
        raise DataError("--device cuda: no GPU here that torch can use: see nvidia-smi")
    device = device or ("cuda" if found else "cpu")
    if device == "cuda" and count > found:
        raise DataError(f"{count} ranks on a machine with {found} GPUs: give --gpus {found}")
    return device
