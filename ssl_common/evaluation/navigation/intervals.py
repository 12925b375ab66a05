"""How sure the mean of a few runs is: Agarwal et al. (NeurIPS 2021), as their rliable does."""

import numpy as np
from numpy.typing import ArrayLike

RESAMPLED = 10_000  # times
LEVEL = 95  # percent


def interquartile_mean(scores: ArrayLike) -> np.ndarray:
    """Return the mean of SCORES (..., N) without the lowest and the highest quarter, rounded down.

    (...). NaN, of a run that has no score, is left out before; NaN where nothing is left.
    """
    ordered = np.sort(np.asarray(scores, np.float64), axis=-1)  # NaN comes last
    known = (~np.isnan(ordered)).sum(-1, keepdims=True)
    cut = known // 4
    place = np.arange(ordered.shape[-1])
    kept = (place >= cut) & (place < known - cut)
    with np.errstate(invalid="ignore"):
        return np.where(kept, ordered, 0).sum(-1) / kept.sum(-1)


def interval(scores: ArrayLike, seed: int) -> list[float] | None:
    """Return [low, high]: 95% of the interquartile means of SCORES (N,) where runs are resampled.

    By the percentiles of as many draws, with repetition, of SEED; None for fewer than two runs.
    """
    runs = np.asarray(scores, np.float64)
    runs = runs[~np.isnan(runs)]
    if len(runs) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(0, len(runs), (RESAMPLED, len(runs)))
    edge = (100 - LEVEL) / 2
    low, high = np.percentile(interquartile_mean(runs[drawn]), [edge, 100 - edge])
    return [float(low), float(high)]
