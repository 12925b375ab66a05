"""eval-detections: the average precision of detections on a list of objects."""

import click

from ssl_common import cli, records, streams


@cli.command("eval-detections")
@click.argument("detections")
@click.argument("objects")
@click.option("--annotations", metavar="FILE", help="COCO's results: the file whose ids they have.")
@click.option("--coco", is_flag=True, help="Also measure by COCO's rule; needs ssl-bench[coco].")
@click.option("--skip-unknown", is_flag=True, help="Leave out classes that OBJECTS does not have.")
@cli.allow_seen_option
@cli.tag_option
@cli.output_option
def main(detections, objects, annotations, coco, skip_unknown, allow_seen, tags, output):
    """Measure DETECTIONS on the list OBJECTS by the rule of VOC2007; write a JSON record.

    \b
    eval-detections detections.jsonl test.jsonl >> results.jsonl
    eval-detections results/Main test.jsonl --tag model=yolo
    eval-detections boxes.json coco.jsonl --annotations instances.json --coco

    DETECTIONS is a list of detect, a folder of comp4 files, or COCO's result JSON. One operand
    may be -, standard input.
    """
    if [detections, objects, annotations].count("-") > 1:
        raise click.UsageError("only one operand can be standard input")
    from ssl_common.evaluation.detection import scoring

    with streams.writing(output, binary=False) as stream:
        record = scoring.evaluate(
            detections,
            objects,
            tags,
            annotations=annotations,
            skip_unknown=skip_unknown,
            coco=coco,
            allow_seen=allow_seen,
        )
        stream.write(records.line(record | records.stamp("eval-detections")))
    cli.say(scoring.summary(record))


if __name__ == "__main__":
    main()
