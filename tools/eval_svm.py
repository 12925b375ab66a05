"""eval-svm: the average precision of train-svm's classifiers on other images."""

import datetime

import click

from ssl_common import cli, records, streams


@cli.command("eval-svm")
@click.argument("svm", metavar="SVM")
@click.argument("features")
@click.argument("manifest")
@cli.tag_option
@cli.output_option
def main(svm, features, manifest, tags, output):
    """Measure the classifiers SVM on FEATURES and MANIFEST; write one JSON record.

    \b
    eval-svm svm.npz test.npy test.tsv >> results.jsonl

    The images must be others than those of the training. One operand may be -, standard input.
    """
    if [svm, features, manifest].count("-") > 1:
        raise click.UsageError("only one operand can be standard input")
    from ssl_common.evaluation import svm as svms

    with streams.writing(output, binary=False) as stream:
        record = svms.evaluate(svm, features, manifest, tags) | records.provenance("eval-svm")
        record["time_utc"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        stream.write(records.line(record))
    said = (
        f"{record['value']:.2f} mAP over {record['classes']} of {len(record['per_class'])} classes"
    )
    unseen = f"; not trained: {', '.join(record['unseen'])}" if record["unseen"] else ""
    cli.say(f"{said}, {record['test_images']} images{unseen}")


if __name__ == "__main__":
    main()
