r"""One encoder of all latents of a program: each drawn by its own head, given the data and what was drawn before it.

.. math:: q(z_1, \ldots, z_L \mid x) = \prod_l q_l(z_l \mid h(x), z_1, \ldots, z_{l-1})

with features h of the data that all heads share (the autoregressive factorization of the posterior, in the order of
the model, leaves nothing out but what a head's own family cannot hold).
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import pyro
import torch
from torch import Size, Tensor, nn

from pyrovae.base.errors import InputError
from pyrovae.programs.guides.heads import Head
from pyrovae.programs.guides.inputs import Labels, Numbers
from pyrovae.programs.guides.layout import Layout


class Plate(NamedTuple):
    """A plate of a program; the size of one over data is None where it is that of the rows."""

    name: str
    dim: int
    size: int | None


class Latent(NamedTuple):
    """One latent site of a program."""

    name: str
    head: Head
    plates: tuple[Plate, ...]  # inside that over data


class Trunk(nn.Module):
    """Features of the data that all heads share.

    Args:
        network: reads what the first inputs hold, in its own shape: (..., *shape) -> (..., width).
        shape: of that.
        num_others: inputs after these, which one layer adds.
        width: of the features.
    """

    def __init__(self, network: nn.Module, shape: tuple[int, ...], num_others: int, width: int) -> None:
        super().__init__()
        self.network, self.shape, self.size = network, shape, Size(shape).numel()
        self.others = nn.Linear(num_others, width, bias=False) if num_others else None

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, inputs) -> (N, width)."""
        features = self.network(inputs[..., : self.size].reshape(*inputs.shape[:-1], *self.shape))
        if self.others is not None:
            features = features + self.others(inputs[..., self.size :])
        return nn.functional.silu(features)


class Encoder(nn.Module):
    """A guide program for the latents of a model; :func:`pyrovae.encoder_for` makes it.

    Args:
        latents: in the order of the model.
        data: the plate over data.
        depth: dimensions that the plates of the model take.
        columns: what reads each argument, (N, ...) -> (N, size).
        trunk: (N, size of all columns) -> (N, width).
        width: of the features that heads share, and of the hidden layer of each.
    """

    def __init__(
        self,
        latents: Sequence[Latent],
        data: Plate,
        depth: int,
        columns: Sequence[Numbers | Labels],
        trunk: nn.Module,
        width: int,
    ) -> None:
        super().__init__()
        self.data, self.layout = data, Layout(data.dim, depth)
        self.columns, self.trunk = nn.ModuleList(columns), trunk
        num_inputs, num_earlier, parts = sum(column.size for column in columns), 0, []
        for latent in latents:
            parts.append(_Part(latent, self.layout, num_inputs, num_earlier, width))
            num_earlier += parts[-1].num_features
        self.parts = nn.ModuleList(parts)

    def forward(self, *args: Tensor) -> None:
        """The guide program, for the arguments of the model, each (N, ...)."""
        if len(args) != len(self.columns):
            raise InputError(f"the encoder was made for {len(self.columns)} arguments, and was called with {len(args)}")
        pyro.module("encoder_for", self)
        inputs = torch.cat([column(arg) for column, arg in zip(self.columns, args, strict=True)], -1)
        shared, earlier = self.trunk(inputs), list[Tensor]()
        with self._over_data(len(inputs)):
            for part in self.parts:
                earlier.append(part(inputs, shared, earlier))

    def _over_data(self, rows: int) -> pyro.plate:
        if self.data.size is None:
            return pyro.plate(self.data.name, rows, dim=self.data.dim)
        return pyro.plate(self.data.name, self.data.size, subsample=torch.arange(rows), dim=self.data.dim)


class _Part(nn.Module):
    """One latent's part of the program: numbers for its head, then its sample statement."""

    def __init__(self, latent: Latent, layout: Layout, num_inputs: int, num_earlier: int, width: int) -> None:
        super().__init__()
        self.name, self.plates, self.head, self.layout = latent.name, latent.plates, latent.head, layout
        self.sizes = layout.sizes({plate.dim: plate.size or 1 for plate in latent.plates})
        self.depth = max(-layout.dim, *(-plate.dim for plate in latent.plates), 1)
        places = self.sizes.numel()
        self.num_features = places * self.head.num_features
        self.hidden_of_shared = nn.Linear(width, width)
        self.hidden_of_earlier = nn.Linear(num_earlier, width, bias=False) if num_earlier else None
        self.out = nn.Linear(width, places * self.head.num_raw)
        self.linear_of_inputs = _from_zero(num_inputs, places * self.head.num_linear)
        self.linear_of_earlier = _from_zero(num_earlier, places * self.head.num_linear) if num_earlier else None

    def forward(self, inputs: Tensor, shared: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Draws the latent; what later ones see of it: (*particles, N, num_features)."""
        raw = self._raw(inputs, shared, _joined(earlier) if earlier else None)
        fn = self.head.build(self.layout.from_rows(raw, self.sizes, self.depth))
        with ExitStack() as stack:
            for plate in self.plates:
                stack.enter_context(pyro.plate(plate.name, plate.size, dim=plate.dim))
            value = pyro.sample(self.name, fn)
        return self.layout.to_rows(self.head.features(value).to(shared), self.sizes)

    def _raw(self, inputs: Tensor, shared: Tensor, earlier: Tensor | None) -> Tensor:
        hidden, linear = self.hidden_of_shared(shared), self.linear_of_inputs(inputs)
        if earlier is not None and self.hidden_of_earlier is not None and self.linear_of_earlier is not None:
            hidden, linear = hidden + self.hidden_of_earlier(earlier), linear + self.linear_of_earlier(earlier)
        raw = self.out(nn.functional.silu(hidden)).unflatten(-1, (-1, self.head.num_raw))
        linear = nn.functional.pad(linear.unflatten(-1, (raw.shape[-2], -1)), (0, raw.shape[-1] - self.head.num_linear))
        return (raw + linear).flatten(-2)


def _from_zero(num_inputs: int, num_outputs: int) -> nn.Linear:
    linear = nn.Linear(num_inputs, num_outputs, bias=False)
    nn.init.zeros_(linear.weight)
    return linear


def _joined(rows: Sequence[Tensor]) -> Tensor:
    """Rows of several latents, (*particles, N, F) each, side by side."""
    shape = torch.broadcast_shapes(*(one.shape[:-1] for one in rows))
    return torch.cat([one.expand(*shape, -1) for one in rows], -1)
