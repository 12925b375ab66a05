"""How the paper trains by each pretext.

From the names and configurations of the authors' runs (their benchmark's pull request 24 and model
zoo): Jigsaw's of the ResNet-50 on ImageNet; Colorization's is Zhang et al.'s (ECCV 2016) with batch
and learning rate times 8.
"""

from dataclasses import replace

from ssl_common.recipe import Recipe

JIGSAW = Recipe(
    optimizer="sgd",
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-4,
    decay_biases=True,
    batch=256,
    lr=0.1,
    drops=[[30 / 90, 0.1], [60 / 90, 0.01], [80 / 90, 0.001]],  # epochs 30, 60 and 80 of 90
)
COLORIZATION = Recipe(
    optimizer="adam",
    momentum=[0.9, 0.999],
    weight_decay=1e-3,
    decay_biases=False,
    batch=640,
    lr=2.4e-4,
    drops=[[240 / 450, 1 / 3], [300 / 450, 1 / 10], [400 / 450, 1 / 30]],
)
NAMES = ("in1k", "in22k", "yfcc100m")
EPOCHS = {"jigsaw": (90, 90, 10), "colorization": (28, 84, 30)}
RECIPES = {
    (pretext, name): replace(recipe, epochs=epochs)
    for pretext, recipe in (("jigsaw", JIGSAW), ("colorization", COLORIZATION))
    for name, epochs in zip(NAMES, EPOCHS[pretext], strict=True)
}
