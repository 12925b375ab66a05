"""Training of a predictor of normals on a frozen trunk."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from ssl_common.evaluation.normals.cache import Cache, Cached
from ssl_common.evaluation.normals.metrics import Angles
from ssl_common.evaluation.normals.pyramid import Body, Pyramid
from ssl_common.evaluation.normals.recipes import DRAWS, NormalsRecipe
from ssl_common.models import registry
from ssl_common.objective import Objective, Score
from ssl_common.processes import stoppable
from ssl_common.progress import Conversation, Progress
from ssl_common.ranks import collectives
from ssl_common.streams import DataError
from ssl_common.training.plan import Plan, TrainingOptions
from ssl_common.training.session import Session, Work


class Normals(Objective):
    """To name the code of BOOK (K, 3) at each place of the map of BODY; RECIPE says what is shown.

    A place without a normal has no loss; the loss of a step is the mean over the others. The body
    runs where the network is, unless CACHED maps come in the place of pictures.
    """

    draws = DRAWS
    weightless = "no place so far has a normal"

    def __init__(
        self, body: Body, book: np.ndarray, recipe: NormalsRecipe, cached: bool = False
    ) -> None:
        self.body, self.book, self.recipe, self.cached = body, book, recipe, cached
        self.chance = math.log(len(book))

    def score(
        self, network: nn.Module, batch: Any, drawn: np.ndarray, lines: torch.Tensor
    ) -> Score:
        """Return the Score of NETWORK, a Pyramid.

        BATCH is (uint8 N x H x W x 3 or maps, codes N x h x w), where the network is.
        """
        shown, places = batch
        maps = _nearby(shown.float()) if self.cached else self.body(shown)
        scores = network(maps).float()
        right = showing.fitted(places.long(), scores.shape[2:])
        loss = functional.cross_entropy(
            scores, right, ignore_index=showing.NOTHING, reduction="sum"
        )
        known = right != showing.NOTHING
        count = known.sum()
        hits = ((scores.argmax(1) == right) & known).sum()
        return Score(loss, count.double(), {"accuracy": (hits, int(count))})


def _nearby(maps: torch.Tensor) -> torch.Tensor:
    """Return MAPS with their channels side by side in memory, as a body gives them."""
    return maps.contiguous(memory_format=torch.channels_last)


class Shuffled(RandomCrops):
    """The images of PAIRS with the codes at the places of their maps, for OBJECTIVE."""

    one_size = False

    def __init__(self, pairs: PairList, root: str, objective: Normals, seed: int) -> None:
        super().__init__(pairs, root, objective, seed)
        self.pairs, self.task = pairs, objective

    def show(
        self, line: int, image: torch.Tensor, numbers: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return IMAGE of LINE as it is shown, uint8 H x W x 3, and its codes, int16 h x w."""
        body, picture = self.task.body, showing.picture_of(self.pairs, line, self.store, image)
        side, mirrored = self.task.recipe.view(numbers)
        pixels = showing.shown(image, side, self.task.recipe.longest)
        places = showing.places_of(
            picture.pixels, pixels.shape[:2], body.stride, body.first, mirrored
        )
        found = torch.from_numpy(showing.codes_of(places, self.task.book, mirrored))
        return pixels.flip(1) if mirrored else pixels, found

    def collate(self, items: Sequence[tuple[int, int, int, Any]]) -> list[Any]:
        """Return the batch of ITEMS: pixels and codes are filled up to the largest."""
        *numbers, shown = zip(*items, strict=True)
        images, places = zip(*shown, strict=True)
        size = showing.full_size(images)
        both = (
            torch.stack([showing.padded(image, size) for image in images]),
            showing.filled(places, showing.largest(places)),
        )
        return [*(default_collate(list(each)) for each in numbers), both]


@dataclass(frozen=True)
class Given:
    """What train-normals may be given: the file of its CODES, and the folder CACHE for maps."""

    codes: str | None = None
    cache: str | None = None


