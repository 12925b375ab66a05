"""Testing of a fine-tuned network: one record, after the last step and at its best."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, SequentialSampler

from ssl_common import records, streams, tasks
from ssl_common.data import augmentation, identity
from ssl_common.data.batches import batches
from ssl_common.data.datasets import SequentialImages
from ssl_common.data.manifest import DIFFICULT, POSITIVE, Manifest
from ssl_common.data.order import draws
from ssl_common.evaluation.finetuning.heads import Tuned, tuned
from ssl_common.evaluation.finetuning.recipes import RESNET
from ssl_common.evaluation.finetuning.training import read_labels
from ssl_common.evaluation.metrics import average_precision, places
from ssl_common.fields import Record
from ssl_common.models import networks, registry, states
from ssl_common.progress import Progress
from ssl_common.ranks import devices
from ssl_common.streams import DataError
from ssl_common.training import checkpoints

BATCH = 64  # pictures that the network sees at a time
TIE = 1e-5  # by which the authors lower the scores of positives, so that a tie is none
# What a record calls a setting, or that it has from elsewhere: from the network, or the test.
CALLED = {"seed": "finetune_seed", "images": "train_images", "data": "train_manifest"}
CALLED |= {"labels": "train_labels"}
ELSEWHERE = {"task", "arch", "pretext", "classes", "model", "data_name", "crops"}
ELSEWHERE |= {size.field for size in tasks.PRETEXT_SIZES}


class Crops(SequentialImages):
    """COUNT crops of SIZE of each image of IMAGES, uint8 COUNT x 3 x SIZE x SIZE, in order.

    They lie at random, by SEED and line; of one, the middle.
    """

    def __init__(
        self, images: Manifest, root: str, size: int, warp: bool, count: int, seed: int
    ) -> None:
        super().__init__(images, root, torch.Tensor.contiguous)
        self.size, self.warp, self.count, self.seed = size, warp, count, seed

    def __getitem__(self, index: int) -> torch.Tensor:
        image = self.read(index)
        where: Sequence[Any] = [None]
        if self.count > 1:
            where = draws(self.seed, range(self.count), [index] * self.count, 2).tolist()
        crops = [augmentation.side_crop(image, self.size, self.warp, each) for each in where]
        return torch.stack(crops).permute(0, 3, 1, 2).contiguous()


def evaluate(
    model: str,
    manifest: str,
    tags: dict[str, str],
    root: str,
    device: str | None,
    workers: int,
    progress: Progress,
    crops: int | None = None,
    seed: int = 0,
    kept: bool = False,
    allow_seen: bool = False,
) -> dict[str, Any]:
    """Return the record of MODEL, of finetune, on MANIFEST, without provenance.

    The scores of CROPS crops, drawn from SEED, are summed, by default as many as its recipe says.
    With KEPT the checkpoints of its epochs are measured too, and the best stands beside the last.
    Raises DataError for another file, for images it was trained on unless ALLOW_SEEN, and for
    labels that do not fit.
    """
    content = networks.load_tuned(model)
    settings, classes = content["settings"], content["classes"]
    images, count = Manifest(manifest), crops or settings["crops"]
    _loss, _classes, labels = read_labels(images, settings["loss"], classes)
    seen = identity.unseen(images, root, content, model, allow_seen)
    common = _common(content, model, images, tags) | seen
    common |= {"crops": count} | ({"crop_seed": seed} if count > 1 else {})
    if labels.ndim == 2:
        named = {name for row in images for name in (*row.labels, *row.difficult)}
        common["unseen"] = sorted(named - {*classes}, key=str.encode)
    others = _others(model, settings) if kept else {}
    here = torch.device(devices.choose(device, 1, False))
    trunk = registry.restored(settings, content["trunk"], model)
    recipe = replace(RESNET, head=settings["head"], fc=settings.get("fc"))
    network = tuned(trunk, recipe, len(classes))
    network.to(here).to(memory_format=torch.channels_last).eval()
    dataset = Crops(images, root, trunk.input_size, settings["warp"], count, seed)
    done = itertools.count(1)
    total = len(images) * (1 + len(others))

    def value(source: str, state: dict[str, Any]) -> dict[str, Any]:
        """Return the figures of the network with the weights STATE, of the file SOURCE."""
        states.fill(network, state, source, f"{settings['arch']} for {len(classes)} classes")
        scores = np.empty((len(images), len(classes)))
        for line, row in enumerate(_scores(network, dataset, here, workers)):
            scores[line] = row
            progress(next(done), total)
        if not np.isfinite(scores).all():
            raise DataError(f"{source}: it gives no finite numbers: train it again")
        return figures(scores, labels, classes)

    parts = ((part, content[part].items()) for part in ("trunk", "head"))
    last = value(model, {f"{part}.{name}": each for part, pairs in parts for name, each in pairs})
    found = common | last
    if kept:
        by_step = {settings["steps"]: last["value"]}
        for step, path in others.items():
            state = networks.load_checkpoint(path, "finetune")["network"]
            by_step[step] = value(path, state)["value"]
        best = max(sorted(by_step), key=by_step.__getitem__)  # the first of equals
        found |= {"best_on_test": by_step[best], "best_step": best, "compared": len(by_step)}
    return found


def figures(scores: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Return the fields that SCORES (N, C) of CLASSES give for LABELS, in percent.

    For LABELS of each class, int8 (N, C): the mean average precision by scikit-learn's rule, from
    scores that are 1e-5 lower where the label is positive, as the authors have it; beside it by
    area and by 11 points. A class without positives has none. For the one label of each image,
    int32 (N,): top-1 and top-5.
    """
    if labels.ndim == 1:
        place, count = places(scores, labels), np.bincount(labels, minlength=len(classes))
        right = np.bincount(labels, place == 0, len(classes))
        shares = [100 * float(r / n) if n else None for r, n in zip(right, count, strict=True)]
        top_1, top_5 = (100 * float((place < most).mean()) for most in (1, 5))
        return {
            "metric": tasks.TOP_1.name, "value": top_1, "top_5": top_5, "classes": len(classes),
            "per_class": dict(zip(classes, shares, strict=True)),
        }  # fmt: skip
    by_rule: dict[str, list[float]] = {"steps": [], "envelope": [], "eleven": []}
    for column, label in zip(scores.T, labels.T, strict=True):
        known = label != DIFFICULT
        shown = label[known] == POSITIVE
        for rule, values in by_rule.items():
            ranked = column[known] - TIE * shown if rule == "steps" else column[known]
            values.append(100 * average_precision(ranked, shown, rule))  # type: ignore[call-overload]
    means = {rule: float(np.nanmean(values)) for rule, values in by_rule.items()}
    per_class = [None if np.isnan(each) else each for each in by_rule["steps"]]
    return {
        "metric": tasks.MAP_STEPS.name, "value": means["steps"], "map_area": means["envelope"],
        "map_11_point": means["eleven"], "per_class": dict(zip(classes, per_class, strict=True)),
        "classes": sum(each is not None for each in per_class),
    }  # fmt: skip


