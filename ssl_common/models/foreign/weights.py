"""Networks trained elsewhere: which network a file of weights holds, and its trunk as one of ours.

Everything in a file is accounted for: it is taken, or it is listed as left out.
"""

import re
from collections import Counter

import torch

from ssl_common import legible, records, schema, streams
from ssl_common.data.pixels import STD
from ssl_common.models import backbones, networks, registry, states
from ssl_common.models.foreign import archives, naming, recognition
from ssl_common.models.foreign.naming import COUNTS
from ssl_common.streams import DataError

FIRST = "conv1.0.weight"
PLAIN = (str, int, float, bool, type(None))
STORED = schema.Plain(finite=False)  # what may stand in a file of ours
NAMED = 4  # names of what is left out in one line


class Weights:
    """What the file PATH ("-": standard input) holds; none of it is run.

    Of several networks, PREFIX is the end of what stands before the names of the one. It has to be
    that of torchvision's ARCH, if one is named. The channels of conv1 stand in ORDER, "rgb" or
    "bgr", or as in others of its kind.

    `values` is {name: tensor or other value}; `arch`, `reads` (as registry has them) and
    `permutations` are what the names tell, None where they do not. `pretext` is what they suggest,
    `certain` if the file itself says it. `taken` is {our name of a weight: theirs}; `wrong` says
    what stands between the file and the trunk, `unusual` what does not. Raises DataError for what
    is no file of weights.
    """

    def __init__(self, path, prefix="", order=None, arch=None):
        self.path = streams.name(path)
        values, self.digest = archives.read(path)
        self.own = values.get("format") == networks.FORMAT and "settings.arch" in values
        self.certain, self._named = self.own, arch
        self._trunk, layouts = None, naming.LAYOUTS
        if arch:
            layouts = self._torchvision(arch, values)
        self.layout, self.prefix = (
            (naming.OWN, "trunk.") if self.own else self._find(values, prefix, layouts)
        )
        self.values = _shorter(values, self.prefix)
        self._theirs = {}
        for name, value in self.values.items():
            other = self._theirs.get(naming.bare(name))
            if all(torch.is_tensor(each) for each in (value, self.values.get(other))):
                raise DataError(f"{self.path}: both {other} and {name}: save one of them alone")
            if other is None or torch.is_tensor(value):
                self._theirs[naming.bare(name)] = name
        self.arch = self.reads = self.pretext = self.permutations = None
        self.order, self._absent = order, ()
        self.taken, self.wrong, self.unusual = {}, [], []
        if self.layout:
            self._recognise()
            self._match()
            self._judge()

    def _torchvision(self, arch, values):
        """Return the layouts of a file of torchvision's ARCH; build its trunk, unless it is ours.

        Its images are those of the weights in the file: torchvision's own are known by their
        digest, those of a vision transformer have a place for each patch. Else they are the usual.
        """
        arch, _dash, wanted = arch.removeprefix(backbones.THEIRS).partition("-")
        known = recognition.weights_by_digest(arch, self.digest)
        self.certain = bool(known)
        if arch == "resnet50":  # ours, by other names
            return [each for each in naming.LAYOUTS if (each.kind, each.arch) == ("PyTorch", arch)]
        known = wanted or known or recognition.weights_by_patches(arch, values) or "DEFAULT"
        self._trunk = registry.build(f"{backbones.THEIRS}{arch}-{known}", 0)
        return list(naming.backbones(self._trunk))

    def _find(self, values, prefix, layouts):
        """Return (layout, what stands before the names of its weights), (None, "") if unknown."""
        plain = [naming.plain(name) for name in values if isinstance(values[name], torch.Tensor)]
        found = {
            (layout, match[1]): None
            for layout in layouts
            for anchor in layout.anchors
            for match in map(naming.ending(anchor).fullmatch, plain)
            if match
        }
        end = f".{prefix.strip('.')}." if prefix else ""
        found = [
            (layout, before)
            for layout, before in found
            if any(f".{each}".endswith(end) for each in (before, naming.bare(before)))
        ]
        if len(found) > 1:
            which = " and ".join(before.strip(".") or "one bare" for _layout, before in found)
            way = "choose by --prefix"
            if self._named:
                ours = self._named == "resnet50"
                way = "convert-weights takes one, by --prefix" if ours else "save one of them alone"
            raise DataError(f"{self.path}: {len(found)} networks, {which}: {way}")
        return found[0] if found else (None, "")

    def _recognise(self):
        """Tell the network by its channels, its batch norm and what stands beside the trunk."""
        if self.own:
            settings = {name: self.values.get(f"settings.{name}") for name in ("arch", "pretext")}
            self.arch, self.pretext = settings["arch"], settings["pretext"]
            self.reads = self.values.get("settings.reads", "rgb")
            self.permutations = self.values.get("settings.permutations")
            if self.arch not in list(registry.TRUNKS) or self.reads not in ("rgb", "lab"):
                what = f"no network {self.arch} that reads {self.reads}"
                raise DataError(f"{self.path}: {what}: name one that pretrain wrote")
            if self.order:
                raise DataError(f"{self.path}: a network of ours: its channels are known")
            self.order = "rgb"
            return
        caffe2 = self.layout.kind == "Caffe2"
        first = self._value(self.layout.name(FIRST))
        self.arch = self._trunk.name if self._trunk else self.layout.arch
        self.reads = "lab" if getattr(first, "shape", ())[1:2] == (1,) else "rgb"
        self.order = self.order or ("bgr" if caffe2 else "rgb")
        normed = self.arch == "alexnet" and any(
            self._has(self.layout.name(f"conv{n}.1.running_var")) for n in (3, 4, 5)
        )
        if self.reads == "lab":
            self.pretext = "colorization"
        elif self.arch == "alexnet" and not normed:
            self.arch, self.pretext = "caffenet", "supervised"
        elif self.arch == "alexnet":
            self.pretext = "jigsaw"
            self._absent = ("conv1.1.", "conv2.1.")  # batch norm that theirs does without
        elif caffe2 and any(re.search(r"_s\d_", name) for name in self.values):
            self.pretext = "jigsaw"
        elif self.certain or self._has("pred_w") or self._classifies():
            self.pretext = "supervised"
        if self.pretext == "jigsaw" and caffe2:
            last = self._value("fc8_w" if self.arch == "alexnet" else "fc2_w")
            self.permutations = len(last) if isinstance(last, torch.Tensor) else None

    def _classifies(self):
        """Tell whether this is a network and its classifier, and no more: a finished one.

        A checkpoint of a run says less: that of a classifier on a frozen trunk looks the same.
        """
        heads = re.compile(rf"({'|'.join(backbones.HEADS)})\.(.+\.)?weight")
        return not naming.bare(self.prefix) and any(map(heads.fullmatch, self._theirs))

    def _has(self, name):
        return name in self._theirs

    def _value(self, name):
        return self.values.get(self._theirs.get(name))

    def _match(self):
        """Find each weight of the trunk in the file."""
        for ours, tensor in self._empty().state_dict().items():
            theirs = self.layout.name(ours)
            if ours.startswith(self._absent):
                continue
            if not self._has(theirs):
                self.wrong += [] if ours.endswith(COUNTS) else [f"no {theirs}"]
            elif not _alike(self._value(theirs), tensor, ours.endswith(COUNTS)):
                name, found = self._theirs[theirs], states.kind(self._value(theirs))
                self.wrong.append(f"{name} is {found}, not {states.kind(tensor)}")
                self._theirs.pop(theirs)
            else:
                self.taken[ours] = self._theirs.pop(theirs)
        trunk = f"the trunk of {self.arch}"
        more = [
            name
            for plain, name in self._theirs.items()
            if self.layout.trunk.fullmatch(plain) and isinstance(self.values[name], torch.Tensor)
        ]
        self.wrong += [f"{name}, for which {trunk} has no place" for name in more]

    def _judge(self):
        """Find what is wrong or unusual about the numbers of the weights that are taken."""
        types = Counter(self.values[theirs].dtype for theirs in self.taken.values())
        for dtype in set(types) - {torch.float32, torch.int64}:
            which = [name for name in self.taken.values() if self.values[name].dtype == dtype]
            first = which[0] if len(which) == 1 else f"{len(which)} weights"
            verb = "is" if len(which) == 1 else "are"
            self.unusual.append(f"{first} {verb} {str(dtype).removeprefix('torch.')}")
        for ours, theirs in self.taken.items():
            value = self.values[theirs]
            value = value if ours.endswith(COUNTS) else value.float()  # as it is going to be
            if why := states.unfit(ours, value):
                self.wrong.append(f"{theirs} {why}")

    def _empty(self):
        """Return the trunk without weights, in no time: it has names and shapes."""
        if self._trunk or self.arch not in registry.TRUNKS:
            return self._trunk or registry.build(self.arch, 0)
        with torch.device("meta"):
            return registry.build(self.arch, 0, self.reads)

    def left_out(self):
        """Return the names of the tensors that are not taken."""
        tensors = (n for n, value in self.values.items() if isinstance(value, torch.Tensor))
        return sorted(set(tensors) - set(self.taken.values()))

    def settings(self):
        """Return {name: plain value} of what the file says beside its tensors."""
        return {n: value for n, value in self.values.items() if isinstance(value, PLAIN)}

    def trunk(self):
        """Return the trunk with the weights of the file; raise DataError where it cannot be."""
        if not self.layout:
            known = "ResNet-50 and the AlexNets of Caffe2 and VISSL, ResNet-50 of torchvision"
            more = "extract-features takes any other network of torchvision"
            more += ", as torchvision:ARCH:FILE"
            raise DataError(f"{self.path}: no network known here, {self.names()}: {known}; {more}")
        which = f"{self.layout.kind}'s {self.arch}"
        if self.wrong:
            raise DataError(f"{self.path}: not the weights of {which}: {states.summed(self.wrong)}")
        trunk = self._trunk or registry.build(self.arch, 0, self.reads)
        own = trunk.state_dict()
        state = {
            ours: self.values[theirs].to(own[ours].dtype) for ours, theirs in self.taken.items()
        }
        if self.reads == "rgb" and self.order == "bgr":
            state[FIRST] = state[FIRST].flip(1)
        if self.arch == "caffenet" and not self.own:
            # Pixels of 0 to 255 less the mean are ours times this; nothing is padded at conv1.
            state[FIRST] = state[FIRST] * (255 * torch.tensor(STD)).view(1, 3, 1, 1)
        states.fill(trunk, own | state, self.path, which)
        for name, module in trunk.named_modules():
            if self._absent and f"{name}.".startswith(self._absent):
                module.running_var.fill_(1 - module.eps)  # with the rest as it is: changes nothing
        return trunk

    def names(self):
        """Return what a file without a known network has, in words."""
        tensors = [name for name, value in self.values.items() if torch.is_tensor(value)]
        return f"its weights are {', '.join(tensors[:3])}{' ...' * (len(tensors) > 3)}"

    def instead(self):
        """Return what to do with a file that is none of torchvision's, as part of a line."""
        others = [layout for layout in naming.LAYOUTS if layout.kind != "PyTorch"]
        layout, _prefix = self._find(self.values, "", others)
        return f"; it is {layout.kind}'s: convert-weights makes it one of ours" if layout else ""

    def left_out_in_words(self):
        """Return left_out() as part of a line, "" where it is empty."""
        names = self.left_out()
        momenta = [name for name in names if name.endswith("_momentum")]
        towers = [name for name in names if re.search(r"_s[1-8]_", name) and name not in momenta]
        rest = [name for name in names if name not in {*momenta, *towers}]
        said = [f"{len(momenta)} momenta"] * bool(momenta)
        said += [f"{len(towers)} of other towers"] * bool(towers)
        said += rest[:NAMED] + [f"{len(rest) - NAMED} more"] * (len(rest) > NAMED)
        return f"; left out {', '.join(said)}" if said else ""

    def inspect(self):
        """Yield all there is to say of the file, line by line: a word, a tab, what it is."""
        for said in self._inspected():
            yield "\t".join(map(legible.text, said))

    def _inspected(self):
        names = self.left_out()
        trunk = self._empty() if self.layout else None
        count = sum(value.numel() for value in self.values.values() if torch.is_tensor(value))
        own = sum(weight.numel() for weight in trunk.parameters()) if trunk else 0
        about = {
            "file": self.path,
            "format": self.layout.kind if self.layout else "unknown",
            "network": self.arch or "unknown",
            "pretext": self.pretext or "unknown",
            "inferred": "pretext" if self.pretext and not self.certain else None,
            "permutations": self.permutations,
            "layers": " ".join(trunk.pooling) if trunk else None,
            "input": self._input() if trunk else None,
            "parameters": f"{own} of the trunk, in a file of {count} numbers",
        }
        yield from ((word, what) for word, what in about.items() if what is not None)
        yield from (("setting", name, value) for name, value in self.settings().items())
        yield from (("wrong", what) for what in self.wrong)
        yield from (("unusual", what) for what in self.unusual)
        for ours, name in self.taken.items():
            yield "used", name, states.kind(self.values[name]), ours
        for name, value in self.values.items():
            if name in names or not isinstance(value, (torch.Tensor, *PLAIN)):
                yield "unused", name, states.kind(value)

    def _input(self):
        if self.reads == "lab":
            return "L of CIE Lab, from -50 to 50"
        scale = "0 to 255, less the mean of ImageNet"
        if self.arch != "caffenet" or self.own:
            scale = "0 to 1, less the mean of ImageNet, by its standard deviation"
        return f"{self.order.upper()}, {scale}"


