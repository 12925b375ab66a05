"""pretrain: train a network without labels."""

import os

import click

from ssl_common import cli, streams
from ssl_common.training import recipes

# The options that one pretext task alone takes.
TAKES = {"jigsaw": ("permutations",), "colorization": ("bins", "neighbors")}
NEEDS = ("permutations",)


@cli.command("pretrain")
@click.argument("pretext", type=click.Choice(list(TAKES)))
@cli.input_argument("manifest")
@click.option("--permutations", metavar="FILE", help="Of jigsaw, from make-permutations.")
@click.option("--bins", metavar="FILE", help="Of colorization, from make-color-bins.")
@click.option("--neighbors", type=click.IntRange(2, 313), help="Bins of a label.  [default: 10]")
@click.option("-o", "--output", required=True, metavar="MODEL.pt", help="The finished network.")
@click.option("--arch", default="alexnet", help="Network to train: alexnet or resnet50.")
@click.option("--recipe", type=click.Choice(recipes.NAMES), default="in1k", help="Of the paper.")
@click.option("--epochs", type=click.IntRange(min=1), help="Instead of the recipe's.")
@click.option("--iterations", type=click.IntRange(min=1), help="Steps, instead of epochs.")
@click.option("--batch", type=click.IntRange(min=2), help="Images a step, in all.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Learning rate at that batch.")
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", help="Of products."
)
@click.option(
    "--accumulate", type=click.IntRange(min=1), default=1, help="Pieces a GPU's share is cut into."
)
@click.option("--gpus", type=click.IntRange(min=1), default=1, help="GPUs of this machine.")
@cli.checkpoint_option
@cli.device_option
@cli.root_option
@cli.seed_option
@cli.workers_option
def main(pretext, gpus, accumulate, arch, seed, precision, **given):
    """Train a network by PRETEXT on the images of MANIFEST; no label is read.

    \b
    pretrain jigsaw yfcc-1m.tsv --permutations p2k.npy -o jigsaw.pt > log.jsonl

    The log goes to standard output, one JSON object a line. A run that was stopped goes on from
    MODEL.pt.state/ when the same command is given again.
    """
    task = cli.taken(given, pretext, TAKES, NEEDS)
    recipe = {key: given.pop(key) for key in ("recipe", "batch", "lr", "epochs", "iterations")}
    if recipe["epochs"] and recipe["iterations"]:
        raise click.UsageError("--epochs and --iterations: give one of them")
    recipe["batch"] = recipe["batch"] or recipes.RECIPES[pretext]["batch"]
    is_rank = "TORCHELASTIC_RUN_ID" in os.environ
    pieces = (int(os.environ["WORLD_SIZE"]) if is_rank else gpus) * accumulate
    if recipe["batch"] % pieces:
        message = f"--batch {recipe['batch']} is no multiple of {pieces} (GPUs x accumulation)"
        raise click.UsageError(message)
    from ssl_common.training import pretraining

    options = {"arch": arch, "seed": seed, "precision": precision}
    options["micro_batch"] = recipe["batch"] // pieces
    with (
        streams.writing("-", binary=False) as log,
        cli.deferring_stop(patient=is_rank) as stopping,
        cli.Progress("steps") as progress,
    ):

        def emit(line):
            log.write(line)
            log.flush()

        given |= {"emit": emit, "stopping": stopping, "progress": progress}
        said = pretraining.pretrain(
            pretext=pretext, task=task, recipe=recipe, options=options, gpus=gpus, **given
        )
    if said:
        cli.say(said)


if __name__ == "__main__":
    main()
