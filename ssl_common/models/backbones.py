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
PLAIN = {"aux_logits": False, "init_weights": True}
OPTIONS = {"googlenet": PLAIN, "inception_v3": PLAIN}


class Backbone(nn.Module):
    """torchvision's network ARCH without its head.

    The layers are the last stage at each size of the map, and every block of a vision transformer,
    whose map is its patches. Each is averaged over the largest square grid that gives no more than
    FEATURES numbers, or is taken as it is where it has fewer places.
    """

    reads = "rgb"
    input_size = 224  # pixels, for features

    def __init__(self, arch):
        super().__init__()
        from torchvision import models

        self.arch = arch
        if arch not in models.list_models(module=models):
            own = "alexnet, caffenet and resnet50 of ours"
            raise DataError(f"{arch}: no such network: there are {own} and those of torchvision")
        self.network = models.get_model(arch, weights=None, **OPTIONS.get(arch, {}))
        for name in HEADS:
            if hasattr(self.network, name):
                setattr(self.network, name, nn.Identity())
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
