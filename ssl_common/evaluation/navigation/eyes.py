"""What a policy sees of a frame: a layer of a frozen network, or less, to compare it with.

As in the paper's stack (Sax et al., midlevel-reps), the map of a layer is brought to 8 x 16 x 16 by
one convolution that stays as it was drawn.
"""

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ssl_common import streams
from ssl_common.data.pixels import resize
from ssl_common.evaluation import features
from ssl_common.models import registry
from ssl_common.models.trunk import Trunk
from ssl_common.streams import DataError

CHANNELS, GRID = 8, 16  # of what a policy sees of a layer
ATARI = 84  # pixels a side that a policy sees which learns to see by itself
MEASURED = 64  # frames by which the speed of a network is told
BATCH = 64
# In the place of MODEL: what a network is compared with.
BASELINES = ("blind", "thumbnail", "scratch")


class Eye(features.Layers):
    """What policies of RUNS runs see of frames: `shapes` {name: channels x height x width}.

    One name a run where each sees by a convolution of its own, else one for all. It is what
    linear.cache and features.rows take for layers: `trunk` is what is frozen, `of_the_model` says
    which it is. `side` is the pixels a side of the square that a frame is shown as.
    """

    design: str  # of the policy that reads it: of policies.DESIGNS
    side: int
    layer: str | None = None

    def frame(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return a frame, uint8 H x W x 3, as it is shown: uint8 3 x side x side."""
        return resize(pixels, (self.side, self.side)).permute(2, 0, 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """What one run sees of a frame: channels x height x width."""
        return next(iter(self.shapes.values()))

    @property
    def width(self) -> int:
        """How many numbers one run sees of a frame."""
        return math.prod(self.shape)

    def frames_per_second(self) -> float | None:
        """Return how many frames a second it sees, measured on 64; None where that is nothing."""
        return None

    def to(self, device: torch.device) -> None:
        """Move what it computes with to DEVICE."""
        self.trunk.to(device)


class NetworkEye(Eye):
    """The LAYER of MODEL, as features.network() takes it, frozen; by a convolution for each run.

    That of a run is drawn from its seed, SEED + run: the same for all networks whose maps have as
    many channels. SIDE is the input of the network, its usual one where it is None.
    """

    design = "embedding"

    def __init__(self, model: str, layer: str | None, seed: int, runs: int, side: int | None):
        trunk, settings = features.network(model, seed)
        self.about = features.of_the_model(trunk, settings)
        self._open(trunk, layer or _usual(trunk), seed, runs, side or trunk.input_size, model)

    def _open(self, trunk: Trunk, layer: str, seed: int, runs: int, side: int, model: str) -> None:
        self.trunk, self.layer, self.side = trunk, layer, side
        if layer not in trunk.pooling:
            raise DataError(f"{model} has no layer {layer}: it has {', '.join(trunk.pooling)}")
        trunk.eval().to(memory_format=torch.channels_last)
        self.of_the_model = self.about | {"model": trunk.digest()}
        self.names = [f"run{run}" for run in range(runs)]
        self.shapes = dict.fromkeys(self.names, (CHANNELS, GRID, GRID))
        try:
            found = self._map(torch.zeros(1, 3, side, side, dtype=torch.uint8))
        except RuntimeError as error:
            raise DataError(f"--side {side}: too small for {layer} of {model}: raise it") from error
        self.sizes = {layer: tuple(found.shape[1:])}
        self.filters = torch.cat([drawn(found.shape[1], seed + run) for run in range(runs)])

    def _map(self, pixels: torch.Tensor) -> torch.Tensor:
        assert self.layer
        return features.maps(self.trunk, [self.layer], pixels)[self.layer]

    def to(self, device: torch.device) -> None:
        """Move the network and the convolutions to DEVICE."""
        super().to(device)
        self.filters = self.filters.to(device)

    @torch.no_grad()
    def __call__(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {run: what it sees} of uint8 PIXELS (N x 3 x side x side), N x 8 x 16 x 16."""
        found = self._map(pixels)
        self.filters = self.filters.to(found.device)
        seen = compressed(found, self.filters)
        return dict(zip(self.names, seen.chunk(len(self.names), 1), strict=True))

    def frames_per_second(self) -> float:
        """Return how many frames a second it sees, measured on 64."""
        draw = torch.Generator().manual_seed(0)
        shape = (MEASURED, 3, self.side, self.side)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)
        began = time.monotonic()
        first = next(iter(self(pixels.to(next(self.trunk.parameters()).device)).values()))
        first.sum().item()  # a GPU is waited for
        return MEASURED / max(1e-9, time.monotonic() - began)


