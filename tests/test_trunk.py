"""What every network says of itself, and how images go through it."""

import pytest
import torch
from tiny import Tiny
from torch import nn

from ssl_common.models import registry
from ssl_common.models.trunk import Trunk


@pytest.mark.parametrize("name", [*registry.TRUNKS, "squeezenet1_1", "torchvision-alexnet"])
def test_a_network_is_built_again_by_its_name(name):
    with torch.device("meta" if name in registry.TRUNKS else "cpu"):
        trunk = registry.build(name, 0)
    assert isinstance(trunk, Trunk) and trunk.name == name
    assert trunk.pooling and trunk.input_size >= 64 and trunk.reads in ("rgb", "lab")


def test_stages_after_the_last_layer_that_is_asked_for_do_not_run():
    class Broken(nn.Module):
        def forward(self, _images):
            raise AssertionError("it ran")

    trunk = Tiny().eval()
    images = trunk.prepare(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    want = trunk.conv2(trunk.conv1(images))
    trunk.conv3 = Broken()
    maps = trunk.maps(["conv2", "conv1"], images)
    assert list(maps) == ["conv1", "conv2"] and torch.equal(maps["conv2"], want)
    with pytest.raises(AssertionError, match="it ran"):
        trunk.maps(["conv3"], images)
