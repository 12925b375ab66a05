"""Networks trained elsewhere: the weights in a file, matched with those of a trunk of ours.

A file is read in four steps: archives.read() gives its names and values, recognition tells which
network they are, each weight of our trunk is looked for among them, and their numbers are checked.
Everything in a file is accounted for: it is taken, or it is listed as left out.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ssl_common import streams
from ssl_common.data.pixels import STD
from ssl_common.models import backbones, inputs, registry, states
from ssl_common.models.backbones import Backbone
from ssl_common.models.foreign import archives, hub, metadata, naming, recognition
from ssl_common.models.foreign.metadata import Said
from ssl_common.models.foreign.naming import COUNTS, Layout
from ssl_common.models.foreign.recognition import FIRST, Contents, Network
from ssl_common.models.inputs import Input
from ssl_common.models.timm_backbones import THEIRS as TIMM
from ssl_common.models.timm_backbones import TimmBackbone
from ssl_common.models.trunk import Trunk
from ssl_common.streams import DataError

PLAIN = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Weights:
    """What a file holds, and what of it the trunk of a network takes.

    `path` is what messages call the file. `values` is {name: tensor or other value}, by names
    without what stands before those of the network. `network` is None where none is known; else
    `taken` is {our name of a weight: theirs}, `wrong` says what stands between the file and the
    trunk, and `unusual` what does not. `skeleton` is the trunk before it takes them: of ours names
    and shapes alone. `said` is what the file itself says of its network, where it does; `prefix`
    what stands before the names of the network. `data` are the bytes of the file.
    """

    path: str
    data: bytes = field(repr=False)
    values: Mapping[str, Any]
    network: Network | None = None
    taken: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    unusual: list[str] = field(default_factory=list)
    skeleton: Trunk | None = None
    said: Said | None = None
    prefix: str = ""

    @functools.cached_property
    def digest(self) -> str:
        """The digest of the file, which takes as long as to read and write it."""
        return streams.digest(self.data)

    @property
    def own(self) -> bool:
        """Whether this is a file of pretrain."""
        return self.said is None and self.network is not None and self.network.layout is naming.OWN

    def tensors(self) -> list[str]:
        """Return the names of all tensors."""
        return [name for name, value in self.values.items() if isinstance(value, torch.Tensor)]

    def left_out(self) -> list[str]:
        """Return the names of the tensors that are not taken, sorted."""
        return sorted(set(self.tensors()) - set(self.taken.values()))

    def settings(self) -> dict[str, Any]:
        """Return {name: plain value} of what the file says beside its tensors."""
        return {n: value for n, value in self.values.items() if isinstance(value, PLAIN)}

    def known(self) -> Network:
        """Return the network; raise DataError where none is known."""
        if self.network is None:
            known = "ResNet-50 and the AlexNets of Caffe2 and VISSL, ResNet-50 of torchvision"
            names = f"its weights are {self.first_names()}"
            remedy = recognition.remedy(self.values)
            raise DataError(f"{self.path}: no network known here, {names}: {known}; {remedy}")
        return self.network

    def first_names(self) -> str:
        """Return the names of the first three tensors, in words."""
        tensors = self.tensors()
        return f"{', '.join(tensors[:3])}{' ...' * (len(tensors) > 3)}"

    def trunk(self, lent: bool = False) -> Trunk:
        """Return the skeleton with the weights of the file; raise DataError where it cannot be.

        They are copies, or LENT: the numbers of the file itself, only to be read.
        """
        network, trunk = self.known(), self.skeleton
        which = f"{network.layout.kind}'s {network.arch.removeprefix(TIMM)}"
        if self.wrong or trunk is None:
            raise DataError(f"{self.path}: not the weights of {which}: {states.summed(self.wrong)}")
        state = {}
        for ours, place in trunk.state_dict().items():
            if theirs := self.taken.get(ours):
                state[ours] = self.values[theirs].to(place.dtype)
            else:  # of a batch norm, which files may do without: as it is in a new one
                new = torch.ones if ours.endswith(("weight", "running_var")) else torch.zeros
                state[ours] = new(place.shape, dtype=place.dtype)
        if network.reads == "rgb" and network.order == "bgr":
            state[FIRST] = state[FIRST].flip(1)
        if network.arch == "caffenet" and not self.own and not self.said:
            # Pixels of 0 to 255 less the mean are ours times this; nothing is padded at conv1.
            state[FIRST] = state[FIRST] * (255 * torch.tensor(STD)).view(1, 3, 1, 1)
        if why := states.unfit(FIRST, state.get(FIRST, torch.zeros(1))):
            raise DataError(f"{self.path}: not the weights of {which}: {FIRST} {why}")
        if lent:
            states.lend(trunk, state)
        else:
            if not isinstance(trunk, Backbone | TimmBackbone):
                trunk.to_empty(device="cpu")
            states.fill(trunk, state, self.path, which)
        for name, module in trunk.named_modules():
            if network.absent and f"{name}.".startswith(network.absent):
                module.running_var.fill_(1 - module.eps)  # with the rest as it is: changes nothing
        if self.said and self.said.digest not in (None, trunk.digest()):
            raise DataError(
                f"{self.path}: damaged, or changed by hand: it is not what the digest in its"
                " metadata tells"
            )
        return trunk


def read(path: str, prefix: str = "", order: str | None = None) -> Weights:
    """Return the weights in the file PATH ("-": standard input); none of it is run.

    Of several networks, PREFIX is the end of what stands before the names of the one. The channels
    of conv1 stand in ORDER, "rgb" or "bgr", or as in others of its kind. Raises DataError for what
    is no file of weights.
    """
    path, values, data = _opened(path)
    said = metadata.read(values, path)
    if order and (said or recognition.is_ours(values)):
        raise DataError(f"{path}: it says itself how its channels stand: leave out --channels")
    if recognition.is_ours(values):
        network = recognition.recognise_ours(path, values)
        return _matched(path, data, recognition.contents(path, values, "trunk."), network)
    if said:
        return _as_said(path, values, data, said)
    layout, before = recognition.locate(path, values, naming.LAYOUTS, "choose by --prefix", prefix)
    file = recognition.contents(path, values, before)
    if layout is None:
        return Weights(path, data, file.values)
    if layout.kind == "detectron2" and order != "rgb":
        raise DataError(
            f"{path}: detectron2's names do not tell how it takes images: --channels rgb, if as"
            " torchvision's does (0 to 1 by ImageNet's mean and deviation, its stride in the 3 x"
            " 3); the Caffe2 networks of Detectron are others, which no network here is"
        )
    network = recognition.recognise(file, layout, layout.arch, False, order)
    return _matched(path, data, file, network)


def _opened(path: str, operand: bool = True) -> tuple[str, dict[str, Any], bytes]:
    """Return (what messages call it, {name: value}, bytes) of the file of weights PATH.

    Or of the weights in the folder PATH, as the Hub of Hugging Face has networks. An OPERAND may be
    "-", or a pipe.
    """
    path, config = hub.weights_in(path)
    with streams.reading(path) if operand else streams.regular(path) as stream:
        path = streams.name(path)
        values, data = archives.read(stream, path)
    if config:
        hub.check(config, metadata.read(values, path), path)
    return path, values, data


def _as_said(path: str, values: dict[str, Any], data: bytes, said: Said) -> Weights:
    """Return the weights in VALUES of the file PATH, of the network that they SAID to be."""
    if said.names == naming.OWN.kind:
        layout: Layout | None = naming.OWN
        file = recognition.contents(path, values, "")
    else:
        layouts = [each for each in naming.LAYOUTS if each.kind in ("PyTorch", "detectron2")]
        layout, before = recognition.locate(path, values, layouts, "save one of them alone")
        file = recognition.contents(path, values, before)
    if layout is None or layout.arch not in ("", said.arch.partition("?")[0]):
        raise DataError(f"{path}: its metadata: its weights are not those of {said.arch}")
    pretext, permutations = (said.settings.get(name) for name in ("pretext", "permutations"))
    network = Network(layout, said.arch, said.reads, pretext, permutations, True, said.order)
    return _matched(path, data, file, network, said=said)


def read_torchvision(arch: str, path: str) -> Weights:
    """Return the weights in the file PATH, a regular one, of torchvision's ARCH.

    ARCH is as Backbone takes it. Images are prepared as for the weights in the file: torchvision's
    own are known by their digest, those of a vision transformer have a place for each patch. Else
    it is the usual way. Raises DataError for another file.
    """
    kind, _weights = backbones.named(arch)
    path, values, data = _opened(path, operand=False)
    wrong = f"{path}: not the weights of torchvision's {arch}"
    if recognition.is_ours(values):
        raise DataError(f"{wrong}, but a network of ours: name the file alone")
    published = recognition.weights_by_digest(kind, streams.digest(data))
    backbone = None
    if kind == "resnet50":  # ours, by other names
        layouts = [each for each in naming.LAYOUTS if (each.kind, each.arch) == ("PyTorch", kind)]
        way = "convert-weights takes one, by --prefix"
    else:
        wanted = arch.removeprefix(backbones.THEIRS).partition("-")[2]
        wanted = wanted or published or recognition.weights_by_patches(kind, values) or "DEFAULT"
        with registry.seeded(0):
            backbone = Backbone(f"{kind}-{wanted}", taken=registry.TRUNKS)
        layouts, way = list(naming.backbones(backbone)), "save one of them alone"
    layout, before = recognition.locate(path, values, layouts, way)
    file = recognition.contents(path, values, before)
    if layout is None:
        names = Weights(path, data, file.values).first_names()
        raise DataError(f"{wrong}: its weights are {names}{_instead(path, values)}")
    arch = backbone.name if backbone else kind
    network = recognition.recognise(file, layout, arch, published is not None, None)
    if network.reads != "rgb":
        raise DataError(f"{wrong}: it reads lightness: convert-weights makes it one of ours")
    if (said := metadata.read(values, path)) and (said.arch, said.order) != (arch, "rgb"):
        raise DataError(f"{wrong}: it says that it is {_way(said)}: name the file alone")
    return _matched(path, data, file, network, backbone)


def _way(said: Said) -> str:
    """Return what a file SAID of its network and its channels, in words."""
    return f"{said.arch}, of {'L of CIE Lab' if said.reads == 'lab' else said.order.upper()}"


def read_timm(name: str, path: str) -> Weights:
    """Return the weights in the file PATH, a regular one, of timm's network NAME.

    Or in a folder PATH as the Hub has it. Images are taken as NAME says, or else its file or folder
    does, or else timm's configuration of it. Raises DataError for another file.
    """
    arch, how = inputs.parsed(name)
    config = hub.weights_in(path)[1]
    path, values, data = _opened(path, operand=False)
    wrong = f"{path}: not the weights of timm's {arch}"
    if recognition.is_ours(values):
        raise DataError(f"{wrong}, but a network of ours: name the file alone")
    said = metadata.read(values, path)
    if said and (said.arch.partition("?")[0], said.order) != (arch.partition(".")[0], "rgb"):
        raise DataError(f"{wrong}: it says that it is {_way(said)}: name the file alone")
    if said:
        mean, std, size = inputs.parsed(said.arch)[1]
        of_file = Input(mean or inputs.usual().mean, std or inputs.usual().std, size)
    else:
        of_file = hub.input_of(config, arch, path)
    for word, asked, there in zip(Input._fields, how, of_file, strict=True):
        if None not in (asked, there) and asked != there:
            raise DataError(f"{wrong}: it says that {word} is {there}, not {asked}")
    how = Input(how.mean or of_file.mean, how.std or of_file.std, how.size or of_file.size)
    with registry.seeded(0):
        backbone = TimmBackbone(f"{TIMM}{arch}{how}")
    layouts = list(naming.backbones(backbone))
    layout, before = recognition.locate(path, values, layouts, "save one of them alone")
    file = recognition.contents(path, values, before)
    if layout is None:
        names = Weights(path, data, file.values).first_names()
        raise DataError(f"{wrong}: its weights are {names}{_instead(path, values)}")
    network = recognition.recognise(file, layout, backbone.name, False, None)
    if said:
        network = replace(network, pretext=said.settings.get("pretext"), certain=True)
    return _matched(path, data, file, network, backbone)


def _instead(path: str, values: Mapping[str, Any]) -> str:
    """Return what to do with VALUES of PATH that are none of torchvision's, as part of a line."""
    others = [layout for layout in naming.LAYOUTS if layout.kind != "PyTorch"]
    layout, _prefix = recognition.locate(path, values, others, "save one of them alone")
    return f"; it is {layout.kind}'s: convert-weights makes it one of ours" if layout else ""


