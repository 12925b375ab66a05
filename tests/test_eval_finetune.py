"""eval-finetune against its formulas written out."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from test_finetune import train, write_photos
from tiny import Tiny

from ssl_common import results
from ssl_common.data import images
from ssl_common.data.pixels import resize, standardize
from ssl_common.evaluation.finetuning import testing
from ssl_common.models import networks
from ssl_common.records import stamp
from ssl_common.streams import DataError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with tuned.pt, and the checkpoints of its epochs."""
    folder = tmp_path_factory.mktemp("trained")
    write_photos(folder)
    train(folder, "-j", "0", "--lr", "0.05", "--keep-epochs")
    return folder


@pytest.fixture
def measure(trained, monkeypatch):
    """Return a function that gives the record of tuned.pt on a list."""
    monkeypatch.chdir(trained)

    def measure(manifest="test.tsv", model="tuned.pt", tags=None, **more):
        told = []
        words = (tags or {}, ".", "cpu", 0, lambda done, total: told.append((done, total)))
        found = testing.evaluate(model, manifest, *words, **more)
        assert [done for done, _total in told] == list(range(1, told[-1][1] + 1))
        results.check(found, "the record")
        return found

    return measure


def scores_of(folder, state, paths):
    """Return the scores that the network of STATE gives the middle of images, in plain terms."""
    trunk = Tiny().eval()
    trunk.load_state_dict({n.removeprefix("trunk."): v for n, v in state.items() if "trunk" in n})
    head = {n.removeprefix("head."): v.double() for n, v in state.items() if "head" in n}
    found = []
    for path in paths:
        image = resize(images.read(path, folder), (256, 307))[96:160, 122:186]
        with torch.no_grad():
            features = trunk(standardize(image.permute(2, 0, 1))[None]).double().mean((2, 3))[0]
        features = (features - head["norm.running_mean"]) / (head["norm.running_var"] + 1e-5).sqrt()
        features = features * head["norm.weight"] + head["norm.bias"]
        found.append((head["pred.weight"] @ features + head["pred.bias"]).numpy())
    return np.array(found)


def value_of(folder, state):
    """Return the value that a record is to have, of the network of STATE."""
    rows = [line.split("\t") for line in (folder / "test.tsv").read_text().splitlines()]
    scores = scores_of(folder, state, [row[0] for row in rows])
    values = []
    for c, name in enumerate(("cat", "dog")):
        labels = [row[1].split(",") if row[1:] else [] for row in rows]
        known = np.array([f"?{name}" not in each for each in labels])
        shown = np.array([name in each for each in labels])[known]
        values.append(average_precision_score(shown, scores[known, c] - 1e-5 * shown))
    return 100 * float(np.mean(values))


def test_the_last_and_the_best_on_the_test(trained, measure):
    content = torch.load(trained / "tuned.pt", weights_only=True)
    last = {f"{part}.{n}": v for part in ("trunk", "head") for n, v in content[part].items()}
    states = {9: last}
    for step in (3, 6):
        path = trained / f"tuned.pt.state/step-{step:012}.pt"
        states[step] = torch.load(path, weights_only=True)["network"]
    want = {step: value_of(trained, state) for step, state in states.items()}
    found = measure(kept=True, tags={"data_set": "made"})
    assert found["value"] == pytest.approx(want[9]) and found["metric"] == "mAP (scikit-learn)"
    best = max(sorted(want), key=want.get)
    assert (found["best_step"], found["compared"]) == (best, 3)
    assert found["best_on_test"] == pytest.approx(want[best])
    assert found["best_on_test"] >= found["value"]
    assert (found["task"], found["data_set"], found["crops"]) == ("finetune", "made", 1)
    assert (found["arch"], found["pretext"], found["test_images"]) == ("tiny", "random", 6)
    assert (found["steps"], found["train_images"], found["finetune_seed"]) == (9, 12, 0)
    assert found["classes"] == 2 and found["unseen"] == [] and "crop_seed" not in found
    assert {"map_area", "map_11_point", "inputs", "train_labels"} <= found.keys()
    without = measure()
    assert "best_on_test" not in without and without["value"] == found["value"]


