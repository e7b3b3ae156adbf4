"""A density for codes: exact where decoder and codes are linear, and measured as that of any pair."""

import pytest
import torch
from examples.small import make_data

import pyrovae as pv
from pyrovae.base.errors import InputError


@pytest.fixture(scope="module")
def linear():
    """A linear autoencoder of normal data, with the pair that a mixture of two makes of it."""
    oracle = pv.oracles.ppca(6, 2)
    x = oracle.draw(300, seed=0)[0].float()
    decoder = pv.Conditional(pv.families.normal(scale=0.8), 6, pv.networks.mlp(2, seed=0))
    autoencoder = pv.baselines.Autoencoder(2, decoder=decoder, encoder=pv.networks.mlp(6, seed=1))
    pv.fit(
        autoencoder.model,
        autoencoder.guide,
        x,
        epochs=60,
        optimizer=lambda p: torch.optim.Adam(p, 1e-2),
        progress=False,
    )
    return autoencoder, pv.baselines.with_density(autoencoder, x, num_components=2), x


def exact(pair, x):
    """log p(x) = log sum_c w_c N(x; A m_c + b, A S_c A' + s^2 I)."""
    affine = pair.decoder.network.network[-1]
    weight, bias = affine.weight.double(), affine.bias.double()
    covariance = pair.prior.roots.double() @ pair.prior.roots.double().mT
    spread = weight @ covariance @ weight.T + 0.64 * torch.eye(6).double()
    each = torch.distributions.MultivariateNormal(pair.prior.means.double() @ weight.T + bias, spread)
    return (pair.prior.weights.double().log() + each.log_prob(x.double()[:, None])).logsumexp(1).detach()


def test_the_evidence_of_a_linear_one_is_exact(linear):
    """To 4.5 Monte-Carlo standard errors of each datum that is reliable, and 4 of the mean; and float32's rounding."""
    _, pair, x = linear
    report = pv.evaluate(pair.model, pair.guide, x[:100], num_particles=1000, progress=False)
    away, se = report.log_evidence - exact(pair, x[:100]), report.mc_se_log_evidence
    assert report.fraction_unreliable <= 0.02
    assert (away.abs() < 4.5 * se + 1e-4)[~report.unreliable].all()
    assert abs(float(away.mean())) < 4 * float(se.square().sum().sqrt()) / 100 + 1e-4


def test_the_scales_are_those_of_the_nearest_factorised_normal(linear):
    """Of one component: one over the root of the diagonal of A'A / s^2 + S^-1."""
    autoencoder, _, x = linear
    pair = pv.baselines.with_density(autoencoder, x, num_components=1)
    weight = pair.decoder.network.network[-1].weight
    precision = weight.T @ weight / 0.64 + torch.linalg.inv(pair.prior.roots[0] @ pair.prior.roots[0].T)
    torch.testing.assert_close(pair.encoder.scale, precision.diagonal().rsqrt().detach(), rtol=1e-3, atol=1e-4)


def test_it_shares_the_networks_and_leaves_them_as_they_are(linear):
    autoencoder, pair, x = linear
    assert pair.decoder is autoencoder.decoder and pair.encoder.network is autoencoder.encoder
    assert autoencoder.training
    torch.testing.assert_close(pair.encoder(x).mean, autoencoder.encoder(x))


@pytest.mark.parametrize("family", ["bernoulli", "binomial", "normal"])
def test_through_any_decoder(family):
    x = make_data()
    likelihood = {"binomial": pv.families.binomial(1), "normal": pv.families.normal_of_scales()}
    decoder = pv.Conditional(likelihood.get(family, pv.families.bernoulli()), (4, 4), pv.networks.mlp(2, 8, seed=0))
    autoencoder = pv.baselines.Autoencoder(2, decoder=decoder, encoder=pv.networks.mlp((4, 4), 8, seed=1))
    pv.fit(autoencoder.model, autoencoder.guide, x, epochs=3, progress=False)
    pair = pv.baselines.with_density(autoencoder, x, num_components=3)
    report = pv.evaluate(pair.model, pair.guide, x[:10], num_particles=200, progress=False)
    assert report.log_evidence.isfinite().all() and report.fraction_unreliable < 0.2


def test_a_prior_near_the_codes_gains(linear):
    """Over N(0, I), which no code was held to: by the exact log p(x) of both, beyond 4 standard errors."""
    autoencoder, pair, x = linear
    plain = pv.VAE(pv.priors.StandardNormal(2), autoencoder.decoder, pair.encoder)
    reports = [pv.evaluate(one.model, one.guide, x[:100], num_particles=200, progress=False) for one in (pair, plain)]
    gain = reports[0].log_evidence - reports[1].log_evidence
    assert gain.mean() > 4 * gain.std() / 10


def test_what_is_no_autoencoder():
    vae = pv.VAE(pv.priors.StandardNormal(2), None, None)
    with pytest.raises(InputError, match=r"expected an Autoencoder of pyrovae\.baselines, got a VAE: other pairs have"):
        pv.baselines.with_density(vae, make_data())
