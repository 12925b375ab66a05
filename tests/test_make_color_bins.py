"""make-color-bins as a process."""

import io

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab


def arrays(done):
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as npz:
        return dict(npz)


@pytest.fixture
def painted(tmp_path):
    """Write three images of known colours and a manifest of them; return their colours (N, 3)."""
    colours = np.array([(200, 30, 60), (20, 90, 220), (40, 160, 40), (128, 128, 128)], np.uint8)
    for number, order in enumerate(([0, 0, 1, 1], [2, 2, 2, 2], [0, 3, 3, 3])):
        quarters = colours[order].reshape(1, 4, 3).repeat(256, 0).repeat(64, 1)
        Image.fromarray(quarters).save(tmp_path / f"{number}.png")
    (tmp_path / "m.tsv").write_text("0.png\n1.png\n2.png\n")
    return colours[[0, 0, 1, 1, 2, 2, 2, 2, 0, 3, 3, 3]]


def cells(colours, grid):
    lab = np.rint(rgb2lab(colours[None]))[0, :, 1:]
    corners = ((lab + 128) // grid * grid - 128).astype(int)
    points, counts = np.unique(corners, axis=0, return_counts=True)
    return points, counts / counts.sum()


@pytest.mark.parametrize("grid", [5, 10, 15, 20])
def test_bins_and_prior(run, painted, grid):
    option = [] if grid == 10 else ["--grid", grid]
    done = run("make-color-bins", *option, "-j", 0, "m.tsv", check=0)
    got, (points, prior) = arrays(done), cells(painted, grid)
    assert got["points"].dtype == np.int64 and got["prior"].dtype == np.float64
    assert np.array_equal(got["points"], points)
    assert np.allclose(got["prior"], prior, atol=1e-15)
    assert done.stderr.decode() == f"make-color-bins: 3 images, {len(points)} bins\n"


def test_prior_only(run, painted, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    manifest = b"0.png\nbroken.png\n1.png\n2.png\n"
    done = run("make-color-bins", "--prior-only", "-j", 2, stdin=manifest, check=0)
    got = arrays(done)
    lab = np.rint(rgb2lab(painted[None]))[0, :, 1:]
    want = np.zeros(313)
    for ab in lab:
        want[((ab - got["points"]) ** 2).sum(1).argmin()] += 1 / len(lab)
    assert np.allclose(got["prior"], want, atol=1e-15) and len(got["points"]) == 313
    said = "make-color-bins: 3 images, 313 bins, 4 of them with colours; 1 unreadable\n"
    assert done.stderr.decode() == said


def test_no_image_can_be_read(run, tmp_path):
    (tmp_path / "m.tsv").write_text("a.jpg\nb.jpg\n")
    done = run("make-color-bins", "-j", 0, "m.tsv", "-o", "b.npz", check=1)
    said = "make-color-bins: m.tsv:1: no image of 2 can be read: is --root right?\n"
    assert done.stderr.decode() == said and not (tmp_path / "b.npz").exists()


@pytest.mark.parametrize("wrong", [["--grid", 7], ["--grid", 5, "--prior-only"]])
def test_usage(run, scratch, wrong):
    done = run("make-color-bins", *wrong, "train.tsv", check=2)
    assert done.stdout == b"" and done.stderr.count(b"\n") == 1
