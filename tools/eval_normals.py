"""eval-normals: how far the normals of train-normals are off on other images."""

import click

from ssl_common import cli, records, streams


@cli.command("eval-normals")
@click.argument("model", metavar="NORMALS.pt")
@cli.input_argument("pairs")
@click.option(
    "--ground-truth",
    metavar="TEXT",
    help="What the normals of PAIRS were made from, where their pictures do not say it.",
)
@cli.allow_seen_option
@cli.tag_option
@cli.output_option
@cli.device_option
@cli.root_option
@cli.workers_option
def main(model, pairs, ground_truth, output, **running):
    """Measure the predictor in NORMALS.pt on the images and normals of PAIRS; write a record.

    \b
    eval-normals normals.pt test.tsv >> results.jsonl

    Its value is the median angle over all pixels that have a normal, in degrees: lower is better.
    The images must not be those of the training.
    """
    from ssl_common.evaluation.normals import testing

    made = records.stamp("eval-normals")
    with streams.writing(output, binary=False) as stream, cli.Progress("images") as progress:
        found = testing.evaluate(model, pairs, ground_truth, progress=progress, **running)
        stream.write(records.line(found | made))
    others = {"one normal": "constant", "the mean image": "mean_image"}
    beside = [f"{text} {found[f'{name}_median_error']:.2f}" for text, name in others.items()]
    said = f"median {found['value']:.2f} degrees, {found['within_11_25']:.1f}% below 11.25"
    cli.say(f"{found['test_images']} images, {said}; {', '.join(beside)}")


if __name__ == "__main__":
    main()
