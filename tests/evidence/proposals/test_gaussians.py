"""Gaussian families against torch's own distributions, and where a mixture starts."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.proposals.gaussians import NUM_COMPONENTS, Gaussian, Mixture, centres, full_covariance, mixture
from pyrovae.evidence.proposals.local import Guide, draw_unconstrained
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents

N, D = 4, 3
ORACLE = pv.oracles.ppca(8, D)
X, _ = ORACLE.draw(N, seed=0)


@pytest.fixture
def latents():
    with isolated(ORACLE.model, ORACLE.mean_field_guide()) as (model, guide, _):
        torch.manual_seed(0)
        yield Latents(model, guide, (X,))


@pytest.fixture
def members(latents):
    """A member of each family, and torch's distribution of the same density."""
    share, loc, scale = torch.rand(2, N).double(), torch.randn(2, N, D).double(), torch.rand(2, N, D).double() + 0.5
    share = share / share.sum(0)
    parts = dist.Normal(loc.movedim(0, 1), scale.movedim(0, 1)).to_event(1)
    tril = torch.randn(N, D, D).double().tril(-1) + scale[0].diag_embed()
    return {
        "full covariance": (Gaussian(latents, loc[0], tril), dist.MultivariateNormal(loc[0], scale_tril=tril)),
        "mixture": (
            Mixture(share.log(), loc, scale),
            torch.distributions.MixtureSameFamily(dist.Categorical(share.T), parts),
        ),
    }


@pytest.mark.parametrize("name", ["full covariance", "mixture"])
def test_densities_are_those_of_torch(members, name):
    ours, theirs = members[name]
    u = torch.randn(5, N, D, dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(u, None), theirs.log_prob(u))


@pytest.mark.parametrize("name", ["full covariance", "mixture"])
def test_draws_have_the_moments_of_torch(members, name):
    # 5 standard errors for each of 4 x 3 means and variances.
    ours, theirs = members[name]
    u = ours.sample(20_000)
    assert ((u.mean(0) - theirs.mean).abs() < 5 * (theirs.variance / 20_000).sqrt()).all()
    spread = (u - theirs.mean).square()
    assert ((spread.mean(0) - theirs.variance).abs() < 5 * spread.std(0) / 20_000**0.5).all()


def test_draws_of_components_follow_each_other(members):
    q, _ = members["mixture"]
    u = q.draw(5000).unflatten(0, (2, 5000))
    assert ((u.mean(1) - q.loc).abs() < 5 * q.scale / 5000**0.5).all()


@pytest.mark.parametrize("family", [full_covariance, mixture])
def test_families_start_near_what_they_are_given(latents, family):
    guide = Guide(latents)
    made = family(latents, guide)
    q = made.build(made.start)
    assert all(len(value) == N for value in made.start.values())
    assert len(q.weight) == (NUM_COMPONENTS if made.name == "mixture" else 1)
    torch.testing.assert_close(q.weight.sum(0), torch.ones(N).double())
    u = draw_unconstrained(latents, guide.sample, 2000)
    first = q.loc[0] if made.name == "mixture" else q.loc
    assert ((first - u.mean(0)).abs() < 0.3 * u.std(0)).all()


def test_a_mixture_starts_in_both_modes():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
            pyro.sample("x", dist.Normal(z.square(), 0.1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sqrt(), 0.1))

    x = torch.tensor([0.5, 1.0, 2.0])
    with isolated(model, guide) as (model, guide, _):
        torch.manual_seed(0)
        latents = Latents(model, guide, (x,))
        near = Guide(latents)
        found = torch.stack(centres(latents, near, draw_unconstrained(latents, near.sample, 256)))[..., 0]
    assert found.shape == (NUM_COMPONENTS, 3)
    assert ((found[0] - x.sqrt()).abs() < 0.05).all()
    assert ((found[1] + x.sqrt()).abs() < 0.3).all()  # the farthest draw is of the other mode
