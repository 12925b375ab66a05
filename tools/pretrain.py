"""pretrain: train a network without labels."""

import click

from ssl_common import cli
from ssl_common.pretext.options import OPTIONS
from ssl_common.pretext.recipes import NAMES, RECIPES
from ssl_common.ranks import placement
from ssl_common.training import plan


@cli.command("pretrain")
@click.argument("pretext", type=click.Choice(list(OPTIONS)))
@cli.input_argument("manifest")
@cli.declared_by_kind(OPTIONS, by="pretext", name="pretext_options")
@click.option(
    "--arch", default="alexnet", help="Network to train: alexnet, resnet50 or alexnet-half."
)
@click.option(
    "--recipe",
    type=click.Choice(NAMES),
    default="in1k",
    help="Data set whose recipe in the paper gives epochs, batch, rate and their schedule.",
)
@cli.declared(plan.PretrainOptions, name="options")
def main(pretext, manifest, arch, recipe, pretext_options, options):
    """Train a network by PRETEXT on the images of MANIFEST, without their labels.

    \b
    pretrain jigsaw yfcc-1m.tsv --permutations p2k.npy -o jigsaw.pt > log.jsonl

    The log goes to standard output, one JSON object a line. A run that was stopped resumes from
    MODEL.pt.state/ when the same command is given again.
    """
    plan.pieces(options, RECIPES[pretext, recipe])  # a wrong one is told before torch is imported
    is_rank = placement.place() is not None
    from ssl_common.training import pretraining

    with cli.conversation("steps", patient=is_rank) as talk:
        message = pretraining.pretrain(
            pretext, manifest, arch, recipe, pretext_options, options, talk
        )
    if message:
        cli.say(message)


if __name__ == "__main__":
    main()
