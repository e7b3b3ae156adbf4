"""The best member of a family, datum by datum: on the posterior where the family holds it, and never behind its start."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.proposals import local
from pyrovae.evidence.proposals.gaussians import full_covariance, mixture
from pyrovae.evidence.proposals.guide_family import own_family
from pyrovae.evidence.proposals.local import Guide, best, draw_unconstrained
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents

ORACLE = pv.oracles.ppca(8, 2)
X, _ = ORACLE.draw(5, seed=0)
SETTINGS = {"num_steps": 200, "num_draws": 4}


@pytest.fixture
def latents():
    with isolated(ORACLE.model, ORACLE.mean_field_guide(1.5, 0.5)) as (model, guide, _):
        torch.manual_seed(0)
        yield Latents(model, guide, (X,))


@pytest.fixture
def exact():
    with isolated(ORACLE.model, ORACLE.guide) as (model, guide, _):
        torch.manual_seed(0)
        yield Latents(model, guide, (X,))


def test_full_covariances_end_on_the_posterior(latents):
    q = best(latents, full_covariance(latents, Guide(latents)), ("gaps", 1), **SETTINGS)
    posterior = ORACLE.posterior(X)
    torch.testing.assert_close(q.loc, posterior.loc, rtol=0, atol=1e-3)
    torch.testing.assert_close(q.scale_tril, posterior.scale_tril.expand_as(q.scale_tril), rtol=0, atol=1e-3)


def test_the_own_family_ends_on_its_known_best(latents):
    # The best factorised Normal has the posterior's means and 1 / sqrt(diag(precision)), up to the noise of 4 draws.
    family = own_family(latents, Guide(latents))
    q = best(latents, family, ("gaps", 1), num_steps=400, num_draws=16)
    (normal,) = q.sites.values()
    torch.testing.assert_close(normal.base_dist.loc, ORACLE.posterior(X).loc, rtol=0, atol=0.02)
    scale = ORACLE.precision().diagonal().rsqrt()
    torch.testing.assert_close(normal.base_dist.scale, scale.expand(5, 2), rtol=0.05, atol=0)


def test_each_datum_is_fitted_alone(latents):
    other = X.clone()
    other[3] += 1.0
    ends = []
    for x in (X, other):
        again = Latents(latents.model, latents.guide, (x,))
        torch.manual_seed(0)
        ends.append(best(again, full_covariance(again, Guide(again)), ("gaps", 1), num_steps=20, num_draws=4).loc)
    same = [0, 1, 2, 4]
    torch.testing.assert_close(ends[0][same], ends[1][same], rtol=1e-10, atol=1e-10)
    assert (ends[0][3] != ends[1][3]).all()


@pytest.mark.parametrize("num_draws", [1, 4])
def test_gradients_vanish_at_every_draw_on_the_posterior(exact, num_draws):
    family = own_family(exact, Guide(exact))
    leaves = {name: value.clone().requires_grad_() for name, value in family.start.items()}
    with torch.enable_grad():
        gradients = torch.autograd.grad(local._objective(exact, family, leaves, num_draws), list(leaves.values()))
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-10


def test_gradients_are_those_of_the_elbo(latents):
    # Of a mean over 40,000 draws against the closed form -KL(q || posterior), within 4 % of the largest entry.
    family = own_family(latents, Guide(latents))
    leaves = {name: value.clone().requires_grad_() for name, value in family.start.items()}
    with torch.enable_grad():
        found = torch.autograd.grad(local._objective(latents, family, leaves, 40_000), list(leaves.values()))
        (normal,) = family.build(leaves).sites.values()
        q = dist.MultivariateNormal(normal.base_dist.loc, scale_tril=normal.base_dist.scale.diag_embed())
        kl = torch.distributions.kl_divergence(q, ORACLE.posterior(X)).sum()
        exact = torch.autograd.grad(-kl, list(leaves.values()))
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0.04 * float(b.abs().max()))


@pytest.mark.parametrize("learning_rate", [0.05, 3.0], ids=["worse", "overflowing"])
def test_the_start_is_kept_where_the_end_is_worse(exact, monkeypatch, learning_rate):
    monkeypatch.setattr(local, "LEARNING_RATE", learning_rate)
    monkeypatch.setattr(local, "_objective", lambda *args: sum(leaf.sum() for leaf in args[2].values()))  # leads astray
    q = best(exact, own_family(exact, Guide(exact)), ("gaps", 1), **SETTINGS)
    (normal,) = q.sites.values()
    torch.testing.assert_close(normal.loc, ORACLE.posterior(X).loc, rtol=1e-12, atol=1e-12)


def test_a_component_that_counts_for_little_still_moves(latents):
    family = mixture(latents, Guide(latents))
    leaves = {name: value.clone().requires_grad_() for name, value in family.start.items()}
    with torch.enable_grad():
        with torch.no_grad():
            leaves["logits"][:, 0] = -60.0
        (gradient,) = torch.autograd.grad(local._objective(latents, family, leaves, 400), [leaves["log_scale"]])
    assert (gradient[:, 0].abs() > 1e-3).all()


def test_a_fit_that_runs_into_nan_is_named():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
            pyro.sample("x", dist.Normal(z, x), obs=x)  # a scale of zero

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 0.1))

    with isolated(model, guide) as (model, guide, _):
        latents = Latents(model, guide, (torch.tensor([1.0, 0.0]),))
        with pytest.raises(
            FloatingPointError, match="family 'own': its best parameters for 1 of 2 data are not finite"
        ):
            best(latents, own_family(latents, Guide(latents)), ("gaps", 1), **SETTINGS)


def test_draws_come_a_few_at_a_time(latents, monkeypatch):
    monkeypatch.setattr("pyrovae.base.memory.ELEMENTS_AT_ONCE", 5 * 64 * 3)
    assert latents.particles.at_once() == 3
    sizes = []

    def draw(num_particles):
        sizes.append(num_particles)
        return latents.draw(num_particles)

    assert draw_unconstrained(latents, draw, 7).shape == (7, 5, 2) and sizes == [3, 3, 1]
