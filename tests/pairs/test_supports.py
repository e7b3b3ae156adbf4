"""A guide that leaves out a part of what the prior can be is refused by name, and no other one is."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.moving import above

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs import supports
from pyrovae.programs.distributions.exponential import Bernoulli

X = torch.zeros(4)


def program(z, observe):
    def run(x):
        with pyro.plate("data", len(x)):
            drawn = pyro.sample("z", z(x))
            if observe:
                pyro.sample("x", dist.Normal(drawn.double().sum(-1) if drawn.dim() > 1 else drawn, 1.0), obs=x)

    return run


def pair(prior, guide):
    return program(prior, observe=True), program(guide, observe=False)


NARROW = {
    "interval": (lambda x: dist.Normal(x, 1.0), lambda x: dist.Uniform(x - 1, x + 1), "Uniform, -1 to 1.*Normal"),
    "half line": (lambda x: dist.Normal(x, 1.0), lambda x: dist.Gamma(x + 1, 1.0), "Gamma.*Normal"),
    "classes": (
        lambda x: dist.Categorical(torch.ones(len(x), 4)),
        lambda x: dist.Categorical(torch.ones(len(x), 3)),
        "Categorical, 0 to 2, whole numbers.*0 to 3",
    ),
}
WIDE = {
    "families": (lambda x: dist.Gamma(x + 1, 1.0), lambda x: dist.LogNormal(x, 1.0)),
    "events": (lambda x: dist.Normal(x, 1.0), lambda x: dist.StudentT(3.0, x, 1.0)),
    "bounds": (lambda x: dist.Uniform(x, x + 1), lambda x: dist.Uniform(x, x + 1)),
    "matrix": (
        lambda x: dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1),
        lambda x: dist.MultivariateNormal(torch.zeros(len(x), 2), torch.eye(2)),
    ),
}


@pytest.mark.parametrize(("prior", "guide", "message"), NARROW.values(), ids=NARROW)
def test_a_narrow_guide_is_refused_by_name(prior, guide, message):
    with pytest.raises(InputError, match=rf"site 'z': the guide \({message}.*for 4 of 4 data.*infinite weight"):
        pv.evaluate(*pair(prior, guide), X, num_particles=30)


def test_annealing_refuses_it_from_the_guide_alone():
    model, guide = pair(*NARROW["interval"][:2])
    with pytest.raises(InputError, match="site 'z': the guide"):
        pv.annealed_evidence(model, guide, X, num_temperatures=2)
    annealed = pv.annealed_evidence(model, guide, X, num_temperatures=8, start=pv.from_prior, seed=1)
    exact = dist.Normal(0.0, 2**0.5).log_prob(X)
    torch.testing.assert_close(annealed.log_evidence.float(), exact, rtol=0, atol=0.2)


@pytest.mark.parametrize(("prior", "guide"), WIDE.values(), ids=WIDE)
def test_other_guides_pass(prior, guide):
    assert pv.evaluate(*pair(prior, guide), X, num_particles=30).log_evidence.isfinite().all()


WORDS = {  # distribution -> its support in words, and where it ends
    "equal bounds": (dist.Pareto(torch.ones(3), 2.0), "from 1", (1.0, None)),
    "bounds by row": (dist.Pareto(torch.tensor([2.0, 0.5]), 2.0), "from 0.5 to 2 and more", ([2.0, 0.5], None)),
    "open": (dist.LogNormal(torch.zeros(2), 1.0), "above 0", (0.0, None)),
    "interval": (dist.Uniform(torch.zeros(2), 3.0).to_event(1), "0 to 3", (0.0, 3.0)),
    "interval by row": (dist.Uniform(torch.zeros(2), torch.tensor([3.0, 2.0])), "0 to 3 at most", (0.0, [3.0, 2.0])),
    "moved": (
        above(dist.Exponential(torch.ones(2)), 3.0),
        "AffineTransform of Exponential, from 0",
        (None, None),
    ),
    "counts": (dist.Poisson(torch.ones(2)), "whole numbers from 0", (None, None)),
    "classes": (dist.Categorical(torch.ones(4)), "0 to 3, whole numbers", (None, None)),
    "reals": (dist.Normal(torch.zeros(2), 1.0), "finite reals", (None, None)),
    "simplex": (dist.Dirichlet(torch.ones(3)), "Simplex()", (0.0, 1.0)),
}


@pytest.mark.parametrize(("fn", "words", "bounds"), WORDS.values(), ids=WORDS)
def test_a_support_in_words_and_its_ends(fn, words, bounds):
    assert supports.support_text(supports.layers(fn)[-1]) == words
    for found, end in zip(supports.ends(fn.support), bounds, strict=True):
        assert found is None if end is None else bool((torch.as_tensor(found) == torch.tensor(end)).all())


def test_documents_of_unlike_length_are_counts_of_their_own_number_of_words():
    """As topic models are written: Multinomial(probs=...) without a count has the density of the row's own total."""
    counts, probs = torch.tensor([[3.0, 1.0, 0.0], [0.0, 7.0, 2.0]]), torch.tensor([0.5, 0.3, 0.2])

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Multinomial(probs=probs.expand(len(x), 3), validate_args=False), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    report = pv.evaluate(model, guide, counts, num_particles=5)
    exact = torch.stack([dist.Multinomial(int(row.sum()), probs).log_prob(row) for row in counts])
    torch.testing.assert_close(report.log_evidence.float(), exact)
    with pytest.raises(
        InputError, match=r"1 of 2 values are outside the support of Multinomial \(whole numbers from 0\)"
    ):
        pv.evaluate(
            model, guide, counts - 0.5 * torch.eye(2, 3)[[0, 0]] * torch.tensor([[1.0], [0.0]]), num_particles=5
        )


