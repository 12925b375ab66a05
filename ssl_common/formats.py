"""The files that pass between the commands: ssl-formats(5), as tables.

Letters in shapes are those of the man page: C classes, D features of an image, K costs, N images.
"""

from collections.abc import Callable
from typing import Any

from ssl_common import containers, fields, results, tasks
from ssl_common.schema import (
    Each,
    Either,
    Flag,
    Format,
    Json,
    Mapping,
    Opaque,
    Plain,
    State,
    Table,
    Texts,
    Version,
    integers,
    numbers,
    reals,
)

PATH: dict[str, Any] = {"pattern": r"[^\t\n\r\0?][^\t\n\r\0]*", "called": "path"}
LABELS: dict[str, Any] = {"pattern": r"[^\t\n\r,?][^\t\n\r,]*", "called": "class name"}
CLASSES = Texts("C", order="rising", **LABELS)
DIGEST = Texts(pattern="[0-9a-f]{16}", called="digest")
PLAIN = Plain(maybe=True)
SHAPE = integers("3", least=1, maybe=True)  # of the features of a layer


def _array(name: str) -> Callable[[str], dict[str, Any]]:
    """Return the container of one array, which the table calls NAME."""
    return lambda path: {name: containers.read_array(path)}


def _tensors(command: str) -> Callable[[str], Any]:
    """Return the container of tensors that COMMAND writes."""
    return lambda path: containers.read_tensors(path, f"a file of {command}")


# ---- Features, and what they were made of and for -----------------------------------------------

PERMUTATIONS = Format(
    "permutations",
    "make them with make-permutations",
    _array("permutations"),
    {"permutations": integers("P tiles", "int64")},
)

FEATURES = Format(
    "features",
    "extract them with extract-features",
    _array("features"),
    {"features": numbers("N D", lazy=True)},
)

CONTENTS = Format(
    "what image files held",
    "extract them again with extract-features, or remove it",
    _array("contents"),
    {"contents": integers("N", "uint64")},
)

SAMPLE = Format(
    "a low-shot sample",
    "sample it again with sample-low-shot",
    lambda path: {"sample": containers.stored_array(path)},
    {"sample": integers("N C", of=(-1, 0, 1))},
)

SAMPLES = Format(
    "what is known of low-shot samples",
    "remove it",
    containers.read_json,
    {
        "format": Version(1),
        "seed": fields.INDEX,
        "rule": Texts(of=("single", "several"), maybe=True),
        "digests": Mapping(DIGEST),
    },
)

SIDECAR = Format(
    "the sidecar of features",
    "extract them again with extract-features, or remove it",
    containers.read_json,
    {"format": Version(1, maybe=True), **results.SUBJECT, "shape": SHAPE, "inferred": fields.TEXTS},
    others=PLAIN,
)

# ---- Objects: a line of the list for each image -------------------------------------------------


def _within_the_image(found):
    """See that each box has an area, and lies in the image."""
    for x1, y1, x2, y2 in found["boxes"]:
        if not (x1 < x2 <= found["width"] and y1 < y2 <= found["height"]):
            box, size = [x1, y1, x2, y2], f"{found['width']} x {found['height']} pixels"
            return f"boxes holds {box}, not x1, y1, x2, y2 in an image of {size}"
    return None


IMAGE = {  # what a line of boxes, whatever they are, says first
    "path": Texts(**PATH),
    "width": integers(least=1),
    "height": integers(least=1),
}
OBJECTS = Format(
    "the objects of an image",
    "mend the line or delete it",
    containers.read_json,  # of a list of one image
    {
        **IMAGE,
        "boxes": numbers("B* 4", least=0),
        "labels": Texts("B*", **LABELS),
        "difficult": Flag("B*"),
        "crowd": Flag("B*", maybe=True),
    },
    checks=(_within_the_image,),
    others=PLAIN,
)

# ---- Proposals: boxes where objects may be -------------------------------------------------------


def _boxes_of_images(content):
    """See that the offsets part the boxes, that each image has a name, and no box ends early."""
    offsets, boxes = content["offsets"], content["boxes"]
    if offsets[0] != 0 or offsets[-1] != len(boxes):
        return f"offsets go from {offsets[0]} to {offsets[-1]}, where there are {len(boxes)} boxes"
    if len(names := bytes(content["paths"]).split(b"\n")) != len(offsets) - 1:
        return f"paths holds {len(names)} names, where offsets part {len(offsets) - 1} images"
    if (boxes[:, 2:] < boxes[:, :2]).any():
        return "boxes holds one that is not x1, y1, x2, y2"
    return None


