r"""The outline of a picture: pixels that differ from a neighbour by more than a threshold.

.. math:: y_{ij} = 1[\max(|x_{ij} - x_{i+1,j}|, |x_{ij} - x_{i,j+1}|) > t]
"""

import torch
from torch import Tensor

from pyrovae.base.errors import InputError


def outline(x: Tensor, threshold: float | None = None) -> Tensor:
    """The outlines of pictures, to condition on; many pictures have the same.

    Args:
        x: (N, H, W) or (N, C, H, W); of several channels the largest difference counts.
        threshold: differences above it are outline; None is a quarter of the range of all values.

    Returns:
        0 or 1 for each pixel, (N, H, W), in the dtype of x.

    Raises:
        InputError: for what has not the shape of pictures.

    Example:
        >>> outline(torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]]))
        tensor([[[0., 1., 0.],
                 [0., 1., 0.]]])
    """
    if x.dim() not in (3, 4):
        raise InputError(f"pictures have the shape (N, H, W) or (N, C, H, W), got {tuple(x.shape)}")
    level = (x.max() - x.min()) / 4 if threshold is None else threshold
    changed = torch.zeros_like(x, dtype=torch.bool)
    changed[..., :-1, :] |= x.diff(dim=-2).abs() > level
    changed[..., :-1] |= x.diff(dim=-1).abs() > level
    return (changed if x.dim() == 3 else changed.any(1)).to(x.dtype)
