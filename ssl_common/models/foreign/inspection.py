"""What a file of weights holds, in words."""

import re
from collections.abc import Iterator

import torch

from ssl_common import legible
from ssl_common.models import inputs, states
from ssl_common.models.foreign import recognition
from ssl_common.models.foreign.recognition import Network
from ssl_common.models.foreign.weights import PLAIN, Weights
from ssl_common.models.trunk import Trunk

NAMED = 4  # names of what is left out in one line


def left_out(weights: Weights) -> str:
    """Return the tensors of WEIGHTS that are not taken, as part of a line; "" if there is none."""
    names = weights.left_out()
    momenta = [name for name in names if name.endswith("_momentum")]
    towers = [name for name in names if re.search(r"_s[1-8]_", name) and name not in momenta]
    rest = [name for name in names if name not in {*momenta, *towers}]
    parts = [f"{len(momenta)} momenta"] * bool(momenta)
    parts += [f"{len(towers)} of other towers"] * bool(towers)
    parts += rest[:NAMED] + [f"{len(rest) - NAMED} more"] * (len(rest) > NAMED)
    return f"; left out {', '.join(parts)}" if parts else ""


def lines(weights: Weights) -> Iterator[str]:
    """Yield all there is to say of WEIGHTS, line by line: a word, a tab, what it is."""
    for fields in _rows(weights):
        yield "\t".join(map(legible.text, fields))


def _rows(weights: Weights) -> Iterator[tuple[object, ...]]:
    yield "file", weights.path
    yield from _about(weights)
    yield from (("setting", name, value) for name, value in weights.settings().items())
    yield from (("wrong", what) for what in weights.wrong)
    yield from (("unusual", what) for what in weights.unusual)
    for ours, name in weights.taken.items():
        yield "used", name, states.kind(weights.values[name]), ours
    names = set(weights.left_out())
    for name, value in weights.values.items():
        if name in names or not isinstance(value, (torch.Tensor, *PLAIN)):
            yield "unused", name, states.kind(value)


def _about(weights: Weights) -> Iterator[tuple[object, ...]]:
    """Yield the rows on the network."""
    count, own = sum(weights.values[name].numel() for name in weights.tensors()), 0
    network = weights.network
    yield "format", network.layout.kind if network else "unknown"
    yield "network", network.arch if network else "unknown"
    yield "pretext", network.pretext or "unknown" if network else "unknown"
    if network is None:
        yield "remedy", recognition.remedy(weights.values)
    trunk = weights.skeleton
    if network and trunk:
        own = sum(weight.numel() for weight in trunk.parameters())
        if network.pretext and not network.certain:
            yield "inferred", "pretext"
        if weights.prefix:
            yield "prefix", weights.prefix
        if network.permutations is not None:
            yield "permutations", network.permutations
        yield "layers", " ".join(trunk.pooling)
        yield "input", _input(weights, network, trunk)
    yield "parameters", f"{own} of the trunk, in a file of {count} numbers"


def _input(weights: Weights, network: Network, trunk: Trunk) -> str:
    """Return what NETWORK, whose TRUNK it is, of the file of WEIGHTS reads of an image."""
    if network.reads == "lab":
        return "L of CIE Lab, from -50 to 50"
    scale = "0 to 255, less the mean of ImageNet"
    if network.arch != "caffenet" or weights.own or weights.said:
        scale = "0 to 1, less the mean of ImageNet, by its standard deviation"
    if (trunk.mean, trunk.deviation) != inputs.usual()[:2]:
        step = -1 if network.order == "bgr" else 1
        mean, deviation = (list(each)[::step] for each in (trunk.mean, trunk.deviation))
        scale = f"0 to 1, less {mean}, by {deviation}"
    return f"{network.order.upper()}, {scale}"
