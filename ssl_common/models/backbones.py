"""Any classification network of torchvision, its stages as the layers that features come from."""

import math
import re

import torch
from torch import nn

from ssl_common.streams import DataError

FEATURES = 9_600  # of a layer at most: the widest of the paper's own
HEADS = ("fc", "classifier", "head", "heads")
# What a stage is called: ResNet, RegNet, ShuffleNet, Inception, and those that number features.
STAGE = re.compile(
    r"relu|layer\d|stem|trunk_output\.block\d|features\.\w+|blocks\.\d+|layers\.\d+|stage\d"
    r"|conv\d|maxpool\d?|inception\w+|Conv2d_\w+|Mixed_\w+|encoder\.layers\.encoder_layer_\d+"
)
# torchvision sets the channels of these two to other means and deviations, those of TensorFlow,
# whenever it loads weights of its own, and in no other case.
TURNED = ("googlenet", "inception_v3")
OF_TURNED = {"aux_logits": False, "init_weights": True, "transform_input": True}


def weights_of(arch):
    """Return torchvision's weights of its network ARCH, an enum: how each takes its images."""
    from torchvision import models

    if arch not in models.list_models(module=models):
        own = "alexnet, caffenet and resnet50 of ours"
        raise DataError(f"{arch}: no such network: there are {own} and those of torchvision")
    return models.get_model_weights(arch)


def named(name):
    """Return (arch, weights) of torchvision that NAME, ARCH or ARCH-WEIGHTS, stands for."""
    arch, _dash, wanted = name.partition("-")
    known = weights_of(arch)
    if wanted and wanted not in known.__members__:
        raise DataError(f"{name}: no such weights: there are {', '.join(known.__members__)}")
    return arch, known[wanted or "DEFAULT"]


def how(weights):
    """Return how a network with WEIGHTS of torchvision takes its images: (size, mean, deviation).

    What its file does not hold. The mean and deviation are those of channels from 0 to 1.
    """
    preset = weights.transforms()
    return preset.crop_size[0], tuple(preset.mean), tuple(preset.std)


def recognised(arch, digest):
    """Return the name of the weights of ARCH in torchvision's own file with the SHA-256 DIGEST.

    None for any other file. The names of its files end with the first digits of their digest.
    """
    for weights in weights_of(arch):
        if digest.startswith(re.search(r"-([0-9a-f]{8,})\.pth$", weights.url)[1]):
            return weights.name
    return None


def of_patches(arch, values):
    """Return the name of weights of ARCH with as many patches as VALUES, {name: tensor}, have.

    None for what is no vision transformer, and where torchvision has no weights of that size.
    """
    ends = ("encoder.pos_embedding", "conv_proj.weight")
    found = [value for end in ends for name, value in values.items() if name.endswith(end)]
    if len(found) != 2 or [getattr(value, "ndim", 0) for value in found] != [3, 4]:
        return None
    side = math.isqrt(found[0].shape[1]) * found[1].shape[-1]  # pixels; the class token is one more
    return next((known.name for known in weights_of(arch) if how(known)[0] == side), None)


class Backbone(nn.Module):
    """torchvision's network NAME without its head: ARCH, or ARCH-WEIGHTS.

    WEIGHTS is the name of some of torchvision's, by default its DEFAULT: an image is given in their
    size, mean and deviation. `arch` is NAME, without WEIGHTS that make no difference; `input` is
    how it takes images: size, mean, deviation, and whether it turns them to TensorFlow's itself.

    The layers are the last stage at each size of the map, and every block of a vision transformer,
    whose map is its patches. Each is averaged over the largest square grid that gives no more than
    FEATURES numbers, or is taken as it is where it has fewer places.
    """

    reads = "rgb"

    def __init__(self, name):
        super().__init__()
        from torchvision import models

        arch, weights = named(name)
        known = weights_of(arch)
        self.arch = arch if how(weights) == how(known.DEFAULT) else f"{arch}-{weights.name}"
        self.input_size, self.mean, self.deviation = how(weights)
        self.input = (*how(weights), arch in TURNED)
        options = {"image_size": self.input_size} if arch.startswith("vit_") else {}
        options = OF_TURNED if arch in TURNED else options
        self.network = models.get_model(arch, weights=None, **options)
        for head in HEADS:
            if hasattr(self.network, head):
                setattr(self.network, head, nn.Identity())
        self.pooling = self._grids()

    @torch.no_grad()
    def _grids(self):
        """Return {layer: places along a side of its grid}, from a pass through the network."""
        names = [name for name, _module in self.network.named_modules() if STAGE.fullmatch(name)]
        training = self.training
        found = self.eval().maps(torch.zeros(1, 3, self.input_size, self.input_size), names)
        self.train(training)
        last = {
            m.shape[-1] if "encoder_layer" not in name else name: name for name, m in found.items()
        }
        shapes = {name: found[name].shape[1:] for name in found if name in last.values()}
        return {
            name: min(max(1, math.isqrt(FEATURES // channels)), side)
            for name, (channels, side, _side) in shapes.items()
            if side > 1
        }

    def maps(self, images, layers):
        """Return {layer: its map, N x C x H x W} of IMAGES, in the order of the network."""
        found, hooks = {}, []
        for name in layers:

            def keep(_module, _inputs, output, name=name):
                found[name] = _map(output).clone()  # DenseNet's next step works in place

            hooks.append(self.network.get_submodule(name).register_forward_hook(keep))
        try:
            self.network(images)
        finally:
            for hook in hooks:
                hook.remove()
        return found


def _map(output):
    """Return OUTPUT, N x (1 + patches) x C or a map with its channels last, as N x C x H x W."""
    if output.dim() == 3:
        patches = output[:, 1:]  # the first is the class token
        side = int(patches.shape[1] ** 0.5)
        return patches.transpose(1, 2).unflatten(2, (side, side))
    if output.shape[1] == output.shape[2] != output.shape[3]:
        return output.permute(0, 3, 1, 2)
    return output
