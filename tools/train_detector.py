"""train-detector: Fast or Faster R-CNN on a network."""

import click

from ssl_common import cli
from ssl_common.evaluation.detection import options as wanted
from ssl_common.evaluation.detection.recipes import NAMES, RECIPES
from ssl_common.ranks import placement
from ssl_common.training import plan


@cli.command("train-detector")
@click.argument("model")
@cli.input_argument("objects")
@click.option(
    "--recipe",
    type=click.Choice(NAMES),
    default="voc07",
    help="Data set whose recipe in the paper gives the schedule: VOC2007, or 2007 and 2012.",
)
@cli.declared(wanted.DetectorOptions, name="detector")
@cli.declared(wanted.Options, name="options")
def main(model, objects, recipe, detector, options):
    """Train a detector on MODEL to find the objects that OBJECTS lists, and name them.

    \b
    train-detector jigsaw.pt voc07.jsonl --proposals voc07.npz -o d.pt > log.jsonl
    train-detector jigsaw.pt voc07.jsonl --head faster -o d.pt > log.jsonl

    MODEL is as extract-features takes it: a ResNet or an AlexNet. The log goes to standard output,
    one JSON object a line. A run that was stopped resumes from d.pt.state/ when the same
    command is given again.
    """
    plan.pieces(options, RECIPES[recipe, detector.head])  # a wrong one is told before torch
    is_rank = placement.place() is not None
    from ssl_common.evaluation.detection import training

    with cli.conversation("steps", patient=is_rank) as talk, cli.Progress("images") as caching:
        message = training.train(model, objects, recipe, detector, options, talk, caching)
    if message:
        cli.say(message)


if __name__ == "__main__":
    main()