PROPOSALS = Format(
    "proposals",
    "make them with make-proposals",
    containers.read_arrays,
    {
        "format": Version(1),
        "paths": integers("T", "uint8"),  # UTF-8, a newline between two
        "offsets": integers("O", "int64", order="sorted"),
        "boxes": reals("M* 4", "float32"),
        "scores": reals("M*", "float32"),
    },
    checks=(_boxes_of_images,),
    limits={"O": (2, 2**40)},
)

# ---- Detections: what a detector found in each image --------------------------------------------


def _from_left_to_right(found):
    """See that no box ends before it begins; it may be empty, or lie outside of the image."""
    for x1, y1, x2, y2 in found["boxes"]:
        if x2 < x1 or y2 < y1:
            return f"boxes holds {[x1, y1, x2, y2]}, not x1, y1, x2, y2"
    return None


def _best_first(found):
    """See that the scores fall; equal ones may follow each other."""
    scores = found["scores"]
    for before, score in zip(scores, scores[1:], strict=False):
        if before < score:
            return f"scores holds {before} before {score}: the best comes first"
    return None


DETECTIONS = Format(
    "the detections in an image",
    "mend the line or delete it",
    containers.read_json,  # of a list of one image
    {
        **IMAGE,
        "boxes": numbers("B* 4"),
        "labels": Texts("B*", **LABELS),
        "scores": numbers("B*"),
    },
    checks=(_from_left_to_right, _best_first),
    others=PLAIN,
)

COCO_RESULT = Format(
    "one of COCO's results",
    "it holds image_id, category_id, bbox (x, y, width, height) and score",
    containers.read_json,  # an element of a list
    {
        "image_id": integers(),
        "category_id": integers(),
        "bbox": numbers("4"),
        "score": numbers(),
    },
    checks=(
        lambda found: (
            f"bbox holds a side below 0, {found['bbox']}" if min(found["bbox"][2:]) < 0 else None
        ),
    ),
    others=PLAIN,
)

# ---- Replies of a world that a policy moves in ---------------------------------------------------


def _a_frame(reply):
    """See that the frame is RGB, and of a size that one has."""
    height, width, channels = reply["shape"]
    if channels != 3 or height * width > 1 << 24:
        return f"shape is {[height, width, channels]}, not height, width, 3"
    return None


DISTANCE = numbers(least=0, maybe=True)
REPLY = Format(
    "a reply of a world",
    "see ssl-formats(5)",
    containers.read_json,  # a line, before the bytes of its frame
    {
        "shape": integers("3", least=1),
        "actions": Either((integers(least=2, most=1000), Texts("A", **LABELS)), maybe=True),
        "reward": fields.NUMBER,
        **dict.fromkeys(("terminated", "truncated", "success"), fields.FLAG),
        **dict.fromkeys(("distance_to_goal", "path_length"), DISTANCE),
        "expert": fields.INDEX,
    },
    checks=(_a_frame,),
    others=PLAIN,
    limits={"A": (2, 1000)},
)

# ---- Bins ---------------------------------------------------------------------------------------


def _of_sum_one(content: dict[str, Any]) -> str | None:
    if abs(content["prior"].sum() - 1) > 1e-6:
        return f"prior is of sum {content['prior'].sum():.6g}, not 1"
    return None


BINS = Format(
    "colour bins",
    "make them with make-color-bins",
    containers.read_arrays,
    {
        "format": Version(1),
        "points": integers("Q 2", "int64", least=-128, most=128, unique=True),
        "prior": reals("Q", "float64", least=0),
    },
    checks=(_of_sum_one,),
    limits={"Q": (2, 4096)},  # one is learned without a picture, and tables grow with them
)

# As other projects have them, each in a .npy of its own.
POINTS = Format(
    "points of colour bins",
    "a row each, of a and b",
    _array("points"),
    {"points": BINS.entries["points"]},
    limits=BINS.limits,
)
PRIOR = Format(
    "how often the 313 bins of Zhang et al. occur",
    "give their prior_probs.npy, or make one with make-color-bins --prior-only",
    _array("prior"),
    {"prior": BINS.entries["prior"]},
    checks=(_of_sum_one,),
    limits={"Q": (313, 313)},
)

# ---- Classifiers of train-svm -------------------------------------------------------------------

