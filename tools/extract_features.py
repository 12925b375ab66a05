"""extract-features: what a layer of a network says of each image."""

import click

from ssl_common import cli, streams, values


@cli.command("extract-features")
@click.argument("model")
@cli.input_argument("manifest")
@click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="LAYER",
    help="Layer to extract, as conv5 or res4; with -o DIR/ may be repeated [all].",
)
@click.option(
    "--batch", type=values.Whole(1, values.BATCH), default=64, help="Images in each forward pass."
)
@click.option(
    "-o",
    "--output",
    default="-",
    metavar="FILE|DIR/",
    help="Write here; - is standard output; in DIR, a file for each layer.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    help="Number format of the features.",
)
@click.option("--show-layers", is_flag=True, help="Write the layers and their sizes, and stop.")
@cli.gpus_option
@cli.device_option
@cli.root_option
@cli.seed_option
@cli.workers_option
def main(model, manifest, layers, output, show_layers, gpus, device, seed, **reading):
    """Write the features of layers of MODEL for each image of MANIFEST; row i is line i.

    \b
    extract-features jigsaw.pt train.tsv --layer conv4 -o train.npy
    extract-features jigsaw.pt train.tsv -o train/      # train/conv1.npy ...

    MODEL is a file of pretrain or convert-weights; random:ARCH, untrained, its weights from --seed;
    or torchvision:ARCH:FILE or timm:NAME:FILE, weights of others. ARCH is alexnet, resnet50, any
    classification network of torchvision, or timm:NAME. A sidecar beside a named output, FILE.json,
    says what the features are.
    """
    if not show_layers and len(set(layers)) != 1 and not streams.is_folder(output):
        raise click.UsageError("a file takes one layer: give one --layer, or a folder, -o DIR/")
    from ssl_common.evaluation import features
    from ssl_common.ranks.launch import Launch

    if show_layers:
        with streams.writing(output, binary=False) as stream:
            stream.writelines(features.Layers(model, layers, seed).table())
        return
    launch = Launch(gpus, device)
    launch.share([manifest])
    with cli.Progress("images") as progress:
        how = features.Reading(**reading, progress=progress)
        frozen = features.Layers(model, layers, seed)
        message = features.extract(frozen, manifest, output, launch, how)
    if message:
        cli.say(message)


if __name__ == "__main__":
    main()
