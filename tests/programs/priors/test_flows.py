"""Flow priors: N(0, I) at first, the density that of zuko's own flow, in one pass."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae.programs.priors import MaskedAutoregressiveFlow, NeuralSplineFlow

FLOWS = {"maf": MaskedAutoregressiveFlow, "nsf": NeuralSplineFlow}


def scattered(make, num_latents=3, size=0.3):
    prior, generator = make(num_latents, hidden=9), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return prior.double()


@pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)
@pytest.mark.parametrize("num_latents", [1, 2, 5])
def test_it_begins_as_a_standard_normal(make, num_latents):
    z = 2 * torch.randn(50, num_latents, generator=torch.Generator().manual_seed(0))
    expected = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(make(num_latents)().log_prob(z), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)
def test_the_density_is_zukos(make):
    prior = scattered(make)
    for z in (torch.randn(4, 7, 3, dtype=torch.float64), prior().sample((4, 7))):
        torch.testing.assert_close(prior().log_prob(z), prior.flow().log_prob(z))


@pytest.mark.parametrize(("make", "error"), [(MaskedAutoregressiveFlow, 1e-6), (NeuralSplineFlow, 1e-5)], ids=FLOWS)
def test_the_density_integrates_to_one(make, error):
    """Splines have kinks, of which a grid makes an error."""
    prior = scattered(make, 2, 0.15)
    axis = torch.linspace(-10, 10, 859, dtype=torch.float64)
    parts = torch.cartesian_prod(axis, axis).split(8000)  # what so few points leave behind stays in a core's cache
    with torch.no_grad(), pyro.validation_enabled(False):
        mass = sum(prior().log_prob(z).exp().sum() for z in parts) * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=error)


@pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)
def test_the_density_of_one_coordinate_integrates_to_one(make):
    axis = torch.linspace(-30, 30, 300_001, dtype=torch.float64)
    with torch.no_grad():
        mass = scattered(make, 1)().log_prob(axis[:, None]).exp().sum() * (axis[1] - axis[0])
    assert mass.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)
def test_a_density_takes_one_pass_of_each_network(make):
    prior, passes = scattered(make), []
    for step in prior.flow.transform.transforms:
        step.hyper.register_forward_hook(lambda *_: passes.append(1))
    z = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    log_prob = prior().log_prob(z)
    assert len(passes) == len(prior.flow.transform.transforms)
    found = torch.autograd.grad(log_prob.sum(), [z, *prior.parameters()])
    again = torch.autograd.grad(prior.flow().log_prob(z).sum(), [z, *prior.parameters()])
    torch.testing.assert_close(found, again)


def test_a_flow_moves_mass_where_it_is_learned_to_be():
    """Two modes, at -2 and 2: half a nat, and more, above the best single normal."""
    torch.manual_seed(0)
    prior = NeuralSplineFlow(1)
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.01)
    x = torch.cat([torch.randn(500, 1) - 6, torch.randn(500, 1) + 6]) / 3
    for _ in range(300):
        optimizer.zero_grad()
        loss = -prior().log_prob(x).mean()
        loss.backward()
        optimizer.step()
    single = 0.5 * math.log(2 * math.pi * math.e * float(x.var()))
    assert single - loss.item() > 0.5
