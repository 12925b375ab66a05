"""show-pretext: a picture of what a network is trained on, and of what it answers."""

import click

from ssl_common import cli, streams

TAKES = {"jigsaw": ("permutations",), "colorization": ()}


@cli.command("show-pretext")
@click.argument("pretext", type=click.Choice(list(TAKES)))
@click.argument("operands", nargs=-1, required=True, metavar="[MODEL.pt] IMAGE...")
@click.option("--permutations", metavar="FILE", help="Of jigsaw, where no MODEL.pt is.")
@cli.output_option
@cli.seed_option
def main(pretext, operands, output, seed, **given):
    """Draw as PNG what a network is trained on for each IMAGE, and what MODEL.pt answers.

    \b
    show-pretext jigsaw jigsaw.pt a.jpg b.jpg -o puzzles.png
    show-pretext jigsaw --permutations p100.npy a.jpg > puzzle.png
    show-pretext colorization color.pt a.jpg b.jpg -o colours.png

    All is drawn as pretrain draws it for a manifest of these images in its first pass.
    """
    task = cli.taken(given, pretext, TAKES, ())
    model, images = None, operands
    if operands[0].endswith(".pt"):
        model, *images = operands
    if not images:
        raise click.UsageError("name an IMAGE after MODEL.pt")
    if model and task.get("permutations"):
        raise click.UsageError(f"{model} holds its permutations: leave --permutations out")
    if not model and not any(task.values()):
        instead = "".join(f", or give --{name}" for name in TAKES[pretext])
        raise click.UsageError(f"name a MODEL.pt first{instead}")
    from ssl_common.reporting import colorings, puzzles

    shows = {"jigsaw": puzzles.show, "colorization": colorings.show}
    with streams.writing(output) as stream:
        picture, said = shows[pretext](images, model, seed, **task)
        picture.save(stream, "PNG")
    cli.say(said)


if __name__ == "__main__":
    main()
