"""Networks trained elsewhere: which network a file of weights holds, and its trunk as one of ours.

Everything in a file is accounted for: it is taken, or it is listed as left out.
"""

import io
import re

import torch

from ssl_common import legible, records, streams
from ssl_common.data.loading import STD
from ssl_common.models import naming, networks, pickles, registry
from ssl_common.models.backbones import Backbone
from ssl_common.streams import DataError

KIND = "a file of weights"
ADVICE = "save model.state_dict() with torch.save"
TORCH = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # begins the older files of torch.save
MOST, DEEPEST = 100_000, 16  # names in a file, and dicts in one another
COUNTS = "num_batches_tracked"  # of batch norm in training; older files have none
CLASSIFIED = re.compile(r"((state_dict|model_state_dict|model|module)\.)*")  # not encoder_q
FIRST = "conv1.0.weight"
PLAIN = (str, int, float, bool, type(None))
NAMED = 4  # names of what is left out in one line


class Weights:
    """What the file PATH ("-": standard input) holds; none of it is run.

    Of several networks, PREFIX is the end of what stands before the names of the one; LAYOUTS are
    those it may have. The channels of conv1 stand in ORDER, "rgb" or "bgr", or as in others of its
    kind.

    `values` is {name: tensor or plain value}; `arch`, `reads` (as registry has them), `pretext` and
    `permutations` are what the names tell, None where they do not. `taken` is {our name of a
    weight: theirs}; `wrong` says what stands between the file and the trunk, `unusual` what does
    not. Raises DataError for what is no file of weights.
    """

    def __init__(self, path, prefix="", order=None, layouts=naming.LAYOUTS):
        self.path = streams.name(path)
        content, self.digest = _content(path, self.path)
        values = _flat(content, self.path)
        if not any(isinstance(value, torch.Tensor) for value in values.values()):
            raise DataError(f"{self.path}: no weights, but {_kind(content)}: {ADVICE}")
        self.own = values.get("format") == networks.FORMAT and "settings.arch" in values
        self.layout, self.prefix = (
            (naming.OWN, "trunk.") if self.own else self._find(values, prefix, layouts)
        )
        self.values = _shorter(values, self.prefix, self.path)
        self._theirs = {naming.plain(name): name for name in self.values}
        if len(self._theirs) < len(self.values):
            twice = next(n for n in self.values if self._theirs[naming.plain(n)] != n)
            raise DataError(f"{self.path}: both {self._theirs[naming.plain(twice)]} and {twice}")
        self.arch = self.reads = self.pretext = self.permutations = None
        self.order, self._absent = order, ()
        self.taken, self.wrong = {}, []
        if self.layout:
            self._recognise()
            self._match()
        self.unusual = list(self._oddities())

    def _find(self, values, prefix, layouts):
        """Return (layout, what stands before the names of its weights), (None, "") if unknown."""
        found = {
            (layout, name.removesuffix(anchor)): None
            for layout in layouts
            for anchor in layout.anchors
            for name in map(naming.plain, values)
            if f".{name}".endswith(f".{anchor}")
        }
        wanted = f".{prefix.strip('.')}." if prefix else ""
        found = [(layout, before) for layout, before in found if f".{before}".endswith(wanted)]
        if len(found) > 1:
            which = ", ".join(before for _layout, before in found)
            raise DataError(f"{self.path}: {len(found)} networks: choose by --prefix, of {which}")
        return found[0] if found else (None, "")

    def _recognise(self):
        """Tell the network by its channels, its batch norm and what stands beside the trunk."""
        if self.own:
            settings = {name: self.values.get(f"settings.{name}") for name in ("arch", "pretext")}
            self.arch, self.pretext = settings["arch"], settings["pretext"]
            self.reads = self.values.get("settings.reads", "rgb")
            self.permutations = self.values.get("settings.permutations")
            if self.order:
                raise DataError(f"{self.path}: a network of ours: its channels are known")
            self.order = "rgb"
            return
        caffe2 = self.layout.kind == "Caffe2"
        first = self._value(self.layout.name(FIRST))
        self.arch = self.layout.arch
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
        elif any(re.search(r"_s\d_", name) for name in self.values):
            self.pretext = "jigsaw"
        elif self._has("pred_w") or self._has("fc.weight") and CLASSIFIED.fullmatch(self.prefix):
            self.pretext = "supervised"
        if self.pretext == "jigsaw" and caffe2:
            last = self._value("fc8_w" if self.arch == "alexnet" else "fc2_w")
            self.permutations = len(last) if isinstance(last, torch.Tensor) else None

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
                name, found = self._theirs[theirs], _kind(self._value(theirs))
                self.wrong.append(f"{name} is {found}, not {_kind(tensor)}")
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

    def _empty(self):
        """Return the trunk without weights, in no time: it has names and shapes."""
        if self.arch not in registry.TRUNKS:
            return registry.build(self.arch, 0)
        with torch.device("meta"):
            return registry.build(self.arch, 0, self.reads)

    def left_out(self):
        """Return the names of the tensors that are not taken."""
        tensors = (n for n, value in self.values.items() if isinstance(value, torch.Tensor))
        return sorted(set(tensors) - set(self.taken.values()))

    def settings(self):
        """Return {name: plain value} of what the file says beside its tensors."""
        return {n: value for n, value in self.values.items() if isinstance(value, PLAIN)}

    def _oddities(self):
        """Yield what is unusual about the weights that are taken, in words."""
        for ours, theirs in self.taken.items():
            value = self.values[theirs]
            if value.dtype not in (torch.float32, torch.int64):
                yield f"{theirs} is {str(value.dtype).removeprefix('torch.')}"
            if not torch.isfinite(value).all():
                yield f"{theirs} holds NaN or infinity"
            elif ours.endswith("running_var") and (value < 0).any():
                yield f"{theirs} holds negative variances"

    def trunk(self):
        """Return the trunk with the weights of the file; raise DataError where it cannot be."""
        if not self.layout:
            first = ", ".join(list(self.values)[:3])
            known = "ResNet-50 and the AlexNets of Caffe2 and VISSL, ResNet-50 of torchvision"
            raise DataError(
                f"{self.path}: no network known here, its names are {first} ...: {known}"
            )
        if self.wrong:
            more = f", and {len(self.wrong) - 1} more like it" if len(self.wrong) > 1 else ""
            which = f"{self.layout.kind}'s {self.arch}"
            raise DataError(f"{self.path}: not the weights of {which}: {self.wrong[0]}{more}")
        trunk = registry.build(self.arch, 0, self.reads)
        state = {ours: self.values[theirs] for ours, theirs in self.taken.items()}
        if self.reads == "rgb" and self.order == "bgr":
            state[FIRST] = state[FIRST].flip(1)
        if self.arch == "caffenet" and not self.own:
            # Pixels of 0 to 255 less the mean are ours times this; nothing is padded at conv1.
            state[FIRST] = state[FIRST] * (255 * torch.tensor(STD)).view(1, 3, 1, 1)
        trunk.load_state_dict(state, strict=False)
        for name, module in trunk.named_modules():
            if self._absent and f"{name}.".startswith(self._absent):
                module.running_var.fill_(1 - module.eps)  # with the rest as it is: changes nothing
        return trunk

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
            yield "used", name, _kind(self.values[name]), ours
        for name, value in self.values.items():
            if name in names or not isinstance(value, (torch.Tensor, *PLAIN)):
                yield "unused", name, _kind(value)

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
    if torchvision:
        content = _of_torchvision(weights, trunk)
    elif weights.own:
        raise DataError(f"{weights.path}: a network of ours: it can become one --to torchvision")
    else:
        content = {"format": networks.FORMAT, "settings": _settings(weights, tags)}
        content |= {"trunk": trunk.state_dict(), "head": {}}
    networks.save(output, content)
    said = f"{weights.arch}, {weights.pretext or 'pretext unknown'}"
    said += f", {weights.permutations:,} permutations" if weights.permutations else ""
    said += "".join(f"; unusual: {what}" for what in weights.unusual)
    said += f": {len(weights.taken)} of {len(weights.values)} names taken"
    return said + weights.left_out_in_words()


