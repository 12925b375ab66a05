"""show-detections: a picture of the boxes of objects, or of what a detector found."""

import click

from ssl_common import cli, streams, values


@cli.command("show-detections")
@click.argument("boxes")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--objects", metavar="FILE", help="List of objects: show which boxes are right.")
@click.option("-n", "--count", type=values.Whole(1, 1000), default=6, help="Images, the first.")
@click.option(
    "--least",
    type=values.Share(),
    default="0.3",
    metavar="SCORE",
    help="Least score of a box that is drawn, 0 to 1.",
)
@cli.output_option
@cli.root_option
def main(boxes, images, objects, count, least, output, root):
    """Draw, as PNG, the boxes of a list of detections or objects on their images.

    \b
    show-detections detections.jsonl --objects test.jsonl -o boxes.png
    show-detections test.jsonl -n 12 > objects.png
    show-detections detections.jsonl JPEGImages/000001.jpg > one.png

    With --objects, green boxes are right, red ones wrong, blue ones objects that were missed, and
    gray ones of objects that do not count. An IMAGE is a path as the list has it.
    """
    if [boxes, objects].count("-") > 1:
        raise click.UsageError("only one operand can be standard input")
    from ssl_common.reporting import boxes as drawing

    with streams.writing(output) as stream:
        picture, words = drawing.show(boxes, objects, images, count, least, root)
        picture.save(stream, "PNG")
    cli.say(words)


if __name__ == "__main__":
    main()
