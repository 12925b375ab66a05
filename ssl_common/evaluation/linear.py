"""Linear classifiers on every layer of a frozen trunk, all trained at once (protocol 4.3).

Task 3 of the paper: Places205, ImageNet, or any images with one class each.
"""

import contextlib
import math
import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import BatchSampler, SequentialSampler

from ssl_common import records, streams
from ssl_common.data import augmentation, identity
from ssl_common.data.batches import batches
from ssl_common.data.datasets import RandomCrops, SequentialImages
from ssl_common.data.identity import Images
from ssl_common.data.manifest import Manifest, single_labels
from ssl_common.evaluation import features
from ssl_common.evaluation.cache import BATCH, Cache, Cached
from ssl_common.evaluation.metrics import places
from ssl_common.models import networks, registry, states
from ssl_common.processes import Stopped
from ssl_common.streams import DataError
from ssl_common.training import recipes, torchrun
from ssl_common.training.checkpoints import FEATURES
from ssl_common.training.driving import drive
from ssl_common.training.memory import available

# Where in its draws an image finds its own: crop (10 tries of 5), mirror, colour, order, light.
CROP, FLIP, JITTER, ORDER, LIGHT = slice(0, 50), 50, slice(51, 54), 54, slice(55, 58)
MUCH = 1e9  # bytes of memory that are told before they are taken
FORGOTTEN = 10  # what batch norm keeps is to forget its start by e**-10 in a run, however short
OF_A_LAYER = ("layer", "shape")  # fields of a record
# What a record calls a setting, or that it has from elsewhere: from the network, or each layer.
CALLED = {"seed": "linear_seed", "images": "train_images", "data": "train_manifest"}
CALLED |= {"labels": "train_labels"}
ELSEWHERE = ("task", "arch", "layers", "classes", "model", "data_name")


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
        return augmentation.side_crop(image, size, self.settings["warp"], where)

    def augmented(self, pixels, drawn):
        """Return uint8 PIXELS (N x S x S x 3) as N x 3 x S x S, 0 to 255, as they are shown."""
        pixels = pixels.permute(0, 3, 1, 2)
        drawn = torch.from_numpy(drawn).to(pixels.device, non_blocking=True)
        if self.settings["flip"]:
            mirrored = (drawn[:, FLIP] < 0.5).view(-1, 1, 1, 1)
            pixels = torch.where(mirrored, pixels.flip(3), pixels)
        if strength := self.settings["jitter"]:
            pixels = augmentation.jitter(pixels, drawn[:, JITTER], drawn[:, ORDER], strength)
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


def train(*, model, layers, recipe, name, cache, root, caching, **driving):
    """Train heads on LAYERS, or all, of MODEL, as features.Layers takes them, as drive() does.

    RECIPE is what recipes.resolve_linear() takes besides the images and its NAME, by default that
    of the network. With CACHE images are shown without any change, and the trunk sees each once;
    CACHING(done, total) is told of it. DRIVING is as drive() takes it.
    """

    def make(images, options):
        frozen = features.Layers(model, layers, options["seed"])
        return _Training(frozen, images, recipe, name, options, cache, root, caching)

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
        _check_batch_norm(layers.shapes, resolved)
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

    def foretell(self, device):
        """Return a line on the memory this takes of DEVICE, where it is much; refuse too much."""
        return memory_in_words(self.layers.shapes, len(self.classes), available(device))

    def network(self):
        with registry.seeded(self.settings["seed"]):
            momentum, affine = self.settings["bn_momentum"], self.settings["bn_affine"]
            return Heads(self.layers.shapes.values(), len(self.classes), momentum, affine)

    def dataset(self, folder, device, workers, stopping):
        self.layers.trunk.to(device)
        if not self.settings["cache"]:
            return RandomCrops(self.images, self.root, self.task, self.settings["seed"]), workers
        cache = self._cache(folder)
        if not torchrun.of_the_first(cache.there):

            def progress(done, total):
                self.caching(done, total)
                if stopping():
                    raise Stopped

            transform = Shown(self.layers.trunk.input_size, self.settings["warp"])
            how = {"root": self.root, "workers": workers, "progress": progress}
            try:
                cache.make(transform, device, **how)
            except Stopped:
                return None
        return Cached(cache), 0  # processes would but copy the rows

    def _cache(self, folder):
        shown = {"warp": self.settings["warp"], "crop": "center"}
        return Cache(os.path.join(folder, FEATURES), self.layers, self.images, shown)

    def tidy(self, folder):
        if self.settings["cache"]:
            self._cache(folder).remove()

    def finished(self, state):
        digest = registry.weights_digest(self.layers.trunk)
        if digest != self.settings["model"]:
            raise AssertionError("the trunk changed while its classifiers were trained")
        frozen = {key: value.cpu() for key, value in self.layers.trunk.state_dict().items()}
        known = Images(identity.paths(self.images), identity.places(self.images, self.root))
        known = {name: torch.from_numpy(a.view(np.int64)) for name, a in known.arrays().items()}
        shapes = [list(shape) for shape in self.layers.shapes.values()]
        return {
            "frozen": frozen, "heads": state, "classes": self.classes, "shapes": shapes,
            "about": self.layers.of_the_model, **known,
        }  # fmt: skip


