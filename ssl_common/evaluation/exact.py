"""Our solver on the rows of Examples: all problems together, by threads, on a CPU or a GPU."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from ssl_common.evaluation import solver
from ssl_common.training import torchrun

GRAM = 20_000  # rows up to which their products, 12 N^2 bytes, are held


class Exact:
    """Solves the problems of EXAMPLES together, with THREADS on DEVICE: see solver."""

    def __init__(self, examples, seed, threads, device):
        self.threads = max(1, threads)
        torch.set_num_threads(self.threads)
        self.features = examples.features
        self.device = torchrun.chosen(device, 1, False)
        self.scale = torch.from_numpy(examples.scale())
        self.seed, self.all = seed, None

    def on_all(self):
        """Get ready for problems on all rows; return self."""
        if len(self.features) <= min(self.features.shape[1], GRAM):
            space, self.block = self._gram(slice(None)), 10
        else:  # a pass over all features is to serve many problems
            space, self.block = solver.Rows(self.features, self.scale, self.device), 80
        self.all = space, solver.Preconditioner(space, self.seed)
        return self

    def on_parts(self, used, costs):
        """Return a function that solves on some of the rows USED, at each of COSTS (K,).

        It takes the rows and their signs (K, n), and returns (coefficients (K, n), unconverged).
        """
        whole = self._gram(used) if len(used) <= GRAM else None

        def solve(rows, signs):
            if len(rows) > self.features.shape[1]:
                space = solver.Rows(self.features[rows], self.scale[rows], self.device)
            elif whole:
                space = whole.part(np.searchsorted(used, rows))
            else:
                space = self._gram(rows)
            preconditioner = solver.Preconditioner(space, self.seed)
            weights, images, gaps = self._solve(space, preconditioner, signs, costs)
            if isinstance(space, solver.Rows):
                given = (torch.from_numpy(a).to(self.device) for a in (signs, costs))
                weights = solver.coefficients(*given, images)
            return weights.cpu().numpy(), self._unconverged(gaps)

        return solve

    def map(self, function, items):
        """Yield FUNCTION(item) of ITEMS in their order, several at a time where there are several.

        Small products gain little from threads of their own, and lose much on a busy machine.
        """
        items = list(items)
        side_by_side = min(self.threads, len(items)) if self.device == "cpu" else 1
        each = self.threads // side_by_side
        with ThreadPoolExecutor(side_by_side, "", torch.set_num_threads, (each,)) as pool:
            try:
                yield from pool.map(function, items)
            except BaseException:
                if self.all:
                    self.all[0].halted = True
                pool.shutdown(cancel_futures=True)
                raise

    def _gram(self, rows):
        part = self.features[rows], self.scale[rows]
        return solver.Gram(solver.gram(*part, self.device))

    def path(self, signs, costs, advance):
        """Yield (scores of all rows (P, N), unconverged) of SIGNS (P, N) at each of COSTS."""
        start = None
        for cost in costs:
            costs = np.full(len(signs), cost)
            start = self._solve(*self.all, signs, costs, start[:2] if start else None)
            advance(np.full(len(signs), cost))
            yield start[1].cpu().numpy(), self._unconverged(start[2])

    def fit(self, signs, costs, advance):
        """Return (weights (P, D + 1) with the bias last, unconverged) at COSTS (P,)."""
        weights, _images, gaps = self._solve(*self.all, signs, costs)
        if isinstance(self.all[0], solver.Gram):
            rows = solver.Rows(self.features, self.scale, self.device)
            weights = rows.combination(weights)
        advance(costs)
        return weights.cpu().numpy(), self._unconverged(gaps)

    def _solve(self, space, preconditioner, signs, costs, start=None):
        signs, costs = (torch.from_numpy(a).to(self.device) for a in (signs, costs))
        return solver.solve(space, preconditioner, signs, costs, start)

    def _unconverged(self, gaps):
        return int((gaps > solver.TOLERANCE).sum())
