"""train-svm: a linear classifier per class on frozen features."""

import click

from ssl_common import cli, streams


@cli.command("train-svm")
@click.argument("features")
@click.argument("manifest")
@cli.tag_option
@cli.output_option
@cli.seed_option
@cli.workers_option
def main(features, manifest, tags, output, seed, workers):
    """Train a linear SVM per class of MANIFEST on FEATURES, row i from line i.

    \b
    train-svm train.npy train.tsv -o svm.npz

    The cost of each class is the best of 26 in 3-fold cross-validation. Either operand may be -,
    standard input.
    """
    if features == manifest == "-":
        raise click.UsageError("FEATURES and MANIFEST cannot both be standard input")
    from ssl_common.evaluation import svm

    with streams.writing(output) as stream:
        with cli.Progress("fits") as progress:
            trained = svm.train(features, manifest, tags, seed, workers, progress)
        svm.save(stream, trained)
    cli.say(trained.summary())


if __name__ == "__main__":
    main()
