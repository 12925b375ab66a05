"""show-pretext: a picture of what a network is trained on, and of what it answers."""

import click

from ssl_common import cli, streams

PRETEXTS = ("jigsaw", "colorization")


@cli.command("show-pretext")
@click.argument("pretext", type=click.Choice(PRETEXTS))
@click.argument("operands", nargs=-1, required=True, metavar="[MODEL.pt] IMAGE...")
@click.option(
    "--permutations",
    metavar="FILE",
    help="Jigsaw: permutations of the puzzles, where there is no MODEL.pt.",
)
@cli.output_option
@cli.seed_option
def main(pretext, operands, output, seed, permutations):
    """Draw, as PNG, each IMAGE as a network is trained on it, and the answer of MODEL.pt.

    \b
    show-pretext jigsaw jigsaw.pt a.jpg b.jpg -o puzzles.png
    show-pretext jigsaw --permutations p100.npy a.jpg > puzzle.png
    show-pretext colorization color.pt a.jpg b.jpg -o colours.png

    Crops and puzzles are those of pretrain, in its first pass over a manifest of these images.
    """
    if permutations and pretext != "jigsaw":
        raise click.UsageError(f"--permutations: not an option of {pretext}")
    model, images = None, operands
    if operands[0].endswith(".pt"):
        model, *images = operands
    if not images:
        raise click.UsageError("name an IMAGE after MODEL.pt")
    if model and permutations:
        raise click.UsageError(f"{model} holds its permutations: leave --permutations out")
    if not model and not permutations:
        instead = ", or give --permutations" if pretext == "jigsaw" else ""
        raise click.UsageError(f"name a MODEL.pt first{instead}")
    from ssl_common.reporting import colorings, puzzles

    with streams.writing(output) as stream:
        if pretext == "jigsaw":
            picture, summary = puzzles.show(images, model, seed, permutations)
        else:
            picture, summary = colorings.show(images, model, seed)
        picture.save(stream, "PNG")
    cli.say(summary)


if __name__ == "__main__":
    main()
