"""make-color-bins: the colours of a set of images, for Colorization."""

import click

from ssl_common import cli, streams


@cli.command("make-color-bins")
@cli.input_argument("manifest")
@click.option(
    "--grid", type=click.Choice([5, 10, 15, 20]), help="Width of a bin in a and b.  [default: 10]"
)
@click.option(
    "--prior-only",
    is_flag=True,
    help="Count how often each of the 313 bins of Zhang et al. occurs.",
)
@cli.max_bad("1%", "Share of images that may be unreadable; more stop the count.")
@cli.output_option
@cli.root_option
@cli.workers_option
def main(manifest, grid, prior_only, output, **given):
    """Count the colours of the images of MANIFEST: bins of the ab plane, and how often they occur.

    \b
    make-color-bins train.tsv > bins.npz
    head -n 10000 train.tsv | make-color-bins --prior-only > prior.npz

    The output is a .npz file for pretrain colorization --bins.
    """
    if grid and prior_only:
        raise click.UsageError("--grid and --prior-only: give one of them")
    from ssl_common.data.manifest import Manifest
    from ssl_common.pretext import bins

    with streams.writing(output) as stream:
        with cli.Progress("images") as progress:
            width = None if prior_only else grid or 10
            points, prior, said = bins.make(
                Manifest(manifest), grid=width, progress=progress, **given
            )
        bins.save(stream, points, prior)
    cli.say(said)


if __name__ == "__main__":
    main()
