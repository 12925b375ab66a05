"""unpack-nyuv2: the files of NYUv2 as pictures that every tool reads."""

import click

from ssl_common import cli, streams


@cli.command("unpack-nyuv2")
@click.argument("file")
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder to make.")
@click.option("--raw", is_flag=True, help="The depth of the sensor, with holes, not the filled.")
@click.option(
    "--negate",
    type=click.Choice(["x", "y", "z", "xy", "xz", "yz", "xyz"]),
    help="Axes of the normals that have the other sign in FILE.",
)
def main(file, output, raw, negate):
    """Unpack FILE, nyu_depth_v2_labeled.mat or all_normals.pklz, into DIR; write a list.

    \b
    unpack-nyuv2 nyu_depth_v2_labeled.mat -o nyu > depth.tsv
    unpack-nyuv2 all_normals.pklz -o nyu-normals > pictures.tsv

    The first gives DIR/images and DIR/depth, in millimetres, and the list of their pairs; the
    second a picture of normals each, and the list of these. An image is called by its number.
    """
    from ssl_common.evaluation.normals import nyuv2

    what = nyuv2.kind(file)
    if raw and what == "normals":
        raise click.UsageError(f"--raw: {file} holds normals, not depth")
    if negate and what == "labeled":
        raise click.UsageError(f"--negate: {file} holds depth, not normals")
    with (
        streams.writing_folder(output) as folder,
        streams.writing("-", binary=False) as stream,
        cli.Progress("images") as progress,
    ):
        if what == "labeled":
            lines = map("\t".join, nyuv2.unpack_labeled(file, folder, output, raw))
        else:
            lines = nyuv2.unpack_normals(file, folder, output, negate or "")
        for count, line in enumerate(lines, 1):  # noqa: B007
            stream.write(f"{line}\n".encode())
            progress(count)
    cli.say(f"{output}: {count} images, {'depth' if what == 'labeled' else what}")


if __name__ == "__main__":
    main()
