"""train-svm: a linear classifier per class on frozen features."""

import click

from ssl_common import cli, streams


@cli.command("train-svm")
@click.argument("features")
@click.argument("manifest")
@cli.tag_option
@cli.output_option
@cli.seed_option
@click.option(
    "--solver",
    type=click.Choice(["exact", "liblinear"]),
    default="exact",
    help="exact solves all problems together; liblinear, the reference, one after another.",
)
@click.option(
    "--low-shot",
    metavar="DIR",
    help="Train on each sample of sample-low-shot in DIR, at each of the 26 costs.",
)
@cli.device_option
@cli.workers("Threads of the exact solver, or processes of liblinear.")
def main(features, manifest, tags, output, seed, solver, low_shot, device, workers):
    """Train a linear SVM for each class of MANIFEST on FEATURES; row i is line i.

    \b
    train-svm train.npy train.tsv -o svm.npz
    train-svm train.npy train.tsv --low-shot low-shot -o lowshot.npz

    The cost of each class is the best of 26 in 3-fold cross-validation. Either operand may be -,
    standard input.
    """
    if features == manifest == "-":
        raise click.UsageError("FEATURES and MANIFEST cannot both be standard input")
    if low_shot and solver != "exact":
        raise click.UsageError("--low-shot is for --solver exact")
    from ssl_common.evaluation.svm import classifiers, lowshot

    with streams.writing(output) as stream:
        if low_shot:
            with cli.Progress("%") as progress:
                samples = lowshot.train(
                    features, manifest, low_shot, tags, seed, workers, progress, device
                )
            lowshot.save(stream, samples)
            text = samples.summary()
        else:
            with cli.Progress("%") as progress:
                trained = classifiers.train(
                    features, manifest, tags, seed, workers, progress, solver=solver, device=device
                )
            classifiers.save(stream, trained)
            text = trained.summary()
    cli.say(text)


if __name__ == "__main__":
    main()
