r"""Distributions of single numbers from a natural parameter on the whole real line, for data of any type.

.. math:: \log p(x) = x\,\eta - A(\eta) + h(x), \qquad E[x] = A'(\eta), \quad Var[x] = A''(\eta)

So written nothing saturates: a logit of 120 costs 120 nats, where a probability in float32 has long been rounded
to 1. And h depends on the data alone, so that it is computed once for all particles.

Of large counts these terms are 600,000 nats that cancel, of which float32 keeps some hundredths. There log p(x) is
found from that about the parameter eta_0 under which x is expected, which data decide and has no large terms,

.. math:: \log p(x) = \log p(x \mid \eta_0) + x t - [A(\eta_0 + t) - A(\eta_0)], \qquad t = \eta - \eta_0

where the difference of A is found as one: it is as small as what is left of all.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus

from pyrovae.programs.distributions.event_sums import MANY, Trials

STIELTJES = (1 / 12, 1 / 30, 53 / 210, 195 / 371, 22999 / 22737, 29944523 / 19733142)  # of a continued fraction
MOST = 80.0  # whose exponential float32 holds


class _NaturalFamily(dist.TorchDistribution):
    """What the families below share; each gives its support, A, h, its mean A' and variance A'', and a way to draw.

    Moments have the shape of eta; draws have the shape ``sample_shape + eta.shape``.
    """

    arg_constraints: ClassVar = {"natural": constraints.real}

    def __init__(self, natural: Tensor, validate_args: bool | None = None) -> None:
        self.natural = natural
        super().__init__(natural.shape, validate_args=validate_args)

    @abstractmethod
    def log_normalizer(self) -> Tensor:
        """A(eta), of the shape of eta."""

    def log_base(self, value: Tensor) -> Tensor:
        """h(x), of the shape of x; 0 unless a family says otherwise."""
        return torch.zeros_like(value)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, of the broadcast shape of ``value`` and the parameter."""
        if self._validate_args:
            self._validate_sample(value)
        value = value.to(self.natural.dtype)
        return value * self.natural - self.log_normalizer() + self.log_base(value)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(type(self), _instance)
        vars(new).update(vars(self))
        new.natural = self.natural.expand(batch_shape)
        super(_NaturalFamily, new).__init__(Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new


class Bernoulli(Trials, dist.Bernoulli):
    """torch's Bernoulli from logits, with eta the logit; data may be of any type, and scoring takes a third less.

    Example:
        >>> Bernoulli(logits=torch.tensor(0.0)).log_prob(torch.tensor([True, False])).exp()
        tensor([0.5000, 0.5000])
    """

    total_count: ClassVar = 1
    advice: ClassVar = ", or use the continuous Bernoulli for values between 0 and 1"  # where data lie outside

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, of the broadcast shape of ``value`` and the logits."""
        if self._validate_args:
            self._validate_sample(value)
        return value.to(self.logits.dtype) * self.logits - _log_one_plus_exp(self.logits)


class Binomial(Trials, _NaturalFamily):
    r"""Successes in a fixed number n of trials, from logits.

    .. math:: A(\eta) = n \log(1 + e^\eta), \qquad h(x) = \log\tbinom{n}{x}

    Args:
        total_count: n, the same for every element.
        logits: log odds of a success, any shape.
        validate_args: whether to check arguments and values; None follows torch's switch.

    Example:
        >>> Binomial(2, torch.tensor(0.0)).log_prob(torch.arange(3)).exp()
        tensor([0.2500, 0.5000, 0.2500])
    """

    def __init__(self, total_count: int, logits: Tensor, validate_args: bool | None = None) -> None:
        self.total_count = total_count
        super().__init__(logits, validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.total_count)

    logits = property(lambda self: self.natural, doc="The natural parameter: log odds of a success.")

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.logits.sigmoid()

    @property
    def variance(self) -> Tensor:
        return self.mean * (-self.logits).sigmoid()

    def log_normalizer(self) -> Tensor:
        return self.total_count * _log_one_plus_exp(self.logits)

    def log_base(self, value: Tensor) -> Tensor:
        n, x = self.total_count, value.double()
        return (math.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n + 1 - x)).to(value.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, of the broadcast shape of ``value`` and the logits."""
        if self.total_count < MANY:
            return super().log_prob(value)
        if self._validate_args:
            self._validate_sample(value)
        n, x = self.total_count, value.to(self.logits.dtype)
        c = x.double().clamp(0.5, n - 0.5)
        log_odds = c.log() - (n - c).log()
        about = self.log_base(x.double()) + x * log_odds - n * _log_one_plus_exp(log_odds)
        # Failures take the place of successes where those are fewer.
        few, away = c <= n / 2, self.logits - log_odds.to(x.dtype)
        count, fraction = torch.where(few, x, n - x), (torch.minimum(c, n - c) / n).to(x.dtype)
        away = torch.where(few, away, -away)
        return about.to(x.dtype) + count * away - n * log_mixed(fraction, away)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        probs = self.logits.sigmoid().expand(self._extended_shape(sample_shape)).contiguous()
        return torch.binomial(torch.full_like(probs, self.total_count), probs)


class Poisson(_NaturalFamily):
    r"""Counts without a bound, from log rates.

    .. math:: A(\eta) = e^\eta, \qquad h(x) = -\log x!

    Args:
        natural: log rate, the logarithm of the expected count, any shape.
        validate_args: whether to check arguments and values; None follows torch's switch.

    Example:
        >>> Poisson(torch.tensor(-200.0)).log_prob(torch.tensor(1.0))
        tensor(-200.)
    """

    support = constraints.nonnegative_integer

    @property
    def mean(self) -> Tensor:
        return self.natural.exp()

    variance = mean

    def log_normalizer(self) -> Tensor:
        return self.natural.exp()

    def log_base(self, value: Tensor) -> Tensor:
        return -torch.lgamma(value + 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, of the broadcast shape of ``value`` and the log rates."""
        if self._validate_args:
            self._validate_sample(value)
        x = value.to(self.natural.dtype)
        c = torch.where(x > 0, x, 1.0)
        away = self.natural - c.log()
        about = torch.where(x < 0, -math.inf, torch.where(x == 0, -1.0, log_about(c)))
        return torch.addcmul(about, x, away).addcmul_(c, torch.expm1(away), value=-1)  # passes over memory take longest

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        return torch.poisson(self.mean.expand(self._extended_shape(sample_shape)))


class ContinuousBernoulli(_NaturalFamily):
    r"""Numbers in [0, 1] whose log density is a straight line of slope eta, the logit.

    .. math:: A(\eta) = \log \int_0^1 e^{x \eta} dx = \log \frac{e^\eta - 1}{\eta}, \qquad h(x) = 0

    Near zero, where these quotients lose their digits, A and what is derived from it are Taylor series. (torch's
    own clips the probabilities: in float32 it is off by 0.2 nats for each pixel at a logit of 20.)

    Args:
        natural: logit, the slope of the log density, any shape; 0 is the uniform distribution.
        validate_args: whether to check arguments and values; None follows torch's switch.

    References:
        Loaiza-Ganem and Cunningham (2019), The continuous Bernoulli, arXiv:1907.06845.

    Example:
        >>> ContinuousBernoulli(torch.tensor([0.0, 20.0])).mean
        tensor([0.5000, 0.9500])
    """

    support = constraints.unit_interval
    has_rsample = True

    logits = property(lambda self: self.natural, doc="The natural parameter: slope of the log density.")

    @property
    def mean(self) -> Tensor:
        return _piecewise(
            self.logits,
            near=lambda t: 0.5 + t * _polynomial(t * t, 1 / 12, -1 / 720, 1 / 30240, -1 / 1209600),
            far=lambda t: 0.5 + 0.5 / torch.tanh(t / 2) - 1 / t,
        )

    @property
    def variance(self) -> Tensor:
        return _piecewise(
            self.logits,
            near=lambda t: _polynomial(t * t, 1 / 12, -1 / 240, 1 / 6048, -1 / 172800),
            far=lambda t: t.pow(-2) - 0.25 * torch.sinh(t / 2).pow(-2),
        )

    def log_normalizer(self) -> Tensor:
        return _piecewise(
            self.logits,
            near=lambda t: t / 2 + t * t * _polynomial(t * t, 1 / 24, -1 / 2880, 1 / 181440, -1 / 9676800),
            far=lambda t: t.relu() + torch.log(-torch.expm1(-t.abs()) / t.abs()),
        )

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws that are differentiable in the logits, by the inverse CDF."""
        shape = self._extended_shape(sample_shape)
        tiny = torch.finfo(self.logits.dtype).eps
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device).clamp_min(tiny)
        # log(1 + u (e^t - 1)) is the cumulant generating function of a Bernoulli(u): near 0 its series is known.
        spread = uniform * (1 - uniform)
        cumulants = (uniform, spread / 2, spread * (1 - 2 * uniform) / 6, spread * (1 - 6 * spread) / 24)
        return _piecewise(
            self.logits.expand(shape),
            near=lambda t: _polynomial(t, *cumulants),
            far=lambda t: _truncated_exponential(uniform, t),
            threshold=0.01,
        ).clamp(0, 1)


def stirling(a: Tensor) -> Tensor:
    r"""Stirling's remainder of log Gamma, which tends to 1 / 12a, to the last digits for a > 0.

    .. math:: s(a) = \log \Gamma(a) - (a - \tfrac12) \log a + a - \tfrac12 \log 2 \pi

    By its continued fraction at a + 2 (in double at a + 7); the steps between have no large terms either.

    References:
        Stieltjes (1894), Recherches sur les fractions continues, Annales de la Faculté des Sciences de Toulouse 8.
    """
    steps = 7 if a.dtype == torch.float64 else 2
    last = a + steps
    found = STIELTJES[-1] / last
    for numerator in reversed(STIELTJES[:-1]):
        found = numerator / (last + found)
    for step in range(steps):
        found = found + ((a + (step + 0.5)) * torch.log1p(1 / (a + step)) - 1)
    return found


def log_about(count: Tensor) -> Tensor:
    """Log mass of a count > 0 under a Poisson of that very mean; that of 1 is also the one of 0 under a mean of 1."""
    return -0.5 * torch.log(2 * math.pi * count) - stirling(count)


def log_mixed(fraction: Tensor, t: Tensor) -> Tensor:
    """log(1 - f + f e^t), to rounding near t = 0."""
    return torch.log1p(fraction * torch.expm1(t.clamp(max=MOST))) + (t - MOST).relu()


def _log_one_plus_exp(t: Tensor) -> Tensor:
    """log(1 + e^t) to the last digit of a double: torch's softplus drops e^-t already at t = 20."""
    return softplus(t, threshold=40)


def _truncated_exponential(uniform: Tensor, slope: Tensor) -> Tensor:
    """Quantile of the density proportional to exp(slope * x) on [0, 1]; its decaying side keeps the digits."""
    rising, rate = slope > 0, slope.abs()
    decaying = -torch.log1p(torch.where(rising, 1 - uniform, uniform) * torch.expm1(-rate)) / rate
    return torch.where(rising, 1 - decaying, decaying)


def _piecewise(
    t: Tensor, *, near: Callable[[Tensor], Tensor], far: Callable[[Tensor], Tensor], threshold: float = 0.25
) -> Tensor:
    """``near(t)`` where |t| < threshold, ``far(t)`` elsewhere, each kept from the other's side and its NaNs."""
    is_near = t.abs() < threshold
    return torch.where(is_near, near(torch.where(is_near, t, 0.0)), far(torch.where(is_near, 1.0, t)))


def _polynomial(t: Tensor, *coefficients: float | Tensor) -> Tensor:
    """The polynomial of t with these coefficients, the constant first (Horner)."""
    total = torch.zeros_like(t)
    for coefficient in reversed(coefficients):
        total = total * t + coefficient
    return total
