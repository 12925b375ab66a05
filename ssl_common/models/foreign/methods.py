"""Which method of pre-training wrote a checkpoint, by the names in it, and which network is meant.

A checkpoint often holds two networks, of which the method names one for later use: MoCo that of the
queries, DINO the teacher. Names are those of the authors' own code, of solo-learn and of lightly.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch

from ssl_common.models.foreign import naming


class Method(NamedTuple):
    """A method, what it is called as a pretext, and how its checkpoints are known.

    NEEDS are patterns of bare names of which each is met by some, none of LACKS by any. `network`
    is the end of what stands before the names of the network that is meant.
    """

    pretext: str
    needs: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    network: str = ""


def _start(*names: str) -> tuple[str, ...]:
    return tuple(rf"(.*\.)?{name}\..*" for name in names)


METHODS = (
    Method(
        "ibot", _start("teacher.backbone", "student.backbone", "ibot_loss"), (), "teacher.backbone"
    ),
    Method("dino", _start("teacher.backbone", "student.backbone"), (), "teacher.backbone"),
    Method("dino", _start("teacher.backbone", "dino_loss"), (), "teacher.backbone"),
    Method("moco-v3", _start("base_encoder", "momentum_encoder"), (), "base_encoder"),
    Method("moco-v2", (*_start(r"encoder_q\.fc\.2"), r"(.*\.)?queue(_ptr)?"), (), "encoder_q"),
    Method("moco-v2", _start(r"encoder_q\.fc\.2", "encoder_k"), (), "encoder_q"),
    Method("moco", (*_start("encoder_q"), r"(.*\.)?queue(_ptr)?"), (), "encoder_q"),
    Method("moco", _start("encoder_q", "encoder_k"), (), "encoder_q"),
    Method("swav", _start("projection_head", r"prototypes(\.prototypes\d)?")),
    # lightly's examples
    Method(
        "byol", _start("backbone", "backbone_momentum", "prediction_head"), ("student.*",),
        "backbone",
    ),
    Method("moco", _start("backbone", "backbone_momentum", "projection_head"), (), "backbone"),
    # lucidrains' and others' BYOL
    Method("byol", _start("online_encoder", "target_encoder", "online_predictor"), (),
           "online_encoder.net"),
    Method("byol", _start("online_network_state_dict", "target_network_state_dict"), (),
           "online_network_state_dict.encoder"),
    Method("byol", _start("online_net", "target_net", "head"), (), "online_net.0"),
    Method(
        "barlow-twins",
        (*_start("backbone", "projector"), r"(.*\.)?(?<!projector\.)bn\.running_mean"),
        _start("momentum_backbone"), "backbone",
    ),
)  # fmt: skip
# solo-learn writes the name of the method into the settings of a Lightning checkpoint.
SOLO = re.compile(r"hyper_parameters\.(cfg\.)?(_content\.)?method(\._content\._val|\._val)?")
SOLO_NAMES = {
    "barlow_twins": "barlow-twins", "mocov2plus": "moco-v2", "mocov3": "moco-v3",
    "deepclusterv2": "deepcluster-v2",
}  # fmt: skip


def method(values: Mapping[str, Any]) -> tuple[Method | None, bool]:
    """Return (the method that wrote VALUES, {whole name: value}, whether they say so themselves).

    (None, False) where none is known.
    """
    said = next((v for n, v in values.items() if isinstance(v, str) and SOLO.fullmatch(n)), None)
    names = {naming.bare(name) for name, value in values.items() if _weighs(value)}
    if said and any(".backbone." in f".{name}" for name in names):
        return Method(SOLO_NAMES.get(said, said.replace("_", "-")), (), (), "backbone"), True
    for each in METHODS:
        if _any_each(each.needs, names) and not any(_met(lack, names) for lack in each.lacks):
            return each, False
    if _is_vicreg(names):
        return Method("vicreg", (), (), "backbone"), False
    return None, False


def _weighs(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _any_each(needs: Iterable[str], names: Iterable[str]) -> bool:
    return all(_met(need, names) for need in needs)


def _met(pattern: str, names: Iterable[str]) -> bool:
    return any(map(re.compile(pattern).fullmatch, names))


def _is_vicreg(names: set[str]) -> bool:
    """Tell whether NAMES are a backbone, an expander called projector, and an optimizer's at most.

    In a dict called model, as VICReg's own code saves them; it has no other network beside.
    """
    inside = {name.removeprefix("model.").partition(".")[0] for name in names if "model." in name}
    weights = {name.partition(".")[0] for name in names} - {"optimizer"}
    return weights == {"model"} and inside == {"backbone", "projector"}
