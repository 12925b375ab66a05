"""Checkpoints of other methods: the one that wrote them, and which of their networks is meant.

The names are those of the authors' own code, without its numbers: of ResNet-50 as few as tell it.
"""

import argparse

import numpy as np
import pytest
import torch

from ssl_common.models.foreign import inspection, weights
from ssl_common.streams import DataError

ONE = torch.ones(1)
RESNET = {
    "conv1.weight": torch.ones(64, 3, 7, 7), "bn1.weight": torch.ones(64),
    "layer1.0.conv3.weight": ONE, "layer4.2.conv3.weight": ONE,
}  # fmt: skip
NUMBERED = {"0.weight": torch.ones(64, 3, 7, 7), "4.0.conv3.weight": ONE, "7.2.conv3.weight": ONE}
MLP = {"0.weight": ONE, "2.weight": ONE}


def under(prefix, names=RESNET):
    return {f"{prefix}.{name}": value for name, value in names.items()}


def parallel(*parts):
    """Return PARTS in one dict, by the names that DistributedDataParallel gives them."""
    return {f"module.{name}": value for part in parts for name, value in part.items()}


ARGS = argparse.Namespace(arch="resnet50", lr=0.03)
QUEUE = {"queue": ONE, "queue_ptr": torch.zeros(1).long()}
BATCH_NORM = {"running_mean": ONE, "running_var": ONE, "num_batches_tracked": torch.tensor(3)}
CHECKPOINTS = {
    # what stands in the file -> the method, and what stands before the names of its network
    "MoCo v1": (
        {"epoch": 200, "arch": "resnet50", "state_dict": parallel(
            under("encoder_q"), {"encoder_q.fc.weight": ONE}, under("encoder_k"), QUEUE)},
        "moco", "state_dict.module.encoder_q.",
    ),
    "MoCo v2": (
        {"state_dict": parallel(
            under("encoder_q"), under("encoder_q.fc", MLP), under("encoder_k"), QUEUE)},
        "moco-v2", "state_dict.module.encoder_q.",
    ),
    "MoCo v3": (
        {"state_dict": parallel(
            under("base_encoder"), under("momentum_encoder"), under("predictor", MLP))},
        "moco-v3", "state_dict.module.base_encoder.",
    ),
    "SwAV": (
        parallel(RESNET, under("projection_head", MLP), {"prototypes.weight": ONE}),
        "swav", "module.",
    ),
    "DINO": (
        {"student": parallel(under("backbone"), under("head.mlp", MLP)),
         "teacher": under("backbone") | under("head.mlp", MLP),
         "args": ARGS, "dino_loss": {"center": ONE}, "epoch": np.int64(100)},
        "dino", "teacher.backbone.",
    ),
    "Barlow Twins": (
        {"epoch": 3, "model": parallel(
            under("backbone"), under("projector", MLP), under("bn", BATCH_NORM))},
        "barlow-twins", "model.module.backbone.",
    ),
    "VICReg": (
        {"epoch": 3, "model": parallel(under("backbone"), under("projector", MLP)),
         "optimizer": {"state": {}, "param_groups": [{"lr": 0.3}]}},
        "vicreg", "model.module.backbone.",
    ),
    "BYOL, of lucidrains": (
        under("net") | under("online_encoder.net") | under("online_encoder.projector", MLP)
        | under("target_encoder.net") | under("online_predictor.net", MLP),
        "byol", "online_encoder.net.",
    ),
    "BYOL, of lightly": (
        {"state_dict": under("backbone", NUMBERED) | under("backbone_momentum", NUMBERED)
         | under("projection_head", MLP) | under("prediction_head", MLP)},
        "byol", "state_dict.backbone.",
    ),
    "solo-learn": (
        {"epoch": 999, "global_step": 9, "pytorch-lightning_version": "1.5.1",
         "state_dict": under("backbone") | under("momentum_backbone") | under("projector", MLP)
         | {"classifier.weight": ONE},
         "hyper_parameters": {"method": "mocov2plus", "lr": np.float64(0.3)}},
        "moco-v2", "state_dict.backbone.",
    ),
    "Lightning, compiled": (
        {"pytorch-lightning_version": "2.4.0",
         "state_dict": {f"model._orig_mod.{name}": value for name, value in RESNET.items()}},
        None, "state_dict.model._orig_mod.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_the_method_and_its_network_are_told_by_the_names(tmp_path, kind, old):
    content, pretext, prefix = CHECKPOINTS[kind]
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
    found = weights.read(str(tmp_path / "w.pth"))
    assert (found.network.pretext, found.prefix) == (pretext, prefix)
    assert found.network.arch == "resnet50"
    # solo-learn's settings name the method; elsewhere it is inferred.
    assert found.network.certain == (kind == "solo-learn")
    lines = list(inspection.lines(found))
    assert f"prefix\t{prefix}" in lines and f"pretext\t{pretext or 'unknown'}" in lines
    assert ("inferred\tpretext" in lines) == (pretext is not None and kind != "solo-learn")


def test_another_network_of_them_can_be_chosen(tmp_path):
    torch.save(CHECKPOINTS["DINO"][0], tmp_path / "w.pth")
    found = weights.read(str(tmp_path / "w.pth"), prefix="student.module.backbone")
    assert found.prefix == "student.module.backbone."


def test_two_networks_of_no_known_method_are_the_users_choice(tmp_path):
    torch.save(under("a") | under("b"), tmp_path / "w.pth")
    with pytest.raises(DataError, match="2 networks, a and b: choose by --prefix"):
        weights.read(str(tmp_path / "w.pth"))


def test_a_backbone_with_another_head_is_of_no_known_method(tmp_path):
    torch.save({"model": under("backbone") | {"head.weight": ONE}}, tmp_path / "w.pth")
    assert weights.read(str(tmp_path / "w.pth")).network.pretext is None


REMEDIES = {
    "a transformer": (
        {"blocks.0.attn.qkv.weight": ONE, "patch_embed.proj.weight": torch.ones(384, 3, 16, 16)},
        "extract-features takes it as timm:vit_small_patch16_224:FILE",
    ),
    "transformers": (
        {"vit.embeddings.patch_embeddings.projection.weight": torch.ones(2, 3, 16, 16)},
        "by the names of transformers: save it by those of timm",
    ),
    "ResNet-18": (
        {"layer1.0.conv2.weight": ONE, "layer4.0.conv1.weight": ONE},
        "another ResNet: extract-features takes it as torchvision:resnet18:FILE or so",
    ),
    "anything": ({"a": ONE}, "other networks as torchvision:ARCH:FILE or timm:NAME:FILE"),
}


@pytest.mark.parametrize("kind", REMEDIES)
def test_what_cannot_be_read_is_named_with_its_remedy(tmp_path, kind):
    content, message = REMEDIES[kind]
    torch.save({"model": content, "args": ARGS}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=message) as caught:
        weights.read(str(tmp_path / "w.pth")).trunk()
    lines = list(inspection.lines(weights.read(str(tmp_path / "w.pth"))))
    assert [line for line in lines if line.startswith("remedy\t") and message in line]
    assert str(caught.value).startswith(f"{tmp_path}/w.pth: no network known here, its weights ar")
