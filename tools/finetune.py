"""finetune: train a whole network for the classes of images."""

import click

from ssl_common import cli
from ssl_common.evaluation.finetuning import options as wanted
from ssl_common.evaluation.finetuning.recipes import RECIPES
from ssl_common.ranks import placement
from ssl_common.training import plan


@cli.command("finetune")
@click.argument("model")
@cli.input_argument("manifest")
@click.option(
    "--recipe",
    type=click.Choice(list(RECIPES)),
    metavar="NAME",
    show_default="that of the network",
    help="Network whose recipe in the paper gives the head, the schedule and the augmentation.",
)
@cli.declared(wanted.FinetuneOptions, name="tuning")
@cli.declared(plan.TrainingOptions, name="options")
def main(model, manifest, recipe, tuning, options):
    """Train all of MODEL, with a new head, to name the classes of images of MANIFEST.

    \b
    finetune jigsaw.pt voc07-trainval.tsv -o tuned.pt > log.jsonl

    MODEL is as extract-features takes it; what comes out is a network as well, which
    extract-features and all others take. The log goes to standard output, one JSON object a line.
    A run that was stopped resumes from tuned.pt.state/ when the same command is given again.
    """
    plan.pieces(options, RECIPES[recipe or "resnet50"])  # a wrong one is told before torch
    is_rank = placement.place() is not None
    from ssl_common.evaluation.finetuning import training

    with cli.conversation("steps", patient=is_rank) as talk:
        message = training.train(model, manifest, recipe, tuning, options, talk)
    if message:
        cli.say(message)


if __name__ == "__main__":
    main()
