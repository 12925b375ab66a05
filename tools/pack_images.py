"""pack-images: the images of a manifest in tars, for disks that hate many files."""

import click

from ssl_common import cli, streams, values


@cli.command("pack-images")
@cli.input_argument("manifest")
@click.option(
    "-o", "--output", required=True, metavar="X-%05d.tar", help="Shards to write; %05d counts them."
)
@click.option(
    "--per-shard", type=values.Whole(1, values.MANY), default=10_000, help="Images in each shard."
)
@click.option(
    "--label",
    type=click.Choice(["txt", "cls", "none"]),
    default="txt",
    help="File beside an image: .txt with the names of its labels, .cls with the number of one.",
)
@cli.root_option
def main(manifest, output, per_shard, label, root):
    """Write the images of MANIFEST to tars that webdataset reads; print the manifest of these.

    \b
    pack-images train.tsv -o 'train-%05d.tar' > packed.tsv

    Images are copied as they are, in their order, and called by their line: 000000000.jpg.
    """
    from ssl_common.data import packing
    from ssl_common.data.manifest import Manifest

    with streams.writing("-", binary=False) as stream, cli.Progress("images") as progress:
        said = packing.pack(Manifest(manifest), root, output, per_shard, label, stream, progress)
    cli.say(said)


if __name__ == "__main__":
    main()
