"""show-normals: a picture of images, their normals, and those that a network predicts."""

import click

from ssl_common import cli, streams, values


@cli.command("show-normals")
@click.argument("model", metavar="NORMALS.pt")
@cli.input_argument("pairs")
@click.option(
    "-n", "--count", type=values.Whole(1, 100), default=4, help="Lines of PAIRS to show, the first."
)
@cli.output_option
@cli.root_option
def main(model, pairs, count, output, root):
    """Draw, as PNG, images of PAIRS with their normals and those that NORMALS.pt predicts.

    \b
    show-normals normals.pt test.tsv -n 6 -o normals.png

    Red, green and blue are x, y and z of the normal: x to the right, y up, z towards the camera.
    """
    from ssl_common.reporting import surfaces

    with streams.writing(output) as stream:
        picture, summary = surfaces.show(model, pairs, count, root)
        picture.save(stream, "PNG")
    cli.say(summary)


if __name__ == "__main__":
    main()
