"""Which network a file of weights holds, as far as its names, shapes and digest tell."""

import math
import re
from collections.abc import Mapping
from typing import Any

from ssl_common.models import backbones

# ---- Weights of torchvision ----------------------------------------------------------------------


def weights_by_digest(arch: str, digest: str) -> str | None:
    """Return the name of the weights of ARCH in torchvision's own file with the SHA-256 DIGEST.

    None for any other file. The names of its files end with the first digits of their digest.
    """
    for weights in backbones.weights_of(arch):
        end = re.search(r"-([0-9a-f]{8,})\.pth$", weights.url)
        if end and digest.startswith(end[1]):
            return weights.name
    return None


def weights_by_patches(arch: str, values: Mapping[str, Any]) -> str | None:
    """Return the name of weights of ARCH with as many patches as VALUES, {name: tensor}, have.

    None for what is no vision transformer, and where torchvision has no weights of that size.
    """
    ends = ("encoder.pos_embedding", "conv_proj.weight")
    tensors = [value for end in ends for name, value in values.items() if name.endswith(end)]
    if len(tensors) != 2 or [getattr(value, "ndim", 0) for value in tensors] != [3, 4]:
        return None
    # In pixels; of the places one is the class token, which the root of the others leaves out.
    side = math.isqrt(tensors[0].shape[1]) * tensors[1].shape[-1]
    sizes = {known.name: backbones.preprocessing(known)[0] for known in backbones.weights_of(arch)}
    return next((name for name, size in sizes.items() if size == side), None)
