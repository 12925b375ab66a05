"""sample-yfcc: a seeded sample of the photos of YFCC100M."""

import click

from ssl_common import cli, streams


@cli.command("sample-yfcc")
@click.argument("listings", nargs=-1, metavar="[LISTING]...")
@click.option("-n", "--count", type=click.IntRange(min=1), required=True, help="Photos to draw.")
@cli.seed_option
@cli.output_option
def main(listings, count, seed, output):
    """Draw photos from the YFCC100M listing; write their paths as a manifest.

    \b
    sample-yfcc -n 1000000 yfcc100m_dataset.bz2 > yfcc-1m.tsv

    LISTING is plain, gzip or bzip2. A smaller sample is the beginning of a larger one of the same
    seed.
    """
    from ssl_common.data import manifest, yfcc

    with streams.writing(output, binary=False) as stream:
        with cli.Progress("lines") as progress:
            paths, tally = yfcc.sample(listings or ("-",), count, seed, progress)
        stream.writelines(manifest.format_row(manifest.Row(path)) for path in paths)
    cli.say(f"drew {count:,} of {tally.summary()}")


if __name__ == "__main__":
    main()
