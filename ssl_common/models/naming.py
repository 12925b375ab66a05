"""What others call the weights of our trunks: Caffe2 as the paper used it, VISSL, torchvision."""

import re
from collections.abc import Callable
from typing import NamedTuple

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
BLOB_ENDS = {"running_mean": "rm", "running_var": "riv", "bias": "b"}  # riv holds the variance


class Layout(NamedTuple):
    """How a kind of file names the weights of a trunk of ours."""

    kind: str
    arch: str
    anchors: tuple  # the names by either of which the kind is known
    name: Callable  # ours -> theirs
    trunk: re.Pattern  # theirs, of any trunk of this family: one that we have no place for is wrong


def plain(name):
    """Return the NAME of a Caffe2 blob without what tells of its training.

    A Jigsaw network has nine towers: what they share, and the batch norm of the first, is _s0_. The
    AlexNet of Colorization calls batch norm norm, that of Jigsaw _bn.
    """
    return re.sub(r"(conv\d)norm_", r"\1_bn_", re.sub(r"_s0_", "_", name))


def _renamed(beginnings):
    def name(ours):
        begins = next(begins for begins in beginnings if ours.startswith(begins))
        return beginnings[begins] + ours.removeprefix(begins)

    return name


def _alexnet_blob(ours):
    layer, part, end = ours.split(".")
    return _blob(layer if part == "0" else f"{layer}_bn", end)


def _resnet_blob(ours):
    layer, *inside, end = ours.split(".")
    if layer == "conv1":
        return _blob({"0": "conv1", "1": "res_conv1_bn"}[inside[0]], end)
    block, part = inside[:2]
    if part == "downsample":
        branch, norm = "1", inside[2] == "1"
    else:
        branch, norm = "2" + "abc"[int(part[-1]) - 1], part.startswith("bn")
    return _blob(f"{layer}_{block}_branch{branch}{'_bn' if norm else ''}", end)


def _blob(base, end):
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
        "VISSL",
        "alexnet",
        ("_feature_blocks.6.0.weight", "_feature_blocks.4.0.weight"),
        _renamed(VISSL),
        re.compile(r"_feature_blocks\..*"),
    ),
)
OWN = Layout("ssl-bench", None, (), str, re.compile(r"(conv|res)\d\..*"))
torchvision = _renamed(TORCHVISION)


def backbone(arch, state):
    """Return the layout of a file of torchvision's ARCH, whose trunk has the weights STATE."""
    names = [name.removeprefix("network.") for name in state]
    parts = sorted({re.escape(name.partition(".")[0]) for name in names})
    own = re.compile(rf"({'|'.join(parts)})(\..*)?")
    return Layout("PyTorch", arch, (names[-1],), lambda ours: ours.removeprefix("network."), own)
