"""Training of a predictor of normals on a frozen trunk."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import default_collate

from ssl_common import streams
from ssl_common.data import identity
from ssl_common.data.datasets import RandomCrops
from ssl_common.data.targets import PairList
from ssl_common.evaluation import features
from ssl_common.evaluation.normals import codes, showing
from ssl_common.evaluation.normals.metrics import Angles
from ssl_common.evaluation.normals.pyramid import Body, Pyramid
from ssl_common.evaluation.normals.recipes import NormalsRecipe
from ssl_common.models import registry
from ssl_common.objective import Objective, Score
from ssl_common.progress import Conversation
from ssl_common.streams import DataError
from ssl_common.training.plan import Plan, TrainingOptions
from ssl_common.training.session import Session

SIDE, FLIP = 0, 1  # where in its draws an image finds its own


class Normals(Objective):
    """To name the code of BOOK (K, 3) at each place of the map of BODY; RECIPE says what is shown.

    A place without a normal has no loss; the loss of a step is the mean over the others.
    """

    draws = 2
    weightless = "no place so far has a normal"

    def __init__(self, body: Body, book: np.ndarray, recipe: NormalsRecipe) -> None:
        self.body, self.book, self.recipe = body, book, recipe
        self.chance = math.log(len(book))

    def score(
        self, network: nn.Module, batch: Any, drawn: np.ndarray, lines: torch.Tensor
    ) -> Score:
        """Return the Score of NETWORK, a Pyramid.

        BATCH is (uint8 N x H x W x 3, codes N x h x w), where the network is.
        """
        pixels, places = batch
        scores = network(self.body(pixels)).float()
        right = showing.fitted(places.long(), scores.shape[2:])
        loss = functional.cross_entropy(
            scores, right, ignore_index=showing.NOTHING, reduction="sum"
        )
        known = right != showing.NOTHING
        count = known.sum()
        hits = ((scores.argmax(1) == right) & known).sum()
        return Score(loss, count.double(), {"accuracy": (hits, int(count))})


class Shuffled(RandomCrops):
    """The images of PAIRS with the codes at the places of their maps, for OBJECTIVE."""

    def __init__(self, pairs: PairList, root: str, objective: Normals, seed: int) -> None:
        super().__init__(pairs, root, objective, seed)
        self.pairs, self.task = pairs, objective

    def show(
        self, line: int, image: torch.Tensor, numbers: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return IMAGE of LINE as it is shown, uint8 H x W x 3, and its codes, int16 h x w."""
        recipe, body = self.task.recipe, self.task.body
        label = showing.label_of(self.pairs, line, self.store, image)
        side = recipe.sides[int(numbers[SIDE] * len(recipe.sides))]
        mirrored = recipe.flip and numbers[FLIP] < 0.5
        pixels = showing.shown(image, side, recipe.longest)
        size = pixels.shape[:2]
        places = showing.codes_of(
            label, self.task.book, size, body.stride, body.first, bool(mirrored)
        )
        return pixels.flip(1) if mirrored else pixels, torch.from_numpy(places)

    def collate(self, items: Sequence[tuple[int, int, int, Any]]) -> list[Any]:
        """Return the batch of ITEMS: pixels and codes are filled up to the largest."""
        *numbers, shown = zip(*items, strict=True)
        images, places = zip(*shown, strict=True)
        size = showing.full_size(images)
        most = [max(each.shape[axis] for each in places) for axis in (0, 1)]
        both = (
            torch.stack([showing.padded(image, size) for image in images]),
            torch.stack([showing.fitted(each[None], most)[0] for each in places]),
        )
        return [*(default_collate(list(each)) for each in numbers), both]


def train(
    model: str, pairs: str, recipe: NormalsRecipe, options: TrainingOptions, talk: Conversation
) -> str | None:
    """Train a predictor of the normals of PAIRS on MODEL; return the last message of the command.

    It is None where another rank says it. Raises DataError for bad input, Stopped for a signal.
    """
    session = Session("train-normals", options, pairs, [model], talk, PairList)
    plan = session.plan(recipe, "paper")
    if plan.micro_batch * plan.synced_ranks < 2:
        message = f"--batch {plan.batch} is cut into pieces of 1 image, and batch norm needs 2"
        raise DataError(f"{message}: raise --batch, or lower --gpus or --accumulate")
    work = NormalsTraining(model, session.images, plan, options.root)
    ended = session.run(plan, work)
    return f"{ended}; {work.codes_in_words()}" if ended else None


class NormalsTraining:
    """The Work of train-normals: a Pyramid on MODEL for the labels of PAIRS, below ROOT."""

    def __init__(self, model: str, pairs: PairList, plan: Plan, root: str) -> None:
        assert isinstance(plan.recipe, NormalsRecipe)
        self.pairs, self.plan, self.root = pairs, plan, root
        trunk, settings = features.network(model, plan.seed)
        self.about = features.of_the_model(trunk, settings)
        self.body = Body(trunk, model)
        self.survey = codes.survey(pairs, root)
        self.book = codes.learn(self.survey.normals, plan.recipe.codes, plan.seed)
        floor = Angles()
        floor.add(codes.errors(self.survey.normals, self.book))
        self.floor = floor.median()
        self.settings = {
            "task": "normals",
            "arch": trunk.name,
            "model": self.about["model"],
            "labels": streams.digest(self.survey.normals.tobytes() + self.book.tobytes()),
            "code_error": self.floor,
            "train_ground_truth": self.survey.truth.ground_truth,
            "train_rule": self.survey.truth.rule,
        }
        self.objective = Normals(self.body, self.book, plan.recipe)

    def codes_in_words(self) -> str:
        """Return what the labels are, and how close the codes come to them."""
        off = f"{self.floor:.1f} degrees off (median)"
        return f"normals from {self.survey.truth}, of which {len(self.book)} codes are {off}"

    def notice(self, device: torch.device) -> None:
        """Return None: there is nothing to say before the training on DEVICE."""

    def network(self) -> nn.Module:
        with registry.seeded(self.plan.seed):
            return Pyramid(self.body.top, self.body.channels, len(self.book))

    def dataset(
        self, folder: str, device: torch.device, workers: int, stopping: Any
    ) -> tuple[Any, int]:
        self.body.trunk.to(device).to(memory_format=torch.channels_last)
        return Shuffled(self.pairs, self.root, self.objective, self.plan.seed), workers

    def tidy(self, folder: str) -> None:
        """Remove nothing: no file was kept in FOLDER."""

    def finished(self, state: dict[str, torch.Tensor]) -> dict[str, Any]:
        if self.body.trunk.digest() != self.settings["model"]:
            raise AssertionError("the trunk changed while its predictor was trained")
        frozen = {key: value.cpu() for key, value in self.body.trunk.state_dict().items()}
        arrays = identity.of_list(self.pairs, self.root).tensors()
        learned = {
            "codes": self.book, "mean": self.survey.mean, "mean_image": self.survey.mean_image
        }  # fmt: skip
        tensors = {name: torch.from_numpy(np.float32(each)) for name, each in learned.items()}
        return {"frozen": frozen, "network": state, "about": self.about} | tensors | arrays
