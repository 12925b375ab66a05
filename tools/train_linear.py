"""train-linear: linear classifiers on every layer of a frozen network."""

import click

from ssl_common import cli
from ssl_common.training import recipes


@cli.command("train-linear")
@click.argument("model")
@cli.input_argument("manifest")
@click.option(
    "--recipe",
    "name",
    type=click.Choice(list(recipes.LINEAR)),
    show_default="that of the network, or of resnet50",
    help="Settings of the paper.",
)
@click.option(
    "--layer", "layers", multiple=True, metavar="LAYER", help="Layer; may be repeated [all]."
)
@click.option("--cache", is_flag=True, help="No augmentation: the network sees each image once.")
@cli.training_options
def main(cache, **given):
    """Train a linear classifier on each layer of MODEL, for the class of each image of MANIFEST.

    \b
    train-linear jigsaw.pt places-train.tsv -o linear.pt > log.jsonl

    MODEL is as extract-features takes it. The log goes to standard output, one JSON object a line.
    A run that was stopped goes on from linear.pt.state/ when the same command is given again.
    """
    recipe, options, is_rank = cli.training(given, recipes.LINEAR["resnet50"]["batch"])
    from ssl_common.evaluation import linear

    given |= {"recipe": recipe, "options": options, "cache": cache}
    with (
        cli.journal("steps", patient=is_rank) as running,
        cli.Progress("images") as caching,
    ):
        said = linear.train(caching=caching, **given, **running)
    if said:
        cli.say(said)


if __name__ == "__main__":
    main()
