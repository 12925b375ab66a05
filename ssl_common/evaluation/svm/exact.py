"""Our solvers on the rows of Examples: all problems together, by threads, on a CPU or a GPU."""

from typing import Any, NamedTuple

import numpy as np
import torch

from ssl_common import threads
from ssl_common.evaluation.svm import newton, solver
from ssl_common.evaluation.svm.classifiers import FOLDS
from ssl_common.ranks import devices

GRAM = 20_000  # rows up to which their products, 12 N^2 bytes, are held
SCORES = 20_000_000  # problems x rows that are held at a time, 100 bytes each at most


class Solved(NamedTuple):
    """Solutions of P problems on N rows, and what those at another cost start from."""

    weights: torch.Tensor  # as the space holds them
    images: torch.Tensor  # (P, N) float64
    gaps: torch.Tensor  # (P,), by what is allowed
    start: Any


class Exact:
    """Solves the problems of EXAMPLES together, by COUNT threads on DEVICE: see solver, newton.

    It is for a block of threads.sharing(COUNT).
    """

    def __init__(self, examples, seed, count, device):
        self.threads = count
        self.features = examples.features
        self.device = devices.choose(device, 1, False)
        self.scale = torch.from_numpy(examples.scale())
        self.seed, self.space, self.blocks = seed, None, count

    def on_all(self):
        """Get ready for problems on all rows; return self."""
        count, width = self.features.shape
        if self._are_few(count):
            self.space, most = newton.Columns(self.features, self.scale, self.device), 8
        elif count <= min(width, GRAM):
            self.space, most = self._gram(slice(None)), 10
        else:  # a pass over all features is to serve many problems
            self.space, most = solver.Rows(self.features, self.scale, self.device), 80
        fitting = max(1, SCORES // (FOLDS * count))  # classes
        self.block = min(most, fitting)  # solved together
        self.blocks = fitting // self.block  # side by side
        self.solved = self._solver(self.space)
        return self

    def on_parts(self, used, most, costs):
        """Return a function that solves on some of the rows USED, MOST at a time, at COSTS (K,).

        It takes the rows and their signs (n,), and returns (coefficients (K, n), unconverged).
        """
        products = not self._are_few(most) and len(used) <= GRAM
        whole = self._gram(used) if products else None

        def solve(rows, signs):
            if self._are_few(len(rows)):
                space = newton.Columns(self.features[rows], self.scale[rows], self.device)
                tasks = [(signs[None], costs[k : k + 1]) for k in range(len(costs))]
            else:
                tasks = [(np.repeat(signs[None], len(costs), axis=0), costs)]
                if len(rows) > self.features.shape[1]:
                    space = solver.Rows(self.features[rows], self.scale[rows], self.device)
                elif whole:
                    space = whole.part(np.searchsorted(used, rows))
                else:
                    space = self._gram(rows)
            solved, start, found, early = self._solver(space), None, [], 0
            for task in tasks:
                last = solved(*task, start)
                start, early = last.start, early + unconverged(last.gaps)
                found.append(self._coefficients(space, last, *task).cpu().numpy())
            return np.concatenate(found), early

        return solve

    def map(self, function, items):
        """Yield FUNCTION(item) of ITEMS in their order, several at a time where there are several.

        Small products gain little from threads of their own, and lose much on a busy machine.
        """
        items = list(items)
        most = min(self.threads, self.blocks, len(items)) if self.device == "cpu" else 1
        side_by_side = max(1, most)
        with threads.side_by_side(side_by_side, self.threads // side_by_side) as pool:
            try:
                yield from pool.map(function, items)
            except BaseException:
                if self.space:
                    self.space.halted = True
                pool.shutdown(cancel_futures=True)
                raise

    def path(self, signs, costs, advance):
        """Yield (scores of all rows (P, N), unconverged) of SIGNS (P, N) at each of COSTS.

        The scores stay until the next are asked for.
        """
        start = None
        for cost in costs:
            every = np.full(len(signs), cost)
            found = self.solved(signs, every, start)
            start = found.start
            advance(every)
            yield found.images.cpu().numpy(), unconverged(found.gaps)

    def fit(self, signs, costs, advance):
        """Return (weights (P, D + 1) with the bias last, unconverged) at COSTS (P,)."""
        rows, together = None, FOLDS * self.block
        if isinstance(self.space, solver.Gram) or getattr(self.space, "spanned", False):
            rows = solver.Rows(self.features, self.scale, self.device)
        fitted, late = np.empty((len(signs), self.features.shape[1] + 1)), 0
        for start in range(0, len(signs), together):
            some = slice(start, start + together)
            problems = signs[some], costs[some]
            found = self.solved(*problems)
            weights = found.weights
            if rows:
                weights = rows.combination(self._coefficients(self.space, found, *problems))
            fitted[some], late = weights.cpu().numpy(), late + unconverged(found.gaps)
            advance(costs[some])
        return fitted, late

    def _are_few(self, rows):
        """Tell whether so many ROWS, or the numbers of one, are few enough for newton."""
        return min(rows, self.features.shape[1] + 1) <= newton.FEW

    def _gram(self, rows):
        return solver.Gram(solver.gram(self.features, self.scale, self.device, rows))

    def _solver(self, space):
        """Return a function of signs (P, N), costs (P,) and a start that gives what is Solved."""
        if isinstance(space, newton.Columns):

            def solved(*problems, start=None):
                point, gaps = newton.solve(space, *problems, start)
                return Solved(point.weights, point.images, gaps, point)

        else:
            preconditioner = solver.Preconditioner(space, self.seed)

            def solved(*problems, start=None):
                found = solver.solve(space, preconditioner, *problems, start)
                return Solved(*found, start=found[:2])

        return lambda signs, costs, start=None: solved(*self._here(signs, costs), start=start)

    def _here(self, *arrays):
        return (torch.from_numpy(array).to(self.device) for array in arrays)

    def _coefficients(self, space, found, signs, costs):
        """Return a_i, (P, N), of what was FOUND in SPACE for SIGNS and COSTS."""
        if isinstance(space, solver.Gram):
            return found.weights
        return solver.coefficients(*self._here(signs, costs), found.images)


def unconverged(gaps):
    """Return how many of GAPS are greater than allowed."""
    return int((gaps > 1).sum())