def _settings(weights, tags):
    """Return what is known of the network and of its training, as pretrain writes it."""
    known = {name: getattr(weights, name) for name in ("arch", "reads", "pretext", "permutations")}
    source = {"digest": weights.digest, "kind": weights.layout.kind}
    source |= {"settings": weights.settings(), "left_out": weights.left_out()}
    unknown = dict.fromkeys(("images", "data", "data_name", "seed"))
    return records.tagged(unknown | known, tags, weights.path) | {"converted": source}


def _of_torchvision(weights, trunk):
    if weights.arch != "resnet50":
        raise DataError(f"{weights.path}: torchvision has no {weights.arch} like this one")
    return {naming.torchvision(name): tensor for name, tensor in trunk.state_dict().items()}


def torchvision(arch, path):
    """Return (trunk, what was left out in words): the trunk ARCH with the weights in the file PATH.

    Raises DataError where that is not a file of torchvision's ARCH.
    """
    if not path:
        raise DataError(f"torchvision:{arch}: no file of weights: write torchvision:{arch}:FILE")
    layouts = [
        layout for layout in naming.LAYOUTS if (layout.kind, layout.arch) == ("PyTorch", arch)
    ]
    if not layouts:
        trunk = registry.build(arch, 0)
        if not isinstance(trunk, Backbone):
            raise DataError(f"torchvision:{arch}: {arch} is a network of ours: see convert-weights")
        layouts = [naming.backbone(arch, trunk.state_dict())]
    weights = Weights(path, layouts=layouts)
    if weights.own or not weights.layout or weights.reads != "rgb":
        raise DataError(f"{path}: not the weights of torchvision's {arch}: see convert-weights")
    return weights.trunk(), weights.left_out_in_words()


