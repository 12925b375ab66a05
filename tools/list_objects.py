"""list-objects: the images of a data set on disk, with the boxes of their objects."""

import click

from ssl_common import cli, streams


@cli.command("list-objects")
@click.argument("layout", type=click.Choice(["voc", "coco"]), metavar="voc|coco")
@click.argument("root")
@click.argument("annotations", required=False, metavar="[ANNOTATIONS.json]")
@click.option("--split", help="voc: train, val, trainval, test, or another list in ImageSets/Main.")
@cli.output_option
def main(layout, root, annotations, split, output):
    """List the images below ROOT with their objects, sorted by path: a JSON object for each image.

    \b
    list-objects voc VOCdevkit/VOC2007 --split trainval > voc07.jsonl
    list-objects voc VOCdevkit/VOC2012 --split trainval > voc12.jsonl
    cat voc07.jsonl voc12.jsonl > voc0712.jsonl
    list-objects coco val2017 annotations/instances_val2017.json > coco.jsonl

    voc is a PASCAL VOC devkit, or a folder of make-scenes; coco a folder of images and the file of
    its objects. Boxes are x1, y1, x2, y2 in pixels from 0. Images are not opened.
    """
    if (layout == "voc") != bool(split):
        fix = "voc needs --split, as --split trainval"
        raise click.UsageError(f"--split is of voc, not of {layout}" if split else fix)
    if (layout == "coco") != bool(annotations):
        fix = "coco needs ANNOTATIONS.json after ROOT"
        raise click.UsageError("voc takes ROOT alone" if annotations else fix)
    from ssl_common.data import boxes, coco

    cut = boxes.Cut()
    if layout == "voc":
        listed = boxes.voc(root, split, cut)
    else:
        listed = coco.objects(root, annotations, cut)
    with streams.writing(output, binary=False) as stream, cli.Progress("images") as progress:
        written = boxes.write(stream, listed, cut, progress)
    cli.say(written)


if __name__ == "__main__":
    main()
