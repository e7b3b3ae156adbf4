"""x given what is observed of it, against joint normals in closed form; images; and what is refused."""

import pytest
import torch
from examples.forked import forked
from examples.small import make_data, make_vae

import pyrovae as pv
from pyrovae.base.errors import InputError, UntrustedPosterior

MATRIX = torch.tensor([[0.5, 0.5, 0, 0, 0, 0], [0, 0, 0.3, 0.3, 0.3, 0]]).double()
OPERATORS = {
    "exact": (pv.operators.linear(MATRIX), MATRIX, 0.0),
    "noisy": (pv.operators.linear(MATRIX, noise=0.4), MATRIX, 0.4),
    "overlapping": (pv.operators.linear(MATRIX + 0.1, noise=0.4), MATRIX + 0.1, 0.4),
    "mask": (pv.operators.entries(torch.tensor([1, 0, 1, 0, 0, 0]).bool()), torch.eye(6).double()[[0, 2]], 0.0),
}


@pytest.fixture(scope="module")
def oracle():
    return pv.oracles.ppca(6, 2, noise=0.7)


@pytest.fixture(scope="module", params=OPERATORS)
def found(request, oracle):
    operator, matrix, noise = OPERATORS[request.param]
    x, _ = oracle.draw(40, seed=0)
    y = operator.apply(x, seed=1)
    restored = pv.restore(oracle.model, oracle.mean_field_guide(), y, operator, truth=x, num_draws=400)
    return restored, *exact(oracle, x, y[:, ~y[0].isnan()], matrix, noise)


def exact(oracle, x, y, matrix, noise):
    """Mean and covariance of x given y, and log p(x | y)."""
    whole = oracle.loadings @ oracle.loadings.T + oracle.noise_scale.expand(6).square().diag()
    bias, root = oracle.bias.expand(6), matrix @ whole @ matrix.T + noise**2 * torch.eye(2).double()
    gain = whole @ matrix.T @ root.inverse()
    mean, covariance = bias + (y - bias @ matrix.T) @ gain.T, whole - gain @ matrix @ whole
    away, within = x - mean, covariance
    if noise == 0:
        null = torch.linalg.svd(matrix)[2][2:]
        away, within = away @ null.T, null @ covariance @ null.T
    density = torch.distributions.MultivariateNormal(torch.zeros(len(within)).double(), within).log_prob(away)
    return mean, covariance, density


def test_means_and_variances_are_those_of_the_joint_normal(found):
    restored, mean, covariance, _ = found
    sd = covariance.diagonal().clamp_min(0).sqrt()
    # 4.5 standard errors of 400 draws of latents, systematic resampling taken as no better than independent draws.
    assert ((restored.mean - mean).abs() <= 4.5 * sd / 400**0.5 + 1e-9).all()
    assert (restored.sd.mean(0) - sd).abs().max() < 0.03
    pooled = (restored.draws - mean).flatten(0, 1)
    error = ((sd[:, None] * sd).square() + covariance.square()).sqrt() / 400**0.5
    assert ((pooled.T @ pooled / len(pooled) - covariance).abs() <= 4.5 * error + 1e-9).all()


def test_the_nats_of_the_truth_are_exact_within_their_error(found):
    restored, _, _, density = found
    assert restored.fraction_unreliable == 0 and not restored.density_unreliable.any()
    # 4.5 standard errors, of 40 data.
    assert ((restored.log_density - density).abs() <= 4.5 * restored.mc_se_log_density + 1e-9).all()


def test_what_is_drawn_shows_what_was_observed(found):
    restored, *_ = found
    if restored.operator == "entries":
        seen = ~restored.observed.isnan()
        assert all(torch.equal(draw[seen], restored.observed[seen]) for draw in restored.draws)
        assert restored.num_hidden.tolist() == [4.0] * 40


