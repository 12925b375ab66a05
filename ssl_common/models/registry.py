"""Networks by name.

A trunk is an nn.Sequential of named layers with `pooling` and `input_size`, or a Backbone.
"""

import contextlib

import torch
from torch.nn import functional

from ssl_common import streams
from ssl_common.models.alexnet import AlexNet, AlexNetLab
from ssl_common.models.backbones import Backbone
from ssl_common.models.caffenet import CaffeNet
from ssl_common.models.resnet import ResNet50, ResNet50Lab

TRUNKS = {
    "alexnet": AlexNet,
    "alexnet-lab": AlexNetLab,
    "caffenet": CaffeNet,
    "resnet50": ResNet50,
    "resnet50-lab": ResNet50Lab,
}


def build(arch, seed, reads="rgb"):
    """Return the untrained trunk ARCH, in its form that READS "rgb" or "lab", drawn from SEED.

    What is none of TRUNKS is a network of torchvision. Raises DataError where that has none either.
    """
    arch = arch if reads == "rgb" else f"{arch}-{reads}"
    with seeded(seed):
        return TRUNKS[arch]() if arch in TRUNKS else Backbone(arch)


def trainable():
    """Return the names of the trunks that can be trained: they come in a form for each pretext."""
    return [arch for arch in TRUNKS if f"{arch}-lab" in TRUNKS]


def name_of(trunk):
    """Return the name by which build() makes a trunk like TRUNK."""
    if isinstance(trunk, Backbone):
        return trunk.arch
    return next(name for name, kind in TRUNKS.items() if type(trunk) is kind)


@contextlib.contextmanager
def seeded(seed):
    """Draw weights from SEED, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def maps(trunk, images, layers):
    """Return {layer: its map after the ReLU} of IMAGES (N x 3 x H x W); stop at the last asked."""
    if isinstance(trunk, Backbone):
        return trunk.maps(images, layers)
    found = {}
    for name, stage in trunk.named_children():
        images = stage(images)
        if name in layers:
            # Inplace ReLUs of later stages work on their own convolution's output, never on this.
            found[name] = images
        if len(found) == len(layers):
            break
    return found


def pooled(trunk, layer, feature_map):
    """Return FEATURE_MAP of LAYER averaged to about 9,000 features, N x C x h x w (protocol 3)."""
    if isinstance(trunk, Backbone):
        return functional.adaptive_avg_pool2d(feature_map, trunk.pooling[layer])
    kernel, stride, padding = trunk.pooling[layer]
    # Caffe2 leaves the padding out of the average.
    return functional.avg_pool2d(feature_map, kernel, stride, padding, count_include_pad=False)


def weights_digest(trunk):
    """Return the digest of a trunk's names and weights: the identity of a model."""
    state = trunk.state_dict()
    return streams.digest(
        piece
        for name, tensor in state.items()
        for piece in (name.encode(), tensor.cpu().contiguous().numpy().tobytes())
    )
