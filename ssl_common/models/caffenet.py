"""CaffeNet, the AlexNet of the paper's supervised and random rows (protocol of FAIR's files)."""

from torch import nn

from ssl_common.models.alexnet import STRIDE_4, max_pooling, stages


def _convolution(channels, filters, kernel, **options):
    """Return convolution and ReLU, initialised as Caffe's: N(0, 0.01) and no bias."""
    convolution = nn.Conv2d(channels, filters, kernel, **options)
    nn.init.normal_(convolution.weight, std=0.01)
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.ReLU(inplace=True))


def _pooling():
    """Return response normalisation, then pooling: BVLC's AlexNet has them in this order."""
    return nn.Sequential(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75), max_pooling())


class CaffeNet(nn.Sequential):
    """The five convolutions, conv1 at stride 4 without padding; no batch norm.

    N x 3 x 227 x 227 gives N x 256 x 6 x 6.
    """

    reads = "rgb"
    input_size = 227  # pixels, for features
    pooling = STRIDE_4

    def __init__(self):
        super().__init__(stages(3, 4, _convolution, _pooling))
