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
@click.option("--against", metavar="FIELD", help="Plot the best layer against it, as images.")
@click.option("--html", metavar="FILE", help="Also write a page of tables, curves and laws.")
@click.option("--log", "logs", multiple=True, metavar="FILE", help="A log of pretrain, for --html.")
@click.option("--picture", "pictures", multiple=True, metavar="FILE", help="A picture, for --html.")
@click.option(
    "--curves",
    metavar="FILE",
    callback=_known_suffix,
    help="Instead draw the rewards in RESULTS, logs of train-navigator, to such a file.",
)
@cli.output_option
def main(results, form, plot, against, html, logs, pictures, curves, output):
    """Make a table of the records in RESULTS: one row a network, one column a layer.

    \b
    report results.jsonl
    report results.jsonl --html report.html
    report results.jsonl --plot scaling.png --against images
    report jigsaw.log.jsonl random.log.jsonl --curves rewards.png

    If the paper published a number for a setting, it stands below the last row of that setting.
    Of several records of the same measurement the last one counts.
    """
    if against and not plot:
        raise click.UsageError("--against is for --plot")
    if (logs or pictures) and not html:
        raise click.UsageError("--log and --picture are for --html")
    named: dict[str, str] = {}
    for option, path in (("--plot", plot), ("--html", html), ("--curves", curves), ("-o", output)):
        if path and named.setdefault(os.path.realpath(path), option) != option:
            first = named[os.path.realpath(path)]
            raise click.UsageError(f"{first} and {option} name the same file")
    if curves and (plot or html or form != "markdown"):
        raise click.UsageError("--curves is of logs; --plot, --html and --format are of records")
    from ssl_common.reporting import report, rewards

    paths = results or ("-",)
    if curves:
        cli.say(rewards.write(paths, curves, output))
    else:
        cli.say(report.write(paths, form, plot, against, html, logs, pictures, output))


if __name__ == "__main__":
    main()
