r"""linear(): y = A x + e of normal pixels: grey for colour, means of blocks, blur.

With x | z ~ N(m, S), S diagonal, and e ~ N(0, n^2 I):

.. math:: y \mid z \sim N(A m, C), \quad C = A S A^T + n^2 I, \qquad
    x \mid y, z \sim N(m + S A^T C^{-1} (y - A m), \; S - S A^T C^{-1} A S)

C is diagonal where no two rows of A share a pixel. Else one eigendecomposition of A A' serves all z, where pixels have
one scale; and where they have not, C is factorised for each z.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions.transforms import ReshapeTransform

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError
from pyrovae.pairs.missing.entries import Completed
from pyrovae.pairs.operators.operator import Operator, sizes
from pyrovae.pairs.operators.rotation import Rotated
from pyrovae.pairs.supports import layers
from pyrovae.pairs.traces import family

FACTORISED = 2**28  # numbers of all the matrices C that are factorised at once: 1 GiB in float32
SINGULAR = 1e-9  # least eigenvalue of A A' over its largest, where y is A x exactly
NOT_THE_SAME = 1e-4  # how far A x may be from a y that it is said to be, relative to 1 + |y|


class Marginal(NamedTuple):
    """What is known of y = A x + e at some z; x and y are vectors."""

    fn: Any  # distribution of y, events (M,)
    solve: Callable[[Tensor], Tensor]  # r (..., M) -> C^{-1} r
    explained: Callable[[], Tensor]  # a_d' C^{-1} a_d for each pixel d, with a_d the columns of A: (..., D)


class Map(Protocol):
    """A, by one of two layouts."""

    def forward(self, x: Tensor) -> Tensor: ...
    def adjoint(self, y: Tensor) -> Tensor: ...
    def marginal(self, loc: Tensor, scale: Tensor, noise: float) -> Marginal: ...
    def gram(self) -> Tensor:
        """Eigenvalues of A A', (M,)."""
        ...


@checked
def linear(
    matrix: Tensor,
    *,
    shape: Sequence[int] | None = None,
    of_shape: Sequence[int] | None = None,
    noise: float = 0.0,
    name: str = "linear",
) -> Operator:
    """Observes y = A x + e, for a likelihood of independent normal pixels.

    Args:
        matrix: A, (M, D): each number of y as a weighted sum of the numbers of x.
        shape: of x, with D numbers; (D,) where None.
        of_shape: of y, with M numbers; (M,) where None.
        noise: standard deviation of e; 0 for a y that is A x exactly.
        name: what records call it.

    Raises:
        InputError: for sizes that do not fit; for rows that depend on each other without noise; when it is used, for a
            likelihood of something else, and where C would be factorised for too many z.

    References:
        Bishop (2006), Pattern recognition and machine learning, section 2.3.3.

    Example:
        >>> mean = linear(torch.tensor([[0.5, 0.5]]))
        >>> x = dist.Normal(torch.zeros(1, 2), 1.0).to_event(1)
        >>> mean.restore(x, torch.tensor([[3.0]])).mean
        tensor([[3., 3.]])
    """
    if matrix.dim() != 2 or not bool(matrix.isfinite().all()):
        raise InputError(f"{name}: expected a finite matrix (M, D), got shape {tuple(matrix.shape)}")
    if not (noise >= 0 and math.isfinite(noise)):
        raise InputError(f"{name}: noise is a standard deviation of 0 or more, got {noise}")
    of_x, of_y = sizes(shape or matrix.shape[1:]), sizes(of_shape or matrix.shape[:1])
    if (of_y.numel(), of_x.numel()) != matrix.shape:
        shapes = f"{tuple(of_x)} to {tuple(of_y)}"
        raise InputError(f"{name}: a matrix of shape {tuple(matrix.shape)} does not take images of shape {shapes}")
    is_disjoint = bool(((matrix != 0).sum(0) <= 1).all())
    return _Linear(Disjoint(matrix) if is_disjoint else Dense(matrix), of_x, of_y, noise, name).operator()


