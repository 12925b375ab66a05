"""What a pretext task is: the puzzle that images are turned into, and how an answer is scored."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import nn

# Of a batch: the sum of the losses, the sum of their weights (the mean loss is one by the other),
# how many answers are right, and how many there are.
Score = tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]


class Pretext(Protocol):
    """A pretext task: pictures that cost nothing to label, from which a network learns.

    It has two halves. `crop` works on one image, in a worker that reads; the rest works on a batch,
    where the network is. Nothing is drawn at random: both are given the same numbers of an image,
    which depend on (seed, epoch, image) alone, so the order of the work changes nothing.

    `name` is what the command line and records call it. `reads` is what its trunk is given, a key
    of color.READERS. `file` is the argument of load() that is a file. `draws` is how many numbers
    an image takes, `chance` the mean loss of a network that only guesses.
    """

    name: ClassVar[str]
    reads: ClassVar[str]
    file: ClassVar[str]
    draws: ClassVar[int]
    chance: float

    @classmethod
    def load(cls, *args: Any, **options: Any) -> Self:
        """Return the task by its options of the command line; raise DataError for a wrong file."""

    @classmethod
    def restore(cls, content: Mapping[str, Any]) -> Self:
        """Return the task that a finished network, its file's CONTENT, was trained by."""

    def settings(self) -> dict[str, object]:
        """Return what of the task decides the result: plain values, for the settings of a run."""

    def arrays(self) -> dict[str, torch.Tensor]:
        """Return the tensors that restore() needs, by the names they have in the file."""

    def crop(self, image: torch.Tensor, numbers: np.ndarray, /) -> torch.Tensor:
        """Return the part of IMAGE, RGB uint8 H x W x 3, that NUMBERS (draws,) say.

        It is uint8 S x S x 3, of one size for all images.
        """

    def network(self, trunk: nn.Module) -> nn.Module:
        """Return the network to train: TRUNK and the layers that solve the puzzle."""

    def score(
        self,
        network: nn.Module,
        pixels: torch.Tensor,
        numbers: np.ndarray,
        lines: object = None,
        /,
    ) -> Score:
        """Return the Score of NETWORK on a batch.

        PIXELS are the crops, uint8 N x S x S x 3, where the network is; NUMBERS, float64 (N,
        draws), those that crop() was given; LINES, int64 (N,), the lines of the images.
        """
