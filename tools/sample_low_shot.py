"""sample-low-shot: a few positives of each class, drawn several times."""

import click

from ssl_common import cli, values


@cli.command("sample-low-shot")
@cli.input_argument("manifest")
@click.option(
    "-k",
    "ks",
    type=values.Wholes(1, values.MANY, "1,2,4"),
    default="1,2,4,8,16,32,64,96",
    metavar="K,K,...",
    help="Positives a class.",
)
@click.option("--samples", type=values.Whole(1, 10_000), default=5, help="Samples of each k.")
@click.option("-o", "--output", required=True, metavar="DIR", help="New folder of the samples.")
@cli.seed_option
def main(manifest, ks, samples, output, seed):
    """Draw samples with K positives of each class of MANIFEST; write DIR/sampleS_kK.npy.

    \b
    sample-low-shot train.tsv -k 1,2,4,8 -o low-shot
    train-svm train.npy train.tsv --low-shot low-shot -o lowshot.npz

    Standard output is the list of the files.
    """
    from ssl_common.data import lowshot
    from ssl_common.data.manifest import Manifest

    names, small = lowshot.write(Manifest(manifest), ks, samples, seed, output)
    for name in names:
        click.echo(f"{output.rstrip('/')}/{name}")
    said = [f"{len(names)} samples"]
    said += [f"k={k} without {', '.join(classes)}" for k, classes in small.items() if classes]
    cli.say("; ".join(said))


if __name__ == "__main__":
    main()
