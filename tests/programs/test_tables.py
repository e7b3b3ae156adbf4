"""The programs of a table: sites by kind, missing entries left out, covariates read by both programs."""

import math

import pyro
import pytest
import torch

from pyrovae.evidence.evaluate import evaluate
from pyrovae.pairs.missing.observed import observed_entries
from pyrovae.pairs.table import log_terms
from pyrovae.programs import families
from pyrovae.programs.conditional import Conditional
from pyrovae.programs.guides.inputs import TableRows
from pyrovae.programs.networks import mlp
from pyrovae.programs.priors.gaussian import StandardNormal
from pyrovae.programs.tables import TableVAE, columns_of, outside

KINDS = [("real", 0), ("ordinal", 4), ("count", 0), ("real", 0), ("proportion", 0), ("positive", 0), ("binary", 2)]
SITES = ["x.real", "x.ordinal4", "x.count", "x.proportion", "x.positive", "x.binary"]


@pytest.fixture(autouse=True)
def own_scope():
    with pyro.get_param_store().scope():
        yield


def rows(num_data=30):
    torch.manual_seed(0)
    columns = [torch.randn(num_data), torch.arange(num_data) % 4, torch.randint(0, 9, (num_data,)).float()]
    columns += [torch.randn(num_data), torch.rand(num_data) * 0.9 + 0.05, torch.rand(num_data) + 0.1]
    return torch.stack([*(c.float() for c in columns), (torch.arange(num_data) % 2).float()], 1)


def make(kinds=KINDS, *, num_covariates=0, has_missing=True, latent=2):
    x = rows()[:, : len(kinds)]
    read = TableRows(kinds, x, torch.full((len(kinds),), has_missing))
    beside = None
    if num_covariates:
        beside = TableRows(
            [("real", 0)] * num_covariates, torch.randn(9, num_covariates), torch.zeros(num_covariates) > 0
        )
    width = read.size + num_covariates
    return TableVAE(
        prior=StandardNormal(latent),
        decoder=Conditional(families.of_kinds(kinds), len(kinds), mlp(latent + num_covariates, 8, seed=0)),
        encoder=Conditional(families.normal(), latent, mlp(width, 8, seed=1)),
        read=read,
        read_covariates=beside,
    )


def with_gaps(x):
    x = x.clone()
    x[::2, 0] = x[1::3, 1] = x[::4, 2] = x[1::4, 4] = x[::5, 5] = x[2::5, 6] = math.nan
    x[7] = math.nan
    return x


def observed(vae, *args, z):
    """log p(x | z, c) of the rows, by the decoder's own parts and columns."""
    y, x = vae.decoder(vae.beside(z, *args[1:])), args[0]
    total = torch.zeros(len(x))
    for part, places in zip(y.parts, y.columns, strict=True):
        for i, place in enumerate(places):
            seen = ~x[:, place].isnan()
            filled = torch.full_like(x[:, places], 0.5 if place == 4 else 1.0)
            filled[:, i] = torch.where(seen, x[:, place], filled[:, i])
            total += torch.where(seen, part.base_dist.log_prob(filled)[:, i], 0.0)
    return total


@pytest.mark.parametrize("num_covariates", [0, 2])
def test_the_table_of_a_row_is_that_of_the_entries_that_are_there(num_covariates):
    vae, x = make(num_covariates=num_covariates), with_gaps(rows())
    args = (x, torch.randn(len(x), num_covariates)) if num_covariates else (x,)
    pyro.set_rng_seed(3)
    terms = log_terms(observed_entries(vae.model), vae.guide, *args, num_particles=1)
    pyro.set_rng_seed(3)
    q = vae.encoder(vae.features(*args))
    z = q.sample()
    assert bool(terms.log_guide.isfinite().all()) and terms.log_likelihood.shape == (1, 30)
    model = observed_entries(vae.model)
    trace = pyro.poutine.trace(pyro.poutine.condition(model, {"z": z})).get_trace(*args)
    trace.compute_log_prob()
    ours = sum(trace.nodes[name]["log_prob"] for name in SITES)
    torch.testing.assert_close(ours, observed(vae, *args, z=z))
    assert ours[7] == 0


