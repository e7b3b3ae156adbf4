"""Draws from any pair, against the oracle whose posterior and moments are known."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.posteriors.draws import decode, posterior, reconstruct, sample
from pyrovae.programs.oracles import ppca

STANDARD_ERRORS = 4  # two-sided normal: one comparison fails by chance with probability 6e-5; seeds are fixed


@pytest.fixture(scope="module")
def oracle():
    return ppca(5, 2, seed=3)


@pytest.fixture(scope="module")
def x(oracle):
    return oracle.draw(7, seed=0)[0]


CALLS = {
    "sample": lambda oracle, x, seed: sample(oracle.model, x, num_samples=9, seed=seed).values["x"],
    "posterior": lambda oracle, x, seed: posterior(oracle.model, oracle.guide, x, num_draws=3, seed=seed).values["z"],
    "reconstruct": lambda oracle, x, seed: reconstruct(oracle.model, oracle.guide, x, seed=seed).means["x"],
    "decode": lambda oracle, x, seed: decode(oracle.model, x, {"z": torch.ones(4, 2).double()}, seed=seed).values["x"],
}


@pytest.fixture(params=CALLS.values(), ids=CALLS.keys())
def call(request):
    return request.param


def within(values, expected, *, scale):
    """The mean over the first dimension is within STANDARD_ERRORS of `expected`; `scale` is one value's sd."""
    error = (values.mean(0) - expected).abs() / (scale / len(values) ** 0.5)
    assert error.max() < STANDARD_ERRORS


class TestEvery:
    def test_seed_decides_the_draws(self, oracle, x, call):
        assert torch.equal(call(oracle, x, 1), call(oracle, x, 1))
        assert not torch.equal(call(oracle, x, 1), call(oracle, x, 2))

    def test_nothing_is_left_behind(self, oracle, x, call):
        state, store = torch.get_rng_state(), dict(pyro.get_param_store().get_state()["params"])
        oracle.train()
        call(oracle, x, 1)
        assert torch.equal(torch.get_rng_state(), state)
        assert pyro.get_param_store().get_state()["params"] == store
        assert oracle.training

    def test_no_gradients(self, oracle, x, call):
        assert not call(oracle, x, 1).requires_grad


class TestSample:
    def test_shapes(self, oracle, x):
        draws = sample(oracle.model, x, num_samples=9)
        assert {name: tuple(value.shape) for name, value in draws.values.items()} == {"z": (9, 2), "x": (9, 5)}
        assert draws.means["x"].shape == (9, 5)

    def test_moments_are_those_of_the_oracle(self, oracle, x):
        draws = sample(oracle.model, x, num_samples=20_000, seed=5).values["x"]
        covariance = oracle.loadings @ oracle.loadings.T + oracle.noise_scale.square().diag()
        variance = covariance.diagonal()
        within(draws, oracle.bias, scale=variance.sqrt())
        centred = draws - oracle.bias
        products = centred[:, :, None] * centred[:, None, :]
        within(products, covariance, scale=(variance[:, None] * variance + covariance.square()).sqrt())

    def test_mean_is_that_of_the_draw(self, oracle, x):
        draws = sample(oracle.model, x, num_samples=4)
        torch.testing.assert_close(draws.means["x"], draws.values["z"] @ oracle.loadings.T + oracle.bias)

    def test_no_samples_are_refused(self, oracle, x):
        with pytest.raises(InputError, match="num_samples must be at least 1, got 0"):
            sample(oracle.model, x, num_samples=0)


class TestPosterior:
    def test_shapes(self, oracle, x):
        draws = posterior(oracle.model, oracle.guide, x, num_draws=3)
        assert draws.values["z"].shape == draws.means["z"].shape == (3, 7, 2)
        assert list(draws.values) == ["z"]

    def test_means_are_exact(self, oracle, x):
        draws = posterior(oracle.model, oracle.guide, x)
        torch.testing.assert_close(draws.means["z"][0], oracle.posterior(x).mean)

    def test_draws_have_the_posterior_mean(self, oracle, x):
        exact = oracle.posterior(x)
        draws = posterior(oracle.model, oracle.guide, x, num_draws=2000, seed=2).values["z"]
        within(draws, exact.mean, scale=exact.variance.sqrt())

    def test_no_samples_are_refused(self, oracle, x):
        with pytest.raises(InputError, match="num_draws must be at least 1, got 0"):
            posterior(oracle.model, oracle.guide, x, num_draws=0)


class TestReconstruct:
    def test_shapes_and_values(self, oracle, x):
        draws = reconstruct(oracle.model, oracle.guide, x)
        assert torch.equal(draws.values["x"], x)
        assert draws.means["x"].shape == x.shape

    def test_mean_is_that_of_the_decoder_over_the_posterior(self, oracle, x):
        num_draws, exact = 2000, oracle.posterior(x)
        means = reconstruct(oracle.model, oracle.guide, x, num_draws=num_draws, seed=4).means["x"]
        expected = exact.mean @ oracle.loadings.T + oracle.bias
        variance = (oracle.loadings @ exact.covariance_matrix @ oracle.loadings.T).diagonal(dim1=-2, dim2=-1)
        assert ((means - expected).abs() < STANDARD_ERRORS * (variance / num_draws).sqrt()).all()


REFUSED = {
    "unknown": ({"zz": torch.zeros(3, 2)}, "site 'zz' is no latent site .* did you mean \"z\"?"),
    "observed": ({"x": torch.zeros(3, 5)}, "site 'x' is no latent site of the model"),
    "shape": ({"z": torch.zeros(3, 4)}, r"site 'z': expected values of shape \(3, 2\), got \(3, 4\)"),
}


class TestDecode:
    def test_shapes_and_means(self, oracle, x):
        z = torch.randn(11, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        draws = decode(oracle.model, x, {"z": z})
        assert list(draws.values) == ["x"] and draws.values["x"].shape == (11, 5)
        torch.testing.assert_close(draws.means["x"], z @ oracle.loadings.T + oracle.bias)

    def test_draws_scatter_about_the_mean(self, oracle, x):
        z = torch.ones(5000, 2, dtype=torch.float64)
        draws = decode(oracle.model, x, {"z": z}, seed=1)
        within(draws.values["x"], draws.means["x"][0], scale=oracle.noise_scale)

    def test_without_values_latents_come_from_the_prior(self, oracle, x):
        draws = decode(oracle.model, x, {})
        assert draws.values["x"].shape == x.shape
        assert not torch.equal(draws.values["x"], x)

    def test_labels_are_conditioned_on_row_by_row(self):
        def model(x, label):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z + 10.0 * label, 1.0), obs=x)

        draws = decode(model, (torch.zeros(2), torch.tensor([0.0, 1.0])), {"z": torch.zeros(4)})
        assert draws.means["x"].tolist() == [0.0, 10.0, 0.0, 10.0]

    @pytest.mark.parametrize("values, message", REFUSED.values(), ids=REFUSED.keys())
    def test_what_is_no_latent_is_refused(self, oracle, x, values, message):
        with pytest.raises(InputError, match=message):
            decode(oracle.model, x, values)
