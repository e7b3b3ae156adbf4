"""The Jacobian by its closed form, where the guide is linear in the data; and what it does to a code."""

import math

import pyro
import pytest
import torch
from examples.bounds import assert_same, built, evaluated, trained
from examples.zoo import X

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
from pyrovae.training.objectives.elbo import SampledELBO
from pyrovae.training.objectives.penalized.contractive import Contractive


def penalty_of(objective, model, guide, x):
    bound = objective.bound(model, guide, x)
    return (bound.loss - (bound.kl_prior - bound.reconstruction)).item()


def test_of_a_linear_guide_it_is_the_norm_of_its_matrix():
    """The exact posterior of probabilistic PCA: its mean is A x, and its covariance is one for all data."""
    oracle = pv.oracles.ppca(6, 2)
    x, _ = oracle.draw(5, seed=0)
    jacobian = torch.linalg.solve(oracle.precision(), (oracle.loadings / oracle.noise_scale[:, None] ** 2).T)
    expected = 0.7 * len(x) * jacobian.square().sum().item()
    assert penalty_of(Contractive(0.7), oracle.model, oracle.guide, x) == pytest.approx(expected, rel=1e-9)


def test_of_an_autoencoder_it_is_that_of_its_encoder():
    decoder = pv.Conditional(pv.families.bernoulli(), (4, 4), pv.networks.mlp(3, 8, seed=0))
    encoder = pv.networks.mlp((4, 4), 8, activation=torch.nn.Sigmoid, seed=1)
    autoencoder = pv.baselines.Autoencoder(3, decoder=decoder, encoder=encoder)
    x = torch.rand(7, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    each = [torch.autograd.functional.jacobian(autoencoder.encoder, row) for row in x]
    expected = 2.0 * sum(one.square().sum().item() for one in each)
    with own_scope(autoencoder.model, autoencoder.guide, fresh=True):
        found = penalty_of(Contractive(2.0), autoencoder.model, autoencoder.guide, x)
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_code_that_costs_moves_less():
    x = torch.rand(60, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    norms = []
    for weight in (0.0, 1.0):
        decoder = pv.Conditional(pv.families.bernoulli(), (4, 4), pv.networks.mlp(2, 16, seed=0))
        autoencoder = pv.baselines.Autoencoder(2, decoder=decoder, encoder=pv.networks.mlp((4, 4), 16, seed=1))
        pair = autoencoder.model, autoencoder.guide
        pv.fit(*pair, x, objective=Contractive(weight), epochs=40, batch_size=60, progress=False, seed=0)
        with own_scope(*pair, fresh=True):
            norms.append(penalty_of(Contractive(1.0), *pair, x))
    assert norms[1] < 0.5 * norms[0]


def test_no_weight_is_the_elbo():
    assert_same(evaluated(Contractive(0.0), trained()), evaluated(SampledELBO(), trained()))


def test_a_guide_that_reads_nothing_pays_nothing():
    oracle = pv.oracles.ppca(6, 2)
    x, _ = oracle.draw(5, seed=0)
    assert penalty_of(Contractive(5.0), oracle.model, oracle_prior(oracle), x) == pytest.approx(0.0, abs=1e-9)


def oracle_prior(oracle):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", oracle.prior())

    return guide


@pytest.mark.parametrize(
    ("name", "message"),
    [("discrete", "cannot be reparameterized"), ("trained-weighted", "site 'z' has another scale")],
)
def test_pairs_that_are_refused(name, message):
    case = built(name)
    with own_scope(case.model, case.guide), pytest.raises(InputError, match=message):
        Contractive().loss(case.model, case.guide, *case.args)


def test_whole_numbers_have_no_slope():
    case = trained()
    with own_scope(case.model, case.guide), pytest.raises(InputError, match=r"which is of torch\.int64: give x\.float"):
        Contractive().loss(case.model, case.guide, X.long())


@pytest.mark.parametrize("weight", [-1.0, math.nan])
def test_what_is_no_weight(weight):
    with pytest.raises(InputError, match="weight must be a number, 0 or more"):
        Contractive(weight)
