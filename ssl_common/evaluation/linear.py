"""Linear classifiers on every layer of a frozen trunk, all trained at once (protocol 4.3).

Task 3 of the paper: Places205, ImageNet, or any images with one class each.
"""

import contextlib
import math
import os
import shutil

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import BatchSampler, Dataset, SequentialSampler

from ssl_common import records, streams
from ssl_common.data import augmentation
from ssl_common.data.loading import Drawn, InOrder, batches
from ssl_common.data.manifest import Manifest, single_labels
from ssl_common.evaluation import features
from ssl_common.evaluation.metrics import places
from ssl_common.models import networks, registry, states
from ssl_common.processes import Stopped
from ssl_common.streams import DataError
from ssl_common.training import recipes, torchrun
from ssl_common.training.driving import drive

# Where in its draws an image finds its own: crop (10 tries of 5), mirror, colour, order, light.
CROP, FLIP, JITTER, ORDER, LIGHT = slice(0, 50), 50, slice(51, 54), 54, slice(55, 58)
FORGOTTEN = 10  # what batch norm keeps is to forget its start by e**-10 in a run, however short
BATCH = 64  # images, where nothing is trained
OF_A_LAYER = ("layer", "shape", "value", "top_5", "per_class")  # fields of a record


class Linear:
    """The task: name the class of an image, by a classifier for each of the layers NAMES of TRUNK.

    LABELS, int32 (N,), are those of the lines of the manifest, below CLASSES; SETTINGS say how an
    image is shown (warp, crop, flip, jitter, lighting). Workers crop; all else is drawn and done
    for a whole batch, where the network is. With SHAPES, {layer: of its features}, what comes for
    pixels is the features themselves.
    """

    draws = LIGHT.stop

    def __init__(self, trunk, names, labels, classes, settings, shapes=None):
        self.trunk, self.names, self.settings, self.shapes = trunk, names, settings, shapes
        self.labels = torch.from_numpy(labels)
        self.chance = len(names) * math.log(classes)

    def crop(self, image, drawn):
        """Return the part of an RGB IMAGE that is shown, as uint8 S x S x 3."""
        size, how = self.trunk.input_size, self.settings["crop"]
        if how == "sized":
            return augmentation.sized_crop(image, size, drawn[CROP].reshape(-1, 5))
        where = drawn[CROP][:2] if how == "random" else None
        return augmentation.shown(image, size, self.settings["warp"], where)

    def augmented(self, pixels, drawn):
        """Return uint8 PIXELS (N x S x S x 3) as N x 3 x S x S, 0 to 255, as they are shown."""
        pixels = pixels.permute(0, 3, 1, 2)
        drawn = torch.from_numpy(drawn).to(pixels.device, non_blocking=True)
        if self.settings["flip"]:
            mirrored = (drawn[:, FLIP] < 0.5).view(-1, 1, 1, 1)
            pixels = torch.where(mirrored, pixels.flip(3), pixels)
        if strength := self.settings["jitter"]:
            pixels = augmentation.jittered(pixels, drawn[:, JITTER], drawn[:, ORDER], strength)
        if deviation := self.settings["lighting"]:
            pixels = pixels + 255 * augmentation.light(drawn[:, LIGHT], deviation)
        return pixels

    def features(self, pixels, drawn):
        """Return the features of each layer, float32 N x C x h x w."""
        if self.shapes:
            parts = pixels.split([math.prod(shape) for shape in self.shapes.values()], 1)
            return [p.unflatten(1, s) for p, s in zip(parts, self.shapes.values(), strict=True)]
        return read(self.trunk, self.names, self.augmented(pixels, drawn))

    def score(self, network, pixels, drawn, lines):
        """Return (sum of the losses, their weight, number right, number) of the heads NETWORK.

        PIXELS is uint8 N x S x S x 3 where the network is, DRAWN float64 (N, draws), LINES those of
        the manifest. A loss is that of an image, summed over the heads; right is a head.
        """
        label = self.labels[lines].long().to(pixels.device)
        logits = network(self.features(pixels, drawn))
        losses = [functional.cross_entropy(x.float(), label, reduction="sum") for x in logits]
        right = sum((each.argmax(1) == label).sum() for each in logits)
        return sum(losses), torch.tensor(float(len(label))), right, len(label) * len(logits)


def read(trunk, names, pixels):
    """Return the features of the layers NAMES of TRUNK, N x C x h x w each; PIXELS as it reads."""
    return list(features.pooled_maps(trunk, features.maps(trunk, names, pixels)).values())


class Heads(nn.Module):
    """A classifier for each of SHAPES, channels x height x width: batch norm, then one product.

    Batch norm is over a channel's places; it has scale and shift only with AFFINE.
    """

    def __init__(self, shapes, classes, momentum, affine):
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(shape[0], momentum=momentum, affine=affine),
                nn.Flatten(),
                nn.Linear(math.prod(shape), classes),
            )
            for shape in shapes
        )
        for _norm, _flatten, product in self.heads:
            nn.init.normal_(product.weight, std=0.01)
            nn.init.zeros_(product.bias)

    def forward(self, features):
        return [head(each) for head, each in zip(self.heads, features, strict=True)]


