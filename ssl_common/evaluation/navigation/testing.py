"""Testing of a navigator: episodes in a world, and one record of how well its policies do."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from ssl_common import legible, records, streams, tasks
from ssl_common.data.order import draws
from ssl_common.evaluation.navigation import eyes, worlds
from ssl_common.evaluation.navigation.eyes import Eye
from ssl_common.evaluation.navigation.intervals import interquartile_mean, interval
from ssl_common.evaluation.navigation.options import WorldOptions
from ssl_common.evaluation.navigation.policies import FRAMES, Policies, policy
from ssl_common.evaluation.navigation.worlds import TESTING, World
from ssl_common.models import networks, states
from ssl_common.progress import Progress
from ssl_common.ranks import devices
from ssl_common.streams import DataError

# What a record calls a setting, or that it has from elsewhere: from the network, or the test.
CALLED = {"seed": "navigation_seed", "images": "train_images", "data": "train_manifest"}
CALLED |= {"labels": "train_labels"}
ELSEWHERE = ("task", "arch", "model", "data_name", "max_steps", "world", "ppo")
# What two records have in common that can be compared, whatever they see by.
ALIKE: tuple[str, ...] = (
    "task",
    "data_set",
    "metric",
    "world",
    "world_seed",
    "episodes",
    "max_steps",
    "greedy",
)
ALIKE += ("method", "train_manifest", "frames")


class Navigator:
    """The policies that the file PATH of train-navigator holds, on DEVICE."""

    def __init__(self, path: str, device: torch.device) -> None:
        self.content = networks.load_navigator(path)
        self.path, self.settings = path, self.content["settings"]
        self.actions: list[str] = self.content["actions"]
        self.eye: Eye = eyes.restored(self.content, path)
        self.eye.to(device)
        self.device, self.runs = device, self.settings["runs"]
        design, shape = self.eye.design, self.eye.shape
        whole = Policies(design, shape, len(self.actions), self.runs, self.settings["seed"])
        states.fill(whole, self.content["policies"], path, f"policies on {self.settings['arch']}")
        self.each: list[nn.Sequential] = []
        for run in range(self.runs):
            self.each.append(policy(design, shape, len(self.actions)).eval())
            whole.into(run, self.each[-1])
            self.each[-1].to(device)

    def see(self, frames: Sequence[np.ndarray], runs: Sequence[int]) -> list[torch.Tensor]:
        """Return what RUNS see of FRAMES (uint8 H x W x 3 each), one of each: C x h x w."""
        shown = torch.stack([self.eye.frame(torch.from_numpy(each)) for each in frames])
        seen = list(self.eye(shown.to(self.device)).values())
        return [seen[min(run, len(seen) - 1)][place] for place, run in enumerate(runs)]

    @torch.inference_mode()
    def probabilities(self, stacks: Sequence[torch.Tensor], runs: Sequence[int]) -> np.ndarray:
        """Return those of the actions, float64 N x actions, by RUNS for STACKS, 4C x h x w each."""
        found = np.empty((len(stacks), len(self.actions)))
        for run in sorted(set(runs)):
            places = [place for place, each in enumerate(runs) if each == run]
            scores = self.each[run](torch.stack([stacks[place] for place in places]))
            found[places] = scores.double().softmax(1).cpu().numpy()
        if not np.isfinite(found).all():
            raise DataError(f"{self.path}: its policies give no finite numbers: train it again")
        return found


@dataclass
class Played:
    """An episode as run RUN plays it."""

    run: int
    episode: int
    stack: list[torch.Tensor] = field(default_factory=list)
    steps: int = 0
    reward: float = 0.0
    success: bool | None = None
    shortest: float | None = None
    length: float | None = None

    @property
    def ratio(self) -> float:
        """Its path by the shortest, 1 at least; NaN where it did not reach the goal."""
        if not self.success or not self.shortest or self.length is None:
            return float("nan")
        return max(1.0, self.length / self.shortest)


def play(
    navigator: Navigator,
    options: WorldOptions,
    episodes: int,
    count: int,
    seed: int,
    greedy: bool,
    progress: Progress,
) -> Iterator[Played]:
    """Yield the EPISODES of SEED as each run of NAVIGATOR plays them, as they end.

    So many (COUNT) worlds go on step by step together, each with the next episode when one is over.
    Actions are drawn by their probabilities, from (SEED, run, episode, step), or, if GREEDY, the
    most probable one is done.
    """
    rest = iter([Played(r, e) for e in range(episodes) for r in range(navigator.runs)])
    whole = episodes * navigator.runs
    with worlds.several(options, min(count, whole)) as opened:
        playing: dict[World, Played] = {}
        idle, ended, index = list(opened), 0, list[int]()
        while True:
            for world in idle:
                if (begun := next(rest, None)) is not None:
                    playing[world] = begun
                    world.ask_reset(worlds.episode_seed(seed, TESTING, begun.episode))
            idle = []
            frames = []
            for world in list(playing):
                seen, played = world.answer(), playing[world]
                index = index or _places(navigator, world)
                played.reward += seen.reward
                played.shortest = seen.distance if played.steps == 0 else played.shortest
                if seen.ended:
                    played.success, played.length = seen.success, seen.length
                    del playing[world]
                    idle.append(world)
                    ended += 1
                    progress(ended, whole)
                    yield played
                else:
                    frames.append(seen.frame)
            if playing:
                _act(navigator, playing, frames, index, seed, greedy)
            elif not idle or ended == whole:
                return


def _act(
    navigator: Navigator,
    playing: dict[World, Played],
    frames: Sequence[np.ndarray],
    index: Sequence[int],
    seed: int,
    greedy: bool,
) -> None:
    """Let each world do what its policy says of its frame; INDEX are the actions in the world."""
    each = list(playing.values())
    runs = [played.run for played in each]
    for played, seen in zip(each, navigator.see(frames, runs), strict=True):
        played.stack = [*(played.stack or [seen] * (FRAMES - 1)), seen][-FRAMES:]
    found = navigator.probabilities([torch.cat(played.stack) for played in each], runs)
    for world, played, chances in zip(playing, each, found, strict=True):
        if greedy:
            action = int(chances.argmax())
        else:
            key = [played.episode * worlds.SEEDS + played.steps]
            drawn = draws(seed, [played.run], key, 1)[0, 0]
            action = int(np.searchsorted(np.cumsum(chances), drawn * chances.sum(), "right"))
        world.ask_step(index[min(action, len(index) - 1)])
        played.steps += 1


def _places(navigator: Navigator, world: World) -> list[int]:
    """Return which action of WORLD each of NAVIGATOR is; raise DataError where it has none."""
    missing = [name for name in navigator.actions if name not in world.actions]
    if missing:
        there = ", ".join(map(legible.text, world.actions))
        message = f"{legible.text(world.name)} has no action {legible.text(missing[0])}"
        raise DataError(f"{message}, which {navigator.path} does: it has {there}")
    return [world.actions.index(name) for name in navigator.actions]


def evaluate(
    path: str,
    options: WorldOptions,
    episodes: int,
    count: int,
    seed: int,
    greedy: bool,
    metric: str | None,
    baselines: Sequence[str],
    tags: dict[str, str],
    device: str | None,
    progress: Progress,
) -> dict[str, Any]:
    """Return the record of the navigator PATH in the world of OPTIONS, without provenance.

    Of EPISODES of SEED for each of its runs, in COUNT worlds at a time. METRIC is "success" or
    "reward", by default success where the world tells it. BASELINES are files of records, of which
    those that were measured alike are compared with. Raises DataError.
    """
    compared = [each for file in baselines for each in records.read_records(file)]
    navigator = Navigator(path, torch.device(devices.choose(device, 1, False)))
    every = list(play(navigator, options, episodes, count, seed, greedy, progress))
    figures = _figures(navigator.runs, episodes, every, seed, metric, streams.name(path))
    record = _common(navigator, options, episodes, seed, greedy, tags, figures["metric"]) | figures
    record["inputs"] = {"model": streams.file_digest(path)}
    if baselines:
        record["not_above"] = not_above(record, compared)
    return record


def _figures(
    runs: int, episodes: int, every: Sequence[Played], seed: int, metric: str | None, name: str
) -> dict[str, Any]:
    """Return the measured fields of EVERY episode, and `metric`: interquartile means over runs."""
    told = all(each.success is not None for each in every)
    if metric == "success" and not told:
        raise DataError(f"{name}: the world does not tell success: --metric reward measures it")
    tables = {"reward": lambda played: played.reward}
    if told:
        tables |= {"success": lambda played: 100.0 * bool(played.success), "ratio": _ratio}
    means = {kind: _means(every, runs, episodes, value) for kind, value in tables.items()}
    found: dict[str, Any] = {"rewards": means["reward"].tolist()}
    found["mean_reward"] = float(interquartile_mean(means["reward"]))
    found["reward_interval"] = interval(means["reward"], seed)
    if told:
        found["success_rates"] = means["success"].tolist()
        found["success_rate"] = float(interquartile_mean(means["success"]))
        found["success_interval"] = interval(means["success"], seed)
        known = means["ratio"][~np.isnan(means["ratio"])]
        if len(known):
            found["path_ratios"] = known.tolist()
            found["path_ratio"] = float(interquartile_mean(known))
            found["path_ratio_interval"] = interval(known, seed)
    chosen = "success" if told and metric != "reward" else "reward"
    found["metric"] = (tasks.SUCCESS_RATE if chosen == "success" else tasks.REWARD).name
    found["value"] = found["success_rate" if chosen == "success" else "mean_reward"]
    found["interval"] = found[f"{chosen}_interval"]
    return {key: value for key, value in found.items() if value is not None}


def _ratio(played: Played) -> float:
    return played.ratio


def _means(
    every: Sequence[Played], runs: int, episodes: int, value: Callable[[Played], float]
) -> np.ndarray:
    """Return the mean VALUE of the episodes of each run, (runs,); NaN are left out of it."""
    table = np.full((runs, episodes), np.nan)
    for each in every:
        table[each.run, each.episode] = value(each)
    known = ~np.isnan(table)
    with np.errstate(invalid="ignore"):
        return np.where(known, table, 0).sum(1) / known.sum(1)


def _common(
    navigator: Navigator,
    options: WorldOptions,
    episodes: int,
    seed: int,
    greedy: bool,
    tags: dict[str, str],
    metric: str,
) -> dict[str, Any]:
    """Return the fields of a record that follow from what was tested, and TAGS."""
    about, settings = navigator.content["about"], navigator.settings.items()
    said = {key: value for key, value in about.items() if key != "format"} | {
        "task": "navigation",
        "data_set": tags.get("data_set") or streams.utf8(options.name),
        "metric": metric,
        **{CALLED.get(key, key): value for key, value in settings if key not in ELSEWHERE},
        "world": options.identity(),
        "world_seed": seed,
        "episodes": episodes,
        "max_steps": options.max_steps,
        "greedy": greedy,
    }
    return records.tagged(said, tags, navigator.path)


def not_above(record: dict[str, Any], baselines: Sequence[Any]) -> list[str]:
    """Return the names of those of BASELINES, records, that RECORD is not surely better than.

    Their value is not below its interval. Raises DataError where none was measured alike.
    """
    alike = [
        each
        for each in baselines
        if all(each.get(name) == record.get(name) for name in ALIKE)
        and (each.get("arch") in eyes.BASELINES or each.get("pretext") == "random")
        and each.get("model") != record.get("model")
    ]
    if not alike:
        message = "no baseline (blind, thumbnail, scratch, random) that was measured alike"
        raise DataError(f"--baselines: {message}, with the same frames, world and episodes")
    low = (record.get("interval") or [record["value"]])[0]
    names = [" ".join(filter(None, (each["arch"], each.get("pretext")))) for each in alike]
    pairs = zip(names, alike, strict=True)
    return list(dict.fromkeys(name for name, each in pairs if each["value"] >= low))
