"""show-pretext: a picture of what a network is trained on, and of what it answers."""

import click

from ssl_common import cli, streams


@cli.command("show-pretext")
@click.argument("pretext", type=click.Choice(["jigsaw"]))
@click.argument("operands", nargs=-1, required=True, metavar="[MODEL.pt] IMAGE...")
@click.option("--permutations", metavar="FILE", help="Of the puzzles, where no MODEL.pt is.")
@cli.output_option
@cli.seed_option
def main(pretext, operands, permutations, output, seed):
    """Draw the puzzle of each IMAGE as PNG, and how the network MODEL.pt puts it back.

    \b
    show-pretext jigsaw jigsaw.pt a.jpg b.jpg -o puzzles.png
    show-pretext jigsaw --permutations p100.npy a.jpg > puzzle.png

    The puzzles are those that pretrain draws for a manifest of these images in its first pass.
    """
    model, images = None, operands
    if operands[0].endswith(".pt"):
        model, *images = operands
    if not images:
        raise click.UsageError("name an IMAGE after MODEL.pt")
    if model and permutations:
        raise click.UsageError(f"{model} holds its permutations: leave --permutations out")
    if not (model or permutations):
        raise click.UsageError("name a MODEL.pt first, or give --permutations")
    from ssl_common.reporting import pretext as pictures

    with streams.writing(output) as stream:
        picture, said = pictures.show(images, model, permutations, seed)
        stream.write(picture)
    cli.say(said)


if __name__ == "__main__":
    main()
