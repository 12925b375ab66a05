"""What others call the weights of our trunks: Caffe2, VISSL, torchvision, detectron2."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from ssl_common.models.backbones import Backbone
from ssl_common.models.timm_backbones import TimmBackbone

# how the names of ours begin -> how those of theirs do
TORCHVISION = {
    "conv1.0.": "conv1.",
    "conv1.1.": "bn1.",
    "res2.": "layer1.",
    "res3.": "layer2.",
    "res4.": "layer3.",
    "res5.": "layer4.",
}
VISSL = {
    f"conv{layer}.": f"_feature_blocks.{place}."
    for layer, place in zip(range(1, 6), (0, 2, 4, 5, 6), strict=True)
}
# nn.Sequential(*resnet.children()), as lightly has it: the third and fourth have no weights
NUMBERED = {"conv1.0.": "0.", "conv1.1.": "1.", "res2.": "4.", "res3.": "5.", "res4.": "6."}
NUMBERED |= {"res5.": "7."}
# What puts a network in another one, and its name into those of the weights, wherever it stands.
WRAPPER = r"(?:(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)"
WRAPPED = re.compile(rf"(?:(?<=\.)|(?<=^)){WRAPPER}")
OLD = (  # names that torchvision itself had once, and its files still have
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp\.)linear_1\."), r"\g<1>0."),
    (re.compile(r"(encoder_layer_\d+\.mlp\.)linear_2\."), r"\g<1>3."),
)
COUNTS = "num_batches_tracked"  # of batch norm in training; older files have none
BLOB_ENDS = {"running_mean": "rm", "running_var": "riv", "bias": "b"}  # riv holds the variance


class Layout(NamedTuple):
    """How a kind of file names the weights of a trunk of ours."""

    kind: str
    arch: str  # as the registry has it; "" where the file says it
    anchors: tuple[str, ...]  # the names by either of which the kind is known
    name: Callable[[str], str]  # ours -> theirs
    trunk: re.Pattern[
        str
    ]  # theirs, of any trunk of this family: one that we have no place for is wrong


def plain(name: str) -> str:
    """Return the NAME of a blob or weight without what tells of its training or of an old version.

    A Jigsaw network has nine towers: what they share, and the batch norm of the first, is _s0_. The
    AlexNet of Colorization calls batch norm norm, that of Jigsaw _bn.
    """
    for old, new in OLD:
        name = old.sub(new, name)
    return re.sub(r"(conv\d)norm_", r"\1_bn_", re.sub(r"_s0_", "_", name))


def bare(name: str) -> str:
    """Return the plain NAME of a weight without the wrappers that its network was put into."""
    return WRAPPED.sub("", plain(name))


def ending(anchor: str) -> re.Pattern[str]:
    """Return the pattern of plain names that end with ANCHOR: its group is what stands before."""
    inside = rf"\.{WRAPPER}*".join(map(re.escape, anchor.split(".")))
    return re.compile(rf"((?:.*\.)?){inside}")


def _renamed(beginnings: Mapping[str, str]) -> Callable[[str], str]:
    """Return the function that gives a name of ours another of BEGINNINGS, {ours: theirs}."""

    def name(ours: str) -> str:
        begins = next(begins for begins in beginnings if ours.startswith(begins))
        return beginnings[begins] + ours.removeprefix(begins)

    return name


def detectron2(ours: str) -> str:
    """Return what detectron2's ResNet calls our weight, without what stands before its stages."""
    layer, *inside, end = ours.split(".")
    if layer == "conv1":
        return f"stem.conv1.{'norm.' * (inside[0] == '1')}{end}"
    block, part = inside[:2]
    if part == "downsample":
        return f"{layer}.{block}.shortcut.{'norm.' * (inside[2] == '1')}{end}"
    return f"{layer}.{block}.conv{part[-1]}.{'norm.' * part.startswith('bn')}{end}"


def _alexnet_blob(ours: str) -> str:
    layer, part, end = ours.split(".")
    return _blob(layer if part == "0" else f"{layer}_bn", end)


