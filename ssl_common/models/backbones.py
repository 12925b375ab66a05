"""Any classification network of torchvision, its stages as the layers that features come from."""

import math
import re
from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ssl_common.data.pixels import MEAN, STD
from ssl_common.models.inputs import Input
from ssl_common.models.trunk import Trunk
from ssl_common.streams import DataError

THEIRS = "torchvision-"  # before the name of a network of torchvision that is ours as well

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
USUAL = (224, MEAN, STD, False)  # `input` of most networks


def weights_of(arch: str) -> Any:
    """Return torchvision's weights of its network ARCH, an enum: how each takes its images."""
    from torchvision import models

    if arch not in models.list_models(module=models):
        own = "alexnet, caffenet and resnet50 of ours"
        raise DataError(f"{arch}: no such network: there are {own} and those of torchvision")
    return models.get_model_weights(arch)


def named(name: str) -> tuple[str, Any]:
    """Return (arch, weights) of torchvision that NAME stands for, as Backbone takes it.

    Raises DataError where torchvision has no such one.
    """
    name = name.removeprefix(THEIRS)
    arch, _dash, wanted = name.partition("-")
    known = weights_of(arch)
    if wanted and wanted not in known.__members__:
        raise DataError(f"{name}: no such weights: there are {', '.join(known.__members__)}")
    return arch, known[wanted or "DEFAULT"]


def preprocessing(weights: Any) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Return how torchvision's WEIGHTS have images prepared: (size, mean, standard deviation).

    What its file does not hold. The mean and deviation are those of channels from 0 to 1.
    """
    preset = weights.transforms()
    return preset.crop_size[0], tuple(preset.mean), tuple(preset.std)


def grid(channels: int, side: int) -> int:
    """Return the places along a side of the grid that a map of CHANNELS x SIDE x SIDE becomes."""
    return min(max(1, math.isqrt(FEATURES // channels)), side)


class Backbone(Trunk):
    """torchvision's network NAME without its head: ARCH, or ARCH-WEIGHTS.

    "torchvision-" may stand before it, and does in `name` where that is among TAKEN otherwise.
    WEIGHTS is the name of some of torchvision's, by default its DEFAULT: an image is given in their
    size, mean and deviation. `arch` is NAME, without WEIGHTS that make no difference; `input` is
    how it takes images: size, mean, deviation, and whether it turns them to TensorFlow's itself.

    The layers are the last stage at each size of the map, and every block of a vision transformer,
    whose map is its patches. Each is averaged over the largest square grid that gives no more than
    FEATURES numbers, or is taken as it is where it has fewer places: `pooling` is {layer: places
    along a side of its grid}.
    """

    pooling: dict[str, int]

    def __init__(self, name: str, taken: Collection[str] = ()) -> None:
        super().__init__()
        from torchvision import models

        arch, weights = named(name)
        usual = preprocessing(weights_of(arch).DEFAULT)
        self.arch = arch if preprocessing(weights) == usual else f"{arch}-{weights.name}"
        self.name = f"{THEIRS}{self.arch}" if self.arch in taken else self.arch
        self.input_size, self.mean, self.deviation = preprocessing(weights)
        self.input = (*preprocessing(weights), arch in TURNED)
        options: dict[str, Any] = OF_TURNED if arch in TURNED else {}
        if arch.startswith("vit_"):
            options = {"image_size": self.input_size}
        self.network = models.get_model(arch, weights=None, **options)
        for head in HEADS:
            if hasattr(self.network, head):
                setattr(self.network, head, nn.Identity())
        self.pooling = self._grids()

    def take(self, how: Input) -> None:
        """Take images as HOW says from now on; see Trunk."""
        super().take(how)
        self.input = (self.input_size, self.mean, self.deviation, self.input[-1])

    @torch.no_grad()
    def _grids(self) -> dict[str, int]:
        """Return {layer: places along a side of its grid}, from a pass through the network."""
        names = [name for name, _module in self.network.named_modules() if STAGE.fullmatch(name)]
        training = self.training
        maps = self.eval().maps(names, torch.zeros(1, 3, self.input_size, self.input_size))
        self.train(training)
        last = {
            m.shape[-1] if "encoder_layer" not in name else name: name for name, m in maps.items()
        }
        shapes = {name: maps[name].shape[1:] for name in maps if name in last.values()}
        return {
            name: grid(channels, side) for name, (channels, side, _) in shapes.items() if side > 1
        }

    def maps(self, names: Collection[str], images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {layer: its map} as Trunk says; the whole network runs."""
        maps: dict[str, torch.Tensor] = {}
        hooks = []
        for name in names:

            def keep(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
                maps[name] = _map(output).clone()  # DenseNet's next step works in place

            hooks.append(self.network.get_submodule(name).register_forward_hook(keep))
        try:
            self.network(images)
        finally:
            for hook in hooks:
                hook.remove()
        return maps

    def pooled(self, name: str, feature_map: torch.Tensor) -> torch.Tensor:
        """Return the FEATURE_MAP of the layer NAME averaged over its grid."""
        return functional.adaptive_avg_pool2d(feature_map, self.pooling[name])

    def _unusual(self) -> list[bytes]:
        return [] if self.input == USUAL else [repr(self.input).encode()]


def _map(output: torch.Tensor) -> torch.Tensor:
    """Return OUTPUT, N x (1 + patches) x C or a map with its channels last, as N x C x H x W."""
    if output.dim() == 3:
        patches = output[:, 1:]  # the first is the class token
        side = int(patches.shape[1] ** 0.5)
        return patches.transpose(1, 2).unflatten(2, (side, side))
    if output.shape[1] == output.shape[2] != output.shape[3]:
        return output.permute(0, 3, 1, 2)
    return output
