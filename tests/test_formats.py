"""Formats: a file is read as it says, or refused in one line that names it, whatever is in it."""

import contextlib
import copy
import dataclasses
import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
import tiny  # noqa: F401 (a network of three layers)
import torch
from conftest import CHECKOUT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_common import formats, records, results, streams
from ssl_common.data import identity, lines
from ssl_common.data.manifest import Manifest
from ssl_common.evaluation import features
from ssl_common.evaluation.detection.recipes import RECIPES as DETECTION
from ssl_common.evaluation.detection.recipes import Design
from ssl_common.evaluation.finetuning.recipes import RECIPES as FINETUNING
from ssl_common.evaluation.linear import recipes
from ssl_common.evaluation.linear.heads import Heads
from ssl_common.evaluation.navigation.recipes import CLONING
from ssl_common.evaluation.normals.recipes import PAPER
from ssl_common.evaluation.svm import classifiers, lowshot, scoring
from ssl_common.models import networks, registry
from ssl_common.pretext import bins, permutations
from ssl_common.pretext import recipes as pretext_recipes
from ssl_common.pretext.jigsaw import Jigsaw
from ssl_common.streams import DataError
from ssl_common.training import pretraining
from ssl_common.training.plan import resolve

QUICK, LONG = 100, 5000  # examples
RANDOM = np.random.default_rng(0)


def drawing(count):
    """Return the settings of tests that draw COUNT examples, the same each time."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


# ---- One file of each format, and how it is read -------------------------------------------------


def written(save, *content):
    stream = io.BytesIO()
    save(stream, *content)
    return stream.getvalue()


def npz(arrays):
    """Return ARRAYS, {name: array or the bytes of a .npy}, as a .npz."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", array if isinstance(array, bytes) else npy(array))
    return stream.getvalue()


def npy(array):
    return written(lambda stream: np.save(stream, array, allow_pickle=True))


def arrays_of(data):
    with np.load(io.BytesIO(data), allow_pickle=True) as found:
        return dict(found)


FIELDS = {
    **{"model": "0123456789abcdef", "arch": "alexnet", "pretext": "jigsaw", "seed": 0},
    **{"data": "fedcba9876543210", "data_name": "train", "layer": "conv5", "shape": [2, 2, 1]},
    **{"permutations": 100, "neighbors": None, "images": 1000},
}
TRAINED = FIELDS | {"train_images": 6, "train_manifest": "0011223344556677", "svm_seed": 0}
TRAINED |= {"solver": "exact", "fits": 9, "unconverged": 0}
PATHS = np.sort(RANDOM.integers(0, 2**64, 6, np.uint64))


IMAGES = identity.Images(PATHS, contents=np.sort(RANDOM.integers(0, 2**64, 6, np.uint64)))
FEATURES = RANDOM.normal(size=(6, 5))


def made_classifiers():
    """Return Classifiers of each way to choose a cost."""
    count = len(classifiers.COSTS)
    weights, ap = RANDOM.normal(size=(4, 6)), RANDOM.uniform(0, 1, (4, count))
    cost = np.append(classifiers.COSTS[ap[:2].argmax(1)], [1.0, np.nan])
    weights[3], ap[2:] = np.nan, np.nan
    ways = ["folds", "folds", "others", "none"]
    return classifiers.Classifiers(
        ["a", "b", "c", "\xe9"], weights, cost, ways, ap, IMAGES, TRAINED
    )


def few():
    """Return LowShot of two classes, one of them left out at k = 2."""
    rows = {(1, 1): ([0, 1, 2], [0, 3, 4]), (1, 2): ([3, 5], [2, 3, 4]), (2, 1): ([0, 1, 2], [])}

    def coefficients(k, both):
        """Those of the first k rows of each class, its positives, are above 0."""
        signs = np.concatenate([np.where(np.arange(len(each)) < k, 1, -1) for each in both if each])
        return (signs * RANDOM.uniform(1, 2, (len(classifiers.COSTS), len(signs)))).astype(
            np.float32
        )

    parts = {
        key: lowshot.Machines(
            np.array([len(each) for each in both]),
            np.array(sum(both, []), np.int32),
            coefficients(key[0], both),
        )
        for key, both in rows.items()
    }
    fields = TRAINED | {"train_features": streams.digest(FEATURES.tobytes())}
    scale = 1 / (np.linalg.norm(FEATURES, axis=1) + 1e-5)
    return lowshot.LowShot(["a", "b"], parts, classifiers.COSTS, scale, IMAGES, fields)


@dataclasses.dataclass
class Case:
    """A format: a whole file, its content by name, how that is written, and how a file is read.

    The readers give back a dict. One that is LAZY leaves numbers to those who use them.
    """

    data: bytes
    content: dict
    write: Callable
    read: Callable
    suffix: str
    lazy: bool = False
    loose: tuple = ()  # what may be missing
    use: Callable = lambda folder, path: None  # what a command does with it


