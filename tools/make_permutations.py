"""make-permutations: the permutations of the Jigsaw puzzle."""

import click

from ssl_common import cli, streams


@cli.command("make-permutations")
@click.option("-n", "--count", type=click.IntRange(min=1), required=True, help="How many.")
@click.option(
    "-t", "--tiles", type=click.IntRange(2, 9), default=9, help="Tiles that are permuted."
)
@click.option(
    "--method",
    type=click.Choice(["max-avg", "max-min"]),
    default="max-avg",
    help="What is made great: the mean or the least distance to those chosen before.",
)
@cli.seed_option
@cli.output_option
def main(count, tiles, method, seed, output):
    """Select permutations of the tiles that are far apart in Hamming distance.

    \b
    make-permutations -n 10000 > p10k.npy

    The output is an int64 .npy array (N, TILES), 0-based.
    """
    from ssl_common.pretext import permutations

    with streams.writing(output) as stream:
        with cli.Progress("permutations") as progress:
            chosen = permutations.select(count, tiles, method, seed, progress)
        streams.write_array(stream, chosen)
    apart = f", {permutations.mean_distance(chosen):.4f} places apart on average"
    cli.say(f"{count} permutations of {tiles} tiles" + (apart if count > 1 else ""))


if __name__ == "__main__":
    main()
