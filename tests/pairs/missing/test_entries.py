"""Densities of some entries of an event against integrals that are known, and draws of the others against conditionals."""

import math

import pyro.distributions as dist
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.pairs.missing.entries import check_whole, completed, form_of, of_entries
from pyrovae.programs.distributions.events import LowRankNormal, MixedColumns, Multinomial
from pyrovae.programs.distributions.exponential import Bernoulli, Binomial
from pyrovae.programs.distributions.mixtures import NormalMixture

N, D = 5, 4
ZERO = torch.zeros(N, D, dtype=torch.float64)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_seen(seed=0):
    seen = torch.rand(N, D, generator=torch.Generator().manual_seed(seed)) < 0.5
    seen[0], seen[1] = True, False
    return seen


def covariance():
    root = noise(N, D, D)
    return root @ root.mT + 0.5 * torch.eye(D).double()


def low_rank():
    return LowRankNormal(noise(N, 2, 2), noise(N, D, 2, seed=1), 0.5 + noise(N, 2, 2, seed=2).abs(), 2)


# Name -> whole events, and their distribution: N (loc, covariance) over vectors.
NORMALS = {
    "full": lambda: (dist.MultivariateNormal(noise(N, D), covariance()),) * 2,
    "low rank": lambda: (dist.LowRankMultivariateNormal(noise(N, D), noise(N, D, 2), 0.5 + noise(N, D).abs()),) * 2,
    "of a shape": lambda: (low_rank(), low_rank().flat),
}
SINGLE = {
    "normal": lambda: dist.Normal(noise(N, D), 1.5),
    "bernoulli": lambda: Bernoulli(logits=noise(N, D)),
    "binomial": lambda: Binomial(7, noise(N, D)),
    "gamma": lambda: dist.Gamma(1 + noise(N, D).abs(), 1.0),
    "categorical": lambda: dist.Categorical(logits=noise(N, D, 3)),
}


@pytest.mark.parametrize("name", SINGLE)
def test_entries_by_themselves_count_where_they_are_seen(name):
    single, seen = SINGLE[name](), some_seen()
    value = single.sample().double()
    of_seen = of_entries(single.to_event(1), seen)
    expected = torch.where(seen, single.log_prob(value), 0.0).sum(-1)
    torch.testing.assert_close(of_seen.log_prob(value), expected)
    other = torch.where(seen, value, single.sample().double())
    torch.testing.assert_close(of_seen.log_prob(other), expected)
    assert type(of_seen) is type(single.to_event(1))


def dense(normal, seen, row):
    at = seen[row]
    return dist.MultivariateNormal(normal.loc[row][at], normal.covariance_matrix[row][at][:, at])


@pytest.mark.parametrize("name", NORMALS)
def test_normals_have_their_marginals(name):
    (whole, flat), seen = NORMALS[name](), some_seen()
    value = flat.sample()
    of_seen = of_entries(whole, seen.reshape(N, *whole.event_shape))
    found = of_seen.log_prob(value.reshape(N, *whole.event_shape))
    for row in range(N):
        if seen[row].any():
            torch.testing.assert_close(found[row], dense(flat, seen, row).log_prob(value[row][seen[row]]))
    assert found[1].abs() < 1e-10
    torch.testing.assert_close(of_seen.mean, whole.mean)


@pytest.mark.parametrize("name", NORMALS)
def test_normals_are_completed_by_their_conditionals(name):
    (whole, flat), seen = NORMALS[name](), some_seen()
    value = torch.where(seen, flat.sample(), math.nan).reshape(N, *whole.event_shape)
    torch.manual_seed(0)
    num_draws = 4000
    many = completed(whole.expand((num_draws, N)), value, ~value.isnan())
    draws, mean, variance = (one.reshape(num_draws, N, D) for one in many)
    for row in range(N):
        o, m, loc, cov = seen[row], ~seen[row], flat.loc[row], flat.covariance_matrix[row]
        gain = cov[m][:, o] @ torch.linalg.inv(cov[o][:, o])
        expected = loc[m] + gain @ (value.reshape(N, D)[row][o] - loc[o])
        within = cov[m][:, m] - gain @ cov[o][:, m]
        torch.testing.assert_close(mean[0, row][m], expected)
        torch.testing.assert_close(variance[0, row][m], within.diagonal())
        assert torch.equal(draws[0, row][o], value.reshape(N, D)[row][o])
        assert not variance[0, row][o].any()
        sampled = draws[:, row][:, m]
        # 5 standard errors of a mean and of a covariance of normals.
        assert ((sampled.mean(0) - expected).abs() < 5 * (within.diagonal() / num_draws).sqrt()).all()
        spread = within.diagonal().sqrt()
        if m.any():
            away = sampled.T.cov() - within if m.sum() > 1 else sampled.var() - within
            assert (away.abs() < 5 * math.sqrt(2 / num_draws) * spread[:, None] * spread).all()


