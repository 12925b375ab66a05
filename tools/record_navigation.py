"""record-navigation: what an expert sees and does on its way, as pictures and a list of them."""

import contextlib

import click

from ssl_common import cli, streams, values
from ssl_common.evaluation.navigation.options import WorldOptions


@cli.command("record-navigation")
@cli.declared(WorldOptions, name="world")
@click.option(
    "-n", "--episodes", type=values.Whole(1, 999_999), default=100, help="Episodes to record."
)
@click.option(
    "--noise",
    type=values.Share(),
    default="10%",
    help="Share of the steps in which a random action is done instead of the expert's.",
)
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder to make.")
@cli.seed_option
@cli.workers("Worlds that play side by side; the result does not depend on it.")
def main(world, episodes, noise, output, seed, workers):
    """Record the frames of an expert in a world into DIR; write the list, with its actions.

    \b
    record-navigation --env my-way-home -n 200 -o frames > frames.tsv
    record-navigation --env-command 'python world.py' -n 10 -o frames > frames.tsv

    The frames of an episode follow each other, in a folder of their own. DIR/episodes.jsonl tells
    of each how long its way was, and how long the shortest.
    """
    world.check()
    from ssl_common.data import layouts
    from ssl_common.evaluation.navigation import recording

    summary = recording.Summary()
    with (
        streams.writing_folder(output) as folder,
        streams.writing("-", binary=False) as stream,
        cli.Progress("frames") as progress,
        contextlib.closing(
            recording.record(
                folder, output, world, episodes, noise, seed, workers, progress, summary
            )
        ) as rows,
    ):
        layouts.write(stream, rows)
    cli.say(f"{output}: {summary}")


if __name__ == "__main__":
    main()
