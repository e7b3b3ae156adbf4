"""What distributions of single numbers with several parameters share: one shape for all of these, and ``expand``."""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor


class Elementwise(dist.TorchDistribution):
    """A distribution of single numbers; a subclass names its parameters, and gives densities, draws and moments.

    Parameters of any shapes are broadcast to one; draws have the shape ``sample_shape`` and then that one.
    """

    names: ClassVar[tuple[str, ...]]  # of the parameters, attributes of the batch's shape
    arg_constraints: ClassVar = {}

    def __init__(self, *parameters: Tensor, validate_args: bool | None = None) -> None:
        parameters = tuple(torch.broadcast_tensors(*parameters))
        for name, parameter in zip(self.names, parameters, strict=True):
            setattr(self, name, parameter)
        super().__init__(parameters[0].shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        vars(new).update(vars(self))
        vars(new).update({name: getattr(self, name).expand(batch_shape) for name in self.names})
        super(Elementwise, new).__init__(Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _checked(self, value: Tensor) -> Tensor:
        """Data of any type, in the dtype of the parameters."""
        if self._validate_args:
            self._validate_sample(value)
        return value.to(getattr(self, self.names[0]).dtype)

    def _expanded(self, sample_shape: Any) -> list[Tensor]:
        """The parameters, of the shape of draws."""
        return [getattr(self, name).expand(self._extended_shape(sample_shape)) for name in self.names]


def unexpanded(parameter: Tensor) -> Tensor:
    """Without the copies that broadcasting made: of size 1 in these dimensions.

    Example:
        >>> unexpanded(torch.zeros(4).expand(2, 3, 4)).shape
        torch.Size([1, 1, 4])
    """
    return parameter[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in parameter.stride())]
