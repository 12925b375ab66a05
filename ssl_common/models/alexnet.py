"""AlexNet as the paper's Jigsaw and Colorization networks have it (FAIR's alexnet files)."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import nn

from ssl_common.models.trunk import StagedTrunk, Window


def _convolution(channels: int, filters: int, kernel: int, **options: Any) -> nn.Sequential:
    """Return convolution, batch norm, ReLU; MSRA initialisation keeps the scale of the signal."""
    convolution = nn.Conv2d(channels, filters, kernel, **options)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.BatchNorm2d(filters), nn.ReLU(inplace=True))


# layer -> kernel, stride, padding of the average pooling to about 9,000 features, conv1 at stride 4
STRIDE_4: dict[str, Window] = {
    "conv1": (19, 4, 0),  # 96 x 55 x 55 -> 96 x 10 x 10
    "conv2": (12, 3, 0),  # 256 x 27 x 27 -> 256 x 6 x 6
    "conv3": (9, 1, 0),  # 384 x 13 x 13 -> 384 x 5 x 5
    "conv4": (9, 1, 0),
    "conv5": (8, 1, 0),  # 256 x 13 x 13 -> 256 x 6 x 6
}


def max_pooling() -> nn.MaxPool2d:
    """Return pooling that rounds the size of its output down."""
    return nn.MaxPool2d(3, 2)


def stages(
    channels: int,
    stride: int,
    convolution: Callable[..., nn.Module] = _convolution,
    pooling: Callable[[], nn.Module] = max_pooling,
) -> OrderedDict[str, nn.Module]:
    """Return the five convolutions, made by CONVOLUTION, and the layers of POOLING between them.

    conv1 takes CHANNELS, at STRIDE.
    """
    return OrderedDict(
        conv1=convolution(channels, 96, 11, stride=stride),
        pool1=pooling(),
        conv2=convolution(96, 256, 5, padding=2, groups=2),
        pool2=pooling(),
        conv3=convolution(256, 384, 3, padding=1),
        conv4=convolution(384, 384, 3, padding=1, groups=2),
        conv5=convolution(384, 256, 3, padding=1, groups=2),
        pool5=max_pooling(),
    )


class AlexNet(StagedTrunk):
    """The Jigsaw network's: conv1 at stride 2 without padding; no LRN.

    N x 3 x 64 x 64 gives N x 256 x 2 x 2; N x 3 x 227 x 227 gives N x 256 x 12 x 12.
    """

    name = "alexnet"
    input_size = 227
    pooling = {
        "conv1": (28, 9, 0),  # 96 x 109 x 109 -> 96 x 10 x 10
        "pool1": (6, 6, 3),  # 96 x 54 x 54 -> 96 x 10 x 10
        "conv2": (24, 6, 0),  # 256 x 54 x 54 -> 256 x 6 x 6
        "pool2": (4, 4, 0),  # 256 x 26 x 26 -> 256 x 6 x 6
        "conv3": (14, 3, 0),  # 384 x 26 x 26 -> 384 x 5 x 5
        "conv4": (14, 3, 0),
        "conv5": (16, 2, 0),  # 256 x 26 x 26 -> 256 x 6 x 6
        "pool5": (2, 2, 0),  # 256 x 12 x 12 -> 256 x 6 x 6
    }

    def __init__(self) -> None:
        super().__init__(stages(3, 2))


class AlexNetStride4(StagedTrunk):
    """The same with conv1 at stride 4, in which the paper fine-tunes it: its weights fit both.

    N x 3 x 227 x 227 gives N x 256 x 6 x 6.
    """

    name = "alexnet-stride4"
    input_size = 227
    pooling = STRIDE_4 | {"pool5": (1, 1, 0)}  # 256 x 6 x 6

    def __init__(self) -> None:
        super().__init__(stages(3, 4))


class AlexNetLab(StagedTrunk):
    """The Colorization network's: it reads lightness alone, conv1 at stride 4 without padding.

    N x 1 x 227 x 227 gives N x 256 x 6 x 6.
    """

    name = "alexnet-lab"
    reads = "lab"
    head_width = 4096  # of the layers that Colorization lays over conv5
    input_size = 227
    pooling = STRIDE_4 | {"pool5": (1, 1, 0)}  # 256 x 6 x 6

    def __init__(self) -> None:
        super().__init__(stages(1, 4))
