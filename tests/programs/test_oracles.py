"""The exact answers against other routes to them: dense matrices, quadrature, sums over components."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrovae.errors import InputError
from pyrovae.programs.oracles import FiniteMixture, LinearGaussian, factor_analysis, fit_mixture, ppca

EXACT = {"rtol": 1e-10, "atol": 1e-10}

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

FAMILIES = {
    "bernoulli": (lambda mean: dist.Bernoulli(mean).to_event(1), 1),
    "binomial": (lambda mean: dist.Binomial(16, probs=mean / 16).to_event(1), 16),
    "poisson": (lambda mean: dist.Poisson(mean).to_event(1), math.inf),
}


def doubles(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, **EXACT)


def log_weights(model, guide, x, num_particles=None):
    """log p(x, z) - log q(z | x), shape (N,) or (K, N), from Pyro's own traces."""
    if num_particles is not None:
        plate = pyro.plate("particles", num_particles, dim=-2)
        model, guide = plate(model), plate(guide)
    with pyro.get_param_store().scope():
        drawn = pyro.poutine.trace(guide).get_trace(x)
        scored = pyro.poutine.trace(pyro.poutine.replay(model, drawn)).get_trace(x)
    for trace in (drawn, scored):
        trace.compute_log_prob()
    latent = next(name for name in ("z", "k") if name in drawn)
    return sum(scored.nodes[name]["log_prob"] for name in (latent, "x")) - drawn.nodes[latent]["log_prob"]


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