# ---- Matching ------------------------------------------------------------------------------------


def _matched(
    path: str,
    data: bytes,
    file: Contents,
    network: Network,
    backbone: Backbone | TimmBackbone | None = None,
    said: Said | None = None,
) -> Weights:
    """Return the weights of NETWORK in FILE: each weight of its trunk is looked for by its name."""
    taken, wrong, skeleton = {}, [], backbone or registry.blank(network.arch, network.reads)
    rest = dict(file.names)
    for ours, tensor in skeleton.state_dict().items():
        theirs, is_count = network.layout.name(ours), ours.endswith(COUNTS)
        if network.absent and ours.startswith(network.absent):
            continue
        if theirs not in rest:
            wrong += [] if is_count else [f"no {theirs}"]
            continue
        name = rest.pop(theirs)
        if _is_like(file.values[name], tensor, is_count):
            taken[ours] = name
        else:
            kind = states.kind(file.values[name])
            wrong.append(f"{name} is {kind}, not {states.kind(tensor)}")
    wrong += [
        f"{name}, for which the trunk of {network.arch} has no place"
        for bare, name in rest.items()
        if network.layout.trunk.fullmatch(bare) and isinstance(file.values[name], torch.Tensor)
    ]
    wrong += _unfit(file.values, taken)
    unusual = list(_unusual(file.values, taken))
    return Weights(
        path, data, file.values, network, taken, wrong, unusual, skeleton, said, file.prefix
    )


