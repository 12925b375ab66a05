"""CaffeNet, the AlexNet of the paper's supervised and random rows (protocol of FAIR's files)."""

from collections import OrderedDict

from torch import nn


def _convolution(channels, filters, kernel, **options):
    """Return convolution and ReLU, initialised as Caffe's: N(0, 0.01) and no bias."""
    convolution = nn.Conv2d(channels, filters, kernel, **options)
    nn.init.normal_(convolution.weight, std=0.01)
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.ReLU(inplace=True))


def _pooling():
    """Return response normalisation, then pooling: BVLC's AlexNet has them in this order."""
    return nn.Sequential(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75), nn.MaxPool2d(3, 2))


class CaffeNet(nn.Sequential):
    """The five convolutions, conv1 at stride 4 without padding; no batch norm.

    N x 3 x 227 x 227 gives N x 256 x 6 x 6.
    """

    reads = "rgb"
    input_size = 227  # pixels, for features
    # layer -> kernel, stride, padding of the average pooling to about 9,000 features
    pooling = {
        "conv1": (19, 4, 0),  # 96 x 55 x 55 -> 96 x 10 x 10
        "conv2": (12, 3, 0),  # 256 x 27 x 27 -> 256 x 6 x 6
        "conv3": (9, 1, 0),  # 384 x 13 x 13 -> 384 x 5 x 5
        "conv4": (9, 1, 0),
        "conv5": (8, 1, 0),  # 256 x 13 x 13 -> 256 x 6 x 6
    }

    def __init__(self):
        super().__init__(
            OrderedDict(
                conv1=_convolution(3, 96, 11, stride=4),
                pool1=_pooling(),
                conv2=_convolution(96, 256, 5, padding=2, groups=2),
                pool2=_pooling(),
                conv3=_convolution(256, 384, 3, padding=1),
                conv4=_convolution(384, 384, 3, padding=1, groups=2),
                conv5=_convolution(384, 256, 3, padding=1, groups=2),
                pool5=nn.MaxPool2d(3, 2),
            )
        )