def one_array(name, array, read, lazy=False):
    def write(content):
        array = next(iter(content.values()), b"")  # of whatever name
        return array if isinstance(array, bytes) else npy(array)

    return Case(npy(array), {name: array}, write, read, ".npy", lazy)


def archive(data, read, use=lambda folder, path: None):
    return Case(data, arrays_of(data), npz, read, ".npz", use=use, loose=("contents",))


def flat(path):
    """Return what a file of low-shot classifiers holds, by the names in the file."""
    found = formats.LOW_SHOT.read(path)
    for (number, k), parts in found.pop("machines").items():
        found |= {f"{name}_sample{number}_k{k}": array for name, array in parts.items()}
    return found


def sample(folder_path):
    labels = np.array([[1, -1], [-1, 1], [1, -1], [-1, 1]], np.int8)
    rows, classes = ((n, "of m.tsv") for n in labels.shape)
    return formats.SAMPLE.read(folder_path, N=rows, C=classes)


def saved(content):
    """Return the file of a network, checkpoint or linear classifiers that holds CONTENT."""
    stream = io.BytesIO()
    torch.save(dict(content) | {"digest": networks.digest(dict(content))}, stream)
    return stream.getvalue()


def settings_of(**more):
    """Return settings as pretrain and train-linear have them."""
    plan = resolve(pretext_recipes.RECIPES["jigsaw", "in1k"], "in1k", images=512, batch=256)
    known = {"arch": "tiny", "pretext": "jigsaw", "reads": "rgb", "images": 512, "data": "0" * 16}
    return plan.settings() | known | {"data_name": None} | more


TRUNK = registry.build("tiny", 0).state_dict()


def network():
    task = Jigsaw(np.array([range(9), [1, 0, *range(2, 9)]]))
    head = task.network(registry.build("tiny", 0)).state_dict()
    head = {name: each for name, each in head.items() if not name.startswith("trunk.")}
    content = {"format": 1, "settings": settings_of(**task.settings()), "trunk": TRUNK}
    return content | {"head": head, **task.arrays()}


def checkpoint():
    sums, generator = torch.zeros(4, dtype=torch.float64), [[torch.get_rng_state()]]
    return {"format": 1, "version": "0.2.0", "settings": settings_of(), "step": 3,
            "position": [1, 1], "log_bytes": 9, "log_lines": 1, "log_digest": "0" * 16,
            "network": TRUNK, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
            "random": generator, "threads": 2, "sums": sums, "lines": [], "unreadable": 0,
            }  # fmt: skip


def linear_file():
    layers, shapes = ["conv1", "conv3"], [[8, 2, 2], [16, 1, 1]]
    heads = Heads(shapes, 2, 0.1, False).state_dict()
    settings = settings_of(task="linear", layers=layers, classes=2, model="0" * 16, labels="0" * 16)
    recipe = recipes.RECIPES["alexnet"]
    settings |= {key: getattr(recipe, key) for key in ("bn_momentum", "bn_affine", "warp")}
    settings |= {"crop": "center", "flip": True, "jitter": 0.0, "lighting": 0.1, "cache": False}
    about = {"format": 1, "model": "0" * 16, "arch": "tiny", "pretext": "random", "seed": 0}
    return {"format": 1, "settings": settings, "classes": ["a", "b"], "shapes": shapes,
            "heads": heads, "frozen": TRUNK, "about": about,
            "paths": torch.from_numpy(PATHS.view(np.int64))}  # fmt: skip


def detector():
    design = Design("faster", "res4", size=64)
    known = {"arch": "tiny-resnet", "model": "0" * 16, "classes": 2, "objects": "0" * 16}
    known |= {"task": "detection", "cache": False, "stride": 16} | design.settings(False)
    plan = resolve(DETECTION["voc07", "faster"], "voc07", images=512)
    settings = plan.settings() | known | {"images": 512, "data": "0" * 16, "data_name": None}
    about = {"format": 1, "model": "0" * 16, "arch": "tiny-resnet", "pretext": "random", "seed": 0}
    return {"format": 1, "settings": settings, "classes": ["a", "b"], "about": about,
            "frozen": TRUNK, "network": TRUNK}  # fmt: skip


def normals_file():
    plan = resolve(PAPER, "paper", images=512)
    settings = settings_of(**plan.settings()) | {"model": "0" * 16, "labels": "0" * 16}
    settings |= {"code_error": 3.5, "train_ground_truth": "depth", "train_rule": None, "codes": 3}
    about = {"format": 1, "model": "0" * 16, "arch": "tiny", "pretext": "random", "seed": 0}
    return {"format": 1, "settings": settings, "codes": torch.eye(3), "mean": torch.ones(3),
            "mean_image": torch.rand(2, 4, 3), "network": TRUNK, "frozen": TRUNK, "about": about,
            "paths": torch.from_numpy(PATHS.view(np.int64))}  # fmt: skip


