"""The objective to name the class of an image, by a linear classifier on each layer of a trunk.

Task 3 of the paper, after Zhang et al. (CVPR 2017): Places205, ImageNet, or any images with
one class each. The trunk is frozen; all layers are trained at once.
"""

import functools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ssl_common.data import augmentation
from ssl_common.evaluation import features
from ssl_common.evaluation.linear.recipes import LinearRecipe
from ssl_common.models.trunk import Trunk
from ssl_common.objective import Objective, Score

# Where in its draws an image finds its own: crop (10 tries of 5), mirror, colour, order, light.
CROP, FLIP, JITTER, ORDER, LIGHT = slice(0, 50), 50, slice(51, 54), 54, slice(55, 58)
Shapes = Mapping[str, tuple[int, ...]]  # layer: channels, height, width of its features


class Augmented(Objective):
    """To name the class of an image that is shown to TRUNK as RECIPE says.

    Warp, crop, flip, jitter, lighting. Workers crop; all else is drawn and done for a whole batch,
    where the network is.
    """

    draws = LIGHT.stop
    trunk: Trunk
    recipe: LinearRecipe
    area: Sequence[float] = augmentation.AREA  # of a "sized" crop, least and largest

    def crop(self, image: torch.Tensor, drawn: np.ndarray) -> torch.Tensor:
        """Return the part of an RGB IMAGE that the network sees, uint8 S x S x 3."""
        size, how = self.trunk.input_size, self.recipe.crop
        if how == "sized":
            return augmentation.sized_crop(image, size, drawn[CROP].reshape(-1, 5), self.area)
        where = drawn[CROP][:2].tolist() if how == "random" else None
        return augmentation.side_crop(image, size, self.recipe.warp, where)

    def augmented(self, pixels: torch.Tensor, drawn: np.ndarray) -> torch.Tensor:
        """Return uint8 PIXELS (N x S x S x 3) as N x 3 x S x S, 0 to 255, as they are shown."""
        pixels = pixels.permute(0, 3, 1, 2)
        numbers = torch.from_numpy(drawn).to(pixels.device, non_blocking=True)
        if self.recipe.flip:
            mirrored = (numbers[:, FLIP] < 0.5).view(-1, 1, 1, 1)
            pixels = torch.where(mirrored, pixels.flip(3), pixels)
        if strength := self.recipe.jitter:
            pixels = augmentation.jitter(pixels, numbers[:, JITTER], numbers[:, ORDER], strength)
        if deviation := self.recipe.lighting:
            pixels = pixels + 255 * augmentation.light(numbers[:, LIGHT], deviation)
        return pixels


class Linear(Augmented):
    """To name the class of an image, by a classifier for each of the layers NAMES of TRUNK.

    LABELS, int32 (N,), are those of the lines of the manifest, below CLASSES; RECIPE says how an
    image is shown. With SHAPES, {layer: of its features}, what comes for pixels is the features
    themselves.
    """

    def __init__(
        self,
        trunk: Trunk,
        names: Sequence[str],
        labels: np.ndarray,
        classes: int,
        recipe: LinearRecipe,
        shapes: Shapes | None = None,
    ) -> None:
        self.trunk, self.names, self.recipe, self.shapes = trunk, names, recipe, shapes
        self.labels = torch.from_numpy(labels)
        self.chance = len(names) * math.log(classes)

    def features(self, pixels: torch.Tensor, drawn: np.ndarray) -> list[torch.Tensor]:
        """Return the features of each layer, float32 N x C x h x w."""
        if self.shapes:
            parts = pixels.split([math.prod(shape) for shape in self.shapes.values()], 1)
            return [p.unflatten(1, s) for p, s in zip(parts, self.shapes.values(), strict=True)]
        return read(self.trunk, self.names, self.augmented(pixels, drawn))

    def score(
        self, network: nn.Module, pixels: torch.Tensor, drawn: np.ndarray, lines: torch.Tensor
    ) -> Score:
        """Return the Score of the heads NETWORK, with the mean of their accuracies.

        PIXELS is uint8 N x S x S x 3 where the network is, DRAWN float64 (N, draws), LINES those of
        the manifest. A loss is that of an image, summed over the heads.
        """
        label = self.labels[lines].long().to(pixels.device)
        logits = network(self.features(pixels, drawn))
        losses = [functional.cross_entropy(x.float(), label, reduction="sum") for x in logits]
        loss = functools.reduce(operator.add, losses)
        right = torch.stack([(each.argmax(1) == label).sum() for each in logits]).sum()
        weight = torch.tensor(float(len(label)))
        return Score(loss, weight, {"accuracy": (right, len(label) * len(logits))})


def read(trunk: Trunk, names: Sequence[str], pixels: torch.Tensor) -> list[torch.Tensor]:
    """Return the features of the layers NAMES of TRUNK, N x C x h x w each; PIXELS as it reads."""
    return list(features.pooled_maps(trunk, features.maps(trunk, names, pixels)).values())


class Heads(nn.Module):
    """A classifier for each of SHAPES, channels x height x width: batch norm, then one product.

    Batch norm is over a channel's places; it has scale and shift only with AFFINE.
    """

    def __init__(
        self, shapes: Iterable[tuple[int, ...]], classes: int, momentum: float, affine: bool
    ) -> None:
        super().__init__()
        self.heads, products = nn.ModuleList(), list[nn.Linear]()
        for shape in shapes:
            norm = nn.BatchNorm2d(shape[0], momentum=momentum, affine=affine)
            product = nn.Linear(math.prod(shape), classes)
            self.heads.append(nn.Sequential(norm, nn.Flatten(), product))
            products.append(product)
        for product in products:  # after all were made, which draw as well
            nn.init.normal_(product.weight, std=0.01)
            nn.init.zeros_(product.bias)

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [head(each) for head, each in zip(self.heads, features, strict=True)]


class Shown:
    """Return the middle of uint8 H x W x 3, 3 x SIZE x SIZE, as augmentation.side_crop() does."""

    def __init__(self, size: int, warp: bool) -> None:
        self.size, self.warp = size, warp

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return augmentation.side_crop(image, self.size, self.warp).permute(2, 0, 1)
