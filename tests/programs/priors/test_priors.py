"""Every prior keeps the same contracts; each line of PRIORS is checked by all of them."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import transforms

from pyrovae.base.errors import InputError
from pyrovae.programs import priors
from pyrovae.programs.priors.mixtures import GaussianMixture

INFINITE = ("horseshoe",)  # at zero, and its moments: it has tests of its own


class Encoder(torch.nn.Module):
    """A guide's network, for a prior that is made of it."""

    def __init__(self, num_latents):
        super().__init__()
        self.weight = torch.randn(2, num_latents, generator=torch.Generator().manual_seed(3))

    def forward(self, x):
        return dist.Normal((x @ self.weight.to(x)).tanh(), 0.5).to_event(1)


def maker(choice):
    def make(num_latents):
        rows = torch.rand(30, 2, generator=torch.Generator().manual_seed(2))
        needed = {"encoder": Encoder(num_latents), "rows": rows}
        small = {"num_pseudo_inputs": 6, "hidden": 4, "num_bins": 3, "num_steps": 1}
        options = {name: value for name, value in small.items() if name in choice.takes}
        return scattered(choice(num_latents, **options, **{name: needed[name] for name in choice.needs}))

    make.support, make.shape = choice.support, choice.shape or (lambda num_latents: (num_latents,))
    return make


def mixture_of(num_components):
    def make(num_latents):
        return scattered(GaussianMixture(num_latents, num_components=num_components, seed=0))

    make.support, make.shape = "real", lambda num_latents: (num_latents,)
    return make