def _resnet_blob(ours: str) -> str:
    layer, *inside, end = ours.split(".")
    if layer == "conv1":
        return _blob({"0": "conv1", "1": "res_conv1_bn"}[inside[0]], end)
    block, part = inside[:2]
    if part == "downsample":
        branch, norm = "1", inside[2] == "1"
    else:
        branch, norm = "2" + "abc"[int(part[-1]) - 1], part.startswith("bn")
    return _blob(f"{layer}_{block}_branch{branch}{'_bn' if norm else ''}", end)


def _blob(base: str, end: str) -> str:
    norm = base.endswith("_bn")
    return f"{base}_{BLOB_ENDS.get(end, 's' if norm else 'w')}"


LAYOUTS = (
    Layout(
        "Caffe2",
        "resnet50",
        ("res5_2_branch2c_w", "res2_0_branch2c_w"),
        _resnet_blob,
        re.compile(r"(conv1|res_conv1_bn|res\d_\d+_branch(1|2[abc])(_bn)?)_(w|b|s|rm|riv)"),
    ),
    Layout(
        "Caffe2",
        "alexnet",
        ("conv5_w", "conv3_w"),
        _alexnet_blob,
        re.compile(r"conv\d(_bn)?_(w|b|s|rm|riv)"),
    ),
    Layout(
        "PyTorch",
        "resnet50",
        ("layer4.2.conv3.weight", "layer1.0.conv3.weight"),
        _renamed(TORCHVISION),
        re.compile(r"(conv1|bn1|layer\d)\..*"),
    ),
    Layout(
        "PyTorch",
        "resnet50",
        ("7.2.conv3.weight", "4.0.conv3.weight"),
        _renamed(NUMBERED),
        re.compile(r"[01]\.\w+|[4-7]\..*"),
    ),
    Layout(
        "detectron2",
        "resnet50",
        ("res5.2.conv3.norm.weight", "res2.0.conv3.norm.weight"),
        detectron2,
        re.compile(r"(stem|res\d)\..*"),
    ),
    Layout(
        "VISSL",
        "alexnet",
        ("_feature_blocks.6.0.weight", "_feature_blocks.4.0.weight"),
        _renamed(VISSL),
        re.compile(r"_feature_blocks\..*"),
    ),
)
OWN = Layout("ssl-bench", "", (), str, re.compile(r"(conv|res)\d\..*"))
torchvision = _renamed(TORCHVISION)


def backbones(trunk: Backbone | TimmBackbone) -> Iterator[Layout]:
    """Yield the layouts of a file of the network of TRUNK.

    By its own names, and by those of nn.Sequential(*network.children()).
    """
    children = [name for name, _module in trunk.network.named_children()]
    named = [name.removeprefix("network.") for name in trunk.state_dict()]

    def numbered(name: str) -> str:
        first, dot, rest = name.partition(".")
        return f"{children.index(first)}{dot}{rest}" if first in children else name

    renamings: tuple[Callable[[str], str], ...] = (str, numbered)
    both = [named, [numbered(name) for name in named]]
    endings = Counter(end for names in both for name in set(names) for end in _endings(name))
    for names, rename in zip(both, renamings, strict=True):
        # What ends no other name: swin_t has norm.bias, and features.2.norm.bias.
        lasting = (name for name in reversed(names) if not name.endswith(COUNTS))
        anchor = next(name for name in lasting if endings[name] == 1)
        parts = sorted({re.escape(name.partition(".")[0]) for name in names})

        def theirs(ours: str, rename: Callable[[str], str] = rename) -> str:
            return rename(ours.removeprefix("network."))

        # timm has norms of the trunk and the classifier in one part, head.norm and head.fc.
        heads = "|".join(re.escape(f"{rename(head)}.") for head in _heads(trunk))
        trunks = re.compile(rf"{f'(?!{heads})' * bool(heads)}({'|'.join(parts)})(\..*)?")
        kind = "PyTorch" if isinstance(trunk, Backbone) else "timm"
        yield Layout(kind, trunk.arch, (anchor,), theirs, trunks)


def _heads(trunk: Backbone | TimmBackbone) -> tuple[str, ...]:
    """Return the names of the classifiers of TRUNK that stand among its own parts."""
    return trunk.heads if isinstance(trunk, TimmBackbone) else ()


def _endings(name: str) -> list[str]:
    """Return NAME, and what is left of it without its first parts."""
    parts = name.split(".")
    return [".".join(parts[first:]) for first in range(len(parts))]
