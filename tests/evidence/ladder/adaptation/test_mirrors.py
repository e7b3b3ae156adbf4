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


SHAPES = {
    "scalar": (((),), 1),
    "pair": (((2,),), 4),
    "vector of 6": (((6,),), 30),
    "vector of 20": (((20,),), 100),
    "vector of 21": (((21,),), 22),
    "vector of 120": (((120,),), 121),
    "vector of 300": (((300,),), 151),
    "two vectors": (((15,), (15,)), 63),
    "parts": (((2,), (2, 3), (1, 2)), 61),
}


@pytest.mark.parametrize(("shapes", "number"), SHAPES.values(), ids=SHAPES)
def test_each_mirror_keeps_lengths_and_is_its_own_inverse(shapes, number):
    each, num_dims = mirrors(shapes), sum(map(math.prod, shapes))
    assert len(each) == len(set(each)) == number
    u = torch.randn(5, num_dims)
    for mirror in each:
        assert mirror.after(mirror) == Mirror.none(num_dims) != mirror
        torch.testing.assert_close(mirror.of(u).norm(dim=-1), u.norm(dim=-1))


def flip(num_dims, *places):
    return Mirror.none(num_dims).turned(*places)


def swap(num_dims, one, other):
    return Mirror.none(num_dims).exchanged(one, other)


TRIED = {
    "neighbours' signs": (((5,),), flip(5, 1, 2)),
    "signs of a product of two sites": (((30,), (30,)), flip(60, 4, 34)),
    "signs of a product of halves": (((6,),), flip(6, 1, 4)),
    "two sites": (((3,), (3,)), swap(6, (0, 1, 2), (3, 4, 5))),
    "two sites among others": (((3,), (), (3,)), swap(7, (0, 1, 2), (4, 5, 6))),
    "blocks of a vector": (((6,),), swap(6, (2, 3), (4, 5))),
    "interleaved in a vector": (((6,),), swap(6, (0, 3), (1, 4))),
    "rows of a site": (((4, 8),), swap(32, tuple(range(8)), tuple(range(8, 16)))),
    "weights, means and scales of parts": (((2,), (2, 3), (2,)), swap(10, (0, 2, 3, 4, 8), (1, 5, 6, 7, 9))),
    "means, then scales of parts": (((2,), (2,), (), ()), swap(6, (0, 1, 4), (2, 3, 5))),
}


@pytest.mark.parametrize(("shapes", "mirror"), TRIED.values(), ids=TRIED)
def test_what_sites_are_made_of_is_turned_and_exchanged_together(shapes, mirror):
    assert mirror in mirrors(shapes)


def test_one_after_another_is_the_image_of_the_image():
    u, (first, second), one = torch.randn(3, 4), (swap(4, (1,), (2,)), swap(4, (2,), (3,))), flip(4, 0)
    for a in (first, one):
        assert torch.equal(a.after(second).of(u), a.of(second.of(u)))


def latents_of(x, of_prior=0.0):
    def shifted(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(of_prior, PRIOR).expand(x.shape).to_event(1))
            pyro.sample("x", dist.Normal(z.abs(), NOISE).to_event(1), obs=x)

    return isolated(shifted, guide)


def test_of_points_that_may_be_turned_those_are_whose_images_lie_farther_than_most():
    u = torch.tensor([[3.0, 8.0], [2.0, 5.0], [1.0, 5.0], [9.0, 9.0], [4.0, 6.0]])[:, None]
    with latents_of(x := torch.ones(1, 2), of_prior=1.0) as (program, encoder, _):
        found, which = images(Latents(program, encoder, (x,)), u, 1)
    turned = {
        mirror: (at, place.tolist())
        for mirror, at, place in zip(mirrors(((2,),)), which[:, 0], found[:, 0], strict=True)
    }
    assert turned[flip(2, 0)] == (4, [-2.0, 6.0]) and turned[flip(2, 1)] == (0, [3.0, -6.0])  # about the prior's mean
    assert turned[swap(2, (0,), (1,))] == (2, [5.0, 1.0])


@pytest.mark.parametrize(
    ("num_dims", "some", "number"),
    [
        (3, [flip(3, 0), flip(3, 1), flip(3, 2)], 8),
        (3, [swap(3, (0,), (1,)), swap(3, (1,), (2,))], 6),
        (2, [flip(2, 0), flip(2, 1), swap(2, (0,), (1,))], 8),
        (6, [flip(6, 0, 3), flip(6, 1, 4), flip(6, 2, 5)], 8),
        (6, [swap(6, (0, 1), (2, 3)), swap(6, (2, 3), (4, 5))], 6),
        (6, [flip(6, at) for at in range(6)], 64),
        (8, [flip(8, at) for at in range(8)], MOST_IMAGES),
        (4, [*(flip(4, at) for at in range(4)), *(swap(4, (at,), (at + 1,)) for at in range(3))], 64),
    ],
)
def test_mirrors_together_are_a_group_of_so_many(num_dims, some, number):
    """2^D signs, D! orders, both together 2^D D!; a mirror with which there are too many is left out."""
    each = mirrors(((num_dims,),))
    assert set(some) <= set(each)
    found = _together(tuple(mirror in some for mirror in each), ((num_dims,),))
    assert len(found) == len(set(found)) == number and found[0] == Mirror.none(num_dims)
    assert {a.after(b) for a in found for b in found} == set(found)