def tuned_file():
    plan = resolve(FINETUNING["alexnet"], "alexnet", images=512)
    settings = settings_of(**plan.settings()) | {"model": "0" * 16, "labels": "0" * 16}
    settings |= {"pretext": "fine-tuned jigsaw", "classes": 2, "loss": "sigmoid", "fc": 8}
    head = {"fc8.weight": torch.rand(2, 8), "fc8.bias": torch.rand(2)}
    about = {"format": 1, "model": "0" * 16, "arch": "tiny", "pretext": "jigsaw", "seed": 0}
    return {"format": 1, "settings": settings, "classes": ["a", "b"], "trunk": TRUNK, "head": head,
            "about": about, "paths": torch.from_numpy(PATHS.view(np.int64))}  # fmt: skip


def navigator():
    plan = resolve(CLONING, "cloning", images=512)
    settings = settings_of(**plan.settings()) | {"model": "0" * 16, "labels": "0" * 16}
    settings |= {"task": "navigation", "method": "cloning", "layer": "conv1", "side": 64}
    settings |= {"runs": 2, "actions": 3}
    about = {"format": 1, "model": "0" * 16, "arch": "tiny", "pretext": "random", "seed": 0}
    return {"format": 1, "settings": settings, "actions": ["left", "on", "right"],
            "policies": TRUNK, "frozen": TRUNK, "about": about,
            "paths": torch.from_numpy(PATHS.view(np.int64))}  # fmt: skip


def tensors(content, read, use=lambda folder, path: None, loose=()):
    return Case(saved(content), content, saved, read, ".pt", use=use, loose=loose)


def show(_folder, path):
    """Do what extract-features and show-pretext do with the file PATH, but for the images."""
    features.network(path, 0)
    pretraining.load(path, "jigsaw")


def json_text(content):
    return json.dumps(content).encode()


def record(path):
    """Return the only record in the file PATH."""
    found = [each for _line, each in records.read(path)]
    for each in found:
        results.check(each, path)
    return found[0] if len(found) == 1 else {}


RECORD = TRAINED | {"task": "svm", "metric": "mAP", "value": 51.5, "data_set": "test",
                    "classes": 2, "per_class": {"a": 1.5, "b": None}, "interval": [1, 2.5],
                    "unseen": [], "inputs": {"svm": "0" * 16, "features": None}, "argv": ["x"],
                    "version": "0.2.0", "time_utc": "2019-11-01T00:00:00+00:00"}  # fmt: skip
OBJECTS = {"path": "a/1.jpg", "width": 20, "height": 10, "boxes": [[0, 0, 20, 10], [1, 2, 3, 4.5]],
           "labels": ["cat", "dog"], "difficult": [False, True]}  # fmt: skip
PROPOSALS = {"format": 1, "paths": np.frombuffer(b"a.jpg\nb c.jpg", np.uint8),
             "offsets": np.array([0, 2, 2]), "boxes": np.array([[0, 1, 2, 3], [0, 0, 9, 9]], "f4"),
             "scores": np.array([1, 0.5], "f4")}  # fmt: skip
DETECTIONS = {"path": "a/1.jpg", "width": 20, "height": 10, "labels": ["cat", "dog"],
              "boxes": [[0, 0, 20, 10], [-1, 2, 3, 4.5]], "scores": [0.5, 0.25]}  # fmt: skip
COCO_RESULT = {"image_id": 7, "category_id": 3, "bbox": [1, 2, 3.5, 4], "score": 0.5}
REPLY = {"shape": [120, 160, 3], "actions": ["left", "on"], "reward": -0.5, "terminated": False,
         "truncated": False, "success": True, "distance_to_goal": 3.5, "path_length": 2,
         "expert": 1}  # fmt: skip
METADATA = {"format": "pt", "ssl_bench": "1", "arch": "tiny", "names": "timm", "channels": "BGR",
            "mean": "[0.5, 0.25, 0]", "std": "[1, 2, 0.5]", "input_size": "[3, 64, 64]",
            "pretext": "jigsaw", "images": "512", "seed": "0", "license": "mit",
            "digest": "0" * 16, "settings": json.dumps(settings_of()), "other": "x"}  # fmt: skip
DRAWN = {"format": 1, "seed": 3, "digests": {"sample1_k2.npy": "0" * 16}}


def measure(folder, path, **extra):
    """Do what eval-svm does with the file PATH; it may find that it does not fit the features."""
    found = scoring.evaluate(path, f"{folder}/x.npy", f"{folder}/x.tsv", {}, **extra)
    assert all(0 <= record["value"] <= 100 for record in found)


def measure_few(folder, path):
    measure(folder, path, train_features=f"{folder}/x.npy")


