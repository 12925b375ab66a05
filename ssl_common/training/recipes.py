"""The paper's training settings as data, and what a command line makes of them.

From the names and configurations of the authors' runs (protocol of pull request 24 and of the model
zoo): Jigsaw's of the ResNet-50 on ImageNet; Colorization's is Zhang et al.'s (ECCV 2016) with batch
and learning rate times 8.
"""

RECIPES = {
    "jigsaw": {
        "optimizer": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
        "decay_biases": True,
        "batch": 256,
        "lr": 0.1,  # at that batch
        # From this part of the steps on, that part of the rate: epochs 30, 60 and 80 of 90.
        "drops": [[30 / 90, 0.1], [60 / 90, 0.01], [80 / 90, 0.001]],
        "epochs": {"in1k": 90, "in22k": 90, "yfcc100m": 10},
    },
    "colorization": {
        "optimizer": "adam",
        "momentum": [0.9, 0.999],
        "weight_decay": 1e-3,
        "decay_biases": False,
        "batch": 640,
        "lr": 2.4e-4,
        "drops": [[240 / 450, 1 / 3], [300 / 450, 1 / 10], [400 / 450, 1 / 30]],
        "epochs": {"in1k": 28, "in22k": 84, "yfcc100m": 30},
    },
}
NAMES = ("in1k", "in22k", "yfcc100m")
WARM_UP = 5 / 90  # of the steps: 5 epochs of 90, as Goyal et al. (2017) warm up large batches

# ---- Linear classifiers on frozen layers (the authors' Places205 configurations) ----------------

_LINEAR = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 1e-4,
    "decay_biases": True,
    "bn_momentum": 0.1,  # the part of each batch, in torch's sense
    "bn_affine": False,
    "batch": 256,
    "lr": 0.01,
    "steps": 140_000,
    "drops": [[40 / 140, 0.1], [80 / 140, 0.01], [120 / 140, 0.001]],
    "warp": False,  # to a square of 256, before the crop; in testing too
    "crop": "random",  # "sized": of any size and shape; "center"
    "flip": True,
    "jitter": 0.0,  # of brightness, contrast and saturation
    "lighting": 0.0,  # standard deviation along the principal components of colour
}
# In the two configurations of Colorization the code spares all weights but batch norm's from decay.
_UNDECAYED = {"weight_decay": 0.0, "decay_biases": False}
_SLOW = {"nesterov": False, "weight_decay": 5e-4, "bn_momentum": 0.001, "crop": "center"}
LINEAR = {
    "resnet50": _LINEAR | {"crop": "sized", "jitter": 0.4, "lighting": 0.1},
    "resnet50-lab": _LINEAR | _UNDECAYED | {"bn_affine": True},
    "alexnet": _LINEAR | _SLOW | {"lighting": 0.1},
    "alexnet-lab": _LINEAR | _UNDECAYED,
    "caffenet": _LINEAR | _SLOW | {"warp": True},
}


def resolve(pretext, recipe, images, **given):
    """Return the settings of PRETEXT by RECIPE for so many IMAGES; what is GIVEN wins over it.

    That may be batch, the global one; lr, the rate at it; iterations, which are steps, or epochs.
    "drops" are [part of the steps, part of the rate from there on], "warm_up" is [part of the
    steps, part of the rate it begins with]: the one the paper's batch has, where batch is larger.
    """
    chosen = RECIPES[pretext]
    return _resolved(chosen | {"epochs": chosen["epochs"][recipe]}, recipe, images, **given)


def resolve_linear(recipe, images, **given):
    """Return the settings of linear classifiers by RECIPE, as resolve() does."""
    return _resolved(LINEAR[recipe], recipe, images, **given)


def _resolved(chosen, recipe, images, batch=None, lr=None, epochs=None, iterations=None):
    usual = chosen["batch"]
    batch = batch or usual
    every = images // batch  # steps an epoch
    iterations = iterations or (None if epochs else chosen.get("steps"))
    epochs = iterations / every if iterations else epochs or chosen["epochs"]
    return chosen | {
        "recipe": recipe,
        "batch": batch,
        "lr": lr or chosen["lr"] * batch / usual,
        "warm_up": [WARM_UP, usual / batch] if batch > usual else [0, 1],
        "epochs": epochs,
        "steps": iterations or epochs * every,
    }
