"""The Kalman filter and its way back against the dense joint Normal of the whole chain."""

import pytest
import torch
from examples.exact import close
from torch.distributions import MultivariateNormal

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.programs.oracles.state_space import StateSpace, state_space


def doubles(*shape, seed=7):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def general():
    """Nothing symmetric, and every scale its own."""
    scales = {
        "initial_scale": doubles(3).exp(),
        "process_scale": doubles(3, seed=1).exp(),
        "noise_scale": doubles(2).exp(),
    }
    return StateSpace(5, 0.5 * doubles(3, 3), doubles(2, 3), **scales)


CHAINS = {
    "scalar": lambda: state_space(6, 1, 1),
    "rotating": lambda: state_space(4, 3, 2, noise=0.5),
    "one-step": lambda: state_space(1, 2, 2),
    "general": general,
}


@pytest.fixture(params=CHAINS.values(), ids=CHAINS.keys())
def chain(request):
    return request.param()


def dense(chain):
    """Covariances of all states, (T S, T S), and the emission of all of them, (T D, T S), from the definition."""
    steps, states = chain.num_steps, len(chain.transition)
    # All states are a linear map of the shocks e_t: z_t = sum over s <= t of A^(t - s) e_s.
    blocks = [
        [
            torch.linalg.matrix_power(chain.transition, t - s) if s <= t else torch.zeros_like(chain.transition)
            for s in range(steps)
        ]
        for t in range(steps)
    ]
    shocks = torch.cat([block for row in blocks for block in row], 1).reshape(states, steps, steps, states)
    shocks = shocks.permute(1, 0, 2, 3).reshape(steps * states, steps * states)
    scales = torch.cat([chain.initial_scale, *[chain.process_scale] * (steps - 1)])
    return shocks @ scales.square().diag() @ shocks.T, torch.block_diag(*[chain.emission] * steps)


def observed(chain):
    covariance, emission = dense(chain)
    return emission @ covariance @ emission.T + chain.noise_scale.square().repeat(chain.num_steps).diag()


def test_evidence_is_the_dense_normal(chain):
    x, _ = chain.draw(50, seed=0)
    flat = x.flatten(1)
    close(chain.log_evidence(x), MultivariateNormal(torch.zeros_like(flat[0]), observed(chain)).log_prob(flat))


def test_posterior_is_the_conditional_of_the_dense_joint(chain):
    x, _ = chain.draw(50, seed=0)
    covariance, emission = dense(chain)
    gain = torch.linalg.solve(observed(chain), emission @ covariance)
    mean = (x.flatten(1) @ gain).reshape(50, chain.num_steps, -1)
    rest = covariance - covariance @ emission.T @ gain
    posterior, states = chain.posterior(x), len(chain.transition)
    assert list(posterior) == [f"z_{t}" for t in range(chain.num_steps)]
    for t, marginal in enumerate(posterior.values()):
        block = slice(t * states, (t + 1) * states)
        close(marginal.mean, mean[:, t])
        close(marginal.covariance_matrix, rest[block, block].expand(50, -1, -1))


def test_exact_guide_has_constant_log_weights(chain):
    x, _ = chain.draw(200, seed=1)
    log_weight = pv.log_terms(chain.model, chain.guide, x, num_particles=3).log_weight
    close(log_weight, chain.log_evidence(x).expand(3, -1))


def test_a_long_chain_stays_exact():
    chain = state_space(60, 2, 2, noise=0.05)
    x, _ = chain.draw(5, seed=1)
    log_weight = pv.log_terms(chain.model, chain.guide, x, num_particles=2).log_weight
    close(log_weight, chain.log_evidence(x).expand(2, -1))


def test_draws_have_the_moments_of_the_model():
    chain = general()
    x, z = chain.draw(100_000, seed=5)
    together = torch.cat([*z.values(), x.flatten(1)], 1).T
    covariance, emission = dense(chain)
    cross = covariance @ emission.T
    expected = torch.cat([torch.cat([covariance, cross], 1), torch.cat([cross.T, observed(chain)], 1)])
    # 5 standard errors of a sample covariance of Normal data.
    variance = expected.diagonal()
    error = ((expected**2 + variance[:, None] * variance) / len(x)).sqrt()
    assert ((together.cov() - expected).abs() < 5 * error).all()
    assert (together.mean(1).abs() < 5 * (variance / len(x)).sqrt()).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"transition": doubles(2, 2)}, r"transition of shape \(3, 3\); got \(2, 2\)"),
        ({"emission": doubles(3)}, r"emission must have shape \(D, S\); got \(3,\)"),
        ({"process_scale": torch.zeros(3)}, "process_scale must be positive everywhere; got 0"),
        ({"noise_scale": torch.ones(3)}, r"noise_scale of shape \(2,\); got \(3,\)"),
        ({"initial_scale": torch.ones(2)}, r"initial_scale of shape \(3,\); got \(2,\)"),
    ],
)
def test_errors(change, message):
    one = torch.tensor(1.0)
    numbers = {"num_steps": 2, "transition": doubles(3, 3), "emission": doubles(2, 3)}
    with pytest.raises(InputError, match=message):
        StateSpace(**{**numbers, "initial_scale": one, "process_scale": one, "noise_scale": one, **change})
