"""The total correlation by loops over pairs of data; where it is known; and what is refused."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.bounds import assert_same, built, evaluated, trained
from examples.zoo import ONE, A, K, N, X, Z, normal

from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
from pyrovae.training.objectives.elbo import SampledELBO
from pyrovae.training.objectives.penalized.total_correlation import BetaTC


def by_loops(z, size):
    """Of draws (N, Z) of the trained pair: the sum over data."""
    means, total = X @ A, 0.0
    for n in range(N):
        each = [[normal(z[n, d], means[m, d], 0.7, event_dim=0).item() for d in range(Z)] for m in range(N)]
        jointly = sum(math.exp(sum(row)) for row in each) / (N * size)
        apart = [sum(math.exp(row[d]) for row in each) / (N * size) for d in range(Z)]
        total += math.log(jointly) - sum(map(math.log, apart))
    return total


@pytest.mark.parametrize("beta", [0.0, 4.0])
@pytest.mark.parametrize("num_particles", [1, K])
@pytest.mark.parametrize("vectorize", [True, False], ids=["at once", "looped"])
@pytest.mark.parametrize(("name", "size", "factor"), [("trained", N, 1), ("trained-on-a-part", 1000, 1000 / N)])
def test_the_penalty_is_a_loop_over_pairs_of_data(name, size, factor, beta, num_particles, vectorize):
    case, drawn = built(name), []

    def guide(x):
        case.guide(x)

    settings = {"vectorize_particles": vectorize}
    with own_scope(case.model, guide, fresh=True), torch.no_grad():
        objective = BetaTC(beta, num_particles, **settings)
        objective.prepare(case.model, guide, X)
        torch.manual_seed(1)
        runs = objective.runs(case.model, guide, X)
        drawn = torch.cat([run.drawn["z"]["value"].reshape(-1, N, Z) for run in runs])
        torch.manual_seed(1)
        bound = objective.bound(case.model, guide, X)
    penalty = (beta - 1) * sum(by_loops(z, size) for z in drawn) / num_particles
    expected = factor * (bound.kl_prior - bound.reconstruction + penalty)
    assert bound.loss.item() == pytest.approx(expected.item(), rel=1e-10)


def test_tiled_copies_of_a_batch_are_one_population():
    """A decoder that takes no particle dimension: the value is that of each copy among its own data."""
    case, objective = built("convolution-on-a-part"), BetaTC(3.0, K)
    with own_scope(case.model, case.guide), torch.no_grad():
        assert objective.prepare(case.model, case.guide, *case.args).strategy == "tiled"
        torch.manual_seed(1)
        (run,) = objective.runs(case.model, case.guide, *case.args)
        torch.manual_seed(1)
        bound = objective.bound(case.model, case.guide, *case.args)
    site, total = run.drawn["z"], 0.0
    for z, loc in zip(site["value"].reshape(K, N, -1), site["fn"].base_dist.loc.reshape(K, N, -1), strict=True):
        log_prob = dist.Normal(loc, 0.5 * ONE).log_prob(z[:, None])  # (N, M, Z)
        jointly, each = log_prob.sum(-1).logsumexp(1), log_prob.logsumexp(1).sum(-1)
        total += (jointly - each).sum() + N * (log_prob.shape[-1] - 1) * math.log(40 * N)
    expected = 40 / N * (bound.kl_prior - bound.reconstruction + 2 * total / K)
    assert bound.loss.item() == pytest.approx(expected.item(), rel=1e-10)


def test_a_weight_of_one_is_the_elbo():
    assert_same(evaluated(BetaTC(1.0), trained()), evaluated(SampledELBO(), trained()))


def test_the_number_of_data_moves_no_gradient():
    few, many = (evaluated(BetaTC(4.0, num_data=size), trained()) for size in (10, 10_000))
    assert few["loss"] != many["loss"]
    for name in few.keys() - {"loss"}:
        torch.testing.assert_close(few[name], many[name], msg=name)


def population(correlation, num=4000):
    """Codes of data whose q(z) over all data is a normal of known correlation; the guide is narrow."""
    generator = torch.Generator().manual_seed(0)
    root = torch.linalg.cholesky(torch.tensor([[1.0, correlation], [correlation, 1.0]]).double())
    x = torch.randn(num, 2, generator=generator).double() @ root.T

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, ONE).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 0.3 * ONE).to_event(1))

    return model, guide, x


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_of_a_normal_population_it_is_known(correlation):
    """q(z) = N(0, C + 0.09 I), its total correlation -log(1 - r^2) / 2 - log N: to 0.03 nats a datum."""
    model, guide, x = population(correlation)
    torch.manual_seed(0)
    with own_scope(model, guide), torch.no_grad():
        bound = BetaTC(2.0).bound(model, guide, x)
    # log q(z) has one log(N M), the coordinates' have two: what is left is one
    total = (bound.loss - (bound.kl_prior - bound.reconstruction)).item() / len(x) - math.log(len(x))
    assert total == pytest.approx(-math.log(1 - (correlation / 1.09) ** 2) / 2, abs=0.03)


def full(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(x @ A, torch.eye(Z).double()))


REFUSED = {
    "chain": r"one latent, in the plate of the data alone; there are \['a', 'b', 'c'\]",
    "pixels-right": "one latent, in the plate of the data alone; .* in 2 plates",
    "mixture": "cannot be reparameterized",
    "trained-weighted": "site 'z' has another scale",
    "trained-masked": "site 'z' is masked",
}


@pytest.mark.parametrize("name", REFUSED)
def test_pairs_that_are_refused(name):
    case = built(name)
    with own_scope(case.model, case.guide), pytest.raises(InputError, match=REFUSED[name]):
        BetaTC(4.0, plate=case.plate).loss(case.model, case.guide, *case.args)


def test_a_full_covariance_is_refused():
    with own_scope(trained().model, full), pytest.raises(InputError, match="MultivariateNormal has no density for"):
        BetaTC(4.0).loss(trained().model, full, X)


def test_a_negative_weight_is_refused():
    with pytest.raises(InputError, match="beta must be a number, 0 or more"):
        BetaTC(-1)