def convert(weights, output, torchvision, tags):
    """Write the trunk of WEIGHTS to OUTPUT; return what was done, in words.

    A network of ours, with TAGS, {field: value}, among its settings; or, for TORCHVISION, a state
    dict by torchvision's names. Raises DataError where the file, or torchvision, has no such one.
    """
    trunk = weights.trunk()
    settings = _settings(weights, tags)
    if torchvision:
        content = _of_torchvision(weights, trunk)
    elif weights.own:
        raise DataError(f"{weights.path}: a network of ours: it can become one --to torchvision")
    else:
        content = {"format": networks.FORMAT, "settings": settings}
        content |= {"trunk": trunk.state_dict(), "head": {}}
    networks.save(output, content)
    said = f"{weights.arch}, {settings['pretext'] or 'pretext unknown'}"
    said += f", {settings['permutations']:,} permutations" if settings["permutations"] else ""
    said += "".join(f"; unusual: {what}" for what in weights.unusual)
    said += f": {len(weights.taken)} of {len(weights.values)} names taken"
    said += "; the pretext is inferred" if settings.get("inferred") else ""
    return said + weights.left_out_in_words()


def _settings(weights, tags):
    """Return what is known of the network and of its training, as pretrain writes it.

    TAGS win over what the names only suggest, and not over what the file says.
    """
    known = {name: getattr(weights, name) for name in ("arch", "reads")}
    if weights.certain or tags.get("pretext") in (None, weights.pretext):
        known |= {"pretext": weights.pretext, "permutations": weights.permutations}
    source = {"digest": weights.digest, "kind": weights.layout.kind}
    said = {n: value for n, value in weights.settings().items() if STORED.holds({n: value})}
    source |= {"settings": said, "left_out": [legible.text(name) for name in weights.left_out()]}
    unknown = dict.fromkeys(("pretext", "permutations", "images", "data", "data_name", "seed"))
    settings = records.tagged(unknown | known, tags, weights.path)
    if weights.pretext and not weights.certain and "pretext" not in tags:
        settings["inferred"] = ["pretext"]
    return settings | {"converted": source}


