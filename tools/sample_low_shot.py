"""sample-low-shot: a few positives of each class, drawn several times."""

import os

import click

from ssl_common import cli, streams, values


@cli.command("sample-low-shot")
@cli.input_argument("manifest")
@click.option(
    "-k",
    "ks",
    type=values.Wholes(1, values.MANY, "1,2,4"),
    default="1,2,4,8,16,32,64,96",
    metavar="K,K,...",
    help="Numbers of positives of each class.",
)
@click.option(
    "--samples", type=values.Whole(1, 10_000), default=5, help="Samples to draw for each k."
)
@click.option(
    "-o", "--output", required=True, metavar="DIR", help="Folder to write; it must be new."
)
@click.option(
    "--labels",
    type=click.Choice(["single", "several"]),
    show_default="as the manifest tells",
    help="Whether an image shows a single class, or may show several.",
)
@cli.seed_option
def main(manifest, ks, samples, output, labels, seed):
    """Draw samples with K positives of each class of MANIFEST; write DIR/sampleS_kK.npy.

    \b
    sample-low-shot train.tsv -k 1,2,4,8 -o low-shot
    train-svm train.npy train.tsv --low-shot low-shot -o lowshot.npz

    Standard output is the list of the files.
    """
    from ssl_common.data import samples as low_shot
    from ssl_common.data.manifest import Manifest

    with streams.writing("-", binary=False) as stream:
        names, summary = low_shot.write(Manifest(manifest), ks, samples, seed, output, labels)
        for name in names:
            stream.write(os.fsencode(f"{output.rstrip('/')}/{name}\n"))
    cli.say(summary)


if __name__ == "__main__":
    main()
