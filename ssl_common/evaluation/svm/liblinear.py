"""The reference: LIBLINEAR as scikit-learn has it, one problem after another, side by side."""

import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ssl_common.crew import side_by_side
from ssl_common.evaluation.svm.backend import Advance, Item, Result, Solutions

MAX_ITERATIONS = 2000
POSITIVE_WEIGHT = 2


class Liblinear:
    """A Backend that is LIBLINEAR, one problem after another in each of some processes."""

    block = 80  # classes cross-validated together

    def __init__(self, rows: np.ndarray, seed: int, workers: int) -> None:
        """Take ROWS (N, D) float64, as Examples.normalised() yields them, and so many WORKERS.

        Fewer rows than features become coordinates of the space they span: N coordinates and a
        basis (D, N). The solver sees only inner products, so this loses nothing but rounding.
        """
        self.rows = rows
        self.basis: np.ndarray | None = None
        self.state = int(np.random.default_rng(seed).integers(2**32))  # scikit-learn takes 32 bits
        self.workers = 0 if workers == 1 else workers
        if rows.shape[0] < rows.shape[1]:
            self.basis, coordinates = np.linalg.qr(rows.T)
            self.rows = np.ascontiguousarray(coordinates.T)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        return map(function, items)

    def path(self, signs: np.ndarray, costs: np.ndarray, advance: Advance) -> Iterator[Solutions]:
        for cost in costs:
            weights, unconverged = self._solve(signs, np.full(len(signs), cost), advance)
            scores = weights[:, :-1] @ self.rows.T + weights[:, -1:]
            yield Solutions(scores, (weights**2).sum(axis=1), unconverged)

    def fit(self, signs: np.ndarray, costs: np.ndarray, advance: Advance) -> tuple[np.ndarray, int]:
        weights, unconverged = self._solve(signs, costs, advance)
        if self.basis is None:
            return weights, unconverged
        return np.column_stack([weights[:, :-1] @ self.basis.T, weights[:, -1]]), unconverged

    def _solve(
        self, signs: np.ndarray, costs: np.ndarray, advance: Advance
    ) -> tuple[np.ndarray, int]:
        """Return fit()'s answer for the rows as they are held."""
        import sklearn.svm  # noqa: F401  # before there are processes: each would take a second

        weights = np.empty((len(signs), self.rows.shape[1] + 1))
        unconverged = 0
        # Processes, as liblinear draws from one global generator.
        work = functools.partial(_fit_one, self.rows, self.state)
        solutions = side_by_side(work, zip(signs, costs, strict=True), self.workers)
        for index, (solution, converged) in enumerate(solutions):
            weights[index] = solution
            unconverged += not converged
            advance(costs[index : index + 1])
        return weights, unconverged


def _fit_one(
    rows: np.ndarray, state: int, problem: tuple[np.ndarray, float]
) -> tuple[np.ndarray, bool]:
    signs, cost = problem
    return fit(rows, signs, cost, state)


def fit(rows: np.ndarray, signs: np.ndarray, cost: float, state: int) -> tuple[np.ndarray, bool]:
    """Return the weights (D + 1,) of one problem and whether the solver converged.

    A row of sign 0 takes no part; STATE seeds the order in which the rows are visited.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC
    from threadpoolctl import threadpool_limits

    svm = LinearSVC(
        C=cost,
        class_weight={1: POSITIVE_WEIGHT, -1: 1},
        dual=True,
        max_iter=MAX_ITERATIONS,
        random_state=state,
    )  # squared hinge, l2, tolerance 1e-4 and intercept scaling 1 are its defaults
    part = np.flatnonzero(signs)
    rows = rows if len(part) == len(rows) else rows[part]
    # One thread: the order of a sum would otherwise depend on the number of workers.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead
        svm.fit(rows, signs[part])
    return np.append(svm.coef_[0], svm.intercept_), svm.n_iter_ < MAX_ITERATIONS