CASES = {
    "svm": archive(written(classifiers.save, made_classifiers()), formats.SVM.read, measure),
    "low-shot": archive(written(lowshot.save, few()), flat, measure_few),
    "bins": archive(
        written(bins.save, np.array([[-10, 0], [0, 0], [0, 10]]), np.array([0.25, 0.5, 0.25])),
        formats.BINS.read,
    ),
    "points": one_array(
        "points", np.array([[-10, 0], [0, 0], [0, 10]]),
        formats.POINTS.read,
    ),
    "contents": one_array("contents", PATHS, formats.CONTENTS.read),
    "permutations": one_array(
        "permutations", np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1]]),
        lambda path: {"permutations": permutations.load(path)},
    ),
    "features": one_array(
        "features", RANDOM.normal(size=(4, 3)).astype(np.float32), formats.FEATURES.read, True
    ),
    "sidecar": Case(
        json_text(FIELDS), FIELDS, json_text, formats.SIDECAR.read, ".json", loose=tuple(FIELDS)
    ),
    "samples.json": Case(
        json_text(DRAWN), DRAWN, json_text, formats.SAMPLES.read, ".json", loose=("seed",)
    ),
    "objects": Case(json_text(OBJECTS), OBJECTS, json_text, formats.OBJECTS.read, ".json"),
    "detections": Case(
        json_text(DETECTIONS), DETECTIONS, json_text, formats.DETECTIONS.read, ".json"
    ),
    "COCO's result": Case(
        json_text(COCO_RESULT), COCO_RESULT, json_text, formats.COCO_RESULT.read, ".json"
    ),
    "proposals": archive(npz(PROPOSALS), formats.PROPOSALS.read),
    "metadata": Case(json_text(METADATA), METADATA, json_text, formats.METADATA.read, ".json",
                     loose=tuple(METADATA.keys() - {"ssl_bench", "arch"})),
    "result": Case(json_text(RECORD), RECORD, json_text, record, ".json", loose=tuple(RECORD)),
    "network": tensors(network(), networks.load_network, show, ("permutations",)),
    "checkpoint": tensors(
        checkpoint(), lambda path: networks.load_checkpoint(path, "pretrain"),
        loose=("log_lines", "log_digest"),
    ),
    "linear": tensors(linear_file(), networks.load_linear),
    "detector": tensors(detector(), networks.load_detector),
    "normals": tensors(normals_file(), networks.load_normals),
    "tuned": tensors(tuned_file(), networks.load_tuned),
    "navigator": tensors(navigator(), networks.load_navigator, loose=("paths",)),
    "reply": Case(json_text(REPLY), REPLY, json_text, formats.REPLY.read, ".json",
                  loose=tuple(REPLY.keys() - {"shape"})),
    "sample": one_array("sample", np.array([[1, 0], [0, 1], [-1, -1], [-1, -1]], np.int8), sample),
}  # fmt: skip


def read(case, path, folder):
    """Return what CASE reads in the file PATH, or None where that is refused, as it should be."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = case.read(str(path))
        except DataError as error:
            message = str(error)
            assert str(path) in message and "\n" not in message and len(message) < 1000, message
            assert "allow_pickle" not in message and "weights_only" not in message
            return None
        with contextlib.suppress(DataError):
            case.use(folder, str(path))
        return found


def same(found, expected):
    """Tell whether FOUND, that was read, is EXPECTED; NaN equals NaN."""
    is_json = isinstance(expected, str) and not isinstance(found, str)
    if is_json or isinstance(found, dict) and not isinstance(expected, dict):
        expected = json.loads(str(expected))
    if isinstance(found, dict):
        return all(key in found and same(found[key], expected[key]) for key in expected)
    if isinstance(found, list | tuple) and isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(found, torch.Tensor):
        if found.shape != expected.shape:
            return False
        both_nan = (found != found) & (expected != expected)
        return bool(((found == expected) | both_nan).all())
    found, expected = np.asarray(found), np.asarray(expected)
    number = found.dtype.kind in "fiu"
    return found.shape == expected.shape and np.array_equal(found, expected, equal_nan=number)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with features, and their manifest."""
    path = tmp_path_factory.mktemp("formats")
    np.save(path / "x.npy", FEATURES)
    (path / "x.tsv").write_text("".join(f"{n}.jpg\t{'ab'[n % 2]}\n" for n in range(6)))
    return path


every = pytest.mark.parametrize("name", CASES)
counts = pytest.mark.parametrize(
    "count", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)], ids=["quick", "long"]
)


@every
def test_a_whole_file_is_read_as_it_was_written(folder, name):
    case = CASES[name]
    (folder / f"whole{case.suffix}").write_bytes(case.data)
    found = read(case, folder / f"whole{case.suffix}", folder)
    assert found is not None and same(found, case.content)
    case.use(folder, str(folder / f"whole{case.suffix}"))


# ---- Other content in a whole container ----------------------------------------------------------

TYPES = ["?", "i1", "u2", ">i4", "i8", "u8", "f2", ">f4", "f8", "g", "c8", "U7", "S5", "O", "M8[D]"]
STRANGE = st.sampled_from([
    np.array(value)
    for value in (True, "", "text", "\ud800", "a\nb", [], [[]], {}, -1, 0, 2**70, 1.5, np.nan,
                  "[" * 5000, "{}", "null", '{"a": 1', '{"a": NaN}', "9" * 5000)
] + [np.zeros((0, 3)), np.zeros((2, 2), "i4,f4"), np.array(["\ud800", "b"]),
     np.array([0x110000], "u4").view("U1")])  # fmt: skip
NO_NUMBERS = [np.nan, np.inf, -np.inf]


