"""Factor analysis with hidden entries, whose conditionals are known, and completions that are fitted once."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import pyrovae as pv


class Exact(NamedTuple):
    """Of the missing entries of one datum."""

    missing: Tensor  # (D,) booleans
    mean: Tensor
    covariance: Tensor
    log_density: Tensor  # of what is hidden


class Problem(NamedTuple):
    """A pair, data, and which entries are observed."""

    oracle: object
    x: Tensor
    observed: Tensor

    def exact(self, row: int) -> Exact:
        program, o = self.oracle.complete, self.observed[row]
        covariance = program.loadings @ program.loadings.T + program.noise_scale.square().diag()
        gain = covariance[~o][:, o] @ torch.linalg.inv(covariance[o][:, o])
        mean = program.bias[~o] + gain @ (self.x[row][o] - program.bias[o])
        within = covariance[~o][:, ~o] - gain @ covariance[o][:, ~o]
        within = (within + within.T) / 2
        normal = torch.distributions.MultivariateNormal(mean, within) if len(mean) else None
        return Exact(~o, mean, within, normal.log_prob(self.x[row][~o]) if normal else torch.zeros(()).double())


@pytest.fixture(scope="session")
def problem():
    oracle = pv.oracles.missing_entries(6, 2)
    x, _ = oracle.complete.draw(500, seed=1)
    observed = pv.data.mcar(x.shape, 0.4, seed=0)
    observed[0], observed[1] = True, False  # everything, and nothing
    return Problem(oracle, x, observed)


@pytest.fixture(scope="session")
def guides(problem):
    """The exact posterior given what was observed; too narrow a one; and one of complete data, which reads no NaN."""
    oracle = problem.oracle
    return {"exact": oracle.guide, "narrow": pv.widened(oracle.guide, 0.5), "complete": oracle.complete.guide}


@pytest.fixture(scope="session")
def completions(problem, guides):
    """Of 500 data by the exact guide, of 60 by the others."""
    found = {}
    for name, guide in guides.items():
        num_data = 500 if name == "exact" else 60
        rows = problem.x[:num_data], problem.observed[:num_data]
        found[name] = pv.conditional(problem.oracle.complete.model, guide, *rows, num_draws=300)
    return found


@pytest.fixture(scope="session")
def by_chains(problem):
    """Of four data, by chains."""
    oracle, rows = problem.oracle, slice(2, 6)
    hidden = pv.hide(problem.x[rows], problem.observed[rows])
    return pv.conditional(oracle.complete.model, oracle.guide, hidden, method="gibbs", num_draws=800)
