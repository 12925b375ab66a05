"""The Jigsaw puzzle: cut an image into 3 x 3 tiles, shuffle them, name the permutation.

Section 3.1 of the paper, after Noroozi and Favaro (ECCV 2016). Sizes, order and gray are those of
the authors' own loader and config (fair_self_supervision_benchmark, pull request 24).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ssl_common import streams
from ssl_common.data.pixels import crop_short, standardize
from ssl_common.objective import Score
from ssl_common.pretext.options import JigsawOptions
from ssl_common.pretext.permutations import load as load_permutations
from ssl_common.pretext.pretext import Pretext
from ssl_common.streams import DataError

SHORT_SIDE, CROP, GRID, CELL, TILE = 256, 255, 3, 85, 64  # pixels, but GRID
TILES = GRID * GRID
GRAY = 0.5  # probability that an image is shown in gray
PROJECTED = 0.5  # of the others, that its colours are projected, where that is asked for
AXIS = (-1.0, 2.0, -1.0)  # green against magenta: what lens aberration shifts at the borders
FC6 = 1024


class Jigsaw(Pretext):
    """The pretext task over PERMUTATIONS, int64 (|P|, 9), 0-based.

    With COLOR_PROJECTION half of the images that are not gray lose the colour along AXIS. Workers
    crop; all else is drawn and done for a whole batch, where the network is.
    """

    name, reads = "jigsaw", "rgb"
    draws = 2 + 1 + 2 * TILES + 1  # the crop, the permutation, the jitter, gray

    def __init__(self, permutations: np.ndarray, color_projection: bool = False):
        self.permutations, self.color_projection = permutations, color_projection
        self.chance = math.log(len(permutations))  # the loss of a network that only guesses

    @classmethod
    def load(cls, options: JigsawOptions) -> "Jigsaw":
        """Return the task of OPTIONS; raise DataError unless its permutations have 9 tiles."""
        permutations = load_permutations(options.permutations)
        if permutations.shape[1] != TILES:
            message = f"{permutations.shape[1]} tiles, but the puzzle has {TILES}"
            fix = f"make-permutations -t {TILES}"
            raise DataError(f"{streams.name(options.permutations)}: {message}: {fix}")
        return cls(permutations, options.color_projection)

    @staticmethod
    def file(options: JigsawOptions) -> str:
        """Return the file that OPTIONS name."""
        return options.permutations

    @classmethod
    def restore(cls, content: Mapping[str, Any]) -> "Jigsaw":
        """Return the task by which a finished network was trained, from the CONTENT of its file."""
        return cls(
            content["permutations"].numpy(), content["settings"].get("color_projection", False)
        )

    def settings(self) -> dict[str, object]:
        """Return the settings of the task that decide the result, plain values."""
        return {
            "permutations": len(self.permutations),
            "permutations_digest": streams.digest(self.permutations.tobytes()),
            "color_projection": self.color_projection,
        }

    def arrays(self) -> dict[str, torch.Tensor]:
        """Return what restore() needs, tensors by name."""
        return {"permutations": torch.from_numpy(self.permutations)}

    def crop(self, image: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
        """Return a crop 255 x 255 x 3 of IMAGE, uint8 H x W x 3, its short side resized to 256."""
        return crop_short(image, SHORT_SIDE, CROP, numbers[:2].tolist())

    def draw(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return label int64 (N,), jitter int64 N x 9 x 2 (x, y) and gray bool (N,).

        They are what NUMBERS, float64 (N, draws) in [0, 1), stand for.
        """
        label = (numbers[:, 2] * len(self.permutations)).astype(np.int64)
        jitter = (numbers[:, 3:-1] * (CELL - TILE)).astype(np.int64).reshape(-1, TILES, 2)
        return label, jitter, numbers[:, -1] < GRAY

    def puzzle(
        self, pixels: torch.Tensor, numbers: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (tiles N x 9 x 3 x 64 x 64 as the network sees them, label) of uint8 PIXELS."""
        labels, jitters, grays = self.draw(numbers)
        order, jitter, gray, label = (
            torch.from_numpy(part).to(pixels.device, non_blocking=True)
            for part in (self.permutations[labels], jitters, grays, labels)
        )
        tiles = normalize(cut(pixels, order, jitter), gray)
        if self.color_projection:
            # Or gray, which it leaves as it is.
            projected = numbers[:, -1] < GRAY + (1 - GRAY) * PROJECTED
            tiles = project(tiles, torch.from_numpy(projected).to(pixels.device))
        return tiles, label

    def network(self, trunk: nn.Module) -> nn.Module:
        """Return the network to train on TRUNK."""
        return JigsawNet(trunk, len(self.permutations))

    def score(
        self,
        network: nn.Module,
        batch: torch.Tensor,
        draws: np.ndarray,
        lines: torch.Tensor | None = None,
    ) -> Score:
        """Return the Score of NETWORK on a batch; its accuracy is that of the permutation.

        BATCH is uint8 N x 255 x 255 x 3 where the network is, DRAWS float64 (N, draws).
        """
        tiles, label = self.puzzle(batch, draws)
        logits = network(tiles)
        loss = functional.cross_entropy(logits.float(), label, reduction="sum")
        right = (logits.argmax(1) == label).sum()
        return Score(loss, torch.tensor(float(len(label))), {"accuracy": (right, len(label))})


def cut(pixels: torch.Tensor, order: torch.Tensor, jitter: torch.Tensor) -> torch.Tensor:
    """Cut PIXELS (N x 255 x 255 x 3) into tiles N x 9 x 3 x 64 x 64, shuffled.

    Gather: place t gets tile ORDER[n, t]. Tile 3i + j lies in column i and row j: column-major, as
    in the authors' loader. A tile is the 64-pixel crop of its 85-pixel cell that JITTER[n, tile],
    (x, y), shifts, so that edges do not run on from one tile to the next.
    """
    cell = torch.stack([order // GRID, order % GRID], 2) * CELL  # (x, y) of its corner
    corner = cell + jitter.gather(1, order[:, :, None].expand(-1, -1, 2))
    x, y = (corner[..., None] + torch.arange(TILE, device=pixels.device)).unbind(2)  # N x 9 x 64
    image = torch.arange(len(pixels), device=pixels.device)[:, None, None, None]
    return pixels[image, y[:, :, :, None], x[:, :, None, :]].permute(0, 1, 4, 2, 3)


def normalize(tiles: torch.Tensor, gray: torch.Tensor) -> torch.Tensor:
    """Return uint8 TILES (N x 9 x 3 x 64 x 64) as float, standardised; those of GRAY (N) in gray.

    Gray is the plain mean of the standardised channels, for all nine tiles of an image alike.
    """
    tiles = standardize(tiles)
    return torch.where(gray.view(-1, 1, 1, 1, 1), tiles.mean(2, keepdim=True), tiles)


def project(tiles: torch.Tensor, projected: torch.Tensor) -> torch.Tensor:
    """Return TILES (N x 9 x 3 x 64 x 64), those of PROJECTED (N) without their part along AXIS."""
    axis = torch.tensor(AXIS, device=tiles.device) / math.sqrt(6)  # of length 1
    plane = torch.eye(3, device=tiles.device) - torch.outer(axis, axis)
    flat = torch.einsum("ij,ntjyx->ntiyx", plane, tiles)
    return torch.where(projected.view(-1, 1, 1, 1, 1), flat, tiles)


class JigsawNet(nn.Module):
    """The siamese network: one trunk and one fc6 for every tile, then fc7 over their concatenation.

    TRUNK maps N x 3 x 64 x 64 to N x FEATURES once flattened. Batch norm is over all N x 9 tiles.
    """

    def __init__(self, trunk: nn.Module, permutations: int):
        super().__init__()
        self.trunk = trunk
        with torch.no_grad():
            features = trunk.eval()(torch.zeros(1, 3, TILE, TILE)).numel()
        self.fc6 = nn.Linear(features, FC6)
        self.bn6 = nn.BatchNorm1d(FC6)
        self.fc7 = nn.Linear(TILES * FC6, permutations)
        for layer in (self.fc6, self.fc7):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        towers = self.trunk(tiles.flatten(0, 1)).flatten(1)  # 9N x features
        fc6 = functional.relu(self.bn6(self.fc6(towers)))  # 9N x 1024
        return self.fc7(fc6.view(len(tiles), -1))  # N x |P|
