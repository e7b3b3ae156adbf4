"""Modes are found with their heights and widths, wherever the density rises towards them."""

import math

import pyro.distributions as dist
import torch
from examples.posteriors import ZERO, pair_of

from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents
from pyrovae.posteriors.modes import Modes, count, found_near
from pyrovae.posteriors.unconstrained import UnconstrainedDensity

X = torch.tensor([2.0], dtype=torch.float64)


def line_of(scale):
    """N(z; 0, 1) N(2; z^2, scale): modes at about +-sqrt(2), of width scale / (2 sqrt(2))."""
    pair = pair_of(
        lambda: dist.Normal(ZERO, 1.0), lambda z: dist.Normal(z.square(), scale), lambda: dist.Normal(ZERO, 1.0)
    )
    with isolated(*pair) as (model, guide, _):
        return UnconstrainedDensity(Latents(model, guide, (X,)))


def search(line, nodes, known=None):
    u = nodes[:, None]
    known = Modes.none(1) if known is None else known
    return found_near(line, [nodes], u, line.at(u).log_density, known, nodes[-1:] - nodes[:1])


def test_narrow_modes_between_coarse_nodes():
    line, nodes = line_of(1e-4), torch.linspace(-5, 5.3, 40, dtype=torch.float64)
    modes = search(line, nodes)
    torch.testing.assert_close(
        modes.u.flatten().sort().values, math.sqrt(2) * torch.tensor([-1, 1], dtype=torch.float64), atol=1e-4, rtol=0
    )
    assert (modes.width / (1e-4 / (2 * math.sqrt(2)))).log().abs().max() < math.log(2)  # near enough to grade an axis
    top = line.at(torch.full((1, 1), math.sqrt(2), dtype=torch.float64)).log_density.item()
    assert (modes.log_density - top).abs().max() < 0.5
    assert count(line, modes) == 2


def test_what_is_known_is_not_climbed_again():
    line, nodes = line_of(1e-2), torch.linspace(-5, 5, 400, dtype=torch.float64)
    modes = search(line, nodes)
    line.at = None  # only its own nodes are scored from here on
    u = modes.u
    again = found_near(line, [u.flatten().sort().values], u, modes.log_density, modes, torch.ones(1))
    assert again is modes


def test_a_flat_density_has_one_mode():
    pair = pair_of(
        lambda: dist.Uniform(ZERO, 1.0), lambda z: dist.Normal(0.0 * z, 1.0), lambda: dist.Beta(ZERO + 1, ZERO + 1)
    )
    with isolated(*pair) as (model, guide, _):
        line = UnconstrainedDensity(Latents(model, guide, (0 * X,)))
        modes = search(line, torch.linspace(-5, 5, 101, dtype=torch.float64))
        assert count(line, modes) == 1
