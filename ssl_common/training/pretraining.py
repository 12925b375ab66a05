"""Pre-training: a puzzle, a trunk, images without labels, and a run that can be interrupted."""

import os

import torch

from ssl_common.cli import Stopped
from ssl_common.data.loading import Drawn
from ssl_common.data.manifest import Manifest
from ssl_common.models import networks, registry
from ssl_common.pretext import jigsaw as puzzle
from ssl_common.streams import DataError, digest, name, stem
from ssl_common.training import checkpoints, torchrun
from ssl_common.training.loop import train


def jigsaw(manifest, permutation_file, output, options, root, gpus, device, stopping, **running):
    """Pre-train by Jigsaw; return a line that says what is done, None where another rank says it.

    OPTIONS (arch, epochs, batch, micro_batch, lr, seed, precision) and what the files hold decide
    the result; STOPPING and RUNNING are how it is got, as training.loop.train takes it. More GPUS
    than one are ranks of a torchrun that this process leads. Raises DataError for bad input, and
    Stopped where a signal stopped it, but in a rank: its torchrun takes any status but 0 amiss.
    """
    leads = gpus > 1 and not torchrun.IS_RANK
    torchrun.settle()
    for path in (manifest, permutation_file) if leads else ():
        if path != "-" and os.path.exists(path) and not os.path.isfile(path):
            raise DataError(f"{path}: every rank reads it: give a file, or - for standard input")
    if "-" in (manifest, permutation_file):
        torchrun.share_input(leads)
    images, chosen = Manifest(manifest), puzzle.load(permutation_file)
    if len(images) < options["batch"]:
        message = f"{name(manifest)}: {len(images)} images are less than one batch"
        raise DataError(f"{message}: give --batch {len(images)} or less")
    settings = {"pretext": "jigsaw", **options}
    settings |= {"permutations": len(chosen), "permutations_digest": digest(chosen.tobytes())}
    settings |= {"images": len(images), "data": images.digest(), "data_name": stem(manifest)}
    run = checkpoints.Run(output, settings)
    if leads and not run.complete():
        run.forget_stop()
        error = torchrun.lead(gpus, device, stopping)
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
            said = f"{output}: {options['epochs']} epochs of {len(images)} images"
            said += f", {len(chosen)} puzzles"
            dataset = Drawn(images, root, puzzle.Puzzle(chosen), options["seed"])
            done = _train(run, chosen, dataset, device, stopping=stopping, **running)
    if not done and not torchrun.IS_RANK:
        raise Stopped(run.stopped())
    return said if done and torchrun.RANK == 0 else None


def _train(run, chosen, dataset, device, **running):
    """Train the network of RUN's settings to its end and write it; return whether it got there."""
    trunk = registry.build(run.settings["arch"], run.settings["seed"])
    with registry.seeded(run.settings["seed"]):
        network = puzzle.JigsawNet(trunk, len(chosen))
    try:
        if not train(network, puzzle.score, dataset, run, device, **running):
            return False
    except torch.OutOfMemoryError as error:
        advice = "raise --accumulate, or lower --batch"
        raise DataError(f"the memory of the GPU is too small: {advice} ({error})") from error
    head = {key: tensor.cpu() for key, tensor in network.state_dict().items()}
    state = {key: head.pop(f"trunk.{key}") for key in trunk.state_dict()}
    finished = {"trunk": state, "head": head, "permutations": torch.from_numpy(chosen)}
    torchrun.of_the_first(lambda: run.finish(finished))
    return True


def load(path):
    """Return (JigsawNet in eval mode, permutations int64 |P| x 9) of the finished network PATH.

    Raises DataError for a file that is not a finished network of the jigsaw puzzle.
    """
    content = networks.load_network(path)
    try:
        settings, state = content["settings"], content["trunk"]
        if settings["pretext"] != "jigsaw":
            raise DataError(f"{path}: trained by {settings['pretext']}, not by jigsaw")
        chosen = content["permutations"].numpy()
        network = puzzle.JigsawNet(registry.build(settings["arch"], 0), len(chosen))
        state = {f"trunk.{key}": value for key, value in state.items()}
        network.load_state_dict(state | content["head"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        message = f"{path}: not a finished network of pretrain jigsaw ({reason})"
        raise DataError(message) from error
    return network.eval(), chosen
