"""The ELBO by score functions: its mean gradient against quadrature and sums over classes, its noise, its value."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples import classes
from examples.bounds import WITH_TABLE, bound_and_table, built
from examples.gradients import PAIRS, STANDARD_ERRORS, assert_unbiased, estimates, exact, one_latent
from examples.zoo import K, doubles

from pyrovae.base.errors import InputError
from pyrovae.training.objectives.many_particles.score_function import ScoreFunction, less_the_others

WITH_OR_WITHOUT = pytest.mark.parametrize("baseline", [True, False], ids=["baseline", "plain"])


def test_the_mean_of_the_others_is_a_loop():
    values = doubles(5, 3, seed=2)
    for k in range(5):
        others = torch.cat([values[:k], values[k + 1 :]]).mean(0)
        torch.testing.assert_close(less_the_others(values)[k], values[k] - others)


@WITH_OR_WITHOUT
@pytest.mark.parametrize("name", PAIRS)
def test_the_mean_gradient_is_that_of_the_elbo(name, baseline):
    pair = PAIRS[name]()
    expected = exact(pair, lambda p, z: pair.log_weight(p, z).mean(1), 1)
    assert_unbiased(estimates(ScoreFunction(2, baseline=baseline), pair), expected)


@WITH_OR_WITHOUT
@pytest.mark.parametrize("vectorize", [True, False], ids=["at once", "looped"])
def test_the_mean_gradient_over_classes_is_exact(vectorize, baseline):
    """The sum over all draws of chance times bound, its gradient by autograd."""
    expected = classes.exact(lambda joint, drawn: drawn.sum().exp() * (joint - drawn).mean(), 2)
    pair = one_latent()._replace(model=classes.model, guide=classes.guide)
    found = estimates(ScoreFunction(2, baseline=baseline, vectorize_particles=vectorize), pair)
    for name, rows in found.items():
        error = STANDARD_ERRORS * rows.std(0) / len(rows) ** 0.5
        assert (rows.mean(0) - expected[name]).abs().lt(error + 1e-9).all(), (name, rows.mean(0), expected[name])
        assert expected[name].abs().max() > 0.02


def with_a_constant(value):
    """The first pair's model at its start, and a second observation that does not depend on z."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
            pyro.sample("x", dist.Normal(1.4 * z, 1.0), obs=x)
            pyro.sample("y", dist.Normal(torch.zeros_like(x), 1.0), obs=torch.full_like(x, value))

    return one_latent()._replace(model=model)


def test_a_constant_is_noise_to_the_plain_score_and_nothing_to_a_comparison():
    for baseline, factor in ((False, 5.0), (True, 1.0)):
        small, large = (estimates(ScoreFunction(10, baseline=baseline), with_a_constant(y)) for y in (0.0, 7.0))
        for name in ("loc", "raw"):
            assert large[name].std() >= factor * small[name].std() * (1 - 1e-9)
            assert not baseline or torch.allclose(large[name], small[name], rtol=1e-9, atol=1e-9)


UNSCALED = sorted(set(WITH_TABLE) - {"scaled-model", "scaled-guide", "scaled-by-data"})


@pytest.mark.parametrize("name", UNSCALED)
def test_its_value_is_the_elbo(name):
    case = built(name)
    bound, table = bound_and_table(ScoreFunction(K, plate=case.plate), case)
    factor = {"subsample-given": 200.0, "convolution-on-a-part": 8.0}.get(name, 1.0)
    expected = -factor * (table[0] + table[1] - table[2]).mean(0).sum().item()
    assert bound.loss.item() == pytest.approx(expected, rel=1e-10)


def test_one_particle_has_no_others():
    with pytest.raises(InputError, match="the baseline is the mean of the other particles"):
        ScoreFunction(1)
    assert ScoreFunction(1, baseline=False).num_particles == 1
