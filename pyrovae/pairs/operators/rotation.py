"""An orthogonal change of coordinates: densities stay, as its volume is one."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform


class Rotated(Transform):
    """v -> U v for an orthogonal matrix U.

    Example:
        >>> turn = Rotated(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        >>> turn(torch.tensor([1.0, 0.0]))
        tensor([0., 1.])
    """

    domain: Any = constraints.real_vector
    codomain: Any = constraints.real_vector
    bijective = True

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix

    def _call(self, x: Tensor) -> Tensor:
        return x @ self.matrix.T

    def _inverse(self, y: Tensor) -> Tensor:
        return y @ self.matrix

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Zero, (...) for (..., D)."""
        return torch.zeros(x.shape[:-1], dtype=x.dtype, device=x.device)
