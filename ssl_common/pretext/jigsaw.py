"""The Jigsaw puzzle: cut an image into 3 x 3 tiles, shuffle them, name the permutation.

Section 3.1 of the paper, after Noroozi and Favaro (ECCV 2016). Sizes, order and gray are those of
the authors' own loader and config (fair_self_supervision_benchmark, pull request 24).
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ssl_common.data.images import resize_short
from ssl_common.data.loading import standardize
from ssl_common.pretext import permutations
from ssl_common.streams import DataError, name

SHORT_SIDE, CROP, GRID, CELL, TILE = 256, 255, 3, 85, 64  # pixels, but GRID
TILES = GRID * GRID
GRAY = 0.5  # probability that an image is shown in gray
FC6 = 1024


def load(path):
    """Read the permutations of the puzzle, as permutations.load; raise DataError unless 9 tiles."""
    chosen = permutations.load(path)
    if chosen.shape[1] != TILES:
        message = f"{name(path)}: {chosen.shape[1]} tiles, but the puzzle has {TILES}"
        raise DataError(f"{message}: make-permutations -t {TILES}")
    return chosen


class Puzzle:
    """Turn an RGB image into a puzzle over PERMUTATIONS, int64 (|P|, 9), 0-based."""

    def __init__(self, permutations):
        self.permutations = permutations

    def __call__(self, image, rng):
        """Return (tiles uint8 9 x 3 x 64 x 64, gray, label), all drawn from the generator RNG."""
        pixels, label, jitter, gray = self.draw(image, rng)
        return shuffle(cut(pixels, jitter), self.permutations[label]), gray, label

    def draw(self, image, rng):
        """Return what RNG draws: (pixels 255 x 255 x 3, label, jitter 9 x 2 as in cut(), gray)."""
        image = resize_short(image, SHORT_SIDE)
        left, top = (int(rng.integers(side - CROP + 1)) for side in image.size)
        pixels = np.asarray(image.crop((left, top, left + CROP, top + CROP)))
        label = int(rng.integers(len(self.permutations)))
        jitter = rng.integers(CELL - TILE, size=(TILES, 2))
        return pixels, label, jitter, rng.random() < GRAY


def cut(pixels, jitter):
    """Cut PIXELS (255 x 255 x 3) into 9 x 3 x 64 x 64 tiles; JITTER (9, 2) is each one's (x, y).

    Tile 3i + j lies in column i and row j: column-major, as in the authors' loader. A tile is a
    64-pixel crop of its 85-pixel cell, so that edges do not run on from one tile to the next.
    """
    tiles = np.empty((TILES, 3, TILE, TILE), pixels.dtype)
    for index, (x, y) in enumerate(jitter):
        column, row = divmod(index, GRID)
        x, y = CELL * column + x, CELL * row + y
        tiles[index] = pixels[y : y + TILE, x : x + TILE].transpose(2, 0, 1)
    return tiles


def shuffle(tiles, permutation):
    """Gather: place t of the puzzle gets tile permutation[t]."""
    return tiles[permutation]


def normalize(tiles, gray):
    """Return uint8 TILES (N x 9 x 3 x 64 x 64) as float, standardised; GRAY (N) ones lose colour.

    Gray is the plain mean of the standardised channels, for all nine tiles of an image alike.
    """
    tiles = standardize(tiles)
    return torch.where(gray.view(-1, 1, 1, 1, 1), tiles.mean(2, keepdim=True), tiles)


class JigsawNet(nn.Module):
    """The siamese network: one trunk and one fc6 for every tile, then fc7 over their concatenation.

    TRUNK maps N x 3 x 64 x 64 to N x FEATURES once flattened. Batch norm is over all N x 9 tiles.
    """

    def __init__(self, trunk, permutations):
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

    def forward(self, tiles):
        towers = self.trunk(tiles.flatten(0, 1)).flatten(1)  # 9N x features
        fc6 = functional.relu(self.bn6(self.fc6(towers)))  # 9N x 1024
        return self.fc7(fc6.view(len(tiles), -1))  # N x |P|


def score(network, batch, device):
    """Return (loss, number right, number) of NETWORK on a BATCH of puzzles."""
    tiles, gray, label = (part.to(device, non_blocking=True) for part in batch)
    logits = network(normalize(tiles, gray))
    return functional.cross_entropy(logits, label), (logits.argmax(1) == label).sum(), len(label)