@pytest.fixture(params=LINEAR.values(), ids=LINEAR.keys())
def linear(request):
    return request.param()


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def mixture(request):
    family, maximum = request.param
    uniform = torch.rand(4, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    return FiniteMixture(weights, uniform * min(maximum, 6), family)


class TestLinearGaussian:
    def test_evidence_is_the_dense_normal(self, linear):
        x, _ = linear.draw(50, seed=1)
        covariance = linear.loadings @ linear.loadings.T + torch.diag(linear.noise_scale.expand(x.shape[1]) ** 2)
        loc = linear.bias.expand(x.shape[1])
        close(linear.log_evidence(x), torch.distributions.MultivariateNormal(loc, covariance).log_prob(x))

    def test_posterior_is_the_conditional_of_the_dense_joint(self, linear):
        x, z = linear.draw(50, seed=1)
        covariance = linear.loadings @ linear.loadings.T + torch.diag(linear.noise_scale.expand(x.shape[1]) ** 2)
        gain = torch.linalg.solve(covariance, linear.loadings)
        posterior = linear.posterior(x)
        assert (posterior.batch_shape, posterior.event_shape) == ((50,), z.shape[1:])
        close(posterior.mean, (x - linear.bias) @ gain)
        expected = torch.eye(z.shape[1], dtype=torch.float64) - linear.loadings.T @ gain
        close(posterior.covariance_matrix, expected.expand(50, -1, -1))

    def test_exact_guide_has_constant_log_weights(self, linear):
        x, _ = linear.draw(1000, seed=2)
        close(log_weights(linear.model, linear.guide, x), linear.log_evidence(x))

    def test_programs_run_under_an_outer_plate(self, linear):
        x, _ = linear.draw(6, seed=2)
        close(log_weights(linear.model, linear.guide, x, 3), linear.log_evidence(x).expand(3, -1))
        for guide in (linear.mean_field_guide(1.1, 0.2), linear.scaled_guide(1.1, 0.2)):
            assert log_weights(linear.model, guide, x, 3).shape == (3, 6)

    def test_quadrature_in_one_dimension(self):
        linear = ppca(4, 1)
        x, _ = linear.draw(5, seed=0)
        z = torch.linspace(-8, 8, 20001, dtype=torch.float64)[:, None, None]
        likelihood = dist.Normal(z @ linear.loadings.T + linear.bias, linear.noise_scale).to_event(1).log_prob(x)
        joint = (likelihood + dist.Normal(0.0, 1.0).log_prob(z[..., 0])).exp()
        evidence = torch.trapezoid(joint, z[..., 0], dim=0)
        close(linear.log_evidence(x), evidence.log())
        close(linear.posterior(x).mean[:, 0], torch.trapezoid(joint * z[..., 0], z[..., 0], dim=0) / evidence)

    @pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (0.6, 0.0), (1.7, 0.5), (1.0, -2.0)])
    def test_kl_of_the_mean_field_guide(self, linear, scale, shift):
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

    def test_mean_field_scale_one_is_the_best(self, linear):
        best = linear.kl_mean_field()
        assert best >= -1e-12
        assert all(linear.kl_mean_field(scale) > best for scale in (0.99, 1.01))
        assert all(linear.kl_mean_field(1.0, shift) > best for shift in (-0.01, 0.01))

    @pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (0.5, 0.0), (1.5, -0.7)])
    def test_scaled_guide(self, linear, scale, shift):
        x, _ = linear.draw(3, seed=4)
        posterior = linear.posterior(x)
        with pyro.get_param_store().scope():
            site = pyro.poutine.trace(linear.scaled_guide(scale, shift)).get_trace(x).nodes["z"]["fn"]
        close(site.mean, posterior.mean + shift * posterior.variance.sqrt())
        close(site.covariance_matrix, scale**2 * posterior.covariance_matrix)

    @pytest.mark.parametrize("collinearity", [0.0, 0.3, 0.5, 0.6, 0.95])
    def test_margin_of_ppca_is_known(self, collinearity):
        margin = ppca(20, 3, noise=0.5, collinearity=collinearity).weight_variance_margin()
        assert margin == pytest.approx(1 + 80 * (1 - 2 * collinearity), abs=1e-9)

    def test_margin_is_where_the_integral_of_the_squared_weights_ends(self):
        linear = ppca(20, 2, collinearity=0.9)
        assert linear.weight_variance_margin() < 0 < linear.weight_variance_margin(scale=2.0)
        assert ppca(20, 2, collinearity=0.3).weight_variance_margin() > 0 > linear.weight_variance_margin(0.5)

    def test_second_moment_of_the_weights_against_samples(self):
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

    def test_draws_have_the_moments_of_the_model(self):
        linear = factor_analysis(4, 2)
        x, z = linear.draw(100_000, seed=5)
        assert (x.shape, z.shape, x.dtype) == ((100_000, 4), (100_000, 2), torch.float64)
        covariance = linear.loadings @ linear.loadings.T + linear.noise_scale.square().diag()
        # 5 standard errors of a mean and of a sample covariance of Normal data.
        variance = covariance.diagonal()
        error = (covariance**2 + variance[:, None] * variance).sqrt() / math.sqrt(len(x))
        assert ((x.mean(0) - linear.bias).abs() < 5 * (variance / len(x)).sqrt()).all()
        assert ((x.T.cov() - covariance).abs() < 5 * error).all()

    def test_tensors_become_buffers_and_parameters_stay_parameters(self):
        fixed, learned = ppca(5, 2), LINEAR["parameters"]()
        assert (list(fixed.parameters()), fixed.noise_scale.shape) == ([], (5,))
        assert [name for name, _ in learned.named_parameters()] == ["loadings", "bias", "noise_scale"]
        with pyro.get_param_store().scope():
            loss = pyro.infer.Trace_ELBO().differentiable_loss(learned.model, learned.guide, doubles(4, 6))
            loss.backward()
            assert "linear_gaussian$$$loadings" in pyro.get_param_store()
        assert all(parameter.grad is not None for parameter in learned.parameters())

    def test_single_precision(self):
        linear = ppca(20, 3).float()
        x, _ = linear.draw(10, seed=0)
        assert x.dtype == linear.log_evidence(x).dtype == linear.posterior(x).mean.dtype == torch.float32
        torch.testing.assert_close(
            log_weights(linear.model, linear.guide, x), linear.log_evidence(x), rtol=1e-4, atol=1e-4
        )

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
    def test_errors(self, make, message):
        with pytest.raises(InputError, match=message):
            make()


