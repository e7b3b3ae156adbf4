"""Helpers of the tests of exact programs."""

import pyro
import torch


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def log_weights(model, guide, x, num_particles=None):
    """log p(x, z) - log q(z | x), shape (N,) or (K, N), from Pyro's own traces."""
    if num_particles is not None:
        plate = pyro.plate("particles", num_particles, dim=-2)
        model, guide = plate(model), plate(guide)
    with pyro.get_param_store().scope():
        drawn = pyro.poutine.trace(guide).get_trace(x)
        scored = pyro.poutine.trace(pyro.poutine.replay(model, drawn)).get_trace(x)
    for trace in (drawn, scored):
        trace.compute_log_prob()
    latent = next(name for name in ("z", "k") if name in drawn)
    return sum(scored.nodes[name]["log_prob"] for name in (latent, "x")) - drawn.nodes[latent]["log_prob"]
