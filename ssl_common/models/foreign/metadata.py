"""What a file of weights itself says of its network: how to feed it, and what trained it.

Text by text, as safetensors has it; ssl-formats(5) says what each is, so that others may write and
read it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ssl_common import formats, legible
from ssl_common.models import inputs, registry
from ssl_common.models.foreign import safetensors
from ssl_common.models.inputs import Input
from ssl_common.models.trunk import Trunk
from ssl_common.streams import DataError

VERSION = str(formats.METADATA.version)
KEY = "ssl_bench"  # the entry by which it is known, and what holds it in a file of torch.save
PLACES = (f"{safetensors.METADATA}.", f"{KEY}.")
LAB = "L of CIE Lab (D65) of sRGB: round(L * 255 / 100) * 100 / 255 - 50"
FIELDS = tuple(formats.SAID)  # of the settings, what stands by itself too


@dataclass(frozen=True)
class Said:
    """What a file says of its network: ARCH that READS rgb or lab, its weights called by NAMES.

    ORDER is that of the channels of its first weights, rgb or bgr; DIGEST that of the trunk, None
    where it says none; SETTINGS are as in a file of ours.
    """

    arch: str
    reads: str
    names: str
    order: str = "rgb"
    digest: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def of(trunk: Trunk, digest: str, settings: Mapping[str, Any], names: str) -> dict[str, str]:
    """Return the metadata of TRUNK, whose weights are called as in NAMES, and of its SETTINGS.

    DIGEST is that of TRUNK, which takes as long to find as to read and write the weights.
    """
    side, lab = trunk.input_size, trunk.reads == "lab"
    how: dict[str, Any] = {"channels": "L", "lab": LAB} if lab else {"channels": "RGB"}
    if not lab:
        how |= {"mean": list(trunk.mean), "std": list(trunk.deviation)}
    said: dict[str, Any] = {
        "format": "pt",
        KEY: VERSION,
        "arch": trunk.name.removesuffix("-lab").partition("?")[0],
        "names": names,
        **how,
        "input_size": [1 if lab else 3, side, side],
        **{name: settings.get(name) for name in FIELDS},
        "digest": digest,
        "settings": _finite(settings),
    }
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in said.items()
        if value is not None
    }


def _finite(value: Any) -> Any:
    """Return the plain VALUE with null for what JSON does not have: NaN, and infinity."""
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(values: Mapping[str, Any], path: str) -> Said | None:
    """Return what VALUES of the file PATH, {dotted name: value}, say; None where they say nothing.

    Raises DataError for what contradicts itself, and for a network that is not known here.
    """
    place = next((place for place in PLACES if f"{place}{KEY}" in values), None)
    if place is None:
        return None
    said = {
        name.removeprefix(place): value
        for name, value in values.items()
        if name.startswith(place) and isinstance(value, str)
    }
    found = formats.METADATA.check(said, path)
    try:
        return _said(found)
    except ValueError as error:
        raise DataError(f"{path}: its metadata: {legible.line(error)}") from error


def _said(said: Mapping[str, Any]) -> Said:
    """Return what SAID, as formats.METADATA has it, means; ValueError where that is nothing."""
    arch, channels = said["arch"], said.get("channels", "RGB")
    if arch not in registry.TRUNKS:
        raise ValueError(f"arch is {arch!r}: there are {', '.join(registry.TRUNKS)}")
    reads = "lab" if channels == "L" else "rgb"
    name = arch if reads == "rgb" else f"{arch}-lab"
    if name not in registry.TRUNKS:
        raise ValueError(f"channels is L, and there is no {arch} that reads lightness")
    lab = said.get("lab")
    if lab is not None and (reads, lab) != ("lab", LAB):
        raise ValueError(f"lab is {lab!r}: that of channels L is {LAB!r}")
    mean, std = said.get("mean"), said.get("std")
    if reads == "lab" and (mean or std):
        raise ValueError("channels is L, and mean and std are of RGB")
    how, kind = inputs.checked(mean, std), registry.TRUNKS[name]
    if channels == "BGR":
        how = Input(how.mean and how.mean[::-1], how.std and how.std[::-1])
    size = [1 if reads == "lab" else 3, kind.input_size, kind.input_size]
    if said.get("input_size", size) != size:
        raise ValueError(f"input_size is {said['input_size']}, and {name} takes {size}")
    if (how.mean or kind.mean, how.std or kind.deviation) == (kind.mean, kind.deviation):
        how = Input()  # the usual way, which no name says
    settings = dict(said.get("settings", {})) | {key: said[key] for key in FIELDS if key in said}
    names, order = said.get("names", "ssl-bench"), "bgr" if channels == "BGR" else "rgb"
    arch = f"{arch}{how}"
    settings |= {"arch": arch, "reads": reads}
    return Said(arch, reads, names, order, said.get("digest"), settings)
