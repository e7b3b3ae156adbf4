"""Handlers: what is done to programs from outside, so that no program holds a branch for it."""

from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from pyrovae.inference.pairs import Program


class _Tempered(Messenger):
    def __init__(self, beta: Tensor) -> None:
        super().__init__()
        self.beta = beta

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not isinstance(msg["fn"], _Subsample):
            msg["scale"] = msg["scale"] * self.beta


def tempered(program: Program, beta: float | Tensor) -> Program:
    r"""Scales the log densities of a program's latent sites by ``beta`` > 0; for KL warm-up, around both programs.

    .. math:: E_q[\log p(x \mid z)] - \beta \, \mathrm{KL}(q(z \mid x) \,\|\, p(z))

    Around the model alone it would be another, wrong objective: beta must weigh log p(z) - log q(z|x) together.

    References:
        Bowman et al. (2016), Generating sentences from a continuous space, arXiv:1511.06349.
        Higgins et al. (2017), beta-VAE, ICLR.
    """
    return _Tempered(torch.as_tensor(beta))(program)
