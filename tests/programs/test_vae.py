"""The VAE: no privilege over a hand-written pair, and right against quadrature and against sums over all data."""

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrovae.evidence.evaluate import evaluate
from pyrovae.pairs.table import log_terms
from pyrovae.programs import families
from pyrovae.programs.conditional import Conditional
from pyrovae.programs.networks import conv_decoder, conv_encoder, mlp
from pyrovae.programs.priors.gaussian import StandardNormal
from pyrovae.programs.priors.mixtures import GaussianMixture
from pyrovae.programs.vae import VAE

LIKELIHOODS = {
    "bernoulli": families.bernoulli,
    "continuous_bernoulli": families.continuous_bernoulli,
    "binomial": lambda: families.binomial(5),
    "poisson": families.poisson,
    "categorical": lambda: families.categorical(4),
    "normal": families.normal,
    "normal-learned": lambda: families.normal(scale=families.learned(0.5)),
}


def make_vae(likelihood=families.bernoulli, prior=StandardNormal):
    return VAE(
        prior=prior(2),
        decoder=Conditional(likelihood(), (4, 3), mlp(2, 16, seed=0)),
        encoder=Conditional(families.normal(), 2, mlp((4, 3), 16, seed=1)),
    )


def table_of(model, guide, x, num_particles=5):
    pyro.set_rng_seed(0)
    return log_terms(model, guide, x, num_particles=num_particles)


@pytest.fixture(params=LIKELIHOODS.values(), ids=LIKELIHOODS.keys())
def likelihood(request):
    return request.param


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


class TestNoPrivilege:
    @pytest.mark.parametrize("prior", [StandardNormal, GaussianMixture])
    def test_a_hand_written_pair_gives_equal_bits(self, likelihood, prior):
        vae = make_vae(likelihood, prior)
        x = likelihood().build(2, *(torch.zeros(7, *s) for s in vae.decoder.shapes), *vae.decoder.free).sample()

        def model(x):
            pyro.module("vae", vae)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", vae.prior())
                pyro.sample("x", vae.decoder(z), obs=x)

        def guide(x):
            pyro.module("vae", vae)
            with pyro.plate("data", len(x)):
                pyro.sample("z", vae.encoder(x))

        ours, by_hand = table_of(vae.model, vae.guide, x), table_of(model, guide, x)
        assert all(torch.equal(a, b) for a, b in zip(ours, by_hand, strict=True))
        assert all(term.shape == (5, 7) and term.isfinite().all() for term in ours)

    def test_a_bare_function_may_be_the_decoder(self):
        def decoder(z):
            return dist.Normal(z, 1.0).to_event(1)

        def encoder(x):
            return dist.Normal(x / 2, math.sqrt(0.5)).to_event(1)

        vae, x = VAE(StandardNormal(2).double(), decoder, encoder), torch.randn(3, 2).double()
        evidence = dist.Normal(0.0, math.sqrt(2)).log_prob(x).sum(1)
        torch.testing.assert_close(table_of(vae.model, vae.guide, x).log_weight, evidence.expand(5, 3))


class TestPrograms:
    def test_training_reaches_every_weight(self, likelihood):
        vae = make_vae(likelihood, GaussianMixture)
        with pyro.get_param_store().scope():
            x = vae.decoder(torch.zeros(7, 2)).sample()
            pyro.infer.Trace_ELBO().differentiable_loss(vae.model, vae.guide, x).backward()
            assert set(pyro.get_param_store()) == {f"vae$$${name}" for name, _ in vae.named_parameters()}
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in vae.parameters())

    def test_each_program_has_one_plate_over_the_data(self):
        vae = make_vae()
        with pyro.get_param_store().scope():
            model = pyro.poutine.trace(vae.model).get_trace(torch.zeros(7, 4, 3))
            guide = pyro.poutine.trace(vae.guide).get_trace(torch.zeros(7, 4, 3))
        assert model.nodes["z"]["fn"].batch_shape == model.nodes["x"]["fn"].batch_shape == (7,)
        assert model.nodes["x"]["is_observed"] and not model.nodes["z"]["is_observed"]
        assert [frame.name for frame in guide.nodes["z"]["cond_indep_stack"]] == ["data"]

    @pytest.mark.parametrize("shape", [(8, 8), (7, 9), (3, 8, 8)], ids=str)
    def test_convolutions_take_particles_as_one_more_dimension(self, shape):
        vae = VAE(
            prior=StandardNormal(2),
            decoder=Conditional(families.bernoulli(), shape, conv_decoder(2, shape, channels=(4, 3), hidden=8, seed=0)),
            encoder=Conditional(families.normal(), 2, conv_encoder(shape, channels=(3, 4), hidden=8, seed=1)),
        )
        report = evaluate(vae.model, vae.guide, (torch.rand(6, *shape) < 0.5).float(), num_particles=30)
        assert report.strategy == "vectorized"
        assert report.log_evidence.isfinite().all()


class TestAgainstQuadrature:
    """A nonlinear Bernoulli decoder of 10 pixels and 2 latents, whose evidence is a two-dimensional integral."""

    @pytest.fixture
    def decoder(self):
        decoder = Conditional(families.bernoulli(), 10, mlp(2, 16, activation=nn.Tanh, seed=0)).double()
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter *= 2  # to be far from linear
        return decoder

    @pytest.fixture
    def vae(self, decoder):
        prior = StandardNormal(2).double()
        return VAE(prior, decoder, encoder=lambda x: prior().expand(x.shape[:1]))

    def test_evidence_by_draws_from_the_prior(self, vae):
        x = vae.decoder(vae.prior().sample((200,))).sample()
        report = evaluate(vae.model, vae.guide, x, num_particles=5000)
        error = report.log_evidence - log_evidence_by_quadrature(vae.decoder, x, 96)
        assert error.mean().abs() <= 4 * report.mc_se_log_evidence.square().sum().sqrt() / 200
        # Of 200 Normal errors 0.5 are expected beyond 3 standard errors, and more than 6 once in 10^6 runs.
        assert ((error / report.mc_se_log_evidence).abs() > 3).sum() <= 6

    def test_the_quadrature_has_converged(self, decoder):
        x = (torch.rand(20, 10) < 0.5).double()
        fine, coarse = (log_evidence_by_quadrature(decoder, x, nodes) for nodes in (96, 64))
        torch.testing.assert_close(coarse, fine, rtol=0, atol=1e-6)
        axis = torch.linspace(-9, 9, 401, dtype=torch.float64)
        z = torch.cartesian_prod(axis, axis)
        log_cell = 2 * (axis[1] - axis[0]).log() + StandardNormal(2).double()().log_prob(z)
        grid = torch.stack([(decoder(z).log_prob(row) + log_cell).logsumexp(0) for row in x])
        torch.testing.assert_close(fine, grid, rtol=0, atol=1e-6)

    def test_evidence_sums_to_one_over_all_binary_data(self, decoder):
        every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=10))).double()
        total = log_evidence_by_quadrature(decoder, every, 24).exp().sum().item()
        assert total == pytest.approx(1, abs=1e-10)


def log_evidence_by_quadrature(decoder, x, num_nodes):
    """log of the Gauss-Hermite integral of p(x | z) N(z; 0, I) over two latents, (N,)."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(num_nodes))
    z = torch.cartesian_prod(nodes, nodes)
    log_weight = torch.cartesian_prod(weights, weights).log().sum(1) - math.log(2 * math.pi)
    likelihood = decoder(z)
    return torch.cat([(likelihood.log_prob(part[:, None]) + log_weight).logsumexp(1) for part in x.split(20)])