class Named(dict):
    """A dict that is shown by its names."""

    def __repr__(self):
        return f"{{{', '.join(map(str, self))}}}"


@st.composite
def changed(draw, case):
    """Return (content, whether it must be refused) of CASE, arrays, with something done to it."""
    content = Named(case.content)
    name = draw(st.sampled_from(sorted(content)))
    array = content[name]
    ways = ["value", "type", "shape", "rows", "hole", "sign", "header"]
    ways += ["drop", "name", "more", "swap"] * (len(content) > 1)
    what = draw(st.sampled_from(ways))
    if what in ("drop", "name"):
        del content[name]
        content |= {f"{name} ": array} if what == "name" else {}
        return content, name not in case.loose
    if what == "more":
        content["other"] = draw(STRANGE)
    elif what == "value":
        content[name] = draw(STRANGE)
    elif what == "swap":
        other = draw(st.sampled_from(sorted(content)))
        content[name], content[other] = content[other], array
    elif what == "type":
        with warnings.catch_warnings(), contextlib.suppress(TypeError, ValueError):
            warnings.simplefilter("ignore")
            content[name] = array.astype(draw(st.sampled_from(TYPES)))
    elif what == "shape":
        ways = [array.ravel(), array[None], array.T, array[..., None], array[None][:0]]
        content[name] = draw(st.sampled_from([way for way in ways if way.shape != array.shape]))
    elif what == "rows" and array.ndim:
        take = draw(st.lists(st.integers(0, len(array) - 1), max_size=len(array) + 2))
        content[name] = array[take]
        return content, not take
    elif what == "hole" and array.dtype.kind == "f" and np.isfinite(array).any():
        places = np.flatnonzero(np.isfinite(array.ravel()))
        content[name] = array.copy()
        content[name].flat[draw(st.sampled_from(places))] = draw(st.sampled_from(NO_NUMBERS))
        return content, not case.lazy
    elif what == "sign" and array.dtype.kind in "fiu":
        content[name] = -array
    elif what == "header":
        content[name] = claiming(draw, array)
    return content, False


def claiming(draw, array):
    """Return the bytes of a .npy of ARRAY that says of itself what is drawn."""
    descr = draw(st.sampled_from([array.dtype.str, "<f8", "|O", "", "f", "<i4,<f4", "V0", "U0", 8]))
    sides = st.integers(-1, 3) | st.sampled_from([2**31, 2**40, 2**63, 10**30, True, "3", None])
    shape = draw(st.just(array.shape) | st.lists(sides, max_size=3).map(tuple) | st.just(4))
    order = draw(st.sampled_from([False, True, 0, "no"]))
    text = repr({"descr": descr, "fortran_order": order, "shape": shape})
    odd = ["{", "(" * 3000, "-" * 4000 + "1", "[" * 90, "'\\d'", "1" * 5000, "\xff", "{}", "lambda"]
    text = draw(st.just(text) | st.just(text.replace(",)", "L,)")) | st.sampled_from(odd))
    return npy_saying(text, draw(st.sampled_from([1, 2, 3, 9])), array.tobytes())


def npy_saying(text, version, data):
    text = text.encode("latin1") + b"\n"
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def numbers():
    floats = st.floats(allow_nan=True, width=64) | st.sampled_from([1e-9, 1e300, -0.5])
    return floats | st.sampled_from([-1, 0, 1, 2**31, 2**63, 2**70, 10**399, int("9" * 4000)])


def json_values():
    """Return what JSON may hold, and what Python's json holds beside."""
    texts = st.text(max_size=3) | st.sampled_from(["", "\ud800", "\0", "a\nb", "[" * 5000])
    single = st.none() | st.booleans() | numbers() | texts
    nested = st.sampled_from([[[[[]]]], json.loads("[" * 50 + "]" * 50)])
    lists = st.lists(single, max_size=4) | st.lists(st.lists(single, max_size=2), max_size=2)
    return single | lists | nested | st.dictionaries(texts, single, max_size=2)


def odd_tensors():
    """Return tensors, and what torch.save takes beside, that no file of ours holds."""
    cycle = []
    cycle.append(cycle)
    whole = torch.arange(6).reshape(2, 3)
    return st.sampled_from([
        torch.zeros(0), torch.zeros(1).expand(10**9), torch.full((2, 2), torch.nan), whole,
        whole.T, whole.bool(), whole.to(torch.bfloat16), whole.to(torch.complex64),
        whole.double().to_sparse(), torch.zeros(2, device="meta"), torch.ones(3, 9), whole.double(),
        torch.nn.Parameter(torch.ones(8)), torch.tensor(1), torch.tensor(-1.5), cycle,
        {1: 2}, {"a": whole}, {None: None}, b"bytes", 1j, torch.float32, torch.Size([1]), {1, 2},
    ])  # fmt: skip


