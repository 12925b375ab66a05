"""What eval-detections tells of the detections of a file: one record."""

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_common import records, streams, tasks
from ssl_common.evaluation.detection import found as founds
from ssl_common.evaluation.detection import precision, truth
from ssl_common.evaluation.detection.found import Found
from ssl_common.evaluation.detection.precision import Curve
from ssl_common.evaluation.detection.truth import Truth
from ssl_common.fields import Record
from ssl_common.streams import DataError


def evaluate(
    path: str,
    objects: str,
    tags: Mapping[str, str],
    *,
    annotations: str | None = None,
    skip_unknown: bool = False,
    coco: bool = False,
    allow_seen: bool = False,
) -> dict[str, Any]:
    """Return the record of the detections PATH on the list OBJECTS, without its provenance.

    PATH and ANNOTATIONS are as founds.read() takes them, SKIP_UNKNOWN leaves out classes that the
    list has not, and COCO adds the average precision of COCO's rule. Raises DataError where no
    object counts, and for images that the detector was trained on unless ALLOW_SEEN.
    """
    about = {} if os.path.isdir(path) else records.read_sidecar(path)
    about = records.tagged(about, tags, streams.name(path))
    about.pop("format", None)
    listed = truth.read(objects)
    if not allow_seen and about.get("train_manifest") == listed.digest:
        message = f"the detector was trained on all images of {listed.name}"
        raise DataError(
            f"{streams.name(path)}: {message}: name others, or allow it by --allow-seen"
        )
    found = founds.read(path, listed, annotations, skip_unknown)
    measured = measure(found, listed)
    if coco:
        measured |= by_coco(found, listed)
    about["data_set"] = records.data_set(objects, about)
    return about | measured | {
        "task": tasks.DETECTION.name,
        "metric": tasks.DETECTION.metrics[0].name,
        "unseen": [name for name, known in zip(listed.classes, found.known, strict=True)
                   if not known],
        "test_images": len(listed.listed),
        "test_manifest": listed.digest,
        "inputs": {"detections": _digest(path), "objects": listed.content},
    }  # fmt: skip


def measure(found: Found, listed: Truth) -> dict[str, Any]:
    """Return the fields of a record that are of VOC's rule; percent, and None for no positive.

    Means are over classes with positives that the detector knows. Raises DataError without any.
    """
    matches, positives = precision.match(found, listed), listed.positives
    counted = (positives > 0) & found.known
    if not counted.any():
        what = "all are difficult or crowds" if len(listed.labels) else "there is no object"
        what = "of a class that has detections" if positives.any() else f"that counts: {what}"
        raise DataError(f"{listed.name}: no object {what}")

    def percent(rule, curves: Sequence[Curve]) -> np.ndarray:
        return np.array([
            100 * rule(curve) if count else np.nan
            for curve, count in zip(curves, counted, strict=True)
        ])  # fmt: skip

    curves = [precision.curves(matches, listed, limit) for limit in precision.LIMITS]
    eleven = np.array([percent(precision.eleven_points, each) for each in curves])
    area = percent(precision.area, curves[0])
    return {
        "value": _mean(eleven[0]),
        "per_class": _by_class(listed, eleven[0]),
        "ap50_area": _mean(area),
        "per_class_area": _by_class(listed, area),
        "ap75": _mean(eleven[np.searchsorted(precision.LIMITS, 0.75)]),
        "ap50_95": float(np.mean([_mean(each) for each in eleven])),
        "classes": int(counted.sum()),
        "objects": int(positives[counted].sum()),
        "objects_ignored": int((listed.ignored & counted[listed.labels]).sum()),
        "detections": len(found.scores),
        "detections_left_out": found.left_out,
    }


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values))


def _by_class(listed: Truth, values: np.ndarray) -> dict[str, float | None]:
    """Return {class: value}, None where there is none."""
    named = zip(listed.classes, values.tolist(), strict=True)
    return {name: None if np.isnan(value) else value for name, value in named}


def _digest(path: str) -> str | None:
    """Return the digest of the file PATH, of all files of a folder, or None for a pipe."""
    if not os.path.isdir(path):
        return streams.file_digest(path) if os.path.isfile(path) else None
    names = sorted(filter(founds.COMP4.fullmatch, os.listdir(path)))
    lines = (f"{name} {streams.file_digest(os.path.join(path, name))}\n" for name in names)
    return streams.digest(line.encode() for line in lines)


def summary(record: Record) -> str:
    """Return what eval-detections says of its RECORD."""
    text = f"{record['value']:.2f} {record['metric']}, {record['ap50_area']:.2f} by area"
    if "coco_ap" in record:
        text += f", COCO's {record['coco_ap']:.2f} (50: {record['coco_ap50']:.2f})"
    text += f", over {record['classes']} of {len(record['per_class'])} classes"
    text += f", {record['detections']:,} detections in {record['test_images']:,} images"
    if record["unseen"]:
        text += f"; no detections of: {', '.join(record['unseen'])}"
    if left := record["detections_left_out"]:
        text += f"; left out {left:,} of other classes"
    return text


# ---- COCO's rule --------------------------------------------------------------------------------


def by_coco(found: Found, listed: Truth) -> dict[str, float]:
    """Return the average precisions of COCO's rule, by its own program (the extra [coco]).

    Ignored objects are crowds to it: its `ignore` has no effect. Means are over classes with
    objects. Raises DataError where the program is missing.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise DataError("--coco needs faster-coco-eval: pip install 'ssl-bench[coco]'") from error
    kept = [number for number, known in enumerate(found.known) if known]
    sides = listed.boxes[:, 2:] - listed.boxes[:, :2]
    places = zip(listed.images.tolist(), listed.labels.tolist(), listed.boxes[:, :2].tolist(),
                 sides.tolist(), listed.ignored.tolist(), strict=True)  # fmt: skip
    content = {
        "images": [{"id": n, "width": each.width, "height": each.height}
                   for n, each in enumerate(listed.listed, 1)],
        "categories": [{"id": n + 1, "name": listed.classes[n]} for n in kept],
        # A crowd's area is that of its box, as no outline is known; an id of 0 is never found.
        "annotations": [
            {"id": n, "image_id": image + 1, "category_id": label + 1, "bbox": [*corner, *side],
             "area": side[0] * side[1], "iscrowd": int(ignored)}
            for n, (image, label, corner, side, ignored) in enumerate(places, 1)
        ],
    }  # fmt: skip
    boxes = np.hstack([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]])
    results = [
        {"image_id": image + 1, "category_id": label + 1, "bbox": box, "score": score}
        for image, label, box, score in zip(
            found.images.tolist(), found.labels.tolist(), boxes.tolist(), found.scores.tolist(),
            strict=True,
        )
    ]  # fmt: skip
    if not results:
        return dict.fromkeys(("coco_ap", "coco_ap50", "coco_ap75"), 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # data goes there
        coco = COCO(content)
        evaluation = COCOeval_faster(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("coco_ap", "coco_ap50", "coco_ap75")
    return {
        name: 100 * float(value) for name, value in zip(names, evaluation.stats[:3], strict=True)
    }
