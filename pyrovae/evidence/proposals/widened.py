r"""Another proposal from any guide: :func:`widened`, whose heavier tails tame the weights.

.. math:: q_c(z \mid x) \propto q(z \mid x)^{1 / c^2}

for Normals, which is a spread of c times the guide's; every other family is widened within itself. (A mixture of guide
and prior is the other way: ``evaluate(..., defensive=0.1)``, :mod:`pyrovae.evidence.proposals.defensive`.)
"""

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch.distributions as base
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample

from pyrovae.base.errors import InputError
from pyrovae.pairs.context import Scoped
from pyrovae.pairs.traces import Program


def widened(guide: Program, factor: float) -> Program:
    r"""The guide with every latent site's distribution widened about its centre, within the site's own family.

    Scales are multiplied by ``factor``; Gamma, Beta and Dirichlet keep their mean and have their concentration divided
    by factor^2, as von Mises has; the logits of discrete draws are divided by factor^2 (tempering). For Normals all of
    these are the density to the power 1 / factor^2, normalised.

    Args:
        guide: program of q(z|x), with any handlers; that of a fit stays in the fit's scope.
        factor: over 1 widens, under 1 narrows.

    Returns:
        A guide of the same sites, for ``evaluate(model, widened(guide, 1.3), data)``: the evidence is that of the same
        model, the ELBO and both KL terms are those of the widened guide.

    Raises:
        InputError: if the factor is not positive and finite; when the guide is run, naming the site, for a family that
            is not known here.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> narrow = oracle.scaled_guide(0.5)
        >>> terms = pv.log_terms(oracle.model, widened(narrow, 2.0), x, num_particles=4)
        >>> bool((terms.log_weight - oracle.log_evidence(x)).abs().max() < 1e-10)  # widened to the exact posterior
        True
    """
    if not 0 < factor < math.inf:
        raise InputError(f"factor must be positive and finite, got {factor}")
    if isinstance(guide, Scoped):
        return Scoped(widened(guide.program, factor), guide.scope)
    return _Widened(factor)(guide)


class _Widened(Messenger):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not isinstance(msg["fn"], _Subsample):
            msg["fn"] = _wider(msg["fn"], self.factor, msg["name"])


def _wider(fn: Any, factor: float, site: str) -> Any:
    for kind in type(fn).__mro__:
        if kind in _WRAPPERS:
            return _WRAPPERS[kind](fn, _wider(fn.base_dist, factor, site))
        if kind in _FAMILIES:
            return _FAMILIES[kind](fn, factor)
    raise InputError(
        f"site '{site}': no wider {type(fn).__name__} is known; widen it in the guide itself, "
        "or use evaluate(..., defensive=0.1)"
    )


_WRAPPERS: dict[type, Callable[[Any, Any], Any]] = {  # a wrapper, and what it wraps widened -> the same wrapper of it
    base.Independent: lambda d, inner: inner.to_event(d.reinterpreted_batch_ndims),
    ExpandedDistribution: lambda d, inner: inner.expand(d.batch_shape),
    dist.MaskedDistribution: lambda d, inner: inner.mask(d._mask),
}

_FAMILIES: dict[type, Callable[[Any, float], Any]] = {
    base.Normal: lambda d, c: dist.Normal(d.loc, d.scale * c),
    base.LogNormal: lambda d, c: dist.LogNormal(d.loc, d.scale * c),
    base.HalfNormal: lambda d, c: dist.HalfNormal(d.scale * c),
    base.Laplace: lambda d, c: dist.Laplace(d.loc, d.scale * c),
    base.Cauchy: lambda d, c: dist.Cauchy(d.loc, d.scale * c),
    base.HalfCauchy: lambda d, c: dist.HalfCauchy(d.scale * c),
    base.StudentT: lambda d, c: dist.StudentT(d.df, d.loc, d.scale * c),
    base.MultivariateNormal: lambda d, c: dist.MultivariateNormal(d.loc, scale_tril=d.scale_tril * c),
    base.LowRankMultivariateNormal: lambda d, c: dist.LowRankMultivariateNormal(
        d.loc, d.cov_factor * c, d.cov_diag * c**2
    ),
    base.Gamma: lambda d, c: dist.Gamma(d.concentration / c**2, d.rate / c**2),
    base.Beta: lambda d, c: dist.Beta(d.concentration1 / c**2, d.concentration0 / c**2),
    base.Dirichlet: lambda d, c: dist.Dirichlet(d.concentration / c**2),
    base.VonMises: lambda d, c: dist.VonMises(d.loc, d.concentration / c**2),
    base.Bernoulli: lambda d, c: dist.Bernoulli(logits=d.logits / c**2),
    base.Categorical: lambda d, c: dist.Categorical(logits=d.logits / c**2),
    base.OneHotCategorical: lambda d, c: dist.OneHotCategorical(logits=d.logits / c**2),
    dist.Delta: lambda d, c: d,  # a function of another draw, as autoguides make: that one is widened
}