@pytest.mark.parametrize("of_prior", [0.0, 1.0])
def test_images_of_a_gaussian_are_those_of_its_draws_each_datum_by_its_own_mirrors(of_prior):
    torch.manual_seed(0)
    one = Gaussian(torch.tensor([[2.0, 3.0], [2.0, 3.0]]).double(), (0.1 * torch.randn(2, 2, 2)).tril(), torch.float64)
    tril = one.scale_tril.double()
    one = one._replace(scale_tril=tril * tril.diagonal(dim1=-2, dim2=-1).sign()[..., None, :])
    each = mirrors(((2,),))
    those = torch.tensor([[mirror == flip(2, 0), mirror == swap(2, (0,), (1,))] for mirror in each])
    with latents_of(x := torch.tensor([[2.0, 3.0], [2.0, 3.0]]), of_prior) as (program, encoder, _):
        found = mirrored(Latents(program, encoder, (x,)), Mixture.alone(one), those)
    assert found.components[1].loc.tolist() == [[2 * of_prior - 2.0, 3.0], [3.0, 2.0]]
    a, b = (each.scale_tril @ each.scale_tril.mT for each in found.components)
    turn, exchange = torch.diag(torch.tensor([-1.0, 1.0])).double(), torch.eye(2).flip(0).double()
    torch.testing.assert_close(b, torch.stack([turn @ a[0] @ turn, exchange @ a[1] @ exchange]))


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


def gaussian_about(log_joint, z):
    """The mode of each datum, climbed to from a start (N, D), and the Gaussian there: its mean and scale_tril."""
    for _ in range(50):
        z = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(log_joint(z).sum(), z, create_graph=True)
        rows = [torch.autograd.grad(each.sum(), z, retain_graph=True)[0] for each in slope.unbind(-1)]
        bend = -torch.stack(rows, -1)
        z = z + torch.linalg.solve(bend + 0.01 * torch.eye(z.shape[-1]), slope).clamp(-0.3, 0.3)
    return z.detach().float(), torch.linalg.cholesky(torch.linalg.inv(bend)).detach().float()


def products(w, z):
    """Signs of both are turned together, for each by itself: 2^3 modes."""
    return torch.cat([w * z, (w.square() + 0.01).sqrt()], -1)


def parts(one, other):
    """A sum of two parts that are alike: two orders."""
    knots = torch.cartesian_prod(*[torch.tensor([-2.0, 0.0, 2.0])] * 3)
    return sum(2 * (-(part[..., None, :] - knots.to(part)).square().sum(-1) / 3).exp() for part in (one, other))


CASES = {"signs of products": (products, 8, 1.5, 1.5), "order of parts": (parts, 2, -1.5, 1.5)}


@pytest.mark.parametrize(("mean", "number", "low", "high"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("center", [0.0, 3.0])
def test_modes_that_two_sites_make_together_are_found(mean, number, low, high, center):
    """What draws about one mode find, once for each mode; what is seen is how far latents are from the prior's mean."""
    torch.manual_seed(0)
    start = torch.cat([torch.full((8, 3), low), torch.full((8, 3), high)], -1) + 0.4 * torch.rand(8, 6)
    x = mean(*start.split(3, -1))
    x = x + 0.1 * torch.randn(x.shape)

    def log_joint(z):
        of_x = dist.Normal(mean(*z.split(3, -1)), 0.3).log_prob(x.double()).sum(-1)
        return dist.Normal(0.0, PRIOR).log_prob(z).sum(-1) + of_x

    loc, tril = gaussian_about(log_joint, start.double())

    def seen(x, loc, tril):
        with pyro.plate("data", len(x)):
            prior = dist.Normal(torch.full((3,), center), PRIOR).expand([len(x), 3]).to_event(1)
            w, z = pyro.sample("w", prior), pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(mean(w - center, z - center), 0.3).to_event(1), obs=x)

    def one_mode(x, loc, tril):
        with pyro.plate("data", len(x)):
            for at, name in ((0, "w"), (3, "z")):
                here = slice(at, at + 3)
                covariance = 1.2 * (tril @ tril.mT)[:, here, here]
                pyro.sample(name, dist.MultivariateNormal(center + loc[:, here], covariance_matrix=covariance))

    near = dist.MultivariateNormal(loc.double(), scale_tril=1.2 * tril.double())
    z = near.sample((40_000,))
    weight = (log_joint(z) - near.log_prob(z)).exp()
    truth = weight.mean(0).log() + math.log(number)
    se_of_truth = weight.std(0) / weight.mean(0) / len(z) ** 0.5
    report = pv.evaluate(seen, one_mode, (x, loc, tril), num_particles=500)
    z = (report.log_evidence - truth) / (report.mc_se_log_evidence.square() + se_of_truth.square()).sqrt()
    assert (report.unreliable | (z.abs() < 4)).all()
    assert report.unreliable.double().mean() < 0.3


@pytest.mark.parametrize("at", [31, 40])
def test_the_sign_of_any_of_many_coordinates_is_seen(at):
    def seen(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(60), 1.0).expand([len(x), 60]).to_event(1))
            pyro.sample("x", dist.Normal(z[..., at].abs(), 0.2), obs=x)

    def one_mode(x):
        on = torch.zeros(60).index_fill(0, torch.tensor(at), 1.0)
        variance = 1 / (1 + 0.2**-2)
        with pyro.plate("data", len(x)):
            scale = 1 - on + on * variance**0.5
            pyro.sample("z", dist.Normal(variance / 0.04 * x[:, None] * on, scale).to_event(1))

    x = torch.tensor([1.5, 2.0, 2.5])
    truth = math.log(2) + dist.Normal(0.0, math.hypot(1, 0.2)).log_prob(x.double())
    report = pv.evaluate(seen, one_mode, x, num_particles=400)
    z = (report.log_evidence - truth) / report.mc_se_log_evidence
    assert not report.unreliable.any() and (z.abs() < 4).all()
