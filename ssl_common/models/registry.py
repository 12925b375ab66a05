"""Networks by name.

A trunk is an nn.Sequential of named layers with `pooling` and `input_size`, or a Backbone.
"""

import contextlib
import itertools

import torch
from torch.nn import functional

from ssl_common import streams
from ssl_common.data.pixels import MEAN, STD, standardize
from ssl_common.models import states
from ssl_common.models.alexnet import AlexNet, AlexNetLab
from ssl_common.models.backbones import Backbone
from ssl_common.models.caffenet import CaffeNet
from ssl_common.models.resnet import ResNet50, ResNet50Lab
from ssl_common.pretext.color import READERS
from ssl_common.streams import DataError

TRUNKS = {
    "alexnet": AlexNet,
    "alexnet-lab": AlexNetLab,
    "caffenet": CaffeNet,
    "resnet50": ResNet50,
    "resnet50-lab": ResNet50Lab,
}
THEIRS = "torchvision-"  # before the name of a network of torchvision that is ours as well
USUAL = (224, MEAN, STD, False)  # `input` of most Backbones


def build(arch, seed, reads="rgb"):
    """Return the untrained trunk ARCH, in its form that READS "rgb" or "lab", drawn from SEED.

    What is none of TRUNKS is a network of torchvision, as Backbone takes it; torchvision-alexnet is
    its alexnet. Raises DataError where there is none either.
    """
    arch = arch if reads == "rgb" else f"{arch}-{reads}"
    with seeded(seed):
        return TRUNKS[arch]() if arch in TRUNKS else Backbone(arch.removeprefix(THEIRS))


def restored(settings, state, path):
    """Return the trunk that the SETTINGS of the file PATH name, with the weights STATE.

    Raises DataError for a network that does not exist, and for weights that do not fit it.
    """
    try:
        trunk = build(settings["arch"], 0, settings.get("reads") or "rgb")
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    states.fill(trunk, state, path, settings["arch"])
    return trunk


def trainable():
    """Return the names of the trunks that can be trained: they come in a form for each pretext."""
    return [arch for arch in TRUNKS if f"{arch}-lab" in TRUNKS]


def name_of(trunk):
    """Return the name by which build() makes a trunk like TRUNK."""
    if isinstance(trunk, Backbone):
        return f"{THEIRS}{trunk.arch}" if trunk.arch in TRUNKS else trunk.arch
    return next(name for name, kind in TRUNKS.items() if type(trunk) is kind)


@contextlib.contextmanager
def seeded(seed):
    """Draw weights from SEED, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def seen(trunk, pixels):
    """Return what TRUNK reads of uint8 RGB PIXELS, N x 3 x H x W."""
    if isinstance(trunk, Backbone):
        return standardize(pixels, trunk.mean, trunk.deviation)
    return READERS[trunk.reads](pixels)


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
    """Return FEATURE_MAP of LAYER averaged to about 9,000 features, N x C x h x w."""
    if isinstance(trunk, Backbone):
        return functional.adaptive_avg_pool2d(feature_map, trunk.pooling[layer])
    kernel, stride, padding = trunk.pooling[layer]
    # Caffe2 leaves the padding out of the average.
    return functional.avg_pool2d(feature_map, kernel, stride, padding, count_include_pad=False)


def weights_digest(trunk):
    """Return the digest of a trunk's names and weights: the identity of a model.

    And of how it takes its images, where that is not the usual way.
    """
    pieces = (
        piece
        for name, tensor in trunk.state_dict().items()
        for piece in (name.encode(), tensor.cpu().contiguous().numpy().tobytes())
    )
    unusual = isinstance(trunk, Backbone) and trunk.input != USUAL
    return streams.digest(itertools.chain(pieces, [repr(trunk.input).encode()] if unusual else []))
