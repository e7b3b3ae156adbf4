"""Stacking: the weights of several models' predictive densities in the mixture that gives the data most."""

import torch
from torch import Tensor

from pyrovae.base.errors import InputError

TOLERANCE = 1e-6  # nats per datum that the mixture may lack of the best one
MOST_STEPS = 100_000


def stacking_weights(log_evidence: Tensor) -> Tensor:
    r"""Weights of M models in the mixture of them that gives N data the most evidence, found by EM.

    .. math:: \max_w \frac1N \sum_n \log \sum_m w_m\, p_m(x_n), \qquad w_m \ge 0, \; \sum_m w_m = 1

    A concave problem: the steps end where no mixture can have 1e-6 nats per datum more, as
    max_m 1/N sum_n p_m(x_n) / sum_l w_l p_l(x_n) - 1 bounds what is missing.

    Args:
        log_evidence: log p_m(x_n), (M, N) nats.

    Returns:
        (M,), float64.

    Raises:
        InputError: for a table without models or data, or a datum that no model allows.

    References:
        Yao, Vehtari, Simpson and Gelman (2018), Using stacking to average Bayesian predictive distributions,
        Bayesian Analysis 13:917. There log p_m(x_n) leaves datum n out; on held-out data nothing has to be left out.

    Example:
        >>> stacking_weights(torch.tensor([[0.0, -5.0, 0.0], [-5.0, 0.0, -5.0], [-9.0, -9.0, -9.0]])).round(decimals=2)
        tensor([0.6700, 0.3300, 0.0000], dtype=torch.float64)
    """
    if log_evidence.dim() != 2 or not log_evidence.numel():
        raise InputError(f"stacking needs log p(x) of M models on N data, (M, N), got {tuple(log_evidence.shape)}")
    relative = (log_evidence.double() - log_evidence.double().amax(0)).exp()  # in each datum of its best model
    if not relative.isfinite().all():
        raise InputError("stacking needs data that some model allows: log p(x) is minus infinity or NaN for all")
    weights = torch.full((len(relative),), 1 / len(relative), dtype=torch.float64)
    for _ in range(MOST_STEPS):
        gain = (relative / (weights @ relative)).mean(1)
        if gain.max() - 1 < TOLERANCE:
            break
        weights = weights * gain
    return weights
