"""list-images: a manifest of the images of a data set on disk."""

import click

from ssl_common import cli, streams


@cli.command("list-images")
@click.argument("layout", type=click.Choice(["voc", "folder"]), metavar="voc|folder")
@click.argument("root")
@click.option("--split", help="voc: train, val, trainval, test, or another list in ImageSets/Main.")
@cli.output_option
def main(layout, root, split, output):
    """List the images below ROOT with their labels, sorted by path.

    \b
    list-images voc VOCdevkit/VOC2007 --split trainval > train.tsv
    list-images folder photos > photos.tsv

    voc is a PASCAL VOC devkit; folder is ROOT/CLASS/IMAGE, or images without labels in ROOT.
    Images are not opened.
    """
    if layout == "voc" and not split:
        raise click.UsageError("voc needs --split, as --split trainval")
    if layout != "voc" and split:
        raise click.UsageError(f"--split is of voc, not of {layout}")
    from ssl_common.data import layouts

    rows = layouts.voc(root, split) if layout == "voc" else layouts.folder(root)
    with streams.writing(output, binary=False) as stream, cli.Progress("images") as progress:
        written = layouts.write(stream, rows, progress)
    cli.say(written)


if __name__ == "__main__":
    main()
