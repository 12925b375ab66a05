"""train-navigator: policies that find their way by what a frozen network sees."""

import click

from ssl_common import cli, values
from ssl_common.evaluation.navigation.options import METHODS
from ssl_common.evaluation.navigation.recipes import CLONING
from ssl_common.ranks import placement
from ssl_common.training import plan


@cli.command("train-navigator")
@click.argument("model")
@cli.input_argument("recording")
@click.option(
    "--method",
    type=click.Choice(list(METHODS)),
    default="cloning",
    help="Clone the expert of RECORDING, or learn from rewards by PPO in a world.",
)
@click.option(
    "--layer", metavar="LAYER", show_default="the last convolution", help="Layer to see by."
)
@click.option(
    "--side",
    type=values.Whole(16, 4096),
    show_default="as the network takes images",
    help="Side of the square that a frame is shown as, in pixels.",
)
@click.option(
    "--runs", type=values.Whole(1, 100), default=5, help="Policies, each from a seed of its own."
)
@cli.declared_by_kind(METHODS, by="method", name="options")
def main(model, recording, method, layer, side, runs, options):
    """Train policies that see by a frozen layer of MODEL, by the actions that RECORDING lists.

    \b
    train-navigator jigsaw.pt frames.tsv -o navigator.pt > log.jsonl
    train-navigator jigsaw.pt --method ppo --env my-way-home -o n.pt > log.jsonl

    RECORDING is a list of frames, as record-navigation writes it. MODEL is as extract-features
    takes it, or blind, thumbnail or scratch, to compare it with. The log goes to standard output.
    A run that was stopped resumes when the same command is given again.
    """
    if method == "cloning":
        plan.pieces(options, CLONING)  # a wrong one is told before torch is imported
    elif recording != "-":
        raise click.UsageError(f"{recording}: --method ppo makes its own frames: leave it out")
    else:
        options.check()
    is_rank = placement.place() is not None
    from ssl_common.evaluation.navigation import cloning

    seen = (layer, side, runs, options)
    with cli.conversation("steps", patient=is_rank) as talk, cli.Progress("frames") as caching:
        if method == "cloning":
            message = cloning.train(model, recording, *seen, talk, caching)
        else:
            from ssl_common.evaluation.navigation import ppo

            message = ppo.train(model, *seen, talk)
    if message:
        cli.say(message)


if __name__ == "__main__":
    main()
