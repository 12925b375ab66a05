"""Training of linear classifiers on every layer of a frozen trunk, all at once."""

import math
import os
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ssl_common import streams
from ssl_common.data import identity
from ssl_common.data.datasets import RandomCrops
from ssl_common.data.manifest import Manifest, single_labels
from ssl_common.evaluation import features
from ssl_common.evaluation.linear.cache import BATCH, Cache, Cached
from ssl_common.evaluation.linear.heads import Heads, Linear, Shapes, Shown
from ssl_common.evaluation.linear.recipes import RECIPES, LinearRecipe
from ssl_common.models import registry
from ssl_common.processes import stoppable
from ssl_common.progress import Conversation, Progress
from ssl_common.ranks import collectives
from ssl_common.ranks.devices import available
from ssl_common.streams import DataError
from ssl_common.training.checkpoints import FEATURES
from ssl_common.training.plan import Plan, TrainingOptions
from ssl_common.training.session import Session, Work

MUCH = 1e9  # bytes of memory that are told before they are taken
FORGOTTEN = 10  # what batch norm keeps is to forget its start by e**-10 in a run, however short


def train(
    model: str,
    manifest: str,
    layers: tuple[str, ...],
    recipe: str | None,
    cache: bool,
    options: TrainingOptions,
    talk: Conversation,
    caching: Progress,
) -> str | None:
    """Train heads on LAYERS (or all) of MODEL for the classes of MANIFEST; return the message.

    The line is None where another rank says it. RECIPE is a name of recipes.RECIPES, by default
    that of the network. With CACHE images are shown without any change, and the trunk sees each
    once; CACHING is told how far that is. Raises DataError for bad input, Stopped for a signal.
    """
    session = Session("train-linear", options, manifest, [model], talk)
    session.check_batch(RECIPES["resnet50"])  # too few need no network; all recipes have one batch
    frozen = features.Layers(model, layers, options.seed)
    arch = frozen.trunk.name
    name = recipe or (arch if arch in RECIPES else "resnet50")
    plan = session.plan(_shown(RECIPES[name], name, arch, frozen.trunk.reads, cache), name)
    work = LinearTraining(frozen, session.images, plan, options.root, cache, caching)
    return session.run(work.plan, work)


def _shown(recipe: LinearRecipe, name: str, arch: str, reads: str, cache: bool) -> LinearRecipe:
    """Return RECIPE, called NAME, adapted to ARCH, which reads READS, and to CACHE.

    Raises DataError for one that changes colours in whole lightness.
    """
    if cache:
        recipe = replace(recipe, crop="center", flip=False, jitter=0.0, lighting=0.0)
    if reads == "lab" and (recipe.jitter or recipe.lighting):
        message = f"--recipe {name}: it changes colours, and this network reads whole lightness"
        raise DataError(f"{message}: take --recipe {arch}")
    return recipe


