"""report: results as a table of tasks by layers, and as a plot."""

import contextlib
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
@click.option("--html", metavar="FILE", help="Also write a page of tables, curves and laws.")
@click.option("--log", "logs", multiple=True, metavar="FILE", help="A log of pretrain, for --html.")
@click.option("--picture", "pictures", multiple=True, metavar="FILE", help="A picture, for --html.")
@cli.output_option
def main(results, form, plot, against, html, logs, pictures, output):
    """Make a table of the records in RESULTS: one row a network, one column a layer.

    \b
    report results.jsonl
    report results.jsonl --html report.html
    report results.jsonl --plot scaling.png --against images

    If the paper published a number for a setting, it stands below the last row of that setting.
    Of several records of the same measurement the last one counts.
    """
    if against and not plot:
        raise click.UsageError("--against is for --plot")
    if (logs or pictures) and not html:
        raise click.UsageError("--log and --picture are for --html")
    named: dict[str, str] = {}
    for option, path in (("--plot", plot), ("--html", html), ("-o", output)):
        if path and named.setdefault(os.path.realpath(path), option) != option:
            first = named[os.path.realpath(path)]
            raise click.UsageError(f"{first} and {option} name the same file")
    from ssl_common.reporting import report

    with streams.writing(output, binary=False) as stream:
        rows, summary = report.gather(results or ("-",))
        files, told = report.files(rows, summary, plot, against, html, logs, pictures)
        with contextlib.ExitStack() as stack:
            for path, content in files.items():
                stack.enter_context(streams.writing(path)).write(content)
            stream.write(report.table(rows, form).encode())
            stream.flush()  # a full disk leaves the files that were there
    cli.say(told)


if __name__ == "__main__":
    main()
