"""Recording of an expert: its frames as pictures, and a list of them with the action it took."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ssl_common import legible, records
from ssl_common.data.manifest import Row
from ssl_common.data.order import draws
from ssl_common.evaluation.navigation import worlds
from ssl_common.evaluation.navigation.options import WorldOptions
from ssl_common.evaluation.navigation.worlds import RECORDING, Seen, World
from ssl_common.progress import Progress
from ssl_common.streams import DataError

EPISODES = "episodes.jsonl"
STRAYS, WHERE = 0, 1  # what is drawn for a step: whether it strays from the expert, and where to


@dataclass
class Episode:
    """An episode so far: number, seed, the actions of the expert, and what its world said."""

    number: int
    seed: int
    expert: list[str] = field(default_factory=list)
    reward: float = 0.0
    distance: float | None = None
    last: Seen | None = None

    def said(self) -> dict[str, Any]:
        """Return what the list of episodes says of it."""
        assert self.last
        return {
            "episode": self.number,
            "seed": self.seed,
            "frames": len(self.expert),
            "reward": self.reward,
            "success": self.last.success,
            "distance_to_goal": self.distance,
            "path_length": self.last.length,
        }


@dataclass
class Summary:
    """What was recorded so far."""

    episodes: int = 0
    frames: int = 0
    actions: set[str] = field(default_factory=set)
    succeeded: int = 0
    judged: int = 0

    def add(self, episode: Episode) -> None:
        """Count EPISODE."""
        assert episode.last
        self.episodes += 1
        self.frames += len(episode.expert)
        self.actions.update(episode.expert)
        self.judged += episode.last.success is not None
        self.succeeded += bool(episode.last.success)

    def __str__(self) -> str:
        actions = f"{len(self.actions)} action" + "s" * (len(self.actions) != 1)
        said = f"{self.episodes:,} episodes, {self.frames:,} frames, {actions}"
        if self.judged:
            said += f"; the expert succeeds in {self.succeeded:,} of {self.judged:,}"
        return said


def record(
    folder: str,
    prefix: str,
    options: WorldOptions,
    count: int,
    noise: float,
    seed: int,
    workers: int,
    progress: Progress,
    summary: Summary,
) -> Iterator[Row]:
    """Record COUNT episodes of SEED in the world of OPTIONS into FOLDER; yield the Row of a frame.

    Its path begins with PREFIX; its label is the action of the expert, which is what is done, but
    for the share NOISE of the steps, where a random one is. WORKERS worlds, one at least, play side
    by side; what comes out does not depend on them. Raises DataError where a world has no expert.
    """
    with (
        worlds.several(options, min(max(1, workers), count)) as opened,
        open(os.path.join(folder, EPISODES), "wb") as listed,
    ):
        playing: dict[World, Episode] = {}
        done: dict[int, Episode] = {}
        begun = written = frames = 0
        while written < count:
            for world in opened:
                if world not in playing and begun < count:
                    playing[world] = Episode(begun, worlds.episode_seed(seed, RECORDING, begun))
                    os.mkdir(os.path.join(folder, _name(begun)))
                    world.ask_reset(playing[world].seed)
                    begun += 1
            world = worlds.first_ready(list(playing))
            episode = playing[world]
            seen = world.answer()
            episode.last, episode.reward = seen, episode.reward + seen.reward
            if not episode.expert:
                episode.distance = seen.distance
            if seen.ended:
                done[episode.number] = playing.pop(world)
            else:
                action = _follow(world, seen, episode, noise, seed)
                _write(os.path.join(folder, _path(episode)), seen.frame)
                episode.expert.append(world.actions[seen.expert or 0])
                world.ask_step(action)
                frames += 1
                progress(frames, None, f"episode {begun:,} of {count:,}")
            while written in done:
                whole = done.pop(written)
                summary.add(whole)
                listed.write(records.line(whole.said()))
                for step, name in enumerate(whole.expert):
                    yield Row(os.path.join(prefix, _name(written), f"{step:05d}.png"), (name,))
                written += 1


def _follow(world: World, seen: Seen, episode: Episode, noise: float, seed: int) -> int:
    """Return the action of the expert in WORLD, or, in the share NOISE of steps, a random one."""
    if seen.expert is None:
        name, step = legible.text(world.name), len(episode.expert)
        message = f"{name}: no expert at step {step} of episode {episode.number}"
        raise DataError(f"{message}: a reply says `expert`, the action that it would take")
    key = [episode.number * worlds.SEEDS + len(episode.expert)]
    drawn = draws(seed, [RECORDING], key, 2)[0]
    return int(drawn[WHERE] * len(world.actions)) if drawn[STRAYS] < noise else seen.expert


def _name(episode: int) -> str:
    return f"{episode + 1:06d}"


def _path(episode: Episode) -> str:
    """Return the name of the next frame of EPISODE."""
    return os.path.join(_name(episode.number), f"{len(episode.expert):05d}.png")


def _write(path: str, frame: np.ndarray) -> None:
    stream = io.BytesIO()  # Pillow itself takes no notice of a full disk
    Image.fromarray(frame).save(stream, "PNG", compress_level=1)
    with open(path, "wb") as file:
        file.write(stream.getbuffer())
