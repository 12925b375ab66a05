"""A ceiling for the pretexts: an AlexNet trained on the labels, as long and on as many pixels.

    supervised.py MANIFEST MODEL.pt BATCH EPOCHS SEED [fp32|bf16]

Jigsaw's recipe, rates and steps; a picture is one crop of 192 x 192, as many pixels as nine tiles
of 64 x 64, of any part of it, mirrored or not. The loss is binary cross-entropy; a class that is
difficult in a picture does not count there. The file is one of pretrain's, for extract-features.
"""

import sys

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ssl_common import cli
from ssl_common.data.augmentation import sized_crop
from ssl_common.data.pixels import standardize
from ssl_common.objective import Objective, Score
from ssl_common.pretext.recipes import RECIPES
from ssl_common.training.plan import TrainingOptions
from ssl_common.training.pretraining import Pretraining
from ssl_common.training.session import Session

SIDE = 192


class Supervised(Objective):
    """To name the classes of a picture; TRUTH (N, C) is 1, 0, or NaN where it does not count."""

    name, reads, draws = "supervised", "rgb", 51

    def __init__(self, truth):
        self.truth = torch.from_numpy(truth)

    def settings(self):
        return {"pretext": self.name}

    def arrays(self):
        return {}

    def network(self, trunk):
        layers = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(1024, 1024),
                               nn.BatchNorm1d(1024), nn.ReLU(),
                               nn.Linear(1024, self.truth.shape[1]))  # fmt: skip
        return nn.ModuleDict({"trunk": trunk, "classify": layers})

    def crop(self, image, numbers):
        return sized_crop(image, SIDE, numbers[:50].reshape(-1, 5))

    def score(self, network, batch, draws, lines):
        pixels = batch.permute(0, 3, 1, 2)
        mirrored = torch.from_numpy(draws[:, 50] < 0.5).view(-1, 1, 1, 1)
        pixels = standardize(torch.where(mirrored, pixels.flip(3), pixels))
        module = getattr(network, "module", network)
        logits = module["classify"](module["trunk"](pixels)).float()
        truth = self.truth[lines]
        counts = ~torch.isnan(truth)
        loss = binary_cross_entropy_with_logits(logits[counts], truth[counts], reduction="sum")
        right = ((logits > 0) == (truth > 0.5))[counts].sum()
        return Score(loss, counts.sum().float(), {"accuracy": (right, int(counts.sum()))})


def main(manifest, output, batch, epochs, seed, precision="fp32"):
    options = TrainingOptions(output, batch=int(batch), epochs=int(epochs), seed=int(seed),
                              precision=precision, workers=1)  # fmt: skip
    with cli.conversation("steps", patient=False) as talk:
        session = Session("pretrain", options, manifest, [None], talk)
        plan = session.plan(RECIPES["jigsaw", "in1k"], "in1k")
        rows = list(session.images)
        classes = sorted({label for row in rows for label in row.labels})
        truth = np.array([[np.nan if c in row.difficult else c in row.labels for c in classes]
                          for row in rows], np.float32)  # fmt: skip
        work = Pretraining(Supervised(truth), "alexnet", session.images, plan, ".")
        cli.say(session.run(plan, work))


if __name__ == "__main__":
    main(*sys.argv[1:])
