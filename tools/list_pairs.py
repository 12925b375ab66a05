"""list-pairs: a list of images, each with a target for every pixel."""

import click

from ssl_common import cli, streams, values


@cli.command("list-pairs")
@click.argument(
    "layout", type=click.Choice(["folder", "dsine", "nyuv2"]), metavar="folder|dsine|nyuv2"
)
@click.argument("root")
@click.argument("targets", required=False)
@click.argument("splits", required=False, metavar="[SPLITS.mat|LIST.json]")
@click.option("--split", help="nyuv2 and dsine: train or test.")
@click.option(
    "--first", type=values.Whole(0, 1), default=1, help="nyuv2: number of the first image."
)
@cli.output_option
def main(layout, root, targets, splits, split, first, output):
    """List the images below ROOT with their targets, IMAGE<TAB>TARGET, sorted.

    \b
    list-pairs folder photos normals > pairs.tsv
    list-pairs dsine nyuv2 --split test > test.tsv
    list-pairs nyuv2 nyu/images nyu-normals splits.mat --split train > train.tsv

    folder is two folders with the same names; dsine the layout ROOT/SPLIT/000000_img.png and
    000000_normal.png; nyuv2 two folders of what unpack-nyuv2 writes, and splits.mat, or one of the
    lists of the paper's authors, train_SN40.json and test_SN40.json, which need no --split.
    """
    from ssl_common.data import pairings

    given = tuple(value is not None for value in (targets, splits, split))
    of_one = splits is not None and pairings.is_list(splits)
    wanted = {"folder": (True, False, False), "dsine": (False, False, True),
              "nyuv2": (True, True, not of_one)}  # fmt: skip
    if given != wanted[layout]:
        needs = {"folder": "two folders", "dsine": "ROOT and --split",
                 "nyuv2": "two folders, and splits.mat and --split or a list in JSON"}  # fmt: skip
        raise click.UsageError(f"{layout} takes {needs[layout]}")
    if layout == "nyuv2" and split not in ("train", "test", None):
        raise click.UsageError(f"--split {split}: nyuv2 has train and test")
    from ssl_common.data.targets import format_pair

    rows = {
        "folder": lambda: pairings.folder(root, targets),
        "dsine": lambda: pairings.dsine(root, split),
        "nyuv2": lambda: pairings.nyuv2(root, targets, splits, split, first),
    }[layout]()
    with streams.writing(output, binary=False) as stream:
        count = sum(bool(stream.write(format_pair(pair))) for pair in rows)
    cli.say(f"{count:,} pairs")


if __name__ == "__main__":
    main()
