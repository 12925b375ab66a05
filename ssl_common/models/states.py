"""States of networks, {name: tensor}: whether one fits a network, and putting it there."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ssl_common import streams
from ssl_common.streams import DataError


def kind(value: Any) -> str:
    """Return what two tensors have in common that can be copied, in words: real 64 x 3 x 7 x 7."""
    if not isinstance(value, torch.Tensor):
        return "dict" if isinstance(value, dict) else getattr(value, "name", type(value).__name__)
    if value.layout != torch.strided or value.is_quantized:
        return "a tensor without plain numbers"
    kind = "real" if value.is_floating_point() else "complex" if value.is_complex() else "integer"
    return f"{kind} {' x '.join(map(str, value.shape)) or 1}"


def unfit(name: str, value: torch.Tensor) -> str | None:
    """Return why no trained network has VALUE as its tensor NAME, in words; None if it may."""
    if value.is_meta:
        return "has no numbers"
    if value.is_complex() or not value.numel():
        return None if torch.isfinite(value).all() else "holds NaN or infinity"
    least, most = value.aminmax()  # in one pass; NaN is both, if there is one
    if not (torch.isfinite(least) and torch.isfinite(most)):
        return "holds NaN or infinity"
    if name.endswith("running_var") and least < 0:
        return "holds negative variances"
    return None


def misfits(module: nn.Module, state: Mapping[str, Any]) -> Iterator[str]:
    """Yield what stands between STATE and MODULE, in words, tensor by tensor."""
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        value = state.get(name)
        if value is None:
            yield f"no {name}"
        elif kind(value) != kind(tensor):
            yield f"{name} is {kind(value)}, not {kind(tensor)}"
        elif value.dtype != tensor.dtype:
            dtype, right = (str(each.dtype).removeprefix("torch.") for each in (value, tensor))
            yield f"{name} is {dtype}, not {right}"
        elif why := unfit(name, value):
            yield f"{name} {why}"
    yield from (f"{name}, for which it has no place" for name in state if name not in wanted)


def summed(wrong: Sequence[str]) -> str:
    """Return what is WRONG, a list of words, as part of a line: the first, and how many more."""
    return f"{wrong[0]}, and {len(wrong) - 1} more like it" if len(wrong) > 1 else wrong[0]


def fill(module: nn.Module, state: Any, path: str, what: str) -> None:
    """Copy STATE into MODULE, WHAT, whose weights the file PATH is to hold.

    Raises DataError that names the first tensor which is missing, unknown, of another shape or
    type, or none of a trained network.
    """
    if not isinstance(state, dict):
        raise DataError(f"{path}: not the weights of {what}, but {kind(state)}")
    if wrong := list(misfits(module, state)):
        raise DataError(f"{path}: not the weights of {what}: {summed(wrong)}")
    with torch.no_grad():
        # Not by load_state_dict: MNASNet's asks for a version that stands beside the weights.
        for name, tensor in module.state_dict().items():
            tensor.copy_(state[name])


def lend(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Make the tensors of STATE those of MODULE, which they fit in name, shape and type.

    Each becomes one that lies whole and alone in its memory: no copy where it does already.
    """
    module.load_state_dict({name: _alone(tensor) for name, tensor in state.items()}, assign=True)


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """Return TENSOR, or a copy where its memory is not in order or holds more: all is saved."""
    size = tensor.numel() * tensor.dtype.itemsize
    is_alone = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == size
    return tensor if is_alone else tensor.clone(memory_format=torch.contiguous_format)


def digest(module: nn.Module) -> str:
    """Return the digest of the state of MODULE: its names and numbers."""
    return streams.digest(pieces(module))


def pieces(module: nn.Module) -> Iterator[Any]:
    """Yield what a digest of the state of MODULE is made of: its names and numbers."""
    for name, tensor in module.state_dict().items():
        yield name.encode()
        yield tensor.cpu().contiguous().view(-1).numpy()
