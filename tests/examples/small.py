"""A small VAE and small data, shared by the tests of fitting."""

import torch

import pyrovae as pv


def make_vae(seed=0, latent=2, hidden=16, prior=pv.priors.StandardNormal):
    return pv.VAE(
        prior=prior(latent),
        decoder=pv.Conditional(pv.families.bernoulli(), (4, 4), pv.networks.mlp(latent, hidden, seed=seed)),
        encoder=pv.Conditional(pv.families.normal(), latent, pv.networks.mlp((4, 4), hidden, seed=seed + 1)),
    )


def make_data(num=70, seed=0):
    return torch.bernoulli(torch.full((num, 4, 4), 0.3), generator=torch.Generator().manual_seed(seed))


def without_time(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def assert_same_weights(a, b):
    for (name, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert torch.equal(x, y), name