def test_scores_of_crops_are_summed(measure, trained, monkeypatch):
    """Ten times the middle is ten times its scores, which rank as they did."""
    middle = measure()
    ten = measure(crops=10, seed=3)
    assert (ten["crops"], ten["crop_seed"]) == (10, 3)
    monkeypatch.setattr(testing, "draws", lambda _s, lines, *_: np.full((len(lines), 2), 0.5))
    assert measure(crops=10)["per_class"] == middle["per_class"]


def test_report_shows_it_as_a_task_of_its_own(measure, run, tmp_path):
    """With the published row of its rule alone, and the paper's update rule by its name."""
    record = measure(kept=True, tags={"data_set": "voc2007"}) | stamp("eval-finetune")
    zhang = {"arch": "alexnet-lab", "pretext": "colorization", "data_name": "imagenet-1k"}
    zhang |= {"images": 1281167, "train_images": 5011, "test_images": 4952}
    others = [
        {},
        {"update_rule": "paper"},
        zhang,
        zhang | {"metric": "top-1"},
        {"task": "svm"} | zhang,
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(record | o) + "\n" for o in others))
    out = run("report", "r.jsonl", check=0).stdout.decode()
    rows = [line for line in out.splitlines() if line.startswith("| finetune | voc2007 | mAP (sci")]
    assert len(rows) == 4
    assert "| tiny random seed 0 9 steps" in rows[0] and "paper's update rule" in rows[1]
    assert sum("paper [1]" in row and "65.90" in row for row in rows) == 1
    assert out.count("65.90") == 2 and "scikit-learn of 2016" in out  # the value, and the best


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("0.jpg\tcat\n", "bad.tsv:1: 0.jpg is an image that tuned.pt was trained on"),
        ("12.jpg\tcow\n", "bad.tsv: no label of the classes of the training: write path"),
        ("12.jpg\n", "bad.tsv: no label of the classes of the training: write path"),
        ("gone.jpg\tcat\n", "bad.tsv:1: ./gone.jpg: No such file"),
    ],
)
def test_lists_it_cannot_be_measured_on(trained, measure, text, wrong):
    (trained / "bad.tsv").write_text(text)
    with pytest.raises(DataError) as error:
        measure("bad.tsv")
    assert str(error.value).startswith(wrong)


def test_labels_of_other_classes_are_named(trained, measure):
    text = (trained / "test.tsv").read_text().replace("12.jpg\tcat", "12.jpg\tcat,cow")
    (trained / "cows.tsv").write_text(text)
    found = measure("cows.tsv")
    assert found["unseen"] == ["cow"] and found["value"] == measure()["value"]
    assert testing.summary(found).endswith("over 2 of 2 classes, 6 images; not trained: cow")


def test_checkpoints_of_another_run_are_refused(trained, measure):
    shutil.copy(trained / "tuned.pt", trained / "lonely.pt")
    with pytest.raises(DataError, match="lonely.pt.state: no checkpoint is there: train with"):
        measure(model="lonely.pt", kept=True)
    (trained / "lonely.pt.state").mkdir()
    path = trained / "lonely.pt.state/step-000000000003.pt"
    content = networks.load_checkpoint(str(trained / "tuned.pt.state" / path.name), "finetune")
    networks.save(str(path), content | {"settings": content["settings"] | {"seed": 7}})
    with pytest.raises(DataError, match="step-000000000003.pt: of another run than lonely.pt"):
        measure(model="lonely.pt", kept=True)


def test_weights_without_finite_scores_are_refused(trained, measure):
    content = networks.load_tuned(str(trained / "tuned.pt"))
    large = {"norm.weight": (16,), "norm.bias": (16,), "pred.weight": (2, 16)}
    head = content["head"] | {name: torch.full(shape, 3e38) for name, shape in large.items()}
    networks.save(str(trained / "huge.pt"), content | {"head": head})
    with pytest.raises(DataError, match="huge.pt: it gives no finite numbers: train it again"):
        measure(model="huge.pt")
    networks.save(str(trained / "less.pt"), content | {"head": {}})
    with pytest.raises(DataError, match="less.pt: not the weights of tiny for 2 classes: no head"):
        measure(model="less.pt")
    assert not math.isnan(measure()["value"])