def _usual(trunk: Trunk) -> str:
    """Return the layer that is looked at where none is named: the last convolution's."""
    layers = [name for name in trunk.pooling if not name.startswith(("pool", "fc"))]
    return layers[-1]


def drawn(channels: int, seed: int) -> torch.Tensor:
    """Return the convolution of a run with SEED over CHANNELS: float32 8 x channels x 3 x 3.

    Normal, of variance 2 / (9 channels), which keeps the scale of what passes a ReLU (He et al.).
    """
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(CHANNELS, channels, 3, 3, generator=draw) * math.sqrt(2 / (9 * channels))


def compressed(found: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Return the maps FOUND (N x C x h x w) at 16 x 16, convolved, rectified, each normalised.

    A channel of a frame has mean 0 and variance 1 over its places, or is 0 where it is constant.
    """
    at_size = functional.interpolate(
        found.float(), (GRID, GRID), mode="bilinear", antialias=True, align_corners=False
    )
    return functional.instance_norm(functional.relu(functional.conv2d(at_size, filters, padding=1)))


class _Nothing(nn.Module):
    """Stands where an eye, of a KIND, has no network: nothing is frozen."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def digest(self) -> str:
        return streams.digest(self.kind.encode())


class PlainEye(Eye):
    """An eye without a network, KIND of BASELINES; it is the same for all runs.

    blind sees nothing, a constant; thumbnail 16 x 16 pixels in colour; scratch 84 x 84, from which
    its policy learns to see by itself, as on Atari.
    """

    def __init__(self, kind: str) -> None:
        self.kind, self.names = kind, ["frame"]
        self.side = ATARI if kind == "scratch" else GRID
        channels = 1 if kind == "blind" else 3
        self.shapes = {"frame": (channels, self.side, self.side)}
        self.design = "atari" if kind == "scratch" else "embedding"
        self.trunk: Any = _Nothing(kind)
        empty = dict.fromkeys(features.OF_THE_MODEL)
        self.about = {"format": 1, "model": self.trunk.digest(), **empty, "arch": kind}
        self.of_the_model = self.about

    def __call__(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {"frame": what is seen} of uint8 PIXELS, -1 to 1."""
        if self.kind == "blind":
            return {"frame": torch.zeros(len(pixels), *self.shape, device=pixels.device)}
        return {"frame": pixels.float() / 127.5 - 1}


def make(model: str, layer: str | None, seed: int, runs: int, side: int | None) -> Eye:
    """Return what the policies of RUNS runs from SEED on see of MODEL, or of one of BASELINES.

    Raises DataError for a model or layer that does not exist.
    """
    if model not in BASELINES:
        return NetworkEye(model, layer, seed, runs, side)
    given = f"--layer {layer}" if layer else f"--side {side}" if side else ""
    if given:
        raise DataError(f"{given}: {model} has no network: leave it out")
    return PlainEye(model)


def restored(content: Mapping[str, Any], path: str) -> Eye:
    """Return the eye of the navigator that the file PATH holds, of which CONTENT was read."""
    settings = content["settings"]
    if settings["arch"] in BASELINES:
        return PlainEye(settings["arch"])
    eye = NetworkEye.__new__(NetworkEye)
    eye.about = dict(content["about"])
    trunk = registry.unchanged(content, path, "train it again")
    eye._open(trunk, settings["layer"], settings["seed"], settings["runs"], settings["side"], path)
    return eye
