"""eval-finetune: how well a fine-tuned network names the classes of other images."""

import click

from ssl_common import cli, records, streams, values


@cli.command("eval-finetune")
@click.argument("model", metavar="TUNED.pt")
@cli.input_argument("manifest")
@click.option(
    "--kept",
    is_flag=True,
    help="Measure the checkpoints of finetune --keep-epochs too, and name the best.",
)
@click.option(
    "--crops",
    type=values.Whole(1, 100),
    show_default="as many as the recipe of the training says",
    help="Random crops of an image whose scores are summed; 1 is its middle.",
)
@cli.seed_option
@cli.allow_seen_option
@cli.tag_option
@cli.output_option
@cli.device_option
@cli.root_option
@cli.workers_option
def main(model, manifest, output, **running):
    """Measure the network in TUNED.pt on the images of MANIFEST; write a record.

    \b
    eval-finetune tuned.pt voc07-test.tsv >> results.jsonl

    Its value is the mean average precision by scikit-learn's rule, after the last step; or the
    top-1 where each image has one class. The images must not be those of the training.
    """
    from ssl_common.evaluation.finetuning import testing

    made = records.stamp("eval-finetune")
    with streams.writing(output, binary=False) as stream, cli.Progress("images") as progress:
        found = testing.evaluate(model, manifest, progress=progress, **running)
        stream.write(records.line(found | made))
    cli.say(testing.summary(found))


if __name__ == "__main__":
    main()