def mixtures(x):
    """Of three narrow components for each datum, far from those of the others."""
    locs = 100 * x[:, None, None] + torch.arange(3.0)[:, None] + torch.zeros(len(x), 3, 2)
    scale, logits = torch.full((len(x), 2), 1e-3), torch.zeros(len(x), 3)
    return [
        dist.MixtureOfDiagNormals(locs, scale[:, None].expand(-1, 3, -1), logits),
        dist.MixtureOfDiagNormalsSharedCovariance(locs, scale, logits),
    ]


@pytest.mark.parametrize("number", [0, 1], ids=["own scales", "shared scales"])
@pytest.mark.parametrize("num_draws", [2, 50])
def test_draws_of_mixtures_are_those_of_their_own_datum(num_draws, number):
    """Pyro's own sample((2,)) gives draws of one datum the components of another, without a word."""
    x = torch.arange(8.0).requires_grad_()
    fn = mixtures(x)[number]
    torch.manual_seed(0)
    draws = supports.draws_of(fn, num_draws)
    assert draws.shape == (num_draws, 8, 2)
    offset = draws - 100 * x[:, None]
    assert ((offset - offset.round()).abs() < 0.01).all() and set(offset.round().unique().tolist()) == {0.0, 1.0, 2.0}
    (gradient,) = torch.autograd.grad(draws[..., 0].sum(), x)
    torch.testing.assert_close(gradient, torch.full((8,), 100.0 * num_draws), rtol=1e-3, atol=1.0)
    assert supports.draws_of(dist.Normal(x, 1.0), 3).shape == (3, 8)


