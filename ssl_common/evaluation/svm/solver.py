"""Many linear SVMs over the same rows, solved together: Newton steps by conjugate gradients.

Each problem is that of LIBLINEAR's SVM with squared hinge (Fan et al., JMLR 9, 2008, section 3):

    P(w) = 1/2 |w|^2 + 1/2 sum_i c_i max(0, 1 - s_i w.x_i)^2,    x_i the row with a 1 for the bias,

with signs s_i, and c_i = 2 x cost x weight of the sign; a row of sign 0 has c_i = 0. While the same
rows are active, s_i w.x_i < 1, P is quadratic; so a Newton step is a linear system in
H = I + sum_active c_i x_i x_i', which conjugate gradients solve from products alone (Keerthi and
DeCoste, JMLR 6, 2005), and one matrix product serves all problems. With
a_i = c_i s_i max(0, 1 - s_i w.x_i), which is feasible for the dual D,
P(w) - D(a) = 1/2 |w - sum_i a_i x_i|^2: half the squared gradient, the gap, bounds how far P(w) is
from the least, and how far w is from its place; allowed() says when that is near enough for the
value, and for the order of the scores, which decides.

Steps are found in float32; where one seems to have led to the end, float64 judges, so rounding
costs steps and not exactness; where float32 finds no further step, float64 does. A new cost may
start where P is least among the solutions at the costs before.
"""

import abc
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_common import stored
from ssl_common.stored import Stored

POSITIVE_WEIGHT = 2
TOLERANCE = 1e-7  # of the objective
ORDER = 1e-4  # of the spread of the scores
ROUNDING = 1e-14  # of what is summed
FORCING = 0.01, 0.1  # by which a Newton step reduces the gradient of its quadratic
MAX_NEWTON, MAX_CG = 100, 500
RANK = 64  # of the preconditioner
NEAR, MORE = 0.8, 1 + 1e-6  # of the gap allowed: float32 is not trusted to the last
IN_Y, HALVINGS = 5, 8  # Newton steps along a few directions, and their halvings
ENOUGH = 0.02  # of what P has fallen by: such a step that would give less is not made
RIDGE = {torch.float32: 1e-6, torch.float64: 1e-12}
BLOCK = 2048  # rows, or half the columns, of the features in memory at a time
FULL, LARGE = 16, 4096  # vectors in a product, and rows, from which on it goes by the matrix
WIDENED = 256  # rows made float64 at a time on a processor: few enough for its cache
HELD = 4 << 30  # bytes of rows in float32 that are kept, if memory is 4 times as large
ALL = slice(None)

Features = np.ndarray | Stored  # (N, D), any real type


class Halted(Exception):
    """Another thread set `halted`: the solutions are not wanted any more."""


class Space(abc.ABC):
    """N rows x_i, each with its 1, and how the weights of a problem on them are held.

    `count` is N. `width` is how many numbers are held for a problem: D + 1, its weights, or N,
    their coefficients of the rows. `device` is where the tensors are. All that reads the rows
    calls check(), so another thread that sets `halted` stops the solver.
    """

    count: int
    width: int
    device: torch.device
    halted = False

    def check(self) -> None:
        """Raise Halted if another thread has set `halted`."""
        if self.halted:
            raise Halted

    @abc.abstractmethod
    def dual(self, weights: Tensor, image: Tensor) -> Tensor:
        """Return what makes an inner product of weights a plain sum: u.w = sum(u * dual(w)).

        It is (P, width), of WEIGHTS w (P, width) and their IMAGE (P, N); one of the two, no copy.
        """


class ProductSpace(Space):
    """A Space whose rows are seen through two products alone, which conjugate gradients need."""

    @abc.abstractmethod
    def image(self, weights: Tensor) -> Tensor:
        """Return the scores w.x_i, (P, N), of WEIGHTS (P, width), in their type."""

    @abc.abstractmethod
    def combination(self, coefficients: Tensor) -> Tensor:
        """Return the weights sum_i a_i x_i, (P, width), of COEFFICIENTS (P, N), in their type."""


