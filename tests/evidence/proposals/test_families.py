"""Which pairs have a gap that can be measured, and in which order families are fitted."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from examples.moving import EXACT, WIDE
from examples.moving import X as BOUNDS
from examples.zoo import ZOO

from pyrovae.base.errors import InputError
from pyrovae.diagnostics.gaps import gaps
from pyrovae.evidence.proposals.families import FAMILIES, Plan, measure, require_comparable
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents

X = torch.tensor([0.5, 1.0, 2.0])


def program(prior, observe=True, mask=True):
    def run(x):
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=mask):
                z = pyro.sample("z", prior())
            if observe:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    return run


NORMAL, GAMMA, UNIFORM = lambda: dist.Normal(0.0, 1.0), lambda: dist.Gamma(20.0, 20.0), lambda: dist.Uniform(0.9, 1.1)
MASK = torch.tensor([True, False, True])
REFUSED = {
    "a narrower guide": (
        NORMAL,
        UNIFORM,
        True,
        r"site 'z': the guide \(Uniform, .*\) cannot draw all that the prior \(Normal, .* for 3 of 3 data",
    ),
    "a wider guide": (
        GAMMA,
        NORMAL,
        True,
        r"site 'z': \d\d.\d% of the draws of the guide \(Normal\) are outside the support of the prior \(Gamma",
    ),
    "a masked latent": (NORMAL, NORMAL, MASK, r"site 'z' is masked"),
}


@pytest.mark.parametrize(("prior", "guide", "mask", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_by_name(prior, guide, mask, message):
    programs = program(prior, mask=mask), program(guide, observe=False, mask=mask)
    with isolated(*programs) as (model, guide, _):
        torch.manual_seed(0)
        latents = Latents(model, guide, (X,), strategy="vectorized")
        with pytest.raises(InputError, match=message):
            require_comparable(latents)


FROM_THE_ZOO = {
    "discrete-and-continuous": "is discrete .* the anatomy of the gap moves latents along gradients",
    "mixture": "is discrete",
    "auto-normal": "TransformedDistribution is not given by parameters that can be freed",
    "masked-rows": "is masked",
}


@pytest.mark.parametrize("name", [name for name in ZOO if name != "no-latents"])
def test_every_other_pair_of_the_zoo_is_measured(name):
    case = ZOO[name]()
    args = tuple(arg[:5] if name in ("ppca", "factor-analysis") else arg for arg in case.args)
    families = tuple(name for name in FAMILIES if name != "own") if name == "hierarchical" else tuple(FAMILIES)
    plan = Plan(num_particles=4, num_steps=2, num_draws=2, families=families, seed=0)
    with isolated(case.model, case.guide) as (model, guide, _):
        torch.manual_seed(0)
        latents, ticks = Latents(model, guide, args, plate=case.plate), []
        if name in FROM_THE_ZOO:
            with pytest.raises((InputError, FloatingPointError), match=FROM_THE_ZOO[name]):
                measure(latents, plan, 0, lambda: None)
            return
        found = measure(latents, plan, 0, lambda: ticks.append(1))
    assert found.elbo.shape == (len(plan.names), latents.num_data) and found.log_evidence.isfinite().all()
    assert len(ticks) == plan.num_ticks
    if case.evidence is not None and "masked" in name:  # the guide is exact
        torch.testing.assert_close(found.elbo[0], case.evidence, rtol=1e-8, atol=1e-8)


def test_families_come_richer_ones_last():
    plan = Plan(num_particles=1, num_steps=3, num_draws=1, families=("mixture", "own"), seed=0)
    assert plan.names == ["guide", "own", "mixture"] and plan.num_ticks == 6
    assert plan.settings() == {"num_particles": 1, "num_steps": 3, "num_draws": 1, "seed": 0}


def test_a_density_that_is_nan_is_named_by_its_site():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
            pyro.sample("x", dist.Normal(z, 0.0), obs=0 * x + z)  # a scale of zero

    plan = Plan(num_particles=4, num_steps=2, num_draws=2, families=(), seed=0)
    with isolated(model, program(NORMAL, observe=False)) as (model, guide, _):
        latents = Latents(model, guide, (X,), strategy="vectorized")
        with pytest.raises(FloatingPointError, match="site 'x': log density in the model is nan for 3 of 3 data"):
            measure(latents, plan, 0, lambda: None)


@pytest.mark.parametrize("name", ["full covariance", "mixture"])
def test_a_family_that_rules_data_out_is_refused_by_site(name):
    """x ~ U(0, z): every Gaussian of log z has draws below x."""
    with pytest.raises(InputError, match=rf"site 'x': .* of family '{name}' .*Leave '{name}' out of families"):
        gaps(*EXACT, BOUNDS, families=[name], num_steps=2, num_particles=20, progress=False)
    found = gaps(*EXACT, BOUNDS, families=[], num_particles=20, progress=False)
    torch.testing.assert_close(found.log_evidence.float(), -BOUNDS)
    torch.testing.assert_close(found.gap["guide"].float(), torch.zeros(4), rtol=0, atol=1e-5)


def test_so_is_a_guide_that_does():
    with pytest.raises(InputError, match=r"site 'x': .* of the guide .*only latents that the datum allows"):
        gaps(*WIDE, BOUNDS, families=[], num_particles=20, progress=False)