def train(
    model: str,
    pairs: str,
    recipe: NormalsRecipe,
    given: Given,
    options: TrainingOptions,
    talk: Conversation,
    caching: Progress,
) -> str | None:
    """Train a predictor of the normals of PAIRS on MODEL; return the last message of the command.

    It is None where another rank says it. CACHING is told how many images have their maps on the
    disk. Raises DataError for bad input, Stopped for a signal.
    """
    session = Session("train-normals", options, pairs, [model, given.codes], talk, PairList)
    book = codes.read(given.codes) if given.codes else None
    recipe = recipe if book is None else replace(recipe, codes=len(book))
    plan = session.plan(recipe, "paper")
    if plan.micro_batch * plan.synced_ranks < 2:
        message = f"--batch {plan.batch} is cut into pieces of 1 image, and batch norm needs 2"
        raise DataError(f"{message}: raise --batch, or lower --gpus or --accumulate")
    work = NormalsTraining(model, session.images, plan, options.root, book, given, caching)
    ended = session.run(plan, work)
    return f"{ended}; {work.codes_in_words()}" if ended else None


class NormalsTraining(Work):
    """The Work of train-normals: a Pyramid on MODEL for the labels of PAIRS, below ROOT.

    BOOK is that of its codes, those of the file that is GIVEN, or None: they are learned.
    """

    objective: Normals

    def __init__(
        self,
        model: str,
        pairs: PairList,
        plan: Plan,
        root: str,
        book: np.ndarray | None,
        given: Given,
        caching: Progress,
    ) -> None:
        assert isinstance(plan.recipe, NormalsRecipe)
        self.pairs, self.plan, self.root, self.caching = pairs, plan, root, caching
        trunk, settings = features.network(model, plan.seed)
        self.about = features.of_the_model(trunk, settings)
        self.body = Body(trunk, model)
        self.survey = codes.survey(pairs, root)
        if book is None:
            book = codes.learn(self.survey.normals, plan.recipe.codes, plan.seed)
        self.book = book
        floor = Angles()
        floor.add(codes.errors(self.survey.normals, self.book))
        self.floor = floor.median()
        self.settings = {
            "task": "normals",
            "arch": trunk.name,
            "model": self.about["model"],
            "labels": streams.digest(self.survey.normals.tobytes() + self.book.tobytes()),
            "code_error": self.floor,
            "codes_from": streams.stem(given.codes) if given.codes else None,
            "cache": given.cache is not None,
            "train_ground_truth": self.survey.truth.ground_truth,
            "train_rule": self.survey.truth.rule,
        }
        self.cache = None
        if given.cache:
            digest = self.about["model"]
            self.cache = Cache(given.cache, self.body, plan.recipe, pairs, root, digest)
        self.objective = Normals(self.body, self.book, plan.recipe, self.cache is not None)

    def codes_in_words(self) -> str:
        """Return what the labels are, and how close the codes come to them."""
        off = f"{self.floor:.1f} degrees off (median)"
        return f"normals from {self.survey.truth}, of which {len(self.book)} codes are {off}"

    def notice(self, device: torch.device) -> str | None:
        """Return how large the cache is, or None."""
        return self.cache.notice() if self.cache else None

    def network(self) -> nn.Module:
        with registry.seeded(self.plan.seed):
            return Pyramid(self.body.top, self.body.channels, len(self.book))

    def dataset(
        self, folder: str, device: torch.device, workers: int, stopping: Any
    ) -> tuple[Any, int]:
        self.body.trunk.to(device).to(memory_format=torch.channels_last)
        if not (cache := self.cache):
            return Shuffled(self.pairs, self.root, self.objective, self.plan.seed), workers
        if not collectives.from_first(cache.there):
            cache.make(device, workers, stoppable(self.caching, stopping))
        return Cached(cache, self.book, self.plan.seed), workers

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
