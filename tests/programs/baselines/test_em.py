"""Mixtures fitted by EM against what it must recover."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.exact import close
from examples.mixtures import FAMILIES, mixture_of

from pyrovae.base.errors import InputError
from pyrovae.programs.baselines.em import fit_mixture
from pyrovae.programs.oracles.mixtures import FiniteMixture


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def mixture(request):
    return mixture_of(*request.param)


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

    @pytest.mark.parametrize("event", [(), (3,), (2, 4)], ids=str)
    def test_events_of_any_shape(self, event):
        def family(mean):
            return dist.Poisson(mean).to_event(len(event))

        mixture = FiniteMixture(torch.tensor([0.5, 0.5]), torch.rand(2, *event) + 1, family)
        x, _ = mixture.draw(7, seed=0)
        fitted = fit_mixture(x, 2, family, maximum=math.inf, num_iterations=3)
        assert (fitted.means.shape, fitted.weights.dtype) == ((2, *event), torch.float64)

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


def test_fitting_leaves_the_generator_untouched():
    x, _ = FiniteMixture(torch.ones(1), torch.ones(1, 5), FAMILIES["poisson"][0]).draw(20, seed=0)
    before = torch.get_rng_state()
    fit_mixture(x, 3, FAMILIES["poisson"][0], maximum=math.inf)
    assert torch.equal(before, torch.get_rng_state())


def test_a_column_of_small_counts_beside_one_of_large_ones_keeps_its_mean():
    torch.manual_seed(0)
    x = torch.poisson(torch.tensor([0.5, 20_000.0], dtype=torch.float64).expand(500, 2))
    found = fit_mixture(x, 1, lambda mean: dist.Poisson(mean).to_event(1), maximum=math.inf, num_restarts=1)
    expected = dist.Poisson(x.mean(0)).to_event(1).log_prob(x).mean()
    assert found.log_evidence(x).mean().item() == pytest.approx(expected.item(), abs=0.01)
