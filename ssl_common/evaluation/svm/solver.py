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

Steps are found in float32 and judged in float64, so rounding costs steps and not exactness; where
float32 finds no further step, float64 does.
"""

import torch

from ssl_common import stored

POSITIVE_WEIGHT = 2
TOLERANCE = 1e-7  # of the objective
ORDER = 1e-4  # of the spread of the scores
ROUNDING = 1e-14  # of what is summed
FORCING = 0.01, 0.1  # by which a Newton step reduces the gradient of its quadratic
MAX_NEWTON, MAX_CG = 100, 500
RANK = 64  # of the preconditioner
BLOCK = 4096  # rows, or columns, of the features in memory at a time
ALL = slice(None)


class Gram:
    """Weights as coefficients (P, N) of the rows, w = sum_i a_i x_i: for N up to D.

    One matrix of N x N holds all there is to know of the rows, whatever D.
    """

    halted = False

    def __init__(self, matrix):
        """Take MATRIX (N, N) float64, of products x_i.x_j."""
        self.matrix = {torch.float64: matrix, torch.float32: matrix.float()}
        self.width = self.count = len(matrix)
        self.device = matrix.device

    def image(self, weights):
        """Return w.x_i, (P, N), of WEIGHTS (P, width)."""
        check(self)
        return weights @ self.matrix[weights.dtype]

    def combination(self, coefficients):
        """Return the weights sum_i a_i x_i of COEFFICIENTS (P, N)."""
        return coefficients

    def dual(self, _weights, image):
        """Return what an inner product multiplies plainly with other weights."""
        return image

    def part(self, rows):
        """Return the Gram of some ROWS."""
        return Gram(self.matrix[torch.float64][rows][:, rows])


class Rows:
    """Weights as they are, (P, D + 1) with the bias last: for N above D. Reads blocks of rows."""

    halted = False

    def __init__(self, features, scale, device):
        """Take FEATURES (N, D), an array or Stored, and SCALE (N,) of its rows."""
        self.features, self.scale, self.device = features, scale.to(device), torch.device(device)
        self.count, self.width = len(features), features.shape[1] + 1

    def _blocks(self, dtype):
        for part, rows in stored.blocks(self.features, BLOCK):
            yield part, tensor(rows, dtype, self.device), self.scale[part].to(dtype)

    def image(self, weights):
        """Return w.x_i, (P, N), of WEIGHTS (P, D + 1)."""
        check(self)
        found = weights.new_empty(len(weights), self.count)
        for part, rows, scale in self._blocks(weights.dtype):
            found[:, part] = (weights[:, :-1] @ rows.T).mul_(scale).add_(weights[:, -1:])
        return found

    def combination(self, coefficients):
        """Return the weights sum_i a_i x_i, (P, D + 1), of COEFFICIENTS (P, N)."""
        found = coefficients.new_zeros(len(coefficients), self.width)
        for part, rows, scale in self._blocks(coefficients.dtype):
            found[:, :-1] += (coefficients[:, part] * scale) @ rows
        found[:, -1] = coefficients.sum(1)
        return found

    def dual(self, weights, _image):
        """Return what an inner product multiplies plainly with other weights."""
        return weights


class Halted(Exception):
    """Another thread set `halted`: the solution is not wanted any more."""


def check(space):
    """Raise Halted if SPACE is."""
    if space.halted:
        raise Halted


def tensor(array, dtype, device):
    """Return ARRAY, of any real type and order, as a tensor, row by row; a copy where it has to."""
    kind = {torch.float32: "f4", torch.float64: "f8"}[dtype]
    return torch.from_numpy(array.astype(kind, "C", copy=not array.flags.writeable)).to(device)


def gram(features, scale, device="cpu", rows=ALL, others=None, other_scale=None):
    """Return x_i.y_j + 1, (N, M) float64, of ROWS of FEATURES and all of OTHERS (the same rows).

    Each is multiplied by its SCALE; the 1 is the bias. Reads blocks of columns.
    """
    scale = scale[rows].to(device)
    other_scale = scale if others is None else other_scale.to(device)
    found = torch.zeros(len(scale), len(other_scale), dtype=torch.float64, device=device)
    for start in range(0, features.shape[1], BLOCK // 4):
        part = slice(start, start + BLOCK // 4)
        left = tensor(features[rows, part], torch.float64, device)
        right = left if others is None else tensor(others[:, part], torch.float64, device)
        found.addmm_(left, right.T)
    return found.mul_(scale[:, None]).mul_(other_scale).add_(1)


class Preconditioner:
    """H on the RANK directions in which the rows are longest, and its mean on all others.

    `spread` is the variance of the rows in the direction in which they differ most.
    """

    def __init__(self, space, seed=0):
        """Find the directions of SPACE by subspace iteration from a start drawn from SEED."""
        self.space = space
        rank = min(RANK, space.width, space.count)
        generator = torch.Generator().manual_seed(seed)
        basis = torch.randn(rank, space.width, generator=generator).to(space.device)
        for _ in range(4):
            basis = torch.linalg.qr(space.combination(space.image(basis)).T)[0].T
        basis = basis.double()
        # Made orthonormal; what the rows do not span, as copies of rows do not, is left out.
        length, turn = torch.linalg.eigh(space.dual(basis, space.image(basis)) @ basis.T)
        kept = length > 1e-6 * length[-1]
        basis = (turn[:, kept] / length[kept].sqrt()).T @ basis
        images = space.image(basis)
        self.rest = torch.linalg.eigvalsh(images @ images.T)[0].item() / 2
        start = torch.randn(1, space.width, generator=generator, dtype=torch.float64)
        self.spread = spread(space, start.to(space.device))
        self.found = {d: (basis.to(d), images.to(d)) for d in (torch.float32, torch.float64)}

    def prepare(self, curvature):
        """Return what apply needs of CURVATURE, (P, N): c_i of the active rows."""
        basis, images = self.found[curvature.dtype]  # (R, width), (R, N)
        small = torch.stack([(images * c) @ images.T for c in curvature]).double()
        one = torch.eye(small.shape[1], dtype=small.dtype, device=small.device)
        active = (curvature > 0).sum(1).clamp(min=1)
        rest = 1 / (1 + self.rest * curvature.sum(1) / active)
        inverse = torch.linalg.inv(small + one) - rest[:, None, None] * one
        return rest[:, None], inverse.to(curvature.dtype), basis, images

    def apply(self, prepared, weights, image):
        """Return about H^-1 w, and its image, of WEIGHTS w (P, width) and their IMAGE."""
        rest, inverse, basis, images = prepared
        inner = self.space.dual(weights, image) @ basis.T
        inner = torch.bmm(inverse, inner[:, :, None])[:, :, 0]
        return rest * weights + inner @ basis, rest * image + inner @ images


def spread(space, start):
    """Return the variance of the rows of SPACE in the direction in which they differ most.

    By power iteration in float64 from START, weights (1, width): what rows that are nearly alike
    differ by is lost in less.
    """
    weights, found = start, 0.0
    for _ in range(10):
        image = space.image(weights)
        length = (weights * space.dual(weights, image)).sum()
        apart = image - image.mean(1, keepdim=True)
        if not length > 0 or not apart.any():
            break
        found = (apart**2).mean().item() / length.item()
        weights = space.combination(apart / apart.norm())
    return found


def solve(space, preconditioner, signs, costs, start=None):
    """Solve the problems of SIGNS (P, N) int8 and COSTS (P,); return (weights, images, gaps).

    START is (weights, images) of others like them. Weights are as SPACE holds them, images are
    w.x_i, (P, N), both float64; a gap, (P,), bounds P(w) - min P by what is allowed, and exceeds 1
    where rounding or the limit of steps came first.
    """
    count = len(signs)
    if start is None:
        weights = torch.zeros(count, space.width, dtype=torch.float64, device=space.device)
        images = torch.zeros(count, space.count, dtype=torch.float64, device=space.device)
    else:
        weights, images = start[0].clone(), start[1].clone()
    gaps = torch.full((count,), torch.inf, dtype=torch.float64, device=space.device)
    for kind in (torch.float32, torch.float64):
        live = (gaps > 1).nonzero()[:, 0]
        before = least = torch.full_like(gaps[live], torch.inf)
        for _ in range(MAX_NEWTON if len(live) else 0):
            sign, weight, image = signs[live].double(), weights[live], images[live]
            c = curvature(sign, costs[live])
            error = (1 - sign * image).clamp_(min=0)
            force = c * error
            norm = (weight * space.dual(weight, image)).sum(1)
            value = (norm + (force * error).sum(1)) / 2
            descent = space.combination(force * sign) - weight  # minus the gradient
            its_image = space.image(descent)
            gap = (descent * space.dual(descent, its_image)).sum(1).clamp_(min=0) / 2
            stiffness, variance = (c * (error > 0)).sum(1), image.var(1, correction=0)
            spread = preconditioner.spread
            gap /= allowed(value, variance, spread, stiffness, force.sum(1))
            gaps[live] = gap
            going = (gap > 1) & ((value < before * (1 - 1e-13)) | (gap < least / 2))
            if not going.any():
                break
            live, before, least, sign, c = (each[going] for each in (live, value, gap, sign, c))
            weight, image, descent, its_image = (
                each[going] for each in (weight, image, descent, its_image)
            )
            active = torch.where(error[going] > 0, c, 0).to(kind)
            forcing = (least.rsqrt() / 2).clamp_(*FORCING).to(kind)
            step = newton(
                space, preconditioner, active, descent.to(kind), its_image.to(kind), forcing
            )
            step, change = (each.double() for each in step)
            length = search(space, weight, image, step, change, sign, c)[:, None]
            weights[live] = weight = weight + length * step
            images[live] = space.image(weight)  # anew: sums of float32 would drift
    return weights, images, gaps


def allowed(value, variance, spread, stiffness, force, order=ORDER):
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


def curvature(signs, costs):
    """Return c_i, (P, N) float64, of SIGNS (P, N) and COSTS (P,)."""
    return 2 * costs[:, None] * signs.abs() * torch.where(signs == 1, POSITIVE_WEIGHT, 1)


def coefficients(signs, costs, images):
    """Return a_i, (P, N), of solutions with IMAGES (P, N): there w = sum_i a_i x_i."""
    return curvature(signs, costs) * signs * (1 - signs * images).clamp(min=0)


def newton(space, preconditioner, active, descent, image, forcing):
    """Return about the Newton step H^-1 d of DESCENT d (P, width) with IMAGE (P, N), and its image.

    ACTIVE (P, N) holds c_i of the active rows. Conjugate gradients in the inner product of weights,
    with the images of all that is summed, until FORCING (P,) of the gradient is left.
    """
    step, change = torch.zeros_like(descent), torch.zeros_like(active)
    prepared = preconditioner.prepare(active)
    live = torch.arange(len(descent), device=descent.device)
    rest, direction, along = descent, torch.zeros_like(descent), torch.zeros_like(active)
    old = torch.full_like(descent[:, 0], torch.inf)
    for iteration in range(MAX_CG):
        better, better_image = preconditioner.apply(prepared, rest, image)
        new = (better * space.dual(rest, image)).sum(1)
        if not iteration:
            enough = forcing**2 * new
        going = new > enough
        if not going.all():
            if not going.any():
                break
            live, rest, direction, along, old, new, enough, active, better, better_image = (
                each[going]
                for each in (live, rest, direction, along, old, new, enough, active, better)
                + (better_image,)
            )
            prepared = (prepared[0][going], prepared[1][going], *prepared[2:])
        ratio, old = (new / old)[:, None], new
        direction, along = better + ratio * direction, better_image + ratio * along
        curved = active * along
        norm = (direction * space.dual(direction, along)).sum(1)
        length = (new / (norm + (curved * along).sum(1)))[:, None]
        step[live] += length * direction
        change[live] += length * along
        rest = rest - length * (direction + space.combination(curved))
        image = space.image(rest)
    return step, change


def search(space, weights, images, step, change, sign, c):
    """Return where along STEP each objective is least, (P,): Newton, kept in a bracket."""
    dual = space.dual(step, change)
    first, second = (weights * dual).sum(1), (step * dual).sum(1)
    length = torch.ones_like(first)
    low, high = torch.zeros_like(first), torch.full_like(first, torch.inf)
    for _ in range(30):
        error = (1 - sign * (images + length[:, None] * change)).clamp_(min=0)
        slope = first + length * second - (c * sign * change * error).sum(1)
        curvature = second + (c * change**2 * (error > 0)).sum(1)
        low, high = torch.where(slope < 0, length, low), torch.where(slope > 0, length, high)
        new = torch.where(curvature > 0, length - slope / curvature, length)
        new = torch.where((new < low) | (new > high), (low + high.clamp(max=1e6)) / 2, new)
        moved, length = (new - length).abs(), new
        if moved.max() < 1e-5:
            break
    return length
