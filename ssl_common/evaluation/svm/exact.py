"""Our solvers on the rows of Examples: all problems together, by threads, on a CPU or a GPU."""

import abc
import collections
import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future

import numpy as np
import torch
from torch import Tensor

from ssl_common import threads
from ssl_common.evaluation.svm import newton, solver, subspace
from ssl_common.evaluation.svm.backend import (
    FOLDS,
    Advance,
    Item,
    Result,
    ScaledFeatures,
    Solutions,
)
from ssl_common.ranks import devices

GRAM = 20_000  # rows up to which their products, 12 N^2 bytes, are held
APART = 4  # times the cost before: there a solution says little of the next
SCORES = 20_000_000  # problems x rows that are held at a time, 100 bytes each at most
PARTS = 1_000_000  # the same where each problem has a few of the rows


class Problems(abc.ABC):
    """P problems on the rows of a space, solved at one cost after another, each from the last."""

    def __init__(self, space: solver.Space, signs: Tensor) -> None:
        """Take SIGNS (P, N) int8."""
        self.space, self.signs = space, signs

    @abc.abstractmethod
    def solve(self, costs: np.ndarray) -> solver.Solutions:
        """Return the solutions at COSTS (P,); those before are written over."""

    def coefficients(self, solutions: solver.Solutions, costs: np.ndarray) -> Tensor:
        """Return a_i, (P, N), of SOLUTIONS at COSTS (P,): there w = sum_i a_i x_i."""
        if isinstance(self.space, solver.Gram):
            return solutions.weights
        here = torch.from_numpy(costs).to(self.signs.device)
        return solver.coefficients(self.signs, here, solutions.images)


class Iterative(Problems):
    """Problems that solver.solve solves, by conjugate gradients."""

    def __init__(
        self, space: solver.ProductSpace, preconditioner: solver.Preconditioner, signs: Tensor
    ) -> None:
        super().__init__(space, signs)
        self.products, self.preconditioner = space, preconditioner
        self.costs = np.zeros(len(signs))  # those before
        self.last: list[solver.Solutions] = []  # at the costs before, three at most

    def solve(self, costs: np.ndarray) -> solver.Solutions:
        space, here = self.products, torch.from_numpy(costs).to(self.signs.device)
        start = self.last[-1] if self.last else None
        if (costs < APART * self.costs).all():
            start = solver.extrapolate(space, self.signs, here, self.last)
        found = solver.solve(space, self.preconditioner, self.signs, here, start)
        self.costs, self.last = costs, [*self.last[-2:], found]
        return found


class Passing(Problems):
    """Problems on many rows that subspace.solve solves, a pass over the rows a step."""

    def __init__(self, preconditioner: subspace.Preconditioner, signs: Tensor) -> None:
        super().__init__(preconditioner.space, signs)
        self.preconditioner = preconditioner
        self.last: subspace.Solutions | None = None

    def solve(self, costs: np.ndarray) -> solver.Solutions:
        here = torch.from_numpy(costs).to(self.signs.device)
        self.last = subspace.solve(self.preconditioner, self.signs, here, self.last)
        return solver.Solutions(*self.last[:3])


class Direct(Problems):
    """Problems that newton.solve solves, with a whole matrix."""

    def __init__(self, columns: newton.Columns, signs: Tensor) -> None:
        super().__init__(columns, signs)
        self.columns = columns
        self.point: newton.Point | None = None

    def solve(self, costs: np.ndarray) -> solver.Solutions:
        here = torch.from_numpy(costs).to(self.signs.device)
        self.point, gaps = newton.solve(self.columns, self.signs, here, self.point)
        return solver.Solutions(self.point.weights, self.point.images, gaps)


