"""eval-navigator: how well policies of train-navigator find their way."""

import click

from ssl_common import cli, records, streams, values
from ssl_common.evaluation.navigation.options import WorldOptions


@cli.command("eval-navigator")
@click.argument("model", metavar="NAVIGATOR.pt")
@cli.declared(WorldOptions, name="world")
@click.option(
    "-n", "--episodes", type=values.Whole(1, 1_000_000), default=50, help="Episodes of each run."
)
@click.option(
    "--worlds", type=values.Whole(1, 1000), default=4, help="Worlds that play side by side."
)
@click.option("--greedy", is_flag=True, help="Do the most probable action; else one is drawn.")
@click.option(
    "--metric",
    type=click.Choice(["success", "reward"]),
    show_default="success, where the world tells it",
    help="What the value of the record is.",
)
@click.option(
    "--baselines",
    multiple=True,
    metavar="RESULTS",
    help="Records of blind, thumbnail and the like to compare with; may be repeated.",
)
@cli.tag_option
@cli.output_option
@cli.device_option
@cli.seed_option
def main(model, world, episodes, worlds, greedy, metric, baselines, tags, output, device, seed):
    """Let the policies in NAVIGATOR.pt play in a world; write a record of how they do.

    \b
    eval-navigator blind.pt --env my-way-home >> blind.jsonl
    eval-navigator n.pt --env my-way-home --baselines blind.jsonl >> results.jsonl

    Its value is the interquartile mean over the runs of the share of episodes that reach the goal.
    Rewards, and paths by the shortest ones, stand beside it, each with its interval.
    """
    world.check()
    from ssl_common.evaluation.navigation import testing

    made = records.stamp("eval-navigator")
    with streams.writing(output, binary=False) as stream, cli.Progress("episodes") as progress:
        how = (episodes, worlds, seed, greedy, metric, baselines, tags, device, progress)
        found = testing.evaluate(model, world, *how)
        stream.write(records.line(found | made))
    said = f"{found['runs']} runs of {episodes} episodes, {found['metric']} {found['value']:.4g}"
    if found.get("interval"):
        said += " ({:.4g} to {:.4g})".format(*found["interval"])
    if "path_ratio" in found:
        said += f", path {found['path_ratio']:.2f} times the shortest"
    if found.get("not_above"):
        said += f"; not surely above {', '.join(found['not_above'])}"
    cli.say(said)


if __name__ == "__main__":
    main()
