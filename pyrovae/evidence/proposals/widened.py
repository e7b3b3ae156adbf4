r"""Another proposal from any guide: :func:`widened`, each draw wider and, where asked, away from where it was.

.. math:: q_c(z \mid x) \propto q(z \mid x)^{1 / c^2}

for Normals, which is a spread of c times the guide's; every other family is widened within itself. (A mixture of guide
and prior is the other way: ``evaluate(..., defensive=0.1)``, :mod:`pyrovae.evidence.proposals.defensive`.) An exact
guide, widened and shifted, is a guide of known error.
"""

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
import torch.distributions as base
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError
from pyrovae.pairs.context import Scoped
from pyrovae.pairs.traces import Program


@checked
def widened(guide: Program, factor: float, *, shift: float = 0.0) -> Program:
    r"""The guide with each draw ``factor`` times as wide and shifted by ``shift`` standard deviations.

    Each site stays within its own family, and draws that depend on others do so as before:

    - scales are multiplied by ``factor``, and centres move by ``shift`` standard deviations (Cauchy and Student's t,
      which may have none, by scales; log-normal on the logarithm);
    - Gamma, Beta and Dirichlet keep the shifted mean; their concentration is divided by factor^2, as von Mises' is;
    - logits of discrete draws are divided by factor^2 (tempering), and a fraction ``shift`` of the uniform
      distribution is mixed in, so that no value is out of reach;
    - a mixture is widened and shifted in each component;
    - what transforms make of noise, as a flow does, is made of noise that is widened and shifted;
    - any other distribution does as it says: one with a method ``widened(factor, shift)``, or ``with_parts(change)``
      where it is made of others.

    Where an exact guide draws Normals, E_q[w^2] of the weights is finite if and only if factor > 1 / sqrt(2), whatever
    the shift.

    Args:
        guide: program of q(z|x), with any handlers; that of a fit stays in the fit's scope.
        factor: over 1 widens, under 1 narrows.
        shift: in standard deviations of each draw; a fraction in [0, 1] for discrete draws.

    Returns:
        A guide of the same sites, for ``evaluate(model, widened(guide, 1.3), data)``: the evidence is that of the same
        model, the ELBO and both KL terms are those of the widened guide.

    Raises:
        InputError: if the factor is not positive and finite or the shift not finite; when the guide is run, naming the
            site, for a family that is not known here, cannot be shifted, or has no such member.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> narrow = pv.widened(oracle.guide, 0.5)
        >>> terms = pv.log_terms(oracle.model, widened(narrow, 2.0), x, num_particles=4)
        >>> bool((terms.log_weight - oracle.log_evidence(x)).abs().max() < 1e-10)  # widened to the exact posterior
        True
    """
    if not (0 < factor < math.inf and math.isfinite(shift)):
        raise InputError(f"factor must be positive and finite, shift finite; got {factor} and {shift}")
    if isinstance(guide, Scoped):
        return Scoped(widened(guide.program, factor, shift=shift), guide.scope)
    return _Widened(factor, shift)(guide)


class _Widened(Messenger):
    def __init__(self, factor: float, shift: float) -> None:
        super().__init__()
        self.factor, self.shift = factor, shift

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        try:
            msg["fn"] = _wider(msg["fn"], self.factor, self.shift)
        except InputError as error:
            raise InputError(f"site '{msg['name']}': {error}") from error


def _wider(fn: Any, factor: float, shift: float) -> Any:
    def inside(inner: Any) -> Any:
        return _wider(inner, factor, shift)

    if hasattr(fn, "with_parts"):
        return fn.with_parts(inside)
    if hasattr(fn, "widened"):
        return fn.widened(factor, shift)
    if type(fn) in (base.TransformedDistribution, dist.TransformedDistribution):  # none of torch's own made of these
        return dist.TransformedDistribution(inside(fn.base_dist), fn.transforms)
    for kind in type(fn).__mro__:
        if kind in _WRAPPERS:
            return _WRAPPERS[kind](fn, inside)
        if kind in _FAMILIES:
            return _FAMILIES[kind](fn, factor, shift)
    raise InputError(
        f"no wider {type(fn).__name__} is known; widen it in the guide itself, or use evaluate(..., defensive=0.1)"
    )


def _gamma(d: base.Gamma, c: float, s: float) -> dist.Gamma:
    ratio = 1 + s / d.concentration.sqrt()  # of the shifted mean to the mean
    _demand(ratio > 0, "gamma", c, s)
    return dist.Gamma(d.concentration * ratio**2 / c**2, d.rate * ratio / c**2)


