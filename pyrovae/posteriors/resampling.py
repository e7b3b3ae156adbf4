"""Draws of the posterior from weighted draws of the guide."""

import torch
from torch import Tensor


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
