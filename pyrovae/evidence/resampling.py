r"""Weighted draws become draws that count alike: each is taken in proportion to its weight.

.. math:: P(\text{take } z_k) = w_k / \sum_j w_j
"""

import torch
from torch import Tensor

Values = dict[str, Tensor]


def resample(log_weight: Tensor, num_draws: int) -> Tensor:
    """Particles in proportion to their weights, by systematic resampling.

    Each is taken L w / sum w times, rounded up or down at random: none twice while the weights are nearly equal.

    Args:
        log_weight: (K, N), of independent particles in no particular order.
        num_draws: L.

    Returns:
        Row numbers of the particles, (L, N).

    Raises:
        FloatingPointError: if all weights of a datum are zero, or one is infinite or NaN.

    References:
        Kitagawa (1996), Monte Carlo filter and smoother for non-Gaussian nonlinear state space models,
        Journal of Computational and Graphical Statistics 5:1.
    """
    bad = ~log_weight.logsumexp(0).isfinite()
    if bad.any():
        raise FloatingPointError(
            f"the importance weights of {int(bad.sum())} of {len(bad)} data are all zero, or not finite: "
            "does the guide's support miss the model's?"
        )
    upper = log_weight.double().softmax(0).cumsum(0)
    steps = torch.arange(num_draws, dtype=upper.dtype, device=upper.device)[:, None]
    points = (steps + torch.rand_like(upper[0])) / num_draws * upper[-1]
    return torch.searchsorted(upper.T.contiguous(), points.T.contiguous()).T.clamp(max=len(upper) - 1)


def resampled(values: Values, log_weight: Tensor, num_draws: int) -> Values:
    """Draws of each datum in proportion to their weights, in random order.

    Args:
        values: site -> (K, N, ...).
        log_weight: (K, N); where all weights of a datum are zero, or one is not finite, all count alike.
        num_draws: L.

    Returns:
        Site -> (L, N, ...).
    """
    fine = log_weight.logsumexp(0).isfinite()
    index = resample(torch.where(fine, log_weight, 0.0), num_draws)
    index = index.gather(0, torch.rand(index.shape, device=index.device).argsort(0))
    return {name: taken(value, index) for name, value in values.items()}


def taken(value: Tensor, index: Tensor) -> Tensor:
    """The rows of a value (K, N, ...) that are numbered for each datum, (L, N): (L, N, ...)."""
    shape = index.shape + (1,) * (value.dim() - 2)
    return value.gather(0, index.reshape(shape).expand(*index.shape, *value.shape[2:]))
