r"""restore(): x given what an operator shows of it: draws of latents and of x, and the nats of the truth.

.. math:: p(x \mid y) = \int p(x \mid y, z) \, p(z \mid y) \, dz, \qquad
    \log p(x \mid y) = \log p(x) + \log p(y \mid x) - \log p(y)

Latents are drawn by their importance weights from the proposal that vouches for the evidence of y: so how far draws are
to be trusted is known of each picture. As y may leave several answers open, far from each other, modes are sought from
many guesses of x (with up to three latents from draws of the prior), and no proposal is taken that does not draw what
these lead to.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, UntrustedPosterior, check_at_least_one, warn
from pyrovae.data.split import as_split
from pyrovae.evidence.evaluate import routed
from pyrovae.evidence.plan import Plan
from pyrovae.evidence.reliability import UNRELIABLE_FRACTION
from pyrovae.evidence.report import Report
from pyrovae.pairs.latents import Latents, Values
from pyrovae.pairs.missing.observed import MOMENTS
from pyrovae.pairs.operators.operator import Operator
from pyrovae.pairs.traces import Program
from pyrovae.posteriors.missing.entries import completed_by
from pyrovae.posteriors.restoring.guesses import shown
from pyrovae.posteriors.restoring.restoration import Restoration


@checked
def restore(
    model: Program,
    guide: Program,
    data: Any,
    operator: Operator,
    *,
    truth: Tensor | None = None,
    evidence: Report | None = None,
    num_draws: int = 100,
    num_particles: int = 1000,
    method: str = "auto",
    budget: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    plate: str | None = None,
    progress: bool = True,
) -> Restoration:
    """Draws of the latents and of x given what an operator shows of it, y.

    Args:
        model: program of p(x, z), with one plate over the data.
        guide: program of q(z|x), which is given a guess of x from y.
        data: y (N, *of_shape), as ``operator.apply(x)`` draws it, or a tuple of y and the tensors that programs take
            after x.
        operator: how y comes about from x: ``pyrovae.operators``.
        truth: x (N, *shape), where it is known: log p(x | y) is told.
        evidence: the report on log p(x) of the truth, where there is one; else it is found here.
        num_draws: L.
        num_particles: K, that the draws are resampled from.
        method: of :func:`~pyrovae.evaluate`, by which proposals are found.
        budget: decoder passes for each datum and evidence at most.
        seed: of all draws.
        batch_size: data in a block.
        plate: name of the data plate, where several plates hold all sites.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        The :class:`Restoration`.

    Raises:
        InputError: for y or x of another shape than the operator's, a likelihood without closed form, and a pair
            without per-datum weights.

    Warns:
        UntrustedPosterior: if nothing vouches for the draws of more than 5 % of the data.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(4, 1)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> means = pv.operators.linear(torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]).double())
        >>> found = restore(oracle.model, oracle.guide, means.apply(x), means, truth=x, num_draws=10)
        >>> found.draws.shape, bool((means.apply(found.mean) - means.apply(x)).abs().max() < 1e-9)
        (torch.Size([10, 3, 4]), True)
    """
    check_at_least_one(num_draws=num_draws)
    plan = Plan(
        num_particles, seed, batch_size, plate=plate, compile=False, method=method, budget=budget, num_kept=num_draws
    )
    split = as_split(data)
    pair, starts = shown(model, guide, split, operator, plan)
    plan = replace(plan, starts=starts)
    y = pair.split.tensors[0].cpu()
    _check_truth(truth, evidence, operator, len(y))
    report, values = routed(pair.model, pair.guide, pair.split, plan, progress=progress)
    entries = completed_by(pair, values, plan, lambda latents: Restorer(latents, pair.whole).at, progress)
    if truth is not None and evidence is None:
        of_truth = split.replaced([truth, *split.drawn(seed).tensors[1:]])
        evidence, _ = routed(model, guide, of_truth, plan.apart(), progress=progress)
    restored = Restoration(
        values=values,
        **entries._asdict(),
        observed=y,
        picture=as_picture(operator, y),
        num_hidden=operator.num_hidden(y),
        report=report,
        truth=truth,
        evidence=None if truth is None else evidence,
        log_likelihood=None if truth is None else operator.log_likelihood(y, truth.to(y)).double(),
        operator=operator.name,
        seed=seed,
        protocol=split.protocol,
    )
    if restored.fraction_unreliable > UNRELIABLE_FRACTION:
        warn(
            UntrustedPosterior(
                f"nothing vouches for the draws of {restored.fraction_unreliable:.0%} of {len(restored)} data: raise "
                "num_particles, or fit a guide to y, fit(observed_through(model, operator), filled_in(guide, operator),"
                ' y, only="guide")'
            )
        )
    return restored


def _check_truth(truth: Tensor | None, evidence: Report | None, operator: Operator, num_data: int) -> None:
    if truth is not None:
        operator.check(truth, operator.shape, "truth")
    for name, value in (("truth", truth), ("evidence", evidence)):
        if value is not None and len(value) != num_data:
            raise InputError(f"{name}: expected {num_data} data, as there are of y, got {len(value)}")


class Restorer:
    """Draws x of some data at given latents, with its moments; for use inside ``isolated``."""

    def __init__(self, latents: Latents, restoring: Program) -> None:
        self.latents, self.restoring = latents, restoring

    def at(self, values: Values) -> tuple[Tensor, ...]:
        """Draws, means and variances of x (K, n, *shape) at latents (K, n, ...)."""
        met = set[str]()

        def read(site: Any) -> Tensor:
            value = site["value"]
            if MOMENTS not in (site["infer"] or {}):
                return value
            met.add(site["name"])
            return torch.stack([value, *(one.expand_as(value) for one in site["infer"][MOMENTS])], -1)

        found = self.latents.observed_by(self.restoring, values, read)
        return found[met.pop()].unbind(-1)


def as_picture(operator: Operator, y: Tensor) -> Tensor:
    """What is observed in the shape of x, to be looked at: (N, *shape)."""
    if operator.of_shape == operator.shape:
        return y
    if operator.of_shape == operator.shape[1:]:
        return y[:, None].expand(-1, *operator.shape)
    return operator.fill(y)
