"""fit-scaling: the law of each curve over images, its forecast, and what is not known."""

import click

from ssl_common import cli, streams, values


@cli.command("fit-scaling")
@click.argument("results", nargs=-1, metavar="[RESULTS]...")
@click.option(
    "--against",
    default="images",
    metavar="FIELD",
    help="Number of the records that the curves are over.",
)
@click.option(
    "--noise",
    type=values.Positive(1e6),
    metavar="SD",
    show_default="the seeds', else the intervals'",
    help="Standard deviation of a value, in its unit.",
)
@click.option(
    "--draws",
    type=values.Whole(40, 1_000_000),
    default=1000,
    metavar="N",
    help="Draws of the values for the 95% intervals.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "text"]),
    default="jsonl",
    help="An object a curve, or a sentence.",
)
@cli.output_option
@cli.seed_option
def main(results, against, noise, draws, form, output, seed):
    """Fit error = E + A n^-a to each curve of the records in RESULTS that has 4 sizes n or more.

    \b
    fit-scaling results.jsonl > fits.jsonl
    fit-scaling results.jsonl --format text

    The largest size is held out and predicted; the forecast is for ten times the largest.
    """
    from ssl_common.reporting import report, scaling

    with streams.writing(output, binary=False) as stream:
        rows, _summary = report.gather(results or ("-",))
        fits = list(scaling.fits(rows, against, noise, draws, seed))
        stream.write(scaling.FORMS[form](fits).encode())
    cli.say(scaling.summary(fits))


if __name__ == "__main__":
    main()
