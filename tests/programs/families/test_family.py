"""Every family keeps the same contracts; each line of FAMILIES is checked by all of them."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.programs import families
from pyrovae.programs.distributions.exponential import Bernoulli, Binomial, ContinuousBernoulli, Poisson
from pyrovae.programs.families.continuous import normal
from pyrovae.programs.families.family import SCALE_FLOOR, Family, learned, positive, positive_inverse

FAMILIES = {
    **{name + "-likelihood" * (name in families.GUIDES): partial(f, 5) for name, f in families.FAMILIES.items()},
    **families.GUIDES,
    "normal-fixed-scale": lambda: normal(scale=0.3),
    "normal-learned-scale": lambda: normal(scale=learned(0.5)),
    "normal-learned-scales": lambda: normal(scale=learned(torch.tensor([0.5, 1.0, 2.0]))),
    "laplace-of-a-user": lambda: Family("laplace", lambda shape: (shape, shape), build_laplace),
}
MASSES = {
    "bernoulli": (families.bernoulli, 2),
    "binomial": (lambda: families.binomial(16), 17),
    "categorical": (lambda: families.categorical(7), 7),
    "poisson-truncated": (families.poisson, 400),
}
OUTSIDE = {
    "bernoulli-grey": (families.bernoulli, 0.5),
    "bernoulli-count": (families.bernoulli, 2.0),
    "continuous_bernoulli": (families.continuous_bernoulli, 1.01),
    "binomial-too-many": (lambda: families.binomial(5), 6.0),
    "binomial-fraction": (lambda: families.binomial(5), 2.5),
    "poisson-negative": (families.poisson, -1.0),
    "poisson-fraction": (families.poisson, 0.5),
    "categorical": (lambda: families.categorical(4), 4.0),
    "normal": (normal, math.nan),
}
NATURAL = {
    "binomial": lambda parameter: Binomial(9, parameter),
    "poisson": Poisson,
    "continuous_bernoulli": ContinuousBernoulli,
}
ODDS = torch.cat([torch.linspace(-30, 30, 41), torch.linspace(-0.004, 0.004, 60)]).double()  # 101, |p - 1/2| < 1e-3


def build_laplace(event_dim, loc, raw_scale):
    return dist.Laplace(loc, positive(raw_scale)).to_event(event_dim)


def parameters_of(family, event_shape, lead, dtype=torch.float64):
    """Random parameters (*lead, ...) as a network gives them, then the free ones: leaves that take a gradient."""
    from_network = [torch.randn(*lead, *shape, dtype=dtype) for shape in family.shapes(torch.Size(event_shape))]
    free = [value.to(dtype).clone() for value in family.free]
    return [parameter.requires_grad_() for parameter in (*from_network, *free)]


def built(family, event_shape=(2, 3), lead=(), dtype=torch.float64):
    return family.build(len(event_shape), *parameters_of(family, event_shape, lead, dtype))


@pytest.fixture(autouse=True)
def seeded():
    pyro.set_rng_seed(0)


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def family(request):
    return request.param()


@pytest.fixture(params=NATURAL.values(), ids=NATURAL.keys())
def natural(request):
    return request.param


class TestContracts:
    def test_parameters_have_the_declared_shapes(self, family):
        shapes = family.shapes(torch.Size((2, 3)))
        assert shapes and all(isinstance(shape, torch.Size) for shape in shapes)
        assert family.name and all(value.isfinite().all() for value in family.free)

    @pytest.mark.parametrize("lead", [(), (7,), (5, 7)], ids=str)
    def test_particles_stand_before_data(self, family, lead):
        y = built(family, lead=lead)
        assert (y.batch_shape, y.event_shape) == (lead, (2, 3))
        assert y.sample().shape == (*lead, 2, 3)
        assert y.log_prob(y.sample()).shape == lead
        assert y.log_prob(y.sample((4,))).shape == (4, *lead)
        assert y.mean.shape == (*lead, 2, 3)

    def test_one_datum_is_scored_by_all_particles(self, family):
        parameters = parameters_of(family, (2, 3), (5, 7))
        y = family.build(2, *parameters)
        x = y.sample()[0]
        rows = [family.build(2, *(p[k] if p.dim() > 2 else p for p in parameters)).log_prob(x) for k in range(5)]
        torch.testing.assert_close(y.log_prob(x), torch.stack(rows), rtol=1e-12, atol=1e-12)

    def test_events_without_dimensions(self, family):
        if any(value.dim() for value in family.free):
            family = normal(scale=learned(1.0))
        y = built(family, (), (6,))
        assert (y.batch_shape, y.event_shape, y.log_prob(y.sample()).shape) == ((6,), (), (6,))

    def test_samples_lie_in_the_support_and_score_finite(self, family):
        y = built(family, lead=(7,))
        x = y.sample((100,))
        assert y.support.check(x).all()
        assert y.log_prob(x).isfinite().all()

    def test_every_parameter_gets_a_finite_gradient(self, family):
        parameters = parameters_of(family, (2, 3), (7,))
        y = family.build(2, *parameters)
        gradients = torch.autograd.grad(y.log_prob(y.sample()).sum(), parameters)
        assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients)

    def test_draws_follow_the_density(self, family):
        # The score has mean zero under its own density; 5 standard errors, from 100 blocks of 500 draws.
        parameters = parameters_of(family, (3,), ())
        y = family.build(1, *parameters)
        blocks = [
            torch.autograd.grad(y.log_prob(y.sample((500,))).mean(), parameters, retain_graph=True) for _ in range(100)
        ]
        for scores in map(torch.stack, zip(*blocks, strict=True)):
            assert (scores.mean(0).abs() <= 5 * scores.std(0) / 10).all()

    def test_expands_under_plates(self, family):
        y = built(family)
        with pyro.plate("particles", 5, dim=-2), pyro.plate("data", 7, dim=-1):
            x = pyro.sample("x", y)
        assert x.shape == (5, 7, 2, 3)
        expanded = y.expand((5, 7))
        assert (expanded.batch_shape, expanded.event_shape) == ((5, 7), (2, 3))
        torch.testing.assert_close(expanded.log_prob(x), y.log_prob(x), rtol=1e-12, atol=1e-12)

    def test_single_precision_is_enough_for_an_image(self, family):
        if any(value.dim() for value in family.free):
            pytest.skip("its learned scales are those of three elements")
        parameters = parameters_of(family, (784,), (1000,), torch.float32)
        single = family.build(1, *parameters)
        double = family.build(1, *(parameter.double() for parameter in parameters))
        x = single.sample()
        assert (single.log_prob(x) - double.log_prob(x)).abs().max() <= 1e-3


class TestNormalization:
    @pytest.mark.parametrize(("make", "size"), MASSES.values(), ids=MASSES.keys())
    def test_masses_sum_to_one(self, make, size):
        y = built(make(), (3,), (20,))
        every = torch.arange(size).double()[:, None, None].expand(size, 20, 3)
        elementwise = y.base_dist.log_prob(every).exp().sum(0)
        torch.testing.assert_close(elementwise, torch.ones_like(elementwise), rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    def test_continuous_bernoulli_integrates_to_one(self, dtype):
        x = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:, None]
        density = ContinuousBernoulli(ODDS.to(dtype)).log_prob(x.to(dtype)).double().exp()
        integral = torch.trapezoid(density, x, dim=0)
        torch.testing.assert_close(integral, torch.ones(101).double(), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("name", ["normal", "normal-fixed-scale", "normal-learned-scale"])
    def test_normal_integrates_to_one(self, name):
        y = built(FAMILIES[name](), (), (20,))
        x = torch.linspace(-40, 40, 200_001, dtype=torch.float64)[:, None]
        integral = torch.trapezoid(y.log_prob(x).exp(), x, dim=0)
        torch.testing.assert_close(integral, torch.ones(20).double(), rtol=0, atol=1e-6)


class TestSupport:
    @pytest.mark.parametrize(("make", "value"), OUTSIDE.values(), ids=OUTSIDE.keys())
    def test_values_outside_are_refused(self, make, value):
        with pyro.validation_enabled(), pytest.raises(ValueError, match="support"):
            y = built(make(), (3,))
            y.log_prob(torch.full((3,), value).double())

    @pytest.mark.parametrize("name", ["binomial", "poisson", "categorical"])
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
    def test_counts_may_be_of_any_type(self, name, dtype):
        y = built(FAMILIES[name](), (3,))
        x = torch.tensor([0, 1, 3])
        assert torch.equal(y.log_prob(x.to(dtype)), y.log_prob(x.double()))

    @pytest.mark.parametrize("name", ["bernoulli", "binomial"])
    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
    def test_bits_may_be_of_any_type(self, name, dtype):
        y = built(FAMILIES[name](), (3,))
        x = torch.tensor([0, 1, 1])
        assert torch.equal(y.log_prob(x.to(dtype)), y.log_prob(x.double()))

    def test_masses_and_densities_say_so(self):
        discrete = {name: built(make()).support.is_discrete for name, make in FAMILIES.items()}
        assert {name for name, is_discrete in discrete.items() if is_discrete} == {
            "bernoulli",
            "binomial",
            "poisson",
            "categorical",
        }


class TestSaturation:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize(("logit", "x"), [(120.0, 0.0), (-120.0, 1.0)])
    @pytest.mark.parametrize("make", [families.bernoulli, lambda: families.binomial(1)], ids=["bernoulli", "binomial"])
    def test_a_logit_of_120_costs_120_nats(self, make, logit, x, dtype):
        logits = torch.tensor([logit], dtype=dtype, requires_grad=True)
        log_prob = make().build(1, logits).log_prob(torch.tensor([x], dtype=dtype))
        assert log_prob.item() == pytest.approx(-120, abs=1e-4)
        (gradient,) = torch.autograd.grad(log_prob, logits)
        assert gradient.item() == pytest.approx(x - (logit > 0), abs=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize(("logit", "x"), [(120.0, 0.0), (-120.0, 1.0)])
    def test_the_continuous_bernoulli_too(self, logit, x, dtype):
        # log p = -|l| (1 - x or x) + log |l| - log(1 - e^-|l|)
        log_prob = ContinuousBernoulli(torch.tensor(logit, dtype=dtype)).log_prob(torch.tensor(x, dtype=dtype))
        assert log_prob.item() == pytest.approx(-120 + math.log(120), abs=1e-4)

    def test_a_rate_below_the_smallest_number_costs_its_logarithm(self):
        poisson = families.poisson().build(1, torch.tensor([-200.0]))
        assert poisson.log_prob(torch.tensor([1.0])).item() == pytest.approx(-200, abs=1e-4)


class TestNaturalFamilies:
    """Binomial, Poisson and ContinuousBernoulli: A, A' and A'' fit together and to the draws."""

    eta = torch.cat([torch.linspace(-4, 4, 33), torch.tensor([-0.25, 0.2499, 1e-8, 0.01, -0.0099])]).double()

    def test_moments_are_the_derivatives_of_the_log_normalizer(self, natural):
        eta = self.eta.clone().requires_grad_()
        (mean,) = torch.autograd.grad(natural(eta).log_normalizer().sum(), eta, create_graph=True)
        (variance,) = torch.autograd.grad(mean.sum(), eta)
        torch.testing.assert_close(mean, natural(self.eta).mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(variance, natural(self.eta).variance, rtol=1e-11, atol=1e-12)

    def test_draws_have_these_moments(self, natural):
        y = natural(self.eta)
        x = y.sample((50_000,))
        # 5 standard errors of a mean, and of a variance by the draws' own fourth moment.
        assert ((x.mean(0) - y.mean).abs() < 5 * (y.variance / 50_000).sqrt()).all()
        squares = (x - y.mean).square()
        assert ((squares.mean(0) - y.variance).abs() < 5 * squares.std(0) / math.sqrt(50_000)).all()

    def test_expanding_keeps_type_and_validation(self, natural):
        y = natural(torch.zeros(3))
        for on in (True, False):
            y._validate_args = on
            expanded = y.expand((4, 3))
            assert type(expanded) is type(y) and expanded._validate_args is on
        assert expanded.log_prob(expanded.sample((2,))).shape == (2, 4, 3)

    def test_parameters_that_are_not_numbers_are_refused(self, natural):
        with pyro.validation_enabled(), pytest.raises(ValueError, match="natural"):
            natural(torch.tensor(math.nan))

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=str)
    def test_binomial_agrees_with_torch(self, dtype, tolerance):
        logits, counts = torch.randn(50, 17, dtype=dtype), torch.arange(17, dtype=dtype)
        ours, theirs = Binomial(16, logits), torch.distributions.Binomial(16, logits=logits)
        scale = {"rtol": 8 * tolerance, "atol": 8 * tolerance}  # a log mass is a sum of terms of up to 30 nats
        torch.testing.assert_close(ours.log_prob(counts), theirs.log_prob(counts), **scale)
        torch.testing.assert_close(ours.log_prob(counts).exp(), theirs.log_prob(counts).exp(), rtol=0, atol=tolerance)
        torch.testing.assert_close((ours.mean, ours.variance), (theirs.mean, theirs.variance), **scale)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-14)], ids=str)
    def test_bernoulli_agrees_with_torch(self, dtype, tolerance):
        logits, bits = torch.linspace(-45, 45, 181, dtype=dtype), torch.tensor([[0.0], [1.0]], dtype=dtype)
        ours, theirs = Bernoulli(logits=logits), torch.distributions.Bernoulli(logits=logits)
        torch.testing.assert_close(ours.log_prob(bits), theirs.log_prob(bits), rtol=1e-6, atol=tolerance)

    def test_bernoulli_is_still_torchs(self):
        # What Pyro and torch know of a Bernoulli: its closed-form KL, its expansion and its two values.
        ours, theirs = Bernoulli(logits=torch.randn(4)), torch.distributions.Bernoulli(logits=torch.randn(4))
        kl = torch.distributions.kl_divergence
        assert torch.equal(kl(ours, theirs), kl(torch.distributions.Bernoulli(logits=ours.logits), theirs))
        assert type(ours.expand((3, 4))) is Bernoulli
        assert ours.enumerate_support().shape == (2, 4)

    def test_binomial_frequencies(self):
        y = Binomial(6, torch.tensor([-1.0, 0.0, 2.0]).double())
        x = y.sample((100_000,))
        for count in range(7):
            share = y.log_prob(torch.full((3,), float(count))).exp()
            error = (share * (1 - share) / 100_000).sqrt()
            assert (((x == count).double().mean(0) - share).abs() < 5 * error).all()  # 5 standard errors

    def test_poisson_agrees_with_torch(self):
        log_rate, counts = torch.randn(50, 30).double(), torch.arange(30).double()
        theirs = torch.distributions.Poisson(log_rate.exp()).log_prob(counts)
        torch.testing.assert_close(Poisson(log_rate).log_prob(counts), theirs, rtol=1e-12, atol=1e-12)

    def test_continuous_bernoulli_agrees_with_torch_where_that_is_exact(self):
        logits = torch.tensor([-9.0, -2.0, -0.3, 0.1, 1.0, 8.0]).double()
        x = torch.linspace(0, 1, 11).double()[:, None]
        theirs = torch.distributions.ContinuousBernoulli(logits=logits)
        torch.testing.assert_close(ContinuousBernoulli(logits).log_prob(x), theirs.log_prob(x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(ContinuousBernoulli(logits).mean, theirs.mean, rtol=1e-9, atol=1e-9)

    def test_continuous_bernoulli_draws_have_its_distribution_function(self):
        # Kolmogorov's statistic, whose 1e-4 quantile is 2.23 / sqrt(n), at each of seven slopes.
        slopes = torch.tensor([-200.0, -5.0, -0.02, 0.0, 0.005, 0.5, 60.0]).double()
        x = ContinuousBernoulli(slopes).sample((20_000,)).sort(0).values
        grid = slopes.where(slopes != 0, 1e-9)
        cdf = torch.expm1(grid * x) / torch.expm1(grid)
        steps = torch.arange(1, 20_001).double()[:, None] / 20_000
        assert ((cdf - steps).abs().amax(0) < 2.23 / math.sqrt(20_000)).all()

    @pytest.mark.parametrize("side", [-1, 1])
    def test_continuous_bernoulli_draws_do_not_jump_where_the_series_ends(self, side):
        draws = []
        for logit in (0.01 - 1e-9, 0.01 + 1e-9):
            pyro.set_rng_seed(0)
            draws.append(ContinuousBernoulli(torch.tensor(side * logit, dtype=torch.float64)).sample((1000,)))
        torch.testing.assert_close(*draws, rtol=0, atol=1e-9)

    def test_continuous_bernoulli_draws_carry_the_gradient_of_the_mean(self):
        logits = torch.tensor([-200.0, -5.0, -0.02, 0.0, 0.005, 0.5, 60.0]).double().requires_grad_()
        y = ContinuousBernoulli(logits)
        blocks = [torch.autograd.grad(y.rsample((500,)).mean(0).sum(), logits)[0] for _ in range(100)]
        gradient, error = torch.stack(blocks).mean(0), torch.stack(blocks).std(0) / 10
        assert ((gradient - y.variance).abs() < 5 * error).all()  # 5 standard errors


class TestNormal:
    @pytest.mark.parametrize("factor", [1e-3, 0.3, 255.0])
    def test_a_unit_shifts_the_density_by_its_jacobian(self, factor):
        loc, scale, x = torch.randn(3, 7, 20, dtype=torch.float64).unbind()
        scale = 1 + scale.exp()

        def score(unit):
            y = normal().build(1, unit * loc, positive_inverse(unit * scale))
            return y.log_prob(unit * x)

        torch.testing.assert_close(score(factor), score(1.0) - 20 * math.log(factor), rtol=1e-9, atol=1e-9)

    def test_a_learned_scale_stays_above_its_floor_on_constant_data(self):
        family = normal(scale=learned(0.1))
        (raw,) = (value.clone().requires_grad_() for value in family.free)
        x, loc = torch.full((8, 4), 0.5), torch.full((8, 4), 0.5)
        optimizer = torch.optim.Adam([raw], lr=0.05)
        for _ in range(2000):
            optimizer.zero_grad()
            loss = -family.build(1, loc, raw).log_prob(x).sum()
            loss.backward()
            optimizer.step()
        assert loss.isfinite() and raw.isfinite()
        assert SCALE_FLOOR <= positive(raw).item() < 2 * SCALE_FLOOR

    def test_learned_scales_start_where_they_are_told(self):
        scales = torch.tensor([0.01, 1.0, 50.0])
        family = normal(scale=learned(scales))
        torch.testing.assert_close(family.build(1, torch.zeros(3), *family.free).base_dist.scale, scales)

    def test_learned_scales_of_another_shape_are_refused(self):
        family = normal(scale=learned(torch.ones(7)))
        for shape in [(3, 8, 8), (3, 7, 1), (3,)]:
            with pytest.raises(InputError, match=r"scale of shape \(7,\) does not fit events of shape"):
                family.build(len(shape) - 1, torch.zeros(shape), *family.free)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_positive_and_its_inverse(dtype):
    value = torch.tensor([2e-4, 1e-2, 0.5, 1.0, 30.0, 1e4], dtype=dtype)
    torch.testing.assert_close(positive(positive_inverse(value)), value)
    raw = torch.linspace(-5, 50, 12, dtype=dtype)
    torch.testing.assert_close(positive_inverse(positive(raw)), raw, rtol=1e-4, atol=1e-3)


def test_positive_never_reaches_below_its_floor():
    assert (positive(torch.tensor([-1e4, -100.0, 0.0])) >= SCALE_FLOOR).all()
    assert positive(positive_inverse(torch.tensor(1e-6))).item() == pytest.approx(SCALE_FLOOR)


def test_classes_stand_first_among_the_parameters():
    family = families.categorical(4)
    assert family.shapes(torch.Size((2, 3))) == ((4, 2, 3),)
    logits = torch.randn(7, 4, 2, 3)
    torch.testing.assert_close(family.build(2, logits).base_dist.probs, logits.softmax(1).permute(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: families.binomial(0), "total_count of at least 1, got 0"),
        (lambda: families.categorical(1), "at least 2 classes, got 1"),
        (lambda: normal(scale=0.0), "positive scale, got 0"),
        (lambda: normal(scale=-1.0), "positive scale, got -1"),
        (lambda: normal(scale=math.inf), "positive scale, got inf"),
        (lambda: normal(scale=math.nan), "positive scale, got nan"),
        (lambda: learned(-0.5), "positive and finite, got -0.5"),
        (lambda: learned(torch.tensor([1.0, math.nan])), "positive and finite"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(InputError, match=message):
        make()
