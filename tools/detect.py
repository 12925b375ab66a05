"""detect: the objects that a detector finds in images."""

import click

from ssl_common import cli


@cli.command("detect")
@click.argument("detector", metavar="DETECTOR.pt")
@cli.input_argument("images")
@click.option(
    "--proposals",
    metavar="PROPOSALS.npz",
    help="Boxes to look at, for a detector of train-detector --head fast.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "comp4", "coco"]),
    default="jsonl",
    help="A JSON object an image; a folder of the VOC devkit's files, -o DIR; or COCO's JSON.",
)
@click.option(
    "--set", "split", default="test", metavar="NAME", help="Set in the names of comp4's files."
)
@click.option(
    "--annotations",
    metavar="FILE.json",
    help="COCO's file, for --format coco: the numbers of its images, below --root, and classes.",
)
@cli.output_option
@cli.gpus_option
@cli.device_option
@cli.root_option
@cli.workers_option
def main(
    detector, images, proposals, form, split, annotations, output, gpus, device, root, workers
):
    """Find objects in IMAGES, a manifest or a list of objects; a line for each, in order.

    \b
    detect fast.pt voc07-test.jsonl --proposals voc07-test.npz -o found.jsonl
    detect faster.pt photos.tsv --format comp4 -o results/

    What the list says of objects is not looked at.
    """
    if form == "comp4" and output == "-":
        raise click.UsageError("--format comp4 makes a folder: name it with -o DIR")
    if (form == "coco") != (annotations is not None):
        raise click.UsageError("--annotations goes with --format coco, and that with it")
    from ssl_common.evaluation.detection import detecting
    from ssl_common.ranks.launch import Launch

    launch = Launch(gpus, device)
    launch.share([images, detector, proposals])
    writing = detecting.Writing(output, form, split, annotations)
    with cli.Progress("images") as progress:
        reading = detecting.Reading(root, workers, progress)
        message = detecting.detect(detector, images, proposals, launch, reading, writing)
    if message:
        cli.say(message)


if __name__ == "__main__":
    main()