class _Linear:
    """The functions of an operator y = A x + e."""

    def __init__(self, through: Map, shape: Size, of_shape: Size, noise: float, name: str) -> None:
        self.map, self.shape, self.of_shape, self.noise, self.name = through, shape, of_shape, noise, name
        gram = through.gram()
        if noise == 0 and gram.min() <= SINGULAR * gram.max():
            raise InputError(f"{name}: some numbers of y say nothing, or follow from others: give noise > 0")
        self.log_volume = 0.0 if noise else float(gram.log().sum()) / 2

    def operator(self) -> Operator:
        num_hidden = self.shape.numel() - (0 if self.noise else self.of_shape.numel())
        return Operator(
            self.name,
            self.shape,
            self.of_shape,
            self.draw,
            self.observe,
            self.restore,
            self.log_likelihood,
            self.fill,
            num_hidden=lambda y: torch.full((len(y),), float(num_hidden), dtype=torch.float64),
        )

    def draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        y = self._forward(x)
        return y + self.noise * torch.randn(y.shape, generator=generator, dtype=y.dtype).to(y.device)

    def fill(self, y: Tensor) -> Tensor:
        """The x of least norm whose A x is y, about: by one step, exact where rows share nothing and are as long."""
        flat = y.flatten(1)
        length = self.map.forward(self.map.adjoint(torch.ones_like(flat[:1]))).clamp_min(SINGULAR)
        return self.map.adjoint(flat / length).unflatten(-1, self.shape)

    def observe(self, fn: Any) -> Any:
        flat = self._marginal(fn)[2].fn
        if len(self.of_shape) == 1:
            return flat
        if isinstance(flat, torch.distributions.Independent):
            base = flat.base_dist
            loc, scale = (one.unflatten(-1, self.of_shape) for one in (base.loc, base.scale))
            return dist.Normal(loc, scale, validate_args=False).to_event(len(self.of_shape))
        reshaped = ReshapeTransform(Size([self.of_shape.numel()]), self.of_shape)
        return dist.TransformedDistribution(flat, [reshaped])

    def restore(self, fn: Any, y: Tensor) -> Completed:
        loc, scale, marginal = self._marginal(fn)
        flat, square = y.flatten(y.dim() - len(self.of_shape)), scale.square()
        drawn = loc + scale * torch.randn_like(loc)
        seen = self.map.forward(drawn)
        seen = seen + self.noise * torch.randn_like(seen)

        def moved(away: Tensor) -> Tensor:
            return square * self.map.adjoint(marginal.solve(away))

        variance = (square - square.square() * marginal.explained()).clamp_min(0.0)
        found = drawn + moved(flat - seen), loc + moved(flat - self.map.forward(loc)), variance
        return Completed(*(one.expand_as(loc).unflatten(-1, self.shape) for one in found))

    def log_likelihood(self, y: Tensor, x: Tensor) -> Tensor:
        away = (y - self._forward(x)).flatten(1)
        if self.noise:
            constant = away.shape[1] * (math.log(self.noise) + math.log(2 * math.pi) / 2)
            return -(away / self.noise).square().sum(1) / 2 - constant
        same = (away.abs() <= NOT_THE_SAME * (1 + y.flatten(1).abs())).all(1)
        return away.new_full((len(away),), -self.log_volume).masked_fill(~same, -math.inf)

    def _forward(self, x: Tensor) -> Tensor:
        return self.map.forward(x.flatten(x.dim() - len(self.shape))).unflatten(-1, self.of_shape)

    def _marginal(self, fn: Any) -> tuple[Tensor, Tensor, Marginal]:
        base = layers(fn)[-1]
        if type(base).__name__ != "Normal" or any(isinstance(one, dist.MaskedDistribution) for one in layers(fn)):
            raise InputError(
                f"{self.name}: p(y | z) has a closed form for independent normal pixels alone, the likelihood is "
                f"{family(fn)}; fit a model with families.normal(), or observe entries"
            )
        first = len(fn.batch_shape)
        loc, scale = (getattr(base, one).flatten(first) for one in ("loc", "scale"))
        if base.scale.stride()[first:] == (0,) * (base.scale.dim() - first):  # one scale: it stays one in memory
            scale = base.scale[(..., *[0] * (base.scale.dim() - first))][..., None].expand(loc.shape)
        return loc, scale, self.map.marginal(loc, scale, self.noise)


