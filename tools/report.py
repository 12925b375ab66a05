"""report: results as a table of tasks by layers, and as a plot."""

import os

import click

from ssl_common import cli


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
@click.option(
    "--curves",
    metavar="FILE",
    callback=_known_suffix,
    help="Instead draw the rewards in RESULTS, logs of train-navigator, to such a file.",
)
@cli.output_option
def main(results, form, plot, against, curves, output):
    """Make a table of the records in RESULTS: one row a network, one column a layer.

    \b
    report results.jsonl
    report results.jsonl --plot layers.png
    report results.jsonl --plot scaling.png --against images
    report jigsaw.log.jsonl random.log.jsonl --curves rewards.png

    If the paper published a number for a setting, it stands below the last row of that setting.
    Of several records of the same measurement the last one counts.
    """
    if against and not plot:
        raise click.UsageError("--against is for --plot")
    if curves and (plot or form != "markdown"):
        raise click.UsageError("--curves: it is of logs, and --plot and --format of records")
    if (picture := plot or curves) and os.path.realpath(picture) == os.path.realpath(output):
        raise click.UsageError(f"--{'plot' if plot else 'curves'} and -o name the same file")
    from ssl_common.reporting import report, rewards

    paths = results or ("-",)
    if curves:
        cli.say(rewards.write(paths, curves, output))
    else:
        cli.say(report.write(paths, form, plot, against, output))


if __name__ == "__main__":
    main()
