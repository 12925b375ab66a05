"""ResNet-50 (He et al., CVPR 2016), its stride in the 3 x 3, made of torchvision's modules."""

from collections import OrderedDict
from typing import Any, cast

from torch import nn

from ssl_common.models.trunk import StagedTrunk, Window


class ResNet50(StagedTrunk):
    """torchvision's network by the paper's names of its layers; initialised as torchvision does.

    N x 3 x 64 x 64 and N x 3 x 224 x 224 give N x 2048 x 1 x 1. A map of res2 ... res5 is the
    output of the last block, after the sum and its ReLU.
    """

    name = "resnet50"
    input_size = 224
    pooling: dict[str, Window] = {
        "conv1": (10, 10, 4),  # 64 x 112 x 112 -> 64 x 12 x 12
        "pool1": (5, 5, 2),  # 64 x 56 x 56 -> 64 x 12 x 12
        "res2": (16, 8, 0),  # 256 x 56 x 56 -> 256 x 6 x 6
        "res3": (13, 5, 0),  # 512 x 28 x 28 -> 512 x 4 x 4
        "res4": (8, 3, 0),  # 1024 x 14 x 14 -> 1024 x 3 x 3
        "res5": (6, 1, 0),  # 2048 x 7 x 7 -> 2048 x 2 x 2
        "pool5": (1, 1, 0),  # 2048 x 1 x 1: an average already
    }

    def __init__(self) -> None:
        from torchvision.models import resnet50  # two seconds that other networks do not pay

        made = resnet50(weights=None)
        super().__init__(
            OrderedDict(
                conv1=nn.Sequential(made.conv1, made.bn1, made.relu),
                pool1=made.maxpool,
                res2=made.layer1,
                res3=made.layer2,
                res4=made.layer3,
                res5=made.layer4,
                pool5=made.avgpool,
            )
        )


class ResNet50Lab(ResNet50):
    """The Colorization network's: it reads lightness alone, and res5 keeps the size of res4.

    N x 1 x 224 x 224 gives N x 2048 x 1 x 1, from a res5 of 14 x 14.
    """

    name = "resnet50-lab"
    reads = "lab"
    head_width = 0  # Colorization lays its bins over res5 directly
    pooling = ResNet50.pooling | {"res5": (12, 2, 0)}  # 2048 x 14 x 14 -> 2048 x 2 x 2

    def __init__(self) -> None:
        super().__init__()
        convolution = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        conv1, res5 = cast(Any, self.conv1), cast(Any, self.res5)
        conv1[0] = convolution
        res5[0].conv2.stride = res5[0].downsample[0].stride = (1, 1)


def is_plain(network: nn.Module) -> bool:
    """Tell whether NETWORK is a ResNet of torchvision, or one of timm without later additions.

    Those, as a stem of three convolutions or averages in the shortcuts, are not of the paper's.
    """
    from torchvision.models import ResNet

    if isinstance(network, ResNet):
        return True
    if type(network).__name__ != "ResNet" or not isinstance(
        network.get_submodule("conv1"), nn.Conv2d
    ):
        return False
    parts = {type(module).__name__ for module in network.modules() if not list(module.children())}
    known = {
        "Conv2d",
        "BatchNorm2d",
        "FrozenBatchNorm2d",  # as a detector has made of it
        "ReLU",
        "Identity",
        "MaxPool2d",
        "AdaptiveAvgPool2d",
        "Flatten",
    }
    return isinstance(network.get_submodule("maxpool"), nn.MaxPool2d) and parts <= known