class Source:
    """All rows of scaled features, or some, as spaces on a device."""

    def __init__(self, rows: ScaledFeatures, device: str | None) -> None:
        self.features = rows.features
        self.count: int = self.features.shape[0]
        self.width: int = self.features.shape[1]
        self.device = devices.choose(device, 1, False)
        self.scale = torch.from_numpy(rows.scale())

    def are_few(self, rows: int) -> bool:
        """Tell whether so many ROWS, or the numbers of one, are few enough for newton."""
        return min(rows, self.width + 1) <= newton.FEW

    def columns(self, some: np.ndarray | None = None) -> newton.Columns:
        """Return SOME of the rows, int (n,), or all of them."""
        return newton.Columns(*self._part(some), self.device)

    def rows(self, some: np.ndarray | None = None) -> solver.Rows:
        """Return SOME of the rows, int (n,), or all of them."""
        return solver.Rows(*self._part(some), self.device)

    def gram(self, some: np.ndarray | slice = solver.ALL) -> solver.Gram:
        """Return SOME of the rows, int (n,), or all of them."""
        return solver.Gram(solver.gram(self.features, self.scale, self.device, some))

    def _part(self, some: np.ndarray | None) -> tuple[solver.Features, Tensor]:
        if some is None:
            return self.features, self.scale
        return self.features[some], self.scale[some]


def problems(space: solver.Space, seed: int) -> Callable[[np.ndarray], Problems]:
    """Return a function of signs (P, N) int8 that gives their Problems on SPACE.

    The preconditioner starts from SEED.
    """
    if isinstance(space, newton.Columns):
        return lambda signs: Direct(space, torch.from_numpy(signs).to(space.device))
    if isinstance(space, solver.Rows):
        directions = subspace.Preconditioner(space, seed)
        return lambda signs: Passing(directions, torch.from_numpy(signs).to(space.device))
    assert isinstance(space, solver.ProductSpace)
    preconditioner = solver.Preconditioner(space, seed)
    return lambda signs: Iterative(space, preconditioner, torch.from_numpy(signs).to(space.device))


