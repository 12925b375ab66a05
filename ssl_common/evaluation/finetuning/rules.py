"""Update rules: at which rate the parameters of a network learn, and how they decay.

The authors' program decides by the names of blobs in Caffe2. Their configurations say that biases
do not decay and learn at twice the rate (NO_BIAS_DECAY) and that batch norm keeps its scale and
shift (BN_NO_SCALE_SHIFT); what the program then does by names is more than that:

1. a name with "_bn" has no gradient with BN_NO_SCALE_SHIFT, but the decay of batch norm;
2. with NO_BIAS_DECAY a name with "_b" learns at twice the rate without decay: so do all
   convolutions in the branches of a ResNet, res2_0_branch2a_w;
3. with NO_BIAS_DECAY no other name decays either; without it all do, biases too.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from ssl_common.evaluation.finetuning.heads import Tuned
from ssl_common.evaluation.finetuning.recipes import FinetuneRecipe
from ssl_common.models.foreign import naming
from ssl_common.streams import DataError

BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
BIAS_RATE = 2.0


class Rule(NamedTuple):
    """How a parameter learns: what its gradient and the RATE are multiplied by, and its DECAY."""

    gradient: float
    rate: float
    decay: float

    @property
    def still(self) -> bool:
        """Whether the parameter stays as it is."""
        return not self.gradient and not self.decay


def rules(network: Tuned, recipe: FinetuneRecipe) -> dict[str, Rule]:
    """Return {name of a parameter of NETWORK: its Rule} by RECIPE, of those that can learn.

    Raises DataError where its rule is the paper's, and NETWORK none that the paper has.
    """
    learning = [name for name, p in network.named_parameters() if p.requires_grad]
    if recipe.update_rule == "paper":
        blobs = dict(blob_names(network))
        return {name: published(blobs[name], recipe) for name in learning}
    norms = {
        f"{name}.{end}"
        for name, module in network.named_modules()
        if isinstance(module, BATCH_NORM)
        for end in ("weight", "bias")
    }
    return {name: clean(name, name in norms, recipe) for name in learning}


def clean(name: str, norm: bool, recipe: FinetuneRecipe) -> Rule:
    """Return the rule, as RECIPE means it, of the parameter NAME, which is of batch norm or not."""
    if norm:
        return Rule(float(recipe.bn_affine), 1.0, 0.0)
    if name.endswith("bias") and not recipe.decay_biases:
        return Rule(1.0, recipe.bias_rate or 1.0, 0.0)
    return Rule(1.0, 1.0, recipe.weight_decay)


def published(blob: str, recipe: FinetuneRecipe) -> Rule:
    """Return the rule that the authors' program has for a BLOB of Caffe2 by RECIPE."""
    if "_bn" in blob:
        return Rule(float(recipe.bn_affine), 1.0, recipe.bn_decay)
    if not recipe.decay_biases:
        return Rule(1.0, BIAS_RATE if "_b" in blob else 1.0, 0.0)
    return Rule(1.0, 1.0, recipe.weight_decay)


def blob_names(network: Tuned) -> Iterator[tuple[str, str]]:
    """Yield (name of a parameter of NETWORK, name of its blob in the authors' network).

    Raises DataError for a trunk that is none of the paper's.
    """
    arch = network.trunk.name
    family = {"caffenet": "alexnet"}.get(arch, arch.removesuffix("-lab").removesuffix("-stride4"))
    layouts = [each for each in naming.LAYOUTS if (each.kind, each.arch) == ("Caffe2", family)]
    if not layouts:
        message = f"--update-rule paper: it goes by the names of the paper's networks, and {arch}"
        raise DataError(f"{message} is none of them: give --update-rule clean")
    for name, _parameter in network.named_parameters():
        part, _dot, rest = name.partition(".")
        blob = layouts[0].name(rest) if part == "trunk" else _of_the_head(rest)
        # Colorization's AlexNet calls its batch norm conv1norm: no "_bn" in it.
        yield name, blob.replace("_bn_", "norm_") if arch == "alexnet-lab" else blob


def _of_the_head(name: str) -> str:
    layer, end = name.split(".")
    if layer.startswith("norm"):
        layer = layer.replace("norm", "fc") if layer != "norm" else "pool5"
        return f"{layer}_bn_{'s' if end == 'weight' else 'b'}"
    return f"{layer}_{'w' if end == 'weight' else 'b'}"


def prepare(network: Tuned, found: dict[str, Rule]) -> None:
    """Make the parameters of NETWORK without a gradient by the rules FOUND have none, or zeros."""
    for name, parameter in network.named_parameters():
        if name not in found:
            continue
        if found[name].still:
            parameter.requires_grad_(False)
        elif not found[name].gradient:  # it decays all the same
            parameter.register_hook(torch.zeros_like)


def groups(network: nn.Module, found: dict[str, Rule]) -> list[dict[str, Any]]:
    """Return the parameters of NETWORK, which has the rules FOUND, as an optimizer takes them."""
    together: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if name in found and not found[name].still:
            rule = found[name]
            together.setdefault((rule.rate, rule.decay), []).append(parameter)
    return [
        {"params": params, "rate": rate, "weight_decay": decay}
        for (rate, decay), params in together.items()
    ]
