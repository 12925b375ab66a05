"""eval-linear: how often the classifiers of train-linear are right on other images."""

import click

from ssl_common import cli, records, streams


@cli.command("eval-linear")
@click.argument("model", metavar="LINEAR.pt")
@cli.input_argument("manifest")
@cli.allow_seen_option
@cli.tag_option
@cli.output_option
@cli.device_option
@cli.root_option
@cli.workers_option
def main(model, manifest, output, **running):
    """Measure the classifiers in LINEAR.pt on the images of MANIFEST; one record a layer.

    \b
    eval-linear linear.pt places-val.tsv >> results.jsonl

    The images must not be those of the training.
    """
    from ssl_common.evaluation.linear import testing

    made = records.stamp("eval-linear")
    with streams.writing(output, binary=False) as stream, cli.Progress("images") as progress:
        found = list(testing.evaluate(model, manifest, progress=progress, **running))
        for record in found:
            stream.write(records.line(record | made))
    best = max(found, key=lambda record: record["value"])
    said = f"best {best['layer']}: top-1 {best['value']:.2f}, top-5 {best['top_5']:.2f}"
    cli.say(f"{len(found)} layers, {best['test_images']} images, {said}")


if __name__ == "__main__":
    main()
