"""What solves the SVMs: the interface that cross-validation sees of every solver."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from ssl_common import stored
from ssl_common.stored import Stored

BLOCK = 1024  # rows normalised at a time
FOLDS = 3

Item = TypeVar("Item")
Result = TypeVar("Result")
# Is called with the costs of the fits that are done, in any thread.
Advance = Callable[[np.ndarray], None]


def scaled_blocks(
    features: np.ndarray | Stored, refusal: Callable[[int], Exception]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows of FEATURES (N, D), float64, and 1 / (||x|| + 1e-5) of each, a block at a time.

    Raises what REFUSAL(row, from 0) returns for the first row that holds NaN or infinity.
    """
    for part, rows in stored.blocks(features, BLOCK):
        rows = rows.astype(np.float64, order="C")
        norms = np.linalg.norm(rows, axis=1)
        bad = np.flatnonzero(~np.isfinite(norms))
        if len(bad):
            raise refusal(part.start + int(bad[0]))
        yield rows, 1 / (norms + 1e-5)


class ScaledFeatures(Protocol):
    """Features of N images, and what makes their rows about 1 long, as the SVMs take them."""

    @property
    def features(self) -> np.ndarray | Stored:
        """Return the features as they are, (N, D), of any real type."""

    def scale(self) -> np.ndarray:
        """Return 1 / (||x|| + 1e-5) of each row x, (N,) float64."""

    def normalised(self) -> Iterator[np.ndarray]:
        """Yield the rows times their scale, float64, BLOCK rows at a time."""


class Solutions(NamedTuple):
    """The SVMs of P problems on N rows, each at its cost."""

    scores: np.ndarray  # (P, N) float64: the decision values of all rows
    squared_norms: np.ndarray  # (P,) float64: |w|^2, the bias included
    unconverged: int  # of the P, how many stopped too early


class Backend(Protocol):
    """Solves problems on N rows of D features; all of them have the same rows.

    A problem is a row of SIGNS, int8 (N,): 1 for a positive, -1 for a negative, 0 for a row that
    takes no part; and a cost, C. Its SVM has the squared hinge loss, in which a positive counts
    twice; its weights are penalised, the bias among them.
    """

    @property
    def block(self) -> int:
        """How many classes to cross-validate in one call of `path`."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield FUNCTION(item) for each of ITEMS, in their order; some may be worked on at once."""

    def path(self, signs: np.ndarray, costs: np.ndarray, advance: Advance) -> Iterator[Solutions]:
        """Yield the Solutions of SIGNS (P, N) at each of COSTS (K,), which ascend.

        Those at one cost may start from those at the cost before. The arrays may be written over
        when the next Solutions are asked for.
        """

    def fit(self, signs: np.ndarray, costs: np.ndarray, advance: Advance) -> tuple[np.ndarray, int]:
        """Return (weights, unconverged) of SIGNS (P, N) at COSTS (P,), one for each problem.

        Weights are float64 (P, D + 1), the bias last.
        """
