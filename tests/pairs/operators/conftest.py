"""Operators on a few numbers, and what a joint normal says of y, of x given y, and of z given y."""

from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv

MATRICES = {
    "disjoint": torch.tensor([[0.5, 0.5, 0, 0, 0], [0, 0, 0.2, 0.3, 0.0]]).double(),
    "overlapping": torch.tensor([[0.5, 0.5, 0, 0, 0], [0, 0.4, 0.2, 0.3, 0.0], [0.1, 0, 0, 0.5, 1.0]]).double(),
}
NOISES = {"exact": 0.0, "noisy": 0.3}
ORACLES = {
    "one scale": lambda: pv.oracles.ppca(5, 2, noise=0.7),
    "scales": lambda: pv.oracles.factor_analysis(5, 2),
}


@pytest.fixture(scope="session", params=[(m, n, o) for m in MATRICES for n in NOISES for o in ORACLES], ids="-".join)
def case(request):
    """An oracle seen through a matrix, with all that is known of it in closed form."""
    matrix_name, noise_name, oracle_name = request.param
    return seen_through(ORACLES[oracle_name](), MATRICES[matrix_name], NOISES[noise_name])


def seen_through(oracle, matrix, noise):
    operator = pv.operators.linear(matrix, noise=noise)
    x, z = oracle.draw(40, seed=0)
    error = noise**2 * torch.eye(len(matrix)).double()
    square = oracle.noise_scale.expand(5).square().diag()
    given_z = matrix @ square @ matrix.T + error  # covariance of y given z
    whole = oracle.loadings @ oracle.loadings.T + square
    covariance = matrix @ whole @ matrix.T + error
    loadings = matrix @ oracle.loadings
    bias = matrix @ oracle.bias.expand(5)
    precision = torch.eye(2).double() + loadings.T @ given_z.inverse() @ loadings

    def guide(y):
        with pyro.plate("data", len(y)):
            mean = (y - bias) @ given_z.inverse() @ loadings @ precision.inverse()
            pyro.sample("z", dist.MultivariateNormal(mean, precision_matrix=precision))

    gain = whole @ matrix.T @ covariance.inverse()
    return SimpleNamespace(
        oracle=oracle,
        matrix=matrix,
        noise=noise,
        operator=operator,
        x=x,
        z=z,
        y=operator.apply(x, seed=1),
        given_z=given_z,
        evidence=dist.MultivariateNormal(bias, covariance),
        mean=lambda y: oracle.bias + (y - bias) @ gain.T,
        covariance=whole - gain @ matrix @ whole,
        guide=guide,
    )