def _content(path, name):
    """Return what the file PATH holds, and its digest."""
    with streams.reading(path) as stream:
        data = stream.read()
    start, stream = data[:64], io.BytesIO(data)
    if start.startswith(b"\x93NUMPY"):
        content = pickles.read_npy(stream, name)
    elif start.startswith(b"\x80") and TORCH not in start:
        content = pickles.read(stream, name)
    else:
        content = streams.read_tensors(name, KIND, stream)
    return content, streams.digest(data)


def _flat(content, path):
    """Return CONTENT, dicts in dicts, as one dict by dotted names; arrays of Caffe2 as tensors."""
    flat = {}

    def add(value, name, depth):
        if isinstance(value, dict) and depth < DEEPEST:
            for key, inside in value.items():
                add(inside, f"{name}.{key}" if name else str(key), depth + 1)
            return
        if name in flat or len(flat) == MOST or isinstance(value, dict):
            raise DataError(
                f"{path}: no weights: names twice, too many or too deep, as {name[:99]}"
            )
        flat[name] = value

    add(content, "", 0)
    for name, value in flat.items():
        if isinstance(value, pickles.ARRAYS):
            flat[name] = _tensor(value, f"{path}: {name}")
    return flat


def _tensor(stand, what):
    try:
        array = stand.array()
    except ValueError as error:
        raise DataError(f"{what}: {error}: not of a file of weights") from error
    return array.item() if array.size == 1 and array.ndim < 2 else torch.from_numpy(array)


def _shorter(values, prefix, path):
    """Return VALUES by names without PREFIX."""
    short = {name.removeprefix(prefix): value for name, value in values.items()}
    if len(short) < len(values):
        raise DataError(f"{path}: some names stand there with and without {prefix}: give --prefix")
    return short


def _alike(value, tensor, converted):
    """Tell whether VALUE can be copied into TENSOR, real into integer only if it is CONVERTED."""
    if converted and isinstance(value, torch.Tensor):
        return value.shape == tensor.shape
    return _kind(value) == _kind(tensor)


def _kind(value):
    """Return what two tensors have in common that can be copied, in words: real 64 x 3 x 7 x 7."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    kind = "real" if value.is_floating_point() else "integer"
    return f"{kind} {' x '.join(map(str, value.shape)) or 1}"
