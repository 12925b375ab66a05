"""Networks trained elsewhere as networks of ours, and ours as others read them."""

import json
import os
from collections.abc import Mapping
from typing import Any

from ssl_common import containers, legible, records, schema, streams
from ssl_common.models import networks
from ssl_common.models.foreign import inspection, metadata, naming, safetensors, weights
from ssl_common.models.foreign.weights import Weights, read_timm, read_torchvision
from ssl_common.models.trunk import Trunk
from ssl_common.streams import DataError

STORED = schema.Plain(finite=False)  # what may stand in a file of ours
OTHERS = ("torchvision", "timm", "detectron2")  # which have ResNet-50 alone of ours
FORMS = ("ssl-bench", *OTHERS, "safetensors", "hub-dir")


def convert(weights: Weights, output: str, form: str, tags: Mapping[str, Any]) -> tuple[str, str]:
    """Write the trunk of WEIGHTS to OUTPUT in a FORM, one of FORMS but hub-dir.

    TAGS, {field: value}, join its settings. Returns what was done, in words, and the lines of a
    configuration that go with it, or "". Raises DataError where the file has no network that there
    is in that form.
    """
    trunk, settings = weights.trunk(lent=True), settings_of(weights, tags)
    refuse(weights, trunk, form)
    if form == "torchvision":
        networks.save(output, _renamed(trunk, naming.torchvision))
    elif form == "timm":
        _save_named(output, trunk, digest_of(weights, trunk), settings, "timm")
    elif form == "safetensors":
        _save_named(output, trunk, digest_of(weights, trunk), settings, naming.OWN.kind)
    elif form == "detectron2":
        networks.save(output, _detectron2(trunk, digest_of(weights, trunk), settings))
    else:
        content = {"format": networks.FORMAT, "settings": settings}
        networks.save(output, content | {"trunk": trunk.state_dict(), "head": {}})
    lines = detectron2_config(trunk, output) if form == "detectron2" else ""
    return in_words(weights, settings), lines


def refuse(weights: Weights, trunk: Trunk, form: str) -> None:
    """Raise DataError where the TRUNK of WEIGHTS is none in a FORM, or is already."""
    arch, _asked, how = trunk.name.partition("?")
    if form in OTHERS and arch != "resnet50":
        raise DataError(
            f"{weights.path}: {form} has no {arch} like this one: --to safetensors, or hub-dir"
        )
    if form == "torchvision" and how:
        raise DataError(
            f"{weights.path}: it takes images by another {how}, which a state dict does not say:"
            " --to timm, or safetensors"
        )
    if form == "ssl-bench" and weights.own:
        others = ", ".join(FORMS[1:])
        raise DataError(f"{weights.path}: a network of ours: it can become one --to {others}")


def in_words(weights: Weights, settings: Mapping[str, Any]) -> str:
    """Return what the network of WEIGHTS is, and what was taken of its file."""
    network = weights.known()
    report = f"{network.arch}, {settings['pretext'] or 'pretext unknown'}"
    permutations = settings.get("permutations")
    report += f", {permutations:,} permutations" if permutations else ""
    report += "".join(f"; unusual: {what}" for what in weights.unusual)
    report += f": {len(weights.taken)} of {len(weights.values)} names taken"
    report += "; the pretext is inferred" if settings.get("inferred") else ""
    return report + inspection.left_out(weights)


# ---- What others read ----------------------------------------------------------------------------


def names_for_timm(trunk: Trunk) -> bool:
    """Tell whether timm has a network like TRUNK, whose weights it calls as torchvision does."""
    return trunk.name.partition("?")[0] == "resnet50"


def digest_of(weights: Weights, trunk: Trunk) -> str:
    """Return the digest of TRUNK, which is that of WEIGHTS, and was checked where they say it."""
    return (weights.said and weights.said.digest) or trunk.digest()


def write_named(
    stream: Any, trunk: Trunk, digest: str, settings: Mapping[str, Any], names: str
) -> None:
    """Write TRUNK of DIGEST to STREAM as safetensors, its weights by NAMES: timm, or ssl-bench."""
    state = trunk.state_dict()
    state = _renamed(trunk, naming.torchvision) if names == "timm" else state
    safetensors.write(stream, state, metadata.of(trunk, digest, settings, names))


def _save_named(
    output: str, trunk: Trunk, digest: str, settings: Mapping[str, Any], names: str
) -> None:
    with streams.writing(output) as stream:
        write_named(stream, trunk, digest, settings, names)


def _renamed(trunk: Trunk, name: Any) -> dict[str, Any]:
    return {name(ours): tensor for ours, tensor in trunk.state_dict().items()}


