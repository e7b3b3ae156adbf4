r"""Whether a site of the guide has a density at values that it did not draw: what a flow without an inverse has not.

.. math:: \log q(z) = \log q_0(T^{-1}(z)) - \log |\det \partial T / \partial z_0|

A flow remembers the last z_0 that it moved, and so scores its own draws even where nobody can undo T.
"""

from typing import Any

import torch
from pyro.distributions.transforms import BatchNorm
from torch import Tensor
from torch.distributions import ComposeTransform

from pyrovae.base.errors import InputError, first_line
from pyrovae.base.memory import out_of_memory
from pyrovae.base.random import preserve_rng_state
from pyrovae.pairs.supports import layers
from pyrovae.pairs.traces import TracePair, site_log_prob

ADVICE = "so its density at given latents is not known; use importance sampling, or start from the prior"


def check_density_at(name: str, site: Any) -> None:
    """Scores draws of a site of the guide as if they came from elsewhere: copies, which no flow remembers.

    Raises:
        InputError: naming the site and the transform, if they have no density then, or another one.
    """
    with preserve_rng_state(), torch.no_grad():
        value = site["fn"].sample()
        log_prob = site_log_prob({**site, "value": value})
        try:
            again = site_log_prob({**site, "value": value.clone()})
        except (ArithmeticError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            if out_of_memory(error):
                raise
            what, cause = _culprit(site["fn"], value.clone(), error)
            raise InputError(f"site '{name}' of the guide: {what} {cause}, {ADVICE}") from error
    if not torch.allclose(log_prob, again, rtol=1e-3, atol=1e-2, equal_nan=True):
        off = float((log_prob - again).abs().max())
        raise InputError(
            f"site '{name}' of the guide: its log density at a copy of its own draw is another one, by up to {off:.2g} "
            f"nats, as its inverse is inexact, {ADVICE}"
        )


def check_batch_norm_of_flows(run: TracePair, *, to_be_trained: bool = False) -> None:
    """Raises InputError, naming the site, if the guide draws through a batch norm in training mode, now or later."""
    for name, site in run.drawn.items():
        parts = _flat(getattr(layers(site["fn"])[-1], "transforms", []))
        if any(isinstance(one, BatchNorm) and (to_be_trained or one.training) for one in parts):
            raise InputError(
                f"site '{name}' of the guide: BatchNorm, in training mode, moves draws by its running variance but "
                "scores them by that of the batch: log q is not the density that they were drawn from, and the ELBO "
                "is wrong. Leave it out of what is fitted (an AffineTransform by parameters of your own does as much); "
                "in eval mode it is right"
            )


def _culprit(fn: Any, value: Tensor, error: Exception) -> tuple[str, str]:
    """Which transform cannot be undone, and why not."""
    base = layers(fn)[-1]
    for transform in reversed(_flat(getattr(base, "transforms", []))):
        try:
            value = transform.inv(value)
        except (KeyError, NotImplementedError):
            return type(transform).__name__, "has no inverse"
        except Exception as failure:
            if out_of_memory(failure):
                raise
            return type(transform).__name__, f"cannot be inverted ({first_line(failure)})"
    return type(base).__name__, f"cannot score what it did not draw ({first_line(error)})"


def _flat(transforms: Any) -> list[Any]:
    """Transforms, with those that are composed of others taken apart."""
    found = []
    for transform in transforms:
        found += _flat(transform.parts) if isinstance(transform, ComposeTransform) else [transform]
    return found
