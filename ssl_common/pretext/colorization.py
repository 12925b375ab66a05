"""Colorization: predict the colours of an image from its lightness.

Section 3.2 of the paper, after Zhang et al. (ECCV 2016): a classification over the bins of the ab
plane, with soft labels and more weight on rare colours.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ssl_common import streams
from ssl_common.data.pixels import crop_short
from ssl_common.objective import Score
from ssl_common.pretext import bins as ab_bins
from ssl_common.pretext import color
from ssl_common.pretext.options import ColorizationOptions
from ssl_common.pretext.pretext import Pretext

SHORT_SIDE, CROP = 256, 179  # pixels; Zhang et al. cropped 176 and 180
STRIDE = 16  # pixels from one place of the last map to the next, of both networks


class Colorization(Pretext):
    """The pretext task over BINS (ab_bins.Bins); workers crop, all else is done for a batch."""

    name, reads = "colorization", "lab"
    draws = 2 + 1  # the crop, the mirror
    weightless = "all images so far are gray: they have no colours to learn"

    def __init__(self, bins: ab_bins.Bins, neighbors: int):
        self.bins, self.neighbors = bins, neighbors
        self.chance = bins.constant()  # the loss of a network that only guesses

    @classmethod
    def load(cls, options: ColorizationOptions) -> "Colorization":
        """Return the task of OPTIONS.

        Without a file the bins are those of Zhang et al., and every place counts the same.
        """
        points, prior = ab_bins.load(options.bins) if options.bins else (ab_bins.hull(), None)
        return cls(ab_bins.Bins(points, prior, options.neighbors), options.neighbors)

    @staticmethod
    def file(options: ColorizationOptions) -> str | None:
        """Return the file that OPTIONS name, or None."""
        return options.bins

    @classmethod
    def restore(cls, content: Mapping[str, Any]) -> "Colorization":
        """Return the task by which a finished network was trained, from the CONTENT of its file."""
        points, prior = content["points"].numpy(), content["prior"].numpy()
        neighbors = content["settings"]["neighbors"]
        return cls(ab_bins.Bins(points, prior if prior.any() else None, neighbors), neighbors)

    def settings(self) -> dict[str, object]:
        """Return the settings of the task that decide the result, plain values."""
        points, prior = self.bins.points, self.bins.prior
        digest = streams.digest(points.tobytes() + (b"" if prior is None else prior.tobytes()))
        return {
            "bins": len(points),
            "bins_digest": digest,
            "neighbors": self.neighbors,
            "rebalanced": prior is not None,
        }

    def arrays(self) -> dict[str, torch.Tensor]:
        """Return what restore() needs, tensors by name; the prior is all 0 if there is none."""
        points, prior = self.bins.points, self.bins.prior
        prior = np.zeros(len(points)) if prior is None else prior
        return {"points": torch.from_numpy(points), "prior": torch.from_numpy(prior)}

    def crop(self, image: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
        """Return a crop 179 x 179 x 3 of IMAGE, uint8 H x W x 3, its short side resized to 256."""
        return crop_short(image, SHORT_SIDE, CROP, numbers[:2].tolist())

    def images(self, pixels: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
        """Return uint8 PIXELS (N x 179 x 179 x 3) as N x 3 x 179 x 179, half of them mirrored."""
        mirror = torch.from_numpy(numbers[:, 2] < 0.5).to(pixels.device, non_blocking=True)
        pixels = torch.where(mirror.view(-1, 1, 1, 1), pixels.flip(2), pixels)
        return pixels.permute(0, 3, 1, 2)

    def targets(
        self, images: torch.Tensor, size: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (nearest bins int64, shares float32), both M x K, and the weight of each place, M.

        IMAGES is uint8 N x 3 x 179 x 179, SIZE (h, w) that of the logits, M = N h w. The label of a
        place is the colour of the pixel in the middle of its field of view, as Zhang et al. took
        every eighth pixel. If no such pixel of an image has colour, its places have weight 0.
        """
        ab = self.middle_colors(images, size)
        nearest, share = self.bins.to(ab.device).encode(ab.reshape(-1, 2))
        coloured = (ab.abs() > ab_bins.GRAY).flatten(1).any(1).repeat_interleave(size[0] * size[1])
        return nearest, share, self.bins.weight[nearest[:, 0]] * coloured

    def middle_colors(self, images: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Return a and b, int32 N x h x w x 2, of the pixels in the middle of the places of a map.

        IMAGES is uint8 N x 3 x 179 x 179, SIZE (h, w) that of the map.
        """
        y, x = (middles(n).to(images.device) for n in size)
        lab = color.lab8(images[:, :, y[:, None], x])
        return lab[:, 1:].permute(0, 2, 3, 1).int() - 128

    def network(self, trunk: nn.Module) -> nn.Module:
        """Return the network to train on TRUNK."""
        return ColorNet(trunk, len(self.bins.points))

    def score(
        self,
        network: nn.Module,
        batch: torch.Tensor,
        draws: np.ndarray,
        lines: torch.Tensor | None = None,
    ) -> Score:
        """Return the Score of NETWORK on a batch.

        BATCH is uint8 N x 179 x 179 x 3 where the network is, DRAWS float64 (N, draws). A loss
        is that of a place of the map, and right is the bin nearest to its colour.
        """
        images = self.images(batch, draws)
        logits = network(color.lightness(images))
        nearest, share, weight = self.targets(images, logits.shape[1:3])
        logits = logits.flatten(0, 2)  # M x Q
        log_probability = logits.float().log_softmax(1).gather(1, nearest)  # M x K
        loss = -(weight * (share * log_probability).sum(1)).sum()
        right = (logits.argmax(1) == nearest[:, 0]).sum()
        return Score(loss, weight.sum(), {"accuracy": (right, len(weight))})


def middles(count: int) -> torch.Tensor:
    """Return the pixels, along a side of the crop, in the middle of what COUNT places see.

    Exact for AlexNet (10 places) and ResNet-50 (12), whose maps lie 16 pixels apart.
    """
    return (CROP - STRIDE * (count - 1)) // 2 + STRIDE * torch.arange(count)


class ColorNet(nn.Module):
    """A trunk as far as its last map, and bins for each place: N x 1 x H x W to N x h x w x Q.

    Over a trunk whose `head_width` is not 0 stand the fully connected layers of Zhang et al.'s
    AlexNet, fc6 over 6 x 6 places two apart; over others the bins alone.
    """

    def __init__(self, trunk: nn.Module, bins: int):
        super().__init__()
        self.trunk = trunk
        with torch.no_grad():
            trunk.eval()
            channels = self.maps(torch.zeros(1, 1, CROP, CROP)).shape[1]
        width = self.width = cast(int, trunk.head_width)
        if width:
            self.fc6, self.bn6 = nn.Linear(channels * 6 * 6, width), nn.BatchNorm1d(width)
            self.fc7, self.bn7 = nn.Linear(width, width), nn.BatchNorm1d(width)
            for layer in (self.fc6, self.fc7):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        self.fc8 = nn.Linear(width or channels, bins)
        nn.init.normal_(self.fc8.weight, std=0.01)
        nn.init.zeros_(self.fc8.bias)

    def maps(self, lightness: torch.Tensor) -> torch.Tensor:
        """Return the last map of the trunk, N x C x h x w."""
        for name, stage in self.trunk.named_children():
            if name != "pool5":  # the last one, which features may come from
                lightness = stage(lightness)
        return lightness

    def forward(self, lightness: torch.Tensor) -> torch.Tensor:
        maps = self.maps(lightness)
        count, channels, height, width = maps.shape
        if self.width:
            maps = functional.max_pool2d(maps, 3, stride=1, padding=1)
            # A product of matrices: the backward pass of a dilated convolution takes a processor
            # eight times as long.
            rows = functional.unfold(maps, 6, dilation=2, padding=5).transpose(1, 2).flatten(0, 1)
            rows = functional.relu(self.bn6(self.fc6(rows)), inplace=True)
            rows = functional.relu(self.bn7(self.fc7(rows)), inplace=True)
        else:
            rows = maps.permute(0, 2, 3, 1).reshape(-1, channels)
        return self.fc8(rows).view(count, height, width, -1)
