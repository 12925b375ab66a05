"""train-linear: linear classifiers on every layer of a frozen network."""

import click

from ssl_common import cli
from ssl_common.evaluation.linear.recipes import RECIPES
from ssl_common.ranks import placement
from ssl_common.training import plan


@cli.command("train-linear")
@click.argument("model")
@cli.input_argument("manifest")
@click.option(
    "--recipe",
    type=click.Choice(list(RECIPES)),
    metavar="NAME",
    show_default="that of the network, or of resnet50",
    help="Network whose recipe in the paper gives the schedule and how images are shown.",
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="LAYER",
    help="Layer to train on, as conv5; may be repeated.  [default: all]",
)
@click.option("--cache", is_flag=True, help="Show each image once, without augmentation.")
@cli.declared(plan.TrainingOptions, name="options")
def main(model, manifest, recipe, layers, cache, options):
    """Train a linear classifier on each layer of MODEL to name the class of images of MANIFEST.

    \b
    train-linear jigsaw.pt places-train.tsv -o linear.pt > log.jsonl

    MODEL is as extract-features takes it. The log goes to standard output, one JSON object a line.
    A run that was stopped resumes from linear.pt.state/ when the same command is given again.
    """
    plan.pieces(options, RECIPES["resnet50"])  # a wrong one is told before torch is imported
    is_rank = placement.place() is not None
    from ssl_common.evaluation.linear import training

    with cli.conversation("steps", patient=is_rank) as talk, cli.Progress("images") as caching:
        message = training.train(model, manifest, layers, recipe, cache, options, talk, caching)
    if message:
        cli.say(message)


if __name__ == "__main__":
    main()