# ---- Training -----------------------------------------------------------------------------------


def train(*, model, recipe, name, cache, root, caching, **driving):
    """Train the heads of MODEL, as features.network() takes it; return what drive() returns.

    RECIPE is what recipes.resolve_linear() takes besides the images and its NAME, by default that
    of the network. With CACHE images are shown without any change, and the trunk sees each once;
    CACHING(done, total) is told of it. DRIVING is as drive() takes it.
    """

    def make(images, options):
        layers = features.Layers(model, (), options["seed"])
        return _Training(layers, images, recipe, name, options, cache, root, caching)

    return drive(make, [model], batch=recipe["batch"], **driving)


class _Training:
    """The work of drive(): heads on LAYERS for the classes of IMAGES."""

    command = "train-linear"

    def __init__(self, layers, images, recipe, name, options, cache, root, caching):
        self.layers, self.images, self.root, self.caching = layers, images, root, caching
        self.classes, labels = single_labels(images)
        if len(self.classes) < 2:
            raise DataError(
                f"{streams.name(images.path)}: all are {self.classes[0]}: see its labels"
            )
        arch = registry.name_of(layers.trunk)
        name = name or (arch if arch in recipes.LINEAR else "resnet50")
        resolved = recipes.resolve_linear(name, len(images), **recipe) | options
        if cache:
            resolved |= {"crop": "center", "flip": False, "jitter": 0.0, "lighting": 0.0}
        if layers.trunk.reads == "lab" and (resolved["jitter"] or resolved["lighting"]):
            message = f"--recipe {name}: it changes colours, and this network reads whole lightness"
            raise DataError(f"{message}: take --recipe {arch}")
        least = min(1.0, FORGOTTEN / resolved["steps"])
        resolved["bn_momentum"] = max(resolved["bn_momentum"], least)
        self.settings = {"task": "linear", "arch": arch, "layers": layers.names, **resolved}
        self.settings |= {"cache": cache, "classes": len(self.classes)}
        self.settings["model"] = layers.of_the_model["model"]
        self.settings["labels"] = streams.digest(
            "\n".join(self.classes).encode() + labels.tobytes()
        )
        self.task = Linear(
            layers.trunk, layers.names, labels, len(self.classes), self.settings,
            layers.shapes if cache else None,
        )  # fmt: skip

    def network(self):
        with registry.seeded(self.settings["seed"]):
            momentum, affine = self.settings["bn_momentum"], self.settings["bn_affine"]
            return Heads(self.layers.shapes.values(), len(self.classes), momentum, affine)

    def dataset(self, folder, device, workers, stopping):
        self.layers.trunk.to(device)
        if not self.settings["cache"]:
            return Drawn(self.images, self.root, self.task, self.settings["seed"]), workers
        self.cached = os.path.join(folder, "features")
        paths = self._cached(self.cached, device, workers, stopping)
        return paths and (_Cached(self.images, paths), 0)  # mapped: processes would but copy them

    def _cached(self, folder, device, workers, stopping):
        """Return the files of the features, a layer each, made in FOLDER unless they are there.

        None where a signal stopped it, on any rank.
        """
        layers, images = self.layers, self.images
        said = {"manifest": images.digest(), "warp": self.settings["warp"], "crop": "center"}
        fields = {
            name: layers.of_the_model | {"layer": name, "shape": list(shape)} | said
            for name, shape in layers.shapes.items()
        }
        paths = [os.path.join(folder, f"{name}.npy") for name in fields]
        there = zip(paths, fields.values(), strict=True)
        if torchrun.of_the_first(lambda: all(records.read_sidecar(p) == f for p, f in there)):
            return paths

        def progress(done, total):
            self.caching(done, total)
            if stopping():
                raise Stopped

        def reserve():
            os.makedirs(folder, exist_ok=True)
            files = stack.enter_context(records.writing_features(f"{folder}/", fields))
            widths = [math.prod(shape) for shape in layers.shapes.values()]
            return features.begin(files, widths, len(images), "float32", True)

        transform = Shown(layers.trunk.input_size, self.settings["warp"])
        how = {"root": self.root, "batch": BATCH, "dtype": "float32", "workers": workers}
        how |= {"progress": progress}
        try:
            with contextlib.ExitStack() as stack:
                outputs, stopped = features.mapped_all(torchrun.of_the_first(reserve)), False
                try:
                    features.write_rows(layers, images, transform, outputs, device, **how)
                except Stopped:
                    stopped = True
                if any(torchrun.gathered(stopped)):  # here all ranks have written their rows
                    raise Stopped
        except Stopped:
            return None
        torchrun.gathered(None)  # the first has put the files in their place
        return paths

    def finished(self, state):
        digest = registry.weights_digest(self.layers.trunk)
        if digest != self.settings["model"]:
            raise AssertionError("the trunk changed while its classifiers were trained")
        if self.settings["cache"] and torchrun.RANK == 0:
            shutil.rmtree(self.cached)
        frozen = {key: value.cpu() for key, value in self.layers.trunk.state_dict().items()}
        paths = torch.from_numpy(self.images.path_hashes().view(np.int64).copy())
        shapes = [list(shape) for shape in self.layers.shapes.values()]
        return {
            "frozen": frozen, "heads": state, "classes": self.classes, "shapes": shapes,
            "about": self.layers.of_the_model, "paths": paths,
        }  # fmt: skip


