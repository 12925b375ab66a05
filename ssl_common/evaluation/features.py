"""Features of images: one layer of a frozen trunk, averaged to about 9,000 numbers (protocol 3)."""

import numpy as np
import torch
from PIL import Image
from torch.utils.data import BatchSampler, SequentialSampler

from ssl_common import streams
from ssl_common.data.images import resize_short
from ssl_common.data.loading import InOrder, batches, standardize
from ssl_common.models import registry
from ssl_common.streams import DataError
from ssl_common.training import checkpoints

SHORT_SIDE = 256  # pixels, before the image is warped to the network's input size
RANDOM = "random:"
OF_THE_MODEL = ("arch", "pretext", "seed", "permutations", "images", "data", "data_name")


class Warp:
    """Turn an RGB image into uint8 3 x SIZE x SIZE: short side 256, then warped, not cropped."""

    def __init__(self, size):
        self.size = size

    def __call__(self, image):
        image = resize_short(image, SHORT_SIDE)
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


class Layer:
    """One LAYER of MODEL: a file of pretrain, or random:ARCH, untrained and drawn from SEED.

    `shape` is what it gives for an image, channels x height x width; `fields` says what it is.
    Raises DataError for a model or layer that does not exist.
    """

    def __init__(self, model, name, seed):
        if model.startswith(RANDOM):
            settings = {"arch": model.removeprefix(RANDOM), "pretext": "random", "seed": seed}
            self.trunk = registry.build(settings["arch"], seed)
        else:
            content = checkpoints.load(model)
            settings = content["settings"]
            self.trunk = registry.build(settings["arch"], 0)
            self.trunk.load_state_dict(content["trunk"])
        if name not in self.trunk.pooling:
            raise DataError(f"{model} has no layer {name}: it has {', '.join(self.trunk.pooling)}")
        self.trunk.eval().to(memory_format=torch.channels_last)
        self.name, size = name, self.trunk.input_size
        self.shape = tuple(self(torch.zeros(1, 3, size, size, dtype=torch.uint8)).shape[1:])
        self.fields = {"format": 1, "model": registry.weights_digest(self.trunk)}
        self.fields |= {key: settings.get(key) for key in OF_THE_MODEL}
        self.fields |= {"layer": name, "shape": self.shape}

    @torch.inference_mode()
    def __call__(self, pixels):
        """Return the features of uint8 PIXELS (N x 3 x H x W), float32 N x shape."""
        images = standardize(pixels).contiguous(memory_format=torch.channels_last)
        found = registry.maps(self.trunk, images, [self.name])[self.name]
        return registry.pooled(self.trunk, self.name, found)


def write(stream, layer, manifest, root, batch, device, workers, progress):
    """Write the features of LAYER for the images of MANIFEST to STREAM: .npy, float32 (N, D).

    Returns D. Raises DataError naming the line of an image that cannot be read.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    layer.trunk.to(device)
    width = int(np.prod(layer.shape))
    streams.write_array_header(stream, np.float32, (len(manifest), width))
    images = InOrder(manifest, root, Warp(layer.trunk.input_size))
    order = BatchSampler(SequentialSampler(images), batch, drop_last=False)
    done = 0
    for pixels in batches(images, order, workers):
        rows = layer(pixels.to(device, non_blocking=True)).flatten(1).cpu().numpy()
        stream.write(np.ascontiguousarray(rows, "<f4").data)
        done += len(rows)
        progress(done, len(manifest))
    return width