def _of_torchvision(weights, trunk):
    if weights.arch != "resnet50":
        raise DataError(f"{weights.path}: torchvision has no {weights.arch} like this one")
    return {naming.torchvision(name): tensor for name, tensor in trunk.state_dict().items()}


def torchvision(arch, path):
    """Return (trunk, settings): the trunk of torchvision's ARCH with the weights in the file PATH.

    "left_out" of the settings says what was not taken. Raises DataError for another file.
    """
    if not path:
        raise DataError(f"torchvision:{arch}: no file of weights: write torchvision:{arch}:FILE")
    backbones.named(arch.removeprefix(backbones.THEIRS))  # it exists
    weights = Weights(path, arch=arch)
    which = f"{path}: not the weights of torchvision's {arch}"
    if weights.own:
        raise DataError(f"{which}, but a network of ours: name the file alone")
    if not weights.layout:
        raise DataError(f"{which}: {weights.names()}{weights.instead()}")
    if weights.reads != "rgb":
        raise DataError(f"{which}: it reads lightness: convert-weights makes it one of ours")
    trunk, settings = weights.trunk(), {"arch": weights.arch, "pretext": weights.pretext}
    settings |= {"left_out": weights.left_out_in_words()}
    if weights.pretext and not weights.certain:
        settings["inferred"] = ["pretext"]
    return trunk, settings


def _shorter(values, prefix):
    """Return VALUES by names without PREFIX; / stands before one without it, if that is taken."""
    inside = {name.removeprefix(prefix) for name in values if name.startswith(prefix)}
    return {
        name.removeprefix(prefix)
        if name.startswith(prefix)
        else f"{'/' * (name in inside)}{name}": value
        for name, value in values.items()
    }


def _alike(value, tensor, converted):
    """Tell whether VALUE can be copied into TENSOR, real into integer only if it is CONVERTED."""
    if converted and isinstance(value, torch.Tensor):
        return value.shape == tensor.shape
    return states.kind(value) == states.kind(tensor)
