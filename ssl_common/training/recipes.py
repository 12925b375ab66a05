"""The paper's training settings as data, and what a command line makes of them.

From the names and configurations of the authors' runs (protocol of pull request 24 and of the model
zoo): Jigsaw's of the ResNet-50 on ImageNet; Colorization's is Zhang et al.'s (ECCV 2016) with batch
and learning rate times 8.
"""

RECIPES = {
    "jigsaw": {
        "optimizer": "sgd",
        "momentum": 0.9,  # Nesterov's
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


def resolve(pretext, recipe, images, batch=None, lr=None, epochs=None, iterations=None):
    """Return the settings of PRETEXT by RECIPE for so many IMAGES; what is given wins over it.

    BATCH is the global one, LR the rate at it; ITERATIONS are steps, instead of EPOCHS. "drops" are
    [part of the steps, part of the rate from there on], "warm_up" is [part of the steps, part of
    the rate it begins with]: the one the paper's batch has, where BATCH is larger.
    """
    settings = dict(RECIPES[pretext])
    usual = settings["batch"]
    batch = batch or usual
    every = images // batch  # steps an epoch
    epochs = epochs or settings["epochs"][recipe]
    steps = iterations or epochs * every
    if iterations:
        epochs = iterations / every
    return settings | {
        "recipe": recipe,
        "batch": batch,
        "lr": lr or settings["lr"] * batch / usual,
        "warm_up": [WARM_UP, usual / batch] if batch > usual else [0, 1],
        "epochs": epochs,
        "steps": steps,
    }