@st.composite
def changed_tree(draw, case):
    """Return (content, whether it must be refused) of CASE, tables, with something done to it."""
    content = Named(copy.deepcopy(case.content))
    inside, where = content, draw(st.sampled_from(sorted(content)))
    loose = where in case.loose
    while isinstance(inside[where], dict) and inside[where] and draw(st.booleans()):
        inside, loose = inside[where], True
        where = draw(st.sampled_from(sorted(inside)))
    what = draw(st.sampled_from(["drop", "name", "more", "value", "value", "swap", "hole"]))
    odd = json_values() if case.suffix == ".json" else json_values() | odd_tensors()
    if what in ("drop", "name"):
        inside.update({f"{where} ": inside.pop(where)})
        return content, not loose
    if what == "more":
        inside["other"] = draw(odd)
    elif what == "swap":
        other = draw(st.sampled_from(sorted(inside)))
        inside[where], inside[other] = inside[other], inside[where]
    elif what == "value":
        inside[where] = draw(odd)
    elif isinstance(inside[where], torch.Tensor) and inside[where].is_floating_point():
        inside[where] = inside[where].clone()
        inside[where].view(-1)[0] = draw(st.sampled_from(NO_NUMBERS))
        return content, True
    return content, False


def check_changed(folder, name, draw):
    case = CASES[name]
    arrays = case.suffix in (".npy", ".npz")
    content, bad = draw(changed(case) if arrays else changed_tree(case))
    path = folder / f"changed-{name}{case.suffix}"
    try:
        path.write_bytes(case.write(content))
    except (ValueError, RecursionError, NotImplementedError):
        return  # it cannot be written
    found = read(case, path, folder)
    assert found is None or not bad
    if found is not None:
        there = {key: array for key, array in content.items() if not isinstance(array, bytes)}
        assert same(found, there)


@every
@counts
def test_other_content_is_read_as_it_is_or_refused(folder, name, count):
    @drawing(count)
    @given(st.data())
    def check(data):
        check_changed(folder, name, data.draw)

    check()


# ---- Damaged containers --------------------------------------------------------------------------


@st.composite
def damaged(draw, case):
    """Return the bytes of CASE with something done to them."""
    data = bytearray(
        draw(st.sampled_from([each.data for each in CASES.values()] + [case.data] * 9))
    )
    first, last = sorted(draw(st.integers(0, len(data))) for _ in range(2))
    what = draw(st.sampled_from(["cut", "flip", "flip", "flip", "out", "zero", "in", "twice"]))
    if what == "cut":
        del data[first:]
    elif what == "out":
        del data[first:last]
    elif what == "zero":
        data[first:last] = bytes(last - first)
    elif what == "in":
        data[first:first] = draw(st.binary(max_size=20))
    elif what == "twice":
        data[first:first] = data[first:last]
    for _flip in range(draw(st.integers(1, 3)) if what == "flip" and data else 0):
        data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


MANIFEST = "a/1.jpg\tcat,?dog\nb\u00e9/2.jpg\n3.jpg\tdog\n"


def rows(path, kept=()):
    """Return {"rows": each of the manifest PATH, whose index may be KEPT}."""
    return {"rows": [list(map(list, row[1:])) + [row.path] for row in Manifest(path, kept)]}


def rows_of(data):
    """Return what rows() is to give of the bytes DATA of a manifest."""
    found = []
    for line in data.decode().removesuffix("\n").split("\n"):
        path, _tab, labels = line.partition("\t")
        labels = labels.split(",") if labels else []
        difficult = [label[1:] for label in labels if label[0] == "?"]
        found.append([[label for label in labels if label[0] != "?"], difficult, path])
    return {"rows": found}


LISTS = {"manifest": Case(MANIFEST.encode(), {}, None, rows, ".tsv")}


def check_damaged(folder, name, draw):
    case = (CASES | LISTS)[name]
    path = folder / f"damaged-{name}{case.suffix}"
    path.write_bytes(draw(damaged(case)))
    found = read(case, path, folder)
    if found is None:
        return
    if case.suffix == ".json":
        expected = json.loads(path.read_bytes()) if found else {}
    elif case.suffix == ".tsv":
        expected = rows_of(path.read_bytes())
    elif case.suffix == ".npy":  # without a checksum: what another reader of it finds
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = {key: np.load(path) for key in case.content}
    else:
        expected = case.content
    whole = [each.content for each in CASES.values() if each.suffix == case.suffix]  # one of these
    assert any(same(found, content) for content in [expected, *whole])


@pytest.mark.parametrize("name", CASES | LISTS)
@counts
def test_damaged_bytes_are_read_as_before_or_refused(folder, name, count):
    @drawing(count)
    @given(st.data())
    def check(data):
        check_damaged(folder, name, data.draw)

    check()


@counts
def test_a_damaged_index_is_made_anew(folder, monkeypatch, count):
    monkeypatch.setattr(lines, "SMALL", 0)
    path, kept = folder / "indexed.tsv", folder / "kept.lines.npy"
    path.write_text(MANIFEST, encoding="utf-8")
    whole = rows(str(path), [str(kept)])
    index = Case(kept.read_bytes(), {}, None, None, ".npy")

    @drawing(count)
    @given(st.data())
    def check(data):
        kept.write_bytes(data.draw(damaged(index)))
        assert rows(str(path), [str(kept)]) == whole

    check()


