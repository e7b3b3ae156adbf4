"""Distributions of whole events: factors, and totals."""

import numpy as np
import scipy.stats
import torch
from examples.families import parameters_of

from pyrovae.programs import families
from pyrovae.programs.families import positive


def test_normals_of_low_rank_are_multivariate_normals():
    torch.manual_seed(0)
    loc, factor, raw = (each.detach() for each in parameters_of(families.low_rank_normal(2), (2, 2), (1,)))
    y = families.low_rank_normal(2).build(2, loc, factor, raw)
    covariance = factor[0] @ factor[0].T + positive(raw[0]).flatten().square().diag()
    theirs = scipy.stats.multivariate_normal(loc[0].flatten(), covariance)
    x = y.sample((20,))
    np.testing.assert_allclose(y.log_prob(x)[:, 0], theirs.logpdf(x.reshape(20, 4)), rtol=1e-9)
    np.testing.assert_allclose(y.variance[0].flatten(), np.diag(covariance), rtol=1e-9)


def test_documents_are_scored_by_their_own_totals():
    torch.manual_seed(0)
    (logits,) = (each.detach() for each in parameters_of(families.multinomial(7), (2, 3), (1,)))
    y = families.multinomial(7).build(2, logits)
    pi = logits.flatten().softmax(0).numpy()
    x = torch.cat([y.sample((5,)), torch.tensor([[[[0, 0, 0], [0, 1, 2.0]]], [[[0, 0, 0], [0, 0, 0]]]])]).double()
    expected = [scipy.stats.multinomial(int(row.sum()), pi).logpmf(row.flatten().numpy()) for row in x]
    np.testing.assert_allclose(y.log_prob(x)[:, 0], expected, rtol=1e-9, atol=1e-12)
    assert (x[:5].sum((-2, -1)) == 7).all()
