"""list-images: a manifest of the images of a data set on disk."""

import re

import click

from ssl_common import cli, streams

SECOND = {"coco": "ANNOTATIONS.json", "places205": "LIST.csv"}  # what a layout takes after ROOT
OF_SHARDS = ("label", "image", "wids", "dali")  # options


def _label(_context, _option, value):
    if value and not re.fullmatch(r"folder|[a-z0-9._-]+|json:.+", value):
        raise click.BadParameter(f"{value!r} is not folder, cls, txt or json:FIELD")
    return value


@cli.command("list-images")
@click.argument(
    "layout",
    type=click.Choice(["voc", "coco", "places205", "folder", "shards"]),
    metavar="voc|coco|places205|folder|shards",
)
@click.argument("operands", nargs=-1, required=True, metavar="ROOT|SHARD...")
@click.option("--split", help="voc: train, val, trainval, test, or another list in ImageSets/Main.")
@click.option("--label", callback=_label, help="shards: label, as cls, txt, json:FIELD or folder.")
@click.option("--image", metavar="EXT", help="shards: extension of the image of a sample, as jpg.")
@click.option("--wids", metavar="FILE", help="shards: write wids' list of them here.")
@click.option("--dali", is_flag=True, help="shards: write DALI's index X.idx beside each X.tar.")
@cli.output_option
@cli.workers("shards: processes that read them; 0 reads in the main process.")
def main(layout, operands, split, output, workers, **given):
    """List the images of a data set with their labels.

    \b
    list-images voc VOCdevkit/VOC2007 --split trainval > train.tsv
    list-images coco train2014 annotations/instances_train2014.json > coco.tsv
    list-images places205 images256 train_places205.csv > places.tsv
    list-images folder photos > photos.tsv
    list-images shards 'x-{00000..00041}.tar' --label cls > x.tsv

    voc is a PASCAL VOC devkit; coco a folder of images and the file of its objects; places205 a
    folder of images and the list of Places205; folder is ROOT/CLASS/IMAGE, or images without
    labels in ROOT: images are not opened, and sorted by path. shards are tars and ZIPs, which get
    an index beside them.
    """
    if (layout == "voc") != bool(split):
        fix = "voc needs --split, as --split trainval"
        raise click.UsageError(f"--split is of voc, not of {layout}" if split else fix)
    if wrong := next((name for name in OF_SHARDS if given[name] and layout != "shards"), None):
        raise click.UsageError(f"--{wrong} is of shards, not of {layout}")
    wanted = 2 if layout in SECOND else 1
    if layout != "shards" and len(operands) != wanted:
        needed = f"{layout} needs {SECOND.get(layout)} after ROOT"
        raise click.UsageError(f"{layout} takes ROOT alone" if wanted == 1 else needed)
    from ssl_common.data import lists

    with (
        streams.writing(output, binary=False) as stream,
        cli.Progress("shards" if layout == "shards" else "images") as progress,
    ):
        written = lists.write(stream, layout, operands, split, workers, progress, **given)
    cli.say(written)


if __name__ == "__main__":
    main()