def test_columns_of_one_family_are_one_site():
    vae = make([("real", 0)] * 3, has_missing=False)
    trace = pyro.poutine.trace(vae.model).get_trace(rows()[:, :3])
    assert [name for name in trace.nodes if name.startswith("x")] == ["x"]
    trace = pyro.poutine.trace(make().model).get_trace(rows())
    assert [name for name in trace.nodes if name.startswith("x")] == SITES


def test_a_column_that_is_missing_everywhere_leaves_the_evidence_of_the_others():
    """As if the column were not there: with the same latents, and the same weights for the others."""
    vae, x = make([("real", 0)] * 3), rows()[:, :3].clone()
    x[:, 2] = math.nan
    report = evaluate(observed_entries(vae.model), vae.guide, x, num_particles=200, method="importance", seed=0)
    z = torch.randn(200_000, 1, 2, generator=torch.Generator().manual_seed(1))
    y = vae.decoder(z).parts[0].base_dist
    by_hand = torch.distributions.Normal(y.loc[..., :2], y.scale[..., :2]).log_prob(x[:5, :2]).sum(-1)
    by_hand = by_hand.logsumexp(0) - math.log(len(z))
    error = 5 * report.mc_se_log_evidence[:5] + 0.02
    assert bool(((report.log_evidence[:5] - by_hand).abs() < error).all())


def test_missing_entries_make_no_gradient_and_no_difference():
    vae, x = make(), with_gaps(rows())
    pyro.infer.Trace_ELBO().differentiable_loss(observed_entries(vae.model), vae.guide, x).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in vae.parameters())


def test_both_programs_depend_on_the_covariates():
    vae, x = make(num_covariates=2), rows()
    one, other = torch.zeros(30, 2), torch.ones(30, 2)
    z = torch.zeros(30, 2)
    assert not torch.equal(observed(vae, x, one, z=z), observed(vae, x, other, z=z))
    assert not torch.equal(vae.encoder(vae.features(x, one)).mean, vae.encoder(vae.features(x, other)).mean)
    assert vae.beside(torch.zeros(5, 30, 2), one).shape == (5, 30, 4)


def test_a_likelihood_of_whole_rows_is_integrated_over_what_is_missing():
    vae = make([("real", 0)] * 3)
    vae.decoder = Conditional(families.low_rank_normal(1), 3, mlp(2, seed=0))
    z, x = torch.zeros(30, 2), with_gaps(rows())[:, :3]
    model = pyro.condition(observed_entries(vae.model), {"z": z})
    trace = pyro.poutine.trace(model).get_trace(x)
    trace.compute_log_prob()
    flat, row = vae.decoder(z).flat, x[0]  # in which the first and the third are missing
    exact = torch.distributions.Normal(flat.loc[0, 1], flat.covariance_matrix[0, 1, 1].sqrt()).log_prob(row[1])
    torch.testing.assert_close(trace.nodes["x"]["log_prob"][0], exact)


def test_columns_are_taken_in_their_order():
    x = rows()
    assert torch.equal(columns_of(x, [1, 2, 3]), x[:, 1:4]) and torch.equal(columns_of(x, [4, 0]), x[:, [4, 0]])


def test_entries_outside_of_a_support_are_found():
    y, x = make().decoder(torch.zeros(1, 2)), with_gaps(rows())
    assert not outside(y, x).any()
    x[3, 1], x[4, 5], x[5, 6] = 4.0, -1.0, 0.5
    assert outside(y, x).nonzero().tolist() == [[3, 1], [4, 5], [5, 6]]
    gamma = Conditional(families.gamma(), 3, mlp(2, seed=0))(torch.zeros(1, 2))
    x = torch.tensor([[1.0, -1.0, math.nan], [1.0, 1.0, 1.0]])
    assert outside(gamma, x).nonzero().tolist() == [[0, 1]]
    assert outside(gamma, torch.tensor([[0.0, 1.0, math.nan]])).nonzero().tolist() == [[0, 0]]  # an end
    rank = Conditional(families.low_rank_normal(1), 3, mlp(2, seed=0))(torch.zeros(1, 2))
    assert not outside(rank, x).any()
