"""A network in a folder, as the Hub of Hugging Face has those of timm: config.json and weights."""

import os
from collections.abc import Mapping
from typing import Any

from ssl_common import containers
from ssl_common.models import inputs
from ssl_common.models.foreign.metadata import Said
from ssl_common.models.inputs import Input
from ssl_common.models.trunk import Trunk
from ssl_common.streams import DataError

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
NAMES = (WEIGHTS, "pytorch_model.bin")  # as timm looks for them
Config = Mapping[str, Any]


def weights_in(path: str) -> tuple[str, Config]:
    """Return (the file of weights, config.json) in the folder PATH; (PATH, {}) where it is none.

    Raises DataError for a folder that holds no network.
    """
    if path == "-" or not os.path.isdir(path):
        return path, {}
    config = os.path.join(path, CONFIG)
    found = [os.path.join(path, name) for name in NAMES if os.path.isfile(os.path.join(path, name))]
    if not found or not os.path.isfile(config):
        raise DataError(f"{path}: a folder without {CONFIG} and {WEIGHTS}: name a file of weights")
    return found[0], containers.read_json(config)


def input_of(config: Config, arch: str, path: str) -> Input:
    """Return how images are taken as CONFIG, beside the weights PATH of timm's ARCH, says.

    Raises DataError where it says another network, or what no network takes.
    """
    if not config:
        return Input()
    there = config.get("architecture")
    if there != arch.partition(".")[0]:
        raise DataError(f"{path}: {CONFIG} beside it says {there}, not {arch}")
    how = config.get("pretrained_cfg", config)  # older ones are flat
    try:
        size = how.get("input_size")
        return inputs.checked(how.get("mean"), how.get("std"), size and int(size[-1]))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {CONFIG} beside it: {error}") from error


def check(config: Config, said: Said | None, path: str) -> None:
    """Raise DataError where CONFIG, beside the weights PATH, contradicts what these SAID."""
    if said is None:
        return
    arch, how = inputs.parsed(said.arch)
    theirs = config.get("architecture")
    if theirs != arch:
        raise DataError(f"{path}: its metadata say {arch}, and {CONFIG} beside it {theirs}")
    if said.reads == "rgb":
        there = input_of(config, arch, path)
        usual = inputs.usual()
        for word, a, b in zip(("mean", "std"), how[:2], there[:2], strict=True):
            ours = list(a or getattr(usual, word))
            if b is not None and list(b) != ours:
                raise DataError(
                    f"{path}: its metadata say {word} {ours}, and {CONFIG} beside it {list(b)}"
                )


def configuration(trunk: Trunk, settings: Mapping[str, Any], features: int) -> dict[str, Any]:
    """Return the config.json of TRUNK, which gives so many FEATURES, as timm reads it.

    SETTINGS are those of a file of ours. A network of lightness has its channel; that this is L of
    Lab stands in the metadata of its weights, for which timm has no word.
    """
    lab, side = trunk.reads == "lab", trunk.input_size
    how: dict[str, Any] = {"mean": list(trunk.mean), "std": list(trunk.deviation)}
    taken: dict[str, Any] = {
        "input_size": [1 if lab else 3, side, side],
        "fixed_input_size": False,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "squash",  # the whole image, warped, as its features were measured
        **({} if lab else how),
        "num_classes": 0,
        "pool_size": [7, 7],
        "first_conv": "conv1",
        "classifier": "fc",
    }
    if settings.get("pretext"):
        taken["tag"] = settings["pretext"]
    if settings.get("license"):
        taken["license"] = settings["license"]
    return {
        "architecture": trunk.name.removesuffix("-lab").partition("?")[0],
        "num_classes": 0,
        "num_features": features,
        "global_pool": "avg",
        "pretrained_cfg": taken,
    }
