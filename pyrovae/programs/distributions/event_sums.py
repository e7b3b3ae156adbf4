r"""The log mass of an event of independent trials, summed as it arises: the elements' own are never written down.

.. math:: \sum_d \log p(x_d) = -n \sum_d \Big(\max(\eta_d, 0) - \frac{x_d}{n} \eta_d\Big)
    - n \sum_g \log \prod_{d \in g} \left(1 + e^{-|\eta_d|}\right)

with x_d successes in n trials of log odds eta_d. Nothing saturates and nothing large cancels; one logarithm serves a
whole group g of elements, as the product of factors between 1 and 2 loses no digit and does not overflow.
"""

import functools
import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

IN_CACHE = 2**17  # logits scored at once by a core of the CPU: what they leave behind stays in its cache
MANY = 1000  # trials, whose elements are scored one by one: there float32 loses digits in their sum
LANES = 16  # numbers that a core works on at once


class Trials:
    """What Bernoulli and Binomial share, before their base class: ``to_event`` makes an :class:`Event` of them.

    A subclass has ``total_count`` and ``logits``, and ``log_base`` where it has more than one trial.
    """

    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> Any:
        """The last dimensions of the batch as one event (all where None), as with Pyro's own ``to_event``."""
        event: Any = super().to_event(reinterpreted_batch_ndims)  # type: ignore[misc]
        is_event = isinstance(event, dist.Independent)
        return Event(event.base_dist, event.reinterpreted_batch_ndims) if is_event else event


class Event(Trials, dist.Independent):  # type: ignore[override]
    """Independent trials as one event, whose log masses are summed as they arise.

    Where gradients are recorded they are summed as Pyro sums them, which costs as much there.

    Example:
        >>> from pyrovae.programs.distributions.exponential import Bernoulli
        >>> Bernoulli(logits=torch.tensor([0.0, 200.0])).to_event(1).log_prob(torch.tensor([1.0, 0.0]))  # -log 2 - 200
        tensor(-200.6931)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats, of the broadcast batch shape."""
        base, seen = self._base_and_mask()
        has_gradient = torch.is_grad_enabled() and (base.logits.requires_grad or value.requires_grad)
        if has_gradient or base.total_count >= MANY:
            return super().log_prob(value)
        if base._validate_args:
            base._validate_sample(value)
        if isinstance(seen, bool):
            return super().log_prob(value)
        value, count = value.to(base.logits.dtype), base.total_count
        # For each trial: log odds, the fraction of successes, and the log binomial coefficient where it is not zero.
        elements = [base.logits, value / count] + ([base.log_base(value) / count] if count > 1 else [])
        elements += [] if seen is None else [seen]
        events = [part.flatten(-self.reinterpreted_batch_ndims) for part in torch.broadcast_tensors(*elements)]
        # A compiler, as a GPU, fuses by itself what it gets in one piece.
        traced = torch.compiler.is_compiling() or get_proxy_mode() is not None
        if events[0].dim() == 1 or base.logits.is_cuda or traced:
            return count * _log_mass(*events)
        rows = max(1, torch.get_num_threads() * IN_CACHE // max(1, events[0][0].numel()))
        blocks = zip(*(part.split(rows) for part in events), strict=True)
        return count * torch.cat([_log_mass(*block) for block in blocks])

    def _base_and_mask(self) -> tuple[Any, Any]:
        """The trials, and which of them count, where that is told of each."""
        base, mask = self.base_dist, None
        while isinstance(base, dist.MaskedDistribution):
            mask = base._mask if mask is None else mask & base._mask
            base = base.base_dist
        return base, mask


def _log_mass(logits: Tensor, fraction: Tensor, *others: Tensor) -> Tensor:
    """The log mass of each event in nats per trial, (...), for elements (..., D); without gradients.

    Of the others, booleans tell which elements count, and numbers are log binomial coefficients.
    """
    size = logits.shape[-1]
    group = _group(size, logits.dtype)
    odds = logits.abs().neg_().exp_()
    missed = logits.relu().addcmul_(fraction, logits, value=-1)
    for term in others:
        if term.dtype == torch.bool:  # products are several times as fast as a choice
            counts = term.to(logits.dtype)
            odds.mul_(counts)
            missed.mul_(counts)
        else:
            missed.sub_(term)
    factors = odds.add_(1).unflatten(-1, (group, size // group)).prod(-2)
    return -(factors.log_().sum(-1) + missed.sum(-1))


@functools.cache
def _group(size: int, dtype: torch.dtype) -> int:
    """How many factors make a product: as many as divide the event, do not overflow and leave a core's lanes full."""
    most = min(int(math.log2(torch.finfo(dtype).max)) - 1, size // LANES)
    return max((divisor for divisor in range(1, most + 1) if size % divisor == 0), default=1)
