r"""Counts that spread more than Poisson's and the binomial's, and counts of which too many are zero.

.. math:: \log \frac{\Gamma(a + x)}{\Gamma(a) \, a^x} = (a + x - \tfrac12) \log(1 + x/a) - x + s(a + x) - s(a)

with Stirling's remainder s(a), :func:`~pyrovae.programs.distributions.exponential.stirling`. Differences of log Gamma
at large a are lost in float32 (147 nats at a dispersion of 1e8); these terms are all as small as what they add up to.

Of large counts x the mass is found from that about a mean c = x, which has terms as small, by what the mean does:

.. math:: \log \frac{p(x \mid m)}{p(x \mid c)} = x t - (r + x) \log\Big(1 + \frac{c}{r + c} (e^t - 1)\Big), \quad
    t = \log \frac mc
"""

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from pyrovae.programs.distributions.elementwise import Elementwise, unexpanded
from pyrovae.programs.distributions.exponential import log_about, log_mixed, stirling

LEAST = 1e-8  # a concentration, below which all of the mass is at an end


def log_rising(a: Tensor, x: Tensor) -> Tensor:
    """log Gamma(a + x) - log Gamma(a) - x log a for a > 0 and x >= 0, to rounding: near zero where a is large."""
    return (a + x - 0.5) * torch.log1p(x / a) - x + stirling(a + x) - stirling(a)


class NegativeBinomial(Elementwise):
    r"""Poisson counts whose rate is gamma distributed: mean m, variance m + m^2 / r.

    .. math:: \log p(x) = \log \frac{\Gamma(r + x)}{\Gamma(r) \, r^x \, x!} + x \log m - (r + x) \log(1 + m / r)

    Args:
        log_mean: log m, any shape.
        log_dispersion: log r; large is Poisson.

    Example:
        >>> NegativeBinomial(torch.tensor(0.0), torch.tensor(0.0)).log_prob(torch.arange(3)).exp()
        tensor([0.5000, 0.2500, 0.1250])
    """

    names: ClassVar = ("log_mean", "log_dispersion")
    support = constraints.nonnegative_integer

    @property
    def dispersion(self) -> Tensor:
        """r, within what a float holds; of size 1 where it was broadcast."""
        return unexpanded(self.log_dispersion).clamp(-15.0, 30.0).exp()

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        return self.mean + self.mean.square() / self.dispersion

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, of the broadcast shape of ``value`` and the parameters."""
        x, r = self._checked(value), self.dispersion
        c = torch.where(x > 0, x, 1.0)
        # The same from the side of r, by which r and c are exchanged: nothing cancels on that of the smaller.
        few = r < c
        rate, fraction = torch.where(few, r, x), torch.where(few, r, c) / (r + c)
        away = (self.log_mean - c.log()) * torch.where(few, -1.0, 1.0)
        about = log_about(c) + stirling(r + c) - stirling(r) - 0.5 * torch.log1p(c / r)
        about = torch.where(x > 0, about, torch.where(x < 0, -math.inf, -r * torch.log1p(1 / r)))
        return torch.addcmul(about, rate, away).addcmul_(r + x, log_mixed(fraction, away), value=-1)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        r = self.dispersion.expand(self._extended_shape(sample_shape))
        return torch.poisson(dist.Gamma(r, r / self.mean, validate_args=False).sample())


class BetaBinomial(Elementwise):
    r"""Successes in n trials whose probability is beta distributed, with mean pi and concentration c.

    .. math:: \log p(x) = \log\tbinom{n}{x} + \log \frac{B(c \pi + x,\, c (1 - \pi) + n - x)}{B(c \pi,\, c (1 - \pi))}

    Args:
        total_count: n, the same for every element.
        logits: log odds of pi, any shape.
        log_concentration: log c; large is binomial.

    Example:
        >>> BetaBinomial(2, torch.tensor(0.0), torch.tensor(2.0).log()).log_prob(torch.arange(3)).exp()  # uniform
        tensor([0.3333, 0.3333, 0.3333])
    """

    names: ClassVar = ("logits", "log_concentration")

    def __init__(
        self, total_count: int, logits: Tensor, log_concentration: Tensor, validate_args: bool | None = None
    ) -> None:
        self.total_count = total_count
        super().__init__(logits, log_concentration, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.total_count)

    @property
    def _concentrations(self) -> tuple[Tensor, Tensor]:
        whole = self.log_concentration.clamp(-15.0, 30.0).exp()
        return (whole * self.logits.sigmoid()).clamp_min(LEAST), (whole * (-self.logits).sigmoid()).clamp_min(LEAST)

    @property
    def mean(self) -> Tensor:
        a, b = self._concentrations
        return self.total_count * a / (a + b)

    @property
    def variance(self) -> Tensor:
        a, b = self._concentrations
        n, whole = self.total_count, a + b
        return n * a * b * (whole + n) / (whole.square() * (whole + 1))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, of the broadcast shape of ``value`` and the parameters."""
        # At small concentrations thousands of nats cancel: in float32 5e-4 would be lost for each element.
        x, n, (a, b) = self._checked(value).double(), self.total_count, (c.double() for c in self._concentrations)
        log_choose = math.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n + 1 - x)
        log_mean = x * torch.log(a / (a + b)) + (n - x) * torch.log(b / (a + b))
        rising = log_rising(a, x) + log_rising(b, n - x) - log_rising(a + b, torch.full_like(a, n))
        return (log_choose + log_mean + rising).to(self.logits.dtype)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        a, b = (each.expand(self._extended_shape(sample_shape)) for each in self._concentrations)
        probs = dist.Beta(a, b, validate_args=False).sample().nan_to_num(0.5)
        return torch.binomial(torch.full_like(probs, self.total_count), probs)


class ZeroInflated(dist.TorchDistribution):
    r"""Zero with a probability pi, and else a draw of a distribution of counts, which may be zero as well.

    .. math:: p(0) = \pi + (1 - \pi) \, p_0(0), \qquad p(x) = (1 - \pi) \, p_0(x)

    Args:
        base: of counts, any batch shape.
        gate_logits: log odds of pi, of that shape.

    References:
        Lambert (1992), Zero-inflated Poisson regression, Technometrics 34:1.
    """

    arg_constraints: ClassVar = {}
    support = constraints.nonnegative_integer

    def __init__(self, base: dist.TorchDistribution, gate_logits: Tensor, validate_args: bool | None = None) -> None:
        shape = torch.broadcast_shapes(base.batch_shape, gate_logits.shape)
        self.base_dist, self.gate_logits = base.expand(shape), gate_logits.expand(shape)
        super().__init__(shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        new.base_dist, new.gate_logits = self.base_dist.expand(batch_shape), self.gate_logits.expand(batch_shape)
        super(ZeroInflated, new).__init__(Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        return (-self.gate_logits).sigmoid() * self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        counts, mean = (-self.gate_logits).sigmoid(), self.base_dist.mean
        return counts * (self.base_dist.variance + (1 - counts) * mean.square())

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, of the broadcast shape of ``value`` and the parameters."""
        if self._validate_args:
            self._validate_sample(value)
        counted = logsigmoid(-self.gate_logits) + self.base_dist.log_prob(value)
        return torch.where(value == 0, torch.logaddexp(logsigmoid(self.gate_logits), counted), counted)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        drawn = self.base_dist.sample(sample_shape)
        return torch.where(torch.rand_like(drawn) < self.gate_logits.sigmoid(), 0.0, drawn)