def _beta(d: base.Beta, c: float, s: float) -> dist.Beta:
    mean, total = d.mean + s * d.stddev, (d.concentration1 + d.concentration0) / c**2
    _demand((mean > 0) & (mean < 1), "beta", c, s)
    return dist.Beta(mean * total, (1 - mean) * total)


def _tempered(logits: Tensor, c: float, s: float) -> Tensor:
    """Logits (..., C) over c^2, with a fraction s of the uniform distribution mixed in."""
    if not 0 <= s <= 1:
        raise InputError(f"the shift of a discrete draw is a fraction in [0, 1] of the uniform distribution, got {s}")
    flat = logits / c**2
    return ((1 - s) * flat.softmax(-1) + s / flat.shape[-1]).log() if s else flat


def _bernoulli(d: base.Bernoulli, c: float, s: float) -> dist.Bernoulli:
    classes = torch.stack([torch.zeros_like(d.logits), d.logits], -1)
    return dist.Bernoulli(logits=_tempered(classes, c, s).diff(dim=-1).squeeze(-1))


def _in_place(widen: Callable[[Any, float], Any]) -> Callable[[Any, float, float], Any]:
    """The rule of a family that has no centre to move."""

    def rule(d: Any, c: float, s: float) -> Any:
        if s:
            raise InputError(f"no shifted {type(d).__name__} is known, got shift={s}; leave it at 0")
        return widen(d, c)

    return rule


def _demand(possible: Tensor, family: str, c: float, s: float) -> None:
    if s and not bool(possible.all()):
        raise InputError(
            f"{int((~possible).sum())} of {possible.numel()} {family} distributions have none beside them that is "
            f"{c} times as wide and shifted by {s} standard deviations; use smaller numbers"
        )


_WRAPPERS: dict[type, Callable[[Any, Callable[[Any], Any]], Any]] = {  # a wrapper, and how to widen what it wraps
    base.Independent: lambda d, wider: wider(d.base_dist).to_event(d.reinterpreted_batch_ndims),
    ExpandedDistribution: lambda d, wider: wider(d.base_dist).expand(d.batch_shape),
    dist.MaskedDistribution: lambda d, wider: wider(d.base_dist).mask(d._mask),
    base.MixtureSameFamily: lambda d, wider: dist.MixtureSameFamily(
        d.mixture_distribution, wider(d.component_distribution)
    ),
}

_FAMILIES: dict[type, Callable[[Any, float, float], Any]] = {  # a distribution, c times as wide, shifted by s
    base.Normal: lambda d, c, s: dist.Normal(d.loc + s * d.scale, d.scale * c),
    base.LogNormal: lambda d, c, s: dist.LogNormal(d.loc + s * d.scale, d.scale * c),
    base.HalfNormal: _in_place(lambda d, c: dist.HalfNormal(d.scale * c)),
    base.Laplace: lambda d, c, s: dist.Laplace(d.loc + s * d.stddev, d.scale * c),
    base.Cauchy: lambda d, c, s: dist.Cauchy(d.loc + s * d.scale, d.scale * c),
    base.HalfCauchy: _in_place(lambda d, c: dist.HalfCauchy(d.scale * c)),
    base.StudentT: lambda d, c, s: dist.StudentT(d.df, d.loc + s * d.scale, d.scale * c),
    base.MultivariateNormal: lambda d, c, s: dist.MultivariateNormal(d.loc + s * d.stddev, scale_tril=d.scale_tril * c),
    base.LowRankMultivariateNormal: lambda d, c, s: dist.LowRankMultivariateNormal(
        d.loc + s * d.stddev, d.cov_factor * c, d.cov_diag * c**2
    ),
    base.Gamma: _gamma,
    base.Beta: _beta,
    base.Dirichlet: _in_place(lambda d, c: dist.Dirichlet(d.concentration / c**2)),
    base.VonMises: _in_place(lambda d, c: dist.VonMises(d.loc, d.concentration / c**2)),
    base.Bernoulli: _bernoulli,
    base.Categorical: lambda d, c, s: dist.Categorical(logits=_tempered(d.logits, c, s)),
    base.OneHotCategorical: lambda d, c, s: dist.OneHotCategorical(logits=_tempered(d.logits, c, s)),
    dist.Delta: lambda d, c, s: d,  # a function of another draw, as autoguides make: that one is widened
}
