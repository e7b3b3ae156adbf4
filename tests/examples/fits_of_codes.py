"""Small fits to digits by the same networks: an autoencoder, VAEs by either term of the ELBO and by both."""

from functools import cache

import pyrovae as pv

DIGITS = pv.data.load("digits")
OBJECTIVES = {"reconstruction": pv.objectives.ReconstructionOnly, "KL": pv.objectives.KLOnly, "both": None}


def decoder(latent=2, hidden=20):
    return pv.Conditional(pv.families.binomial(16), DIGITS.shape, pv.networks.mlp(latent, hidden, seed=0))


def fitted(pair, epochs=15, objective=None):
    return pv.fit(pair.model, pair.guide, DIGITS.train, epochs=epochs, objective=objective, progress=False, seed=0)


@cache
def vae(objective="both", latent=2, hidden=20):
    encoder = pv.Conditional(pv.families.normal(), latent, pv.networks.mlp(DIGITS.shape, hidden, seed=1))
    made = OBJECTIVES[objective]
    pair = pv.VAE(pv.priors.StandardNormal(latent), decoder(latent, hidden), encoder)
    return fitted(pair, objective=None if made is None else made())


@cache
def autoencoder(latent=2, hidden=20):
    encoder = pv.networks.mlp(DIGITS.shape, hidden, seed=1)
    return fitted(pv.baselines.Autoencoder(latent, decoder=decoder(latent, hidden), encoder=encoder))


@cache
def panels():
    fits = {name: vae(name) for name in OBJECTIVES}
    return pv.latent_panels(fits, DIGITS.test[:50], num_particles=100, budget=2000, progress=False)


@cache
def compared():
    pixels = pv.baseline("independent", DIGITS)
    fits = {"autoencoder": autoencoder(), "VAE": vae()}
    return pv.continuity(fits, DIGITS.train[:400], DIGITS.test[:100], density=pixels.log_prob, num=30, num_steps=5)
