"""Options: which world, and those of train-navigator by its method."""

import contextlib
import json
import shlex
import sys
from dataclasses import dataclass
from typing import Any

from ssl_common import containers, streams
from ssl_common.options import OptionError, option, shared
from ssl_common.training.plan import TrainingOptions


@dataclass(frozen=True)
class WorldOptions:
    """The options that say which world, and when an episode is over."""

    env: str | None = option(
        "Environment of gymnasium, imported from MODULE; or my-way-home, of ViZDoom.",
        metavar="MODULE:ID",
    )
    env_args: Any = shared("env-arg")
    obs_key: str | None = option("Observation that is the frame, of a dict.", metavar="KEY")
    env_command: str | None = option(
        "Program that is the world, instead: it reads actions and writes frames.", metavar="CMD"
    )
    max_steps: int = option(
        "Steps after which an episode is cut off.", 400, least=1, most=1_000_000, metavar="N"
    )

    def check(self) -> None:
        """Raise OptionError unless exactly one world is named."""
        if bool(self.env) == bool(self.env_command):
            raise OptionError("give --env or --env-command, one of them")
        if self.env_command and (self.env_args or self.obs_key):
            raise OptionError("--env-arg, --obs-key: they are of --env")
        if self.env_command:
            try:
                words = shlex.split(self.env_command)
            except ValueError as error:
                raise OptionError(f"--env-command: {error}") from error
            if not words:
                raise OptionError("--env-command: no program is named")

    @property
    def name(self) -> str:
        """What records call the world: the name of its environment, or its command."""
        return str(self.env).rpartition(":")[2] if self.env else str(self.env_command)

    def identity(self) -> str:
        """Return the digest of all that says which world it is."""
        said: list[Any] = [self.env, sorted(dict(self.env_args or {}).items()), self.obs_key]
        said += [self.env_command, self.max_steps]
        return streams.digest(json.dumps(said).encode())

    def argv(self) -> list[str]:
        """Return the command line of its process."""
        if self.env_command:
            return shlex.split(self.env_command)
        arguments = {key: _value(text) for key, text in dict(self.env_args or {}).items()}
        spec = {"env": self.env, "args": arguments, "obs_key": self.obs_key}
        module = "ssl_common.evaluation.navigation.gyms"
        return [sys.executable, "-P", "-m", module, json.dumps(spec)]


def _value(text: str) -> Any:
    """Return what an argument TEXT says: as JSON, or else the text."""
    with contextlib.suppress(ValueError):
        return containers.parse(text)
    return text


@dataclass(frozen=True)
class CloningOptions(TrainingOptions):
    """Those of cloning: of every training."""


@dataclass(frozen=True)
class PpoOptions(WorldOptions):
    """Those of PPO: a world, and how long."""

    output: str = option(
        "Network to write when all steps are done.",
        names=("-o", "--output"),
        metavar="MODEL.pt",
        required=True,
    )
    frames: int = option(
        "Frames that a run sees, over all its worlds.",
        400_000, least=1, most=10**9, metavar="N",
    )  # fmt: skip
    worlds: int = option("Worlds that play side by side.", 4, least=1, most=1000, metavar="N")
    lr: float | None = option(
        "Learning rate at that batch.",
        most=1e6,
        usual="the recipe's, in proportion to the batch",
        metavar="RATE",
    )
    device: str | None = shared("device")
    seed: int = shared("seed", 0)


METHODS = {"cloning": CloningOptions, "ppo": PpoOptions}
