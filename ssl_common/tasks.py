"""The tasks that networks are measured on, as the reports need to know them.

A task is declared once, here, and named in TASKS; records, their checks, tables and plots follow.
Records of any other task are read as TASKS.get(name, OTHER) describes.
"""

from collections.abc import Callable, Collection, Iterable
from collections.abc import Mapping as Map
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from ssl_common import fields
from ssl_common.fields import (
    COUNT,
    DEGREES,
    FLAG,
    INDEX,
    NUMBER,
    PERCENT,
    POSITIVE,
    TEXT,
    TEXTS,
    Fields,
    Record,
    Unit,
)
from ssl_common.schema import Mapping, display, integers, numbers

UNKNOWN = "?"  # in tables, for what a record does not say
LAYER = ("layer", "shape")  # fields of any task that differ from layer to layer


@dataclass(frozen=True)
class Metric:
    """A metric: its NAME in records, its UNIT (None: any number), and which values are better."""

    name: str
    unit: Unit | None = None
    better: Literal["higher", "lower"] = "higher"

    def caption(self, words: str = "") -> str:
        """Return the name and WORDS, with a unit other than percent, and if lower is better.

        "mAP", "median error (degrees, lower is better)".
        """
        notes = [self.unit.name] if self.unit and self.unit != PERCENT else []
        notes += ["lower is better"] * (self.better == "lower")
        return f"{self.name}{words}" + (f" ({', '.join(notes)})" if notes else "")

    def best(self, values: Map[str, float]) -> str:
        """Return the key of the best of VALUES, the first of equals."""
        return (min if self.better == "lower" else max)(values, key=values.__getitem__)

    def merit(self, value: float) -> float:
        """Return VALUE with the sign that makes more of it better: for sorting."""
        return -value if self.better == "lower" else value


@dataclass(frozen=True)
class Part:
    """A part of the label of a row: the FIELDS it shows, and TEXT, which writes it or ""."""

    fields: tuple[str, ...]
    text: Callable[[Record], str]


def part(name: str, text: str) -> Part:
    """Return a part that shows the field NAME by the format TEXT, if it has a value."""
    return Part((name,), lambda record: _written(text, record, name))


def _written(text: str, record: Record, name: str) -> str:
    return text.format(record[name]) if record.get(name) is not None else ""


@dataclass(frozen=True)
class Size:
    """A number that says how large the puzzle of a pretext task was, and the paper's SYMBOL."""

    field: str
    symbol: str

    @property
    def part(self) -> Part:
        """What a label says of it: P=100 for |P|."""
        return part(self.field, f"{self.symbol.strip('|')}={{}}")


@dataclass(frozen=True, eq=False)
class Task:
    """A task: its metrics, the fields that it adds to the records, and the role of each.

    A record is identified by all its fields but MEASURED ones and its provenance.

    METRICS are those of `value`; the first is what the paper reports.
    CONDITIONS {field: type} decide the value, and a command knows them: --tag cannot set them.
    MEASURED {field: type} follow from all the others.
    LABEL is what the label of a row says after network, pre-training and seed.
    SEEDS are the fields that seed the measurement; a plot averages over them.
    OF_A_SEED are the fields that differ with another seed, and for no other reason.
    OF_A_LAYER are the fields that differ from layer to layer of one network.
    TRUTH are the fields that say what was measured against; they are shown with the data set, and
    values that differ in one are never compared.
    RULES {field: usual value} are other fields that change what is measured, as the pixels or who
    chose the cost: no more are values compared that differ in one; what is unusual is shown.
    MINOR are the fields that a label shows last, if other fields do not tell two rows apart.
    COMPANIONS {field: fields} change along with a field that a plot has as its axis.
    """

    name: str
    metrics: tuple[Metric, ...]
    conditions: Fields = field(default_factory=dict)
    measured: Fields = field(default_factory=dict)
    label: tuple[Part, ...] = ()
    seeds: tuple[str, ...] = ("seed",)
    of_a_seed: tuple[str, ...] = ()
    of_a_layer: tuple[str, ...] = LAYER
    truth: tuple[str, ...] = ()
    rules: Map[str, object] = field(default_factory=dict)
    minor: tuple[str, ...] = ()
    companions: Map[str, tuple[str, ...]] = field(default_factory=dict)

    def data(self, record: Record) -> str:
        """Return the data set of RECORD and what it was measured against: nyuv2, ladicky.

        And by what rule, where that is not the usual one: voc2007, cost_from=test.
        """
        truths = [str(record[name]) for name in self.truth if record.get(name)]
        for name, usual in self.rules.items():
            if record.get(name) not in (None, usual):
                value = record[name]
                truths.append(f"{name}={value if isinstance(value, str) else display(value)}")
        return ", ".join([str(record.get("data_set") or UNKNOWN), *truths])

    def metric(self, name: str) -> Metric:
        """Return the metric NAME of this task, or of others; one without a unit if none has it."""
        every = (*self.metrics, *OTHER.metrics)
        return next((metric for metric in every if metric.name == name), Metric(name))


