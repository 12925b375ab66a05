"""list-images: a manifest of the images of a data set on disk."""

import click

from ssl_common import cli, streams

SECOND = {"coco": "ANNOTATIONS.json", "places205": "LIST.csv"}  # what a layout takes after ROOT


@cli.command("list-images")
@click.argument(
    "layout",
    type=click.Choice(["voc", "coco", "places205", "folder"]),
    metavar="voc|coco|places205|folder",
)
@click.argument("root")
@click.argument("listing", required=False, metavar="[ANNOTATIONS.json|LIST.csv]")
@click.option("--split", help="voc: train, val, trainval, test, or another list in ImageSets/Main.")
@cli.output_option
def main(layout, root, listing, split, output):
    """List the images below ROOT with their labels, sorted by path.

    \b
    list-images voc VOCdevkit/VOC2007 --split trainval > train.tsv
    list-images coco train2014 annotations/instances_train2014.json > coco.tsv
    list-images places205 images256 train_places205.csv > places.tsv
    list-images folder photos > photos.tsv

    voc is a PASCAL VOC devkit; coco a folder of images and the file of its objects; places205 a
    folder of images and the list of Places205; folder is ROOT/CLASS/IMAGE, or images without
    labels in ROOT. Images are not opened.
    """
    if (layout == "voc") != bool(split):
        fix = "voc needs --split, as --split trainval"
        raise click.UsageError(f"--split is of voc, not of {layout}" if split else fix)
    if (layout in SECOND) != bool(listing):
        needed = f"{layout} needs {SECOND.get(layout)} after ROOT"
        raise click.UsageError(f"{layout} takes ROOT alone" if listing else needed)
    from collections import Counter

    from ssl_common.data import coco, layouts

    others = Counter()
    rows = {
        "voc": lambda: layouts.voc(root, split),
        "coco": lambda: coco.coco(root, listing),
        "places205": lambda: layouts.places205(root, listing),
        "folder": lambda: layouts.folder(root, others),
    }[layout]()
    with streams.writing(output, binary=False) as stream, cli.Progress("images") as progress:
        written = layouts.write(stream, rows, progress, others)
    cli.say(written)


if __name__ == "__main__":
    main()
