"""eval-svm: the average precision of train-svm's classifiers on other images."""

import contextlib

import click

from ssl_common import cli, records, streams, values


@cli.command("eval-svm")
@click.argument("svm", metavar="SVM")
@click.argument("features")
@click.argument("manifest")
@click.option(
    "--train-features", metavar="FILE", help="Low-shot: features that SVM was trained on."
)
@click.option("--scores", metavar="FILE", help="Also write the decision values, images x classes.")
@click.option(
    "--bootstrap",
    type=values.Whole(0, 1_000_000),
    default=0,
    metavar="N",
    help="Resamples of the images for a 95% interval of the mAP; 1000 is usual.",
)
@cli.allow_seen_option
@cli.tag_option
@cli.output_option
@cli.seed_option
def main(
    svm, features, manifest, train_features, scores, bootstrap, allow_seen, tags, output, seed
):
    """Measure the classifiers in SVM on FEATURES of MANIFEST; write a JSON record.

    \b
    eval-svm svm.npz test.npy test.tsv >> results.jsonl
    eval-svm lowshot.npz test.npy test.tsv --train-features train.npy

    The images must not be those of the training. One operand may be -, standard input.
    """
    if [svm, features, manifest, train_features].count("-") > 1:
        raise click.UsageError("only one operand can be standard input")
    if scores == output:
        raise click.UsageError("--scores and the record need two files")
    from ssl_common.evaluation.svm import scoring

    writing_scores = streams.writing(scores) if scores else contextlib.nullcontext()
    with streams.writing(output, binary=False) as stream, writing_scores as decisions:
        results = scoring.evaluate(
            svm,
            features,
            manifest,
            tags,
            train_features=train_features,
            scores=decisions,
            bootstrap=bootstrap,
            seed=seed,
            allow_seen=allow_seen,
        )
        for record in results:
            stream.write(records.line(record | records.stamp("eval-svm")))
    cli.say(scoring.summary(results))


if __name__ == "__main__":
    main()
