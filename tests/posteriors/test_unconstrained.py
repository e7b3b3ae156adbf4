"""The density on the unconstrained space, in double precision."""

import torch
from examples.small import make_data, make_vae

from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents
from pyrovae.posteriors.unconstrained import UnconstrainedDensity


def test_the_potential_is_in_double_precision():
    vae, x = make_vae(latent=2), make_data(1)
    u = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    with isolated(vae.model, vae.guide) as (model, guide, _):
        with torch.enable_grad():
            log_density = UnconstrainedDensity(Latents(model, guide, (x,))).score(u).log_density
    (slope,) = torch.autograd.grad(log_density.sum(), u)
    assert log_density.dtype == slope.dtype == torch.float64
