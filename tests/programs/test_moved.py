"""Widened and shifted distributions against their moments, and the guides made of them."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.exact import close

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.programs.moved import moved, moved_guide


def doubles(*shape, seed=7):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scale_tril(*batch):
    return torch.tensor([[1.5, 0.0], [0.9, 0.4]], dtype=torch.float64).expand(*batch, 2, 2)


def mixture():
    components = dist.MultivariateNormal(doubles(5, 3, 2), scale_tril=scale_tril(5, 3))
    return dist.MixtureSameFamily(dist.Categorical(logits=doubles(5, 3)), components)


CONTINUOUS = {
    "normal": lambda: dist.Normal(doubles(5), doubles(5, seed=1).exp()),
    "independent": lambda: dist.Normal(doubles(5, 3, 2), doubles(5, 3, 2).exp()).to_event(2),
    "multivariate": lambda: dist.MultivariateNormal(doubles(5, 2), scale_tril=scale_tril(5)),
    "gamma": lambda: dist.Gamma(2 + doubles(5, 3).exp(), doubles(5, 3).exp()).to_event(1),
    "beta": lambda: dist.Beta(2 + doubles(5, 3).exp(), 2 + doubles(5, 3).exp()).to_event(1),
}
ALL = {**CONTINUOUS, "mixture": mixture, "categorical": lambda: dist.Categorical(logits=doubles(5, 3))}


@pytest.mark.parametrize("make", CONTINUOUS.values(), ids=CONTINUOUS.keys())
@pytest.mark.parametrize(("scale", "shift"), [(1.3, 0.3), (0.7, -0.5), (1.0, 0.0)])
def test_mean_and_standard_deviation_are_moved(make, scale, shift):
    before = make()
    after = moved(before, scale, shift)
    close(after.mean, before.mean + shift * before.variance.sqrt())
    close(after.variance, scale**2 * before.variance)
    assert type(after) is type(before)


def test_the_axes_of_a_normal_are_kept():
    before = CONTINUOUS["multivariate"]()
    close(moved(before, 1.3, 0.3).covariance_matrix, 1.69 * before.covariance_matrix)


def test_each_component_of_a_mixture_is_moved():
    before = mixture()
    after = moved(before, 1.3, 0.3)
    close(after.mixture_distribution.logits, before.mixture_distribution.logits)
    expected = moved(before.component_distribution, 1.3, 0.3)
    close(after.component_distribution.mean, expected.mean)
    close(after.component_distribution.variance, 1.69 * before.component_distribution.variance)


def test_a_categorical_is_tempered_and_mixed():
    before = ALL["categorical"]()
    powers = before.probs ** (1 / 2.0)
    close(moved(before, 2.0, 0.0).probs, powers / powers.sum(-1, keepdim=True))
    close(moved(before, 1.0, 0.3).probs, 0.7 * before.probs + 0.1)
    close(moved(before, 2.0, 1.0).probs, torch.full((5, 3), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
def test_at_one_and_zero_nothing_changes(make):
    before = make()
    value = before.sample()
    after = moved(before, 1.0, 0.0)
    assert (after.batch_shape, after.event_shape) == (before.batch_shape, before.event_shape)
    close(after.log_prob(value), before.log_prob(value))


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        (dist.Gamma(torch.tensor([0.01, 4.0]), 1.0), "1 of 2 gamma distributions have none .* 1.3 times .* by -0.5"),
        (dist.Beta(torch.tensor(0.1), 0.1), "1 of 1 beta distributions have none"),
        (dist.StudentT(3.0), "no widened and shifted StudentT is known"),
    ],
)
def test_errors(distribution, message):
    with pytest.raises(InputError, match=message):
        moved(distribution, 1.3, -0.5)


def chain_guide(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(x, 1.0))
        pyro.sample("b", dist.Normal(a, 2.0))


def test_every_draw_of_a_guide_is_moved_given_those_before():
    x = doubles(4)
    trace = pyro.poutine.trace(moved_guide(chain_guide, 1.5, 0.5)).get_trace(x)
    a, b = (trace.nodes[name]["fn"] for name in "ab")
    close(a.mean, x + 0.5)
    close(b.mean, trace.nodes["a"]["value"] + 1.0)
    close(a.stddev.expand(4), torch.full((4,), 1.5, dtype=torch.float64))
    assert (b.stddev == 3.0).all()
    assert trace.nodes["data"]["value"].tolist() == [0, 1, 2, 3]  # the rows of the plate are no draws to move


def test_second_moment_of_the_weights_is_known():
    # E_q[(w / p(x))^2] of a Normal: r^2 / sqrt(2 r^2 - 1) * exp(shift^2 / (2 r^2 - 1)), r the scale; 5 standard errors.
    oracle, scale, shift = pv.oracles.ppca(4, 1), 1.2, 0.4
    x, _ = oracle.draw(1, seed=0)
    torch.manual_seed(0)
    log_w = pv.log_terms(oracle.model, moved_guide(oracle.guide, scale, shift), x, num_particles=20_000).log_weight
    squares = (2 * (log_w - oracle.log_evidence(x))).exp()
    spread = 2 * scale**2 - 1
    expected = scale**2 / math.sqrt(spread) * math.exp(shift**2 / spread)
    assert abs(squares.mean() - expected) < 5 * squares.std() / math.sqrt(20_000)