# ---- The manual ---------------------------------------------------------------------------------

SECTIONS = {
    "Sidecar (.npy.json)": formats.SIDECAR,
    "Colour bins (.npz)": formats.BINS,
    "Classifiers (.npz)": formats.SVM,
    "Low-shot classifiers (.npz)": formats.LOW_SHOT,
    "Network (.pt)": formats.NETWORK,
    "Linear classifiers (.pt)": formats.LINEAR,
    "Detector (.pt)": formats.DETECTOR,
    "Proposals (.npz)": formats.PROPOSALS,
    "Networks that say how they are fed (.safetensors, hub-dir, detectron2)": formats.METADATA,
}


@pytest.mark.parametrize("section", SECTIONS)
def test_the_manual_has_the_same_entries(section):
    """Each once, at the head of a paragraph, but for the fields that --tag alone says."""
    page = (CHECKOUT / "man/ssl-formats.5").read_text(encoding="utf-8").replace("\\-", "-")
    part = page.partition(f".SS {section}\n")[2].partition("\n.SS ")[0]
    told = re.findall(r"^\.TP\n\.IR? (.*)$", part, re.M)
    told = [name for names in told for name in re.split(r'[ ",]+', names) if name]
    found = set(SECTIONS[section].entries) - {"data_set"}
    if "machines" in found:
        parts = SECTIONS[section].entries["machines"].table.entries
        found = found - {"machines"} | {f"{name}_sampleS_kK" for name in parts}
    assert set(told) - {"digest"} == found - {"digest"} and len(told) == len(set(told))


def test_the_manual_has_the_entries_of_a_checkpoint():
    page = (CHECKOUT / "man/ssl-formats.5").read_text(encoding="utf-8")
    part = page.partition(".SS State of a run")[2].partition("\n.SS ")[0]
    told = set(re.findall(r"^\.IR? (\w+)", part, re.M))
    assert set(formats.CHECKPOINT.entries) <= told


# ---- What is certainly wrong --------------------------------------------------------------------


def put(place, value):
    """Return a change of an array: VALUE at PLACE."""

    def change(array):
        array = array.astype("U20") if isinstance(value, str) else array.copy()
        array[place] = value
        return array

    return change


def telling(**fields):
    return lambda array: np.array(json.dumps(json.loads(str(array)) | fields))