def summary(record: Record) -> str:
    """Return what eval-finetune says of its RECORD."""
    text = f"{record['value']:.2f} {record['metric']}"
    if "map_area" in record:
        text += f", {record['map_area']:.2f} by area, {record['map_11_point']:.2f} of 11 points"
        text += f", over {record['classes']} of {len(record['per_class'])} classes"
    else:
        text += f", top-5 {record['top_5']:.2f}"
    text += f", {record['test_images']:,} images"
    if "best_on_test" in record:
        text += f"; best on them {record['best_on_test']:.2f}, at step {record['best_step']:,}"
    if record.get("unseen"):
        text += f"; not trained: {', '.join(record['unseen'])}"
    return text


def _scores(
    network: Tuned, dataset: Crops, device: torch.device, workers: int
) -> Iterator[np.ndarray]:
    """Yield the scores (C,) that NETWORK gives each image of DATASET, summed over its crops."""
    images = max(1, BATCH // dataset.count)
    order = BatchSampler(SequentialSampler(dataset), images, drop_last=False)
    with contextlib.closing(batches(dataset, order, workers, device.type == "cuda")) as loaded:
        for crops in loaded:
            pixels = network.trunk.prepare(crops.flatten(0, 1).to(device, non_blocking=True))
            with torch.inference_mode():
                logits = network(pixels.contiguous(memory_format=torch.channels_last))
            yield from logits.double().unflatten(0, (len(crops), -1)).sum(1).cpu().numpy()


def _others(model: str, settings: dict[str, Any]) -> dict[int, str]:
    """Return {step: checkpoint} of the run that wrote MODEL with SETTINGS, in their order.

    Raises DataError where there is none, and for one of another run.
    """
    found = {step: path for path, step in checkpoints.saved(f"{model}.state").items()}
    if not found:
        message = "no checkpoint is there: train with finetune --keep-epochs, or leave out --kept"
        raise DataError(f"{model}.state: {message}")
    for path in found.values():
        if networks.load_checkpoint(path, "finetune")["settings"] != settings:
            raise DataError(f"{path}: of another run than {model}: move it away")
    return found


def _common(
    content: dict[str, Any], model: str, images: Manifest, tags: dict[str, str]
) -> dict[str, Any]:
    """Return what the record of MODEL, with CONTENT, says besides its figures, with TAGS."""
    settings = content["settings"].items()
    said = {key: value for key, value in content["about"].items() if key != "format"} | {
        "task": tasks.FINETUNE.name,
        "data_set": records.data_set(images.path, tags),
        **{CALLED.get(key, key): value for key, value in settings if key not in ELSEWHERE},
        "test_images": len(images),
        "test_manifest": images.digest(),
        "inputs": {"model": streams.file_digest(model), "manifest": images.digest_of_rows()},
    }
    return records.tagged(said, tags, model)