@pytest.mark.parametrize("number", [0, 1], ids=["own scales", "shared scales"])
def test_mixtures_of_normals_are_guides(number):
    """log p(x) by annealing and by the best of the guide's own family, within 4 standard errors; a fit; a surgery."""

    def model(x):
        level = pyro.param("level", torch.zeros(2))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(level, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        locs = (x / 2)[:, None] + torch.tensor([-0.5, 0.0, 0.5])[:, None]
        scale, logits = torch.full((len(x), 2), 0.7), torch.zeros(len(x), 3)
        own = dist.MixtureOfDiagNormals(locs, scale[:, None].expand(-1, 3, -1), logits)
        with pyro.plate("data", len(x)):
            pyro.sample("z", (own, dist.MixtureOfDiagNormalsSharedCovariance(locs, scale, logits))[number])

    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    exact = dist.Normal(0.0, 2**0.5).log_prob(x).sum(-1).double()
    annealed = pv.annealed_evidence(model, guide, x, num_temperatures=6, num_chains=10, progress=False)
    gaps = pv.gaps(model, guide, x, num_particles=100, num_steps=5, families=["own"], progress=False)
    for found in (annealed, gaps):
        error = (found.log_evidence - exact).mean().abs()
        assert error < 4 * found.mc_se_log_evidence.square().sum().sqrt() / 6 + 1e-5
    assert len(pv.fit(model, guide, x, epochs=1, progress=False).history) == 1
    assert "does not factorise over its coordinates" in pv.surgery(model, guide, x, progress=False).reason


# --------------------------------------------------------------------------- supports that move with the parameters

LOW = torch.tensor([1.0, 2.0])
MOVING = {  # what may move, a value inside of the first alone, and the density there
    "uniform": (lambda: dist.Uniform(LOW, 3.0), 1.5, -math.log(2)),
    "uniform at its end": (lambda: dist.Uniform(torch.zeros(2), torch.tensor([0.75, 0.5])), 0.75, -math.log(0.75)),
    "pareto": (lambda: dist.Pareto(LOW, 2.0), 1.5, math.log(2) - 3 * math.log(1.5)),
    "shifted exponential": (lambda: above(dist.Exponential(torch.ones(2)), LOW), 1.5, -0.5),
    "shifted gamma": (lambda: above(dist.Gamma(2 * torch.ones(2), 1.0), LOW), 1.5, math.log(0.5) - 0.5),
    "shifted lognormal": (
        lambda: above(dist.LogNormal(torch.zeros(2), 1.0), LOW),
        1.5,
        float(dist.LogNormal(0.0, 1.0).log_prob(torch.tensor(0.5))),
    ),
    "binomial": (lambda: dist.Binomial(torch.tensor([3.0, 2.0]), torch.tensor(0.5)), 3.0, -3 * math.log(2)),
    "beta-binomial": (
        lambda: dist.BetaBinomial(torch.ones(2), torch.ones(2), torch.tensor([3.0, 2.0])),
        3.0,
        -math.log(4),
    ),
    "moved poisson": (lambda: above(dist.Poisson(torch.ones(2)), LOW), 1.0, -1.0),
    "mixture": (
        lambda: dist.MixtureSameFamily(
            dist.Categorical(torch.ones(2, 2)), dist.Pareto(torch.tensor([[1.0, 9.0], [2.0, 9.0]]), 2.0)
        ),
        1.5,
        -3 * math.log(1.5),
    ),
}


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("name", MOVING)
def test_a_density_ends_where_its_support_does(name, validation):
    make, value, log_prob = MOVING[name]
    with pyro.validation_enabled(validation):
        fn = supports.cut_off(make())
        found = fn.log_prob(torch.tensor(value).expand(2))
        wide = supports.cut_off(make()).expand((3, 2)).log_prob(torch.tensor([[value, value]]))
    torch.testing.assert_close(found, torch.tensor([log_prob, -math.inf]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(wide, found.expand(3, 2))


@pytest.mark.parametrize("name", ["uniform", "pareto", "shifted exponential", "shifted gamma", "shifted lognormal"])
def test_a_density_that_ends_has_a_finite_gradient(name):
    low = LOW.clone().requires_grad_()
    fn = {
        "uniform": lambda: dist.Uniform(low, 3.0),
        "pareto": lambda: dist.Pareto(low, 2.0),
        "shifted exponential": lambda: above(dist.Exponential(torch.ones(2)), low),
        "shifted gamma": lambda: above(dist.Gamma(2 * torch.ones(2), 1.0), low),
        "shifted lognormal": lambda: above(dist.LogNormal(torch.zeros(2), 1.0), low),
    }[name]()
    supports.cut_off(fn.mask(torch.tensor([True, False]))).log_prob(torch.tensor([1.5, math.nan])).sum().backward()
    assert low.grad.isfinite().all() and low.grad[0] != 0 and low.grad[1] == 0


@pytest.mark.parametrize("make", [lambda: dist.Uniform(0 * LOW, LOW + 2), lambda: dist.Pareto(LOW, 2.0)])
def test_whole_numbers_are_scored_as_real_ones(make):
    whole = torch.tensor([1, 3])
    torch.testing.assert_close(supports.cut_off(make()).log_prob(whole), make().log_prob(whole.float()))


def test_events_and_masks_end_too():
    value = torch.tensor([[1.5, 2.5], [1.5, 1.5]])
    fn = dist.Pareto(LOW.expand(2, 2), 2.0)
    inside = dist.Pareto(LOW, 2.0).log_prob(value[0]).sum()
    found = supports.cut_off(fn.to_event(1)).log_prob(value)
    torch.testing.assert_close(found, torch.stack([inside, torch.tensor(-math.inf)]))
    masked = supports.cut_off(fn.mask(torch.tensor([True, False])).to_event(1)).log_prob(value)
    torch.testing.assert_close(masked, dist.Pareto(1.0, 2.0).log_prob(torch.tensor([1.5, 1.5])))
    multivariate = above(dist.Exponential(torch.ones(2, 2)).to_event(1), LOW)
    torch.testing.assert_close(supports.cut_off(multivariate).log_prob(value), torch.tensor([-1.0, -math.inf]))


STANDING = {
    "normal": lambda: dist.Normal(LOW, 1.0),
    "bernoulli": lambda: dist.Bernoulli(0.25 * LOW),
    "event": lambda: dist.Bernoulli(logits=LOW).to_event(1),
    "poisson": lambda: dist.Poisson(LOW),
    "beta": lambda: dist.Beta(LOW, LOW),
    "classes": lambda: dist.Categorical(logits=torch.ones(2, 3)),
    "flow": lambda: dist.TransformedDistribution(dist.Normal(LOW, 1.0), [torch.distributions.SigmoidTransform()]),
    "matrix": lambda: dist.MultivariateNormal(LOW, torch.eye(2)),
    "masked": lambda: dist.Normal(LOW, 1.0).mask(torch.tensor([True, False])).to_event(1),
    "mixture": lambda: dist.MixtureSameFamily(dist.Categorical(torch.ones(2, 2)), dist.Normal(torch.zeros(2, 2), 1.0)),
    "ours": lambda: Bernoulli(logits=LOW).to_event(1),
    "factor": lambda: dist.Unit(LOW),
}


@pytest.mark.parametrize("make", STANDING.values(), ids=STANDING)
def test_other_densities_are_left_as_they_are(make):
    fn = make()
    assert supports.cut_off(fn) is fn and not supports.may_miss(fn)


def test_a_cut_off_distribution_draws_what_its_base_draws():
    fn = dist.Pareto(LOW, 2.0).to_event(1)
    torch.manual_seed(0)
    expected = fn.sample((3,))
    torch.manual_seed(0)
    assert torch.equal(supports.cut_off(fn).sample((3,)), expected)
    assert supports.layers(supports.cut_off(fn))[-1] is fn.base_dist
    torch.testing.assert_close(supports.cut_off(fn).mean, fn.mean)


ZERO_MASS = {  # probabilities, an outcome that they give none, another
    "coin": (dist.Bernoulli(torch.tensor([0.0])), [1.0], [0.0]),
    "binomial": (dist.Binomial(3, torch.tensor([0.0])), [2.0], [0.0]),
    "class": (dist.Categorical(torch.tensor([[0.0, 0.5, 0.5]])), [0], [1]),
    "one hot": (dist.OneHotCategorical(torch.tensor([[0.0, 0.5, 0.5]])), [[1.0, 0, 0]], [[0.0, 1, 0]]),
    "words": (
        dist.Multinomial(1, torch.tensor([[0.0, 0.5, 0.5]]), validate_args=False),
        [[1.0, 1, 0]],
        [[0.0, 2, 3]],
    ),
}


@pytest.mark.parametrize(("fn", "never", "other"), ZERO_MASS.values(), ids=ZERO_MASS)
def test_an_outcome_of_probability_zero_is_impossible_where_that_is_meant(fn, never, other):
    never, other = torch.tensor(never), torch.tensor(other)
    assert supports.given_probs(fn) and fn.log_prob(never).isfinite()
    cut = supports.cut_off(fn, zero_mass=True)
    assert cut.log_prob(never) == -math.inf
    torch.testing.assert_close(cut.log_prob(other), fn.log_prob(other))
    assert supports.cut_off(fn) is fn


@pytest.mark.parametrize("name", MOVING)
def test_some_value_is_known_to_be_inside(name):
    fn = MOVING[name][0]()
    if name != "mixture":
        value = supports.a_value(fn, torch.zeros(2)).expand(2)
        assert supports.cut_off(fn).log_prob(value).isfinite().all()