WRONG = [
    ("svm", "classes", lambda a: a[::-1], "classes is not in the order of its bytes"),
    ("svm", "classes", put(1, "a"), "classes is not in the order of its bytes, or holds one twice"),
    ("svm", "classes", lambda a: a[1:], "chosen is 4 of <U6, not C texts (C = 3 of classes)"),
    ("svm", "classes", put(3, "x,y"), "classes holds 'x,y', not a class name"),
    ("svm", "chosen", put(1, "best"), "chosen holds 'best', not one of folds, others, default"),
    ("svm", "chosen", put(2, "none"), "coef holds numbers in row 2, whose chosen is none"),
    ("svm", "chosen", put(2, "default"), "chosen holds folds beside default"),
    ("svm", "coef", put((0, 1), np.nan), "coef holds NaN in row 0, whose chosen is folds"),
    ("svm", "coef", put((0, 1), np.inf), "coef holds NaN or infinity"),
    ("svm", "coef", lambda a: a > 0, "coef is 4 x 5 of bool, not C x D real numbers"),
    ("svm", "intercept", put(3, 0.0), "intercept holds numbers in row 3, whose chosen is none"),
    ("svm", "cost", put(2, -1.0), "cost holds -1.0, not a real number above 0"),
    ("svm", "cost", put(2, 3.0), "cost holds one that is none of costs"),
    ("svm", "cost", lambda a: a[[1, 0, 2, 3]], "cost is not where ap is highest"),
    ("svm", "costs", lambda a: a[::-1], "costs is not in order, or holds one twice"),
    ("svm", "ap", put((0, 0), 1.01), "ap holds 1.01, not a real number from 0 to 1"),
    ("svm", "ap", lambda a: a.T, "ap is 26 x 4 of float64, not C x K real numbers"),
    ("svm", "paths", lambda a: a[::-1], "paths is not in order"),
    ("svm", "paths", lambda a: a.astype(str), "paths is 6 of <U20, not N whole numbers"),
    ("svm", "paths", lambda a: a.view("i8"), "paths is 6 of int64, more than uint64 can hold"),
    ("svm", "fields", lambda a: np.array("null"), "fields: not a JSON object"),
    ("svm", "fields", telling(train_images=5), "fields.train_images is 5, not 6 of paths"),
    ("svm", "fields", telling(fits="9"), 'fields.fits is "9", not a whole number from 1 on'),
    ("svm", "fields", telling(unconverged=10), "fields.unconverged is more than fields.fits"),
    ("svm", "fields", telling(layer=5), "fields.layer is 5, not text"),
    ("low-shot", "counts_sample1_k1", put(0, -3), "counts_sample1_k1 holds -3, not a whole number"),
    ("low-shot", "counts_sample1_k1", put(0, 4), "counts_sample1_k1 are of 7 rows, where there"),
    ("low-shot", "counts_sample1_k2", put(0, 2), "counts_sample1_k2 are of 2 rows, where there"),
    ("low-shot", "counts_sample1_k2", lambda a: a[:1], "counts_sample1_k2 is 1 of int64, not C"),
    ("low-shot", "rows_sample1_k1", put(0, -1), "rows_sample1_k1 holds -1, not a whole number"),
    ("low-shot", "rows_sample1_k1", put(0, 6), "rows_sample1_k1 holds 6, not a whole number below"),
    ("low-shot", "rows_sample1_k1", put(0, 2), "rows_sample1_k1 do not ascend in a class"),
    ("low-shot", "coefficients_sample2_k1", lambda a: -a, "coefficients_sample2_k1 are not of k"),
    ("low-shot", "samples", lambda a: a[:, ::-1], "samples are not by k, then by number"),
    ("low-shot", "samples", lambda a: a[:2], "coefficients_sample1_k2 is none of its entries"),
    ("low-shot", "samples", put((0, 0), 9), "samples are not by k|counts_sample9_k1 is missing"),
    ("low-shot", "scale", put(0, 0.0), "scale holds 0.0, not a real number above 0"),
    ("low-shot", "lowshot_format", lambda a: a + 1, "lowshot_format 2, where this version reads 1"),
    ("bins", "points", lambda a: a.astype(float), "points is 3 x 2 of float64, not Q x 2 whole"),
    ("proposals", "offsets", put(1, 3), "offsets is not in order"),
    ("proposals", "offsets", put(0, -1), "offsets go from -1 to 2, where there are 2 boxes"),
    ("proposals", "paths", lambda a: a[:5], "paths holds 1 names, where offsets part 2 images"),
    ("proposals", "boxes", lambda a: a[:, ::-1], "boxes holds one that is not x1, y1, x2, y2"),
    ("proposals", "scores", lambda a: a[:1], "scores is 1 of float32, not M real numbers"),
    ("metadata", "ssl_bench", lambda _: "2", "ssl_bench 2, where this version reads 1"),
    ("metadata", "channels", lambda _: "YUV", "channels holds 'YUV', not one of RGB, BGR, L"),
    ("metadata", "names", lambda _: "caffe", "names holds 'caffe', not one of ssl-bench, timm"),
    ("metadata", "mean", lambda _: "[0.5]", "mean is [0.5], not 3 numbers"),
    ("metadata", "std", lambda _: "[0, 1, 1]", "std is [0, 1, 1], not 3 numbers above 0"),
    ("metadata", "images", lambda _: "many", "images: not JSON (Expecting value at character 1)"),
    ("metadata", "seed", lambda _: "-1", "seed is -1, not a whole number from 0 on"),
    ("metadata", "settings", lambda _: "[1]", "settings: not a JSON object"),
    (
        "metadata",
        "settings",
        lambda _: '{"lr": "x"}',
        'settings.arch is missing|settings.lr is "x"',
    ),
    ("sample", "sample", put((0, 0), 2), "sample holds 2, not a whole number of -1, 0, 1"),
]


@pytest.mark.parametrize(
    "name, entry, change, said", WRONG, ids=lambda value: "" if callable(value) else value[:30]
)
def test_what_contradicts_itself_is_refused(folder, name, entry, change, said):
    case = CASES[name]
    content = case.content | {entry: change(case.content[entry])}
    path = folder / f"wrong{case.suffix}"
    path.write_bytes(case.write(content))
    with pytest.raises(DataError) as caught:
        case.read(str(path))
    message = str(caught.value).removeprefix(f"{path}: ")
    assert any(message.startswith(each) for each in said.split("|")), message


KINDS = {
    "network": ("a network", ("checkpoint", "linear", "normals")),
    "checkpoint": ("a checkpoint", ("network", "linear", "normals")),
    "linear": ("linear classifiers", ("network", "checkpoint", "normals")),
    "detector": ("a detector", ("network", "checkpoint", "linear")),
    "normals": ("a predictor of normals", ("network", "checkpoint", "linear")),
    "navigator": ("a navigator", ("network", "checkpoint", "normals")),
    "svm": ("classifiers of train-svm", ("low-shot", "bins")),
    "low-shot": ("low-shot classifiers of train-svm", ("svm", "bins")),
    "bins": ("colour bins", ("svm", "low-shot")),
    "proposals": ("proposals", ("svm", "bins")),
}


@pytest.mark.parametrize("name", KINDS)
def test_one_format_in_the_place_of_another_is_named(folder, name):
    what, others = KINDS[name]
    for other in others:
        path = folder / f"other{CASES[name].suffix}"
        path.write_bytes(CASES[other].data)
        with pytest.raises(DataError, match=f"{path}: {KINDS[other][0]}, not {what}: "):
            CASES[name].read(str(path))
