"""Networks trained elsewhere: a state dict with others' names -> the weights of a trunk of ours."""

import torch

from ssl_common import streams
from ssl_common.models import registry
from ssl_common.streams import DataError

# architecture -> how the names of ours begin, and how those of torchvision do
TORCHVISION = {
    "resnet50": {
        "conv1.0.": "conv1.",
        "conv1.1.": "bn1.",
        "res2.": "layer1.",
        "res3.": "layer2.",
        "res4.": "layer3.",
        "res5.": "layer4.",
    }
}
COUNTS = "num_batches_tracked"  # of batch norm in training; older files have none
ADVICE = "save model.state_dict() with torch.save"


def torchvision(arch, path):
    """Return (trunk, names left out): the trunk ARCH with the weights in the file PATH.

    That holds a state dict by the names of torchvision.models, alone or as "state_dict" of another
    dict, with or without the "module." of DataParallel; what is not of the trunk, as the
    classifier, is left out. Raises DataError for another file, and where a weight of the trunk is
    missing or has another shape.
    """
    if arch not in TORCHVISION:
        raise DataError(f"torchvision:{arch}: no such network: there is {', '.join(TORCHVISION)}")
    if not path:
        raise DataError(f"torchvision:{arch}: no file of weights: write torchvision:{arch}:FILE")
    found = _state_dict(path)
    trunk = registry.build(arch, 0)
    state = trunk.state_dict()
    names = {_foreign(name, arch): name for name in state if COUNTS not in name}
    own = {name: state[ours] for name, ours in names.items()}
    wrong = [f"no {name}" for name in own if name not in found]
    wrong += [
        f"{name} is {_kind(found[name])}, not {_kind(tensor)}"
        for name, tensor in own.items()
        if name in found and _kind(found[name]) != _kind(tensor)
    ]
    if wrong:
        more = f", and {len(wrong) - 1} more like it" if len(wrong) > 1 else ""
        raise DataError(f"{path}: not the weights of torchvision's {arch}: {wrong[0]}{more}")
    trunk.load_state_dict({names[name]: found[name] for name in own}, strict=False)
    return trunk, sorted(found.keys() - own.keys())


def _foreign(name, arch):
    """Return what torchvision calls the weight NAME of our ARCH."""
    ours, theirs = next(pair for pair in TORCHVISION[arch].items() if name.startswith(pair[0]))
    return theirs + name.removeprefix(ours)


def _kind(tensor):
    """Return what two tensors have in common that can be copied, in words: real 64 x 3 x 7 x 7."""
    kind = "real" if tensor.is_floating_point() else "integer"
    return f"{kind} {' x '.join(map(str, tensor.shape)) or 1}"


def _state_dict(path):
    """Return {name: tensor} of the file PATH of torch.save; runs no code."""
    content = streams.read_tensors(path, "a file of weights")
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: no state dict, but {type(content).__name__}: {ADVICE}")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise DataError(f"{path}: {name!r} is {type(tensor).__name__}, not a tensor: {ADVICE}")
    state = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return {name: tensor for name, tensor in state.items() if COUNTS not in name}
