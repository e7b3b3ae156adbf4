"""What exact programs demand of the numbers they are made of."""

from torch import Tensor

from pyrovae.errors import InputError


def check_positive(**tensors: Tensor) -> None:
    """Raises InputError, by its name, for a tensor that is not positive everywhere."""
    for name, tensor in tensors.items():
        if not bool((tensor > 0).all()):
            raise InputError(f"{name} must be positive everywhere; got {float(tensor.min()):g}")


def check_proportions(weights: Tensor) -> None:
    """Raises InputError unless these are proportions of components, shape (C,), that sum to one."""
    if weights.ndim != 1 or not bool((weights >= 0).all()) or abs(float(weights.sum()) - 1) > 1e-5:
        raise InputError("weights must be proportions of shape (C,): not negative, and summing to one")
