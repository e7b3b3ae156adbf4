"""The VampPrior: the mean of the encoder's posteriors, at inputs within the range of the data."""

import math

import pyro.distributions as dist
import torch

import pyrovae as pv
from pyrovae.programs.priors import VampPrior


def encoder(x):
    return dist.Normal(x[..., :2], 0.3).to_event(1)


def test_it_is_the_mean_of_posteriors_at_its_inputs():
    prior = VampPrior(2, num_pseudo_inputs=4, encoder=encoder, rows=torch.rand(30, 3))
    z = torch.randn(6, 2)
    each = encoder(prior.pseudo_inputs).log_prob(z[:, None])
    torch.testing.assert_close(prior().log_prob(z), each.logsumexp(1) - math.log(4))


def test_inputs_begin_at_rows_and_stay_within_their_range():
    rows = torch.rand(30, 3)
    prior = VampPrior(2, num_pseudo_inputs=4, encoder=encoder, rows=rows)
    assert all((row == rows).all(-1).any() for row in prior.pseudo_inputs)
    with torch.no_grad():
        prior.pseudo_inputs += 100
    assert (prior().component_distribution.mean <= rows.max()).all()


def test_the_encoder_learns_through_it_and_its_weights_are_kept_once():
    digits = pv.data.load("digits")
    recipe = pv.recipes.complete(
        {"prior": "vamp:5", "likelihood": None, "network": "mlp", "latent": 2, "hidden": [8], "seed": 0}, digits
    )
    vae = pv.recipes.build(recipe, digits)
    names = [name for name, _ in vae.named_parameters()]
    assert len(names) == len({id(parameter) for parameter in vae.parameters()}) and "prior.pseudo_inputs" in names
    vae.prior().log_prob(torch.zeros(2)).backward()
    assert all(parameter.grad is not None for parameter in vae.encoder.parameters())
