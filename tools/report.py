"""report: results as a table of tasks by layers."""

import click

from ssl_common import cli, streams


@cli.command("report")
@click.argument("results", nargs=-1, metavar="[RESULTS]...")
@click.option(
    "--format", "form", type=click.Choice(["markdown", "tsv", "json"]), default="markdown",
    help="Form of the table.",
)  # fmt: skip
@cli.output_option
def main(results, form, output):
    """Make a table of the records in RESULTS: a row a network, a column a layer.

    \b
    report results.jsonl

    Below a row stands the paper's where it published a number for the same setting. Of equal
    records the last one counts.
    """
    from ssl_common.reporting import report, tables

    with streams.writing(output, binary=False) as stream:
        rows, count, replaced = report.gather(results or ("-",))
        stream.write(tables.FORMATS[form](rows).encode())
    said = f"; {replaced} replaced by a later one" if replaced else ""
    cli.say(f"{count} records, {len(rows)} rows{said}")


if __name__ == "__main__":
    main()