class Exact:
    """A Backend; see solver and newton. solving() makes one."""

    def __init__(self, source: Source, seed: int, count: int) -> None:
        """Take the rows of SOURCE, and COUNT threads."""
        self.source, self.threads = source, count
        self.space: solver.Space
        if source.are_few(source.count):
            self.space, most = source.columns(), 8
        elif source.count <= min(source.width, GRAM):
            self.space, most = source.gram(), 20
        else:  # a pass over all features is to serve many problems
            self.space, most = source.rows(), 80
        fitting = max(1, SCORES // (FOLDS * source.count))  # classes
        self.block = min(most, fitting)  # solved together
        self.blocks = fitting // self.block  # side by side
        self.problems = problems(self.space, seed)

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Generator[Result, None, None]:
        """Yield FUNCTION(item) of ITEMS in their order; close it if not all are asked for.

        Small products gain little from threads of their own, and lose much on a busy machine.
        """
        items = list(items)
        most = max(1, min(self.threads, self.blocks, len(items)))
        count = most if self.source.device == "cpu" else 1
        with threads.side_by_side(count, self.threads // count) as pool:
            try:
                yield from pool.map(function, items)
            except BaseException:
                self.space.halted = True
                pool.shutdown(cancel_futures=True)
                raise

    def path(self, signs: np.ndarray, costs: np.ndarray, advance: Advance) -> Iterator[Solutions]:
        problems = self.problems(signs)
        for cost in costs:
            every = np.full(len(signs), cost)
            weights, images, gaps = problems.solve(every)
            advance(every)
            squared = (weights * self.space.dual(weights, images)).sum(1)
            yield Solutions(images.cpu().numpy(), squared.cpu().numpy(), unconverged(gaps))

    def fit(self, signs: np.ndarray, costs: np.ndarray, advance: Advance) -> tuple[np.ndarray, int]:
        space, together = self.space, FOLDS * self.block
        # Where weights are not of the features, they are made so.
        spanned = isinstance(space, newton.Columns) and space.spanned
        rows = self.source.rows() if spanned or isinstance(space, solver.Gram) else None
        fitted, late = np.empty((len(signs), self.source.width + 1)), 0
        for start in range(0, len(signs), together):
            some = slice(start, start + together)
            problems = self.problems(signs[some])
            solutions = problems.solve(costs[some])
            weights = solutions.weights
            if rows:
                weights = rows.combination(problems.coefficients(solutions, costs[some]))
            fitted[some], late = weights.cpu().numpy(), late + unconverged(solutions.gaps)
            advance(costs[some])
        return fitted, late


class ExactParts:
    """Solves problems that each have a few of the rows. solving_parts() makes one."""

    def __init__(self, source: Source, used: np.ndarray, most: int, seed: int, count: int) -> None:
        """Take SOURCE, and COUNT threads; a problem has some of the rows USED, int (U,).

        MOST is how many the largest has.
        """
        self.source, self.used, self.seed, self.threads = source, used, seed, count
        products = not source.are_few(most) and len(used) <= GRAM
        self.products = source.gram(used) if products else None  # of all rows that are used

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], size: Callable[[Item], int]
    ) -> Generator[Result, None, None]:
        """Yield FUNCTION(item) of ITEMS in their order; close it if not all are asked for.

        SIZE(item) is how many rows it has. One thread takes the smallest first, the others the
        largest: the smallest are mostly Python, which two threads do more slowly than one.
        """
        items = list(items)
        left = collections.deque(sorted(range(len(items)), key=lambda i: size(items[i])))
        results: list[Future[Result]] = [Future() for _ in items]

        def work(take: Callable[[], int]) -> None:
            with contextlib.suppress(IndexError):
                while True:
                    number = take()
                    try:
                        results[number].set_result(function(items[number]))
                    except BaseException as error:
                        results[number].set_exception(error)

        count = max(1, min(self.threads, len(items))) if self.source.device == "cpu" else 1
        with threads.side_by_side(count, self.threads // count) as pool:
            try:
                for take in [left.popleft, *[left.pop] * (count - 1)]:
                    pool.submit(work, take)
                yield from (result.result() for result in results)
            finally:
                left.clear()

    def solve(
        self, rows: np.ndarray, signs: np.ndarray, costs: np.ndarray
    ) -> tuple[np.ndarray, int]:
        """Return (coefficients (C, K, n), unconverged) of ROWS, int (n,), with SIGNS (C, n).

        Coefficients are those of the rows in the weights at each of COSTS (K,).
        """
        source, count = self.source, len(costs)
        few = source.are_few(len(rows))
        if few:
            space: solver.Space = source.columns(rows)
        elif len(rows) > source.width:
            space = source.rows(rows)
        elif self.products:
            space = self.products.part(np.searchsorted(self.used, rows))
        else:
            space = source.gram(rows)
        solve, coefficients, early = problems(space, self.seed), [], 0
        together = max(1, PARTS // (len(rows) * (len(rows) if few else count)))  # classes
        for part in np.split(signs, range(together, len(signs), together)):
            if few:  # from one cost to the next
                some, steps = solve(part), np.split(np.repeat(costs, len(part)), count)
            else:  # all costs together
                some = solve(np.tile(part, (count, 1)))
                steps = [np.repeat(costs, len(part))]
            found = []
            for step in steps:
                solutions = some.solve(step)
                early += unconverged(solutions.gaps)
                found.append(some.coefficients(solutions, step).cpu().numpy())
            shape = count, len(part), len(rows)
            coefficients.append(np.concatenate(found).reshape(shape).transpose(1, 0, 2))
        return np.concatenate(coefficients), early


@contextlib.contextmanager
def solving(rows: ScaledFeatures, seed: int, count: int, device: str | None) -> Iterator[Exact]:
    """Yield an Exact for all ROWS, with COUNT threads, on DEVICE: the best there is, by default.

    Torch has its threads back afterwards.
    """
    with threads.sharing(count):
        yield Exact(Source(rows, device), seed, count)


@contextlib.contextmanager
def solving_parts(
    rows: ScaledFeatures, used: np.ndarray, most: int, seed: int, count: int, device: str | None
) -> Iterator[ExactParts]:
    """Yield ExactParts for those of ROWS that are USED, at MOST so many a problem."""
    with threads.sharing(count):
        yield ExactParts(Source(rows, device), used, most, seed, count)


def unconverged(gaps: Tensor) -> int:
    """Return how many of GAPS are greater than allowed."""
    return int((gaps > 1).sum())
