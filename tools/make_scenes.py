"""make-scenes: generated photographs with labels, boxes and normals, as a PASCAL VOC devkit."""

import contextlib

import click

from ssl_common import cli, streams, values


@cli.command("make-scenes")
@click.option("-n", "--count", type=values.Whole(4, 999_999), required=True, help="Scenes to draw.")
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder to make.")
@cli.seed_option
@cli.workers_option
def main(count, output, seed, workers):
    """Draw COUNT scenes into DIR, a PASCAL VOC devkit; write their manifest.

    \b
    make-scenes -n 300 -o scenes > scenes.tsv
    list-images voc scenes --split trainval > train.tsv

    DIR must be new or empty. DIR/objects.jsonl lists the boxes, DIR/normals.tsv a picture of the
    surface normals for each scene. A small set is the beginning of a larger one of the same seed.
    """
    from ssl_common.data import layouts
    from ssl_common.scenes import devkit

    with (
        streams.writing_folder(output) as folder,
        streams.writing("-", binary=False) as stream,
        cli.Progress("scenes") as progress,
        contextlib.closing(devkit.make(folder, output, count, seed, workers)) as rows,
    ):
        written = layouts.write(stream, rows, lambda done: progress(done, count))
    cli.say(f"{output}: {written}")


if __name__ == "__main__":
    main()
