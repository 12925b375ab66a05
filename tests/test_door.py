"""The door for notebooks: what `import ssl_common` gives, and what it leaves as it was."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import CHECKOUT, environment
from PIL import Image

import ssl_common


def test_names_are_loaded_when_they_are_first_used():
    """`import ssl_common` imports nothing but itself; each name is there, and says what it does."""
    code = "import sys, ssl_common; print('numpy' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"
    for name in ssl_common.__all__:
        assert getattr(ssl_common, name).__doc__ and name in dir(ssl_common)
    with pytest.raises(AttributeError, match="no attribute 'Layer'"):
        ssl_common.Layer  # noqa: B018 an attribute that is looked up


def test_features_of_files_and_arrays_are_those_of_the_command(run, scratch):
    run("extract-features", "random:alexnet", "test.tsv", "--layer", "conv3", "-o", "f.npy",
        cwd=scratch, check=0)  # fmt: skip
    layers = ssl_common.Layers("random:alexnet", ["conv3"], seed=0)
    paths = [row.path for row in ssl_common.Manifest(str(scratch / "test.tsv"))]
    before = dict(os.environ), torch.get_num_threads()
    found = ssl_common.image_features(layers, paths, root=str(scratch), batch=3)
    arrays = [np.asarray(Image.open(scratch / path).convert("RGB")) for path in paths]
    again = ssl_common.image_features(layers, arrays, batch=64)
    assert (dict(os.environ), torch.get_num_threads()) == before
    want = np.load(scratch / "f.npy")
    for features in (found["conv3"], again["conv3"]):
        np.testing.assert_allclose(features, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    assert ssl_common.image_features(layers, [])["conv3"].shape == (0, 9600)


def test_svms_on_arrays_are_those_of_the_command(run, scratch):
    run("train-svm", "train.npy", "train.tsv", "-o", "svm.npz", cwd=scratch, check=0)
    x, test = np.load(scratch / "train.npy"), np.load(scratch / "test.npy")
    rows = ssl_common.Manifest(str(scratch / "train.tsv"))
    labels = [row.labels[0] for row in rows]
    before = torch.get_num_threads()
    svms = ssl_common.LinearSVMs(random_state=0).fit(x, labels)
    assert torch.get_num_threads() == before
    with np.load(scratch / "svm.npz") as file:
        np.testing.assert_allclose(svms.coef_, file["coef"], rtol=1e-6)
        np.testing.assert_allclose(svms.intercept_, file["intercept"], rtol=1e-6)
        assert list(svms.classes_) == list(file["classes"]) and list(svms.cost_) == list(
            file["cost"]
        )
    scale = 1 / (np.linalg.norm(test, axis=1, keepdims=True) + 1e-5)
    want = (test * scale) @ svms.coef_.T + svms.intercept_
    np.testing.assert_allclose(svms.decision_function(test), want, rtol=1e-6)
    truth = [row.labels[0] for row in ssl_common.Manifest(str(scratch / "test.tsv"))]
    run("eval-svm", "svm.npz", "test.npy", "test.tsv", "-o", "r.jsonl", cwd=scratch, check=0)
    (record,) = ssl_common.read_records(str(scratch / "r.jsonl"))
    assert 100 * svms.score(test, truth) == pytest.approx(record["value"])
    right = np.array(svms.predict(test)) == np.array(truth)
    assert right.mean() == (want.argmax(1) == [list(svms.classes_).index(t) for t in truth]).mean()
    done = run("report", "r.jsonl", cwd=scratch, check=0)
    assert ssl_common.tabulate(str(scratch / "r.jsonl")).encode() == done.stdout


def test_several_labels_an_image_and_none():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (40, 3))
    x = rng.normal(size=(40, 8))
    x[:, :3] += 3 * y
    svms = ssl_common.LinearSVMs().fit(x, y)
    assert list(svms.classes_) == [0, 1, 2] and svms.score(x, y) > 0.95
    with pytest.raises(ValueError, match="40 rows, and labels of 39"):
        ssl_common.LinearSVMs().fit(x, y[:39])


def test_the_notebook_of_the_readme(scratch):
    (code,) = re.findall(r"```python\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=scratch, env=environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, *table = done.stdout.splitlines()
    assert 0 <= float(first) <= 1 and "conv5" in table[0]
