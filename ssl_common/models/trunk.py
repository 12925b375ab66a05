"""What every network here is: a trunk, whose named layers give the features that are measured."""

import itertools
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ssl_common import streams
from ssl_common.data.pixels import MEAN, STD, standardize
from ssl_common.models import states
from ssl_common.models.inputs import Input
from ssl_common.pretext.color import READERS

Window = tuple[int, int, int]  # kernel, stride and padding of an average pooling, in places


class Trunk(nn.Module):
    """A network without its head: the base of all networks.

    A network says its `name`, by which registry.build() makes one like it; the `input_size` of the
    images that features are made of, in pixels; and `pooling`, {layer: how its map is averaged}, in
    the order of its layers. `reads` is what colours it is given: "rgb", or "lab", of which it reads
    the lightness alone; it may then say the `head_width` of its ColorNet. `mean` and `deviation`
    are those of the channels of RGB, from 0 to 1.

    Images go through it in three steps: prepare(), maps(), pooled().
    """

    name: str
    reads: str = "rgb"
    input_size: int
    pooling: Mapping[str, Any]
    mean: tuple[float, ...] = MEAN
    deviation: tuple[float, ...] = STD

    def take(self, how: Input) -> None:
        """Take images as HOW says from now on, and be named by it where that is not the usual way.

        Raises ValueError where this network cannot.
        """
        if self.reads != "rgb" and any(how):
            raise ValueError("it reads lightness, which has neither mean nor std of RGB")
        if how.size not in (None, self.input_size):
            raise ValueError(f"it takes images of {self.input_size} pixels")
        mean, deviation = how.mean or self.mean, how.std or self.deviation
        if (mean, deviation) != (self.mean, self.deviation):
            self.name += str(Input(mean, deviation))
            self.mean, self.deviation = mean, deviation

    def prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return what the network reads of uint8 RGB PIXELS, N x 3 x H x W: float32 N x c x H x W.

        c is 3, or 1 where it reads lightness.
        """
        if self.reads == "rgb":
            return standardize(pixels, self.mean, self.deviation)
        return READERS[self.reads](pixels)

    def maps(self, names: Collection[str], images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {layer: its map, N x C x h x w, after the ReLU} of the layers NAMES.

        IMAGES are what prepare() gives. The maps come in the order of the network.
        """
        raise NotImplementedError

    def pooled(self, name: str, feature_map: torch.Tensor) -> torch.Tensor:
        """Return the FEATURE_MAP of the layer NAME, N x C x h x w, averaged over its places.

        About 9,000 features an image are left, as the paper has them.
        """
        raise NotImplementedError

    def digest(self) -> str:
        """Return the identity of a model, 16 hex digits of a SHA-256: its names and weights.

        And of how it takes its images, where that is not the usual way.
        """
        return streams.digest(itertools.chain(states.pieces(self), self._unusual()))

    def _unusual(self) -> list[bytes]:
        """Return what its weights do not tell of how it takes images; nothing for the usual way."""
        if (self.mean, self.deviation) == (MEAN, STD):
            return []
        return [repr((self.mean, self.deviation)).encode()]


class StagedTrunk(Trunk, nn.Sequential):
    """A trunk that is a chain of named stages, each a layer whose output is its map."""

    pooling: Mapping[str, Window]  # average to about 9,000 features

    def maps(self, names: Collection[str], images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {layer: its map} as Trunk says; stages after the last of NAMES do not run."""
        maps: dict[str, torch.Tensor] = {}
        for name, stage in self.named_children():
            images = stage(images)
            if name in names:
                # Inplace ReLUs of later stages work on their own convolution's output, not on this.
                maps[name] = images
            if len(maps) == len(names):
                break
        return maps

    def pooled(self, name: str, feature_map: torch.Tensor) -> torch.Tensor:
        """Return the FEATURE_MAP of the layer NAME averaged as Trunk says."""
        kernel, stride, padding = self.pooling[name]
        # Caffe2 leaves the padding out of the average.
        return functional.avg_pool2d(feature_map, kernel, stride, padding, count_include_pad=False)
