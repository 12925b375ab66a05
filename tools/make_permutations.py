"""make-permutations: the permutations of the Jigsaw puzzle."""

import click

from ssl_common import cli, containers, streams, values


@cli.command("make-permutations")
@click.option("-n", "--count", type=values.Whole(1, 362_880), help="Number of permutations.")
@click.option("-t", "--tiles", type=values.Whole(2, 9), default=9, help="Number of tiles.")
@click.option(
    "--method",
    type=click.Choice(["code", "max-min", "max-avg"]),
    default="code",
    help="A code with a known least distance; or greedily, as in the paper, by the least or mean"
    " distance to the rows before.",
)
@click.option(
    "--first",
    type=values.Wholes(0, 8, "2,0,1"),
    metavar="TILE,...",
    help="First permutation, tiles counted from 0; random by default.",
)
@click.option("--check", metavar="FILE", help="Print the distances in FILE, and make nothing.")
@cli.seed_option
@cli.output_option
def main(count, tiles, method, first, check, seed, output):
    """Make permutations of the tiles that are far apart in Hamming distance.

    \b
    make-permutations -n 10000 > p10k.npy
    make-permutations --check p10k.npy

    The output is an int64 .npy array (N, TILES), 0-based; that of --check is text.
    """
    if (count is None) == (check is None):
        raise click.UsageError("give -n N to make permutations, or --check FILE")
    if first and sorted(first) != list(range(tiles)):
        raise click.UsageError(f"--first is not a permutation of 0 to {tiles - 1}")

    from ssl_common.pretext import permutations

    with cli.Progress("permutations") as progress:
        if check is not None:
            rows = permutations.load(check)
            text, least = permutations.report(rows, progress)
            with streams.writing(output, binary=False) as stream:
                stream.write(text.encode())
            made = f"{streams.name(check)}: {len(rows)} permutations of {rows.shape[1]} tiles"
        else:
            with streams.writing(output) as stream:
                rows, method, least = permutations.make(count, tiles, method, first, seed, progress)
                containers.write_array(stream, rows)
            made = f"{count} permutations of {tiles} tiles by {method}"
    apart = f", {permutations.mean_distance(rows):.4f} places apart on average"
    apart += f", {least} at least" if least else ""
    cli.say(made + (apart if len(rows) > 1 else ""))


if __name__ == "__main__":
    main()
