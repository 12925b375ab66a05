"""pretrain, extract-features and show-pretext with colorization, as processes."""

import io
import json

import conftest
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import lab2rgb, rgb2lab

from ssl_common.data.images import read
from ssl_common.data.order import draws
from ssl_common.pretext import bins
from ssl_common.training import pretraining


def tiny(folder, *argv, status=0):
    done = conftest.tiny(folder, *argv)
    assert done.returncode == status, done.stderr.decode()
    return done


def pretrain(folder, *argv, status=0):
    given = ["colorization", "train.tsv", "--arch", "tiny", "--batch", 4, "-j", 0, *argv]
    return tiny(folder, "pretrain", *given, status=status)


@pytest.fixture
def prior(scratch):
    with open(scratch / "prior.npz", "wb") as stream:
        chance = np.random.default_rng(0).dirichlet(np.ones(313))
        bins.save(stream, bins.hull(), chance)
    return chance


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_log_and_network(scratch, prior, precision):
    options = ["--bins", "prior.npz", "--neighbors", 5, "--precision", precision]
    done = pretrain(scratch, *options, "--epochs", 4, "--lr", "1e-3", "-o", "color.pt")
    settings, *lines = map(json.loads, done.stdout.splitlines())
    told = {key: settings[key] for key in ("reads", "optimizer", "bins", "neighbors", "rebalanced")}
    assert told == {
        **{"reads": "lab", "optimizer": "adam", "bins": 313, "neighbors": 5, "rebalanced": True}
    }
    assert lines[-1]["step"] == 12 and 0 < lines[-1]["loss"] < np.log(313)
    assert 0 <= lines[-1]["accuracy"] <= 1
    content = torch.load(scratch / "color.pt", weights_only=True)
    assert np.array_equal(content["points"], bins.hull())
    assert np.array_equal(content["prior"], prior)
    assert content["trunk"]["conv1.0.weight"].shape == (8, 1, 7, 7)

    tiny(scratch, "extract-features", "color.pt", "test.tsv", "--layer", "conv3", "-j", 0,
         "-o", "f.npy")  # fmt: skip
    assert np.isfinite(np.load(scratch / "f.npy")).all()
    assert json.loads((scratch / "f.npy.json").read_text())["pretext"] == "colorization"


def test_other_bins_do_not_go_on(scratch, prior):
    pretrain(scratch, "--iterations", 1, "-o", "color.pt")
    assert not torch.load(scratch / "color.pt", weights_only=True)["prior"].any()
    options = ["--bins", "prior.npz", "--iterations", 1, "-o", "color.pt"]
    said = pretrain(scratch, *options, status=1).stderr.decode()
    assert "rebalanced False, not True" in said and said.count("\n") == 1
    done = pretrain(scratch, "--permutations", "p4.npy", "-o", "x.pt", status=2)
    assert b"--permutations: not an option of colorization" in done.stderr


def test_two_parts_learn_what_one_does(scratch, prior):
    """By the weights over the whole batch; batch norm, which sees the parts, frozen."""
    losses = []
    for parts in (1, 2):
        argv = ["pretrain", "colorization", "train.tsv", "--arch", "tiny", "--batch", "4"]
        argv += ["--bins", "prior.npz", "--iterations", "8", "--lr", "1e-3", "-j", "0"]
        argv += ["--accumulate", str(parts), "-o", f"{parts}.pt"]
        done = conftest.tiny(scratch, *argv, env={"FROZEN": "1"})
        assert done.returncode == 0, done.stderr.decode()
        losses.append(json.loads(done.stdout.splitlines()[-1])["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_picture(scratch):
    """Gray, predicted, original, read back; the predicted one against interpolation by hand."""
    pretrain(scratch, "--iterations", 6, "--lr", "1e-2", "-o", "color.pt")
    photos = [f"photos/{name}/0.jpg" for name in ("cat", "dog")]
    done = tiny(scratch, "show-pretext", "colorization", "color.pt", *photos)
    picture = np.asarray(Image.open(io.BytesIO(done.stdout)))
    assert picture.shape == (2 * 235, 24 + 3 * 179 + 2 * 24, 3)
    network, task = pretraining.load(str(scratch / "color.pt"), "colorization")
    distances = []
    for row, path in enumerate(photos):
        gray, predicted, original = (
            picture[row * 235 + 12 :, 12 + column * 203 :][:179, :179] for column in range(3)
        )
        drawn = draws(0, [0], [row], 3)
        image = task.crop(read(scratch / path), drawn[0]).numpy()
        image = image[:, ::-1] if drawn[0, 2] < 0.5 else image
        assert (original == image).all()
        lab = rgb2lab(image)
        neutral = lab2rgb(lab * (1, 0, 0)) * 255
        assert abs(gray - neutral).max() < 3 and (np.ptp(gray, axis=2) <= 1).all()
        with torch.no_grad():
            logits = network(torch.from_numpy(lab[None, None, :, :, 0] - 50).float())
        ab = (logits[0] / 0.38).softmax(2).double().numpy() @ bins.hull()
        # Halfway between two places, and on one: 17 + 16 n.
        for y, x, want in ((17 + 48, 17 + 64, ab[3, 4]), (17 + 40, 17, (ab[2, 0] + ab[3, 0]) / 2)):
            expected = lab2rgb(np.array([lab[y, x, 0], *want])) * 255
            assert abs(predicted[y, x] - expected).max() < 4
        assert (predicted[0, 0] != gray[0, 0]).any()
        middles = lab[17 : 17 + 160 : 16, 17 : 17 + 160 : 16, 1:]
        distances.append(np.linalg.norm(ab - middles, axis=2).mean())
    said = done.stderr.decode()
    assert said.startswith("show-pretext: 2 images, colours ")
    assert float(said.split()[4]) == pytest.approx(np.mean(distances), abs=0.3)


def test_a_network_of_jigsaw_is_refused(scratch):
    done = tiny(scratch, "show-pretext", "colorization", "photos/cat/0.jpg", status=2)
    assert b"name a MODEL.pt first" in done.stderr