OF_THE_TRAINING = results.FIELDS | {
    "shape": SHAPE,
    "train_images": integers(letter="N"),
    "train_manifest": DIGEST,
    "svm_seed": integers(least=0),
    "solver": Texts(of=("exact", "liblinear")),
    "fits": integers(least=1),
    "unconverged": integers(least=0),
}


def _ways_to_choose(content: dict[str, Any]) -> str | None:
    ways = set(content["chosen"])
    if ways == {"none"}:
        return "chosen is none for all classes"
    if "others" in ways and "folds" not in ways:
        return "chosen holds others, but no folds"
    if {"folds", "default"} <= ways:
        return "chosen holds folds beside default"
    return None


def _best_costs(content: dict[str, Any]) -> str | None:
    """See that a class with folds has the cost of its highest precision, the first of equals."""
    folds = [how == "folds" for how in content["chosen"]]
    best = content["costs"][content["ap"][folds].argmax(axis=1)]
    if (content["cost"][folds] != best).any():
        return "cost is not where ap is highest"
    trained = [how != "none" for how in content["chosen"]]
    if set(content["cost"][trained]) - set(content["costs"]):
        return "cost holds one that is none of costs"
    return None


def _fits_that_ended(content: dict[str, Any]) -> str | None:
    if content["fields"]["unconverged"] > content["fields"]["fits"]:
        return "fields.unconverged is more than fields.fits"
    return None


SVM = Format(
    "classifiers of train-svm",
    "train them again with train-svm",
    containers.read_arrays,
    {
        "format": Version(1),
        "classes": CLASSES,
        "chosen": Texts("C", of=("folds", "others", "default", "none")),
        "coef": reals("C D", "float64", holes=("chosen", ("none",))),
        "intercept": reals("C", "float64", holes=("chosen", ("none",))),
        "cost": reals("C", "float64", above=0, holes=("chosen", ("none",))),
        "costs": reals("K", "float64", above=0, order="rising"),
        "ap": reals(
            "C K", "float64", least=0, most=1, holes=("chosen", ("others", "default", "none"))
        ),
        "paths": integers("N", "uint64", order="sorted"),
        "contents": integers("N", "uint64", order="sorted", maybe=True),
        "fields": Json(Table(OF_THE_TRAINING)),
    },
    checks=(_ways_to_choose, _best_costs, _fits_that_ended),
)


def _rows_of_classes(content: dict[str, Any]) -> str | None:
    """See that the rows are as many as the counts say, and ascend in each class."""
    counts, rows = content["counts"], content["rows"]
    if counts.sum() != len(rows):
        return f"counts are of {counts.sum()} rows, where there are {len(rows)}"
    ends = counts.cumsum()
    begins = set((ends - counts).tolist())
    falls = (rows[1:] <= rows[:-1]).nonzero()[0] + 1
    if not begins.issuperset(falls.tolist()):
        return "rows do not ascend in a class"
    return None


def _samples_by_k(content: dict[str, Any]) -> str | None:
    pairs = [(k, number) for number, k in content["samples"].tolist()]
    if pairs != sorted(pairs):
        return "samples are not by k, then by number"
    for (number, k), machines in content["machines"].items():
        counts = machines["counts"]
        if ((counts > 0) & (counts <= k)).any():
            return f"counts_sample{number}_k{k} holds one that is neither 0 nor above k"
        ends = (machines["coefficients"][0] > 0).cumsum()[counts[counts > 0].cumsum() - 1].tolist()
        if ends != [k * (place + 1) for place in range(len(ends))]:
            return f"coefficients_sample{number}_k{k} are not of k positives a class"
    return None


SAMPLE_FIELDS = ("sample_seed", "sample_rule", "samples_digest")
# By k: what drew its samples, and their digest.
DRAWN = Mapping(
    Table({name: tasks.LOW_SHOT.conditions[name] for name in SAMPLE_FIELDS}),
    maybe=True,
)

LOW_SHOT = Format(
    "low-shot classifiers of train-svm",
    "train them again with train-svm --low-shot",
    containers.read_arrays,
    {
        "lowshot_format": Version(1),
        "classes": CLASSES,
        "costs": reals("K", "float64", above=0, order="rising"),
        "scale": reals("N", "float64", above=0),
        "paths": integers("N", "uint64", order="sorted"),
        "contents": integers("N", "uint64", order="sorted", maybe=True),
        "samples": integers("S 2", "int64", least=1, unique=True),
        "machines": Each(
            "samples",
            "{name}_sample{0}_k{1}",
            Table(
                {
                    "counts": integers("C", "int64", least=0),
                    "rows": integers("T", "int32", least=0, below="N"),
                    "coefficients": reals("K T", "float32"),
                },
                checks=(_rows_of_classes,),
            ),
        ),
        "fields": Json(Table(OF_THE_TRAINING | {"train_features": DIGEST, "drawn": DRAWN})),
    },
    checks=(_samples_by_k, _fits_that_ended),
)

