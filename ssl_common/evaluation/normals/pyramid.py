"""The predictor of normals: a trunk at stride 8, frozen, and a pyramid of poolings over it.

Task 8 of the paper, after the scene parsing of Zhao et al. (CVPR 2017) as Zhou et al. have it.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ssl_common.models.backbones import Backbone
from ssl_common.models.resnet import ResNet50, is_plain
from ssl_common.models.timm_backbones import CLASS, TimmBackbone
from ssl_common.models.trunk import StagedTrunk, Trunk
from ssl_common.streams import DataError

SCALES, WIDTH, DROPPED = (1, 2, 3, 6), 512, 0.1
STRIDE = 8  # of a ResNet-50


class Body:
    """The frozen part of TRUNK: the map that a predictor is trained on, of images of any size.

    A ResNet ends in its fourth stage, whose stride and that of `top`, its fifth, which is trained,
    become holes; another network ends in its last convolution or block, at its own stride, without
    a top. `layer` is the one that the normals are read from; place i of its map, along either side,
    has its middle in pixel `first` + i * `stride`. Raises DataError for a network that takes images
    of one size alone, and for one whose places cannot be told.
    """

    def __init__(self, trunk: Trunk, source: str) -> None:
        self.trunk = trunk
        self.trunk.eval()
        self._whole = 1  # pixels that a side of what is shown is filled up to a multiple of
        self._shapes: Trunk | None = None  # it as shape() runs it, without numbers
        self.top: nn.Module = nn.Identity()
        if stages := _last_stages(trunk):
            self.ends, self.layer = (name.removeprefix("network.") for name in stages)
            last = [trunk.get_submodule(name) for name in stages]
            dilate(last)
            self.top, self.stride, self.first = copy.deepcopy(last[1]), STRIDE, 0
            with torch.device("meta"):
                shape = self.shape(*2 * [trunk.input_size])
                self.channels = copy.deepcopy(self.top).to("meta")(torch.empty(1, *shape)).shape[1]
            return
        if not isinstance(trunk, StagedTrunk):
            self._end_anywhere(trunk, source)
            return
        convolutions = {
            name: found
            for name, stage in trunk.named_children()
            if (found := [m for m in stage.modules() if isinstance(m, nn.Conv2d)])
        }
        self.layer = self.ends = list(convolutions)[-1]
        self.channels = convolutions[self.layer][-1].out_channels
        self.stride, self.first = _steps(trunk, self.ends)

    def _end_anywhere(self, trunk: Trunk, source: str) -> None:
        """End in the last layer of TRUNK, of torchvision or timm, that has a map."""
        if isinstance(trunk, TimmBackbone):
            trunk.take_any_size()
        self.layer = self.ends = [name for name in trunk.pooling if name != CLASS][-1]
        self.stride, self.first = _steps_seen(trunk, self.ends)
        self._whole, side = self.stride, trunk.input_size // self.stride * self.stride
        wrong = f"{source}: normals need a map of any size"
        try:
            (self.channels, *one), (_same, *other) = (
                self.shape(side + more[0] * self.stride, side + more[1] * self.stride)
                for more in ((0, 0), (2, 3))
            )
        except (RuntimeError, ValueError, AssertionError) as error:
            raise DataError(f"{wrong}, and it takes images of {trunk.input_size} alone") from error
        if (other[0] - one[0], other[1] - one[1]) != (2, 3):
            raise DataError(
                f"{wrong}, and where the places of {self.ends} lie cannot be told: its convolutions"
                f" and poolings have a stride of {self.stride}"
            )

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (C, h, w) of the map of an image of HEIGHT x WIDTH, without computing one."""
        if self._shapes is None:
            self._shapes = copy.deepcopy(self.trunk).to("meta")
        images = torch.empty(1, height, width, 3, dtype=torch.uint8, device="meta")
        return tuple(self._of(self._shapes, images).shape[1:])  # type: ignore[return-value]

    @torch.no_grad()
    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the map, N x C x h x w, of uint8 PIXELS, N x H x W x 3, where the trunk is."""
        return self._of(self.trunk, pixels)

    def _of(self, trunk: Trunk, pixels: torch.Tensor) -> torch.Tensor:
        images = trunk.prepare(pixels.permute(0, 3, 1, 2))
        height, width = (-side % self._whole for side in images.shape[2:])
        images = functional.pad(images, (0, width, 0, height))
        images = images.contiguous(memory_format=torch.channels_last)
        return trunk.maps([self.ends], images)[self.ends]


def dilate(stages: Iterable[nn.Module]) -> None:
    """Take the strides out of STAGES of a ResNet, whose later 3 x 3 convolutions get holes.

    So each weight meets what it met before, in a map of more places (Yu, Koltun and Funkhouser,
    CVPR 2017). The convolution that had the stride keeps the holes of those before it.
    """
    holes = 1
    for stage in stages:
        for module in stage.modules():
            if isinstance(module, nn.Conv2d):
                had, module.stride = module.stride, (1, 1)
                if module.kernel_size == (3, 3):
                    module.dilation = module.padding = (holes, holes)
                    holes *= had[0]


def _last_stages(trunk: Trunk) -> tuple[str, str] | None:
    """Return the names of the fourth and the fifth stage of TRUNK, a ResNet; None of another."""
    if isinstance(trunk, ResNet50):
        return "res4", "res5"
    if isinstance(trunk, Backbone | TimmBackbone) and is_plain(trunk.network):
        return "network.layer3", "network.layer4"
    return None


def _steps(trunk: nn.Module, last: str) -> tuple[int, int]:
    """Return (stride, first) of the map of the stage LAST of TRUNK, a chain; see Body."""
    stride, first = 1, 0
    for name, stage in trunk.named_children():
        for module in stage.modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d):
                kernel, step, padding = (
                    side[0] if isinstance(side, tuple) else side
                    for side in (module.kernel_size, module.stride, module.padding)
                )
                assert isinstance(kernel, int) and isinstance(step, int)
                assert isinstance(padding, int)
                first += stride * ((kernel - 1) // 2 - padding)
                stride *= step
        if name == last:
            break
    return stride, first


@torch.no_grad()
def _steps_seen(trunk: Trunk, last: str) -> tuple[int, int]:
    """Return (stride, first) of the map of the layer LAST of TRUNK; see Body.

    By a pass through it: of what stands side by side, as in a shortcut, the widest kernel counts.
    """
    steps: dict[int, tuple[int, int, float]] = {}  # side of what comes in: kernel, stride, middle

    def keep(module: Any, given: Any, found: torch.Tensor) -> None:
        before, after = given[0].shape[-1], found.shape[-1]
        kernel, step, padding = (
            side[0] if isinstance(side, tuple) else side
            for side in (module.kernel_size, module.stride, module.padding)
        )
        if isinstance(padding, int) and 1 < after < before:
            middle = (kernel - 1) / 2 - padding
            steps[before] = max(steps.get(before, (0, 0, 0.0)), (kernel, step, middle))

    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    hooks = [
        module.register_forward_hook(keep)
        for module in trunk.modules()
        if isinstance(module, kinds)
    ]
    try:
        trunk.maps([last], torch.zeros(1, 3, trunk.input_size, trunk.input_size))
    finally:
        for hook in hooks:
            hook.remove()
    stride, first = 1, 0.0
    for _side, (_kernel, step, middle) in sorted(steps.items(), reverse=True):
        first += stride * middle
        stride *= step
    return stride, int(first)


class Pyramid(nn.Module):
    """Scores of CODES, N x codes x h x w, of a map N x CHANNELS x h x w.

    The map goes through TOP; beside it stand its means over grids of SCALES, each made 512 wide.
    """

    def __init__(self, top: nn.Module, channels: int, codes: int) -> None:
        super().__init__()
        self.top = top
        self.means = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), *_convolution(channels, WIDTH, 1))
            for scale in SCALES
        )
        whole = channels + len(SCALES) * WIDTH
        self.head = nn.Sequential(
            *_convolution(whole, WIDTH, 3), nn.Dropout2d(DROPPED), nn.Conv2d(WIDTH, codes, 1)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        whole = self.top(maps)
        convolution, *others = self.head
        weight = convolution.get_parameter("weight")
        near, far = weight.split([whole.shape[1], len(SCALES) * WIDTH], 1)
        means = [mean(whole) for mean in self.means]
        found = functional.conv2d(whole, near, padding=1) + _spread(means, far, whole.shape[2:])
        for layer in others:
            found = layer(found)
        return found


def _spread(
    means: Sequence[torch.Tensor], weight: torch.Tensor, size: Sequence[int]
) -> torch.Tensor:
    """Return the 3 x 3 convolution by WEIGHT of MEANS, each brought to SIZE and one on the other.

    MEANS are N x 512 x s x s, WEIGHT is filters x all their channels x 3 x 3. Bringing to a size is
    linear: so the weights meet the few means, and what they give is brought to the size, which
    takes a fraction of the time.
    """
    parts, rows = list[torch.Tensor](), list[torch.Tensor]()
    for mean, part in zip(means, weight.split(WIDTH, 1), strict=True):
        across, down = (_taps(length, mean.shape[2], mean) for length in reversed(size))
        met = torch.einsum("ncij,ocab->niajbo", mean, part)
        parts.append(torch.einsum("xbj,niajbo->niaxo", across, met).flatten(1, 2))
        rows.append(down.transpose(1, 2).flatten(1))
    found = torch.einsum("yk,nkxo->nyxo", torch.cat(rows, 1), torch.cat(parts, 1))
    return found.permute(0, 3, 1, 2)


def _taps(length: int, count: int, like: torch.Tensor) -> torch.Tensor:
    """Return what COUNT places give to those that a 3-tap convolution meets, LENGTH x 3 x COUNT.

    It meets the neighbours of each of LENGTH places, to which the COUNT are brought linearly; 0
    beyond the ends.
    """
    exact = torch.promote_types(like.dtype, torch.float32)
    places = torch.eye(count, dtype=exact, device=like.device)[None]
    spread = functional.interpolate(places, length, mode="linear", align_corners=False)[0].T
    padded = functional.pad(spread, (0, 0, 1, 1)).to(like.dtype)
    return torch.stack([padded[tap : tap + length] for tap in range(3)], 1)


def _convolution(channels: int, filters: int, kernel: int) -> list[nn.Module]:
    """Return convolution, batch norm and ReLU, initialised as Zhou et al. do."""
    convolution = nn.Conv2d(channels, filters, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight)
    norm = nn.BatchNorm2d(filters)
    nn.init.constant_(norm.bias, 1e-4)
    return [convolution, norm, nn.ReLU(inplace=True)]