def test_a_mixture_is_that_of_its_components_and_completed_by_the_one_that_fits():
    mixture, seen = NormalMixture(6 * noise(N, 3, D), torch.ones(N, 3, D).double(), noise(N, 3)), some_seen()
    value = mixture.sample()
    found = of_entries(mixture, seen).log_prob(value)
    each = torch.distributions.Normal(mixture.locs, mixture.scales).log_prob(value[:, None])
    each = torch.where(seen[:, None], each, 0.0).sum(-1) + mixture.logits.log_softmax(-1)
    torch.testing.assert_close(found, each.logsumexp(-1))
    torch.manual_seed(0)
    many = completed(mixture.expand((4000, N)), torch.where(seen, value, math.nan), seen)
    expected = (each.softmax(-1)[..., None] * mixture.locs).sum(1)
    torch.testing.assert_close(many.mean[0], torch.where(seen, value, expected))
    error = (many.variance[0] / 4000).sqrt()
    assert ((many.value.mean(0) - many.mean[0]).abs() <= 5 * error + 1e-9).all()  # 5 standard errors


def test_rows_of_unlike_columns_are_left_out_and_completed_by_parts():
    real, count = dist.Normal(noise(N, 2), 1.0), dist.Poisson(torch.full((N, 2), 3.0).double())
    row = MixedColumns([real.to_event(1), count.to_event(1)], [[0, 3], [1, 2]])
    seen, value = some_seen(), row.sample()
    each = torch.cat([real.log_prob(value[:, [0, 3]]), count.log_prob(value[:, [1, 2]])], -1)
    expected = torch.where(seen[:, [0, 3, 1, 2]], each, 0.0).sum(-1)
    torch.testing.assert_close(of_entries(row, seen).log_prob(value), expected)
    found = completed(row, torch.where(seen, value, math.nan), seen)
    assert torch.equal(found.value[seen], value[seen])
    torch.testing.assert_close(found.mean[~seen], row.mean[~seen])
    assert (found.value[:, [1, 2]] % 1 == 0).all()


def test_what_has_no_density_of_a_part_is_missing_as_a_whole_or_refused():
    counts = Multinomial(9, ZERO, 1)
    whole = torch.tensor([True, False, True, True, False])[:, None].expand(N, D)
    assert form_of(counts) is None
    check_whole("x", counts, whole)
    value = counts.sample()
    expected = torch.where(whole[:, 0], counts.log_prob(value), 0.0)
    torch.testing.assert_close(of_entries(counts, whole).log_prob(value), expected)
    with pytest.raises(InputError, match="site 'x': Multinomial has no density of a part of an event, and in 3 of 5"):
        check_whole("x", counts, some_seen(1))


def test_a_mixture_of_positive_families_has_finite_gradients_beside_what_is_missing():
    loc = torch.zeros(2, 3, requires_grad=True)
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.LogNormal(loc, 1.0).to_event(1))
    seen = torch.tensor([True, False, True])
    value = torch.tensor([1.0, 0.5, 2.0])  # the second is a harmless one
    log_prob = of_entries(mixture, seen).log_prob(value)
    expected = dist.LogNormal(torch.zeros(2), 1.0).to_event(1).log_prob(torch.tensor([1.0, 2.0]))
    assert log_prob.item() == pytest.approx(expected.item(), abs=1e-6)
    (slope,) = torch.autograd.grad(log_prob, loc)
    assert slope.isfinite().all() and (slope[:, 1] == 0).all()
    assert all(each.isfinite().all() for each in completed(mixture, torch.tensor([1.0, math.nan, 2.0]), seen))
