"""train-normals: a predictor of surface normals on a frozen network."""

from dataclasses import replace

import click

from ssl_common import cli, values
from ssl_common.evaluation.normals.recipes import PAPER
from ssl_common.ranks import placement
from ssl_common.training import plan


@cli.command("train-normals")
@click.argument("model")
@cli.input_argument("pairs")
@click.option(
    "--codes",
    type=values.WholeOrFile(2, 1000, (".npy", ".mat")),
    default=PAPER.codes,
    metavar="N|FILE",
    help="Normals to choose among: so many, learned from PAIRS; or those of FILE, .npy or .mat.",
)
@click.option(
    "--sides",
    type=values.Wholes(32, 4096, "300,450"),
    show_default="300,375,450,525,600",
    metavar="N,N,...",
    help="Short sides of the images shown, in pixels, one drawn for each image.",
)
@click.option(
    "--test-side",
    type=values.Whole(32, 4096),
    default=PAPER.test_side,
    help="Short side when normals are measured, in pixels.",
)
@click.option(
    "--cache",
    metavar="DIR",
    help="Folder for the maps of the frozen layers, which later runs use too: all is read once.",
)
@click.option("--flip", is_flag=True, help="Mirror half of the images, and their normals.")
@cli.declared(plan.TrainingOptions, name="options")
def main(model, pairs, codes, sides, test_side, cache, flip, options):
    """Train a predictor of the surface normals of PAIRS on the frozen layers of MODEL.

    \b
    train-normals jigsaw.pt train.tsv -o normals.pt > log.jsonl

    PAIRS is IMAGE<TAB>NORMALS, as list-pairs and make-normals write it. MODEL is as
    extract-features takes it; of a ResNet-50 res5 is trained, and nothing before it. The log goes
    to standard output. A run that was stopped resumes when the same command is given again.
    """
    of_file = isinstance(codes, str)
    recipe = replace(PAPER, sides=sides or PAPER.sides, test_side=test_side, flip=flip)
    recipe = recipe if of_file else replace(recipe, codes=codes)
    plan.pieces(options, recipe)  # a wrong one is told before torch is imported
    is_rank = placement.place() is not None
    from ssl_common.evaluation.normals import training

    given = training.Given(codes if of_file else None, cache)
    with cli.conversation("steps", patient=is_rank) as talk, cli.Progress("images") as caching:
        message = training.train(model, pairs, recipe, given, options, talk, caching)
    if message:
        cli.say(message)


if __name__ == "__main__":
    main()
