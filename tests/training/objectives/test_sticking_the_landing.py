"""Sticking the landing: the ELBO's value and mean gradient, and no noise where the guide is the posterior."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.bounds import CONTINUOUS, NO_GRADIENT, built, evaluated, tolerance_of
from examples.gradients import PAIRS, SCALE, assert_unbiased, estimates, exact, on_a_part, one_latent, parameter
from examples.learned_guides import PAIRS as LEARNED
from examples.zoo import ONE, ZERO, K, W, X
from pyro.distributions.transforms import AffineTransform, Planar

from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
from pyrovae.training.objectives.elbo import SampledELBO
from pyrovae.training.objectives.many_particles.doubly_reparameterized import DReG
from pyrovae.training.objectives.many_particles.reweighted_wake_sleep import ReweightedWakeSleep
from pyrovae.training.objectives.many_particles.vimco import VIMCO
from pyrovae.training.objectives.sticking_the_landing import StickingTheLanding


def elbo(pair):
    return lambda p, z: pair.log_weight(p, z)[:, 0]


@pytest.mark.parametrize("name", PAIRS)
def test_the_mean_gradient_is_that_of_the_elbo(name):
    pair = PAIRS[name]()
    assert_unbiased(estimates(StickingTheLanding(), pair), exact(pair, elbo(pair), 1))


def test_rows_of_a_part_of_the_data_stand_for_others():
    pair = on_a_part()
    assert_unbiased(estimates(StickingTheLanding(2), pair), exact(pair, elbo(pair), 1), SCALE)


@pytest.mark.parametrize("vectorize", [True, False], ids=["at once", "looped"])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_value_and_the_models_gradient_are_those_of_the_elbo_at_the_same_noise(name, vectorize):
    case = built(name)
    settings = {"num_particles": K, "plate": case.plate, "vectorize_particles": vectorize}
    found, expected = (evaluated(make(**settings), case) for make in (StickingTheLanding, SampledELBO))
    names = ["loss", *(name for name in ("loadings", "prior", "scale", "module$$$decoder.weight") if name in found)]
    for each in names:
        torch.testing.assert_close(found[each], expected[each], **tolerance_of(name), msg=each)


def linear(x):
    """Exact posterior of z1 ~ N(0, 1), z2 ~ N(z1, 1), x ~ N(z2, 1), drawn from either end."""
    widths = [
        pyro.param(name, torch.tensor(value, dtype=torch.float64).sqrt())
        for name, value in (("s1", 0.5), ("s2", 2 / 3))
    ]
    slopes = [
        pyro.param(name, torch.tensor(value, dtype=torch.float64)) for name, value in (("a1", 0.5), ("a2", 2 / 3))
    ]
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(slopes[1] * x, widths[1]))
        pyro.sample("z1", dist.Normal(slopes[0] * z2, widths[0]))


def linear_model(x):
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(0 * ONE, 1.0))
        z2 = pyro.sample("z2", dist.Normal(z1, 1.0))
        pyro.sample("x", dist.Normal(z2, 1.0), obs=x)


def slopes_of(objective, model, guide, x):
    with own_scope(model, guide, fresh=True):
        loss = objective.differentiable_loss(model, guide, x)
        named = dict(pyro.get_param_store().named_parameters())
        return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def test_no_noise_at_a_posterior_of_latents_that_depend_on_each_other():
    guide = linear
    stuck = slopes_of(StickingTheLanding(), linear_model, guide, X[:, 0])
    noisy = slopes_of(SampledELBO(), linear_model, guide, X[:, 0])
    assert all(g.abs() < 1e-12 for g in stuck.values()), stuck
    assert all(g.abs() > 1e-2 for g in noisy.values()), noisy


def test_no_noise_at_the_posterior_of_an_oracle():
    pair = LEARNED["factors, full rank"]()
    x, _ = pair.oracle.draw(50, seed=0)
    with torch.no_grad():
        posterior, root = pair.oracle.posterior(x), pair.oracle.posterior(x).scale_tril[0]
        raw = root.diagonal().expm1().log() - 0.5  # softplus(raw + 0.5)
        pair.learned.free.copy_(root.tril(-1) + raw.diag())
        solution = torch.linalg.lstsq(torch.cat([x, torch.ones(50, 1).double()], 1), posterior.mean).solution
        pair.learned.linear.weight.copy_(solution[:-1].T)
        pair.learned.linear.bias.copy_(solution[-1])
    assert pair.kl(x).abs().max() < 1e-10
    for objective, below in ((StickingTheLanding(), True), (SampledELBO(), False)):
        found = slopes_of(objective, pair.oracle.model, pair.learned.guide, x)
        assert bool(max(g.abs().max() for g in found.values()) < 1e-8) is below


@pytest.mark.parametrize("name", sorted(NO_GRADIENT))
def test_draws_without_gradients_are_refused(name):
    case = built(name)
    with own_scope(case.model, case.guide), pytest.raises(InputError, match=r"cannot be reparameterized.*Sticking"):
        StickingTheLanding().bound(case.model, case.guide, *case.args)


def flowing(pair):
    """The same guide as a flow, which remembers where it drew its last value from."""

    def guide(x):
        loc, raw = (parameter(name, pair.start[name], len(x)) for name in ("loc", "raw"))
        base = dist.Normal(torch.zeros_like(x), 1.0)
        with pyro.plate("data", len(x)):
            flow = AffineTransform(loc, raw.exp(), cache_size=1)
            pyro.sample("z", dist.TransformedDistribution(base, [flow]))

    return pair._replace(guide=guide)


@pytest.mark.parametrize(
    "make", [StickingTheLanding, lambda: DReG(K), lambda: VIMCO(K), lambda: ReweightedWakeSleep(K)]
)
def test_what_a_flow_remembers_changes_nothing(make):
    pair = one_latent()
    found, expected = (estimates(make(), each, rows=50) for each in (flowing(pair), pair))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


def test_a_flow_without_an_inverse_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ W.T, ONE).to_event(1), obs=x)

    flow = Planar(2).double()

    def guide(x):
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros(len(x), 2).double(), 1.0).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, [flow]))

    with own_scope(model, guide), pytest.raises(InputError, match=r"StickingTheLanding scores .*Planar has no inverse"):
        StickingTheLanding().bound(model, guide, X)
