"""pretrain: train a network without labels."""

import re

import click

from ssl_common import cli, streams


class Every(click.ParamType):
    """An interval: 500steps, 1epoch or 30min."""

    name = "interval"

    def convert(self, value, param, ctx):
        match = re.fullmatch(r"([1-9]\d*)(step|epoch|min)s?", value)
        if not match:
            self.fail(f"{value!r} is not like 500steps, 1epoch or 30min", param, ctx)
        return int(match[1]), match[2]


@cli.command("pretrain")
@click.argument("pretext", type=click.Choice(["jigsaw"]))
@cli.input_argument("manifest")
@click.option("--permutations", required=True, metavar="FILE", help="From make-permutations.")
@click.option("-o", "--output", required=True, metavar="MODEL.pt", help="The finished network.")
@click.option("--arch", default="alexnet", help="Network to train.")
@click.option("--epochs", type=click.IntRange(min=1), default=90, help="Passes over the images.")
@click.option("--batch", type=click.IntRange(min=2), default=256, help="Images a step.")
@click.option(
    "--lr",
    type=click.FloatRange(0, min_open=True),
    show_default="0.1 x batch / 256",
    help="Learning rate; a tenth of it after 1/3, 2/3 and 8/9 of the steps each.",
)
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", help="Of products."
)
@click.option("--checkpoint-every", "every", type=Every(), default="30min", help="Interval.")
@cli.device_option
@cli.root_option
@cli.seed_option
@cli.workers_option
def main(pretext, manifest, permutations, output, device, root, workers, every, **options):
    """Train a network by PRETEXT on the images of MANIFEST; no label is read.

    \b
    pretrain jigsaw yfcc-1m.tsv --permutations p2k.npy -o jigsaw.pt > log.jsonl

    The log goes to standard output, one JSON object a line. A run that was stopped goes on from
    MODEL.pt.state/ when the same command is given again.
    """
    from ssl_common.training import pretraining

    options["lr"] = options["lr"] or 0.1 * options["batch"] / 256
    with (
        streams.writing("-", binary=False) as log,
        cli.deferring_stop() as stopping,
        cli.Progress("steps") as progress,
    ):

        def emit(line):
            log.write(line)
            log.flush()

        running = {"device": device, "workers": workers, "every": every}
        running |= {"emit": emit, "stopping": stopping, "progress": progress}
        said = pretraining.jigsaw(manifest, permutations, output, options, root, **running)
        if not said:
            raise cli.Stopped(stopping())
    cli.say(said)


if __name__ == "__main__":
    main()
