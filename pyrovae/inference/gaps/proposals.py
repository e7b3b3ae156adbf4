"""The guide and the best members of families for each datum alone: fitted one by one, measured together."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pyrovae.base.errors import InputError, check_at_least_one, nearest
from pyrovae.base.memory import memory_advice
from pyrovae.base.random import GAPS, seed_everything
from pyrovae.inference.blocks import check_finite
from pyrovae.inference.gaps.gaussians import full_covariance, mixture
from pyrovae.inference.gaps.local import Family, Guide, Local, best
from pyrovae.inference.gaps.multiple import Account, account, score
from pyrovae.inference.gaps.own_family import own_family
from pyrovae.inference.latents import Latents
from pyrovae.inference.pairs import plain_traces
from pyrovae.inference.supports import refuse_masked
from pyrovae.inference.terms import WAYS

# Name -> what makes a family for the data of some latents, from the best distribution found so far.
FAMILIES: dict[str, Callable[[Latents, Local], Family]] = {
    "own": own_family,
    "full covariance": full_covariance,
    "mixture": mixture,
}


@dataclass(frozen=True)
class Plan:
    """How gaps are measured: the arguments of :func:`~pyrovae.inference.gaps.report.gaps`, checked.

    Raises:
        InputError: for numbers and names that cannot be used.
    """

    num_particles: int
    num_steps: int
    num_draws: int
    families: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        check_at_least_one(num_particles=self.num_particles, num_steps=self.num_steps, num_draws=self.num_draws)
        for name in self.families:
            if name not in FAMILIES:
                near = nearest(name, FAMILIES)
                raise InputError(f"families are {list(FAMILIES)}, got {name!r}{near and ';' + near}")

    def settings(self) -> dict[str, Any]:
        """As a record keeps them."""
        return {name: value for name, value in asdict(self).items() if name != "families"}

    @property
    def names(self) -> list[str]:
        """Of the proposals: the guide, then the families, richer ones last."""
        return ["guide", *(name for name in FAMILIES if name in self.families)]

    @property
    def num_ticks(self) -> int:
        """Steps of the optimisations for one block of data."""
        return self.num_steps * (len(self.names) - 1)


def measure(latents: Latents, plan: Plan, block: int, tick: Callable[[], object]) -> Account:
    """Evidence, ELBOs and gaps of one block of data, proposals in the order of ``plan.names``."""
    refuse_unfit(latents)
    check_finite(WAYS[latents.way](latents.model, latents.guide, latents.args, latents.structure, 2))
    num_data, start = latents.num_data, Guide(latents)
    fitted: dict[str, Local] = {"guide": start}
    with memory_advice(f"{plan.num_draws} draws of {num_data} data at once: lower batch_size or num_draws"):
        for name in plan.names[1:]:
            key = (GAPS, plan.seed, block, list(FAMILIES).index(name))
            seed_everything(*key)
            family = FAMILIES[name](latents, fitted.get("own", start))
            fitted[name] = best(latents, family, key, num_steps=plan.num_steps, num_draws=plan.num_draws, tick=tick)
    with memory_advice(f"{plan.num_particles} draws of {num_data} data: lower batch_size or num_particles"):
        return account(score(latents, fitted, plan.num_particles, (GAPS, plan.seed, block, len(FAMILIES))))


def refuse_unfit(latents: Latents) -> None:
    """Raises InputError, naming the site, where the densities of guide and model are not over the same real line."""
    latents.refuse_immovable("the anatomy of the gap")
    latents.refuse_auxiliary()
    latents.refuse_narrow_guide()
    traces = plain_traces(latents.model, latents.guide, latents.args)
    refuse_masked(*traces, latents.sites)
    for name in latents.sites:
        prior, drawn = (trace.nodes[name] for trace in traces)
        _refuse_strays(name, prior, drawn)


def _refuse_strays(name: str, prior: Any, drawn: Any) -> None:
    """Demands that what the guide draws at a site is in the support of the prior."""
    inside = prior["fn"].support.check(drawn["value"])
    if not inside.all():
        raise InputError(
            f"site '{name}': {int((~inside).sum())} of {inside.numel()} values that the guide draws are outside the "
            f"support of the prior; give '{name}' the prior's support in the guide"
        )