class TestFiniteMixture:
    def test_evidence_and_posterior_are_the_sum_over_components(self, mixture):
        x, _ = mixture.draw(30, seed=0)
        for datum, evidence, probs in zip(x, mixture.log_evidence(x), mixture.posterior(x).probs, strict=True):
            joint = torch.stack(
                [
                    weight * mixture.family(mean).log_prob(datum).exp()
                    for weight, mean in zip(mixture.weights, mixture.means, strict=True)
                ]
            )
            close(evidence, joint.sum().log())
            close(probs, joint / joint.sum())

    def test_evidence_sums_to_one(self):
        family, _ = FAMILIES["bernoulli"]
        means = torch.tensor([[0.1, 0.5, 0.9], [0.7, 0.2, 0.4]], dtype=torch.float64)
        mixture = FiniteMixture(torch.tensor([0.25, 0.75], dtype=torch.float64), means, family)
        every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
        close(mixture.log_evidence(every).exp().sum(), torch.tensor(1.0, dtype=torch.float64))

    def test_exact_guide_has_constant_log_weights(self, mixture):
        x, _ = mixture.draw(1000, seed=2)
        close(log_weights(mixture.model, mixture.guide, x), mixture.log_evidence(x))

    def test_programs_run_under_an_outer_plate(self, mixture):
        x, _ = mixture.draw(6, seed=2)
        close(log_weights(mixture.model, mixture.guide, x, 3), mixture.log_evidence(x).expand(3, -1))
        trace = pyro.poutine.trace(pyro.plate("particles", 3, dim=-2)(mixture.guide)).get_trace(x)
        assert trace.nodes["k"]["value"].shape == (3, 6)

    @pytest.mark.parametrize("event", [(), (3,), (2, 4)], ids=str)
    def test_events_of_any_shape(self, event):
        def family(mean):
            return dist.Poisson(mean).to_event(len(event))

        mixture = FiniteMixture(torch.tensor([0.5, 0.5]), torch.rand(2, *event) + 1, family)
        x, k = mixture.draw(7, seed=0)
        assert (x.shape, k.shape, mixture.log_evidence(x).shape) == ((7, *event), (7,), (7,))
        fitted = fit_mixture(x, 2, family, maximum=math.inf, num_iterations=3)
        assert (fitted.means.shape, fitted.weights.dtype) == ((2, *event), torch.float64)

    def test_draws_have_the_proportions_of_the_model(self, mixture):
        _, k = mixture.draw(50_000, seed=1)
        # 5 standard errors of a proportion.
        error = (mixture.weights * (1 - mixture.weights) / len(k)).sqrt()
        assert ((k.bincount(minlength=4) / len(k) - mixture.weights).abs() < 5 * error).all()

    def test_parameters_stay_parameters(self):
        family, _ = FAMILIES["poisson"]
        mixture = FiniteMixture(torch.tensor([0.5, 0.5]), nn.Parameter(torch.rand(2, 5)), family)
        assert [name for name, _ in mixture.named_parameters()] == ["means"]
        with pyro.get_param_store().scope():
            pyro.poutine.trace(mixture.model).get_trace(torch.ones(3, 5))
            assert list(pyro.get_param_store()) == ["finite_mixture$$$means"]

    @pytest.mark.parametrize(
        "make, message",
        [
            (lambda family: FiniteMixture(torch.ones(2), torch.rand(2, 5), family), "summing to one"),
            (
                lambda family: FiniteMixture(torch.tensor([1.5, -0.5]), torch.rand(2, 5), family),
                "not negative",
            ),
            (
                lambda family: FiniteMixture(torch.ones(1), torch.rand(2, 5), family),
                r"shape \(1, \*event\); got",
            ),
            (
                lambda family: FiniteMixture(torch.ones(1), torch.rand(1, 5, 2), family),
                r"declare .* \.to_event",
            ),
            (
                lambda family: FiniteMixture(torch.ones(1), torch.rand(1, 5), family).log_evidence(torch.ones(3, 4)),
                r"data of shape \(N, 5\); got \(3, 4\)",
            ),
        ],
    )
    def test_errors(self, make, message):
        with pytest.raises(InputError, match=message):
            make(FAMILIES["bernoulli"][0])