class Shown:
    """Turn uint8 H x W x 3 into 3 x SIZE x SIZE: its middle, as augmentation.shown() does."""

    def __init__(self, size, warp):
        self.size, self.warp = size, warp

    def __call__(self, image):
        return augmentation.shown(image, self.size, self.warp).permute(2, 0, 1)


class _Cached(Dataset):
    """The features of MANIFEST in the files PATHS, one row an image, as Drawn gives pixels."""

    def __init__(self, manifest, paths):
        self.manifest, self.arrays = manifest, [streams.read_array(path) for path in paths]

    def prepare(self):
        """Make ready for reading: nothing is to be done."""

    def __getitem__(self, item):
        epoch, index = item
        return 0, epoch, index, np.concatenate([array[index] for array in self.arrays])


# ---- Testing ------------------------------------------------------------------------------------


def evaluate(model, manifest, tags, root, device, workers, progress):
    """Return a record for each layer of MODEL, of train-linear, less its provenance.

    The share of the images of MANIFEST whose class is the first, or among the first five, that the
    heads name for the middle of the image. Raises DataError for another file, for images it was
    trained on, and for what single_labels() refuses.
    """
    content = networks.load(model, "train-linear")
    if "heads" not in content:
        raise DataError(f"{model}: not a file of train-linear: train classifiers on it")
    settings, classes = content["settings"], content["classes"]
    images = Manifest(manifest)
    _classes, labels = single_labels(images, classes)
    images.check_unseen(content["paths"].numpy().view(np.uint64), model)
    common = _said(content, model, images, tags)
    device = torch.device(torchrun.chosen(device, 1, False))
    trunk = registry.restored(settings, content["frozen"], model)
    if registry.weights_digest(trunk) != settings["model"]:
        changed = "its network takes images otherwise than it did, or is damaged"
        raise DataError(f"{model}: {changed}: train its classifiers again")
    heads = Heads(content["shapes"], len(classes), settings["bn_momentum"], settings["bn_affine"])
    states.fill(heads, content["heads"], model, f"classifiers on {settings['arch']}")
    for network in (trunk, heads):
        network.to(device, memory_format=torch.channels_last).eval()
    dataset = InOrder(images, root, Shown(trunk.input_size, settings["warp"]))
    order = BatchSampler(SequentialSampler(dataset), BATCH, drop_last=False)
    found = np.empty((len(settings["layers"]), len(images)), np.int32)
    done = 0
    with contextlib.closing(batches(dataset, order, workers, device.type == "cuda")) as loaded:
        for pixels in loaded:
            rows = slice(done, done + len(pixels))
            done = rows.stop
            maps = read(trunk, settings["layers"], pixels.to(device, non_blocking=True))
            with torch.inference_mode():
                logits = torch.stack(heads(maps)).float().cpu().numpy()  # layers x N x classes
            if not np.isfinite(logits).all():
                raise DataError(f"{model}: its classifiers give no finite numbers: train it again")
            found[:, rows] = [places(each, labels[rows]) for each in logits]
            progress(done, len(images))
    counts = np.bincount(labels, minlength=len(classes))
    for layer, shape, place in zip(settings["layers"], content["shapes"], found, strict=True):
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


def _said(content, model, images, tags):
    """Return what all records of MODEL, which holds CONTENT, say on IMAGES; TAGS add to it."""
    settings = content["settings"]
    said = content["about"] | {
        "task": "linear",
        "data_set": tags.get("data_set", streams.stem(images.path)),
        "metric": "top-1",
        "classes": len(content["classes"]),
        "linear_seed": settings["seed"],
        **{key: settings[key] for key in ("recipe", "steps", "batch", "lr", "cache")},
        "train_images": settings["images"],
        "train_manifest": settings["data"],
        "test_images": len(images),
        "test_manifest": images.digest(),
        "inputs": {"model": streams.file_digest(model), "manifest": images.digest_of_rows()},
    }
    for key in tags:
        if key in OF_A_LAYER:
            raise DataError(f"--tag {key}={tags[key]}: {model} has one for each layer")
    return records.tagged(said, tags, model)
