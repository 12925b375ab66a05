"""pretrain: train a network without labels."""

import click

from ssl_common import cli, values
from ssl_common.training import recipes

# The options that one pretext task alone takes.
TAKES = {"jigsaw": ("permutations", "color_projection"), "colorization": ("bins", "neighbors")}
NEEDS = ("permutations",)


@cli.command("pretrain")
@click.argument("pretext", type=click.Choice(list(TAKES)))
@cli.input_argument("manifest")
@click.option("--permutations", metavar="FILE", help="Of jigsaw, from make-permutations.")
@click.option("--color-projection", is_flag=True, help="Project half of the colours, in jigsaw.")
@click.option("--bins", metavar="FILE", help="Of colorization, from make-color-bins.")
@click.option("--neighbors", type=values.Whole(2, 313), help="Bins of a label.  [default: 10]")
@click.option("--arch", default="alexnet", help="Network to train: alexnet or resnet50.")
@click.option("--recipe", type=click.Choice(recipes.NAMES), default="in1k", help="Of the paper.")
@cli.training_options
def main(pretext, arch, recipe, **given):
    """Train a network by PRETEXT on the images of MANIFEST; no label is read.

    \b
    pretrain jigsaw yfcc-1m.tsv --permutations p2k.npy -o jigsaw.pt > log.jsonl

    The log goes to standard output, one JSON object a line. A run that was stopped goes on from
    MODEL.pt.state/ when the same command is given again.
    """
    task = cli.taken(given, pretext, TAKES, NEEDS)
    settings, options, is_rank = cli.training(given, recipes.RECIPES[pretext]["batch"])
    from ssl_common.training import pretraining

    given |= {"pretext": pretext, "task": task, "recipe": settings | {"recipe": recipe}}
    with cli.journal("steps", patient=is_rank) as running:
        said = pretraining.pretrain(options=options | {"arch": arch}, **given, **running)
    if said:
        cli.say(said)


if __name__ == "__main__":
    main()
