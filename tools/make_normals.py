"""make-normals: surface normals from depth, by the plane through the points around a pixel."""

import contextlib
import os

import click

from ssl_common import cli, streams, values


@cli.command("make-normals")
@cli.input_argument("pairs")
@click.option(
    "--intrinsics",
    required=True,
    metavar="FX,FY,CX,CY|FILE",
    help="Focal lengths and principal point in pixels: of all images, or a list of them.",
)
@click.option(
    "-k",
    "--window",
    type=values.Whole(3, 99),
    default=9,
    help="Side of the window in pixels, an odd number.",
)
@click.option(
    "--scale",
    type=values.Positive(1e9),
    default=1000.0,
    help="Values of the depth that make a metre.",
)
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder to make.")
@cli.root_option
@cli.workers_option
def main(pairs, intrinsics, window, scale, output, root, workers):
    """Make a picture of surface normals of each depth that PAIRS lists; write the pairs.

    \b
    make-normals depth.tsv --intrinsics intrinsics.tsv -o normals > normals.tsv

    PAIRS is IMAGE<TAB>DEPTH, as list-pairs writes it. The window decides the labels: the line on
    standard error says how far those of a window half as wide again are from them.
    """
    if window % 2 == 0:
        raise click.UsageError(f"-k {window}: the window has a middle: take an odd number")
    from ssl_common.data.targets import PairList, format_pair
    from ssl_common.evaluation.normals import depth, planes
    from ssl_common.evaluation.normals.metrics import Angles

    listed, agreement = PairList(pairs), Angles()
    of_camera = depth.cameras(intrinsics, listed)
    reading = depth.DepthReading(window, scale, root)
    prefix = output if os.path.isabs(output) else os.path.relpath(output, root)
    pixels = known = 0
    with (
        streams.writing_folder(output) as folder,
        streams.writing("-", binary=False) as stream,
        cli.Progress("images") as progress,
        contextlib.closing(
            depth.make(folder, prefix, listed, of_camera, reading, workers, agreement)
        ) as made,
    ):
        for done, (pair, seen, found) in enumerate(made, 1):
            stream.write(format_pair(pair))
            pixels, known = pixels + seen, known + found
            progress(done, len(listed))
    wide = planes.wider(window)
    said = f"{len(listed)} images, {planes.rule(window)}, {known / pixels:.1%} of the pixels"
    cli.say(f"{said}; {wide} x {wide} is {agreement.median():.1f} degrees off (median)")


if __name__ == "__main__":
    main()
