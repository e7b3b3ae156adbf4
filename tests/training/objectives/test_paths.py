"""Gradients by way of the draws alone, against log q of a guide whose parameters are copies without a gradient."""

import pyro
import pyro.distributions as dist
import torch
from examples.bounds import built
from examples.zoo import doubles

from pyrovae.pairs.context import own_scope
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.traces import plain_traces
from pyrovae.training.objectives import bounds
from pyrovae.training.objectives.paths import Paths, by_paths, held_traces

X = doubles(4, seed=3)
START = {"a": 0.3, "b": -0.6, "c": 0.5, "d": 0.2}
SITES = {  # each by parameters and all draws before it
    "z1": lambda p, z: (p["a"] * X, p["d"].exp()),
    "z2": lambda p, z: (p["b"] * z["z1"].sin() + p["d"], (p["a"] * z["z1"]).cos() + 1.5),
    "z3": lambda p, z: (p["c"] * z["z2"] * z["z1"], (p["b"] * z["z2"]).exp()),
}


def guide(x):
    p = {name: pyro.param(name, torch.tensor(value, dtype=torch.float64)) for name, value in START.items()}
    z = {}
    with pyro.plate("data", len(x)):
        for name, parameters in SITES.items():
            z[name] = pyro.sample(name, dist.Normal(*parameters(p, z)))


def model(x):
    with pyro.plate("data", len(x)):
        z = [pyro.sample(name, dist.Normal(0 * X, 1.0)) for name in SITES]
        pyro.sample("x", dist.Normal(z[0] * z[1] + z[2].sin(), 1.0), obs=x)


def by_hand(noise, value):
    """The gradient by START of ``value`` of the draws and of log q of each site at parameters that are held."""
    p = {name: torch.tensor(v, dtype=torch.float64, requires_grad=True) for name, v in START.items()}
    held, z = {name: v.detach() for name, v in p.items()}, {}
    for name, parameters in SITES.items():
        loc, scale = parameters(p, z)
        z[name] = loc + scale * noise[name]
    log_q = {name: dist.Normal(*parameters(held, z)).log_prob(z[name]) for name, parameters in SITES.items()}
    return dict(zip(p, torch.autograd.grad(value(z, log_q), list(p.values()), allow_unused=True), strict=True))


def noise_of(run):
    return {name: ((site["value"] - site["fn"].loc) / site["fn"].scale).detach() for name, site in run.drawn.items()}


def gradients(scalar, **options):
    named = dict(pyro.get_param_store().named_parameters())
    found = torch.autograd.grad(scalar, list(named.values()), allow_unused=True, **options)
    return dict(zip(named, found, strict=True))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=name)


def run_of(factor=None):
    torch.manual_seed(0)
    paths = Paths(Particles(model, guide, [X], strategy="looped"))
    run = paths.traces(model, guide, [X]).score()
    paths.factor = factor
    return run


def test_of_log_q_by_draws_that_depend_on_each_other():
    weights = doubles(4, seed=5)
    with own_scope(model, guide, fresh=True):
        run = run_of()
        value = (weights * bounds.log_guide(run, lambda log_prob: log_prob)).sum()
        moved = by_paths([run], value)
        whole, found = gradients(value, retain_graph=True), gradients(moved)
        expected = by_hand(noise_of(run), lambda z, log_q: (weights * sum(log_q.values())).sum())
        assert_same(found, expected)
    assert all((whole[name] - expected[name]).abs() > 1e-3 for name in expected)  # what was left out is not zero


def test_of_log_p_by_a_factor_of_each_datum():
    factor = doubles(1, 4, seed=6)
    with own_scope(model, guide, fresh=True):
        run = run_of(factor)
        found = gradients(bounds.total_log_joint(run))

        def value(z, log_q):
            prior = sum(dist.Normal(0.0, 1.0).log_prob(each) for each in z.values())
            return (factor * (prior + dist.Normal(z["z1"] * z["z2"] + z["z3"].sin(), 1.0).log_prob(X))).sum()

        assert_same(found, by_hand(noise_of(run), value))


def test_of_a_draw_that_an_autoguide_moves():
    """AutoNormal draws u, and z = exp(u) is its latent: log q is that of z at parameters that are held."""
    torch.manual_seed(0)
    case = built("auto-normal")
    with own_scope(case.model, case.guide, fresh=True):
        particles = Particles(case.model, case.guide, case.args, strategy="looped")
        run = Paths(particles).traces(particles.model, particles.guide, case.args).score()
        assert len(run.draws) == 2
        found = gradients(by_paths([run], bounds.total_log_guide(run)))
        loc, scale = case.guide.locs.z, case.guide.scales.z
        u = run.drawn["z"]["value"].log().detach()
        moved = loc + scale * ((u - loc) / scale).detach()
        log_q = dist.Normal(loc.detach(), scale.detach()).log_prob(moved).sum() - moved.sum()
        expected = gradients(log_q)
    assert_same(found, expected)
    assert all(value.abs().max() > 1e-3 for value in expected.values())


def test_values_are_those_of_a_plain_run():
    with own_scope(model, guide, fresh=True):
        run = run_of()
        torch.manual_seed(0)
        Particles(model, guide, [X], strategy="looped")
        plain = plain_traces(model, guide, [X]).score()
    for site, other in zip(run.every_site, plain.every_site, strict=True):
        assert torch.equal(site["log_prob"], other["log_prob"])


def test_held_draws_leave_the_score_alone():
    with own_scope(model, guide, fresh=True):
        torch.manual_seed(0)
        run = held_traces(model, guide, [X]).score()
        assert not any(site["value"].requires_grad for site in run.every_site)
        found = gradients(bounds.total_log_guide(run))
        p = {name: torch.tensor(v, dtype=torch.float64, requires_grad=True) for name, v in START.items()}
        z = {name: site["value"] for name, site in run.drawn.items()}
        log_q = sum(dist.Normal(*parameters(p, z)).log_prob(z[name]).sum() for name, parameters in SITES.items())
        assert_same(found, dict(zip(p, torch.autograd.grad(log_q, list(p.values())), strict=True)))
