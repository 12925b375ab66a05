"""Which network a file of weights holds, as far as its names, shapes and digest tell."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ssl_common.models import backbones, networks, registry
from ssl_common.models.foreign import methods, naming
from ssl_common.models.foreign.naming import Layout
from ssl_common.streams import DataError

FIRST = "conv1.0.weight"  # our name of the weights whose channels are those of the image


@dataclass(frozen=True)
class Network:
    """A network in a file: how it names its weights, what the network is, and what trained it.

    `arch` and `reads` are as the registry has them. `pretext` and `permutations` are None where
    they are unknown; `certain` tells that the file itself says the pretext, where else its names
    suggest one. `order` is that of the channels of conv1, "rgb" or "bgr". `absent` is how weights
    of ours begin that the file does without.
    """

    layout: Layout
    arch: str
    reads: str = "rgb"
    pretext: str | None = None
    permutations: int | None = None
    certain: bool = False
    order: str = "rgb"
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contents:
    """What stands in a file of weights, by its names without the PREFIX of one network.

    `values` is {name: tensor or other value}; / stands before a name without the prefix that is
    also one with it. `names` is {bare name, as of naming.bare(): name}. `whole` is {whole name:
    value}.
    """

    prefix: str
    values: Mapping[str, Any]
    names: Mapping[str, str]
    whole: Mapping[str, Any]

    def value(self, bare: str) -> Any:
        """Return the value with the BARE name, None where there is none."""
        return self.values[self.names[bare]] if bare in self.names else None


def contents(path: str, values: Mapping[str, Any], prefix: str) -> Contents:
    """Return VALUES of the file PATH, by whole names, as Contents with PREFIX.

    Raises DataError where two tensors have one bare name.
    """
    inside = {name.removeprefix(prefix) for name in values if name.startswith(prefix)}
    shorter = {
        name.removeprefix(prefix)
        if name.startswith(prefix)
        else f"{'/' * (name in inside)}{name}": value
        for name, value in values.items()
    }
    names: dict[str, str] = {}
    for name, value in shorter.items():
        bare = naming.bare(name)
        other = names.get(bare)
        if other is not None and torch.is_tensor(value) and torch.is_tensor(shorter[other]):
            raise DataError(f"{path}: both {other} and {name}: save one of them alone")
        if other is None or torch.is_tensor(value):
            names[bare] = name
    return Contents(prefix, shorter, names, values)


# ---- Where in the file it stands -----------------------------------------------------------------


def is_ours(values: Mapping[str, Any]) -> bool:
    """Tell whether VALUES, {name: tensor or other value}, are those of a file of pretrain."""
    return values.get("format") == networks.FORMAT and "settings.arch" in values


def locate(
    path: str, values: Mapping[str, Any], layouts: Iterable[Layout], way: str, prefix: str = ""
) -> tuple[Layout | None, str]:
    """Return (layout, what stands before its names) of the network in VALUES, one of LAYOUTS.

    (None, "") where there is none. With PREFIX it is one before whose names stands what ends with
    PREFIX; without, of several, the one that the method that wrote them means. Raises DataError,
    with the WAY out, where PATH holds several all the same.
    """
    tensors = [naming.plain(name) for name, value in values.items() if torch.is_tensor(value)]
    matches = {
        (layout, match[1]): None  # each once, in their order
        for layout in layouts
        for anchor in layout.anchors
        for match in map(naming.ending(anchor).fullmatch, tensors)
        if match
    }
    places = _ending(matches, prefix)
    if len(places) > 1 and not prefix and (wrote := methods.method(values)[0]):
        places = _ending(places, wrote.network) or places
    if len(places) > 1:
        which = " and ".join(before.strip(".") or "one bare" for _layout, before in places)
        raise DataError(f"{path}: {len(places)} networks, {which}: {way}")
    return places[0] if places else (None, "")


def _ending(places: Iterable[tuple[Layout, str]], prefix: str) -> list[tuple[Layout, str]]:
    """Return those of PLACES, (layout, what stands before), that end with PREFIX."""
    end = f".{prefix.strip('.')}." if prefix else ""
    return [
        (layout, before)
        for layout, before in places
        if any(f".{each}".endswith(end) for each in (before, naming.bare(before)))
    ]


# ---- Which it is ---------------------------------------------------------------------------------


def recognise_ours(path: str, values: Mapping[str, Any]) -> Network:
    """Return the network of the file PATH of pretrain, whose VALUES, by whole names, say it."""
    arch, reads = values["settings.arch"], values.get("settings.reads") or "rgb"
    if str(arch).partition("?")[0] not in registry.TRUNKS or reads not in ("rgb", "lab"):
        what = f"no network {arch} that reads {reads}"
        raise DataError(f"{path}: {what}: name one that pretrain wrote")
    pretext, permutations = (values.get(f"settings.{n}") for n in ("pretext", "permutations"))
    return Network(naming.OWN, arch, reads, pretext, permutations, certain=True)


def recognise(
    file: Contents, layout: Layout, arch: str, certain: bool, order: str | None
) -> Network:
    """Return the network in FILE, by its channels, its batch norm and what stands beside the trunk.

    By its LAYOUT alone it is ARCH, trained with labels if that is CERTAIN. ORDER is that of its
    channels, if it is known.
    """
    wrote, says_so = methods.method(file.whole)
    caffe2 = layout.kind == "Caffe2"
    shape = getattr(file.value(layout.name(FIRST)), "shape", ())
    reads = "lab" if shape[1:2] == (1,) else "rgb"
    normed = arch == "alexnet" and any(
        layout.name(f"conv{n}.1.running_var") in file.names for n in (3, 4, 5)
    )
    pretext: str | None = None
    absent: tuple[str, ...] = ()
    if reads == "lab":
        pretext = "colorization"
    elif arch == "alexnet" and not normed:
        arch, pretext = "caffenet", "supervised"
    elif arch == "alexnet":
        pretext, absent = "jigsaw", ("conv1.1.", "conv2.1.")  # batch norm that theirs does without
    elif caffe2 and any(re.search(r"_s\d_", name) for name in file.values):
        pretext = "jigsaw"
    elif wrote:
        pretext, certain = wrote.pretext, says_so
    elif certain or "pred_w" in file.names or _classifies(file):
        pretext = "supervised"
    permutations = None
    if pretext == "jigsaw" and caffe2:
        last = file.value("fc8_w" if arch == "alexnet" else "fc2_w")
        permutations = len(last) if isinstance(last, torch.Tensor) else None
    order = order or ("bgr" if caffe2 else "rgb")
    return Network(layout, arch, reads, pretext, permutations, certain, order, absent)


def _classifies(file: Contents) -> bool:
    """Tell whether FILE is a network and its classifier, and no more: a finished one.

    A checkpoint of a run says less: that of a classifier on a frozen trunk looks the same.
    """
    heads = re.compile(rf"({'|'.join(backbones.HEADS)})\.(.+\.)?weight")
    return not naming.bare(file.prefix) and any(map(heads.fullmatch, file.names))


def remedy(values: Mapping[str, Any]) -> str:
    """Return by which line VALUES, {name: tensor or other value}, can be read, in words.

    As far as their names tell: a vision transformer, or another ResNet than that of ours.
    """
    names = {naming.bare(name): value for name, value in values.items() if torch.is_tensor(value)}

    def inside(end: str) -> list[Any]:
        return [value for name, value in names.items() if f".{name}".endswith(f".{end}")]

    if patches := inside("patch_embed.proj.weight"):
        width, _channels, side, _side = (*patches[0].shape, 0, 0, 0, 0)[:4]
        size = {192: "tiny", 384: "small", 768: "base", 1024: "large"}.get(width, "SIZE")
        arch = f"vit_{size}_patch{side}_224"
        return f"a transformer by timm's names: extract-features takes it as timm:{arch}:FILE"
    if inside("embeddings.patch_embeddings.projection.weight"):
        return "a transformer by the names of transformers: save it by those of timm"
    if inside("layer1.0.conv2.weight") and inside("layer4.0.conv1.weight"):
        return "another ResNet: extract-features takes it as torchvision:resnet18:FILE or so"
    return "extract-features takes other networks as torchvision:ARCH:FILE or timm:NAME:FILE"


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
