r"""The posterior of one datum by the no-U-turn sampler: chains in unconstrained space, with

.. math:: U(u) = -\log p(x, T(u)) - \log |\det \partial T / \partial u|

as potential energy, summed up in float64 whatever dtype the programs run in.

Pyro's kernel is driven step by step: ``pyro.infer.MCMC`` around it would take over Pyro's logger and start processes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pyro.infer.mcmc import NUTS
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from pyrovae.base.progress import bar
from pyrovae.base.random import seed_everything
from pyrovae.pairs.latents import Latents, Values
from pyrovae.posteriors.methods import Answer, Plan, plain_moments
from pyrovae.posteriors.unconstrained import UnconstrainedDensity

MOST_RHAT = 1.01  # Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021), Rank-normalization, arXiv:1903.08008


class Chains(NamedTuple):
    """How well the chains mixed."""

    rhat: Values  # site -> (*event): split R-hat
    ess: Values  # site -> (*event): effective sample size of all chains together
    divergences: list[int]  # of each chain, after its warm-up

    @property
    def worst_rhat(self) -> float:
        """The largest R-hat of any coordinate; NaN where one stood still."""
        return torch.stack([values.max() for values in self.rhat.values()]).max().item()

    @property
    def least_ess(self) -> float:
        """The smallest effective sample size of any coordinate."""
        return torch.stack([values.min() for values in self.ess.values()]).min().item()

    def lines(self) -> list[str]:
        return [
            f"NUTS, chains: {len(self.divergences)}; largest R-hat {self.worst_rhat:.3f}, least effective sample size "
            f"{self.least_ess:.0f}, divergences {sum(self.divergences)}"
        ]

    def doubts(self) -> list[str]:
        """Whether chains disagree, or could not follow the posterior's curvature."""
        doubts = []
        if not self.worst_rhat <= MOST_RHAT:
            doubts.append(
                f"R-hat is up to {self.worst_rhat:.3f}, above {MOST_RHAT}: the chains disagree. Raise num_warmup and "
                "num_draws; if it stays, the posterior may have several modes, which no "
                "single guide need know of: method='grid' sees them in one or two dimensions"
            )
        if any(self.divergences):
            doubts.append(
                f"{sum(self.divergences)} transitions diverged: a part of the posterior is too sharply curved for the "
                "chains to enter. Raise num_warmup, or see whether method='resampled' agrees"
            )
        return doubts


def by_nuts(latents: Latents, plan: Plan) -> Answer:
    """The posterior of one datum by NUTS, the chains one after the other.

    They start from the guide and from the prior by turns, so that a part of the posterior that the guide does not
    know of shows as a disagreement.

    Raises:
        InputError: naming the site, if the datum is impossible under some latents.
        FloatingPointError: where a chain cannot start, or log p(x, z) is NaN or infinite.

    References:
        Hoffman and Gelman (2014), The No-U-Turn Sampler, JMLR 15:1593.
    """
    seed_everything("reference", plan.seed, 1)
    line = UnconstrainedDensity(latents)
    for draw, whose in ((latents.draw, "the guide"), (latents.draw_prior, "the prior")):
        latents.require_possible(draw, whose, "NUTS follows gradients, and none leads back: use method='resampled'")
    starts = _starts(line, plan.num_chains)
    steps = plan.num_chains * (plan.num_warmup + plan.num_draws)
    with bar(shown=plan.progress, total=steps, desc="NUTS", unit="step", delay=2) as shown:
        runs = [_chain(line, start, plan, number, shown) for number, start in enumerate(starts)]
    flat = line.at(torch.cat([draws for draws, _ in runs])).values
    values = {name: value.unflatten(0, (plan.num_chains, plan.num_draws)) for name, value in flat.items()}
    mixing = Chains(_each(split_gelman_rubin, values), _each(effective_sample_size, values), [d for _, d in runs])
    moments = plain_moments(flat)
    error = {name: sd.cpu() / mixing.ess[name].sqrt() for name, sd in moments.sd.items()}
    return Answer(values, moments, error, None, mixing)


def _starts(line: UnconstrainedDensity, num_chains: int) -> Tensor:
    """One draw of the guide, one of the prior, and so on: (C, D)."""
    starts = line.draws(num_chains).unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)[:num_chains]
    points = line.at(starts)
    bad = (~points.log_density.isfinite()).nonzero().flatten()
    if len(bad):
        raise FloatingPointError(f"a chain cannot start: {points.describe(int(bad[0]))}; look at the model there")
    return starts


def _chain(line: UnconstrainedDensity, start: Tensor, plan: Plan, number: int, shown: Any) -> tuple[Tensor, int]:
    """Draws (S, D) of one chain after its warm-up, and how many of its transitions diverged."""

    def potential(state: dict[str, Tensor]) -> Tensor:
        with torch.enable_grad():
            return -line.log_density(state["u"])

    seed_everything("reference", plan.seed, 2, number)
    kernel = NUTS(potential_fn=potential)
    kernel.initial_params = state = {"u": start.clone()}
    kernel.setup(plan.num_warmup)
    draws = []
    for _ in range(plan.num_warmup + plan.num_draws):
        state = kernel.sample(state)
        draws.append(state["u"])
        shown.update()
    return torch.stack(draws[plan.num_warmup :]), len(kernel.diagnostics()["divergences"])


def _each(statistic: Callable[[Tensor], Tensor], values: Values) -> Values:
    """A statistic of (chains, draws) for each coordinate of each site."""
    found = {}
    for name, value in values.items():
        # One at a time, as Pyro's memory for each grows with the square of the number of draws.
        columns = value.double().cpu().reshape(*value.shape[:2], -1).unbind(-1)
        found[name] = torch.stack([statistic(column) for column in columns]).reshape(value.shape[2:])
    return found