def _check_batch_norm(shapes, settings):
    """Raise DataError where batch norm would see one number a channel: it has no variance."""
    images = settings["micro_batch"] * settings["synced_ranks"]
    for name, (_channels, height, width) in shapes.items():
        if images * height * width < 2:
            batch = f"--batch {settings['batch']} is cut into pieces of 1 image"
            message = f"{batch}, and batch norm of {name} ({height} x {width}) needs 2"
            raise DataError(f"{message}: raise --batch, or lower --gpus or --accumulate")


def memory(shapes, classes):
    """Return {layer: bytes} that its classifier takes in training, for SHAPES and so many CLASSES.

    They are three times its weights, float32: with their gradient and their momentum.
    """
    return {name: 3 * 4 * classes * (math.prod(shape) + 1) for name, shape in shapes.items()}


def memory_in_words(shapes, classes, free):
    """Return a line on memory() where that is much, None where it is not; FREE are the bytes there.

    Raises DataError where it cannot be had, with the layers to leave out: the first, whose
    classifiers are the worst.
    """
    needed = memory(shapes, classes)
    whole = sum(needed.values())
    if whole < MUCH:
        return None
    each = ", ".join(f"{name} {_gigabytes(size)}" for name, size in needed.items())
    said = f"the classifiers of {classes:,} classes take {_gigabytes(whole)} GB of memory for"
    said += f" weights, gradients and momentum ({each})"
    if whole <= free:
        return f"{said}: less with fewer --layer"
    rest, left_out = dict(needed), []
    while rest and sum(rest.values()) > free:
        left_out.append(next(iter(rest)))
        del rest[left_out[-1]]
    advice = f"leave out {', '.join(left_out)}: --layer names the others"
    advice = advice if rest else "no layer fits; take a machine with more, or fewer classes"
    raise DataError(f"{said}, and {_gigabytes(free)} are free: {advice}")


def _gigabytes(size):
    return f"{size / 1e9:.1f}"


class Shown:
    """Turn uint8 H x W x 3 into 3 x SIZE x SIZE: its middle, as augmentation.side_crop() does."""

    def __init__(self, size, warp):
        self.size, self.warp = size, warp

    def __call__(self, image):
        return augmentation.side_crop(image, self.size, self.warp).permute(2, 0, 1)


# ---- Testing ------------------------------------------------------------------------------------


def evaluate(model, manifest, tags, root, device, workers, progress, allow_seen=False):
    """Return a record for each layer of MODEL, of train-linear, less its provenance.

    The share of the images of MANIFEST whose class is the first, or among the first five, that the
    heads name for the middle of the image. Raises DataError for another file, for images it was
    trained on unless ALLOW_SEEN, and for what single_labels() refuses.
    """
    content = networks.load_linear(model)
    settings, classes = content["settings"], content["classes"]
    images = Manifest(manifest)
    _classes, labels = single_labels(images, classes)
    ours = Images(identity.paths(images), identity.places(images, root))
    trained = (content.get(name) for name in ("paths", "places"))
    trained = Images(*(each if each is None else each.numpy().view(np.uint64) for each in trained))
    seen = identity.check_unseen(images, ours, trained, model, allow_seen)
    common = _said(content, model, images, tags) | seen
    device = torch.device(torchrun.chosen(device, 1, False))
    trunk = registry.restored(settings, content["frozen"], model)
    if registry.weights_digest(trunk) != settings["model"]:
        changed = "its network takes images otherwise than it did, or is damaged"
        raise DataError(f"{model}: {changed}: train its classifiers again")
    heads = Heads(content["shapes"], len(classes), settings["bn_momentum"], settings["bn_affine"])
    states.fill(heads, content["heads"], model, f"classifiers on {settings['arch']}")
    for network in (trunk, heads):
        network.to(device, memory_format=torch.channels_last).eval()
    dataset = SequentialImages(images, root, Shown(trunk.input_size, settings["warp"]))
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
        if key in OF_A_LAYER:
            raise DataError(f"--tag {key}={tags[key]}: {model} has one for each layer")
    return records.tagged(said, tags, model)
