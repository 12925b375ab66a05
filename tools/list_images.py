"""list-images: a manifest of the images of a data set on disk."""

import click

from ssl_common import cli, streams


@cli.command("list-images")
@click.argument("layout", type=click.Choice(["voc", "coco", "folder"]), metavar="voc|coco|folder")
@click.argument("root")
@click.argument("annotations", required=False, metavar="[ANNOTATIONS.json]")
@click.option("--split", help="voc: train, val, trainval, test, or another list in ImageSets/Main.")
@cli.output_option
def main(layout, root, annotations, split, output):
    """List the images below ROOT with their labels, sorted by path.

    \b
    list-images voc VOCdevkit/VOC2007 --split trainval > train.tsv
    list-images coco train2014 annotations/instances_train2014.json > coco.tsv
    list-images folder photos > photos.tsv

    voc is a PASCAL VOC devkit; coco a folder of images and the file of its objects; folder is
    ROOT/CLASS/IMAGE, or images without labels in ROOT. Images are not opened.
    """
    if (layout == "voc") != bool(split):
        fix = "voc needs --split, as --split trainval"
        raise click.UsageError(f"--split is of voc, not of {layout}" if split else fix)
    if (layout == "coco") != bool(annotations):
        fix = "coco needs ANNOTATIONS.json, as annotations/instances_train2014.json"
        raise click.UsageError(f"{layout} takes ROOT alone" if annotations else fix)
    from ssl_common.data import layouts

    listed = {"voc": layouts.voc, "coco": layouts.coco, "folder": layouts.folder}[layout]
    rows = listed(root, *filter(None, (split, annotations)))
    with streams.writing(output, binary=False) as stream, cli.Progress("images") as progress:
        written = layouts.write(stream, rows, progress)
    cli.say(written)


if __name__ == "__main__":
    main()
