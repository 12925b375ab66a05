"""extract-features: what a layer of a network says of each image."""

import click

from ssl_common import cli, records, streams


@cli.command("extract-features")
@click.argument("model")
@cli.input_argument("manifest")
@click.option("--layer", required=True, help="Layer to extract: conv1 ... conv5, pool1, ...")
@click.option("--batch", type=click.IntRange(min=1), default=64, help="Images a forward pass.")
@cli.output_option
@cli.device_option
@cli.root_option
@cli.seed_option
@cli.workers_option
def main(model, manifest, layer, batch, output, device, root, seed, workers):
    """Write the features of LAYER for each image of MANIFEST, row i from line i.

    \b
    extract-features jigsaw.pt train.tsv --layer conv4 -o train.npy

    MODEL is a file of pretrain, or random:alexnet for an untrained network drawn from --seed.
    Beside a named output goes a sidecar, FILE.json, which says what the features are.
    """
    from ssl_common.data.manifest import Manifest
    from ssl_common.evaluation import features

    images = Manifest(manifest)
    extracted = features.Layer(model, layer, seed)
    with streams.writing(output) as stream, cli.Progress("images") as progress:
        width = features.write(stream, extracted, images, root, batch, device, workers, progress)
        if output != "-":
            records.write_sidecar(output, extracted.fields | {"manifest": images.digest()})
    cli.say(f"{len(images)} images, {layer} of {model}: {width} features each")


if __name__ == "__main__":
    main()