class TestFitMixture:
    @pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
    def separated(self, request):
        family, maximum = request.param
        high, low = (0.9, 0.1) if maximum == 1 else (10.0, 2.0)
        means = torch.full((3, 30), low, dtype=torch.float64)
        for component in range(3):
            means[component, 10 * component : 10 * component + 10] = high
        truth = FiniteMixture(torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64), means, family)
        return truth, maximum, truth.draw(2000, seed=0)

    def test_recovers_a_separated_mixture(self, separated):
        truth, maximum, (x, k) = separated
        fitted = fit_mixture(x, 3, truth.family, maximum=maximum, num_restarts=5)
        order = fitted.weights.argsort()
        assert (fitted.posterior(x).probs[:, order].argmax(1) == k).double().mean() > 0.99
        # Six standard errors: a mean of at least 350 draws of variance at most 10; a proportion of 2,000.
        variance = truth.family(truth.means).variance
        assert ((fitted.means[order] - truth.means).abs() < 6 * (variance / 350).sqrt()).all()
        assert ((fitted.weights[order] - truth.weights).abs() < 6 * 0.5 / math.sqrt(2000)).all()

    def test_log_likelihood_never_decreases(self, mixture):
        maximum = dict(FAMILIES.values())[mixture.family]
        x, _ = mixture.draw(300, seed=0)
        scores = [
            fit_mixture(x, 6, mixture.family, maximum=maximum, num_iterations=steps, tolerance=0.0, smoothing=0.0)
            .log_evidence(x)
            .mean()
            for steps in range(1, 25)
        ]
        assert (torch.stack(scores).diff() >= -1e-12).all()
        assert scores[-1] > scores[0]

    def test_one_component_is_the_independent_model(self, mixture):
        maximum = dict(FAMILIES.values())[mixture.family]
        x, _ = mixture.draw(300, seed=0)
        fitted = fit_mixture(x, 1, mixture.family, maximum=maximum)
        close(fitted.means[0], x.mean(0))
        close(fitted.log_evidence(x), mixture.family(x.mean(0)).log_prob(x))

    def test_smoothing_adds_observations_of_the_overall_mean(self):
        family, _ = FAMILIES["binomial"]
        x = torch.cat([torch.full((50, 5), 2.0), torch.full((50, 5), 14.0)]).double()
        fitted = fit_mixture(x, 2, family, maximum=16, smoothing=10.0, tolerance=0.0)
        expected = torch.tensor([(50 * 2.0 + 10 * 8) / 60, (50 * 14.0 + 10 * 8) / 60], dtype=torch.float64)
        torch.testing.assert_close(fitted.means.sort(0).values, expected[:, None].expand(2, 5), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("smoothing", [0.0, 1.0])
    def test_unseen_values_never_have_probability_zero(self, smoothing):
        family, _ = FAMILIES["bernoulli"]
        x = torch.zeros(40, 5)
        x[:20, :2] = 1
        fitted = fit_mixture(x, 2, family, maximum=1, smoothing=smoothing)
        assert ((fitted.means > 0) & (fitted.means < 1)).all()
        assert fitted.log_evidence(1 - x.double()).isfinite().all()

    def test_more_components_than_distinct_data_are_harmless(self):
        family, _ = FAMILIES["poisson"]
        x = torch.tensor([[0.0] * 5, [40.0] * 5]).repeat_interleave(10, 0)
        fitted = fit_mixture(x, 8, family, maximum=math.inf, smoothing=0.0)
        assert fitted.weights.isfinite().all() and fitted.means.isfinite().all()
        close(fitted.weights.sum(), torch.tensor(1.0, dtype=torch.float64))

    def test_same_seed_same_fit_and_restarts_never_hurt(self, mixture):
        maximum = dict(FAMILIES.values())[mixture.family]
        x, _ = mixture.draw(200, seed=0)
        one, again, five = (
            fit_mixture(x, 4, mixture.family, maximum=maximum, num_restarts=restarts) for restarts in (1, 1, 5)
        )
        assert torch.equal(one.means, again.means) and torch.equal(one.weights, again.weights)
        assert five.log_evidence(x).mean() >= one.log_evidence(x).mean() - 1e-12

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"num_components": 0}, "1 <= num_components <= 20"),
            ({"num_components": 21}, "the number of data; got 21"),
            ({"x": torch.full((20, 5), 2.0)}, r"data must be finite and lie in \[0, 1\]; got 2.0 to 2.0"),
            ({"x": torch.full((20, 5), math.nan)}, "must be finite"),
            ({"smoothing": -1.0}, "must not be negative"),
            ({"num_restarts": 0}, "must be at least 1"),
            ({"family": lambda mean: dist.StudentT(3.0, mean).to_event(1)}, "not affine in x"),
        ],
    )
    def test_errors(self, change, message):
        arguments = {
            "x": torch.tensor([0.0, 1.0])[torch.arange(100).reshape(20, 5) % 3 % 2],
            "num_components": 2,
            "family": FAMILIES["bernoulli"][0],
            **change,
        }
        with pytest.raises(InputError, match=message):
            fit_mixture(maximum=1, **arguments)


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed: ppca(5, 2).draw(4, seed),
        lambda seed: factor_analysis(5, 2, seed=seed).draw(4, 0),
        lambda seed: FiniteMixture(
            torch.tensor([0.5, 0.5]),
            torch.rand(2, 5, generator=torch.Generator().manual_seed(0)),
            FAMILIES["poisson"][0],
        ).draw(40, seed),
    ],
    ids=["ppca", "factor-analysis", "mixture"],
)
def test_draws_depend_on_the_seed_alone_and_leave_the_generator_untouched(draw):
    before = torch.get_rng_state()
    first = draw(0)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(first, draw(0), strict=True))
    assert not torch.equal(first[0], draw(1)[0])


def test_fitting_leaves_the_generator_untouched():
    x, _ = FiniteMixture(torch.ones(1), torch.ones(1, 5), FAMILIES["poisson"][0]).draw(20, seed=0)
    before = torch.get_rng_state()
    fit_mixture(x, 3, FAMILIES["poisson"][0], maximum=math.inf)
    assert torch.equal(before, torch.get_rng_state())
