"""Pre-training: a puzzle, a trunk, images without labels, and a run that can be interrupted."""

import torch

from ssl_common.data.loading import Drawn
from ssl_common.data.manifest import Manifest
from ssl_common.models import registry
from ssl_common.pretext import jigsaw as puzzle
from ssl_common.pretext import permutations
from ssl_common.streams import DataError, digest, name, stem
from ssl_common.training import checkpoints
from ssl_common.training.loop import train


def jigsaw(manifest, permutation_file, output, options, root, **running):
    """Pre-train by Jigsaw; return a line that says what is done, None where it was stopped before.

    OPTIONS (arch, epochs, batch, lr, seed, precision) and what the files hold decide the result;
    RUNNING is how it is got, as training.loop.train takes it. Raises DataError for bad input.
    """
    images, chosen = Manifest(manifest), permutations.load(permutation_file)
    if chosen.shape[1] != puzzle.TILES:
        message = f"{name(permutation_file)}: {chosen.shape[1]} tiles, but the puzzle has"
        raise DataError(f"{message} {puzzle.TILES}: make-permutations -t {puzzle.TILES}")
    if len(images) < options["batch"]:
        message = f"{name(manifest)}: {len(images)} images are less than one batch"
        raise DataError(f"{message}: give --batch {len(images)} or less")
    settings = {"pretext": "jigsaw", **options}
    settings |= {"permutations": len(chosen), "permutations_digest": digest(chosen.tobytes())}
    settings |= {"images": len(images), "data": images.digest(), "data_name": stem(manifest)}

    run = checkpoints.Run(output, settings)
    if run.complete():
        for line in run.log_lines():
            running["emit"](line)
        return f"{output} is complete already: nothing to do"
    trunk = registry.build(options["arch"], options["seed"])
    with registry.seeded(options["seed"]):
        network = puzzle.JigsawNet(trunk, len(chosen))
    dataset = Drawn(images, root, puzzle.Puzzle(chosen), options["seed"])
    if not train(network, puzzle.score, dataset, run, **running):
        return None
    head = network.state_dict()
    state = {key: head.pop(f"trunk.{key}") for key in trunk.state_dict()}
    run.finish({"trunk": state, "head": head, "permutations": torch.from_numpy(chosen)})
    return f"{output}: {options['epochs']} epochs of {len(images)} images, {len(chosen)} puzzles"