# ---- Networks -----------------------------------------------------------------------------------

PRETEXT_SIZES = (Size("permutations", "|P|"), Size("neighbors", "K"))


def _network(record: Record) -> str:
    names = [str(record[name]) for name in ("arch", "pretext") if record.get(name)]
    return " ".join(names) or str(record.get("model") or UNKNOWN)


def _data(record: Record) -> str:
    parts = [str(record["data_name"])] if record.get("data_name") else []
    parts += [f"{record['images']:,} images"] if record.get("images") is not None else []
    return f"({', '.join(parts)})" if parts else ""


def _steps(record: Record) -> str:
    steps = _written("{:,} steps", record, "steps")
    return f"{steps}, cached" if steps and record.get("cache") else steps


# What any label begins with: the network and how it was trained.
NETWORK = (
    Part(("arch", "pretext"), _network),
    *(size.part for size in PRETEXT_SIZES),
    Part(("data_name", "images"), _data),
    part("seed", "seed {}"),
    Part(("steps", "cache"), _steps),
)

# ---- The tasks ----------------------------------------------------------------------------------

MAP, TOP_1 = Metric("mAP", PERCENT), Metric("top-1", PERCENT)
# Of scikit-learn's average precision, which does not raise a precision to the best after it.
MAP_STEPS = Metric("mAP (scikit-learn)", PERCENT)
# VOC2007's own average precision of boxes: of another rule, a number is another metric.
AP_50 = Metric("AP50 (11-point)", PERCENT)

_OF_SVMS = fields.table({
    TEXT: "cost_from solver train_features train_dtype",
    INDEX: "svm_seed",
})  # fmt: skip
_FITS = fields.table({INDEX: "fits unconverged", POSITIVE: "cost"})
_FILES_OF_A_LAYER = (*LAYER, "train_features", "inputs.svm", "inputs.features")

SVM = Task(
    "svm",
    (MAP,),
    conditions=_OF_SVMS,
    measured=_FITS | fields.table({COUNT: "bootstrap", INDEX: "bootstrap_left_out bootstrap_seed"}),
    seeds=("seed", "svm_seed"),
    of_a_layer=_FILES_OF_A_LAYER,
    rules={"cost_from": "folds"},
    minor=("train_dtype",),
)


def _samples(record: Record) -> str:
    return _written(f"k={{}} ({record.get('samples', UNKNOWN)} samples)", record, "k")


LOW_SHOT = Task(
    "low-shot",
    (MAP, TOP_1),
    conditions=_OF_SVMS
    | fields.table({COUNT: "k samples", INDEX: "sample_seed", TEXT: "sample_rule samples_digest"}),
    measured=_FITS,
    label=(Part(("k", "samples"), _samples),),
    seeds=("seed", "svm_seed", "sample_seed"),
    of_a_seed=("samples_digest",),
    of_a_layer=_FILES_OF_A_LAYER,
    rules={"cost_from": "test"},  # the paper's
    minor=("train_dtype",),
    companions={"k": ("samples",)},
)

LINEAR = Task(
    "linear",
    (TOP_1,),
    conditions=fields.table({INDEX: "linear_seed"}),
    measured={"top_5": PERCENT.entry()},
    seeds=("seed", "linear_seed"),
    of_a_seed=("inputs.model",),
    rules={"warp": False},
)


def _by_the_paper(record: Record) -> str:
    return "paper's update rule" if record.get("update_rule") == "paper" else ""


FINETUNE = Task(
    "finetune",
    (MAP_STEPS, TOP_1),
    conditions=fields.table({
        TEXT: "loss update_rule",
        COUNT: "crops fc stride",
        INDEX: "finetune_seed crop_seed",
        NUMBER: "bias_rate init_std bn_decay",
        numbers("*", maybe=True): "crop_area",
    }),
    measured={"top_5": PERCENT.entry()}
    | dict.fromkeys(("map_area", "map_11_point", "best_on_test"), PERCENT.entry())
    | fields.table({INDEX: "best_step compared"}),
    label=(Part(("update_rule",), _by_the_paper),),
    seeds=("seed", "finetune_seed", "crop_seed"),
    of_a_seed=("inputs.model",),
    minor=("bias_rate", "init_std", "bn_decay", "crop_area", "stride"),
)  # fmt: skip


