"""The latents of every pair of the zoo against the table, and the real line against Jacobians by autograd."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples import labelled
from examples.moving import EXACT
from examples.moving import X as BOUNDS
from examples.zoo import ZOO, K

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
from pyrovae.pairs.latents import Latents

NOT_HERE = {"no-latents", "auto-normal"}


def close(actual, expected):
    tolerance = 1e-10 if expected.dtype == torch.float64 else 1e-4
    torch.testing.assert_close(actual.double(), expected.double(), rtol=tolerance, atol=tolerance)


@pytest.fixture
def unchecked():
    with pyro.validation_enabled(False):
        yield


@pytest.mark.parametrize("name", [name for name in ZOO if name not in NOT_HERE])
@torch.no_grad()
def test_densities_at_drawn_latents_are_the_table(name, unchecked):
    torch.manual_seed(0)
    case = ZOO[name]()
    with own_scope(case.model, case.guide) as (model, guide, _):
        latents = Latents(model, guide, case.args, plate=case.plate)
        assert latents.particles.strategy == case.way
        torch.manual_seed(1)
        values = latents.draw(K)
        again = log_terms_from_seed(case, latents, 1)
        joint = latents.log_joint(values)
        close(joint.log_likelihood, again.log_likelihood)
        close(joint.log_prior, again.log_prior)
        close(latents.log_guide(values), again.log_guide)
        assert not joint.log_jacobian.any()
        assert all(torch.equal(joint.values[site], values[site]) for site in values)


def log_terms_from_seed(case, latents, seed):
    from pyrovae.pairs.terms import sum_by_role

    torch.manual_seed(seed)
    return sum_by_role(latents.particles.log_terms(K))


@pytest.mark.parametrize("name", [name for name in ZOO if name not in NOT_HERE])
@torch.no_grad()
def test_to_the_real_line_and_back(name, unchecked):
    torch.manual_seed(0)
    case = ZOO[name]()
    with own_scope(case.model, case.guide) as (model, guide, _):
        latents = Latents(model, guide, case.args, plate=case.plate)
        if any(site.is_discrete for site in latents.sites.values()):
            with pytest.raises(InputError, match=r"site '\w+' is discrete \("):
                latents.require_bijection("annealed importance sampling")
            return
        latents.require_bijection("annealed importance sampling")
        for values in (latents.draw(K), latents.draw_prior(K)):
            u = latents.unconstrain(values)
            assert u.shape == (K, latents.num_data, latents.num_dims)
            given, moved = latents.log_joint(values), latents.log_joint_unconstrained(u)
            for site, value in values.items():
                torch.testing.assert_close(moved.values[site], value, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(moved.log_prior, given.log_prior, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(moved.log_likelihood, given.log_likelihood, rtol=1e-3, atol=1e-2)


def constrained_model(x):
    ones = torch.ones(2, dtype=torch.float64)
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(2 * ones, ones).to_event(1))
        share = pyro.sample("share", dist.Dirichlet(torch.ones(3, dtype=torch.float64)))
        low = pyro.sample("low", dist.Uniform(0.0 * rate[..., 0], rate[..., 0]))  # its support depends on a draw
        mean = rate.sum(-1) + share[..., 0] + low
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def constrained_guide(x):
    ones = torch.ones(2, dtype=torch.float64)
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(ones, ones).to_event(1))
        pyro.sample("share", dist.Dirichlet(2 * torch.ones(3, dtype=torch.float64)))
        pyro.sample("low", dist.Uniform(0.0 * rate[..., 0], rate[..., 0]))


def test_the_jacobian_is_that_of_autograd(unchecked):
    x = torch.zeros(1, dtype=torch.float64)
    latents = Latents(constrained_model, constrained_guide, (x,))
    assert latents.num_dims == 2 + 2 + 1
    u = torch.randn(1, 1, 5, dtype=torch.float64)

    def free(u):  # a simplex has one coordinate less than it shows
        values = latents.log_joint_unconstrained(u.reshape(1, 1, 5)).values
        return torch.cat([values["rate"].flatten(), values["share"].flatten()[:2], values["low"].flatten()])

    jacobian = torch.autograd.functional.jacobian(free, u.flatten())
    close(latents.log_joint_unconstrained(u).log_jacobian.squeeze(), torch.linalg.slogdet(jacobian).logabsdet)


def test_density_on_the_real_line_integrates_to_one(unchecked):
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(torch.tensor(2.0).double(), 3.0))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(torch.tensor(2.0).double(), 3.0))

    latents = Latents(model, guide, (torch.zeros(1, dtype=torch.float64),))
    u = torch.linspace(-20, 5, 5001, dtype=torch.float64)
    joint = latents.log_joint_unconstrained(u[:, None, None])
    total = torch.trapezoid((joint.log_prior + joint.log_jacobian).exp().squeeze(), u)
    assert abs(total.item() - 1) < 1e-8


def test_gradients_reach_each_particle_of_each_datum_alone(unchecked):
    oracle = pv.oracles.ppca(6, 2)
    x, _ = oracle.draw(4, seed=0)
    latents = Latents(oracle.model, oracle.guide, (x,))
    u = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(latents.log_joint_unconstrained(u).log_likelihood.sum(), u)
    expected = (x - oracle.bias - u.detach() @ oracle.loadings.T) / oracle.noise_scale**2 @ oracle.loadings
    close(gradient, expected)


def test_a_guide_that_moves_auxiliary_draws_has_a_density_at_given_latents(unchecked):
    case = ZOO["auto-normal"]()
    with own_scope(case.model, case.guide) as (model, guide, _):
        latents = Latents(model, guide, case.args, plate=case.plate)
        z = latents.draw(2)
        torch.testing.assert_close(latents.log_guide(z), case.table(z["z"])[2])


def test_an_observation_that_no_particle_changes_is_shown_to_each(unchecked):
    x, y = labelled.draw(5)
    vae = labelled.exact_pair()
    latents = Latents(vae.model, vae.guide, (x, y))
    shown = latents.observed_by(latents.model, latents.draw(K), lambda site: site["value"])
    assert torch.equal(shown["label"], y.expand(K, 5)) and torch.equal(shown["x"], x.expand(K, 5, 4))


def test_no_latents():
    case = ZOO["no-latents"]()
    with pytest.raises(InputError, match="no latent site"):
        Latents(case.model, case.guide, case.args)


@torch.no_grad()
def test_the_guide_of_one_datum_cannot_draw_what_lies_below_its_bound(unchecked):
    with own_scope(*EXACT) as (model, guide, _):
        latents = Latents(model, guide, (BOUNDS,))
        z = BOUNDS + 0.5
        at_others = latents.log_guide({"z": z[:, None].expand(4, 4)})
    expected = torch.where(z[:, None] >= BOUNDS, BOUNDS - z[:, None], -torch.inf)
    close(at_others, expected)


@torch.no_grad()
def test_data_are_to_be_possible_where_gradients_are_followed(unchecked):
    with own_scope(*EXACT) as (model, guide, _):
        latents = Latents(model, guide, (BOUNDS,))
        latents.require_possible(latents.draw, "the guide", "Help")
        with pytest.raises(
            InputError, match=r"site 'x': under \d+\.\d% of the draws of the prior .*4 of 4 data.* Help"
        ):
            latents.require_possible(latents.draw_prior, "the prior", "Help")


def drawing(*priors):
    """Sites a, b, ... of one datum each, their priors by what was drawn before."""

    def model(x):
        drawn = list[torch.Tensor]()
        with pyro.plate("data", len(x)):
            for name, prior in zip("abc", priors, strict=False):
                drawn.append(pyro.sample(name, prior(x, *drawn)))
            pyro.sample("x", dist.Normal(sum(drawn), 1.0), obs=x)

    return model


def unseen(priors):
    """A guide that draws each site from its prior."""

    def guide(x):
        drawn = list[torch.Tensor]()
        with pyro.plate("data", len(x)):
            for name, prior in zip("abc", priors, strict=False):
                drawn.append(pyro.sample(name, prior(x, *drawn)))

    return guide


MEANS = {
    "normal": ([lambda x: dist.Normal(3.0, 2.0).expand([len(x)])], [[3.0], [3.0]]),
    "of a covariate": ([lambda x: dist.StudentT(3.0, 2 * x, 1.0)], [[0.4], [0.8]]),
    "bounded": ([lambda x: dist.Uniform(1.0, 5.0).expand([len(x)])], [[0.0], [0.0]]),
    "without a mean": ([lambda x: dist.Cauchy(2.0, 1.0).expand([len(x)])], [[0.0], [0.0]]),
    "of a latent": ([lambda x: dist.Normal(x, 1.0), lambda x, a: dist.Normal(a, 1.0)], [[0.2, 0.0], [0.4, 0.0]]),
    "a flow": (
        [lambda x: dist.TransformedDistribution(dist.Normal(x, 1.0), dist.transforms.AffineTransform(1.0, 2.0))],
        [[0.0], [0.0]],
    ),
}


@pytest.mark.parametrize(("priors", "expected"), MEANS.values(), ids=MEANS)
@torch.no_grad()
def test_means_of_priors_where_they_are_known(priors, expected):
    model = drawing(*priors)
    with own_scope(model, unseen(priors)) as (model, guide, _):
        torch.manual_seed(0)
        latents, state = Latents(model, guide, (torch.tensor([0.2, 0.4]),)), torch.get_rng_state()
        torch.testing.assert_close(latents.prior_mean(), torch.tensor(expected), rtol=0, atol=1e-6)
        second = latents.only(torch.tensor([1]))
        torch.testing.assert_close(second.prior_mean(), torch.tensor(expected[1:]), rtol=0, atol=1e-6)
        assert torch.equal(state, torch.get_rng_state())
        assert latents.shapes == ((),) * len(priors)
