"""How policies are trained: by cloning an expert, and by PPO as in the paper's stack."""

from dataclasses import dataclass

from ssl_common.recipe import Recipe

# Ours: the paper has no cloning.
CLONING = Recipe(
    optimizer="adam",
    momentum=[0.9, 0.999],
    weight_decay=0.0,
    decay_biases=True,
    batch=64,
    lr=3e-4,
    drops=[[0.8, 0.1]],
    epochs=10,
)


@dataclass(frozen=True)
class PpoRecipe:
    """The constants of midlevel-reps' PPO, without its replay."""

    lr: float = 1e-4  # of Adam, amsgrad
    clip: float = 0.1
    entropy: float = 1e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    value_weight: float = 1e-3
    max_gradient: float = 0.5
    steps: int = 512  # of each world, between two updates
    minibatches: int = 8
    epochs: int = 8
    frames: int = 400_000


PPO = PpoRecipe()