# ---- Networks and runs --------------------------------------------------------------------------

# What decided a training.
SETTINGS = {
    **results.SUBJECT,
    **results.SETTINGS,
    "warm_up": numbers("2", least=0, maybe=True),
    "drops": numbers("* 2", least=0, maybe=True),
    "inferred": fields.TEXTS,
    "task": fields.TEXT,
    "optimizer": Texts(of=("sgd", "adam"), maybe=True),
    "precision": Texts(of=("fp32", "bf16"), maybe=True),
    "permutations_digest": fields.TEXT,
    "color_projection": fields.FLAG,
    "bins": fields.COUNT,
    "bins_digest": fields.TEXT,
    "rebalanced": fields.FLAG,
    "reads": Texts(of=("rgb", "lab"), maybe=True),
    "converted": Plain(finite=False, maybe=True),
    "shuffle_window": fields.COUNT,
}


def _arrays_of_the_pretext(content: dict[str, Any]) -> str | None:
    """See that what was trained on a puzzle, and not converted, holds the puzzle."""
    settings = content["settings"]
    needed = {"jigsaw": ("permutations",), "colorization": ("points", "prior")}
    for name in needed.get(settings.get("pretext"), ()) if content["head"] else ():
        if content.get(name) is None:
            return f"{name} is missing, of {settings['pretext']}"
    if content["head"] and settings.get("pretext") == "colorization" and not settings["neighbors"]:
        return "settings.neighbors is missing, of colorization"
    return None


# Before NETWORK, which has no name that this has not.
TUNED = Format(
    "a fine-tuned network",
    "name a finished one, or train it again with finetune",
    _tensors("finetune"),
    {
        "format": Version(1),
        "settings": Table(
            SETTINGS
            | {
                "arch": Texts(),
                "model": Texts(),
                "labels": Texts(),
                "classes": integers(letter="C"),
                "steps": integers(least=1),
                "loss": Texts(of=("sigmoid", "softmax")),
                "update_rule": Texts(of=("clean", "paper")),
                "head": Texts(of=("bn", "fc-bn", "fc")),
                "fc": integers(least=1, maybe=True),
                "warp": Flag(),
                "crops": integers(least=1),
            }
        ),
        "classes": CLASSES,
        "trunk": State(),
        "head": State(),
        "about": Table(SIDECAR.entries),
        "paths": integers("N", "int64"),
        "places": integers("N", "int64", maybe=True),
    },
)

NETWORK = Format(
    "a network",
    "name a finished one, or write it again with pretrain or convert-weights",
    _tensors("pretrain"),
    {
        "format": Version(1),
        "settings": Table(SETTINGS | {"arch": Texts()}),
        "trunk": State(),
        "head": State(),
        "permutations": integers("P 9", "int64", least=0, most=8, unique=True, maybe=True),
        "points": integers("Q 2", "int64", least=-128, most=128, unique=True, maybe=True),
        "prior": reals("Q", "float64", least=0, maybe=True),
    },
    checks=(_arrays_of_the_pretext,),
    limits={"Q": (1, 4096)},
)

# Of the settings of a network, what its metadata say one by one, and how.
SAID = {
    **dict.fromkeys(("pretext", "data_name", "data", "license"), fields.TEXT),
    **dict.fromkeys(("images", "steps", "permutations"), Json(fields.COUNT, maybe=True)),
    "seed": Json(fields.INDEX, maybe=True),
}
METADATA = Format(
    "the metadata of a network",
    "write them as ssl-formats(5) says, or name the network by torchvision:ARCH:FILE or so",
    containers.read_json,  # of the header of a file of safetensors, or of torch.save: texts alone
    {
        "ssl_bench": Json(Version(1)),
        "arch": Texts(),
        "names": Texts(of=("ssl-bench", "timm", "detectron2"), maybe=True),
        "channels": Texts(of=("RGB", "BGR", "L"), maybe=True),
        "lab": fields.TEXT,
        "mean": Json(numbers("3"), maybe=True),
        "std": Json(numbers("3", above=0), maybe=True),
        "input_size": Json(integers("3", least=1), maybe=True),
        **SAID,
        "digest": fields.TEXT,
        "settings": Json(Table(SETTINGS), maybe=True),
        "format": fields.TEXT,
    },
    others=fields.TEXT,
)

