"""Recipe, options and plan: what decides a training's result, besides data and objective."""

from dataclasses import dataclass, fields, replace
from typing import Any

from ssl_common.options import OptionError, option, shared
from ssl_common.ranks import placement
from ssl_common.recipe import Recipe

WARM_UP = 5 / 90  # of the steps: 5 epochs of 90, as Goyal et al. (2017) warm up large batches
Interval = tuple[int, str]  # count, and "step", "epoch" or "min"


@dataclass(frozen=True)
class TrainingOptions:
    """The options of every command that trains."""

    output: str = option(
        "Network to write when all steps are done.",
        names=("-o", "--output"),
        metavar="MODEL.pt",
        required=True,
    )
    epochs: int | None = option(
        "Passes over the images.", least=1, usual="the recipe's", metavar="N"
    )
    iterations: int | None = option("Steps to train for, instead of epochs.", least=1, metavar="N")
    batch: int | None = option(
        "Images in each step, over all GPUs.",
        least=2,
        most=1_000_000,
        usual="the recipe's",
        metavar="N",
    )
    lr: float | None = option(
        "Learning rate at that batch.",
        most=1e6,
        usual="the recipe's, in proportion to the batch",
        metavar="RATE",
    )
    precision: str | None = option(
        "Number format of matrix products and convolutions.",
        of=("fp32", "bf16"),
        usual="bf16 on a GPU, fp32 on a CPU",
    )
    gpus: int = shared("gpus", 1)
    accumulate: int = option(
        "Micro-batches that each GPU runs one after the other in a step; more take less memory.",
        1,
        least=1,
        most=1_000_000,
        metavar="N",
    )
    sync_bn: bool = option("Batch norm over the images of all GPUs.", False)
    max_restarts: int = option(
        "Times that all ranks start again from the last checkpoint after one died.",
        3,
        least=0,
        most=1000,
        metavar="N",
    )
    keep_epochs: bool = option("Keep the checkpoint of each epoch.", False)
    checkpoint_every: tuple[Interval, ...] = shared("checkpoint-every", ((1, "epoch"), (30, "min")))
    max_bad: float = shared("max-bad", 0.01)
    index_dir: str | None = shared("index-dir")
    device: str | None = shared("device")
    root: str = shared("root", ".")
    seed: int = shared("seed", 0)
    workers: int = shared("workers", 0)


@dataclass(frozen=True)
class PretrainOptions(TrainingOptions):
    """TrainingOptions, and what only a pass over very many images is long enough for."""

    shuffle_window: int | None = option(
        "Shuffle the images of so many shards (or folders) at a time, for slow random reads.",
        least=1,
        usual="all images together",
        metavar="N",
    )


@dataclass(frozen=True)
class Plan:
    """A RECIPE applied to a number of IMAGES; every field of it decides the result.

    MICRO_BATCH images go through the network at a time, and batch norm sees those of SYNCED_RANKS.
    WINDOW shards are shuffled together, all images if 0.
    """

    recipe: Recipe
    name: str
    images: int
    batch: int
    lr: float
    epochs: float
    steps: int
    warm_up: list[float]  # part of the steps, part of the rate that it begins with
    seed: int = 0
    precision: str = "fp32"
    micro_batch: int = 0
    synced_ranks: int = 1
    window: int = 0

    @property
    def pieces(self) -> int:
        """Micro-batches in a step, over all ranks."""
        return self.batch // self.micro_batch

    def settings(self) -> dict[str, Any]:
        """Return the plan as plain values, as in logs, checkpoints and networks."""
        recipe = {each.name: getattr(self.recipe, each.name) for each in fields(self.recipe)}
        recipe = {key: value for key, value in recipe.items() if value is not None}
        return recipe | {
            "recipe": self.name,
            "batch": self.batch,
            "lr": self.lr,
            "warm_up": self.warm_up,
            "epochs": self.epochs,
            "steps": self.steps,
            "seed": self.seed,
            "precision": self.precision,
            "micro_batch": self.micro_batch,
            "synced_ranks": self.synced_ranks,
            **({"shuffle_window": self.window} if self.window else {}),
        }


def pieces(options: TrainingOptions, recipe: Recipe) -> int:
    """Return the micro-batches in a step by OPTIONS; raise OptionError if they do not fit."""
    if options.epochs and options.iterations:
        raise OptionError("--epochs and --iterations: give one of them")
    batch = options.batch or recipe.batch
    count = side_by_side(options) * options.accumulate
    if batch % count:
        raise OptionError(f"--batch {batch} is no multiple of {count} (GPUs x accumulation)")
    return count


def side_by_side(options: TrainingOptions) -> int:
    """Return the number of processes that train together, by OPTIONS or by a torchrun."""
    here = placement.place()
    return here.ranks if here else options.gpus


def plan(options: TrainingOptions, recipe: Recipe, name: str, images: int, precision: str) -> Plan:
    """Return the plan of RECIPE, called NAME, for so many IMAGES; OPTIONS win over it.

    Where the batch is larger than the recipe's the rate grows with it, and warms up.
    """
    synced = side_by_side(options) if options.sync_bn else 1
    made = resolve(
        recipe, name, images, options.batch, options.lr, options.epochs, options.iterations
    )
    return replace(
        made,
        seed=options.seed,
        precision=precision,
        micro_batch=made.batch // pieces(options, recipe),
        synced_ranks=synced,
    )


def resolve(
    recipe: Recipe,
    name: str,
    images: int,
    batch: int | None = None,
    lr: float | None = None,
    epochs: float | None = None,
    iterations: int | None = None,
) -> Plan:
    """Return the plan of RECIPE, called NAME, for so many IMAGES, in one process.

    BATCH, the rate LR at it, and ITERATIONS (steps) or EPOCHS win over the recipe's.
    """
    usual = recipe.batch
    batch = batch or usual
    every = images // batch  # steps an epoch
    steps = iterations or (None if epochs else recipe.steps)
    epochs = steps / every if steps else epochs or recipe.epochs
    assert epochs is not None, "a recipe has steps or epochs"
    return Plan(
        recipe,
        name,
        images,
        batch,
        lr or recipe.lr * batch / usual,
        epochs,
        steps or int(epochs * every),
        recipe.warm_up or ([WARM_UP, usual / batch] if batch > usual else [0, 1]),
        micro_batch=batch,
    )
