"""Cloning: policies learn to name the action of an expert, from frames that were recorded.

Each frame passes the frozen network once; policies of several runs learn side by side.
"""

import functools
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ssl_common import containers, streams
from ssl_common.data import identity
from ssl_common.data.manifest import Manifest, single_labels
from ssl_common.data.order import Item, shuffle
from ssl_common.evaluation import features
from ssl_common.evaluation.linear.cache import DIGESTS, Cache
from ssl_common.evaluation.navigation import eyes
from ssl_common.evaluation.navigation.eyes import Eye
from ssl_common.evaluation.navigation.policies import FRAMES, Policies
from ssl_common.evaluation.navigation.recipes import CLONING
from ssl_common.objective import Objective, Score
from ssl_common.processes import stoppable
from ssl_common.progress import Conversation, Progress
from ssl_common.ranks import collectives
from ssl_common.streams import DataError
from ssl_common.training.checkpoints import FEATURES
from ssl_common.training.plan import Plan, TrainingOptions
from ssl_common.training.session import Session, Work

TOLD_FROM = 20 * eyes.MEASURED  # frames that repay a measurement of the speed


class Cloning(Objective):
    """To name the action of the expert among ACTIONS, by each of RUNS policies.

    What comes of a batch is what its runs see, R x N x 4C x h x w, and the actions, R x N. The loss
    of a step is the mean over its frames, summed over the runs.
    """

    draws = 1

    def __init__(self, actions: int, runs: int) -> None:
        self.chance = runs * math.log(actions)

    def score(self, network: nn.Module, batch: Any, draws: Any, lines: torch.Tensor) -> Score:
        """Return the Score of NETWORK, Policies."""
        seen, actions = batch
        scores = network(seen).float()
        flat, right = scores.flatten(0, 1), actions.flatten()
        loss = functional.cross_entropy(flat, right, reduction="sum")
        hits = (flat.argmax(1) == right).sum()
        weight = torch.tensor(float(actions.shape[1]))
        return Score(loss, weight, {"accuracy": (hits, len(right))})


class Stacks:
    """The frames in CACHE, of RUNS runs from SEED on, four of an episode at a time.

    A run has an order of its own, that of its seed: so it learns as it would alone. ACTIONS (N,)
    are those of the lines, FIRST (N,) the first line of the episode of each.
    """

    def __init__(
        self, cache: Cache, eye: Eye, runs: int, seed: int, actions: np.ndarray, first: np.ndarray
    ) -> None:
        self.cache, self.manifest, self.eye = cache, cache.images, eye
        self.runs, self.seed, self.actions, self.first = runs, seed, actions, first
        count = len(self.manifest)
        self.rows = [_rows(cache.path(name), "<f4", count, eye.width) for name in eye.names]
        self.digests = _rows(cache.path(DIGESTS), "<u8", count, len(eye.names))
        self.known = np.zeros((len(eye.names), count), bool)

    def prepare(self) -> None:
        """Do nothing: these need no preparation for reading."""

    @functools.lru_cache(maxsize=2)  # noqa: B019 (of one data set, which lives as long as the run)
    def orders(self, epoch: int) -> list[np.ndarray]:
        """Return, for each run, which line stands in EPOCH where the first run has line i."""
        every = np.arange(len(self.manifest))
        own = shuffle(every, len(every), self.seed, epoch)
        place = np.empty_like(own)
        place[own] = every
        found = [every]
        for run in range(1, self.runs):
            found.append(shuffle(every, len(every), self.seed + run, epoch)[place])
        return found

    def __getitem__(self, item: Item) -> Any:
        return self.__getitems__([item])

    def __getitems__(self, items: Sequence[Item]) -> Any:
        """Return the batch of ITEMS: passed, epochs, indices, (what the runs see, actions)."""
        epochs, indices = (np.array(each) for each in zip(*items, strict=True))
        seen, actions = [], []
        for run in range(self.runs):
            lines = np.array([self.orders(int(e))[run][i] for e, i in items])
            seen.append(self.seen(lines, min(run, len(self.rows) - 1)))
            actions.append(self.actions[lines].astype(np.int64))
        batch = torch.from_numpy(np.stack(seen)), torch.from_numpy(np.stack(actions))
        parts = np.zeros(len(items), np.int64), epochs, indices
        return [*map(torch.from_numpy, parts), batch]

    def collate(self, batch: Any) -> Any:
        """Return BATCH, which __getitems__ made."""
        return batch

    def seen(self, lines: np.ndarray, which: int) -> np.ndarray:
        """Return what is seen at LINES by the eye WHICH: float32 N x 4C x h x w, the last last.

        Before the beginning of an episode its first frame stands.
        """
        back = lines[:, None] + np.arange(1 - FRAMES, 1)
        back = np.maximum(back, self.first[lines][:, None]).ravel()
        found = self.rows[which][back]
        for line in np.unique(back[~self.known[which][back]]).tolist():
            row = found[np.flatnonzero(back == line)[0]]
            if self.cache.digest(self.eye.names[which], line, row) != self.digests[line][which]:
                message = f"row {line + 1} is not what was written there: remove the folder, and"
                path = self.cache.path(self.eye.names[which])
                raise DataError(f"{path}: {message} it is made anew")
        self.known[which][back] = True
        channels, *size = self.eye.shape
        return found.reshape(len(lines), FRAMES * channels, *size)