class LinearTraining(Work):
    """The Work of train-linear: heads on LAYERS for the classes of IMAGES, below ROOT, by PLAN.

    `plan` is PLAN with a momentum of batch norm that forgets its start.
    """

    def __init__(
        self,
        layers: features.Layers,
        images: Manifest,
        plan: Plan,
        root: str,
        cache: bool,
        caching: Progress,
    ) -> None:
        self.layers, self.images, self.root, self.caching = layers, images, root, caching
        self.classes, labels = single_labels(images)
        if len(self.classes) < 2:
            raise DataError(
                f"{streams.name(images.path)}: all are {self.classes[0]}: see its labels"
            )
        _check_batch_norm(layers.shapes, plan)
        assert isinstance(plan.recipe, LinearRecipe)
        least = min(1.0, FORGOTTEN / plan.steps)
        self.recipe = replace(plan.recipe, bn_momentum=max(plan.recipe.bn_momentum, least))
        self.plan, self.cached = replace(plan, recipe=self.recipe), cache
        self.settings = {
            "task": "linear",
            "arch": layers.trunk.name,
            "layers": layers.names,
            "cache": cache,
            "classes": len(self.classes),
            "model": layers.of_the_model["model"],
            "labels": streams.digest("\n".join(self.classes).encode() + labels.tobytes()),
        }
        self.objective = Linear(
            layers.trunk, layers.names, labels, len(self.classes), self.recipe,
            layers.shapes if cache else None,
        )  # fmt: skip

    def notice(self, device: torch.device) -> str | None:
        """Return a message on the memory of DEVICE that this takes, or None; refuse too much."""
        return memory_in_words(self.layers.shapes, len(self.classes), available(device))

    def network(self) -> nn.Module:
        recipe, shapes = self.recipe, self.layers.shapes.values()
        with registry.seeded(self.plan.seed):
            return Heads(shapes, len(self.classes), recipe.bn_momentum, recipe.bn_affine)

    def dataset(
        self, folder: str, device: torch.device, workers: int, stopping: Any
    ) -> tuple[Any, int]:
        self.layers.trunk.to(device)
        if not self.cached:
            return RandomCrops(self.images, self.root, self.objective, self.plan.seed), workers
        cache = self._cache(folder)
        if not collectives.from_first(cache.there):
            progress = stoppable(self.caching, stopping)
            transform = Shown(self.layers.trunk.input_size, self.recipe.warp)
            reading = features.Reading(self.root, BATCH, "float32", workers, progress)
            cache.make(transform, device, reading)
        return Cached(cache), 0  # processes would but copy the rows

    def _cache(self, folder: str) -> Cache:
        shown = {"warp": self.recipe.warp, "crop": "center"}
        return Cache(os.path.join(folder, FEATURES), self.layers, self.images, shown)

    def tidy(self, folder: str) -> None:
        if self.cached:
            self._cache(folder).remove()

    def finished(self, state: dict[str, torch.Tensor]) -> dict[str, Any]:
        digest = self.layers.trunk.digest()
        if digest != self.settings["model"]:
            raise AssertionError("the trunk changed while its classifiers were trained")
        frozen = {key: value.cpu() for key, value in self.layers.trunk.state_dict().items()}
        arrays = identity.of_list(self.images, self.root).tensors()
        shapes = [list(shape) for shape in self.layers.shapes.values()]
        return {
            "frozen": frozen, "heads": state, "classes": self.classes, "shapes": shapes,
            "about": self.layers.of_the_model, **arrays,
        }  # fmt: skip


def _check_batch_norm(shapes: Shapes, plan: Plan) -> None:
    """Raise DataError if batch norm would see one number a channel: that has no variance."""
    images = plan.micro_batch * plan.synced_ranks
    for name, (_channels, height, width) in shapes.items():
        if images * height * width < 2:
            batch = f"--batch {plan.batch} is cut into pieces of 1 image"
            message = f"{batch}, and batch norm of {name} ({height} x {width}) needs 2"
            raise DataError(f"{message}: raise --batch, or lower --gpus or --accumulate")


def memory(shapes: Shapes, classes: int) -> dict[str, int]:
    """Return {layer: bytes of its classifier in training}, for SHAPES and a number of CLASSES.

    They are three times its weights, float32: with their gradient and their momentum.
    """
    return {name: 3 * 4 * classes * (math.prod(shape) + 1) for name, shape in shapes.items()}


def memory_in_words(shapes: Shapes, classes: int, free: float) -> str | None:
    """Return a message if memory() is much, else None; FREE is how many bytes are free.

    Raises DataError where it cannot be had, with the layers to leave out: the first, whose
    classifiers are the worst.
    """
    needed = memory(shapes, classes)
    whole = sum(needed.values())
    if whole < MUCH:
        return None
    each = ", ".join(f"{name} {_gigabytes(size)}" for name, size in needed.items())
    said = f"the classifiers of {classes:,} classes take {_gigabytes(whole)} GB of memory for"
    said += f" weights, gradients and momentum ({each})"
    if whole <= free:
        return f"{said}: less with fewer --layer"
    rest, left_out = dict(needed), list[str]()
    while rest and sum(rest.values()) > free:
        left_out.append(next(iter(rest)))
        del rest[left_out[-1]]
    advice = f"leave out {', '.join(left_out)}: --layer names the others"
    advice = advice if rest else "no layer fits; take a machine with more, or fewer classes"
    raise DataError(f"{said}, and {_gigabytes(free)} are free: {advice}")


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f}"
