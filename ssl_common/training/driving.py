"""What every training command does around the loop: ranks, files, an end that is told."""

import contextlib
import math
import os

import torch

from ssl_common import streams
from ssl_common.data.lines import index_files
from ssl_common.data.manifest import Manifest
from ssl_common.processes import Stopped
from ssl_common.streams import DataError
from ssl_common.training import checkpoints, torchrun
from ssl_common.training.journal import LOG_EVERY
from ssl_common.training.loop import train


def drive(
    make, files, *, manifest, batch, options, output, gpus, device, stopping,
    max_restarts, index_dir, keep_epochs=False, **running,
):  # fmt: skip
    """Train what MAKE(images, options) returns; return a line that says what is done.

    That work has `command`, `settings`, which with those of MANIFEST are all that decides the
    result, and what training.loop.train takes: `task`, network(), and by dataset(folder of the run,
    device, workers, stopping) the data set and the workers, None where it was stopped;
    finished(state) is what OUTPUT is to hold, `state` that of the network. foretell(device) returns
    a line worth saying before, or None, and tidy(folder of the run) is called when OUTPUT is there.
    FILES are the other inputs, OPTIONS (micro_batch, synced_ranks, seed, precision and more) are
    among its settings; the index of a large MANIFEST is kept in the folder INDEX_DIR, if given.
    STOPPING and RUNNING are as training.loop.train takes them. More GPUS than one are ranks of a
    torchrun that this process leads, and that brings them up again MAX_RESTARTS times; the line is
    None where another rank says it. Raises DataError for bad input, and Stopped where a signal
    stopped it, but in a rank: its torchrun takes any status but 0 amiss.
    """
    leads = gpus > 1 and not torchrun.IS_RANK
    torchrun.settle()
    if streams.is_special(output) or not os.path.exists(output):  # else it may be complete
        streams.check_output(output)
    device = torchrun.chosen(device, gpus if leads else torchrun.LOCAL_RANKS, leads)
    options["precision"] = options["precision"] or ("bf16" if device == "cuda" else "fp32")
    if options["synced_ranks"] > 1 and device == "cpu":
        raise DataError("--sync-bn: torch synchronises batch norm between GPUs only")
    speaks = torchrun.RANK == 0 and not leads
    if speaks and (device, options["precision"]) == ("cpu", "bf16") and lacks_bf16():
        running["say"]("this processor has no instructions for bf16: fp32 is faster")
    for path in (manifest, *files) if leads else ():
        if path not in (None, "-") and os.path.exists(path) and not os.path.isfile(path):
            raise DataError(f"{path}: every rank reads it: give a file, or - for standard input")
    if "-" in (manifest, *files):
        torchrun.share_input(leads)
    images = Manifest(manifest, index_files(manifest, index_dir))
    if len(images) < batch:
        raise DataError(_too_few(streams.name(manifest), len(images), batch, options))
    work = make(images, options)
    settings = work.settings
    settings |= {"images": len(images), "data": images.digest()}
    settings["data_name"] = streams.stem(manifest)
    keeping = len(images) // batch if keep_epochs else 0
    run = checkpoints.Run(output, settings, keeping, work.command, running["say"])
    if leads and not run.complete():
        run.forget_stop()
        error = torchrun.lead(gpus, max_restarts, stopping)
        if reason := run.stopped():
            raise Stopped(reason)
        if error:
            raise error
        return None  # the first rank has said what is done

    with torchrun.joined(device) as device:
        if torchrun.of_the_first(lambda: settings) != settings:
            message = f"rank {torchrun.RANK} has another manifest, other files or options"
            raise DataError(f"{message} than the first: give all the same")
        if torchrun.of_the_first(run.complete):
            said, done = None, True
            if torchrun.RANK == 0:
                work.tidy(run.folder)  # what one that was killed at its end left
                said = _told_again(run, running["emit"])
        else:
            said = f"{output}: {settings['epochs']:g} epochs of {len(images)} images"
            with contextlib.closing(run):
                done = _train(run, work, device, stopping=stopping, **running)
    if not done and not torchrun.IS_RANK:
        raise Stopped(run.stopped())
    return said if done and torchrun.RANK == 0 else None


def _too_few(name, count, batch, options):
    """Return what to say of a manifest NAME of COUNT images, less than a BATCH of OPTIONS."""
    pieces = batch // options["micro_batch"]
    fitting = count // pieces * pieces
    message = f"{name}: {count} images are less than one batch of {batch}"
    if fitting > 1:
        return f"{message}: give --batch {fitting}"
    if pieces > 1 and count > 1:
        return f"{message}, of {pieces} pieces: lower --gpus or --accumulate, or list more images"
    return f"{name}: {count} image, but batch norm needs 2 in a batch or more: list more images"


def _told_again(run, emit):
    """Let EMIT have the log of RUN, which is complete; return the line that says so."""
    lines = list(run.log_lines())
    for line in lines:
        emit(line)
    said = f"{run.output} is complete already: nothing to do"
    whole = 1 + math.ceil(run.settings["steps"] / LOG_EVERY)  # the settings come first
    if len(lines) < whole:
        said += f"; of its log, {run.log.path}, {len(lines):,} of {whole:,} lines are left"
    return said


def lacks_bf16():
    """Return whether the processor has no instructions to multiply bf16."""
    has = torch.cpu.get_capabilities()
    return not any(has.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16"))


def _train(run, work, device, *, workers, stopping, **running):
    """Train the network of WORK to its end and write it; return whether it got there."""
    if (message := work.foretell(device)) and torchrun.RANK == 0:
        running["say"](message)
    torchrun.of_the_first(run.open)  # before anything is made in its folder
    network = work.network()
    try:
        ready = work.dataset(run.folder, device, workers, stopping)
        if ready is None:
            torchrun.of_the_first(lambda: run.stop(stopping() or "a signal to another rank"))
            return False
        dataset, workers = ready
        running |= {"workers": workers, "stopping": stopping}
        if not train(network, work.task, dataset, run, device, **running):
            return False
    except torch.OutOfMemoryError as error:
        advice = "raise --accumulate, or lower --batch"
        raise DataError(f"the memory of the GPU is too small: {advice} ({error})") from error
    finished = work.finished({key: value.cpu() for key, value in network.state_dict().items()})
    torchrun.of_the_first(lambda: run.finish(finished))
    if torchrun.RANK == 0:
        work.tidy(run.folder)
    return True
