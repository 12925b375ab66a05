"""convert-weights: a network trained elsewhere becomes one of ours, or of torchvision."""

import click

from ssl_common import cli, streams


@cli.command("convert-weights")
@cli.input_argument("file")
@click.option(
    "--to",
    "form",
    type=click.Choice(["ssl-bench", "torchvision", "timm", "detectron2", "safetensors", "hub-dir"]),
    default="ssl-bench",
    help="A network for the other commands, or a file or folder for those of others.",
)
@click.option("--inspect", is_flag=True, help="Print what FILE holds, and convert nothing.")
@click.option(
    "--prefix",
    default="",
    metavar="TEXT",
    help="Prefix of the names of the network to convert, where FILE has several, as encoder_q.",
)
@click.option(
    "--channels",
    type=click.Choice(["rgb", "bgr"]),
    show_default="bgr for Caffe2, else rgb",
    help="Order of the input channels that the network was trained with.",
)
@click.option(
    "--results",
    multiple=True,
    metavar="FILE",
    help="Records of eval-svm and so on, for the card of --to hub-dir; may be repeated.",
)
@cli.tag_option
@cli.output_option
def main(file, form, inspect, prefix, channels, results, tags, output):
    """Convert a network trained elsewhere, for use by the other commands.

    \b
    convert-weights resnet50_jigsaw.pkl -o jigsaw.pt
    convert-weights --inspect checkpoint.pth.tar
    convert-weights jigsaw.pt --to hub-dir --results results.jsonl -o jigsaw/

    FILE is a network of ours, a Caffe2 pickle of the paper, a file of VISSL, or a ResNet-50 by the
    names of torchvision, timm or detectron2: a checkpoint of torch.save, safetensors, or a folder
    of the Hub; the names in it show which. Nothing in it is run.
    """
    if tags and (inspect or form == "torchvision"):
        raise click.UsageError("--tag: only a network that has settings takes it")
    if results and (inspect or form != "hub-dir"):
        raise click.UsageError("--results: it is for the card of --to hub-dir")
    if output == "-" and form in ("detectron2", "hub-dir") and not inspect:
        raise click.UsageError(f"--to {form}: name the output, -o NAME")
    from ssl_common.models.foreign import inspection
    from ssl_common.models.foreign.weights import read
    from ssl_common.reporting import cards

    weights = read(file, prefix, channels)
    if inspect:
        with streams.writing(output, binary=False) as stream:
            stream.writelines(f"{line}\n".encode() for line in inspection.lines(weights))
        taken = f"{len(weights.taken)} of {len(weights.values)}"
        cli.say(f"{weights.path}: {taken} names are of a trunk")
        return
    report, lines = cards.convert(weights, output, form, tags, results)
    if lines:
        with streams.writing("-", binary=False) as stream:
            stream.write(lines.encode())
    cli.say(f"{weights.path}: {report}")


if __name__ == "__main__":
    main()
