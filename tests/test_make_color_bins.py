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
    words = ["--prior-only", "-j", 2, "--max-bad", "25%"]
    done = run("make-color-bins", *words, stdin=manifest, check=0)
    got = arrays(done)
    lab = np.rint(rgb2lab(painted[None]))[0, :, 1:]
    want = np.zeros(313)
    for ab in lab:
        want[((ab - got["points"]) ** 2).sum(1).argmin()] += 1 / len(lab)
    assert np.allclose(got["prior"], want, atol=1e-15) and len(got["points"]) == 313
    said = "make-color-bins: 3 images, 313 bins, 4 of them with colours; 1 unreadable\n"
    assert done.stderr.decode() == said


@pytest.mark.parametrize(
    "more, most, said",
    [
        ("", "100%", ":1: no image of 2 can be read: is --root right?"),
        ("0.png\n1.png\n2.png\n", "39%", ": 2 of 5 images cannot be read (line 1: a.jpg), "
         "more than --max-bad 39.000%: mend them, check --root, or raise it"),
    ],
)  # fmt: skip
def test_too_many_images_cannot_be_read(run, painted, tmp_path, more, most, said):
    """Nothing is judged before the end of a small list."""
    (tmp_path / "m.tsv").write_text(f"a.jpg\nb.jpg\n{more}")
    done = run("make-color-bins", "-j", 0, "m.tsv", "--max-bad", most, "-o", "b.npz", check=1)
    assert done.stderr.decode() == f"make-color-bins: m.tsv{said}\n"
    assert not (tmp_path / "b.npz").exists()


@pytest.mark.parametrize("how", [["--grid", 10], ["--prior-only"]])
def test_gray_images_have_no_colours_to_count(run, painted, tmp_path, how):
    """Also where they are stored in colour, and a little off gray."""
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (40, 50)).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "g0.png")
    Image.fromarray(gray).convert("RGB").save(tmp_path / "g1.png")
    off = gray[..., None] + rng.integers(-1, 2, (40, 50, 3))
    Image.fromarray(off.clip(0, 255).astype(np.uint8)).save(tmp_path / "g2.png")
    words = ["make-color-bins", *how, "-j", 0, "-o", "b.npz"]
    done = run(*words, stdin=b"g0.png\ng1.png\ng2.png\n", check=1)
    said = "standard input:1: all 3 images are gray: nothing can be learned of colours"
    assert done.stderr.decode() == f"make-color-bins: {said}\n"
    assert not (tmp_path / "b.npz").exists()
    done = run(*words, stdin=b"0.png\ng0.png\ng1.png\ng2.png\n", check=0)
    assert done.stderr.decode().endswith("; 3 gray\n")


@pytest.mark.parametrize("wrong", [["--grid", 7], ["--grid", 5, "--prior-only"]])
def test_usage(run, scratch, wrong):
    done = run("make-color-bins", *wrong, "train.tsv", check=2)
    assert done.stdout == b"" and done.stderr.count(b"\n") == 1
