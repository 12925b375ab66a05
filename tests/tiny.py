"""Run a command with networks of few layers registered: `python tests/tiny.py COMMAND ...`.

With FROZEN in the environment batch norm is frozen: it does not train, and mixes no images. With
DROPOUT the network draws random numbers.
"""

import importlib
import os
import sys
from collections import OrderedDict

from torch import nn
from torchvision.models.resnet import BasicBlock

from ssl_common.models import registry
from ssl_common.models.trunk import StagedTrunk


class Tiny(StagedTrunk):
    """Three layers, for the mechanics: N x 3 x 64 x 64 gives N x 16 x 3 x 3."""

    name = "tiny"
    input_size = 64
    pooling = {"conv1": (5, 5, 0), "conv2": (3, 2, 1), "conv3": (3, 1, 0)}

    def __init__(self):
        super().__init__(
            OrderedDict(
                conv1=nn.Sequential(nn.Conv2d(3, 8, 7, stride=4), nn.BatchNorm2d(8), nn.ReLU()),
                conv2=nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
                conv3=nn.Sequential(nn.Conv2d(16, 16, 3, stride=2), nn.ReLU()),
            )
        )


class TinyLab(Tiny):
    """Tiny for Colorization: N x 1 x 179 x 179 gives N x 16 x 10 x 10."""

    name = "tiny-lab"
    reads = "lab"
    head_width = 0

    def __init__(self):
        super().__init__()
        self.conv1[0] = nn.Conv2d(1, 8, 7, stride=4)


class TinyResNet(StagedTrunk):
    """A ResNet of torchvision's blocks, one a stage, with few channels."""

    name = "tiny-resnet"
    input_size = 64
    pooling = {"res4": (2, 1, 0), "res5": (1, 1, 0)}

    def __init__(self):
        conv1 = nn.Conv2d(3, 16, 7, stride=2, padding=3, bias=False)
        stages = OrderedDict(
            conv1=nn.Sequential(conv1, nn.BatchNorm2d(16), nn.ReLU(inplace=True)),
            pool1=nn.MaxPool2d(3, 2, 1),
        )
        sizes = {"res2": (16, 16), "res3": (16, 32), "res4": (32, 64), "res5": (64, 128)}
        for stage, (channels, filters) in sizes.items():
            down = nn.Sequential(
                nn.Conv2d(channels, filters, 1, 1 + (stage != "res2"), bias=False),
                nn.BatchNorm2d(filters),
            )
            stride = 1 if stage == "res2" else 2
            stages[stage] = nn.Sequential(BasicBlock(channels, filters, stride, down))
        super().__init__(stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


registry.TRUNKS |= {"tiny": Tiny, "tiny-lab": TinyLab, "tiny-resnet": TinyResNet}

if "DROPOUT" in os.environ:

    class Drawing(Tiny):
        """Tiny, with a dropout at its end."""

        def __init__(self):
            super().__init__()
            self.conv3.append(nn.Dropout())

    registry.TRUNKS["tiny"] = Drawing

if "FROZEN" in os.environ:
    for norm in (nn.BatchNorm1d, nn.BatchNorm2d):
        norm.train = lambda self, mode=True: nn.Module.train(self, False)

if __name__ == "__main__":
    name = sys.argv.pop(1)
    importlib.import_module(f"ssl_tools.{name.replace('-', '_')}").main()
