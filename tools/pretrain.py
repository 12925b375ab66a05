"""pretrain: train a network without labels."""

import os

import click

from ssl_common import cli
from ssl_common.training import recipes

TAKES = {
    "jigsaw": ("permutations", "color_projection")
}  # the options that one pretext task alone takes
NEEDS = ("permutations",)


@cli.command("pretrain")
@click.argument("pretext", type=click.Choice(list(TAKES)))
@cli.input_argument("manifest")
@click.option("--permutations", metavar="FILE", help="Of jigsaw, from make-permutations.")
@click.option("--color-projection", is_flag=True, help="Project half of the colours, in jigsaw.")
@click.option("-o", "--output", required=True, metavar="MODEL.pt", help="The finished network.")
@click.option("--arch", default="alexnet", help="Network to train: alexnet or resnet50.")
@click.option("--recipe", type=click.Choice(recipes.NAMES), default="in1k", help="Of the paper.")
@click.option("--epochs", type=click.IntRange(min=1), help="Instead of the recipe's.")
@click.option("--iterations", type=click.IntRange(min=1), help="Steps, instead of epochs.")
@click.option("--batch", type=click.IntRange(min=2), help="Images a step, in all.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Learning rate at that batch.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="bf16 on a GPU, or fp32.")
@click.option("--gpus", type=click.IntRange(min=1), default=1, help="GPUs of this machine.")
@click.option("--accumulate", type=click.IntRange(min=1), default=1, help="Pieces of their share.")
@click.option("--sync-bn", is_flag=True, help="Let batch norm see the images of all GPUs.")
@click.option("--max-restarts", type=click.IntRange(min=0), default=3, help="When a rank dies.")
@click.option("--keep-epochs", is_flag=True, help="Keep the checkpoint of each epoch.")
@cli.checkpoint_option
@cli.max_bad_option
@cli.device_option
@cli.root_option
@cli.seed_option
@cli.workers_option
def main(pretext, gpus, accumulate, sync_bn, arch, seed, precision, **given):
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
    ranks = int(os.environ["WORLD_SIZE"]) if is_rank else gpus
    if recipe["batch"] % (ranks * accumulate):
        pieces = f"{ranks * accumulate} (GPUs x accumulation)"
        raise click.UsageError(f"--batch {recipe['batch']} is no multiple of {pieces}")
    from ssl_common.training import pretraining

    options = {"arch": arch, "seed": seed, "precision": precision}
    options |= {"micro_batch": recipe["batch"] // (ranks * accumulate)}
    options |= {"synced_ranks": ranks if sync_bn else 1}
    given |= {"pretext": pretext, "task": task, "recipe": recipe, "options": options}
    with cli.journal("steps", patient=is_rank) as running:
        said = pretraining.pretrain(gpus=gpus, **given, **running)
    if said:
        cli.say(said)


if __name__ == "__main__":
    main()
