"""A guide that leaves out a part of what the prior can be is refused by name, and no other one is."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs import supports
from pyrovae.programs.distributions.exponential import Bernoulli, ContinuousBernoulli

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


ADVICE = {  # distribution -> what to do about grey or large values
    "bernoulli": (dist.Bernoulli(0.5), 0.5, r"at \(0,\); binarize the data \(.*'threshold'\)$"),
    "ours": (
        Bernoulli(logits=torch.zeros(1)),
        0.5,
        "; binarize the data .*, or use the continuous Bernoulli for values",
    ),
    "continuous": (ContinuousBernoulli(torch.zeros(1)), 16.0, r"; divide the data by their maximum \(divisor=\)$"),
    "poisson": (dist.Poisson(1.0), 0.5, r"at \(0,\)$"),
}


@pytest.mark.parametrize(("fn", "value", "message"), ADVICE.values(), ids=ADVICE)
def test_data_outside_a_support_come_with_advice(fn, value, message):
    site = {"value": torch.tensor([value]), "fn": fn, "mask": None}
    with pytest.raises(InputError, match=message):
        supports.check_support("x", site)


WORDS = {  # distribution -> its support in words, and where it ends
    "equal bounds": (dist.Pareto(torch.ones(3), 2.0), "from 1", (1.0, None)),
    "bounds by row": (dist.Pareto(torch.tensor([2.0, 0.5]), 2.0), "from 0.5 to 2 and more", ([2.0, 0.5], None)),
    "open": (dist.LogNormal(torch.zeros(2), 1.0), "above 0", (0.0, None)),
    "interval": (dist.Uniform(torch.zeros(2), 3.0).to_event(1), "0 to 3", (0.0, 3.0)),
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