# ------------------------------------------------------------------------------------- two layouts of the matrix


class Disjoint:
    """A matrix with at most one number in each column: no two rows share a pixel."""

    def __init__(self, matrix: Tensor) -> None:
        self.num_rows = len(matrix)
        self.row, self.weight = matrix.abs().argmax(0), matrix.sum(0)

    def forward(self, x: Tensor) -> Tensor:
        return self._sum(x * self.weight.to(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.weight.to(y) * y[..., self.row.to(y.device)]

    def gram(self) -> Tensor:
        return self._sum(self.weight.double().square())

    def _sum(self, x: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:-1], self.num_rows).index_add(-1, self.row.to(x.device), x)

    def marginal(self, loc: Tensor, scale: Tensor, noise: float) -> Marginal:
        variance = self._sum(scale.square() * self.weight.to(loc).square()) + noise**2
        fn = dist.Normal(self.forward(loc), variance.sqrt(), validate_args=False).to_event(1)

        def explained() -> Tensor:
            return self.weight.to(loc).square() / variance[..., self.row.to(loc.device)]

        return Marginal(fn, lambda away: away / variance, explained)


class Dense:
    """Any matrix."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.eigenvalues, self.vectors = torch.linalg.eigh(matrix.double() @ matrix.double().T)
        self.eigenvalues = self.eigenvalues.clamp_min(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix.to(x).T

    def adjoint(self, y: Tensor) -> Tensor:
        return y @ self.matrix.to(y)

    def gram(self) -> Tensor:
        return self.eigenvalues

    def marginal(self, loc: Tensor, scale: Tensor, noise: float) -> Marginal:
        is_one = scale.stride(-1) == 0
        return self._of_one_scale(loc, scale[..., :1], noise) if is_one else self._of_scales(loc, scale, noise)

    def _of_one_scale(self, loc: Tensor, scale: Tensor, noise: float) -> Marginal:
        vectors, variance = self.vectors.to(loc), scale.square() * self.eigenvalues.to(loc) + noise**2
        turned = dist.Normal(self.forward(loc) @ vectors, variance.sqrt(), validate_args=False).to_event(1)

        def explained() -> Tensor:
            return variance.reciprocal() @ (self.matrix.to(loc).T @ vectors).square().T

        return Marginal(
            dist.TransformedDistribution(turned, [Rotated(vectors)]),
            lambda away: (away @ vectors / variance) @ vectors.T,
            explained,
        )

    def _of_scales(self, loc: Tensor, scale: Tensor, noise: float) -> Marginal:
        # Dimensions along which scales are repeated need one matrix alone.
        scale = scale[tuple(slice(1) if step == 0 else slice(None) for step in scale.stride())]
        num_rows, num_pixels = self.matrix.shape
        count = scale[..., 0].numel()
        if count * num_rows * num_pixels > FACTORISED:
            raise InputError(
                f"rows of the operator share pixels, whose scales differ: {count:,} matrices of {num_rows:,} rows "
                "would be factorised at once; give fewer data or particles, or fit one scale for all: "
                "normal(scale=learned(...))"
            )
        matrix = self.matrix.to(loc)
        covariance = (matrix * scale.square()[..., None, :]) @ matrix.T
        covariance = covariance + noise**2 * torch.eye(num_rows, dtype=loc.dtype, device=loc.device)
        root = torch.linalg.cholesky(covariance)
        fn = dist.MultivariateNormal(self.forward(loc), scale_tril=root, validate_args=False)

        def explained() -> Tensor:
            return (
                torch.linalg.solve_triangular(root, matrix.expand(*root.shape[:-2], -1, -1), upper=False)
                .square()
                .sum(-2)
            )

        return Marginal(fn, lambda away: torch.cholesky_solve(away[..., None], root).squeeze(-1), explained)
