"""Features of images: layers of a frozen trunk, averaged to about 9,000 numbers (protocol 3)."""

import contextlib
import math

import numpy as np
import torch
from PIL import Image
from torch.utils.data import BatchSampler, SequentialSampler

from ssl_common import records, streams
from ssl_common.data.images import resize_short
from ssl_common.data.loading import InOrder, batches
from ssl_common.models import registry, weights
from ssl_common.pretext.color import READERS
from ssl_common.streams import DataError
from ssl_common.training import checkpoints

SHORT_SIDE = 256  # pixels, before the image is warped to the network's input size
RANDOM, TORCHVISION = "random:", "torchvision:"
OF_THE_MODEL = ("arch", "pretext", "seed", "permutations", "neighbors", "images")
OF_THE_MODEL += ("data", "data_name")


class Warp:
    """Turn an RGB image into uint8 3 x SIZE x SIZE: short side 256, then warped, not cropped."""

    def __init__(self, size):
        self.size = size

    def __call__(self, image):
        image = resize_short(image, SHORT_SIDE)
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def network(model, seed):
    """Return (trunk, settings) of MODEL, a word of the command line.

    random:ARCH is untrained and drawn from SEED; torchvision:ARCH:FILE has the weights of a state
    dict, "left_out" in its settings names what is not of the trunk; else it is a file of pretrain.
    Raises DataError for a model that does not exist.
    """
    if model.startswith(RANDOM):
        settings = {"arch": model.removeprefix(RANDOM), "pretext": "random", "seed": seed}
        return registry.build(settings["arch"], seed), settings
    if model.startswith(TORCHVISION):
        arch, _colon, path = model.removeprefix(TORCHVISION).partition(":")
        trunk, left_out = weights.torchvision(arch, path)
        return trunk, {"arch": arch, "pretext": "supervised", "left_out": left_out}
    content = checkpoints.load_network(model)
    settings = content["settings"]
    trunk = registry.build(settings["arch"], 0, settings.get("reads", "rgb"))
    trunk.load_state_dict(content["trunk"])
    return trunk, settings


class Layers:
    """The layers NAMES, or all, of MODEL as network() takes it.

    `shapes` is {layer: what it gives for an image, channels x height x width}, in the order of the
    network. Raises DataError for a model or layer that does not exist.
    """

    def __init__(self, model, names, seed):
        self.trunk, settings = network(model, seed)
        for name in names:
            if name not in self.trunk.pooling:
                there = ", ".join(self.trunk.pooling)
                raise DataError(f"{model} has no layer {name}: it has {there}")
        self.names = [name for name in self.trunk.pooling if name in names or not names]
        self.trunk.eval().to(memory_format=torch.channels_last)
        size = self.trunk.input_size
        found = self(torch.zeros(1, 3, size, size, dtype=torch.uint8))
        self.shapes = {name: tuple(features.shape[1:]) for name, features in found.items()}
        self.of_the_model = {"format": 1, "model": registry.weights_digest(self.trunk)}
        self.of_the_model |= {key: settings.get(key) for key in OF_THE_MODEL}
        self.left_out = settings.get("left_out")

    @torch.inference_mode()
    def __call__(self, pixels):
        """Return {layer: features} of uint8 PIXELS (N x 3 x H x W), float32 N x its shape."""
        images = READERS[self.trunk.reads](pixels).contiguous(memory_format=torch.channels_last)
        maps = registry.maps(self.trunk, images, self.names)
        return {name: registry.pooled(self.trunk, name, found) for name, found in maps.items()}


def extract(layers, manifest, output, root, batch, device, workers, progress):
    """Write the features of LAYERS for the images of MANIFEST to OUTPUT in one pass; see records.

    Each layer is a .npy of float32 (N, D). Returns what was written, in words. Raises DataError
    naming the line of an image that cannot be read.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    layers.trunk.to(device)
    images = InOrder(manifest, root, Warp(layers.trunk.input_size))
    order = BatchSampler(SequentialSampler(images), batch, drop_last=False)
    widths = {name: math.prod(shape) for name, shape in layers.shapes.items()}
    said = {"manifest": manifest.digest()}
    fields = {
        name: layers.of_the_model | {"layer": name, "shape": shape} | said
        for name, shape in layers.shapes.items()
    }
    done = 0
    with (
        records.writing_features(output, fields) as files,
        contextlib.closing(batches(images, order, workers, device == "cuda")) as loaded,
    ):
        for stream, width in zip(files, widths.values(), strict=True):
            streams.write_array_header(stream, np.float32, (len(manifest), width))
        for pixels in loaded:
            found = layers(pixels.to(device, non_blocking=True))
            for stream, features in zip(files, found.values(), strict=True):
                rows = features.flatten(1).cpu().numpy()
                stream.write(np.ascontiguousarray(rows, "<f4").data)
            done += len(pixels)
            progress(done, len(manifest))
    written = ", ".join(f"{name} {width:,}" for name, width in widths.items())
    left = f"; left out {', '.join(layers.left_out)}" if layers.left_out else ""
    return f"{len(manifest):,} images, features: {written}{left}"
