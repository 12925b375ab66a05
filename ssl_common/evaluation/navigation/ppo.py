"""PPO: policies that learn from rewards, by stable-baselines3, on what a frozen network sees."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ssl_common import containers, records
from ssl_common.evaluation.navigation import eyes, worlds
from ssl_common.evaluation.navigation.cloning import budget, finished
from ssl_common.evaluation.navigation.eyes import Eye
from ssl_common.evaluation.navigation.gyms import INSTALL
from ssl_common.evaluation.navigation.options import PpoOptions
from ssl_common.evaluation.navigation.policies import DESIGNS, FRAMES, Policies, body
from ssl_common.evaluation.navigation.recipes import PPO, PpoRecipe
from ssl_common.evaluation.navigation.worlds import TRAINING, Seen, World
from ssl_common.models import states
from ssl_common.processes import Stopped
from ssl_common.progress import Conversation
from ssl_common.ranks import devices
from ssl_common.streams import DataError
from ssl_common.training import guards
from ssl_common.training.checkpoints import Run
from ssl_common.training.session import tell_again

LIMIT = 2**32  # of NumPy's seeds


# ---- Worlds side by side -------------------------------------------------------------------------


class Side:
    """WORLDS played side by side by RUN, which sees by EYE, from SEED on.

    `seen` are what it sees now, float32 N x 4C x h x w. An episode that is over gives way to the
    next at once. What was done in each since its episode began is all that it takes to be there
    again.
    """

    def __init__(self, opened: Sequence[World], eye: Eye, run: int, seed: int, device: Any) -> None:
        self.worlds, self.eye, self.run, self.seed = opened, eye, run, seed + run
        self.device = device
        self.done: list[list[int]] = [[] for _ in opened]
        self.episode = list(range(len(opened)))
        self.rewards, self.told = [0.0] * len(opened), list[tuple[float, bool | None]]()

    def begin(self) -> None:
        """Begin the first episode of each world."""
        frames = [[world.reset(self._seed(place)).frame] for place, world in enumerate(self.worlds)]
        self.stacks = [[each[-1]] * FRAMES for each in self._look(frames)]

    def again(self, there: Sequence[dict[str, Any]]) -> None:
        """Go to where the worlds were THERE, of where(): do again what was done."""
        frames = []
        for place, (world, each) in enumerate(zip(self.worlds, there, strict=True)):
            self.episode[place], self.done[place] = each["episode"], list(each["actions"])
            self.rewards[place] = 0.0
            seen = [world.reset(self._seed(place))]
            for action in self.done[place]:
                seen.append(world.step(action))
                self.rewards[place] += seen[-1].reward
                seen = seen[-FRAMES:]
            if seen[-1].ended:
                name = self.worlds[place].name
                raise DataError(f"{name}: does not repeat itself: this run cannot be resumed")
            frames.append([each.frame for each in seen])
        found = self._look(frames)
        self.stacks = [[*[each[0]] * FRAMES, *each][-FRAMES:] for each in found]

    def where(self) -> list[dict[str, Any]]:
        """Return where each world is, in plain values."""
        each = zip(self.episode, self.done, strict=True)
        return [{"episode": episode, "actions": list(done)} for episode, done in each]

    @property
    def seen(self) -> np.ndarray:
        """What is seen now: float32 N x 4C x h x w."""
        return np.stack([np.concatenate(stack) for stack in self.stacks])

    @property
    def begun(self) -> np.ndarray:
        """Which episodes have just begun, bool (N,)."""
        return np.array([not done for done in self.done])

    def step(self, actions: Sequence[int]) -> tuple[list[Seen], list[np.ndarray | None]]:
        """Do ACTIONS; return what the worlds show, and what is seen at the end of an episode."""
        for world, action in zip(self.worlds, actions, strict=True):
            world.ask_step(int(action))
        shown = [world.answer() for world in self.worlds]
        frames = [[seen.frame] for seen in shown]
        for place, (world, seen) in enumerate(zip(self.worlds, shown, strict=True)):
            self.rewards[place] += seen.reward
            self.done[place].append(int(actions[place]))
            if seen.ended:
                self.told.append((self.rewards[place], seen.success))
                self.episode[place] += len(self.worlds)
                self.rewards[place], self.done[place] = 0.0, []
                frames[place].append(world.reset(self._seed(place)).frame)
        last: list[np.ndarray | None] = []
        for place, found in enumerate(self._look(frames)):
            stack = [*self.stacks[place], found[0]][-FRAMES:]
            last.append(np.concatenate(stack) if shown[place].ended else None)
            self.stacks[place] = [found[1]] * FRAMES if shown[place].ended else stack
        return shown, last

    def _seed(self, place: int) -> int:
        return worlds.episode_seed(self.seed, TRAINING, self.episode[place])

    def _look(self, frames: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
        """Return what is seen of FRAMES, lists of them: C x h x w each."""
        flat = [torch.from_numpy(frame) for each in frames for frame in each]
        shown = torch.stack([self.eye.frame(frame) for frame in flat])
        found = list(self.eye(shown.to(self.device)).values())
        values = iter(found[min(self.run, len(found) - 1)].float().cpu().numpy())
        return [[next(values) for _frame in each] for each in frames]


def _environment(side: Side, actions: int, stopping: Any) -> Any:
    """Return SIDE as stable-baselines3 takes environments; STOPPING() is asked before each step."""
    from gymnasium import spaces
    from stable_baselines3.common.vec_env import VecEnv

    class Environment(VecEnv):
        def __init__(self) -> None:
            channels, height, width = side.eye.shape
            shape = (FRAMES * channels, height, width)
            seen = spaces.Box(-np.inf, np.inf, shape, np.float32)
            super().__init__(len(side.worlds), seen, spaces.Discrete(actions))

        def reset(self) -> np.ndarray:
            return side.seen

        def step_async(self, actions: np.ndarray) -> None:
            self.asked = actions

        def step_wait(self) -> Any:
            if stopping():
                raise Stopped(stopping())
            shown, last = side.step(self.asked.tolist())
            infos: list[dict[str, Any]] = []
            for seen, end in zip(shown, last, strict=True):
                ended = {"terminal_observation": end, "TimeLimit.truncated": seen.truncated}
                infos.append(ended if seen.ended else {})
            rewards = np.array([seen.reward for seen in shown], np.float32)
            return side.seen, rewards, np.array([seen.ended for seen in shown]), infos

        def close(self) -> None: ...

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [None] * self.num_envs

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None: ...

        def env_method(self, method_name: str, *args: Any, **more: Any) -> list[Any]:
            return [None] * self.num_envs

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * self.num_envs

    return Environment()


def learner(
    side: Side, actions: int, recipe: PpoRecipe, device: torch.device, stopping: Any
) -> Any:
    """Return stable-baselines3's PPO by RECIPE for SIDE, with policy() for so many ACTIONS.

    Its weights are drawn from torch's own generator.
    """
    from stable_baselines3 import PPO as Algorithm
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    design, shape = side.eye.design, side.eye.shape

    class Extractor(BaseFeaturesExtractor):
        def __init__(self, observation_space: Any) -> None:
            super().__init__(observation_space, DESIGNS[design].full[-1])
            self.body = body(design, shape)

        def forward(self, seen: torch.Tensor) -> torch.Tensor:
            return self.body(seen)

    made = Algorithm(
        "MlpPolicy",
        _environment(side, actions, stopping),
        learning_rate=recipe.lr,
        n_steps=recipe.steps,
        batch_size=max(2, recipe.steps * len(side.worlds) // recipe.minibatches),
        n_epochs=recipe.epochs,
        gamma=recipe.gamma,
        gae_lambda=recipe.gae_lambda,
        clip_range=recipe.clip,
        ent_coef=recipe.entropy,
        vf_coef=recipe.value_weight,
        max_grad_norm=recipe.max_gradient,
        device=device,
        policy_kwargs={
            "features_extractor_class": Extractor,
            "net_arch": [],
            "ortho_init": False,
            "normalize_images": False,
            "optimizer_kwargs": {"amsgrad": True},
        },
    )
    made.set_logger(Logger(None, []))
    return made


def policy_of(made: Any) -> nn.Sequential:
    """Return the policy of MADE, of learner(), as policies.policy() has it."""
    return nn.Sequential(*made.policy.features_extractor.body, made.policy.action_net)


# ---- Random numbers ------------------------------------------------------------------------------


@contextlib.contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Leave the global generators, from which stable-baselines3 draws, as they were before."""
    numpys = np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        np.random.set_state(numpys)


