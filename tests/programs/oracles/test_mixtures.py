"""Mixtures against sums over components one by one."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.exact import close, log_weights
from examples.mixtures import FAMILIES, mixture_of
from torch import nn

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.programs.oracles.mixtures import FiniteMixture, bernoulli_mixture, gaussian_mixture


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def mixture(request):
    return mixture_of(*request.param)


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
            assert list(pyro.get_param_store()) == ["FiniteMixture$$$means"]

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


class TestConstructors:
    def test_masses_of_all_binary_data_sum_to_one(self):
        every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 10)
        close(bernoulli_mixture(10, 3).log_evidence(every).exp().sum(), torch.tensor(1.0, dtype=torch.float64))

    def test_density_integrates_to_one(self):
        x = torch.linspace(-20, 20, 20001, dtype=torch.float64)
        density = gaussian_mixture(1, 3, spread=3.0, noise=0.7).log_evidence(x[:, None]).exp()
        close(torch.trapezoid(density, x), torch.tensor(1.0, dtype=torch.float64))

    @pytest.mark.parametrize("make", [bernoulli_mixture, gaussian_mixture])
    def test_weights_rise(self, make):
        mixture = make(4, 3)
        close(mixture.weights, torch.tensor([1, 2, 3], dtype=torch.float64) / 6)
        assert mixture.means.shape == (3, 4)
        with pytest.raises(InputError, match="num_components must be at least 1, got 0"):
            make(4, 0)

    def test_a_widened_guide_is_tempered_and_mixed(self, mixture):
        x, _ = mixture.draw(5, seed=0)
        trace = pyro.poutine.trace(pv.widened(mixture.guide, 2.0, shift=0.2)).get_trace(x)
        powers = mixture.posterior(x).probs ** (1 / 2.0**2)
        close(trace.nodes["k"]["fn"].probs, 0.8 * powers / powers.sum(1, keepdim=True) + 0.2 / 4)


def test_draws_depend_on_the_seed_alone_and_leave_the_generator_untouched():
    means = torch.rand(2, 5, generator=torch.Generator().manual_seed(0))
    mixture = FiniteMixture(torch.tensor([0.5, 0.5]), means, FAMILIES["poisson"][0])
    before = torch.get_rng_state()
    first = mixture.draw(40, 0)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(first, mixture.draw(40, 0), strict=True))
    assert not torch.equal(first[0], mixture.draw(40, 1)[0])


def test_the_marginal_program_is_the_evidence():
    oracle = pv.oracles.EXAMPLES["bernoulli mixture"]()
    x, _ = oracle.draw(50, seed=0)
    report = pv.evaluate(oracle.marginal, lambda x: None, x, num_particles=2)
    torch.testing.assert_close(report.log_evidence, oracle.log_evidence(x), rtol=1e-12, atol=1e-12)
    assert (report.pareto_k == -float("inf")).all()
