"""Policies: from what is seen of the last four frames to the scores of actions; many at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ssl_common.models import registry

FRAMES = 4  # the last ones, which a policy sees side by side as channels


@dataclass(frozen=True)
class Design:
    """The layers of a policy: CONVOLUTIONS (channels, kernel, stride), and the widths of the FULL.

    Each is followed by a ReLU; the scores of actions come last.
    """

    convolutions: tuple[tuple[int, int, int], ...]
    full: tuple[int, ...]


# As midlevel-reps reads 8 x 16 x 16, and the network of Mnih et al. (Nature 2015) for pixels.
DESIGNS = {
    "embedding": Design(((32, 4, 2),), (1024, 512)),
    "atari": Design(((32, 8, 4), (64, 4, 2), (64, 3, 1)), (512,)),
}


def body(design: str, shape: Sequence[int]) -> nn.Sequential:
    """Return the policy of DESIGN without its last layer, for frames seen as SHAPE (C, h, w).

    N x 4C x h x w gives N x its last width. Drawn from torch's own generator, as torch does.
    """
    layers, channels, size = list[nn.Module](), FRAMES * shape[0], shape[1]
    for filters, kernel, stride in DESIGNS[design].convolutions:
        layers += [nn.Conv2d(channels, filters, kernel, stride), nn.ReLU()]
        channels, size = filters, (size - kernel) // stride + 1
    layers.append(nn.Flatten())
    width = channels * size * size
    for wide in DESIGNS[design].full:
        layers += [nn.Linear(width, wide), nn.ReLU()]
        width = wide
    return nn.Sequential(*layers)


def policy(design: str, shape: Sequence[int], actions: int) -> nn.Sequential:
    """Return a policy of DESIGN for frames seen as SHAPE, with scores of so many ACTIONS."""
    return nn.Sequential(*body(design, shape), nn.Linear(DESIGNS[design].full[-1], actions))


class Policies(nn.Module):
    """Policies of RUNS runs side by side: that of a run is policy(), drawn from SEED + run.

    The same weights in stacks: R x N x 4C x h x w, or 1 x N for what all see alike, gives
    R x N x actions.
    """

    def __init__(
        self, design: str, shape: Sequence[int], actions: int, runs: int, seed: int
    ) -> None:
        super().__init__()
        each = []
        for run in range(runs):
            with registry.seeded(seed + run):
                each.append(policy(design, shape, actions))
        self.runs = runs
        self.strides = [stride for _filters, _kernel, stride in DESIGNS[design].convolutions]
        layers: list[Any] = [_stacked(list(same)) for same in zip(*each, strict=True)]
        self.convolutions: Any = nn.ModuleList(x for x in layers if x and x.weight.dim() == 4)
        self.full: Any = nn.ModuleList(x for x in layers if x and x.weight.dim() == 3)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        runs, count = seen.shape[:2]
        if runs != self.runs:
            seen = seen.expand(self.runs, *seen.shape[1:])
        joint = seen.transpose(0, 1).flatten(1, 2)  # N x R 4C x h x w: a group is a run
        for layer, stride in zip(self.convolutions, self.strides, strict=True):
            joint = functional.conv2d(joint, layer.weight, layer.bias, stride, groups=self.runs)
            joint = functional.relu(joint)
        values = joint.reshape(count, self.runs, -1).transpose(0, 1)  # R x N x width
        for number, layer in enumerate(self.full):
            values = functional.relu(values) if number else values
            # One by one: a product of stacks takes more than twice as long on a CPU.
            each = zip(values, layer.weight, layer.bias, strict=True)
            values = torch.stack([functional.linear(*of_a_run) for of_a_run in each])
        return values

    def fill(self, run: int, one: nn.Sequential) -> None:
        """Let the policy of RUN be ONE, of policy()."""
        with torch.no_grad():
            for part, alone in self._parts(run, one):
                part.copy_(alone.reshape(-1))

    def into(self, run: int, one: nn.Sequential) -> None:
        """Let ONE, of policy(), be the policy of RUN."""
        with torch.no_grad():
            for part, alone in self._parts(run, one):
                alone.copy_(part.view_as(alone))

    def _parts(self, run: int, one: nn.Sequential) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (the weights of RUN in a stack, flat; those of ONE) of each layer."""
        alone = [each for each in one if isinstance(each, nn.Conv2d | nn.Linear)]
        for stack, single in zip([*self.convolutions, *self.full], alone, strict=True):
            for name in ("weight", "bias"):
                yield getattr(stack, name).reshape(self.runs, -1)[run], getattr(single, name)


class _Stack(nn.Module):
    """The weights and biases of a layer of all runs."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)


def _stacked(layers: Sequence[nn.Module]) -> _Stack | None:
    """Return the LAYERS of all runs, of one kind, as a stack; None where they have no weights."""
    first = layers[0]
    if isinstance(first, nn.Conv2d):  # of a convolution in groups, one after the other
        join: Any = torch.cat
    elif isinstance(first, nn.Linear):
        join = torch.stack
    else:
        return None
    return _Stack(
        *(join([getattr(each, n).detach() for each in layers]) for n in ("weight", "bias"))
    )