class Gram(ProductSpace):
    """Weights as coefficients (P, N) of the rows, w = sum_i a_i x_i: for N up to D.

    One matrix of N x N holds all there is to know of the rows, whatever D.
    """

    def __init__(self, matrix: Tensor) -> None:
        """Take MATRIX (N, N) float64, of products x_i.x_j."""
        self.matrix = {torch.float64: matrix, torch.float32: matrix.float()}
        self.width = self.count = len(matrix)
        self.device = matrix.device

    def image(self, weights: Tensor) -> Tensor:
        self.check()
        matrix, count = self.matrix[weights.dtype], len(weights)
        if self.device.type != "cpu":
            return weights @ matrix
        # MKL's products differ by up to 1.8 times with what is asked for; see RESULTS.md.
        large = weights.dtype == torch.float32 and count > FULL // 2 and self.count > LARGE
        if count > 2 and (missing := -count % (FULL if large else 4)):
            weights = torch.nn.functional.pad(weights, (0, 0, 0, missing))
        if large:
            return (matrix @ weights.T).T[:count].contiguous()
        return (weights @ matrix.T)[:count]  # the matrix is its own transpose

    def combination(self, coefficients: Tensor) -> Tensor:
        return coefficients

    def dual(self, weights: Tensor, image: Tensor) -> Tensor:
        return image

    def part(self, rows: np.ndarray) -> "Gram":
        """Return the Gram of some ROWS, int (n,)."""
        some = torch.from_numpy(rows).to(self.device)
        return Gram(self.matrix[torch.float64][some[:, None], some])


