r"""An observation operator: how what is observed, y, comes about from x, with all that then is known in closed form.

.. math:: p(y \mid z) = \int p(y \mid x) \, p(x \mid z) \, dx, \qquad
    p(x \mid y, z) = \frac{p(y \mid x) \, p(x \mid z)}{p(y \mid z)}

One record of functions serves for all: a mask, a linear map, pixels replaced by black and white.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.random import stream
from pyrovae.pairs.missing.entries import Completed
from pyrovae.pairs.traces import Program


@dataclass(frozen=True, eq=False, repr=False)
class Operator:
    """How y comes about from x, for data (N, *shape).

    Attributes:
        name: what records call it.
        shape: of one x.
        of_shape: of one y.
        draw: x (N, *shape) and a generator -> y (N, *of_shape).
        observe: distribution of x -> that of y. It raises InputError for a family without closed form.
        restore: distribution of x, and y -> draws, means and variances of x given y.
        log_likelihood: y and x -> log p(y | x) in nats, (N,). Where y = A x exactly, minus the log volume by which A
            changes densities: then log p(x) + log p(y | x) - log p(y) is the density of x on {x: A x = y}.
        fill: y -> a first guess of x, for programs that take one.
        num_hidden: y -> how many numbers of each x it leaves open, (N,).
        around: what is done to the model as a whole.
        log_alone: distribution of x, and y -> log p(y), where ``around`` makes it another than ``observe`` says.
    """

    name: str
    shape: Size
    of_shape: Size
    draw: Callable[[Tensor, torch.Generator | None], Tensor]
    observe: Callable[[Any], Any]
    restore: Callable[[Any, Tensor], Completed]
    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    fill: Callable[[Tensor], Tensor]
    num_hidden: Callable[[Tensor], Tensor]
    around: Callable[[Program], Program] = lambda model: model
    log_alone: Callable[[Any, Tensor], Tensor] | None = None

    def __repr__(self) -> str:
        return f"{self.name}: {tuple(self.shape)} -> {tuple(self.of_shape)}"

    def apply(self, x: Tensor, *, seed: int = 0) -> Tensor:
        """What is observed of data, drawn by a seed: (N, *shape) -> (N, *of_shape).

        Raises:
            InputError: for data of another shape.
        """
        self.check(x, self.shape, "x")
        x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        return self.draw(x, stream("operator", seed))

    def check(self, value: Tensor, shape: Size, of: str) -> None:
        """Raises InputError for data of another shape."""
        if value.shape[1:] != shape or value.dim() == 0:
            wanted, got = ", ".join(map(str, shape)), tuple(value.shape)
            raise InputError(f"{self.name}: expected {of} of shape (N, {wanted}), got {got}; make an operator for it")

    def log_observed(self, fn: Any, y: Tensor) -> Tensor:
        """log p(y) where x has this distribution, in nats, (N,)."""
        return self.observe(fn).log_prob(y) if self.log_alone is None else self.log_alone(fn, y)

    def log_conditional(self, fn: Any, y: Tensor, x: Tensor) -> Tensor:
        """log p(x | y) where x has this distribution, in nats, (N,)."""
        return fn.log_prob(x) + self.log_likelihood(y, x) - self.log_observed(fn, y)


def sizes(shape: Sequence[int]) -> Size:
    """The shape of one datum.

    Raises:
        InputError: for what is none.
    """
    if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
        raise InputError(f"expected the shape of one datum, as (1, 28, 28), got {shape!r}")
    return Size(shape)