def _is_like(value: Any, tensor: torch.Tensor, is_count: bool) -> bool:
    """Tell whether VALUE can be copied into TENSOR; a real number is a count too where IS_COUNT."""
    if is_count and isinstance(value, torch.Tensor):
        return value.shape == tensor.shape
    return states.kind(value) == states.kind(tensor)


def _unfit(values: Mapping[str, Any], taken: Mapping[str, str]) -> list[str]:
    """Return, in words, what no trained network has among the numbers TAKEN of VALUES."""
    wrong = []
    for ours, theirs in taken.items():
        value = values[theirs]
        value = value if ours.endswith(COUNTS) else value.float()  # as it is going to be
        if why := states.unfit(ours, value):
            wrong.append(f"{theirs} {why}")
    return wrong


def _unusual(values: Mapping[str, Any], taken: Mapping[str, str]) -> Iterator[str]:
    """Yield, in words, the types of the numbers TAKEN of VALUES that are not the usual ones."""
    types = {values[theirs].dtype for theirs in taken.values()}
    for dtype in sorted(types - {torch.float32, torch.int64}, key=str):
        which = [name for name in taken.values() if values[name].dtype == dtype]
        first = which[0] if len(which) == 1 else f"{len(which)} weights"
        verb = "is" if len(which) == 1 else "are"
        yield f"{first} {verb} {str(dtype).removeprefix('torch.')}"
