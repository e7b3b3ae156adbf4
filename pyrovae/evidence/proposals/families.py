"""Proposals of one multiple importance sampling: the guide, and the best member of each family for each datum."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pyrovae.base.errors import InputError, check_at_least_one, nearest
from pyrovae.base.memory import explain_out_of_memory
from pyrovae.base.random import seed_everything
from pyrovae.evidence.proposals.gaussians import full_covariance, mixture
from pyrovae.evidence.proposals.guide_family import own_family
from pyrovae.evidence.proposals.local import Family, Guide, Local, best, draw_unconstrained
from pyrovae.evidence.proposals.multiple import Account, account, score
from pyrovae.pairs.latents import Latents, Values
from pyrovae.pairs.supports import require_unmasked
from pyrovae.pairs.terms import check_finite

# Name -> what makes a family for the data of some latents, from the best distribution found so far.
FAMILIES: dict[str, Callable[[Latents, Local], Family]] = {
    "own": own_family,
    "full covariance": full_covariance,
    "mixture": mixture,
}


@dataclass(frozen=True)
class Plan:
    """How gaps are measured: the arguments of :func:`~pyrovae.diagnostics.gaps.gaps`, checked.

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
    require_comparable(latents)
    check_finite(latents.particles.log_terms(2))
    num_data, start = latents.num_data, Guide(latents)
    fitted: dict[str, Local] = {"guide": start}
    with explain_out_of_memory(f"{plan.num_draws} draws of {num_data} data at once: lower batch_size or num_draws"):
        for name in plan.names[1:]:
            key = ("gaps", plan.seed, block, list(FAMILIES).index(name))
            seed_everything(*key)
            family = FAMILIES[name](latents, fitted.get("own", start))
            _require_possible(latents, family)
            fitted[name] = best(latents, family, key, num_steps=plan.num_steps, num_draws=plan.num_draws, tick=tick)
    with explain_out_of_memory(f"{plan.num_particles} draws of {num_data} data: lower batch_size or num_particles"):
        return account(score(latents, fitted, plan.num_particles, ("gaps", plan.seed, block, len(FAMILIES))))


def _require_possible(latents: Latents, family: Family) -> None:
    """Raises InputError, naming the site, if draws of a family make a datum impossible: its ELBO is not finite."""
    member = family.build(family.start)

    def draw(num_draws: int) -> Values:
        u = draw_unconstrained(latents, member.sample, num_draws)
        return latents.log_joint_unconstrained(u).values

    others = f"Leave '{family.name}' out of families: of those that are left the gap is told"
    latents.require_possible(draw, f"family '{family.name}'", others)


def require_comparable(latents: Latents) -> None:
    """Raises InputError, naming the site, unless guide and model have densities over one unconstrained space."""
    latents.require_bijection("the anatomy of the gap")
    latents.require_guide_density()
    latents.check_guide_support()
    require_unmasked(latents.particles.example, latents.sites)
    latents.require_possible(
        latents.draw, "the guide", "Its ELBO is minus infinity: draw in the guide only latents that the datum allows"
    )
