"""convert-weights: a network trained elsewhere becomes one of ours, or of torchvision."""

import click

from ssl_common import cli, streams


@cli.command("convert-weights")
@cli.input_argument("file")
@click.option(
    "--to",
    "form",
    type=click.Choice(["ssl-bench", "torchvision"]),
    default="ssl-bench",
    help="A network for the other commands, or a state dict by torchvision's names.",
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
@cli.tag_option
@cli.output_option
def main(file, form, inspect, prefix, channels, tags, output):
    """Convert a network trained elsewhere, for use by the other commands.

    \b
    convert-weights resnet50_jigsaw.pkl -o jigsaw.pt
    convert-weights --inspect checkpoint.pth.tar

    FILE is a Caffe2 pickle of the paper, a file of VISSL, or a ResNet-50 by torchvision's names:
    a checkpoint of torch.save, or safetensors; the names in it show which. Nothing in it is run.
    """
    if tags and (inspect or form == "torchvision"):
        raise click.UsageError("--tag: only a network of ours has settings")
    from ssl_common.models.foreign import conversion, inspection
    from ssl_common.models.foreign.weights import read

    weights = read(file, prefix, channels)
    if inspect:
        with streams.writing(output, binary=False) as stream:
            stream.writelines(f"{line}\n".encode() for line in inspection.lines(weights))
        taken = f"{len(weights.taken)} of {len(weights.values)}"
        cli.say(f"{weights.path}: {taken} names are of a trunk")
    else:
        report = conversion.convert(weights, output, form == "torchvision", tags)
        cli.say(f"{weights.path}: {report}")


if __name__ == "__main__":
    main()
