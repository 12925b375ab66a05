"""Networks by name."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ssl_common.models import inputs, states, timm_backbones
from ssl_common.models.alexnet import (
    AlexNet,
    AlexNetHalf,
    AlexNetHalfLab,
    AlexNetLab,
    AlexNetStride4,
)
from ssl_common.models.backbones import Backbone
from ssl_common.models.caffenet import CaffeNet
from ssl_common.models.resnet import ResNet50, ResNet50Lab
from ssl_common.models.trunk import StagedTrunk, Trunk
from ssl_common.streams import DataError

TRUNKS: dict[str, type[StagedTrunk]] = {
    kind.name: kind
    for kind in (
        *(AlexNet, AlexNetStride4, AlexNetLab, AlexNetHalf, AlexNetHalfLab),
        *(CaffeNet, ResNet50, ResNet50Lab),
    )
}


def build(arch: str, seed: int, reads: str = "rgb") -> Trunk:
    """Return the untrained trunk ARCH, in its form that READS "rgb" or "lab", drawn from SEED.

    What is none of TRUNKS is a network of timm, timm:NAME, or else of torchvision, as Backbone
    takes it; torchvision-alexnet is its alexnet. After a ? it may say how images are taken; see
    inputs. Raises DataError where there is no such network.
    """
    arch = arch if reads == "rgb" else f"{arch}-{reads}"
    name, how = inputs.parsed(arch)
    with seeded(seed):
        if name.startswith(timm_backbones.THEIRS):
            return timm_backbones.TimmBackbone(arch)
        trunk = TRUNKS[name]() if name in TRUNKS else Backbone(name, taken=TRUNKS)
    try:
        trunk.take(how)
    except ValueError as error:
        raise DataError(f"{arch}: {error}") from error
    return trunk


def blank(arch: str, reads: str = "rgb") -> Trunk:
    """Return the trunk ARCH of ours, as build() does, at once: names and shapes without numbers."""
    with torch.device("meta"), _Undrawn():
        return build(arch, 0, reads)


class _Undrawn(TorchFunctionMode):
    """Leaves out what fills tensors with numbers: it takes its time where there are none, too."""

    FILLS = frozenset(
        getattr(place, name)
        for place, names in (
            (nn.init, ("uniform_", "normal_", "constant_", "kaiming_uniform_")),
            (torch.Tensor, ("uniform_", "normal_", "fill_", "zero_")),
        )
        for name in names
    )

    def __torch_function__(
        self, function: Any, _types: Any, args: tuple[Any, ...] = (), named: Any = None
    ) -> Any:
        named = named or {}
        if function in self.FILLS:
            return args[0] if args else named["tensor"]
        return function(*args, **named)


def restored(settings: Mapping[str, Any], state: Any, path: str) -> Trunk:
    """Return the trunk that the SETTINGS of the file PATH name, with the weights STATE.

    Raises DataError for a network that does not exist, and for weights that do not fit it.
    """
    try:
        trunk = build(settings["arch"], 0, settings.get("reads") or "rgb")
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    states.fill(trunk, state, path, settings["arch"])
    return trunk


def unchanged(content: Mapping[str, Any], path: str, fix: str) -> Trunk:
    """Return the frozen trunk of the file PATH, which holds CONTENT, as it was in training.

    Raises DataError, which advises FIX, where the same weights are another network by now.
    """
    settings = content["settings"]
    trunk = restored(settings, content["frozen"], path)
    if trunk.digest() != settings["model"]:
        changed = "its network takes images otherwise than it did, or is damaged"
        raise DataError(f"{path}: {changed}: {fix}")
    return trunk


def trainable() -> list[str]:
    """Return the names of the trunks that can be trained: they come in a form for each pretext."""
    return [arch for arch in TRUNKS if f"{arch}-lab" in TRUNKS]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw weights from SEED, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
