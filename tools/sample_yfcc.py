"""sample-yfcc: a seeded sample of the photos of YFCC100M."""

import math

import click

from ssl_common import cli, streams, values


class _Count(values.Whole):
    """A number of photos, or all of them."""

    def convert(self, value, param, ctx):
        return math.inf if value == "all" else super().convert(value, param, ctx)


@cli.command("sample-yfcc")
@click.argument("listings", nargs=-1, metavar="[LISTING]...")
@click.option(
    "-n",
    "--count",
    type=_Count(1, values.MANY),
    metavar="N",
    required=True,
    help="Number of photos to draw, or all.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["path", "shard", "url", "id", "line"]),
    default="path",
    help="What to write of a photo: the path of its image in the bucket, or in the 4,096 ZIPs of"
    " the package yfcc100m (shard), or another field.",
)
@cli.max_bad("0.1%", "Share of lines that may be malformed; more are an error.")
@cli.seed_option
@cli.workers("Threads that unpack bzip2 and parse; 0 is 1. The result does not depend on it.")
@cli.output_option
def main(listings, count, form, max_bad, seed, workers, output):
    """Draw photos from the YFCC100M listing; write their paths as a manifest.

    \b
    sample-yfcc -n 1000000 yfcc100m_dataset.bz2 > yfcc-1m.tsv

    LISTING is plain, gzip, bzip2 or xz. A smaller sample is the beginning of a larger one of the
    same seed; samples of parts of the listing, as lines, merge by sampling from them again.
    """
    from ssl_common.data import yfcc

    with streams.writing(output, binary=False) as stream:
        with cli.Progress("bytes") as progress:
            lines, tally = yfcc.sample(
                listings or ("-",), count, seed, form, max_bad, progress, workers
            )
        stream.writelines(lines)
    cli.say(f"drew {tally.summary()}")


if __name__ == "__main__":
    main()
