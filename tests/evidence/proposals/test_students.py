"""Student's t for each datum: their densities beside SciPy's and torch's, their draws by moments."""

import math

import pytest
import scipy.stats
import torch
from torch.distributions import MultivariateNormal

from pyrovae.evidence.proposals.students import Students

N, D = 3, 2


def students(df, num_components=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    loc = 3 * torch.randn(num_components, N, D, dtype=torch.float64, generator=generator)
    tril = torch.randn(num_components, N, D, D, dtype=torch.float64, generator=generator).tril(-1) + 0.7 * torch.eye(D)
    log_weight = torch.rand(num_components, N, dtype=torch.float64, generator=generator).log_softmax(0)
    return Students(log_weight, loc, tril, df, dtype)


@pytest.mark.parametrize("df", [3.0, 20.0, math.inf])
def test_the_density_is_that_of_a_mixture(df):
    q, u = students(df), torch.randn(5, N, D, dtype=torch.float64)
    found = q.log_prob(u)
    for n in range(N):
        parts = []
        for loc, tril, log_weight in zip(q.loc[:, n], q.scale_tril[:, n], q.log_weight[:, n], strict=True):
            if df == math.inf:
                log_prob = MultivariateNormal(loc, scale_tril=tril).log_prob(u[:, n])
            else:
                one = scipy.stats.multivariate_t(loc.numpy(), (tril @ tril.T).numpy(), df)
                log_prob = torch.as_tensor(one.logpdf(u[:, n].numpy()))
            parts.append(log_prob + log_weight)
        torch.testing.assert_close(found[:, n], torch.stack(parts).logsumexp(0))


def test_draws_have_the_mean_and_the_covariance():
    torch.manual_seed(0)
    q, num_draws = students(20.0), 200_000
    u, weight = q.sample(num_draws), q.weight[..., None]
    mean = (weight * q.loc).sum(0)
    covariance = q.scale_tril @ q.scale_tril.mT * 20 / 18
    away = q.loc - mean
    expected = (weight[..., None] * (covariance + away[..., None] * away[..., None, :])).sum(0)
    se = (expected.diagonal(dim1=-2, dim2=-1) / num_draws).sqrt()
    assert ((u.mean(0) - mean).abs() < 4 * se).all()
    found = torch.stack([torch.cov(u[:, n].T) for n in range(N)])
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_draws_by_component_and_of_some_data():
    q = students(5.0, dtype=torch.float32)
    u = q.draw(1000)
    assert u.shape == (2000, N, D) and u.dtype == torch.float32
    centres = u.unflatten(0, (2, 1000)).double().median(1).values
    assert (centres - q.loc).abs().max() < 0.3
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(q.of(rows).log_prob(u[:, rows]), q.log_prob(u)[:, rows])


def test_scales_are_inverted_once(monkeypatch):
    solved, solve = [], torch.linalg.solve_triangular
    monkeypatch.setattr(torch.linalg, "solve_triangular", lambda *a, **k: (solved.append(1), solve(*a, **k))[1])
    q = students(5.0)
    first, second = (q.log_prob(torch.zeros(3, N, D).double()) for _ in range(2))
    assert torch.equal(first, second) and len(solved) == 1
