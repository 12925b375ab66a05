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
    part: int = 1,
) -> OrderedDict[str, nn.Module]:
    """Return the five convolutions, made by CONVOLUTION, and the layers of POOLING between them.

    conv1 takes CHANNELS, at STRIDE. Each has so many filters over PART.
    """
    widths = [filters // part for filters in (96, 256, 384, 384, 256)]
    return OrderedDict(
        conv1=convolution(channels, widths[0], 11, stride=stride),
        pool1=pooling(),
        conv2=convolution(widths[0], widths[1], 5, padding=2, groups=2),
        pool2=pooling(),
        conv3=convolution(widths[1], widths[2], 3, padding=1),
        conv4=convolution(widths[2], widths[3], 3, padding=1, groups=2),
        conv5=convolution(widths[3], widths[4], 3, padding=1, groups=2),
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


class AlexNetHalf(StagedTrunk):
    """AlexNet with half the filters, for curves of capacity: a quarter of its products.

    N x 3 x 64 x 64 gives N x 128 x 2 x 2; N x 3 x 227 x 227 gives N x 128 x 12 x 12.
    """

    name = "alexnet-half"
    input_size = 227
    pooling = {  # to as many features as AlexNet's, of more places
        "conv1": (18, 7, 0),  # 48 x 109 x 109 -> 48 x 14 x 14
        "pool1": (4, 4, 1),  # 48 x 54 x 54 -> 48 x 14 x 14
        "conv2": (12, 6, 0),  # 128 x 54 x 54 -> 128 x 8 x 8
        "pool2": (5, 3, 0),  # 128 x 26 x 26 -> 128 x 8 x 8
        "conv3": (8, 3, 0),  # 192 x 26 x 26 -> 192 x 7 x 7
        "conv4": (8, 3, 0),
        "conv5": (5, 3, 0),  # 128 x 26 x 26 -> 128 x 8 x 8
        "pool5": (5, 1, 0),  # 128 x 12 x 12 -> 128 x 8 x 8
    }

    def __init__(self) -> None:
        super().__init__(stages(3, 2, part=2))


class AlexNetHalfLab(StagedTrunk):
    """The Colorization network's with half the filters, in its ColorNet too.

    N x 1 x 227 x 227 gives N x 128 x 6 x 6.
    """

    name = "alexnet-half-lab"
    reads = "lab"
    head_width = 2048
    input_size = 227
    pooling = {
        "conv1": (16, 3, 0),  # 48 x 55 x 55 -> 48 x 14 x 14
        "conv2": (6, 3, 0),  # 128 x 27 x 27 -> 128 x 8 x 8
        "conv3": (7, 1, 0),  # 192 x 13 x 13 -> 192 x 7 x 7
        "conv4": (7, 1, 0),
        "conv5": (6, 1, 0),  # 128 x 13 x 13 -> 128 x 8 x 8
        "pool5": (1, 1, 0),  # 128 x 6 x 6
    }

    def __init__(self) -> None:
        super().__init__(stages(1, 4, part=2))
