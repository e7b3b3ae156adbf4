"""Codes and what is decoded from them: closed forms, draws where there is none, classes by the most probable."""

import torch

import pyrovae as pv
from pyrovae.apps.sklearn import codes

DATA = pv.data.as_split(torch.randn(7, 4, generator=torch.Generator().manual_seed(0)))


def vae(guide=None, latent=2):
    return pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        decoder=pv.Conditional(pv.families.normal(scale=0.5), (4,), pv.networks.mlp(latent, 8, seed=0)),
        encoder=guide or pv.Conditional(pv.families.normal(), (latent,), pv.networks.mlp(4, 8, seed=1)),
    )


def test_means_in_closed_form_are_the_encoder_s():
    pair = vae()
    found = codes.latent_means(pair, DATA, 0)
    with torch.no_grad():
        torch.testing.assert_close(found.float(), pair.encoder(DATA.x).mean, rtol=1e-4, atol=1e-5)
    assert found.dtype == torch.float64 and next(pair.parameters()).dtype == torch.float32


def test_means_by_draws_depend_on_the_row_alone():
    """4 standard errors of 500 draws against the mean of 20,000."""
    guide = pv.guides.GUIDES["iaf"]()((2,), pv.networks.mlp(4, 8, seed=1), seed=0)
    pair = vae(guide)
    found = codes.latent_means(pair, DATA, 0)
    torch.testing.assert_close(codes.latent_means(pair, DATA[[3, 1]], 0), found[[3, 1]], rtol=0, atol=1e-12)
    with torch.no_grad():
        many = guide(DATA.x).sample((20_000,))
    assert ((found - many.mean(0)).abs() < 4 * many.std(0) / 500**0.5).all()


def test_decoded_means_are_the_decoder_s():
    pair = vae()
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(codes.row_means(pair, z).float(), pair.decoder(z).mean, rtol=1e-4, atol=1e-5)
    assert codes.width(pair) == 2