def _detector(record: Record) -> str:
    head = f"{record['head']} R-CNN" if record.get("head") else ""
    return " ".join(filter(None, (head, _written("frozen to {}", record, "freeze"))))


DETECTION = Task(
    "detection",
    (AP_50,),
    conditions=fields.table({INDEX: "detector_seed", TEXT: "proposals"}),
    measured=dict.fromkeys(
        ("ap50_area", "ap75", "ap50_95", "coco_ap", "coco_ap50", "coco_ap75"), PERCENT.entry()
    )
    | {"per_class_area": Mapping(PERCENT.entry(), maybe=True)}
    | fields.table({INDEX: "objects objects_ignored detections detections_left_out"}),
    label=(Part(("head", "freeze"), _detector),),
    seeds=("seed", "detector_seed"),
    of_a_seed=("inputs.detections",),
    minor=("proposals",),
)

MEDIAN_ERROR = Metric("median error", DEGREES, "lower")
_ANGLES, _SHARES = ("mean_error", "median_error", "rmse"), ("11_25", "22_5", "30")


def _normals(prefix: str) -> Fields:
    """Return {field: type} of the figures of normals whose names have PREFIX."""
    angles: Fields = {f"{prefix}{name}": DEGREES.entry() for name in _ANGLES}
    return angles | {f"{prefix}within_{most}": PERCENT.entry() for most in _SHARES}


NORMALS = Task(
    "normals",
    (MEDIAN_ERROR,),
    conditions=fields.table({
        TEXT: "ground_truth rule train_ground_truth train_rule codes_from",
        INDEX: "normals_seed",
        COUNT: "codes longest test_side",
        POSITIVE: "power",
        integers("*", least=1, maybe=True): "sides",
    }),
    measured=_normals("") | _normals("per_image_") | _normals("constant_") | _normals("mean_image_")
    | {"code_error": DEGREES.entry()} | fields.table({INDEX: "pixels"}),
    seeds=("seed", "normals_seed"),
    of_a_seed=("inputs.model",),
    truth=("ground_truth", "rule"),
)  # fmt: skip

SUCCESS_RATE, REWARD = Metric("success rate", PERCENT), Metric("reward")


def _method(record: Record) -> str:
    return f"by {record['method']}" if record.get("method") else ""


NAVIGATION = Task(
    "navigation",
    (SUCCESS_RATE, REWARD),
    conditions=fields.table({
        TEXT: "method world",
        INDEX: "navigation_seed world_seed",
        COUNT: "runs side actions episodes max_steps frames worlds",
        FLAG: "greedy",
    }),
    measured={"success_rate": PERCENT.entry(), "success_interval": PERCENT.entry("*"),
              "success_rates": PERCENT.entry("*")}
    | fields.table({
        NUMBER: "mean_reward path_ratio",
        numbers("*", maybe=True): "rewards path_ratios reward_interval path_ratio_interval",
        TEXTS: "not_above",
    }),
    label=(Part(("method",), _method),),
    seeds=("seed", "navigation_seed"),
    of_a_seed=("inputs.model",),
    minor=("side",),
)  # fmt: skip

TASKS = {
    task.name: task for task in (SVM, LOW_SHOT, LINEAR, FINETUNE, DETECTION, NORMALS, NAVIGATION)
}


def _names(tuples: Iterable[tuple]) -> tuple:
    """Return what stands in TUPLES, each once."""
    return tuple(dict.fromkeys(chain.from_iterable(tuples)))


def _union(tasks: Collection[Task]) -> Task:
    """Return a task without a name that has all that any of TASKS has."""
    return Task(
        name="",
        metrics=_names(task.metrics for task in tasks),
        conditions={k: v for task in tasks for k, v in task.conditions.items()},
        measured={k: v for task in tasks for k, v in task.measured.items()},
        label=_names(task.label for task in tasks),
        seeds=_names(task.seeds for task in tasks),
        of_a_seed=_names(task.of_a_seed for task in tasks),
        of_a_layer=_names(task.of_a_layer for task in tasks),
        truth=_names(task.truth for task in tasks),
        rules={},
        minor=_names(task.minor for task in tasks),
        companions={k: v for task in tasks for k, v in task.companions.items()},
    )


OTHER = _union(TASKS.values())


def find(name: str | None) -> Task:
    """Return the task NAME; OTHER, which has what any task has, if it is not in TASKS."""
    return TASKS.get(name or "", OTHER)
