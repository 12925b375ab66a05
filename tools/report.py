"""report: results as a table of tasks by layers, and as a plot."""

import os

import click

from ssl_common import cli, streams


def _known_suffix(_ctx, _param, path):
    from ssl_common.reporting.plots import FORMS

    if path and os.path.splitext(path)[1].lower() not in FORMS:
        raise click.BadParameter(f"{path!r} does not end in {', '.join(FORMS)}")
    return path


@cli.command("report")
@click.argument("results", nargs=-1, metavar="[RESULTS]...")
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "tsv", "json"]),
    default="markdown",
    help="Format of the table.",
)
@click.option(
    "--plot",
    metavar="FILE",
    callback=_known_suffix,
    help="Also plot the rows by layer, to a .png, .svg or .pdf file.",
)
@click.option(
    "--against",
    metavar="FIELD",
    help="Plot the best layer against this field of the records instead, as images.",
)
@cli.output_option
def main(results, form, plot, against, output):
    """Make a table of the records in RESULTS: one row a network, one column a layer.

    \b
    report results.jsonl
    report results.jsonl --plot layers.png
    report results.jsonl --plot scaling.png --against images

    If the paper published a number for a setting, it stands below the last row of that setting.
    Of several records of the same measurement the last one counts.
    """
    if against and not plot:
        raise click.UsageError("--against is for --plot")
    if plot and os.path.realpath(plot) == os.path.realpath(output):
        raise click.UsageError("--plot and -o name the same file")
    from ssl_common.reporting import plots, report, tables

    with streams.writing(output, binary=False) as stream:
        rows, summary = report.gather(results or ("-",))
        table = tables.FORMATS[form](rows).encode()
        if plot:
            picture, left_out = plots.render(rows, plot, against)
            summary += f"; {plot}"
            summary += f" without {left_out} that lack {against}" if left_out else ""
            with streams.writing(plot) as plot_stream:
                plot_stream.write(picture)
                stream.write(table)
                stream.flush()  # a full disk leaves the plot that was there
        else:
            stream.write(table)
    cli.say(summary)


if __name__ == "__main__":
    main()
