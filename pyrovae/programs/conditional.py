"""Conditional: a network, then a family; c -> Distribution. It is the decoder and it is the encoder."""

from collections.abc import Callable

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn

from pyrovae.base.errors import InputError
from pyrovae.programs.families.family import Family


class Conditional(nn.Module):
    """p(y | c): ``network`` turns c into the parameters of ``family`` over events of ``event_shape``.

    Args:
        family: which distribution, :mod:`pyrovae.families`.
        event_shape: the shape of one y (an int is a vector of that length).
        network: an ``nn.Module`` ``c -> (..., P)``, or a function from P to such a module (as
            :func:`pyrovae.networks.mlp` returns), P being the number of parameters for one y. What is conditioned on
            may be several things, ``(z, y) -> (..., P)``: :func:`pyrovae.networks.beside`.

    Raises:
        InputError: in the forward pass, if the network does not give P numbers for each y, or the family's
            distribution is not over events of ``event_shape``.

    Example:
        >>> import torch, pyrovae as pv
        >>> decoder = Conditional(pv.families.binomial(16), (8, 8), pv.networks.mlp(2, 50))
        >>> decoder(torch.zeros(3, 2)).event_shape
        torch.Size([8, 8])
    """

    def __init__(
        self,
        family: Family,
        event_shape: int | tuple[int, ...],
        network: nn.Module | Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.family = family
        self.event_shape = Size([event_shape] if isinstance(event_shape, int) else event_shape)
        self.shapes = tuple(Size(shape) for shape in family.shapes(self.event_shape))
        self.num_parameters = sum(shape.numel() for shape in self.shapes)
        self.network = network if isinstance(network, nn.Module) else network(self.num_parameters)
        self.free = nn.ParameterList([nn.Parameter(value.clone()) for value in family.initial(self.event_shape)])

    def forward(self, *c: Tensor) -> TorchDistribution:
        raw = self.network(*c)
        if raw.shape[-1] != self.num_parameters:
            raise InputError(
                f"{self.family.name} over events of shape {tuple(self.event_shape)} needs a network that gives "
                f"{self.num_parameters} numbers for each, but it gave {raw.shape[-1]} (output {tuple(raw.shape)})"
            )
        parts = torch.split(raw, [shape.numel() for shape in self.shapes], dim=-1)
        parameters = (part.reshape(raw.shape[:-1] + shape) for part, shape in zip(parts, self.shapes, strict=True))
        built = self.family.build(len(self.event_shape), *parameters, *self.free)
        if (built.batch_shape, built.event_shape) != (raw.shape[:-1], self.event_shape):
            raise InputError(
                f"{self.family.name} built a distribution of batch shape {tuple(built.batch_shape)} and event shape "
                f"{tuple(built.event_shape)}; expected {tuple(raw.shape[:-1])} and {tuple(self.event_shape)}"
            )
        return built
