"""CaffeNet, the AlexNet of the paper's supervised and random rows (as in FAIR's files)."""

from typing import Any

from torch import nn

from ssl_common.models.alexnet import STRIDE_4, max_pooling, stages
from ssl_common.models.trunk import StagedTrunk


def _convolution(channels: int, filters: int, kernel: int, **options: Any) -> nn.Sequential:
    """Return convolution and ReLU, initialised as Caffe's: N(0, 0.01) and no bias."""
    convolution = nn.Conv2d(channels, filters, kernel, **options)
    nn.init.normal_(convolution.weight, std=0.01)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.ReLU(inplace=True))


def _pooling() -> nn.Sequential:
    """Return response normalisation, then pooling: BVLC's AlexNet has them in this order."""
    return nn.Sequential(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75), max_pooling())


class CaffeNet(StagedTrunk):
    """The five convolutions, conv1 at stride 4 without padding; no batch norm.

    N x 3 x 227 x 227 gives N x 256 x 6 x 6.
    """

    name = "caffenet"
    input_size = 227
    pooling = STRIDE_4

    def __init__(self) -> None:
        super().__init__(stages(3, 4, _convolution, _pooling))
