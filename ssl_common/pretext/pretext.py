"""A pretext task: the puzzle that images are turned into, and the score of an answer."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import nn

from ssl_common.objective import Objective


class Pretext(Objective):
    """A pretext task: pictures that cost nothing to label, from which a network learns.

    It has two halves. `crop` works on one image, in a worker that reads; the rest works on a batch,
    where the network is. Nothing is drawn at random: both are given the same numbers of an image,
    which depend on (seed, epoch, image) alone, so the order of the work changes nothing.

    `name` is what the command line and records call it. `reads` is what its trunk is given, a key
    of color.READERS. Its options are of the class that pretext.options has for its name.
    """

    name: ClassVar[str]
    reads: ClassVar[str]

    @classmethod
    def load(cls, options: Any) -> Self:
        """Return the task of OPTIONS; raise DataError for a wrong file."""
        raise NotImplementedError

    @staticmethod
    def file(options: Any) -> str | None:
        """Return the file that OPTIONS name, or None."""
        raise NotImplementedError

    @classmethod
    def restore(cls, content: Mapping[str, Any]) -> Self:
        """Return the task by which a finished network, the CONTENT of its file, was trained."""
        raise NotImplementedError

    def settings(self) -> dict[str, object]:
        """Return the settings of the task that decide the result, plain values."""
        raise NotImplementedError

    def arrays(self) -> dict[str, torch.Tensor]:
        """Return the tensors that restore() needs, by the names they have in the file."""
        raise NotImplementedError

    def network(self, trunk: nn.Module) -> nn.Module:
        """Return the network to train: TRUNK and the layers that solve the puzzle."""
        raise NotImplementedError
