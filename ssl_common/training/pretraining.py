"""Pre-training of a trunk by a pretext task, on images without labels."""

import dataclasses
from typing import Any

import torch
from torch import nn

from ssl_common.data.datasets import RandomCrops
from ssl_common.data.manifest import Manifest
from ssl_common.models import networks, registry, states
from ssl_common.pretext.colorization import Colorization
from ssl_common.pretext.jigsaw import Jigsaw
from ssl_common.pretext.pretext import Pretext
from ssl_common.pretext.recipes import RECIPES
from ssl_common.progress import Conversation
from ssl_common.streams import DataError
from ssl_common.training.plan import Plan, PretrainOptions
from ssl_common.training.session import Session, Work

PRETEXTS: dict[str, type[Pretext]] = {"jigsaw": Jigsaw, "colorization": Colorization}


def pretrain(
    pretext: str,
    manifest: str,
    arch: str,
    recipe: str,
    pretext_options: Any,
    options: PretrainOptions,
    talk: Conversation,
) -> str | None:
    """Pre-train ARCH by PRETEXT on MANIFEST; return the last message of the command.

    It is None where another rank says it. RECIPE is one of pretext.recipes.NAMES; PRETEXT_OPTIONS
    are of the class that pretext.options has for PRETEXT. Raises DataError for bad input, Stopped
    where a signal stopped it.
    """
    kind = PRETEXTS[pretext]
    if arch not in (known := registry.trainable()):
        raise DataError(f"--arch {arch}: choose from {', '.join(known)}")
    session = Session("pretrain", options, manifest, [kind.file(pretext_options)], talk)
    plan = session.plan(RECIPES[pretext, recipe], recipe)
    plan = dataclasses.replace(plan, window=options.shuffle_window or 0)
    objective = kind.load(pretext_options)
    return session.run(plan, Pretraining(objective, arch, session.images, plan, options.root))


class Pretraining(Work):
    """The Work of pretrain: OBJECTIVE, a pretext, of ARCH on IMAGES, below ROOT, by PLAN."""

    objective: Pretext

    def __init__(
        self, objective: Pretext, arch: str, images: Manifest, plan: Plan, root: str
    ) -> None:
        self.objective, self.arch, self.images = objective, arch, images
        self.plan, self.root = plan, root
        self.settings: dict[str, Any] = {"pretext": objective.name, "reads": objective.reads}
        self.settings |= {"arch": arch} | objective.settings()

    def network(self) -> nn.Module:
        self.trunk = registry.build(self.arch, self.plan.seed, self.objective.reads)
        with registry.seeded(self.plan.seed):
            return self.objective.network(self.trunk)

    def dataset(
        self, folder: str, device: torch.device, workers: int, stopping: Any
    ) -> tuple[RandomCrops, int]:
        return RandomCrops(self.images, self.root, self.objective, self.plan.seed), workers

    def finished(self, state: dict[str, torch.Tensor]) -> dict[str, Any]:
        trunk = {key: state[f"trunk.{key}"] for key in self.trunk.state_dict()}
        head = {key: value for key, value in state.items() if not key.startswith("trunk.")}
        return {"trunk": trunk, "head": head, **self.objective.arrays()}


def load(path: str, kind: str) -> tuple[nn.Module, Pretext]:
    """Return (network in eval mode, pretext) of the finished network PATH, trained by KIND.

    Raises DataError for a file that is not a finished network of the pretext task KIND.
    """
    content = networks.load_network(path)
    settings, state = content["settings"], content["trunk"]
    if settings.get("pretext") != kind:
        raise DataError(f"{path}: trained by {settings.get('pretext')}, not by {kind}")
    if not content["head"] or settings["arch"] not in registry.trainable():
        raise DataError(f"{path}: not a finished network of pretrain {kind}")
    pretext = PRETEXTS[kind].restore(content)
    network = pretext.network(registry.build(settings["arch"], 0, pretext.reads))
    state = {f"trunk.{key}": value for key, value in state.items()}
    states.fill(network, state | content["head"], path, f"pretrain {kind}")
    return network.eval(), pretext
