"""A trunk with a new head: the network that is fine-tuned."""

import itertools
import math
from collections import OrderedDict

import torch
from torch import nn

from ssl_common.evaluation.finetuning.recipes import FinetuneRecipe
from ssl_common.models import registry, states
from ssl_common.models.trunk import StagedTrunk, Trunk

# What a head is: batch norm over the averaged map and one product, or fc6, fc7 and fc8.
HEADS = ("bn", "fc-bn", "fc")
FC_BIAS = 0.01  # that fc6 and fc7 of CaffeNet begin with
DROPPED = 0.5


class Tuned(nn.Module):
    """TRUNK and HEAD, which reads the map of its layer LAST: N x c x H x W gives N x classes."""

    def __init__(self, trunk: Trunk, head: nn.Module, last: str) -> None:
        super().__init__()
        self.trunk, self.head, self.last = trunk, head, last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk.maps([self.last], images)[self.last])


def tuned(trunk: Trunk, recipe: FinetuneRecipe, classes: int, seed: int = 0) -> Tuned:
    """Return TRUNK with the head of RECIPE for a number of CLASSES, drawn from SEED.

    A parameter of TRUNK that the head does not hear of needs no gradient from here on.
    """
    staged = isinstance(trunk, StagedTrunk)
    last = [name for name, _stage in trunk.named_children()] if staged else list(trunk.pooling)
    size, training = trunk.input_size, trunk.training
    images = trunk.eval().prepare(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    shape = trunk.maps([last[-1]], images)[last[-1]].shape[1:]
    with registry.seeded(seed):
        network = Tuned(trunk, head(recipe, tuple(shape), classes), last[-1])
    network.eval()(images).sum().backward()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    trunk.train(training)
    return network


def head(recipe: FinetuneRecipe, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """Return the head of RECIPE for a map of SHAPE (C, h, w) and a number of CLASSES."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    momentum, fc = recipe.bn_momentum, recipe.fc
    if fc is None:
        layers["pool"], layers["flat"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        layers["norm"] = nn.BatchNorm1d(shape[0], momentum=momentum)
        layers["pred"] = nn.Linear(shape[0], classes)
    else:
        layers["flat"] = nn.Flatten()
        widths = (math.prod(shape), fc, fc)
        for number, (width, out) in enumerate(itertools.pairwise(widths), 6):
            layers[f"fc{number}"] = nn.Linear(width, out)
            if recipe.head == "fc-bn":
                layers[f"norm{number}"] = nn.BatchNorm1d(out, momentum=momentum)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
            layers[f"drop{number}"] = nn.Dropout(DROPPED)
        layers["fc8"] = nn.Linear(fc, classes)
    for name, layer in layers.items():
        if isinstance(layer, nn.Linear):
            hidden = recipe.head == "fc" and name != "fc8"
            _draw(layer, recipe.init_std, hidden)
    return nn.Sequential(layers)


def _draw(layer: nn.Linear, deviation: float | None, hidden: bool) -> None:
    """Draw the weights of LAYER with DEVIATION, or as Caffe2's XavierFill where that is None.

    A HIDDEN one of CaffeNet has half the deviation, and a bias.
    """
    if deviation is None:
        most = math.sqrt(3 / layer.in_features)
        nn.init.uniform_(layer.weight, -most, most)
    else:
        nn.init.normal_(layer.weight, std=deviation / 2 if hidden else deviation)
    nn.init.constant_(layer.bias, FC_BIAS if hidden else 0.0)


def at_stride(trunk: Trunk, stride: int | None) -> Trunk:
    """Return TRUNK with conv1 at STRIDE where it is an AlexNet of ours and another is asked for."""
    if trunk.name != "alexnet" or stride != 4:
        return trunk
    other = registry.build("alexnet-stride4", 0)
    states.fill(other, trunk.state_dict(), trunk.name, other.name)
    return other
