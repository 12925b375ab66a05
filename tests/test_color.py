"""Lab against scikit-image (floating point, D65), and values of others."""

import hashlib
import warnings

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from ssl_common.evaluation import features
from ssl_common.models import registry
from ssl_common.pretext import color


@pytest.fixture(scope="module")
def pixels():
    """Colours of every kind, uint8 2 x 3 x 64 x 64: all over the cube, and close to gray."""
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (3, 64, 64))
    gray = (rng.integers(0, 256, (1, 64, 64)) + rng.integers(-3, 4, (3, 64, 64))).clip(0, 255)
    return torch.from_numpy(np.stack([wide, gray]).astype(np.uint8))


def test_8_bit_lab(pixels):
    got = color.lab8(pixels).permute(0, 2, 3, 1).numpy()
    want = rgb2lab(pixels.permute(0, 2, 3, 1).numpy()) * (255 / 100, 1, 1) + (0, 128, 128)
    assert got.dtype == np.uint8
    # OpenCV's tables are coarse where it is dark; rounding alone is off by 1/4 on average.
    assert (abs(got - want).max((0, 1, 2)) < (1.4, 2.3, 1.5)).all()
    assert abs(got - want).mean() < 0.29


@pytest.mark.parametrize(
    "rgb, lab",
    [  # what cv2.cvtColor(..., cv2.COLOR_RGB2Lab) of OpenCV 5.0.0 gives
        ((0, 0, 255), (82, 207, 20)),
        ((255, 0, 0), (136, 208, 195)),
        ((0, 255, 0), (224, 42, 211)),
        ((255, 255, 255), (255, 128, 128)),
        ((0, 0, 0), (0, 128, 128)),
        ((128, 128, 128), (137, 128, 128)),
        ((0, 6, 98), (24, 163, 77)),  # double precision gives a = 164
        ((12, 200, 77), (181, 61, 177)),
    ],
)
def test_as_opencv(rgb, lab):
    pixel = torch.tensor(rgb, dtype=torch.uint8).view(3, 1, 1)
    assert tuple(color.lab8(pixel).flatten().tolist()) == lab


def test_all_colours_as_opencv():
    """The digest is that of cv2.cvtColor(..., cv2.COLOR_RGB2Lab) of OpenCV 5.0.0, red by red."""
    axis = torch.arange(256, dtype=torch.uint8)
    digest = hashlib.sha256()
    for red in range(256):
        block = torch.cartesian_prod(axis[red : red + 1], axis, axis).T[:, None]
        digest.update(color.lab8(block).permute(1, 2, 0).contiguous().numpy().data)
    assert digest.hexdigest() == (
        "b3067516fa862bb008af4ffb4da5555722524a70776bf7ffd523a90f4331480c"
    )


def test_lightness(pixels):
    lightness = color.lightness(pixels)
    assert lightness.shape == (2, 1, 64, 64) and lightness.dtype == torch.float32
    want = color.lab8(pixels)[:, :1].float() * 100 / 255 - 50
    assert abs(lightness - want).max() < 1e-5
    ends = torch.tensor([0, 255], dtype=torch.uint8).expand(3, 1, 2)
    assert color.lightness(ends).flatten().tolist() == [-50, 50]


def test_back_to_rgb(pixels):
    want = pixels.permute(0, 2, 3, 1).numpy()
    lab = rgb2lab(want)
    for image, each in zip(want, lab, strict=True):
        assert abs(color.rgb(each[..., 0], each[..., 1:]).astype(int) - image).max() <= 1
    rng = np.random.default_rng(1)
    lab = rng.uniform((0, -128, -128), (100, 127, 127), (40, 50, 3))  # much of it is out of sRGB
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = np.rint(lab2rgb(lab) * 255)
    inside = ((want > 0) & (want < 255)).all(-1)
    got = color.rgb(lab[..., 0], lab[..., 1:]).astype(int)
    assert inside.sum() > 200 and abs(got - want)[inside].max() <= 1


def test_a_lab_network_is_fed_lightness():
    pixels = torch.randint(0, 256, (2, 3, 227, 227), dtype=torch.uint8)
    got = features.Layers("random:alexnet-lab", ["conv1"], 3)(pixels)["conv1"]
    lightness = rgb2lab(pixels.permute(0, 2, 3, 1).numpy())[..., 0] - 50
    trunk = registry.build("alexnet", 3, "lab").eval()
    with torch.no_grad():
        maps = trunk.conv1(torch.from_numpy(lightness)[:, None].float())
    want = torch.nn.functional.avg_pool2d(maps, 19, 4)
    assert got.shape == (2, 96, 10, 10) and abs(got - want).max() < 0.05 * want.std()
