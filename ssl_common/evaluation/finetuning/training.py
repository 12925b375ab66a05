"""Training of a whole network, a trunk and a new head, for the classes of images."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ssl_common import streams
from ssl_common.data import identity
from ssl_common.data.datasets import RandomCrops
from ssl_common.data.manifest import DIFFICULT, POSITIVE, Manifest, label_matrix, single_labels
from ssl_common.evaluation import features
from ssl_common.evaluation.finetuning import rules
from ssl_common.evaluation.finetuning.heads import Tuned, at_stride, tuned
from ssl_common.evaluation.finetuning.options import FinetuneOptions
from ssl_common.evaluation.finetuning.recipes import RECIPES, FinetuneRecipe, usual
from ssl_common.evaluation.linear.heads import Augmented
from ssl_common.objective import Score
from ssl_common.progress import Conversation
from ssl_common.recipe import Recipe
from ssl_common.streams import DataError
from ssl_common.training.plan import Plan, TrainingOptions
from ssl_common.training.session import Session, Work

TUNED = "fine-tuned"  # before the pretext of a network, once it is


class Finetuning(Augmented):
    """To name the classes that an image shows, or the one, by a network of NETWORK's kind.

    LABELS are those of the lines of the manifest: of one class each, int32 (N,), for a softmax; or
    POSITIVE, DIFFICULT or NEGATIVE for each class, int8 (N, C), for a sigmoid for each, and a
    difficult one has no loss. RECIPE says how an image is shown, FOUND how each parameter learns.
    """

    def __init__(
        self,
        network: Tuned,
        labels: np.ndarray,
        recipe: FinetuneRecipe,
        found: dict[str, rules.Rule],
    ) -> None:
        self.trunk, self.recipe, self.area = network.trunk, recipe, recipe.crop_area
        self.labels, self.found = torch.from_numpy(labels), found
        self.chance = chance(labels)

    def score(
        self, network: nn.Module, pixels: torch.Tensor, drawn: np.ndarray, lines: torch.Tensor
    ) -> Score:
        """Return the Score of NETWORK, Tuned.

        PIXELS is uint8 N x S x S x 3 where the network is, DRAWN float64 (N, draws), LINES those of
        the manifest. A loss is that of an image by softmax, or of an image and class by sigmoid.
        The accuracy counts images whose highest score is that of a class which they show.
        """
        images = self.trunk.prepare(self.augmented(pixels, drawn))
        logits = network(images.contiguous(memory_format=torch.channels_last)).float()
        labels = self.labels[lines].to(pixels.device)
        first = logits.argmax(1)
        if labels.dim() == 1:
            loss = functional.cross_entropy(logits, labels.long(), reduction="sum")
            weight, right = torch.tensor(float(len(labels))), first == labels
        else:
            counted, shown = labels != DIFFICULT, (labels == POSITIVE).float()
            each = functional.binary_cross_entropy_with_logits(logits, shown, reduction="none")
            loss, weight = (each * counted).sum(), counted.sum().double()
            right = shown.gather(1, first[:, None]) > 0
        return Score(loss, weight, {"accuracy": (right.sum(), len(labels))})

    def groups(self, network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
        """Return the parameters of NETWORK as Objective does, by the update rule of RECIPE."""
        return rules.groups(network, self.found)


def chance(labels: np.ndarray) -> float:
    """Return the loss of one guess for all images: how often each class is shown, of LABELS.

    By softmax, of LABELS (N,), that all classes are as likely.
    """
    if labels.ndim == 1:
        return math.log(int(labels.max()) + 1)
    counted = (labels != DIFFICULT).sum(0)
    share = (labels == POSITIVE).sum(0) / np.maximum(counted, 1)
    parts = [p * np.log(p, where=p > 0, out=np.zeros_like(p)) for p in (share, 1 - share)]
    return float(-(sum(parts) * counted).sum() / max(1, counted.sum()))


def read_labels(
    images: Manifest, loss: str | None, classes: list[str] | None = None
) -> tuple[str, list[str], np.ndarray]:
    """Return (loss, classes, labels) of IMAGES, as Finetuning takes them.

    Without a LOSS it is softmax where each image has one label, none of them difficult. CLASSES are
    those of the training, in testing. Raises DataError where there is nothing to tell apart.
    """
    if loss is None:
        single = all(len(row.labels) == 1 and not row.difficult for row in images)
        loss = "softmax" if single else "sigmoid"
    if loss == "softmax":
        names, labels = single_labels(images, classes)
        if len(names) < 2:
            message = f"all are {names[0]}: list other classes, or give --loss sigmoid"
            raise DataError(f"{streams.name(images.path)}: {message}")
        return loss, names, labels
    names, labels = label_matrix(images, classes, unique=False)
    if not (labels == POSITIVE).any():
        what = "of the classes of the training" if classes else "that is not difficult"
        message = f"no label {what}: write path<TAB>label,label"
        raise DataError(f"{streams.name(images.path)}: {message}")
    return loss, names, labels


def train(
    model: str,
    manifest: str,
    recipe: str | None,
    wanted: FinetuneOptions,
    options: TrainingOptions,
    talk: Conversation,
) -> str | None:
    """Fine-tune MODEL for the classes of MANIFEST; return the last message of the command.

    It is None where another rank says it. RECIPE is a name of recipes.RECIPES, by default that of
    the network. Raises DataError for bad input, Stopped for a signal.
    """
    session = Session("finetune", options, manifest, [model], talk)
    # Too few need no network; without a recipe, that of the smallest batch.
    session.check_batch(RECIPES[recipe or "alexnet"])
    trunk, settings = features.network(model, options.seed)
    about = features.of_the_model(trunk, settings)
    name = recipe or usual(trunk.name, settings)
    chosen = RECIPES[name]
    trunk = at_stride(trunk, chosen.stride)
    plan = session.plan(_adapted(chosen, name, trunk.name, trunk.reads, wanted), name)
    if chosen.head != "fc" and plan.micro_batch * plan.synced_ranks < 2:
        message = f"--batch {plan.batch} is cut into pieces of 1 image, and batch norm needs 2"
        raise DataError(f"{message}: raise --batch, or lower --gpus or --accumulate")
    keeping = options.keep_epochs
    work = FinetuneTraining(trunk, about, session.images, plan, wanted, options.root, keeping)
    ended = session.run(plan, work)
    return f"{ended}; {work.in_words()}" if ended else None


def _adapted(
    recipe: FinetuneRecipe, name: str, arch: str, reads: str, wanted: FinetuneOptions
) -> FinetuneRecipe:
    """Return RECIPE, called NAME, for the network ARCH, which reads READS, as is WANTED.

    Raises DataError for one that changes colours in whole lightness.
    """
    if reads == "lab" and recipe.lighting:
        message = f"--recipe {name}: it changes colours, and this network reads whole lightness"
        raise DataError(f"{message}: take --recipe {arch}")
    stride = recipe.stride if arch == "alexnet-stride4" else None
    fc = wanted.fc if recipe.fc else None
    return replace(recipe, stride=stride, fc=fc, update_rule=wanted.update_rule)


class FinetuneTraining(Work):
    """The Work of finetune: TRUNK, of which ABOUT tells, for the classes of IMAGES by PLAN.

    They lie below ROOT. With KEEPING the checkpoints of all epochs stay.
    """

    def __init__(
        self,
        trunk: Any,
        about: dict[str, Any],
        images: Manifest,
        plan: Plan,
        wanted: FinetuneOptions,
        root: str,
        keeping: bool = False,
    ) -> None:
        assert isinstance(plan.recipe, FinetuneRecipe)
        self.about, self.images, self.plan, self.root = about, images, plan, root
        self.recipe, self.keeping = plan.recipe, keeping
        loss, self.classes, labels = read_labels(images, wanted.loss)
        self.tuned = tuned(trunk, self.recipe, len(self.classes), plan.seed)
        found = rules.rules(self.tuned, self.recipe)
        rules.prepare(self.tuned, found)
        self.objective = Finetuning(self.tuned, labels, self.recipe, found)
        self.settings = {
            "task": "finetune",
            "arch": trunk.name,
            "pretext": f"{TUNED} {about['pretext'] or 'network'}",
            **{size: about[size] for size in features.SIZES if about.get(size)},
            "model": about["model"],
            "classes": len(self.classes),
            "loss": loss,
            "labels": streams.digest("\n".join(self.classes).encode() + labels.tobytes()),
        }

    def in_words(self) -> str:
        """Return what was trained: how many classes, and by which loss."""
        count = len(self.classes)
        return f"{count} class{'es' if count != 1 else ''} by {self.settings['loss']}"

    def notice(self, device: torch.device) -> str | None:
        """Return how much of the disk the checkpoints of all epochs take, or None."""
        if not self.keeping:
            return None
        plan, parameters = self.plan, self.tuned.parameters()
        learning = sum(p.numel() for p in parameters if p.requires_grad)  # with their momentum
        state = sum(value.numel() for value in self.tuned.state_dict().values())
        each = 4e-6 * (learning + state)
        count = (plan.steps - 1) // (plan.images // plan.batch)
        sizes = f"{each:,.1f} MB, {count * each:,.1f} MB in all"
        return f"--keep-epochs: {count:,} checkpoints of {sizes}"

    def network(self) -> nn.Module:
        return self.tuned

    def dataset(
        self, folder: str, device: torch.device, workers: int, stopping: Any
    ) -> tuple[RandomCrops, int]:
        return RandomCrops(self.images, self.root, self.objective, self.plan.seed), workers

    def finished(self, state: dict[str, torch.Tensor]) -> dict[str, Any]:
        parts: dict[str, dict[str, torch.Tensor]] = {"trunk": {}, "head": {}}
        for name, value in state.items():
            part, _dot, rest = name.partition(".")
            parts[part][rest] = value
        arrays = identity.of_list(self.images, self.root).tensors()
        return {**parts, "classes": self.classes, "about": self.about, **arrays}