def _detectron2(trunk: Trunk, digest: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what detectron2's checkpointer matches with a ResNet by the ends of names."""
    return {
        "model": _renamed(trunk, naming.detectron2),
        "__author__": "ssl-bench",
        "matching_heuristics": True,
        metadata.KEY: metadata.of(trunk, digest, settings, "detectron2"),
    }


def detectron2_config(trunk: Trunk, path: str) -> str:
    """Return the lines of a configuration of detectron2 that feed TRUNK in the file PATH.

    It takes pixels from 0 to 255.
    """
    mean, std = ([round(255 * each, 6) for each in v] for v in (trunk.mean, trunk.deviation))
    return (
        f"MODEL:\n  WEIGHTS: {json.dumps(path, ensure_ascii=False)}\n"
        f"  PIXEL_MEAN: {mean}\n  PIXEL_STD: {std}\n"
        "  RESNETS:\n    DEPTH: 50\n    STRIDE_IN_1X1: False\nINPUT:\n  FORMAT: RGB\n"
    )


# ---- What is known of a network ------------------------------------------------------------------


def settings_of(weights: Weights, tags: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of the network and of its training, as pretrain writes it.

    TAGS win over what the names only suggest, and not over what the file says.
    """
    if weights.own:
        return records.tagged(_own(weights.values), tags, weights.path)
    network = weights.known()
    if weights.said:
        known = dict.fromkeys(("pretext", "permutations", "images", "data", "data_name", "seed"))
        return records.tagged(known | dict(weights.said.settings), tags, weights.path)
    known = {"arch": network.arch, "reads": network.reads}
    if network.certain or tags.get("pretext") in (None, network.pretext):
        known |= {"pretext": network.pretext, "permutations": network.permutations}
    source: dict[str, Any] = {"digest": weights.digest, "kind": network.layout.kind}
    plain = {n: value for n, value in weights.settings().items() if STORED.holds({n: value})}
    source |= {"settings": plain, "left_out": [legible.text(name) for name in weights.left_out()]}
    unknown = dict.fromkeys(("pretext", "permutations", "images", "data", "data_name", "seed"))
    settings = records.tagged(unknown | known, tags, weights.path)
    if network.pretext and not network.certain and "pretext" not in tags:
        settings["inferred"] = ["pretext"]
    return settings | {"converted": source}


def _own(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a file of pretrain or convert-weights, whose VALUES are flat."""
    settings: dict[str, Any] = {}
    for name, value in values.items():
        first, _dot, rest = name.partition(".")
        if first != "settings":
            continue
        if not rest.startswith("converted."):
            settings[rest] = value
            continue
        source = settings.setdefault("converted", {"settings": {}})
        part, _dot, inner = rest.removeprefix("converted.").partition(".")
        if inner:
            source[part][inner] = value
        else:
            source[part] = value
    return settings


# ---- Models of the command line ------------------------------------------------------------------


def torchvision(arch: str, path: str) -> tuple[Trunk, dict[str, Any]]:
    """Return (trunk, settings): the trunk of torchvision's ARCH with the weights in the file PATH.

    "left_out" of the settings says what was not taken. Raises DataError for another file.
    """
    if not path:
        raise DataError(f"torchvision:{arch}: no file of weights: write torchvision:{arch}:FILE")
    return _loaded(read_torchvision(arch, path))


def timm(name: str, path: str) -> tuple[Trunk, dict[str, Any]]:
    """Return (trunk, settings) of timm's network NAME with the weights in the file PATH.

    As torchvision() does; PATH may be a folder of the Hub.
    """
    if not path:
        raise DataError(f"timm:{name}: no file of weights: write timm:{name}:FILE")
    return _loaded(read_timm(name, path))


def _loaded(weights: Weights) -> tuple[Trunk, dict[str, Any]]:
    network = weights.known()
    settings: dict[str, Any] = {"arch": network.arch, "pretext": network.pretext}
    settings["left_out"] = inspection.left_out(weights)
    if network.pretext and not network.certain:
        settings["inferred"] = ["pretext"]
    return weights.trunk(), settings


def speaks_for_itself(path: str) -> bool:
    """Tell whether the model PATH is a file of safetensors, or a folder of the Hub."""
    if os.path.isdir(path):
        return True
    with streams.regular(path) as stream:
        return containers.is_safetensors(stream.read(containers.SAFETENSORS_BEGIN))


def told(path: str) -> tuple[Trunk, dict[str, Any]]:
    """Return (trunk, settings) of the network in PATH, of which speaks_for_itself() is true.

    Raises DataError, with the way to read it, where it does not say how images are taken.
    """
    found = weights.read(path)
    if found.said is None:
        raise DataError(
            f"{found.path}: it does not say which network it is, nor how it takes images:"
            " convert-weights makes a network of it; or name it as torchvision:ARCH:FILE, or"
            " timm:NAME:FILE"
        )
    settings = settings_of(found, {})
    return found.trunk(), settings | {"left_out": inspection.left_out(found)}