def _random_state() -> dict[str, Any]:
    _kind, keys, position, _has, _gauss = np.random.get_state()
    numbers = torch.from_numpy(np.asarray(keys).astype(np.int64))
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": gpus,
        "numpy": numbers,
        "position": int(position),
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    keys = state["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, state["position"], 0, 0.0))


# ---- The training --------------------------------------------------------------------------------


def train(
    model: str,
    layer: str | None,
    side: int | None,
    runs: int,
    options: PpoOptions,
    talk: Conversation,
    recipe: PpoRecipe = PPO,
) -> str:
    """Train policies of RUNS runs by PPO in the world of OPTIONS; return the last message.

    They see LAYER of MODEL, shown as SIDE pixels a side; see eyes.make(). A run is resumed from its
    last update. Raises DataError for bad input, Stopped for a signal.
    """
    _check_installed()
    device = torch.device(devices.choose(options.device, 1, False))
    recipe = _chosen(recipe, options)
    eye = eyes.make(model, layer, options.seed, runs, side)
    with worlds.several(options, options.worlds) as opened:
        for world in opened:
            world.ask_reset(0)
        for world in opened:
            world.answer()
        training = _Training(eye, opened, runs, options, recipe, device, talk)
        run = Run(options.output, training.settings, 0, "train-navigator", talk.say)
        if run.complete():
            return tell_again(run, talk.emit)
        with contextlib.closing(run), _own_random_numbers():
            run.open()
            training.go(run)
    seen = f"{eye.layer} of {model}" if eye.layer else model
    return f"{options.output}: {runs} runs of {training.frames:,} frames see {seen}"


def _check_installed() -> None:
    try:
        import stable_baselines3  # noqa: F401
    except ModuleNotFoundError as error:
        raise DataError(f"--method ppo needs {error.name}: {INSTALL}") from error


def _chosen(recipe: PpoRecipe, options: PpoOptions) -> PpoRecipe:
    from dataclasses import replace

    return replace(recipe, lr=options.lr or recipe.lr, frames=options.frames)


class _Training:
    """All runs of a train-navigator --method ppo, one after the other."""

    def __init__(
        self,
        eye: Eye,
        opened: Sequence[World],
        runs: int,
        options: PpoOptions,
        recipe: PpoRecipe,
        device: torch.device,
        talk: Conversation,
    ) -> None:
        self.eye, self.opened, self.runs, self.options = eye, opened, runs, options
        self.recipe, self.device, self.talk = recipe, device, talk
        self.actions = opened[0].actions
        self.each = recipe.steps * options.worlds  # frames between two updates
        self.updates = -(-recipe.frames // self.each)  # of a run
        self.frames = self.updates * self.each
        constants = {key: value for key, value in vars(recipe).items() if key not in ("lr",)}
        self.settings: dict[str, Any] = {
            "task": "navigation",
            "method": "ppo",
            "arch": eye.of_the_model["arch"],
            "model": eye.of_the_model["model"],
            "layer": eye.layer,
            "side": eye.side,
            "runs": runs,
            "seed": options.seed,
            "actions": len(self.actions),
            "world": options.identity(),
            "worlds": options.worlds,
            "max_steps": options.max_steps,
            "frames": self.frames,
            "lr": recipe.lr,
            "steps": self.updates * runs,
            "ppo": constants,
            "data_name": None,
        }
        shape, design, count = eye.shape, eye.design, len(self.actions)
        self.policies = Policies(design, shape, count, runs, options.seed)
        eye.to(device)

    def go(self, run: Run) -> None:
        """Train what is left, and write the navigator."""
        state = run.resume()
        step = state["step"] if state else 0
        self._tell_so_far(run, state)
        self._foretell(step)
        while step < self.updates * self.runs:
            number = step // self.updates
            side = Side(self.opened, self.eye, number, self.options.seed, self.device)
            try:
                step = self._one(run, side, number, step, state)
            except Stopped as error:
                run.stop(str(error))
                raise
            state = None
        if state:
            self._fill(state, run)
        network = {key: value.cpu() for key, value in self.policies.state_dict().items()}
        run.finish(finished(self.eye, network, self.actions))

    def _one(self, run: Run, side: Side, number: int, step: int, state: Any) -> int:
        """Train run NUMBER from STEP to its end, by STATE where it was begun; return the step."""
        torch.manual_seed(self.options.seed + number)
        np.random.seed((self.options.seed + number) % LIMIT)
        made = learner(side, len(self.actions), self.recipe, self.device, self.talk.stopping)
        if state:
            self._fill(state, run)
        if state and step % self.updates:
            path = run.resumed or run.folder
            with containers.understanding(path, "a checkpoint of this run"):
                names = [name for name in state["network"] if name.startswith("policy.")]
                own = {name.removeprefix("policy."): state["network"][name] for name in names}
                states.fill(made.policy, own, path, "this run")
                made.policy.optimizer.load_state_dict(state["optimizer"])
                side.again(state["random"]["worlds"])
                _set_random_state(state["random"])
        else:
            side.begin()
        made.num_timesteps = step % self.updates * self.each
        made._last_obs, made._last_episode_starts = side.seen, side.begun
        for update in range(step % self.updates, self.updates):
            began = time.monotonic()
            made.learn(self.each, reset_num_timesteps=False)
            guards.check_weights(made.policy, update + 1)
            step += 1
            self._log(run, side, number, update + 1, self.each / (time.monotonic() - began))
            if update + 1 == self.updates:
                self.policies.fill(number, policy_of(made))
            self._save(run, side, made, step)
            self.talk.progress(step, self.updates * self.runs, f"run {number + 1}")
            if self.talk.stopping() and step < self.updates * self.runs:
                raise Stopped(self.talk.stopping())
        return step

    def _fill(self, state: Any, run: Run) -> None:
        """Put the policies of the runs that are done, of STATE, in their place."""
        names = [name for name in state["network"] if name.startswith("done.")]
        done = {name.removeprefix("done."): state["network"][name] for name in names}
        states.fill(self.policies, done, run.resumed or run.folder, "this run")

    def _save(self, run: Run, side: Side, made: Any, step: int) -> None:
        network = {f"done.{key}": value for key, value in self.policies.state_dict().items()}
        network |= {f"policy.{key}": value for key, value in made.policy.state_dict().items()}
        run.save(
            step,
            {
                "network": network,
                "optimizer": made.policy.optimizer.state_dict(),
                "random": _random_state() | {"worlds": side.where()},
                "threads": torch.get_num_threads(),
                "position": list(divmod(step, self.updates)),
                "sums": torch.zeros(0, dtype=torch.float64),
                "lines": [],
                "unreadable": 0,
            },
        )

    def _tell_so_far(self, run: Run, state: Any) -> None:
        for line in list(run.log_lines()):
            self.talk.emit(line)
        if state is None:
            line = records.line(self.settings | records.provenance(run.command))
            run.append(line)
            self.talk.emit(line)

    def _log(self, run: Run, side: Side, number: int, update: int, pace: float) -> None:
        """Write what the episodes that ended since the last line were worth."""
        rewards = [reward for reward, _success in side.told]
        successes = [success for _reward, success in side.told if success is not None]
        record: dict[str, Any] = {
            "run": number,
            "frames": update * self.each,
            "episodes": len(rewards),
            "reward": float(np.mean(rewards)) if rewards else None,
            "success_rate": 100 * float(np.mean(successes)) if successes else None,
            "time_frames_per_second": round(pace, 1),
        }
        side.told.clear()
        line = records.line(record)
        run.append(line)
        self.talk.emit(line)

    def _foretell(self, step: int) -> None:
        """Say how long the rest takes, by what 64 frames take."""
        side = Side(self.opened, self.eye, 0, self.options.seed, self.device)
        side.begin()
        rounds = -(-eyes.MEASURED // len(self.opened))
        pace = worlds.Pace()
        for number in range(rounds):
            side.step([number % len(self.actions)] * len(self.opened))
        frames = (self.updates * self.runs - step) * self.each
        measured = pace.of(rounds * len(self.opened))
        self.talk.say(budget(f"{frames:,} frames, without the updates", frames, measured))