LINEAR = Format(
    "linear classifiers",
    "name finished ones, or train them again with train-linear",
    _tensors("train-linear"),
    {
        "format": Version(1),
        "classes": CLASSES,
        "settings": Table(
            SETTINGS
            | {
                "arch": Texts(),
                "layers": Texts("L"),
                "classes": integers(letter="C"),
                "model": Texts(),
                "labels": Texts(),
                **dict.fromkeys(("warp", "flip", "bn_affine"), Flag()),
                "crop": Texts(of=("random", "sized", "center")),
                **dict.fromkeys(("jitter", "lighting"), numbers(least=0)),
                "bn_momentum": numbers(least=0, most=1),
            }
        ),
        "shapes": integers("L 3", least=1),
        "heads": State(),
        "frozen": State(),
        "about": Table(SIDECAR.entries),
        "paths": integers("N", "int64"),
        "places": integers("N", "int64", maybe=True),
    },
)

DETECTOR = Format(
    "a detector",
    "name a finished one, or train it again with train-detector",
    _tensors("train-detector"),
    {
        "format": Version(1),
        "classes": CLASSES,
        "settings": Table(
            SETTINGS
            | {
                "arch": Texts(),
                "model": Texts(),
                "classes": integers(letter="C"),
                "objects": Texts(),
                "head": Texts(of=("fast", "faster")),
                "freeze": Texts(),
                "pool": Texts(of=("roi-pool", "roi-align")),
                "anchors": Texts(of=("detectron", "torchvision"), maybe=True),
                "size": integers(least=1),
                "max_size": integers(least=1),
                "fc": integers(least=1, maybe=True),
                "stride": integers(least=1),
                "proposals": fields.TEXT,
            }
        ),
        "frozen": State(),
        "network": State(),
        "about": Table(SIDECAR.entries),
    },
)

NORMALS = Format(
    "a predictor of normals",
    "name a finished one, or train it again with train-normals",
    _tensors("train-normals"),
    {
        "format": Version(1),
        "settings": Table(
            SETTINGS
            | {
                "arch": Texts(),
                "model": Texts(),
                "labels": Texts(),
                "codes": integers(letter="K"),
                "power": numbers(above=0),
                "sides": integers("*", least=1),
                "test_side": integers(least=1),
                "longest": integers(least=1),
                "flip": Flag(),
                "code_error": numbers(least=0),
                "codes_from": fields.TEXT,
                "cache": fields.FLAG,
                "train_ground_truth": fields.TEXT,
                "train_rule": fields.TEXT,
            }
        ),
        "codes": reals("K 3", "float32"),
        "mean": reals("3", "float32"),
        "mean_image": reals("R S 3", "float32"),
        "network": State(),
        "frozen": State(),
        "about": Table(SIDECAR.entries),
        "paths": integers("N", "int64"),
        "places": integers("N", "int64", maybe=True),
    },
    limits={"K": (2, 1000)},
)

NAVIGATOR = Format(
    "a navigator",
    "name a finished one, or train it again with train-navigator",
    _tensors("train-navigator"),
    {
        "format": Version(1),
        "actions": Texts("A", **LABELS),
        "settings": Table(
            SETTINGS
            | {
                "arch": Texts(),
                "model": Texts(),
                "method": Texts(of=("cloning", "ppo")),
                "seed": integers(least=0),
                "side": integers(least=1),
                "runs": integers(least=1),
                "actions": integers(letter="A"),
            }
        ),
        "policies": State(),
        "frozen": State(),
        "about": Table(SIDECAR.entries),
        "paths": integers("N", "int64", maybe=True),
        "places": integers("N", "int64", maybe=True),
    },
    limits={"A": (2, 1000)},
)

CHECKPOINT = Format(
    "a checkpoint",
    "it is none that a run can go on from",
    _tensors("pretrain"),
    {
        "format": Version(1),
        "version": Texts(),
        "settings": Table(SETTINGS),
        "step": integers(least=0),
        "position": integers("2", least=0),
        "log_bytes": integers(least=0),
        "log_lines": fields.INDEX,
        "log_digest": fields.TEXT,
        "network": State(),
        "optimizer": Opaque(),
        "random": Opaque(),
        "threads": integers(least=1),
        "sums": reals("*", "float64"),
        "lines": integers("*", least=0),
        "unreadable": integers(least=0),
    },
)
