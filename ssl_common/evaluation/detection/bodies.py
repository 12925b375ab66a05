"""A trunk as a detector has it: the stages of its body, and what its head begins with.

The body of a ResNet ends with res4, at 1/16 of the image, and its head is res5 (the "C4" of He et
al., CVPR 2016). The body of an AlexNet ends with conv5, and its head has layers of its own.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ssl_common.models.backbones import Backbone
from ssl_common.models.resnet import is_plain
from ssl_common.models.timm_backbones import TimmBackbone
from ssl_common.models.trunk import StagedTrunk, Trunk
from ssl_common.streams import DataError

EPS = 1e-5  # of batch norm


class Body:
    """The parts of TRUNK, whose modules they are; MODEL names it in errors.

    `stages` are those of the body by name, `last` what a head begins with, or None, and `channels`
    those of the body's map, of which a place stands for `stride` x `stride` pixels. Convolutions
    and pooling are padded by half their kernel, as those of ResNets are, so that place i lies at
    pixel i x stride; and batch norm is a fixed scale and shift, as in Detectron. Raises DataError
    for a trunk that has no such parts.
    """

    def __init__(self, trunk: Trunk, model: str) -> None:
        stages = dict(_stages(trunk, model))
        self.last: nn.Module | None = stages.pop("res5", None)
        if self.last is not None:
            self.last = fixed(self.last)
        self.stages = OrderedDict((name, fixed(stage)) for name, stage in stages.items())
        for module in nn.Sequential(self.stages).modules():
            _pad(module)
        self.stride = math.prod(map(_stride, self.stages.values()))
        with torch.no_grad():
            pixels = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
            self.channels = nn.Sequential(self.stages)(trunk.prepare(pixels)).shape[1]

    def split(self, freeze: str, model: str) -> tuple[nn.Sequential, nn.Sequential]:
        """Return the stages up to FREEZE, which are frozen, and the others, which are trained.

        FREEZE is a stage or "none". Raises DataError for another; MODEL names the trunk.
        """
        names = list(self.stages)
        if freeze not in (*names, "none"):
            raise DataError(
                f"--freeze {freeze}: the body of {model} has no such stage: choose from"
                f" {', '.join(names)}, none"
            )
        count = 0 if freeze == "none" else names.index(freeze) + 1
        frozen, trained = (
            nn.Sequential(OrderedDict((name, self.stages[name]) for name in part))
            for part in (names[:count], names[count:])
        )
        return frozen.requires_grad_(False).eval(), trained


def _stages(trunk: Trunk, model: str) -> Mapping[str, nn.Module]:
    """Return the stages of TRUNK by name, up to res5 or conv5."""
    if isinstance(trunk, StagedTrunk):
        there = dict(trunk.named_children())
        for last in ("res5", "conv5"):
            if last in there:
                names = list(there)
                return {name: there[name] for name in names[: names.index(last) + 1]}
    if isinstance(trunk, Backbone | TimmBackbone):
        net: Any = trunk.network
        if is_plain(net):
            relu = net.act1 if isinstance(trunk, TimmBackbone) else net.relu
            stages = {"conv1": nn.Sequential(net.conv1, net.bn1, relu), "pool1": net.maxpool}
            layers = (net.layer1, net.layer2, net.layer3, net.layer4)
            return stages | {f"res{n}": layer for n, layer in enumerate(layers, 2)}
    message = "no network that a detector is made of: there are ResNets and AlexNets"
    raise DataError(f"{model}: {message}, ours, torchvision's and plain ones of timm")


def fixed(module: nn.Module) -> nn.Module:
    """Return MODULE with its batch norms as scale and shift that are not trained."""
    from torchvision.ops import FrozenBatchNorm2d

    if isinstance(module, nn.BatchNorm2d):
        made = FrozenBatchNorm2d(module.num_features, eps=EPS)
        made.load_state_dict(module.state_dict())
        return made
    for name, child in module.named_children():
        setattr(module, name, fixed(child))
    return module


def _pad(module: nn.Module) -> None:
    """Pad MODULE, if it is a convolution or pooling, by half its kernel; its size is rounded up."""
    if isinstance(module, nn.Conv2d):
        module.padding = tuple(
            d * (k // 2) for d, k in zip(module.dilation, module.kernel_size, strict=True)
        )
    elif isinstance(module, nn.MaxPool2d):
        assert isinstance(module.kernel_size, int)
        module.padding, module.ceil_mode = module.kernel_size // 2, False


def _stride(stage: nn.Module) -> int:
    """Return by how much STAGE makes an image smaller: its own steps, or those of its blocks."""
    if isinstance(stage, nn.Conv2d | nn.MaxPool2d):
        return stage.stride if isinstance(stage.stride, int) else stage.stride[0]
    children = dict(stage.named_children())
    children.pop("downsample", None)  # beside the others, not after them
    return math.prod(map(_stride, children.values()))
