"""make-proposals: the boxes of images where objects may be, for a Fast R-CNN."""

import click

from ssl_common import cli, streams


@cli.command("make-proposals")
@cli.input_argument("images")
@click.option(
    "--from",
    "files",
    multiple=True,
    metavar="FILE",
    help="Convert this .mat or .pkl instead of searching; may be repeated.",
)
@click.option(
    "--mode",
    type=click.Choice(["fast", "quality"]),
    default="fast",
    help="Of Selective Search: some 2,000 boxes an image, or 9,000.",
)
@cli.output_option
@cli.root_option
@cli.seed_option
@cli.workers_option
def main(images, files, mode, output, root, seed, workers):
    """Write the proposals of IMAGES, a list of objects or a manifest, the best of an image first.

    \b
    make-proposals voc07.jsonl -o voc07.npz
    make-proposals voc07.jsonl --from voc_2007_trainval.mat -o voc07.npz

    They are those of OpenCV's Selective Search (pip install 'ssl-bench[proposals]'), or those of
    a file: Girshick's .mat, Detectron's or detectron2's .pkl. Says how many objects they are near.
    """
    if [images, *files].count("-") > 1:
        raise click.UsageError("only one operand can be standard input")
    from ssl_common.evaluation.detection import foreign_proposals, proposals

    listed = proposals.ImageList(images)
    paths = [row.path for row in listed]
    left_out = 0
    with streams.writing(output) as stream, cli.Progress("images") as progress:
        if files:
            made, left_out = foreign_proposals.convert(files, paths)
        else:
            from ssl_common.evaluation.detection import selective_search  # with torch

            how = selective_search.Search(mode, seed, root)
            found = selective_search.search(listed, how, workers, progress)
            made = proposals.gather("Selective Search", paths, found)
        proposals.save(stream, made)
    cli.say(proposals.summary(made, listed, left_out))


if __name__ == "__main__":
    main()
