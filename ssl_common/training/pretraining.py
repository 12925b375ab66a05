"""Pre-training: a puzzle, a trunk, images without labels, and a run that can be interrupted."""

import os

import torch

from ssl_common.cli import Stopped
from ssl_common.data.loading import Drawn
from ssl_common.data.manifest import Manifest, index_files
from ssl_common.models import networks, registry
from ssl_common.pretext.colorization import Colorization
from ssl_common.pretext.jigsaw import Jigsaw
from ssl_common.streams import DataError, name, stem
from ssl_common.training import checkpoints, recipes, torchrun
from ssl_common.training.loop import train

PRETEXTS = {"jigsaw": Jigsaw, "colorization": Colorization}


def pretrain(
    *, pretext, manifest, task, recipe, options, output, root, gpus, device, stopping,
    max_restarts, keep_epochs, index_dir, **running,
):  # fmt: skip
    """Pre-train by PRETEXT; return a line that says what is done, None where another rank says it.

    TASK is what the pretext's load() takes: the permutations of jigsaw. The index of a large
    MANIFEST is kept in the folder INDEX_DIR, if given. RECIPE is what
    recipes.resolve() takes besides the images. They, OPTIONS (arch, micro_batch, synced_ranks,
    seed, precision) and what the files hold decide the result; STOPPING and RUNNING are how it is
    got, as training.loop.train takes it. More GPUS than one are ranks of a torchrun that this
    process leads, and that brings them up again MAX_RESTARTS times. Raises DataError for bad input,
    and Stopped where a signal stopped it, but in a rank: its torchrun takes any status but 0 amiss.
    """
    file = task[PRETEXTS[pretext].file]  # None where the pretext has its own
    leads = gpus > 1 and not torchrun.IS_RANK
    torchrun.settle()
    device = torchrun.chosen(device, gpus if leads else torchrun.LOCAL_RANKS, leads)
    options["precision"] = options["precision"] or ("bf16" if device == "cuda" else "fp32")
    if options["synced_ranks"] > 1 and device == "cpu":
        raise DataError("--sync-bn: torch synchronises batch norm between GPUs only")
    for path in (manifest, file) if leads else ():
        if path not in (None, "-") and os.path.exists(path) and not os.path.isfile(path):
            raise DataError(f"{path}: every rank reads it: give a file, or - for standard input")
    if "-" in (manifest, file):
        torchrun.share_input(leads)
    images = Manifest(manifest, index_files(manifest, index_dir))
    pretext = PRETEXTS[pretext].load(**task)
    if len(images) < recipe["batch"]:
        message = f"{name(manifest)}: {len(images)} images are less than one batch"
        raise DataError(f"{message}: give --batch {len(images)} or less")
    options = recipes.resolve(pretext.name, images=len(images), **recipe) | options
    settings = {"pretext": pretext.name, "reads": pretext.reads, **options, **pretext.settings()}
    settings |= {"images": len(images), "data": images.digest(), "data_name": stem(manifest)}
    keeping = len(images) // settings["batch"] if keep_epochs else 0
    run = checkpoints.Run(output, settings, keeping)
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
            message = f"rank {torchrun.RANK} has another manifest, other permutations or options"
            raise DataError(f"{message} than the first: give all the same")
        if torchrun.of_the_first(run.complete):
            for line in run.log_lines() if torchrun.RANK == 0 else ():
                running["emit"](line)
            said, done = f"{output} is complete already: nothing to do", True
        else:
            said = f"{output}: {options['epochs']:g} epochs of {len(images)} images"
            dataset = Drawn(images, root, pretext, options["seed"])
            done = _train(run, pretext, dataset, device, stopping=stopping, **running)
    if not done and not torchrun.IS_RANK:
        raise Stopped(run.stopped())
    return said if done and torchrun.RANK == 0 else None


def _train(run, pretext, dataset, device, **running):
    """Train the network of RUN's settings to its end and write it; return whether it got there."""
    trunk = registry.build(run.settings["arch"], run.settings["seed"], pretext.reads)
    with registry.seeded(run.settings["seed"]):
        network = pretext.network(trunk)
    try:
        if not train(network, pretext, dataset, run, device, **running):
            return False
    except torch.OutOfMemoryError as error:
        advice = "raise --accumulate, or lower --batch"
        raise DataError(f"the memory of the GPU is too small: {advice} ({error})") from error
    head = {key: tensor.cpu() for key, tensor in network.state_dict().items()}
    state = {key: head.pop(f"trunk.{key}") for key in trunk.state_dict()}
    finished = {"trunk": state, "head": head, **pretext.arrays()}
    torchrun.of_the_first(lambda: run.finish(finished))
    return True


def load(path, kind):
    """Return (network in eval mode, pretext) of the finished network PATH, trained by KIND.

    Raises DataError for a file that is not a finished network of the pretext task KIND.
    """
    content = networks.load_network(path)
    try:
        settings, state = content["settings"], content["trunk"]
        if settings["pretext"] != kind:
            raise DataError(f"{path}: trained by {settings['pretext']}, not by {kind}")
        pretext = PRETEXTS[kind].restore(content)
        network = pretext.network(registry.build(settings["arch"], 0, pretext.reads))
        state = {f"trunk.{key}": value for key, value in state.items()}
        network.load_state_dict(state | content["head"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        message = f"{path}: not a finished network of pretrain {kind} ({reason})"
        raise DataError(message) from error
    return network.eval(), pretext