class Rows(ProductSpace):
    """Weights as they are, (P, D + 1) with the bias last: for N above D. Reads blocks of rows."""

    def __init__(self, features: Features, scale: Tensor, device: str) -> None:
        """Take FEATURES (N, D) and SCALE (N,), by which the rows are multiplied."""
        self.features, self.scale, self.device = features, scale.to(device), torch.device(device)
        self.count, self.width = len(features), features.shape[1] + 1
        self.narrow = np.can_cast(features.dtype, np.float32)
        self.held: list[tuple[slice, Tensor]] | None = None

    def hold(self) -> None:
        """Keep the rows in memory, where there is room: they are to be read many times."""
        size = 4 * self.features.size
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if self.narrow and size <= min(HELD, memory // 4):
            self.held = [(part, rows.clone()) for part, rows in self._read(torch.float32)]

    def _read(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        for part, rows in stored.blocks(self.features, BLOCK):
            yield part, tensor(rows, dtype, self.device)

    def _blocks(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield (which, rows, their scale), of the type DTYPE, of all rows, some at a time.

        Rows of another type are converted in one piece of memory, and stay until the next come:
        to convert them in new memory takes longer than most products.
        """
        scale = self.scale.to(dtype)
        few = WIDENED if self.device.type == "cpu" else BLOCK
        memory = torch.empty(few, self.width - 1, dtype=dtype, device=self.device)
        for whole, rows in self.held or self._read(torch.float32 if self.narrow else dtype):
            size = len(rows) if rows.dtype == dtype else few
            for start in range(0, len(rows), size):
                some = rows[start : start + size]
                part = slice(whole.start + start, whole.start + start + len(some))
                if some.dtype != dtype:
                    some = memory[: len(some)].copy_(some)
                yield part, some, scale[part]

    def image(self, weights: Tensor, signs: Tensor | None = None) -> Tensor:
        """Return the scores; where SIGNS (P, N) of a block of rows are all 0, 0 may stand for them.

        A problem of a fold has a third of the rows held out, most of them in such blocks.
        """
        self.check()
        image = weights.new_zeros(len(weights), self.count)
        for part, rows, scale in self._blocks(weights.dtype):
            some = ALL if signs is None else _present(signs[:, part])
            scores = (weights[some, :-1] @ rows.T).mul_(scale).add_(weights[some, -1:])
            image[some, part] = scores
        return image

    def combination(self, coefficients: Tensor) -> Tensor:
        weights = coefficients.new_zeros(len(coefficients), self.width, dtype=torch.float64)
        for part, rows, scale in self._blocks(coefficients.dtype):
            some = _present(coefficients[:, part])
            scaled = coefficients[some, part] * scale
            if scaled.dtype == weights.dtype and isinstance(some, slice):
                weights[:, :-1].addmm_(scaled, rows)
            else:
                weights[some, :-1] += scaled @ rows
        weights[:, -1] = coefficients.sum(1, dtype=torch.float64)
        return weights.to(coefficients.dtype)

    def squares(self) -> float:
        """Return the sum of |x_i|^2 over the rows."""
        blocks = self._blocks(torch.float64)
        return self.count + sum(((r * s[:, None]) ** 2).sum().item() for _, r, s in blocks)

    def dual(self, weights: Tensor, image: Tensor) -> Tensor:
        return weights


def _present(block: Tensor) -> Any:
    """Return which rows of BLOCK (P, n) are not all 0; a slice if none are."""
    some = block.any(1)
    return ALL if some.all() else some.nonzero()[:, 0]


def tensor(array: np.ndarray, dtype: torch.dtype, device: str | torch.device) -> Tensor:
    """Return ARRAY, of any real type and order, as a tensor, row by row; a copy where it has to."""
    kind = {torch.float32: "f4", torch.float64: "f8"}[dtype]
    return torch.from_numpy(array.astype(kind, "C", copy=not array.flags.writeable)).to(device)


def gram(
    features: Features,
    scale: Tensor,
    device: str = "cpu",
    rows: slice | np.ndarray = ALL,
) -> Tensor:
    """Return the products x_i.x_j + 1, (n, n) float64, of ROWS of FEATURES times SCALE (N,).

    The 1 is of the bias. Reads blocks of columns.
    """
    scale = scale[rows].to(device)
    products = torch.zeros(len(scale), len(scale), dtype=torch.float64, device=device)
    parts = [slice(at, at + BLOCK // 4) for at in range(0, len(scale), BLOCK // 4)]
    for part in _columns(features):
        some = tensor(features[rows, part], torch.float64, device)
        for below in parts:  # the half below the diagonal; the other is the same
            products[below, : below.stop].addmm_(some[below], some[: below.stop].T)
    for below in parts:
        products[: below.start, below] = products[below, : below.start].T
    return products.mul_(scale[:, None]).mul_(scale).add_(1)


def cross_gram(
    features: Features,
    scale: Tensor,
    rows: slice | np.ndarray,
    others: Features,
    other_scale: Tensor,
) -> Tensor:
    """Return the products x_i.y_j + 1, (n, M) float64, of ROWS of FEATURES and all rows of OTHERS.

    The rows of each are multiplied by its scale, (N,) and (M,).
    """
    scale = scale[rows]
    products = torch.zeros(len(scale), len(other_scale), dtype=torch.float64)
    for part in _columns(features):
        left = tensor(features[rows, part], torch.float64, "cpu")
        products.addmm_(left, tensor(others[:, part], torch.float64, "cpu").T)
    return products.mul_(scale[:, None]).mul_(other_scale).add_(1)


def _columns(features: Features) -> Iterator[slice]:
    """Yield the columns of FEATURES, some at a time."""
    for start in range(0, features.shape[1], BLOCK // 2):
        yield slice(start, start + BLOCK // 2)


class Preconditioner:
    """H on the RANK directions in which the rows are longest, and its mean on all others.

    `spread` is the variance of the rows in the direction in which they differ most.
    """

    def __init__(self, space: ProductSpace, seed: int = 0) -> None:
        """Find the directions of SPACE by subspace iteration from a random start of SEED."""
        self.space = space
        basis, self.spread = longest(space, RANK, seed)
        # Made orthonormal; what the rows do not span, as copies of rows do not, is left out.
        images = space.image(basis)
        length, turn = torch.linalg.eigh(space.dual(basis, images) @ basis.T)
        kept = length > 1e-6 * length[-1]
        turn = (turn[:, kept] / length[kept].sqrt()).T
        basis, images = turn @ basis, turn @ images
        self.rest = torch.linalg.eigvalsh(images @ images.T)[0].item() / 2
        # (R, width), (R, N)
        self.basis = {d: (basis.to(d), images.to(d)) for d in (torch.float32, torch.float64)}

    def inverse(self, curvature: Tensor) -> "Inverse":
        """Return about H^-1 of the problems whose active rows have CURVATURE c_i, (P, N)."""
        basis, images = self.basis[curvature.dtype]
        small = torch.stack([(images * c) @ images.T for c in curvature]).double()
        one = torch.eye(small.shape[1], dtype=small.dtype, device=small.device)
        active = (curvature > 0).sum(1).clamp(min=1)
        rest = 1 / (1 + self.rest * curvature.sum(1) / active)
        small = torch.linalg.inv(small + one) - rest[:, None, None] * one
        return Inverse(self.space, rest[:, None], small.to(curvature.dtype), basis, images)


@dataclass
class Inverse:
    """About H^-1 of P problems on a space: REST everywhere, and SMALL more on the BASIS."""

    space: ProductSpace
    rest: Tensor  # (P, 1)
    small: Tensor  # (P, R, R)
    basis: Tensor  # (R, width)
    images: Tensor  # (R, N), of the basis

    def only(self, some: Tensor) -> "Inverse":
        """Return that of SOME of the problems, a mask (P,)."""
        return Inverse(self.space, self.rest[some], self.small[some], self.basis, self.images)

    def apply(self, weights: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return about H^-1 w, and its image, of WEIGHTS w (P, width) and their IMAGE (P, N)."""
        inner = self.space.dual(weights, image) @ self.basis.T
        inner = torch.bmm(self.small, inner[:, :, None])[:, :, 0]
        return self.rest * weights + inner @ self.basis, self.rest * image + inner @ self.images


def longest(space: ProductSpace, rank: int, seed: int) -> tuple[Tensor, float]:
    """Return weights (R, width) float64 of RANK directions in which the rows are longest; spread().

    There are fewer where SPACE has. By subspace iteration from a random start of SEED; they are not
    orthonormal in the inner product of weights.
    """
    rank = min(rank, space.width, space.count)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(rank, space.width, generator=generator).to(space.device)
    for _ in range(4):
        basis = torch.linalg.qr(space.combination(space.image(basis)).T)[0].T
    start = torch.randn(1, space.width, generator=generator, dtype=torch.float64)
    return basis.double(), spread(space, start.to(space.device))


def spread(space: ProductSpace, start: Tensor) -> float:
    """Return the variance of the rows of SPACE in the direction in which they differ most.

    By power iteration in float64 from START, weights (1, width): what rows that are nearly alike
    differ by is lost in less.
    """
    weights, variance = start, 0.0
    for _ in range(10):
        image = space.image(weights)
        length = (weights * space.dual(weights, image)).sum()
        apart = image - image.mean(1, keepdim=True)
        if not length > 0 or not apart.any():
            break
        variance = (apart**2).mean().item() / length.item()
        weights = space.combination(apart / apart.norm())
    return variance


class Solutions(NamedTuple):
    """What solves P problems: their weights, and how near these are to the least of P(w)."""

    weights: Tensor  # (P, width) float64, as the space holds them
    images: Tensor  # (P, N) float64: w.x_i
    gaps: Tensor  # (P,): a bound of P(w) - min P by what is allowed; above 1 if it stopped early


@dataclass
class State:
    """L problems that are not solved yet, at their present weights; all is float64."""

    numbers: Tensor  # (L,) int64, which of the P problems they are
    signs: Tensor  # (L, N)
    curvature: Tensor  # (L, N): c_i
    weights: Tensor  # (L, width)
    images: Tensor  # (L, N)
    active: Tensor  # (L, N) bool: the rows with an error
    value: Tensor  # (L,): P(w)
    descent: Tensor  # (L, width): minus the gradient
    descent_images: Tensor  # (L, N), in the type of the steps
    gap: Tensor  # (L,): as in Solutions

    def only(self, some: Tensor) -> "State":
        """Return the state of SOME of the problems, a mask (L,)."""
        return State(*(getattr(self, each.name)[some] for each in fields(self)))


def evaluate(
    space: ProductSpace,
    spread: float,
    numbers: Tensor,
    signs: Tensor,
    costs: Tensor,
    weights: Tensor,
    images: Tensor,
    kind: torch.dtype,
) -> State:
    """Return the State of the problems NUMBERS, of SIGNS (L, N) and COSTS (L,), at WEIGHTS.

    SPREAD is that of the rows of SPACE; IMAGES (L, N) are those of the WEIGHTS (L, width). A gap is
    found in the type KIND, and where that seems near enough in float64: it alone gives 1 or less.
    """
    signs = signs.double()
    c = curvature(signs, costs)
    error = (1 - signs * images).clamp_(min=0)
    force = c * error
    norm = (weights * space.dual(weights, images)).sum(1)
    value = (norm + (force * error).sum(1)) / 2
    active = error > 0
    stiffness, variance = (c * active).sum(1), images.var(1, correction=0)
    bound = allowed(value, variance, spread, stiffness, force.sum(1))
    descent = space.combination(force * signs) - weights
    descent_images, gap = _half_square(space, descent, kind)
    gap /= bound
    if kind != torch.float64:
        near = gap <= NEAR
        gap.clamp_(min=MORE)
        if near.any():
            gap[near] = _half_square(space, descent[near], torch.float64)[1] / bound[near]
    return State(numbers, signs, c, weights, images, active, value, descent, descent_images, gap)


def _half_square(space: ProductSpace, weights: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the image of WEIGHTS (L, width), found in the type KIND, and half their squares, (L,).

    The squares are float64.
    """
    weights = weights.to(kind)
    images = space.image(weights)
    return images, (weights * space.dual(weights, images)).sum(1).clamp_(min=0).double() / 2


def solve(
    space: ProductSpace,
    preconditioner: Preconditioner,
    signs: Tensor,
    costs: Tensor,
    start: Solutions | None = None,
) -> Solutions:
    """Return the Solutions of the problems of SIGNS (P, N) int8 and COSTS (P,) float64.

    START are solutions of others like them. A gap exceeds 1 where rounding or the limit of steps
    came first. Raises Halted if the space is.
    """
    count = len(signs)
    if start is None:
        weights = torch.zeros(count, space.width, dtype=torch.float64, device=space.device)
        images = torch.zeros(count, space.count, dtype=torch.float64, device=space.device)
    else:
        weights, images = start.weights.clone(), start.images.clone()
    gaps = torch.full((count,), torch.inf, dtype=torch.float64, device=space.device)
    for kind in (torch.float32, torch.float64):
        live = (gaps > 1).nonzero()[:, 0]
        before = least = torch.full_like(gaps[live], torch.inf)  # value and gap, a step ago
        for _ in range(MAX_NEWTON if len(live) else 0):
            state = evaluate(
                space, preconditioner.spread, live, signs[live], costs[live], weights[live],
                images[live], kind,
            )  # fmt: skip
            gaps[live] = state.gap
            going = (state.gap > 1) & (
                (state.value < before * (1 - 1e-13)) | (state.gap < least / 2)
            )
            if not going.any():
                break
            state = state.only(going)
            live, before, least = state.numbers, state.value, state.gap
            step, change = newton_step(space, preconditioner, state, kind)
            length = search(space, state, step, change)[:, None]
            weights[live] = moved = state.weights + length * step
            images[live] = space.image(moved)  # anew: sums of float32 would drift
    return Solutions(weights, images, gaps)


def extrapolate(
    space: ProductSpace, signs: Tensor, costs: Tensor, last: Sequence[Solutions]
) -> Solutions:
    """Return where the problems of SIGNS (P, N) and COSTS (P,) may start, from the LAST solutions.

    It is where P is least among the last of them and their moves from cost to cost, which are at
    most two.
    """
    weights, images, gaps = last[-1]
    moves = [(b.weights - a.weights, b.images - a.images) for a, b in itertools.pairwise(last)]
    pairs = [(weights, images), *moves]
    ways, seen = (torch.stack(some, 1).float() for some in zip(*pairs, strict=True))
    norm = (ways * space.dual(ways, seen)).sum(2, keepdim=True)
    factor = torch.where(norm > 0, norm.rsqrt(), 0)
    ways, seen = ways.mul_(factor), seen.mul_(factor)
    sides = roots(signs, costs)
    errors = margins(sides, images)
    force = (sides * errors.clamp(min=0)).float()
    slopes = ways @ space.dual(weights, images).float()[:, :, None] - seen @ force[:, :, None]
    products = ways @ space.dual(ways, seen).transpose(1, 2)
    y = least(errors.float(), sides.float()[:, None] * seen, slopes[:, :, 0], products)
    # In float64, so that the images are those of the weights.
    lengths = (y[:, :, None] * factor).double().unbind(1)
    for length, (move, change) in zip(lengths, pairs, strict=True):
        weights, images = weights + length * move, images + length * change
    return Solutions(weights, images, gaps)


def allowed(
    value: Tensor,
    variance: Tensor,
    spread: float,
    stiffness: Tensor,
    force: Tensor,
    order: float | Tensor = ORDER,
) -> Tensor:
    """Return the gap, (P,), at which P(w) and the order of the scores are near enough.

    VALUE is P(w), VARIANCE that of the scores; STIFFNESS is the sum of c_i over the active rows,
    FORCE that of |a_i|. With v the SPREAD of the rows, P is at least as curved as
    |w|^2 / 2 + STIFFNESS x variance of the scores of w / 2, if active rows vary as all do. So a gap
    g leaves the scores an error whose variance is at most 2 g v / (1 + STIFFNESS v); the root of it
    shall be ORDER of theirs. No sum comes nearer than ROUNDING.
    """
    value, rounded = TOLERANCE * value, (ROUNDING * force) ** 2
    if not spread:  # all rows alike: they have one score
        return torch.maximum(value, rounded)
    ordered = order**2 * variance * (1 / spread + stiffness) / 2
    return torch.minimum(value, ordered).maximum(rounded)


def curvature(signs: Tensor, costs: Tensor) -> Tensor:
    """Return c_i, (P, N) float64, of SIGNS (P, N) and COSTS (P,)."""
    return 2 * costs[:, None] * signs.abs() * torch.where(signs == 1, POSITIVE_WEIGHT, 1)


def roots(signs: Tensor, costs: Tensor) -> Tensor:
    """Return the roots of c_i times s_i, (P, N) float64, of SIGNS (P, N) and COSTS (P,)."""
    return curvature(signs, costs).sqrt_().mul_(signs)


def margins(sides: Tensor, images: Tensor) -> Tensor:
    """Return the roots of c_i, which are abs(SIDES), times (1 - s_i w.x_i): (P, N) float64.

    SIDES are as roots() gives them, or those in another type. Where it is above 0 a row has an
    error; P is half of |w|^2 and of the sum of those squared.
    """
    return (sides * images).neg_().add_(sides.abs())


def coefficients(signs: Tensor, costs: Tensor, images: Tensor) -> Tensor:
    """Return a_i, (P, N), of solutions with IMAGES (P, N): there w = sum_i a_i x_i."""
    return curvature(signs, costs) * signs * (1 - signs * images).clamp(min=0)


@dataclass
class Residuals:
    """What conjugate gradients know of the L steps that are not near enough yet.

    A step s solves H s = d; REST is what is left of it, d - H s.
    """

    numbers: Tensor  # (L,) int64, which of the P steps they are
    active: Tensor  # (L, N): c_i of the active rows
    rest: Tensor  # (L, width)
    images: Tensor  # (L, N), of the rest
    direction: Tensor  # (L, width): in which the step grew last
    direction_images: Tensor  # (L, N)
    product: Tensor  # (L,): that of the rest before and about H^-1 of it
    enough: Tensor  # (L,): the product at which a step is near enough

    def only(self, some: Tensor) -> "Residuals":
        """Return those of SOME of the steps, a mask (L,)."""
        return Residuals(*(getattr(self, each.name)[some] for each in fields(self)))


def newton_step(
    space: ProductSpace, preconditioner: Preconditioner, state: State, kind: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return about the Newton steps H^-1 d of the problems of STATE, and their images, float64.

    d is the descent. Conjugate gradients in the inner product of weights, in the type KIND, with
    the images of all that is summed, until a part of d is left that shrinks with the gap.
    """
    active = torch.where(state.active, state.curvature, 0).to(kind)
    descent, image = state.descent.to(kind), state.descent_images.to(kind)
    forcing = (state.gap.rsqrt() / 2).clamp_(*FORCING).to(kind)
    step, change = torch.zeros_like(descent), torch.zeros_like(active)
    inverse = preconditioner.inverse(active)
    left = Residuals(
        numbers=torch.arange(len(descent), device=descent.device),
        active=active,
        rest=descent,
        images=image,
        direction=torch.zeros_like(descent),
        direction_images=torch.zeros_like(active),
        product=torch.full_like(descent[:, 0], torch.inf),
        enough=torch.zeros_like(descent[:, 0]),
    )
    for iteration in range(MAX_CG):
        better, better_images = inverse.apply(left.rest, left.images)
        product = (better * space.dual(left.rest, left.images)).sum(1)
        if not iteration:
            left.enough = forcing**2 * product
        going = product > left.enough
        if not going.any():
            break
        if not going.all():
            left, inverse = left.only(going), inverse.only(going)
            better, better_images, product = better[going], better_images[going], product[going]
        ratio, left.product = (product / left.product)[:, None], product
        left.direction = better + ratio * left.direction
        left.direction_images = better_images + ratio * left.direction_images
        curved = left.active * left.direction_images
        norm = (left.direction * space.dual(left.direction, left.direction_images)).sum(1)
        length = (product / (norm + (curved * left.direction_images).sum(1)))[:, None]
        step[left.numbers] += length * left.direction
        change[left.numbers] += length * left.direction_images
        left.rest = left.rest - length * (left.direction + space.combination(curved))
        left.images = space.image(left.rest)
    return step.double(), change.double()


def search(space: ProductSpace, state: State, step: Tensor, change: Tensor) -> Tensor:
    """Return where along STEP each objective of STATE is least, (L,): Newton, kept in a bracket.

    CHANGE (L, N) are the images of STEP (L, width).
    """
    dual, c = space.dual(step, change), state.curvature
    first, second = (state.weights * dual).sum(1), (step * dual).sum(1)
    length = torch.ones_like(first)
    low, high = torch.zeros_like(first), torch.full_like(first, torch.inf)
    for _ in range(30):
        error = (1 - state.signs * (state.images + length[:, None] * change)).clamp_(min=0)
        slope = first + length * second - (c * state.signs * change * error).sum(1)
        bend = second + (c * change**2 * (error > 0)).sum(1)
        low, high = torch.where(slope < 0, length, low), torch.where(slope > 0, length, high)
        new = torch.where(bend > 0, length - slope / bend, length)
        new = torch.where((new < low) | (new > high), (low + high.clamp(max=1e6)) / 2, new)
        moved, length = (new - length).abs(), new
        if moved.max() < 1e-5:
            break
    return length


def least(margins: Tensor, directions: Tensor, slopes: Tensor, products: Tensor) -> Tensor:
    """Return y (L, K), where P(w + sum_j y_j v_j) is about least, by damped Newton steps in y.

    MARGINS (L, N) are margins() of w; DIRECTIONS (L, K, N) the images of the v, times the
    roots of c_i; SLOPES (L, K) the derivatives of P by y at 0; PRODUCTS (L, K, K) v_i.v_j: all of
    one type. What P falls by is summed from differences: P itself is rounded.
    """
    kind = slopes.dtype
    start = error = margins.clamp(min=0)
    ridge = RIDGE[kind] * torch.eye(slopes.shape[1], dtype=kind, device=slopes.device)
    y, fall, gradient = torch.zeros_like(slopes), torch.zeros_like(slopes[:, 0]), slopes
    settled = torch.zeros_like(fall, dtype=torch.bool)  # the problems whose y stays, (L,)
    for _ in range(IN_Y):
        bent = (directions * error.sign()[:, None]) @ directions.transpose(1, 2) + products
        size = bent.diagonal(dim1=1, dim2=2).clamp(min=1e-30).rsqrt()
        scaled = bent * size[:, :, None] * size[:, None] + ridge
        step = -size * torch.linalg.solve(scaled, size * gradient)
        settled = settled | (-(step * gradient).sum(1) / 2 <= ENOUGH * fall)
        if settled.all():
            break
        left = ~settled
        for _ in range(HALVINGS):
            new = torch.where(left[:, None], y + step, y)
            change = (new[:, None] @ directions)[:, 0]
            after = (margins - change).clamp_(min=0)
            moved = after - start
            bend = (products @ new[:, :, None])[:, :, 0]
            loss = (moved**2).sum(1) / 2 + (change.add_(moved).mul_(start)).sum(1)
            fallen = -((slopes + bend / 2) * new).sum(1) - loss
            better = left & (fallen > fall)
            if better.all():
                y, fall, error, left = new, fallen, after, ~better
                break
            fall, left = torch.where(better, fallen, fall), left & ~better
            y[better], error = new[better], torch.where(better[:, None], after, error)
            if not left.any():
                break
            step = step / 4
        settled = settled | left  # rounding hides what there is to gain
        gradient = (
            slopes
            + (products @ y[:, :, None])[:, :, 0]
            - (directions @ (error - start)[:, :, None])[:, :, 0]
        )
    return y
