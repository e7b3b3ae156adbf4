"""Mirrors: what they turn, and that a posterior with a mode for each sign is found whole, or doubted."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.ladder.adaptation.mirrors import MOST_IMAGES, Mirror, _together, images, mirrored, mirrors
from pyrovae.evidence.ladder.adaptation.mixtures import Gaussian, Mixture
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents

NOISE, PRIOR = 0.5, 2.0


def model(x):
    """Only the size of each latent is seen: two modes for each coordinate."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[-1]), PRIOR).expand(x.shape).to_event(1))
        pyro.sample("x", dist.Normal(z.abs(), NOISE).to_event(1), obs=x)


def guide(x):
    """The posterior of the one mode where all is positive, but for what is cut off at zero."""
    variance = 1 / (PRIOR**-2 + NOISE**-2)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(variance / NOISE**2 * x, variance**0.5).to_event(1))


def exact(x):
    """log p(x), (N,): in each coordinate twice what the positive half of the normal product holds."""
    x, variance = x.double(), 1 / (PRIOR**-2 + NOISE**-2)
    inside = dist.Normal(0.0, 1.0).cdf(variance**0.5 / NOISE**2 * x)
    whole = dist.Normal(0.0, math.hypot(PRIOR, NOISE)).log_prob(x)
    return (math.log(2) + whole + inside.log()).sum(-1)


def data(num_dims, number):
    torch.manual_seed(3)
    return (2 + torch.rand(number, num_dims) * 2).round(decimals=2)


@pytest.mark.parametrize(("num_dims", "number"), [(1, 1), (2, 4), (6, 12), (30, 31), (120, 41)])
def test_each_mirror_keeps_lengths_and_is_its_own_inverse(num_dims, number):
    each = mirrors(num_dims)
    assert len(each) == len(set(each)) == number
    u = torch.randn(5, num_dims)
    for mirror in each:
        assert mirror.after(mirror) == Mirror.none(num_dims) != mirror
        torch.testing.assert_close(mirror.of(u).norm(dim=-1), u.norm(dim=-1))


def test_one_after_another_is_the_image_of_the_image():
    u, (*_, first, second) = torch.randn(3, 4), mirrors(4)
    for a in (first, mirrors(4)[0]):
        assert torch.equal(a.after(second).of(u), a.of(second.of(u)))


def test_points_are_turned_by_one_mirror_after_the_other():
    u = torch.arange(1.0, 13.0).reshape(6, 1, 2)
    found = images(u, 6)[:, 0].tolist()
    assert found == [[-1, 2], [3, -4], [-5, -6], [8, 7], [-9, 10], [11, -12]]


@pytest.mark.parametrize(
    ("num_dims", "signs", "orders", "number"),
    [(3, 3, 0, 8), (3, 0, 2, 6), (2, 2, 1, 8), (6, 6, 0, 64), (8, 8, 0, MOST_IMAGES), (4, 4, 3, 64)],
)
def test_mirrors_together_are_a_group_of_so_many(num_dims, signs, orders, number):
    """2^D signs, D! orders, both together 2^D D!; a mirror with which there are too many is left out."""
    pattern = [at < signs for at in range(num_dims)] + [False] + [at < orders for at in range(num_dims - 1)]
    found = _together(tuple(pattern), num_dims)
    assert len(found) == len(set(found)) == number and found[0] == Mirror.none(num_dims)
    assert {a.after(b) for a in found for b in found} == set(found)


def test_images_of_a_gaussian_are_those_of_its_draws_each_datum_by_its_own_mirrors():
    torch.manual_seed(0)
    one = Gaussian(torch.tensor([[2.0, 3.0], [2.0, 3.0]]).double(), (0.1 * torch.randn(2, 2, 2)).tril(), torch.float64)
    tril = one.scale_tril.double()
    one = one._replace(scale_tril=tril * tril.diagonal(dim1=-2, dim2=-1).sign()[..., None, :])
    those = torch.tensor([[True, False], [False, False], [False, False], [False, True]])  # signs; all; order
    x = torch.tensor([[2.0, 3.0], [2.0, 3.0]])
    with isolated(model, guide) as (program, encoder, _):
        found = mirrored(Latents(program, encoder, (x,)), Mixture.alone(one), those)
    assert found.components[1].loc.tolist() == [[-2.0, 3.0], [3.0, 2.0]]
    a, b = (each.scale_tril @ each.scale_tril.mT for each in found.components)
    turn, swap = torch.diag(torch.tensor([-1.0, 1.0])).double(), torch.eye(2).flip(0).double()
    torch.testing.assert_close(b, torch.stack([turn @ a[0] @ turn, swap @ a[1] @ swap]))


@pytest.mark.parametrize("num_dims", [2, 5, 6])
def test_a_mode_for_each_sign_is_found(num_dims):
    x = data(num_dims, 20)
    report = pv.evaluate(model, guide, x, num_particles=500)
    z = (report.log_evidence - exact(x)) / report.mc_se_log_evidence
    assert not report.unreliable.any() and z.abs().max() < 4
    by_guide = pv.evaluate(model, guide, x, num_particles=500, method="importance").log_evidence
    assert (by_guide < exact(x) - (num_dims - 0.5) * math.log(2)).all()  # that it was not by luck


def test_more_modes_than_there_are_images_are_doubted():
    x = data(9, 5)
    with pytest.warns(pv.UntrustedEvidence):
        report = pv.evaluate(model, guide, x, num_particles=200, budget=15_000)
    assert report.unreliable.all()


@pytest.mark.parametrize("num_dims", [8, 30, 220])
def test_all_signs_turned_at_once_is_a_mode_too_in_many_coordinates(num_dims):
    """Nothing but the size of a sum is seen; the guide knows one of both modes, and knows it exactly."""
    loading = torch.ones(num_dims) / num_dims**0.5  # z along it is seen

    def seen(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(num_dims), 1.0).expand([len(x), num_dims]).to_event(1))
            pyro.sample("x", dist.Normal((z @ loading).abs(), 0.2), obs=x)

    def one_mode(x):
        variance = 1 / (1 + 0.2**-2)
        mean = variance / 0.04 * x[:, None] * loading
        factor = loading[:, None] * (variance - 1)
        covariance = torch.eye(num_dims) + factor * loading
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(mean, covariance_matrix=covariance))

    x = torch.tensor([1.5, 2.0, 2.5])
    truth = math.log(2) + dist.Normal(0.0, math.hypot(1, 0.2)).log_prob(x.double())
    report = pv.evaluate(seen, one_mode, x, num_particles=400)
    z = (report.log_evidence - truth) / report.mc_se_log_evidence
    assert (report.unreliable | (z.abs() < 4)).all()
    if num_dims <= 200:
        assert not report.unreliable.any()
