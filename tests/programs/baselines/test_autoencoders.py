"""Autoencoders: fitted as any pair, to the loss that is theirs, and refused wherever a density is asked for."""

import pyro.distributions as dist
import pytest
import torch
from examples.small import make_data

import pyrovae as pv
from pyrovae.base.errors import InputError

X = make_data()


def made(shape=(4, 4), **options):
    decoder = pv.Conditional(pv.families.bernoulli(), shape, pv.networks.mlp(2, 16, seed=0))
    return pv.baselines.Autoencoder(2, decoder=decoder, encoder=pv.networks.mlp(shape, 16, seed=1), **options)


def fitted(autoencoder, x=X, **options):
    pair = autoencoder.model, autoencoder.guide
    return pv.fit(*pair, x, **({"epochs": 3, "seed": 0, "progress": False} | options))


def test_what_it_is_fitted_to_is_the_reconstruction():
    autoencoder = made()
    before = autoencoder.decoder(autoencoder.encoder(X)).log_prob(X).mean().item()
    history = fitted(autoencoder, batch_size=len(X), epochs=30).history
    assert history[0]["elbo"] == history[0]["reconstruction"] == pytest.approx(before, rel=1e-5)
    after = autoencoder.decoder(autoencoder.encoder(X)).log_prob(X).mean().item()
    assert after > before and history[-1]["kl_prior"] == 0


def test_a_step_is_that_of_the_loss_by_hand():
    by_pyro, by_hand = made(), made()
    fitted(by_pyro, batch_size=len(X), epochs=5, optimizer=lambda p: torch.optim.SGD(p, lr=1e-3))
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        (-by_hand.decoder(by_hand.encoder(X)).log_prob(X).sum()).backward()
        optimizer.step()
    for one, other in zip(by_pyro.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_codes_are_drawn_decoded_and_reconstructed():
    autoencoder = made()
    codes = pv.posterior(autoencoder.model, autoencoder.guide, X).values["z"][0]
    torch.testing.assert_close(codes, autoencoder.encoder(X))
    decoded = pv.decode(autoencoder.model, X, {"z": codes}).means["x"]
    torch.testing.assert_close(decoded, pv.reconstruct(autoencoder.model, autoencoder.guide, X).means["x"])
    assert pv.sample(autoencoder.model, X, num_samples=3).means["x"].shape == (3, 4, 4)


def test_a_denoising_one_reads_corrupted_data_in_training_alone():
    seen = []

    def corruption(x):
        seen.append(len(x))
        return torch.zeros_like(x)

    autoencoder = made(corruption=corruption)
    fit = fitted(autoencoder, valid=X, epochs=2, batch_size=35)
    assert seen == [35] * 4  # two batches, two epochs; no validation
    assert len({tuple(row) for row in autoencoder.eval().code(X).tolist()}) > 1
    assert fit.history[-1]["valid_reconstruction"] < 0


@pytest.mark.parametrize("corruption", ["masking", "gaussian", "salt_and_pepper"])
def test_denoising_learns_to_mend_what_was_corrupted(corruption):
    """Rows that are all black or all white: what is left of a corrupted one says which it was."""
    x = torch.tensor([0.0, 1.0]).repeat(100)[:, None, None].expand(-1, 4, 4).contiguous()
    corrupt = getattr(pv.baselines.corruptions, corruption)(0.3)
    autoencoder = made(corruption=corrupt)
    fitted(autoencoder, x, epochs=60, batch_size=50, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))
    torch.manual_seed(0)
    with torch.no_grad():
        mended = autoencoder.decoder(autoencoder.encoder(corrupt(x))).mean
    assert ((mended > 0.5) == (x > 0.5)).double().mean() > 0.99


def test_a_convolutional_one():
    decoder = pv.Conditional(
        pv.families.bernoulli(), (8, 8), pv.networks.conv_decoder(2, (8, 8), channels=(4,), seed=0)
    )
    encoder = pv.networks.conv_encoder((8, 8), channels=(4,), hidden=8, seed=1)
    autoencoder = pv.baselines.Autoencoder(2, decoder=decoder, encoder=encoder)
    x = torch.bernoulli(torch.full((20, 8, 8), 0.3), generator=torch.Generator().manual_seed(0))
    history = fitted(autoencoder, x, epochs=5).history
    assert history[-1]["reconstruction"] > history[0]["reconstruction"]


REFUSED = {
    "evaluate": lambda *pair: pv.evaluate(*pair, X),
    "one by one": lambda *pair: pv.evaluate(*pair, X[:2], vectorize=False, num_particles=30),
    "convergence": lambda *pair: pv.convergence(*pair, X),
    "log_terms": lambda *pair: pv.log_terms(*pair, X, num_particles=2),
    "gaps": lambda *pair: pv.gaps(*pair, X),
    "surgery": lambda *pair: pv.surgery(*pair, X),
    "calibrate": lambda *pair: pv.calibrate(*pair, X),
    "annealed": lambda *pair: pv.annealed_evidence(*pair, X),
    "bidirectional": lambda *pair: pv.bidirectional(*pair, X, num_data=3),
    "reference": lambda *pair: pv.reference_posterior(*pair, X[:1]),
    "predictive check": lambda *pair: pv.predictive_check(*pair, X),
    "conditional": lambda *pair: pv.conditional(*pair, X, X > 0.5),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_has_no_density(name):
    autoencoder = made()
    with pytest.raises(InputError, match=r"'z' is the code of an autoencoder: a single point.*with_density"):
        REFUSED[name](autoencoder.model, autoencoder.guide)


def test_its_model_has_none_for_any_guide():
    autoencoder = made()
    guide = pv.VAE(autoencoder.prior, autoencoder.decoder, lambda x: autoencoder.prior().expand([len(x)])).guide
    with pytest.raises(InputError, match="site 'z' is masked in the model"):
        pv.evaluate(autoencoder.model, guide, X)


def test_a_point_of_which_a_density_is_asked_is_refused_as_ever():
    autoencoder = made()
    vae = pv.VAE(autoencoder.prior, autoencoder.decoder, lambda x: dist.Delta(autoencoder.encoder(x)).to_event(1))
    with pytest.raises(InputError, match=r"a single point \(Delta\): its draws have no density"):
        pv.fit(vae.model, vae.guide, X, epochs=1)
