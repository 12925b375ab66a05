"""Training of detectors, on a trunk that is frozen in part or not at all."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ssl_common import streams
from ssl_common.data.datasets import RandomCrops
from ssl_common.data.targets import ObjectList
from ssl_common.evaluation import features
from ssl_common.evaluation.detection import networks, showing
from ssl_common.evaluation.detection.bodies import Body
from ssl_common.evaluation.detection.cache import Cache, Cached
from ssl_common.evaluation.detection.networks import LOSSES, Losses, Scene
from ssl_common.evaluation.detection.options import DetectorOptions, Options
from ssl_common.evaluation.detection.proposals import Proposals
from ssl_common.evaluation.detection.recipes import RECIPES, Design
from ssl_common.evaluation.detection.showing import View, view
from ssl_common.models import states
from ssl_common.objective import Objective, Score
from ssl_common.processes import stoppable
from ssl_common.progress import Conversation, Progress
from ssl_common.ranks import collectives
from ssl_common.recipe import Recipe
from ssl_common.streams import DataError
from ssl_common.training.plan import Plan, TrainingOptions
from ssl_common.training.session import Session, Work

FLIP, ANCHORS, PROPOSALS = range(3)  # where in its draws an image finds its own


class Detection(Objective):
    """To find the objects of images, and name them, by the detector MADE of DESIGN.

    OBJECTS lists them, of CLASSES; PROPOSALS are those of each image, for a head that is "fast".
    Workers resize and mirror; the frozen part runs where the network is, unless CACHED maps come in
    the place of pictures. The loss of a step is the mean over its images, and that of an image the
    sum of what its network gives.
    """

    draws = 3
    chance = None  # most of what is drawn shows nothing, which is soon said
    weightless = "no image so far counts"

    def __init__(
        self,
        made: networks.Made,
        objects: ObjectList,
        classes: list[str],
        design: Design,
        proposals: Proposals | None = None,
        cached: bool = False,
    ) -> None:
        self.made, self.objects, self.classes, self.cached = made, objects, classes, cached
        self.design, self.proposals = design, proposals
        told = LOSSES if design.head == "faster" else LOSSES[:2]
        self.measures = ("accuracy", *(f"loss_{name}" for name in told))

    def view(self, height: int, width: int, drawn: np.ndarray) -> View:
        """Return how an image of HEIGHT x WIDTH is shown by its numbers DRAWN."""
        return view(height, width, self.design.size, self.design.max_size, bool(drawn[FLIP] < 0.5))

    def crop(self, image: torch.Tensor, drawn: np.ndarray) -> tuple[torch.Tensor, int, int]:
        """Return all of IMAGE as it is shown, uint8 3 x h x w, and its height and width before."""
        height, width = image.shape[:2]
        return showing.picture(image, self.view(height, width, drawn)), height, width

    def scene(
        self, features: torch.Tensor, height: int, width: int, drawn: np.ndarray, line: int
    ) -> Scene:
        """Return the Scene of FEATURES, of the image of LINE, which is HEIGHT x WIDTH; as DRAWN.

        Raises DataError where the list says another size of it.
        """
        objects = self.objects[line]
        showing.check_size(self.objects, line, objects, height, width)
        how, device = self.view(height, width, drawn), features.device
        found, labels = showing.learned(objects, self.classes)
        proposals = None
        if self.proposals is not None:
            proposals = showing.given(self.proposals.of(line), how).to(device)
        return Scene(
            features,
            how.size,
            proposals,
            how.shown(found).to(device),
            labels.to(device),
            (drawn[ANCHORS], drawn[PROPOSALS]),
        )

    def score(
        self, network: nn.Module, batch: Any, drawn: np.ndarray, lines: torch.Tensor
    ) -> Score:
        """Return the Score of NETWORK, of networks.Detector.

        BATCH is (pictures or maps, where the network is, their heights, widths), DRAWN float64 (N,
        draws), LINES those of the list.
        """
        pictures, heights, widths = batch
        rows = zip(pictures, heights.tolist(), widths.tolist(), drawn, lines.tolist(), strict=True)
        maps = torch.Tensor.float if self.cached else self.made.features
        found: Losses = network([self.scene(maps(each), *row) for each, *row in rows])
        count, sums = len(pictures), found.values.sum(1)
        measured: dict[str, tuple[torch.Tensor, int]] = {"accuracy": (found.right, found.drawn)}
        measured |= {name: (one, count) for name, one in zip(self.measures[1:], sums, strict=True)}
        return Score(sums.sum(), torch.tensor(float(count)), measured)

    def groups(self, network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
        """Return the parameters of NETWORK as Objective does; biases learn at RECIPE's rate."""
        biases = [p for name, p in network.named_parameters() if name.endswith("bias")]
        others = [p for name, p in network.named_parameters() if not name.endswith("bias")]
        spared = {} if recipe.decay_biases else {"weight_decay": 0.0}
        return [{"params": others}, {"params": biases, "rate": recipe.bias_rate or 1.0} | spared]


class Shuffled(RandomCrops):
    """The images of a list for training, of several sizes, as RandomCrops gives them."""

    one_size = False

    def collate(self, items: Sequence[tuple[int, int, int, Any]]) -> list[Any]:
        """Return the batch of ITEMS."""
        return showing.collated(items)