def scattered(prior):
    """The prior with other parameters than it starts with."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    return prior


PRIORS = {
    **{name: maker(choice) for name, choice in priors.PRIORS.items()},
    "mixture-of-five": mixture_of(5),
    "mixture-of-one": mixture_of(1),
}
FINITE = {name: make for name, make in PRIORS.items() if name not in INFINITE}


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


@pytest.fixture(params=PRIORS.values(), ids=PRIORS.keys())
def make(request):
    return request.param


def quadrature(make):
    """How many latents, points that cover the space of so many, and their weights: sums are integrals."""
    if make.support in ("binary", "one-hot"):
        values = torch.eye(make.shape(2)[-1]) if make.support == "one-hot" else torch.tensor([0.0, 1.0])
        points = torch.stack([torch.stack(code) for code in itertools.product(values, repeat=2)]).double()
        return 2, points, torch.ones(len(points), dtype=torch.float64)
    if make.support == "sphere":
        angle = torch.arange(1000, dtype=torch.float64) * (2 * math.pi / 1000)
        return 2, torch.stack([angle.cos(), angle.sin()], -1), torch.full_like(angle, 2 * math.pi / 1000)
    moves, num_latents = {
        "real": (lambda t: (t.sinh(), t.cosh().log().sum(-1)), 2),
        "positive": (lambda t: (t.exp(), t.sum(-1)), 2),
        "unit": (moved(transforms.SigmoidTransform()), 2),
        "simplex": (moved(transforms.StickBreakingTransform()), 3),
    }[make.support]
    axis = torch.linspace(-12, 12, 400, dtype=torch.float64)
    points, log_weight = moves(torch.cartesian_prod(axis, axis))
    return num_latents, points, log_weight.exp() * float(axis[1] - axis[0]) ** 2


def moved(transform):
    def move(t):
        z = transform(t)
        change = transform.log_abs_det_jacobian(t, z)
        return z, change.sum(-1) if change.dim() == t.dim() else change

    return move


@pytest.mark.parametrize("make", FINITE.values(), ids=FINITE.keys())
def test_density_integrates_to_one_and_draws_have_its_moments(make):
    num_latents, points, weight = quadrature(make)
    prior = make(num_latents).double()
    with torch.no_grad(), pyro.validation_enabled(False):  # the end of a grid may be rounded to an edge
        mass = (prior().log_prob(points).exp() * weight).nan_to_num(0.0)
    assert mass.sum().item() == pytest.approx(1, abs=1e-3)

    def moments(z):
        z = z.flatten(1)
        return torch.cat([z, z.square(), z.prod(1, keepdim=True)], dim=1)

    with torch.no_grad():
        drawn = moments(prior().sample((40_000,)))
    # 5 standard errors of the mean of 40,000 draws, and a thousandth for the grid.
    assert ((drawn.mean(0) - mass @ moments(points)).abs() < 5 * drawn.std(0) / 200 + 1e-3).all()


@pytest.mark.parametrize("lead", [(), (7,), (5, 7)], ids=str)
def test_particles_stand_before_data(make, lead):
    p, shape = make(3)(), make.shape(3)
    assert (p.batch_shape, p.event_shape) == ((), shape)
    assert p.sample(lead).shape == (*lead, *shape) and p.support.check(p.sample(lead)).all()
    assert p.log_prob(p.sample(lead)).shape == lead


def test_expands_under_plates(make):
    p = make(3)()
    with pyro.plate("particles", 5, dim=-2), pyro.plate("data", 7, dim=-1):
        z = pyro.sample("z", p)
    assert z.shape == (5, 7, *make.shape(3))
    torch.testing.assert_close(p.expand((5, 7)).log_prob(z), p.log_prob(z))


def test_density_has_a_gradient_in_the_latent_and_every_parameter(make):
    prior = make(3)
    z = prior().sample((20,))
    wanted = [z.requires_grad_()] if make.support not in ("binary", "one-hot") else []
    total = prior().log_prob(z).sum() + sum(0 * each.sum() for each in wanted)
    found = torch.autograd.grad(total, [*wanted, *prior.parameters()], allow_unused=True)
    assert all(each is not None and each.isfinite().all() for each in found)


def test_precision_and_device_follow_the_module(make):
    prior = make(3)
    assert prior().sample().dtype == torch.float32
    assert prior.double()().sample().dtype == torch.float64
    with pyro.validation_enabled(False):  # which would ask for numbers that a meta tensor has not
        assert prior.to("meta")().log_prob(torch.zeros(2, *make.shape(3), device="meta")).device.type == "meta"


def test_checkpoints_hold_what_is_learned_alone(make):
    prior = make(3)
    assert set(prior.state_dict()) == {name for name, _ in prior.named_parameters()}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.StudentT(2, df=0), "needs positive degrees of freedom, got 0"),
        (lambda: priors.SpikeAndSlab(2, spike=2.0), "between 0 and 1, got spike=2.0"),
        (lambda: priors.Horseshoe(2, scale=-1.0), "needs a positive scale, got -1"),
        (lambda: priors.OneHotCode(2, num_classes=1), "at least 2 classes, got 1"),
        (lambda: priors.Sphere(1), "a sphere needs at least 2 dimensions, got 1"),
        (lambda: priors.TwoLevels(1), "two levels need at least 2 dimensions, got 1"),
        (lambda: priors.AutoregressiveCode(2, num_classes=1), "at least 2 classes, got 1"),
        (lambda: priors.AutoregressiveBits(2, hidden=0), "hidden must be at least 1, got 0"),
        (lambda: priors.MaskedAutoregressiveFlow(2, num_steps=0), "num_steps must be at least 1, got 0"),
        (lambda: priors.NeuralSplineFlow(2, num_bins=0), "num_bins must be at least 1, got 0"),
        (
            lambda: priors.ExemplarPrior(3, encoder=Encoder(2), rows=torch.rand(5, 2))(),
            r"over 3 latents, .* no such mean",
        ),
        (
            lambda: priors.ExemplarPrior(2, encoder=Encoder(2), rows=torch.rand(1, 2)),
            "at least two rows of data, got 1",
        ),
        (lambda: priors.ExemplarPrior(2, encoder=print, rows=torch.rand(5, 2)), "the encoder must be a module"),
        (lambda: priors.VampPrior(3, encoder=Encoder(2), rows=torch.rand(5, 2))(), "over 3 latents, but its encoder"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(InputError, match=message):
        make()
