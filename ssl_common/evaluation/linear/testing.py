"""Testing of linear classifiers: a record for each layer."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, SequentialSampler

from ssl_common import records, streams, tasks
from ssl_common.data import identity
from ssl_common.data.batches import batches
from ssl_common.data.datasets import SequentialImages
from ssl_common.data.manifest import Manifest, single_labels
from ssl_common.evaluation.linear.cache import BATCH
from ssl_common.evaluation.linear.heads import Heads, Shown, read
from ssl_common.evaluation.metrics import places
from ssl_common.models import networks, registry, states
from ssl_common.progress import Progress
from ssl_common.ranks import devices
from ssl_common.streams import DataError

# What a record calls a setting, or that it has from elsewhere: from the network, or each layer.
CALLED = {"seed": "linear_seed", "images": "train_images", "data": "train_manifest"}
CALLED |= {"labels": "train_labels"}
ELSEWHERE = ("task", "arch", "layers", "classes", "model", "data_name")


def evaluate(
    model: str,
    manifest: str,
    tags: dict[str, str],
    root: str,
    device: str | None,
    workers: int,
    progress: Progress,
    allow_seen: bool = False,
) -> Iterator[dict[str, Any]]:
    """Return a record for each layer of MODEL, of train-linear, without provenance.

    The share of the images of MANIFEST whose class is the first, or among the first five, that the
    heads name for the middle of the image. Raises DataError for another file, for images it was
    trained on unless ALLOW_SEEN, and for what single_labels() refuses.
    """
    content = networks.load_linear(model)
    settings, classes = content["settings"], content["classes"]
    images = Manifest(manifest)
    _classes, labels = single_labels(images, classes)
    seen = identity.unseen(images, root, content, model, allow_seen)
    common = _common(content, model, images, tags) | seen
    here = torch.device(devices.choose(device, 1, False))
    trunk = registry.unchanged(content, model, "train its classifiers again")
    heads = Heads(content["shapes"], len(classes), settings["bn_momentum"], settings["bn_affine"])
    states.fill(heads, content["heads"], model, f"classifiers on {settings['arch']}")
    for network in (trunk, heads):
        network.to(here).to(memory_format=torch.channels_last).eval()
    dataset = SequentialImages(images, root, Shown(trunk.input_size, settings["warp"]))
    order = BatchSampler(SequentialSampler(dataset), BATCH, drop_last=False)
    ranks = np.empty((len(settings["layers"]), len(images)), np.int32)
    done = 0
    with contextlib.closing(batches(dataset, order, workers, here.type == "cuda")) as loaded:
        for pixels in loaded:
            rows = slice(done, done + len(pixels))
            done = rows.stop
            maps = read(trunk, settings["layers"], pixels.to(here, non_blocking=True))
            with torch.inference_mode():
                logits = torch.stack(heads(maps)).float().cpu().numpy()  # layers x N x classes
            if not np.isfinite(logits).all():
                raise DataError(f"{model}: its classifiers give no finite numbers: train it again")
            ranks[:, rows] = [places(each, labels[rows]) for each in logits]
            progress(done, len(images))
    counts = np.bincount(labels, minlength=len(classes))
    for layer, shape, place in zip(settings["layers"], content["shapes"], ranks, strict=True):
        right = np.bincount(labels, place == 0, len(classes))
        per_class = {
            name: 100 * float(r / n) if n else None
            for name, r, n in zip(classes, right, counts, strict=True)
        }
        yield common | {
            "layer": layer,
            "shape": shape,
            "value": 100 * float((place < 1).mean()),
            "top_5": 100 * float((place < 5).mean()),
            "per_class": per_class,
        }


def _common(
    content: dict[str, Any], model: str, images: Manifest, tags: dict[str, str]
) -> dict[str, Any]:
    """Return the fields that all records of MODEL, with CONTENT, share on IMAGES, with TAGS."""
    settings = content["settings"].items()
    said = {key: value for key, value in content["about"].items() if key != "format"} | {
        "task": "linear",
        "data_set": records.data_set(images.path, tags),
        "metric": "top-1",
        "classes": len(content["classes"]),
        **{CALLED.get(key, key): value for key, value in settings if key not in ELSEWHERE},
        "test_images": len(images),
        "test_manifest": images.digest(),
        "inputs": {"model": streams.file_digest(model), "manifest": images.digest_of_rows()},
    }
    for key in tags:
        if key in tasks.LAYER:
            raise DataError(f"--tag {key}={tags[key]}: {model} has one for each layer")
    return records.tagged(said, tags, model)
