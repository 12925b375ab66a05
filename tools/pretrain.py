"""pretrain: train a network without labels."""

import os

import click

from ssl_common import cli, streams


@cli.command("pretrain")
@click.argument("pretext", type=click.Choice(["jigsaw"]))
@cli.input_argument("manifest")
@click.option("--permutations", required=True, metavar="FILE", help="From make-permutations.")
@click.option("-o", "--output", required=True, metavar="MODEL.pt", help="The finished network.")
@click.option("--arch", default="alexnet", help="Network to train: alexnet or resnet50.")
@click.option("--epochs", type=click.IntRange(min=1), default=90, help="Passes over the images.")
@click.option("--batch", type=click.IntRange(min=2), default=256, help="Images a step, in all.")
@click.option(
    "--lr",
    type=click.FloatRange(0, min_open=True),
    show_default="0.1 x batch / 256",
    help="Learning rate; a tenth of it after 1/3, 2/3 and 8/9 of the steps each.",
)
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", help="Of products."
)
@click.option(
    "--accumulate", type=click.IntRange(min=1), default=1, help="Pieces a GPU's share is cut into."
)
@cli.gpus_option
@cli.checkpoint_option
@cli.device_option
@cli.root_option
@cli.seed_option
@cli.workers_option
def main(pretext, manifest, permutations, output, root, gpus, accumulate, **options):
    """Train a network by PRETEXT on the images of MANIFEST; no label is read.

    \b
    pretrain jigsaw yfcc-1m.tsv --permutations p2k.npy -o jigsaw.pt > log.jsonl

    The log goes to standard output, one JSON object a line. A run that was stopped goes on from
    MODEL.pt.state/ when the same command is given again.
    """
    is_rank = "TORCHELASTIC_RUN_ID" in os.environ
    pieces = (int(os.environ["WORLD_SIZE"]) if is_rank else gpus) * accumulate
    if options["batch"] % pieces:
        message = f"--batch {options['batch']} is no multiple of {pieces} (GPUs x accumulation)"
        raise click.UsageError(message)
    from ssl_common.training import pretraining

    running = {name: options.pop(name) for name in ("device", "workers", "every")}
    options["lr"] = options["lr"] or 0.1 * options["batch"] / 256
    options["micro_batch"] = options["batch"] // pieces
    with (
        streams.writing("-", binary=False) as log,
        cli.deferring_stop(patient=is_rank) as stopping,
        cli.Progress("steps") as progress,
    ):

        def emit(line):
            log.write(line)
            log.flush()

        running |= {"emit": emit, "stopping": stopping, "progress": progress}
        said = pretraining.pretrain(
            pretext, manifest, permutations, output, options, root, gpus, **running
        )
    if said:
        cli.say(said)


if __name__ == "__main__":
    main()
