"""The reference: LIBLINEAR as scikit-learn has it, one problem after another, side by side."""

import contextlib

import numpy as np

from ssl_common import containers, streams
from ssl_common.processes import born_deaf, from_a_safe_path
from ssl_common.shortage import muttering

MAX_ITERATIONS = 2000
POSITIVE_WEIGHT = 2


class Liblinear:
    """Solves problems on ROWS (N, D), those that normalise() yields, in WORKERS processes."""

    block = 80  # classes cross-validated together
    map = staticmethod(map)

    def __init__(self, rows, seed, workers):
        """Move fewer rows than features to the space they span: N coordinates and a basis (D, N).

        The solver sees only inner products, so this loses nothing but rounding.
        """
        self.rows, self.basis = rows, None
        self.state = int(np.random.default_rng(seed).integers(2**32))  # scikit-learn takes 32 bits
        self.workers, self.folder = max(1, workers), None
        if rows.shape[0] < rows.shape[1]:
            self.basis, coordinates = np.linalg.qr(rows.T)
            self.rows = np.ascontiguousarray(coordinates.T)

    def __enter__(self):
        """Let the processes share the rows: mapped from a file."""
        if self.workers > 1:
            self.folder = contextlib.ExitStack()
            path = self.folder.enter_context(streams.temporary_folder("train-svm"))
            with streams.writing(f"{path}/rows.npy") as stream:
                containers.write_array(stream, self.rows)
            self.rows = np.load(f"{path}/rows.npy", mmap_mode="r")
        return self

    def __exit__(self, *_error):
        if self.folder:
            self.folder.close()

    def path(self, signs, costs, advance):
        """Yield (scores of all rows (P, N), unconverged) of SIGNS (P, N) at each of COSTS."""
        for cost in costs:
            weights, unconverged = self._solve(signs, np.full(len(signs), cost), advance)
            yield weights[:, :-1] @ self.rows.T + weights[:, -1:], unconverged

    def fit(self, signs, costs, advance):
        """Return (weights (P, D + 1) with the bias last, unconverged) at COSTS (P,)."""
        weights, unconverged = self._solve(signs, costs, advance)
        if self.basis is None:
            return weights, unconverged
        return np.column_stack([weights[:, :-1] @ self.basis.T, weights[:, -1]]), unconverged

    def _solve(self, signs, costs, advance):
        from joblib import Parallel, delayed

        weights = np.empty((len(signs), self.rows.shape[1] + 1))
        unconverged = 0
        # Processes, as liblinear draws from one global generator; mapped rows travel by file name.
        parallel = Parallel(n_jobs=self.workers, return_as="generator", max_nbytes=None)
        problems = zip(signs, costs, strict=True)
        with from_a_safe_path():  # to the end: joblib starts processes when it likes
            with born_deaf(), muttering():
                work = (delayed(fit)(self.rows, *each, self.state) for each in problems)
                solutions = parallel(work)
            for index, (solution, converged) in enumerate(solutions):
                weights[index] = solution
                unconverged += not converged
                advance(costs[index : index + 1])
        return weights, unconverged


def fit(rows, signs, cost, state):
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