def _rows(path: str, dtype: str, count: int, width: int) -> Any:
    """Return the array of DTYPE, COUNT rows of WIDTH numbers, in the file PATH, where it stays."""
    array = containers.read_array(path)
    if (array.dtype, array.shape) != (np.dtype(dtype), (count, width)):
        raise DataError(f"{path}: not {count} rows of {width} numbers: remove the folder")
    return array


def first_lines(frames: Manifest) -> np.ndarray:
    """Return, for each line of FRAMES, the first of its episode: those before it in its folder."""
    found, first, folder = np.empty(len(frames), np.int64), 0, None
    for line, row in enumerate(frames):
        if (here := os.path.dirname(row.path)) != folder:
            first, folder = line, here
        found[line] = first
    return found


class CloningTraining(Work):
    """The Work of train-navigator cloning: policies that see by EYE, for FRAMES below ROOT."""

    def __init__(
        self, eye: Eye, frames: Manifest, plan: Plan, runs: int, root: str, caching: Progress
    ) -> None:
        self.eye, self.frames, self.plan, self.runs = eye, frames, plan, runs
        self.root, self.caching = root, caching
        self.actions, self.labels = single_labels(frames)
        if len(self.actions) < 2:
            name = streams.name(frames.path)
            raise DataError(f"{name}: the expert does {self.actions[0]} alone: record more")
        self.settings = {
            "task": "navigation",
            "method": "cloning",
            "arch": eye.of_the_model["arch"],
            "model": eye.of_the_model["model"],
            "layer": eye.layer,
            "side": eye.side,
            "runs": runs,
            "actions": len(self.actions),
            "labels": streams.digest("\n".join(self.actions).encode() + self.labels.tobytes()),
        }
        self.objective = Cloning(len(self.actions), runs)

    def notice(self, device: torch.device) -> str | None:
        """Return how long it takes for the network to see all frames, by a measurement."""
        count = len(self.frames)
        if count < TOLD_FROM:
            return None
        self.eye.to(device)
        pace = self.eye.frames_per_second()
        if pace is None:
            return None
        return budget(f"{count:,} frames pass the network once", count, pace)

    def network(self) -> nn.Module:
        return Policies(
            self.eye.design, self.eye.shape, len(self.actions), self.runs, self.plan.seed
        )

    def dataset(
        self, folder: str, device: torch.device, workers: int, stopping: Any
    ) -> tuple[Any, int]:
        self.eye.to(device)
        cache = self._cache(folder)
        if not collectives.from_first(cache.there):
            progress = stoppable(self.caching, stopping)
            reading = features.Reading(self.root, eyes.BATCH, "float32", workers, progress)
            cache.make(self.eye.frame, device, reading)
        first = first_lines(self.frames)
        stacks = Stacks(cache, self.eye, self.runs, self.plan.seed, self.labels, first)
        return stacks, 0  # processes would but copy the rows

    def _cache(self, folder: str) -> Cache:
        shown = {"side": self.eye.side, "runs": self.runs, "navigation_seed": self.plan.seed}
        return Cache(os.path.join(folder, FEATURES), self.eye, self.frames, shown)

    def tidy(self, folder: str) -> None:
        self._cache(folder).remove()

    def finished(self, state: dict[str, torch.Tensor]) -> dict[str, Any]:
        arrays = identity.of_list(self.frames, self.root).tensors()
        return finished(self.eye, state, self.actions) | arrays


def finished(eye: Eye, state: dict[str, torch.Tensor], actions: Sequence[str]) -> dict[str, Any]:
    """Return what a navigator's file holds of policies in STATE that see by EYE, and ACTIONS."""
    if eye.trunk.digest() != eye.of_the_model["model"]:
        raise AssertionError("the network changed while policies were trained on it")
    frozen = {key: value.cpu() for key, value in eye.trunk.state_dict().items()}
    return {
        "frozen": frozen, "policies": state, "actions": list(actions), "about": eye.of_the_model,
    }  # fmt: skip


def budget(what: str, frames: float, pace: float) -> str:
    """Return a line that says WHAT, and how long so many FRAMES take at PACE, frames a second."""
    hours = frames / pace / 3600
    text = f"{hours:.2g} hours" if hours >= 1 else f"{60 * hours:.2g} minutes"
    return f"{what}: about {text} at {pace:.3g} frames/s, measured on {eyes.MEASURED}"


def train(
    model: str,
    frames: str,
    layer: str | None,
    side: int | None,
    runs: int,
    options: TrainingOptions,
    talk: Conversation,
    caching: Progress,
) -> str | None:
    """Train policies of RUNS runs to do what the list FRAMES says; return the last message.

    They see LAYER of MODEL, shown as SIDE pixels a side; see eyes.make(). CACHING is told how many
    frames have passed the network. The line is None where another rank says it. Raises DataError
    for bad input, Stopped for a signal.
    """
    inputs = [] if model in eyes.BASELINES else [model]
    session = Session("train-navigator", options, frames, inputs, talk, least=1)
    session.check_batch(CLONING)
    eye = eyes.make(model, layer, options.seed, runs, side)
    plan = session.plan(CLONING, "cloning")
    work = CloningTraining(eye, session.images, plan, runs, options.root, caching)
    ended = session.run(plan, work)
    seen = f"{eye.layer} of {model}" if eye.layer else model
    return f"{ended}; {runs} runs see {seen}" if ended else None
