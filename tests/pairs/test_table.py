"""The public table: one function of a pair and a batch, which leaves all else as it was."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.zoo import ONE, ZOO, D, X, Z, linear_guide, linear_model, params
from torch.distributions import constraints

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.table import log_terms
from pyrovae.programs.oracles import ppca


def test_a_hand_written_pair_gives_the_numbers_of_the_built_in_one():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(Z),
        decoder=pv.Conditional(pv.families.bernoulli(), (D,), pv.networks.mlp(Z, 8)),
        encoder=pv.Conditional(pv.families.normal(), (Z,), pv.networks.mlp(D, 8)),
    )

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("latent", dist.Normal(torch.zeros(Z), torch.ones(Z)).to_event(1))
            pyro.sample("pixels", vae.decoder(z), obs=x)

    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("latent", vae.encoder(x))

    x, tables = (X > 0).float(), []
    for pair in ((vae.model, vae.guide), (model, guide)):
        torch.manual_seed(0)
        tables.append(log_terms(*pair, x, num_particles=10))
    assert all(torch.equal(a, b) for a, b in zip(*tables, strict=True))


def test_rows_do_not_depend_on_each_other():
    """A guide that draws no noise that matters: permuted rows give the permuted table, any batch the same rows."""
    oracle = ppca(6, 2)
    x, _ = oracle.draw(64, seed=0)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))

    def guide(x):  # a spread of 1e-9 leaves the draws where they are
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ oracle.loadings, 1e-9 * ONE).to_event(1))

    def scores(rows):
        terms = log_terms(oracle.model, guide, rows, num_particles=2)
        return terms.log_likelihood + terms.log_prior

    whole = scores(x)
    close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6)
    close(scores(x[order]), whole[:, order])
    close(torch.cat([scores(row[None]) for row in x], 1), whole)


@pytest.mark.parametrize("build", [lambda: ZOO["ppca"](), lambda: ZOO["mixture"]()], ids=["ppca", "mixture"])
def test_batches_of_one_are_rows_of_the_batch(build):
    case = build()
    x = case.args[0][:64]
    alone = torch.cat([log_terms(case.model, case.guide, row[None], num_particles=1).log_weight for row in x], 1)
    assert (alone - case.evidence[:64]).abs().max() < 1e-10


def test_nothing_is_left_behind():
    case = params()
    pyro.param("mine", torch.tensor(2.0), constraint=constraints.positive)
    log_terms(case.model, case.guide, X, num_particles=2)
    assert list(pyro.get_param_store().keys()) == ["mine"] and pyro.param("mine") == 2
    assert dist.Normal._validate_args and torch.distributions.Normal._validate_args
    pyro.clear_param_store()


@pytest.mark.parametrize("num_particles", [0, -3])
def test_no_particles(num_particles):
    with pytest.raises(InputError, match=f"num_particles must be at least 1, got {num_particles}"):
        log_terms(linear_model, linear_guide, X, num_particles=num_particles)
