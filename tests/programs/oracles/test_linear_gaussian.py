"""The linear-Gaussian answers against other routes to them: dense matrices, quadrature."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.exact import close, log_weights
from torch import nn

from pyrovae.base.errors import InputError
from pyrovae.evidence.proposals.widened import widened
from pyrovae.programs.oracles.linear_gaussian import LinearGaussian, factor_analysis, ppca

LINEAR = {
    "ppca": lambda: ppca(20, 3),
    "ppca-independent": lambda: ppca(20, 3, collinearity=0.0),
    "ppca-collinear": lambda: ppca(20, 3, collinearity=0.95, noise=0.5),
    "ppca-one-latent": lambda: ppca(4, 1),
    "factor-analysis": lambda: factor_analysis(12, 4, seed=1),
    "more-latents-than-features": lambda: factor_analysis(3, 5),
    "scalar-noise": lambda: LinearGaussian(doubles(6, 2), doubles(6), torch.tensor(0.7, dtype=torch.float64)),
    "parameters": lambda: LinearGaussian(
        nn.Parameter(doubles(6, 2)), nn.Parameter(doubles(6)), nn.Parameter(doubles(6).exp())
    ),
    "scalar-parameters": lambda: LinearGaussian(
        doubles(6, 2), nn.Parameter(torch.tensor(0.3).double()), nn.Parameter(torch.tensor(0.7).double())
    ),
}


def doubles(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


@pytest.fixture(params=LINEAR.values(), ids=LINEAR.keys())
def linear(request):
    return request.param()


def test_evidence_is_the_dense_normal(linear):
    x, _ = linear.draw(50, seed=1)
    covariance = linear.loadings @ linear.loadings.T + torch.diag(linear.noise_scale.expand(x.shape[1]) ** 2)
    loc = linear.bias.expand(x.shape[1])
    close(linear.log_evidence(x), torch.distributions.MultivariateNormal(loc, covariance).log_prob(x))


def test_posterior_is_the_conditional_of_the_dense_joint(linear):
    x, z = linear.draw(50, seed=1)
    covariance = linear.loadings @ linear.loadings.T + torch.diag(linear.noise_scale.expand(x.shape[1]) ** 2)
    gain = torch.linalg.solve(covariance, linear.loadings)
    posterior = linear.posterior(x)
    assert (posterior.batch_shape, posterior.event_shape) == ((50,), z.shape[1:])
    close(posterior.mean, (x - linear.bias) @ gain)
    expected = torch.eye(z.shape[1], dtype=torch.float64) - linear.loadings.T @ gain
    close(posterior.covariance_matrix, expected.expand(50, -1, -1))


def test_exact_guide_has_constant_log_weights(linear):
    x, _ = linear.draw(1000, seed=2)
    close(log_weights(linear.model, linear.guide, x), linear.log_evidence(x))


def test_programs_run_under_an_outer_plate(linear):
    x, _ = linear.draw(6, seed=2)
    close(log_weights(linear.model, linear.guide, x, 3), linear.log_evidence(x).expand(3, -1))
    for guide in (linear.mean_field_guide(1.1, 0.2), widened(linear.guide, 1.1, shift=0.2)):
        assert log_weights(linear.model, guide, x, 3).shape == (3, 6)


def test_quadrature_in_one_dimension():
    linear = ppca(4, 1)
    x, _ = linear.draw(5, seed=0)
    z = torch.linspace(-8, 8, 20001, dtype=torch.float64)[:, None, None]
    likelihood = dist.Normal(z @ linear.loadings.T + linear.bias, linear.noise_scale).to_event(1).log_prob(x)
    joint = (likelihood + dist.Normal(0.0, 1.0).log_prob(z[..., 0])).exp()
    evidence = torch.trapezoid(joint, z[..., 0], dim=0)
    close(linear.log_evidence(x), evidence.log())
    close(linear.posterior(x).mean[:, 0], torch.trapezoid(joint * z[..., 0], z[..., 0], dim=0) / evidence)


@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (0.6, 0.0), (1.7, 0.5), (1.0, -2.0)])
def test_kl_of_the_mean_field_guide(linear, scale, shift):
    x, _ = linear.draw(3, seed=4)
    posterior = linear.posterior(x)
    mean = posterior.mean + shift * posterior.variance.sqrt()
    covariance = torch.diag(scale**2 / linear.precision().diagonal())
    expected = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(mean, covariance),
        torch.distributions.MultivariateNormal(posterior.mean, scale_tril=posterior.scale_tril),
    )
    close(linear.kl_mean_field(scale, shift).expand(3), expected)
    with pyro.get_param_store().scope():
        site = pyro.poutine.trace(linear.mean_field_guide(scale, shift)).get_trace(x).nodes["z"]["fn"]
    close(site.mean, mean)
    close(site.variance, covariance.diagonal().expand_as(mean))


def test_mean_field_scale_one_is_the_best(linear):
    best = linear.kl_mean_field()
    assert best >= -1e-12
    assert all(linear.kl_mean_field(scale) > best for scale in (0.99, 1.01))
    assert all(linear.kl_mean_field(1.0, shift) > best for shift in (-0.01, 0.01))


@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (0.5, 0.0), (1.5, -0.7)])
def test_widened_guide(linear, scale, shift):
    x, _ = linear.draw(3, seed=4)
    posterior = linear.posterior(x)
    with pyro.get_param_store().scope():
        site = pyro.poutine.trace(widened(linear.guide, scale, shift=shift)).get_trace(x).nodes["z"]["fn"]
    close(site.mean, posterior.mean + shift * posterior.variance.sqrt())
    close(site.covariance_matrix, scale**2 * posterior.covariance_matrix)


@pytest.mark.parametrize("collinearity", [0.0, 0.3, 0.5, 0.6, 0.95])
def test_margin_of_ppca_is_known(collinearity):
    margin = ppca(20, 3, noise=0.5, collinearity=collinearity).weight_variance_margin()
    assert margin == pytest.approx(1 + 80 * (1 - 2 * collinearity), abs=1e-9)


def test_margin_is_where_the_integral_of_the_squared_weights_ends():
    linear = ppca(20, 2, collinearity=0.9)
    assert linear.weight_variance_margin() < 0 < linear.weight_variance_margin(scale=2.0)
    assert ppca(20, 2, collinearity=0.3).weight_variance_margin() > 0 > linear.weight_variance_margin(0.5)


def test_second_moment_of_the_weights_against_samples():
    # E_q[(w / p(x))^2] = det L / sqrt(det L_q det(2 L - L_q)) with precisions L, L_q; 5 standard errors.
    linear = ppca(20, 3, collinearity=0.15)
    x, _ = linear.draw(1, seed=0)
    precision = linear.precision()
    factorised = precision.diagonal().diag()
    terms = torch.logdet(2 * precision - factorised) + torch.logdet(factorised) - 2 * torch.logdet(precision)
    log_w = log_weights(linear.model, linear.mean_field_guide(), x, 20_000) - linear.log_evidence(x)
    squares = (2 * log_w).exp()
    error = squares.std() / math.sqrt(len(squares))
    assert abs(squares.mean() - (-terms / 2).exp()) < 5 * error
    kl_error = log_w.std() / math.sqrt(len(log_w))
    assert abs(-log_w.mean() - linear.kl_mean_field()) < 5 * kl_error


def test_draws_have_the_moments_of_the_model():
    linear = factor_analysis(4, 2)
    x, z = linear.draw(100_000, seed=5)
    assert (x.shape, z.shape, x.dtype) == ((100_000, 4), (100_000, 2), torch.float64)
    covariance = linear.loadings @ linear.loadings.T + linear.noise_scale.square().diag()
    # 5 standard errors of a mean and of a sample covariance of Normal data.
    variance = covariance.diagonal()
    error = (covariance**2 + variance[:, None] * variance).sqrt() / math.sqrt(len(x))
    assert ((x.mean(0) - linear.bias).abs() < 5 * (variance / len(x)).sqrt()).all()
    assert ((x.T.cov() - covariance).abs() < 5 * error).all()


def test_tensors_become_buffers_and_parameters_stay_parameters():
    fixed, learned = ppca(5, 2), LINEAR["parameters"]()
    assert (list(fixed.parameters()), fixed.noise_scale.shape) == ([], (5,))
    assert [name for name, _ in learned.named_parameters()] == ["loadings", "bias", "noise_scale"]
    with pyro.get_param_store().scope():
        loss = pyro.infer.Trace_ELBO().differentiable_loss(learned.model, learned.guide, doubles(4, 6))
        loss.backward()
        assert "LinearGaussian$$$loadings" in pyro.get_param_store()
    assert all(parameter.grad is not None for parameter in learned.parameters())


def test_single_precision():
    linear = ppca(20, 3).float()
    x, _ = linear.draw(10, seed=0)
    assert x.dtype == linear.log_evidence(x).dtype == linear.posterior(x).mean.dtype == torch.float32
    torch.testing.assert_close(log_weights(linear.model, linear.guide, x), linear.log_evidence(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: LinearGaussian(doubles(3), doubles(3), doubles(3).exp()),
            r"loadings must have shape \(D, Z\)",
        ),
        (
            lambda: LinearGaussian(doubles(3, 2), doubles(2), doubles(3).exp()),
            r"bias of shape \(3,\); got \(2,\)",
        ),
        (lambda: LinearGaussian(doubles(3, 2), doubles(3), doubles(2).exp()), "noise_scale of shape"),
        (lambda: LinearGaussian(doubles(3, 2), doubles(3), torch.zeros(3)), "must be positive"),
        (lambda: ppca(2, 3), "1 <= num_latents <= num_features; got 3 and 2"),
        (lambda: ppca(3, 2, collinearity=1.0), r"\[0, 1\); got 1.0"),
        (lambda: ppca(3, 2).log_evidence(doubles(5, 4)), r"data of shape \(N, 3\); got \(5, 4\)"),
        (lambda: ppca(3, 2).posterior(doubles(3)), r"data of shape \(N, 3\); got \(3,\)"),
        (lambda: ppca(3, 2).guide(doubles(2, 5, 3)), r"data of shape \(N, 3\)"),
    ],
)
def test_errors(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    "draw",
    [lambda seed: ppca(5, 2).draw(4, seed), lambda seed: factor_analysis(5, 2, seed=seed).draw(4, 0)],
    ids=["ppca", "factor-analysis"],
)
def test_draws_depend_on_the_seed_alone_and_leave_the_generator_untouched(draw):
    before = torch.get_rng_state()
    first = draw(0)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(first, draw(0), strict=True))
    assert not torch.equal(first[0], draw(1)[0])