def test_a_guide_of_whole_images_is_given_a_guess():
    vae, x = make_vae(), make_data(20)
    for name, num_hidden in (("lower-half", 8.0), ("salt-and-pepper:0.2", None)):
        operator = pv.operators.named(name, (4, 4))
        restored = pv.restore(
            vae.model, vae.guide, operator.apply(x), operator, truth=x, num_draws=5, num_particles=100
        )
        assert restored.draws.shape == (5, 20, 4, 4) and set(restored.draws.unique().tolist()) <= {0.0, 1.0}
        assert (restored.log_density < 0).all() and restored.mean.isfinite().all()
        if num_hidden:
            assert restored.num_hidden.tolist() == [num_hidden] * 20
            masked = pv.conditional(vae.model, vae.guide, x, ~operator.apply(x)[0].isnan(), num_particles=100)
            error = (restored.mc_se_log_density.square() + masked.density.mc_se_log_density.square()).sqrt()
            # The same nats by the function of missing entries: 4.5 standard errors.
            assert ((restored.log_density - masked.density.log_density).abs() <= 4.5 * error + 1e-5).all()


def test_the_evidence_of_the_truth_is_not_found_twice(oracle):
    operator, _, _ = OPERATORS["exact"]
    x, _ = oracle.draw(5, seed=0)
    pair = oracle.model, oracle.mean_field_guide()
    report = pv.evaluate(*pair, x, num_particles=100)
    restored = pv.restore(*pair, operator.apply(x), operator, truth=x, evidence=report, num_particles=100)
    assert restored.evidence is report


def test_draws_that_nothing_vouches_for_are_told(oracle):
    operator, _, _ = OPERATORS["exact"]
    x, _ = oracle.draw(20, seed=0)
    guide = pv.widened(oracle.mean_field_guide(), 0.2)
    with pytest.warns(UntrustedPosterior, match="nothing vouches for the draws of"):
        pv.restore(oracle.model, guide, operator.apply(x), operator, num_particles=100, method="importance")


@pytest.mark.parametrize("num_latents", [6, 24])
@pytest.mark.parametrize("odds", [0.5, 0.9])
def test_modes_that_the_first_guess_does_not_lead_to_are_found(num_latents, odds):
    oracle, guide = forked(num_latents, odds)
    # The sum of the first two numbers is seen: the one is large and the other small, or the other way round.
    identity = torch.eye(num_latents).double()
    matrix = torch.cat([identity[:1] + identity[1:2], identity[2:]])
    operator, log_prob = pv.operators.linear(matrix), oracle.marginal(matrix).log_prob
    x, _ = oracle.draw(30, seed=0)
    y = operator.apply(x)
    restored = pv.restore(oracle.model, guide, y, operator, num_draws=1000)
    error = (restored.report.log_evidence - log_prob(y)).abs()
    # 4.5 standard errors, of 30 data; half of the mass is 0.69 nat.
    assert (error <= 4.5 * restored.report.mc_se_log_evidence + 1e-6).all() and not restored.unreliable.any()
    first = (restored.draws[:, :, 0] > restored.draws[:, :, 1]).double().mean()
    # 30 x 1000 draws, which count for fewer by their weights: 5 standard errors of 3000.
    assert (first - odds).abs() < 5 * (odds * (1 - odds) / 3000) ** 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": torch.ones(3, 6).double()}, r"linear: expected y of shape \(N, 2\), got \(3, 6\)"),
        ({"truth": torch.ones(3, 2).double()}, r"linear: expected truth of shape \(N, 6\), got \(3, 2\)"),
        ({"truth": torch.ones(4, 6).double()}, "truth: expected 3 data, as there are of y, got 4"),
        ({"num_draws": 0}, "num_draws must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(oracle, given, message):
    arguments = {"data": torch.ones(3, 2).double(), "operator": OPERATORS["exact"][0], **given}
    with pytest.raises(InputError, match=message):
        pv.restore(oracle.model, oracle.guide, **arguments)
