"""show-normals as a real process."""

import io

import numpy as np
from PIL import Image

from ssl_common.reporting.captions import MARGIN, SPACE
from ssl_common.reporting.surfaces import SIDE


def test_the_picture(scratch, run):
    """The true normals are those of the file; each image has its line."""
    done = run("show-normals", "normals.pt", "views-test.tsv", "-n", "9", check=0)
    assert done.stderr.startswith(b"show-normals: 2 images, ")
    picture = Image.open(io.BytesIO(done.stdout))
    assert picture.width == 2 * MARGIN + 3 * SIDE + 2 * SPACE
    pixels = np.asarray(picture)
    half = picture.height // 2
    for row, number in enumerate((4, 5)):
        right = np.asarray(Image.open(scratch / f"normals/{number}.png"))[40, 48].astype(int)
        shown = pixels[row * half + MARGIN + 80, MARGIN + SIDE + SPACE + SIDE // 2]
        assert np.abs(shown - right).max() <= 1
    one = run("show-normals", "normals.pt", "views-test.tsv", "-n", "1", check=0).stdout
    assert Image.open(io.BytesIO(one)).height == half


def test_the_same_bytes_again(scratch, run):
    both = [run("show-normals", "normals.pt", "views.tsv", check=0).stdout for _ in range(2)]
    assert both[0] == both[1]