def train(
    model: str,
    objects: str,
    recipe: str,
    detector: DetectorOptions,
    options: Options,
    talk: Conversation,
    caching: Progress,
) -> str | None:
    """Train a DETECTOR on MODEL for the list OBJECTS; return the last message of the command.

    It is None where another rank says it. RECIPE is one of recipes.NAMES; CACHING is told how many
    images have their maps on the disk. Raises DataError for bad input, Stopped for a signal.
    """
    inputs = [model, detector.proposals]
    session = Session("train-detector", options, objects, inputs, talk, ObjectList, least=1)
    chosen = in_proportion(RECIPES[recipe, detector.head], options)
    plan = session.plan(chosen, recipe)
    work = DetectorTraining(model, session.images, plan, detector, options.root, caching)
    return session.run(plan, work)


def in_proportion(recipe: Recipe, options: TrainingOptions) -> Recipe:
    """Return RECIPE with as many steps as show as many images at the batch of OPTIONS."""
    assert recipe.steps is not None
    batch = options.batch or recipe.batch
    return replace(recipe, steps=max(1, round(recipe.steps * recipe.batch / batch)))


class DetectorTraining(Work):
    """The Work of train-detector: DETECTOR on MODEL for OBJECTS, below ROOT, by PLAN."""

    def __init__(
        self,
        model: str,
        objects: ObjectList,
        plan: Plan,
        detector: DetectorOptions,
        root: str,
        caching: Progress,
    ) -> None:
        self.caching = caching
        self.objects, self.plan, self.root, self.model = objects, plan, root, model
        self.trunk, settings = features.network(model, plan.seed)
        self.about = features.of_the_model(self.trunk, settings)
        self.classes, digest = learned_classes(objects)
        body = Body(self.trunk, model)
        self.design = Design(
            detector.head,
            detector.freeze or list(body.stages)[-1],
            detector.pool,
            detector.anchors,
            detector.size,
            detector.max_size,
            detector.fc,
        )
        self.made = networks.make(self.trunk, len(self.classes), self.design, model, plan.seed)
        self.settings = {
            "task": "detection",
            "arch": self.trunk.name,
            "model": self.about["model"],
            "classes": len(self.classes),
            "objects": digest,
            "stride": self.made.stride,
            "cache": detector.cache is not None,
            **self.design.settings(body.last is None),
        }
        proposals = None
        if detector.proposals:
            proposals = showing.proposed(detector.proposals, objects)
            self.settings["proposals"] = streams.file_digest(detector.proposals)
        self.cache = None
        if detector.cache:
            self._check_frozen(list(body.stages)[-1])
            self.cache = Cache(detector.cache, self.made, self.design, objects, root)
        self.objective = Detection(
            self.made, objects, self.classes, self.design, proposals, self.cache is not None
        )
        self.frozen = states.digest(self.made.frozen)

    def notice(self, device: torch.device) -> str | None:
        """Return what another batch makes of the recipe, and how large the cache is; or None."""
        plan, usual = self.plan, RECIPES[self.plan.name, self.design.head]
        said = []
        if plan.batch != usual.batch:
            rule = f"the recipe has {usual.lr:g} at {usual.batch}, for {usual.steps:,} steps"
            said.append(f"batch {plan.batch}: rate {plan.lr:g} for {plan.steps:,} steps; {rule}")
        if self.cache:
            said.append(self.cache.notice())
        return "; ".join(said) or None

    def _check_frozen(self, last: str) -> None:
        """Raise DataError unless the body, up to its LAST stage, is frozen."""
        if self.design.freeze != last:
            message = f"--freeze {self.design.freeze} trains what the cache would hold"
            raise DataError(f"--cache: {message}: give --freeze {last}")

    def network(self) -> nn.Module:
        return self.made.network

    def dataset(
        self, folder: str, device: torch.device, workers: int, stopping: Any
    ) -> tuple[Any, int]:
        self.made.frozen.to(device)
        if not (cache := self.cache):
            return Shuffled(self.objects, self.root, self.objective, self.plan.seed), workers
        if not collectives.from_first(cache.there):
            cache.make(device, workers, stoppable(self.caching, stopping))
        return Cached(cache, self.plan.seed, Detection.draws, FLIP), workers

    def finished(self, state: dict[str, torch.Tensor]) -> dict[str, Any]:
        frozen = {key: value.cpu() for key, value in self.made.frozen.state_dict().items()}
        if states.digest(self.made.frozen) != self.frozen:
            raise AssertionError("the frozen part changed while the rest was trained")
        return {
            "frozen": frozen, "network": state, "classes": self.classes, "about": self.about,
        }  # fmt: skip


def learned_classes(objects: ObjectList) -> tuple[list[str], str]:
    """Return the classes of what is learned of OBJECTS, ascending, and a digest of what that is.

    Raises DataError where there is none.
    """
    names, pieces = set[str](), list[bytes]()
    for each in objects:
        names.update(each.labels)
        pieces.append(repr(each[1:]).encode())
    if not names:
        raise DataError(f"{streams.name(objects.path)}: no object in any image: list some")
    return sorted(names), streams.digest(pieces)
