"""Many linear SVMs over many rows, solved together: one pass over the rows a step, for all of them.

The problems, the gap and the certificate are those of solver. A step goes to the least of P among
w + y_1 p + y_2 m_1 + y_3 m_2: p is about H^-1 times the descent, m_1 and m_2 are the last two
moves, as in conjugate gradients, but with the rows that have an error as they are in every point
(so no linear system is solved for a set of rows that then changes). The images of all three are
known, so that the least is found by Newton steps in y without the rows. A new cost starts at the
least among the last solution and the last two moves from one cost to the next.

Steps are made of products in float32, and judged in float64 at the end, from the rows as they are;
what is found wanting goes on, in float64 if need be.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_common.evaluation.svm import solver
from ssl_common.evaluation.svm.solver import Rows

LONGEST, EXACT = 512, 256  # directions of the preconditioner; those it takes with their products
MAX_STEPS = 5000
LOOK, RENEWED = 10, 30  # steps after which the preconditioner sees which rows have an error
LOOKED = 4096  # rows that it sees at a time
TRIALS, PATIENCE = 3, 20  # judgements that may fail in float32; that may be no better in float64
CACHED, ON_GPU = 1 << 16, 1 << 26  # scores of rows worked on at a time
STRICT, BELOW = 0.2, 0.5  # of solver.ORDER at costs below: there a gap says little of the order


class Preconditioner:
    """About H^-1, from the directions in which the rows are longest.

    H is taken as it is on the first EXACT of them, as if diagonal on the others, and as its mean on
    what is left. `spread` is the variance of the rows in the direction in which they differ most.
    """

    def __init__(self, space: Rows, seed: int = 0) -> None:
        """Find the directions of SPACE by subspace iteration from a random start of SEED."""
        space.hold()
        self.space = space
        basis, self.spread = solver.longest(space, LONGEST, seed)
        basis = torch.linalg.qr(basis.T)[0].T
        images = space.image(basis)
        lengths, turn = torch.linalg.eigh(images @ images.T)
        kept = (lengths > 1e-12 * lengths[-1]).flip(0)  # the longest first
        turn, self.lengths = turn.flip(1).T[kept], lengths.flip(0)[kept]  # squared, (R,)
        basis, images = turn @ basis, turn @ images
        left = max(1, min(space.width, space.count) - len(basis))
        self.rest = max(0.0, space.squares() - self.lengths.sum().item()) / left
        self.basis = {kind: basis.to(kind) for kind in solver.RIDGE}  # (R, width)
        self.exact = images[:EXACT].T.float().contiguous()  # (N, E)

    def look(self, some: Tensor, signs: Tensor, images: Tensor, curvatures: "Curvatures") -> None:
        """Set the CURVATURES of SOME (L,) of the problems of SIGNS (P, N), at IMAGES (P, N)."""
        one = torch.ones(1, dtype=torch.float64, device=some.device)
        for problem in some.tolist():
            sign = signs[problem]
            active = ((sign != 0) & (sign * images[problem] < 1)).nonzero()[:, 0]
            c = solver.curvature(sign[None, active], one)[0].float()
            curvatures.means[problem] = c.sum() / self.space.count
            product = curvatures.products[problem].zero_()
            for part in range(0, len(active), LOOKED):
                rows = self.exact[active[part : part + LOOKED]]
                product.addmm_(rows.T * c[part : part + LOOKED], rows)

    def inverse(self, some: Tensor, costs: Tensor, curvatures: "Curvatures") -> "Inverse":
        """Return about H^-1 of SOME (L,) of the problems with COSTS (P,) and CURVATURES."""
        size = self.exact.shape[1]
        one = torch.eye(size, dtype=torch.float64, device=some.device)
        mean = (costs * curvatures.means)[some, None]
        rest = 1 / (1 + mean * self.rest)
        exact = curvatures.products[some].double().mul_(costs[some, None, None]).add_(one)
        exact = torch.cholesky_inverse(torch.linalg.cholesky(exact)) - rest[:, :, None] * one
        others = 1 / (1 + mean * self.lengths[size:]) - rest
        places = torch.zeros_like(costs, dtype=torch.long)
        places[some] = torch.arange(len(some), device=some.device)
        return Inverse(self.basis, places, rest, exact, others)


class Curvatures:
    """What the active rows of P problems would add to H at a cost of 1.

    It is seen on the EXACT directions, `products` (P, E, E), and as the mean of c_i, `means` (P,).
    """

    def __init__(self, preconditioner: Preconditioner, count: int) -> None:
        """Begin with none for COUNT problems."""
        exact = preconditioner.exact
        self.products = exact.new_zeros(count, exact.shape[1], exact.shape[1])
        self.means = exact.new_zeros(count, dtype=torch.float64)


@dataclass
class Inverse:
    """About H^-1 of L problems: REST everywhere, and EXACT and OTHERS more on the BASIS."""

    basis: dict[torch.dtype, Tensor]  # (R, width)
    places: Tensor  # (P,) int64, of all problems; 0 for those that are not among the L
    rest: Tensor  # (L, 1)
    exact: Tensor  # (L, E, E)
    others: Tensor  # (L, R - E)

    def apply(self, some: Tensor, weights: Tensor) -> Tensor:
        """Return about H^-1 w, (M, width), for SOME of the L problems, numbers (M,) among all.

        WEIGHTS are w (M, width), of the type in which all is done.
        """
        some = self.places[some]
        kind, size = weights.dtype, self.exact.shape[1]
        inner = weights @ self.basis[kind].T
        exact = self.exact[some].to(kind)
        inner[:, :size] = torch.bmm(exact, inner[:, :size, None])[:, :, 0]
        inner[:, size:] *= self.others[some].to(kind)
        return torch.addmm(self.rest[some].to(kind) * weights, inner, self.basis[kind])


class Moves:
    """Three directions for each of P problems, 1 long: where to go next, and the last two moves."""

    def __init__(self, space: Rows, count: int, kind: torch.dtype) -> None:
        """Begin with no directions, for COUNT problems, in the type KIND."""
        self.weights = torch.zeros(count, 3, space.width, dtype=kind, device=space.device)
        self.images = torch.zeros(count, 3, space.count, dtype=kind, device=space.device)

    def put(self, place: int, some: Any, weights: Tensor, images: Tensor) -> None:
        """Take WEIGHTS (L, width) and their IMAGES (L, N) as direction PLACE of SOME, L of them."""
        norm = weights.norm(dim=1, keepdim=True)
        factor = torch.where(norm > 0, 1 / norm, 0)
        self.weights[some, place] = (weights * factor).to(self.weights.dtype)
        self.images[some, place] = (images * factor).to(self.images.dtype)

    def append(self, some: Any, weights: Tensor, images: Tensor) -> None:
        """Take WEIGHTS and IMAGES as the last move of SOME; the last is then the one before."""
        self.weights[some, 2] = self.weights[some, 1]
        self.images[some, 2] = self.images[some, 1]
        self.put(1, some, weights, images)


class Solutions(NamedTuple):
    """As solver.Solutions, and what helps at another cost.

    MOVES led here from the solutions at other costs; CURVATURES were seen on the way.
    """

    weights: Tensor
    images: Tensor
    gaps: Tensor
    moves: Moves
    curvatures: Curvatures


class Search:
    """P problems at weights that come nearer to the least of each P(w); `gaps` are as judged."""

    def __init__(
        self,
        preconditioner: Preconditioner,
        signs: Tensor,
        costs: Tensor,
        weights: Tensor,
        images: Tensor,
        kind: torch.dtype,
        curvatures: Curvatures | None = None,
    ) -> None:
        """Begin at WEIGHTS and IMAGES, which are changed; steps are made in the type KIND.

        CURVATURES are those seen last, which are kept up to date.
        """
        self.preconditioner, self.space, self.kind = preconditioner, preconditioner.space, kind
        self.signs, self.costs, self.weights, self.images = signs, costs, weights, images
        self.roots = torch.empty(signs.shape, dtype=kind, device=signs.device)
        for _here, part in self._chunks(torch.arange(len(signs))):
            self.roots[part] = self._roots(part)
        self.gaps = torch.full_like(costs, torch.inf)
        self.moves = Moves(self.space, len(signs), kind)
        if curvatures is None:
            curvatures = Curvatures(preconditioner, len(signs))
            preconditioner.look(torch.arange(len(signs)), signs, images, curvatures)
        self.curvatures = curvatures

    def descend(self) -> None:
        """Go down until all are solved, or no step of this type leads further down."""
        exact = self.kind == torch.float64  # then each step is judged
        live = torch.arange(len(self.signs), device=self.space.device)
        ready = torch.full_like(live, exact, dtype=torch.bool)  # to be judged
        failed = torch.zeros_like(live)
        value, best = torch.full_like(self.gaps, torch.inf), torch.full_like(self.gaps, torch.inf)
        for step in range(MAX_STEPS):
            look = step % RENEWED == LOOK
            if look:
                self.preconditioner.look(live, self.signs, self.images, self.curvatures)
            if look or not step:
                inverse = self.preconditioner.inverse(live, self.costs, self.curvatures)
            judged, walking = live[ready[live]], live[~ready[live]]
            going, ended = [], torch.zeros_like(ready)
            if len(judged) >= len(walking):  # a pass in float64 is to serve many
                descent, new = self.judge(judged)
                here = self.gaps[judged]
                failed[judged] += 1
                if exact:
                    better = (new < value[judged] * (1 - 1e-13)) | (here < best[judged] / 2)
                    failed[judged[better]] = 0
                    value[judged[better]], best[judged[better]] = new[better], here[better]
                else:
                    ready[judged], value[judged] = False, torch.inf
                on = (here > 1) & (failed[judged] <= (PATIENCE if exact else TRIALS))
                ended[judged[~on]] = True
                going.append((judged[on], descent[on].to(self.kind)))
            if len(walking):
                force, new = self.force(walking, self.kind)
                descent = (self.space.combination(force) - self.weights[walking]).to(self.kind)
                gap = (descent**2).sum(1) / 2 / solver.NEAR
                near = gap <= solver.TOLERANCE * new
                near[near.clone()] = gap[near] <= self.allowed(walking[near], new[near])
                on = ~near & (new < value[walking])
                ended[walking[~near & ~on]] = True
                ready[walking], value[walking] = near, new
                going.append((walking[on], descent[on]))
            live = live[~ended[live]]
            if not len(live):
                break
            if going:
                some, descents = (torch.cat(each) for each in zip(*going, strict=True))
                if len(some):
                    self.step(some, descents, inverse)

    def judge(self, some: Tensor) -> tuple[Tensor, Tensor]:
        """Return minus the gradient (L, width) and P(w) of SOME (L,), float64; set their gaps."""
        if self.kind != torch.float64:  # whose images are right
            self.images[some] = self.space.image(self.weights[some])
        force, value = self.force(some, torch.float64)
        descent = self.space.combination(force) - self.weights[some]
        self.gaps[some] = (descent**2).sum(1) / 2 / self.allowed(some, value)
        return descent, value

    def force(self, some: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return a_i (L, N) in the type KIND, and P(w), of SOME (L,)."""
        force = torch.empty(len(some), self.space.count, dtype=kind, device=some.device)
        value = torch.empty_like(self.gaps[some])
        for here, part in self._chunks(some):
            roots = self.roots[part] if kind == self.kind else self._roots(part)
            error = solver.margins(roots, self.images[part]).clamp_(min=0)
            loss = torch.linalg.vecdot(error, error)
            torch.mul(error.to(kind), roots, out=force[here])
            value[here] = ((self.weights[part] ** 2).sum(1) + loss) / 2
        return force, value

    def allowed(self, some: Tensor, value: Tensor) -> Tensor:
        """Return the gap, (L,), that is allowed for SOME (L,), whose P(w) are VALUE."""
        allowed = torch.empty_like(value)
        for here, part in self._chunks(some):
            roots, image, costs = self._roots(part), self.images[part], self.costs[part]
            error = solver.margins(roots, image).clamp_(min=0)
            allowed[here] = solver.allowed(
                value[here],
                image.var(1, correction=0),
                self.preconditioner.spread,
                (roots**2 * (error > 0)).sum(1),
                (roots.abs() * error).sum(1),
                torch.where(costs < BELOW, STRICT * solver.ORDER, solver.ORDER),
            )
        return allowed

    def _roots(self, part: Any) -> Tensor:
        """Return solver.roots() of PART of the problems."""
        return solver.roots(self.signs[part], self.costs[part])

    def step(self, some: Tensor, descents: Tensor, inverse: Inverse) -> None:
        """Move SOME (L,), minus whose gradients are DESCENTS (L, width), by about INVERSE."""
        step = inverse.apply(some, descents)
        # What float32 leaves out, the judge adds; there is nobody to add it to float64.
        image = self.space.image(step, None if step.dtype == torch.float64 else self.signs[some])
        for here, part in self._chunks(some):
            self.moves.put(0, part, step[here], image[here])
            slopes = -(self.moves.weights[part] @ descents[here, :, None])[:, :, 0]
            self.moves.append(part, *self._to_least(part, self.moves, slopes))

    def extrapolate(self, moves: Moves) -> None:
        """Go where P is least among the weights and the last two MOVES, from cost to cost."""
        for _here, part in self._chunks(torch.arange(len(self.signs), device=self.space.device)):
            weights, images = self.weights[part], self.images[part]
            moves.put(0, part, weights, images)
            force = solver.coefficients(self.signs[part], self.costs[part], images)
            own = moves.weights[part] @ weights[:, :, None].to(self.kind)
            others = moves.images[part] @ force[:, :, None].to(self.kind)
            self._to_least(part, moves, (own - others)[:, :, 0])

    def _to_least(self, part: Any, moves: Moves, slopes: Tensor) -> tuple[Tensor, Tensor]:
        """Put the problems PART (L,) where P is about least along the directions of MOVES.

        SLOPES (L, 3) are the derivatives of P along them. Returns what is added to the weights
        (L, width) and the images (L, N).
        """
        weights, images, roots = moves.weights[part], moves.images[part], self.roots[part]
        y = solver.least(
            solver.margins(roots, self.images[part]).to(self.kind),
            roots[:, None] * images,
            slopes,
            weights @ weights.transpose(1, 2),
        )
        step, change = (y[:, None] @ weights)[:, 0], (y[:, None] @ images)[:, 0]
        self.weights[part] += step
        self.images[part] += change
        return step, change

    def _chunks(self, some: Tensor) -> Iterable[tuple[slice, Any]]:
        """Yield (which of them, their numbers) of the problems SOME (L,), a few at a time.

        Numbers that follow each other are a slice, which is taken without a copy.
        """
        scores = CACHED if self.space.device.type == "cpu" else ON_GPU
        size = max(1, scores // self.space.count)
        for start in range(0, len(some), size):
            part = some[start : start + size]
            first, last = int(part[0]), int(part[-1])
            follow = last - first == len(part) - 1
            yield slice(start, start + size), slice(first, last + 1) if follow else part


def solve(
    preconditioner: Preconditioner,
    signs: Tensor,
    costs: Tensor,
    start: Solutions | None = None,
) -> Solutions:
    """Return the Solutions of the problems of SIGNS (P, N) int8 and COSTS (P,) float64.

    START are those of the same problems at other costs; what it holds is written over. A gap
    exceeds 1 where rounding or the limit of steps came first. Raises Halted if the space is.
    """
    space, count = preconditioner.space, len(signs)
    if start is None:
        weights = torch.zeros(count, space.width, dtype=torch.float64, device=space.device)
        images = torch.zeros(count, space.count, dtype=torch.float64, device=space.device)
        moves, curvatures = Moves(space, count, torch.float32), None
    else:
        weights, images, moves = start.weights.clone(), start.images.clone(), start.moves
        curvatures = start.curvatures
    search = Search(preconditioner, signs, costs, weights, images, torch.float32, curvatures)
    if start:
        search.extrapolate(moves)
    search.descend()
    left = (search.gaps > 1).nonzero()[:, 0]
    if len(left):
        some = weights[left], space.image(weights[left])
        exact = Search(preconditioner, signs[left], costs[left], *some, torch.float64)
        exact.descend()
        weights[left], images[left], search.gaps[left] = *some, exact.gaps
    if start:
        for p in range(count):
            change = weights[p] - start.weights[p], images[p] - start.images[p]
            moves.append(torch.tensor([p], device=space.device), *(each[None] for each in change))
    return Solutions(weights, images, search.gaps, moves, search.curvatures)
