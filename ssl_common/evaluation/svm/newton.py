"""Linear SVMs whose rows have few numbers, or are few: solved by Newton steps with a whole matrix.

The problems and the bound are those of solver. While the same rows are active, the least of P is
where a system of M x M says, M the numbers of a row with its 1 (Mangasarian, Optimization Methods
and Software 17, 2002; Keerthi and DeCoste, JMLR 6, 2005, take it apart for many columns); and rows
that become active, or no longer are, change its matrix by their squares alone, whatever the cost.
One pass over the rows a step serves several problems; P falls at each, so the sets of active rows
never come back, and the steps end: the scores are exact but for rounding.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ssl_common import stored
from ssl_common.evaluation.svm import solver
from ssl_common.evaluation.svm.solver import Features

FEW = 256  # numbers of a row, or rows, up to which this is the quicker way
EXACT = 1e-9  # of the spread of the scores
MAX_HALVINGS = 20
HELD = 1 << 27  # bytes of rows that are kept, not read again
BLOCK = 1 << 20  # numbers of rows together
WHOLE = 128  # columns up to which several systems are solved in one call by several threads


class Columns(solver.Space):
    """Rows (N, M) float64 of few columns, the last of them 1, or of as many as there are rows.

    `covariance` (M, M) is that of the rows, `spread` its largest eigenvalue. `spanned` says that
    there are fewer rows than features, so weights are not of the features.
    """

    def __init__(self, features: Features, scale: Tensor, device: str) -> None:
        """Take FEATURES (N, D) and SCALE (N,), by which the rows are multiplied.

        Fewer rows than features become coordinates of the space they span: inner products, and so
        the solutions, stay as they are.
        """
        self.features, self.scale, self.device = features, scale.to(device), torch.device(device)
        self.count, self.width = len(features), features.shape[1] + 1
        self.spanned = self.count < self.width
        self.held: list[tuple[slice, Tensor]] | None = None
        if self.spanned:
            self.width, self.held = self.count, [(slice(0, self.count), self._coordinates())]
        elif self.count * self.width * 8 <= HELD:
            self.held = list(self._read())
        mean = _sum(rows.sum(0) for _part, rows in self.blocks()) / self.count
        self.covariance = _sum((r - mean).T @ (r - mean) for _part, r in self.blocks()) / self.count
        self.spread = torch.linalg.eigvalsh(self.covariance)[-1].item()

    def blocks(self) -> Iterable[tuple[slice, Tensor]]:
        """Return (slice, its rows) of all rows, some at a time."""
        self.check()
        return self._read() if self.held is None else self.held

    def dual(self, weights: Tensor, image: Tensor) -> Tensor:
        return weights

    def _read(self) -> Iterator[tuple[slice, Tensor]]:
        for part, array in stored.blocks(self.features, BLOCK // self.width):
            rows = solver.tensor(array, torch.float64, self.device) * self.scale[part, None]
            yield part, torch.cat([rows, torch.ones_like(rows[:, :1])], 1)

    def _coordinates(self) -> Tensor:
        """Return R' (N, N) of the rows' transpose = QR, made of blocks of columns."""
        triangle = torch.ones(1, self.count, dtype=torch.float64, device=self.device)
        for start in range(0, self.features.shape[1], solver.BLOCK // 2):
            array = self.features[:, start : start + solver.BLOCK // 2]
            columns = solver.tensor(array, torch.float64, self.device) * self.scale[:, None]
            triangle = torch.linalg.qr(torch.cat([triangle, columns.T]), mode="r")[1]
        return triangle.T.contiguous()


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return sum(parts, start=torch.zeros(()))


class Point:
    """Weights of P problems, and what the rows say of them; sums over the active rows, less 2C.

    With u_i the weight of the sign, e_i the error: images w.x_i and active (P, N), loss
    sum u e^2, pull sum u s e x, force sum u e, stiffness sum u, hessian sum u x x' (P, M, M).
    """

    def __init__(self, rows: Columns, signs: Tensor) -> None:
        """Begin with SIGNS (P, N) int8 at weights of 0."""
        self.rows, self.signs = rows, signs
        count, one = len(signs), torch.ones((), dtype=torch.float64, device=signs.device)
        self.weights = one.new_zeros(count, rows.width)
        self.images = one.new_zeros(count, rows.count)
        self.active = torch.zeros_like(signs, dtype=torch.bool)
        self.loss, self.force, self.stiffness = one.new_zeros(3, count)
        self.pull = torch.zeros_like(self.weights)
        self.hessian = one.new_zeros(count, rows.width, rows.width)
        self.move(torch.arange(count, device=signs.device), torch.zeros_like(self.pull))

    def move(self, some: Tensor, weights: Tensor) -> None:
        """Put the problems SOME, numbers (L,), at WEIGHTS (L, M)."""
        self.weights[some] = weights
        loss = force = stiffness = pull = weights.new_zeros(())
        for part, rows in self.rows.blocks():
            sign = self.signs[some, part].double()
            weight = torch.where(sign > 0, solver.POSITIVE_WEIGHT, sign.abs())
            image = weights @ rows.T
            error = (1 - sign * image).clamp_(min=0)
            pushed = weight * error
            active = pushed > 0
            loss = loss + (pushed * error).sum(1)
            force = force + pushed.sum(1)
            stiffness = stiffness + (weight * active).sum(1)
            pull = pull + (pushed * sign) @ rows
            self.images[some, part] = image
            moved = active != self.active[some, part]
            for p in moved.any(1).nonzero()[:, 0].tolist():
                change = torch.where(active[p], weight[p], -weight[p])[moved[p]]
                those = rows[moved[p]]
                self.hessian[some[p]] += (those.T * change) @ those
            self.active[some, part] = active
        self.loss[some], self.force[some] = loss, force
        self.stiffness[some], self.pull[some] = stiffness, pull

    def judge(self, costs: Tensor, order: float = solver.ORDER) -> tuple[Tensor, Tensor, Tensor]:
        """Return P(w), minus its gradient, and the gap by what is allowed, at COSTS (P,)."""
        norm = (self.weights**2).sum(1)
        value = norm / 2 + costs * self.loss
        descent = 2 * costs[:, None] * self.pull - self.weights
        variance = ((self.weights @ self.rows.covariance) * self.weights).sum(1)
        stiffness, force = 2 * costs * self.stiffness, 2 * costs * self.force
        spread = self.rows.spread
        allowed = solver.allowed(value, variance, spread, stiffness, force, order)
        return value, descent, (descent**2).sum(1) / 2 / allowed


def solve(
    rows: Columns, signs: Tensor, costs: Tensor, start: Point | None = None
) -> tuple[Point, Tensor]:
    """Return (point, gaps) of the problems of SIGNS (P, N) int8 and COSTS (P,) on ROWS.

    The point has the weights and images of the solutions; gaps are as of solver.solve. START is the
    Point of the same signs at other costs: it moves, and is the one returned.
    """
    point = start or Point(rows, signs)
    one = torch.eye(rows.width, dtype=torch.float64, device=rows.device)
    live = torch.arange(len(signs), device=rows.device)
    for _ in range(solver.MAX_NEWTON):
        value, descent, gap = point.judge(costs, EXACT)
        live = live[gap[live] > 1]
        if not len(live):
            break
        old, value, gap = point.weights[live], value[live], gap[live]
        matrix = one + 2 * costs[live, None, None] * point.hessian[live]
        step = _quotient(matrix, descent[live])
        rest, length = torch.arange(len(live), device=rows.device), 1.0  # not at a better place yet
        for _ in range(MAX_HALVINGS):
            point.move(live[rest], old[rest] + length * step[rest])
            new, _descent, new_gap = point.judge(costs, EXACT)
            new, new_gap = new[live[rest]], new_gap[live[rest]]
            least, rounded = value[rest], 1 + 1e-12
            better = (new < least) | ((new < least * rounded) & (new_gap < gap[rest] / 2))
            rest, length = rest[~better], length / 2
            if not len(rest):
                break
        if len(rest):  # rounding lets them go no further
            point.move(live[rest], old[rest])
            kept = torch.ones_like(live, dtype=torch.bool)
            kept[rest] = False
            live = live[kept]
    return point, point.judge(costs)[2]


def _quotient(matrix: Tensor, descent: Tensor) -> Tensor:
    """Return the steps that MATRIX (P, M, M) multiplies to DESCENT (P, M)."""
    if matrix.device.type != "cpu" or matrix.shape[1] <= WHOLE or torch.get_num_threads() == 1:
        return torch.linalg.solve(matrix, descent)
    # Of several at once, by several threads, MKL finds no pivots: torch 2.14 then raises.
    pairs = zip(matrix, descent, strict=True)
    return torch.stack([torch.linalg.solve(*pair) for pair in pairs])
