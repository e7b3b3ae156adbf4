"""What single precision loses of the evidence: found by a comparison with double, named by site, and mended by it."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.estimators import log_evidence, pareto_k
from pyrovae.evidence.numerics.digits import Compared, _twice, compared, digits, warn_of_lost_digits
from pyrovae.pairs.context import isolated
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.terms import sum_by_role
from pyrovae.programs.distributions.counts import NegativeBinomial
from pyrovae.programs.distributions.exponential import Poisson

RATE = torch.tensor([3.0, 20.0, 400.0])
COUNTS = torch.poisson(RATE.expand(12, 3), generator=torch.Generator().manual_seed(0))


def overdispersed(dispersion, family=dist.NegativeBinomial):
    """Counts whose mean moves a little with z; a negative binomial of large dispersion is a Poisson."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            mean = RATE * (1 + 0.01 * z[..., None]).clamp_min(0.5)
            total = torch.full_like(mean, dispersion)
            counts = (
                dist.Poisson(mean)
                if family is dist.Poisson
                else family(total, logits=mean.log() - math.log(dispersion))
            )
            pyro.sample("x", counts.to_event(1), obs=x)

    return model


def prior_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))


def account(model, guide=prior_guide, x=COUNTS, **options):
    return pv.evaluate(model, guide, x, **{"num_particles": 400, "progress": False} | options)


@pytest.mark.parametrize("options", [{}, {"vectorize": False, "num_particles": 30}], ids=["together", "one by one"])
def test_a_density_that_cancels_in_float32_is_named(options):
    with pytest.warns(
        pv.LostDigits, match=r"in float32 is off by .* nats for a datum .* site 'x' differs most: .*dtype='float64'"
    ):
        report = account(overdispersed(1e7), x=COUNTS[:5], **options)
    assert report.digits.lost and report.digits.num_lost >= 4 and report.digits.rms > 1
    assert "digits lost: log p(x) in float32" in report.summary()


def test_of_many_data_one_draw_each_comes_first():
    """And the others after it, where it is off."""
    runs = {}
    for dispersion, family in ((1e7, dist.NegativeBinomial), (1e3, dist.Poisson)):
        model, seen = overdispersed(dispersion, family), []

        def doubled(x, model=model, seen=seen):
            seen.append(x.dtype)
            model(x)

        with isolated(doubled, prior_guide):
            particles = Particles(doubled, prior_guide, (COUNTS.repeat(5, 1),))
            seen.clear()
            found = digits([compared(particles, 0)], torch.zeros(60).double())
        assert found.num_compared == 60 and found.lost == (family is dist.NegativeBinomial) and found.site == "x"
        runs[family] = [seen.count(dtype) for dtype in (torch.float32, torch.float64)]
    assert runs == {dist.Poisson: [0, 1], dist.NegativeBinomial: [1, 2]}


def test_double_precision_is_right_where_float32_is_nats_off():
    """Against the Poisson limit, whose evidence differs by less than 1e-2 at a dispersion of 1e7: 5 standard errors."""
    report = account(overdispersed(1e7), dtype="float64")
    limit = account(overdispersed(1e7, dist.Poisson), dtype="float64", seed=1)
    se = (report.mc_se_log_evidence**2 + limit.mc_se_log_evidence**2).sqrt()
    assert report.digits is None
    assert ((report.log_evidence - limit.log_evidence).abs() < 5 * se + 0.02).all()


def test_good_densities_lose_nothing():
    report = account(overdispersed(1e7, dist.Poisson))
    assert report.digits.num_compared == 12 and report.digits.dtype == "float32"
    assert not report.digits.lost and report.digits.largest < 1e-3 and "digits" not in report.summary()
    oracle = pv.oracles.ppca(5, 2)  # in double by itself
    assert account(oracle.model, oracle.guide, oracle.draw(5, seed=0)[0]).digits is None


def test_a_block_of_larger_densities_is_compared_too():
    x = torch.cat([COUNTS[:4], 1e5 * (1 + COUNTS[4:8])])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pv.LostDigits)
        report = account(overdispersed(1e3, dist.Poisson), x=x, batch_size=4)
    assert report.digits.num_compared == 8


def test_programs_that_write_down_a_dtype_are_not_compared():
    linear = torch.nn.Linear(3, 2)

    def guide(x):
        loc, scale = linear(x.float().log1p()).unbind(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale.exp()))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pv.UntrustedEvidence)
        assert account(overdispersed(1e3), guide).digits is None
    with pytest.raises(pv.InputError, match=r"two dtypes meet in the programs .* though the data are float64"):
        account(overdispersed(1e3), guide, dtype="float64")


def test_a_site_that_stays_in_float32_is_named():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), dtype=torch.float32), torch.ones((), dtype=torch.float32)))

    with pytest.raises(pv.InputError, match=r"site 'z' is scored in float32 in spite of dtype=\"float64\""):
        account(overdispersed(1e3), guide, dtype="float64")


def test_other_dtypes_are_refused():
    with pytest.raises(pv.InputError, match=r"dtype is None .* or \"float64\", got 'float16'"):
        account(overdispersed(1e3), dtype=torch.float16)


def test_weights_within_a_coarse_resolution_say_nothing():
    equal = -1e6 + 0.1 * torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)).double()
    assert pareto_k(equal, torch.tensor([0.5, 0.005])).isnan()[0] and pareto_k(equal, 0.5).isnan().all()
    assert (pareto_k(-3 + 0 * equal, 0.005) == -torch.inf).all() and pareto_k(equal[:10], 0.5).isnan().all()


def test_sums_that_are_too_large_for_float32_do_not_make_a_guide_exact():
    generator = torch.Generator().manual_seed(0)
    slope, centre = 0.01 * torch.randn(10_000, generator=generator), 3 * torch.randn(10_000, generator=generator)
    x = torch.randn(4, 1, generator=generator) * slope + centre + 0.02 * torch.randn(4, 10_000, generator=generator)
    x[:, :100] += 2.85
    precision = 1 + float(slope @ slope) / 0.02**2
    mean = (x - centre) @ slope / 0.02**2 / precision

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z[..., None] * slope + centre, 0.02).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, 0.6 / precision**0.5))

    # Rounding is 0.05 nat a draw and 0.02 nat in the evidence, below its stated error.
    with pytest.warns(pv.UntrustedEvidence, match=r"tell the weights apart: .*float64"):
        report = account(model, guide, x, num_particles=1000, method="importance")
    assert not (report.pareto_k == -torch.inf).any() and report.fraction_unresolved > 0
    assert "do not tell the weights apart: evaluate with dtype='float64'" in report.summary()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pv.UntrustedEvidence)
        double = account(model, guide, x, dtype="float64", num_particles=1000, method="importance")
    assert double.pareto_k.isfinite().all() and double.fraction_unresolved == 0


def block_of(off, error=0.0, start=0):
    """What a comparison of data showed that are off by so much, with such an error."""
    error = torch.as_tensor(error).double().expand(len(off))
    return Compared(start, off, error, torch.zeros_like(off), "x", "float32")


def test_a_loss_counts_beside_the_stated_error():
    off = torch.tensor([0.05, -0.05, 0.05, -0.05]).double()
    noisy, sharp = torch.full((4,), 0.2).double(), torch.full((4,), 1e-4).double()
    found = [digits([block_of(off)], se) for se in (noisy, sharp)]
    assert [(one.num_lost, one.lost, one.mean) for one in found] == [(0, False, 0.0), (4, True, 0.0)]
    assert found[0].rms == pytest.approx(0.05) == found[0].largest
    many = digits([block_of(off.abs())], torch.full((400,), 0.2).double())
    assert many.num_lost == 0 and many.lost  # 0.05 nat in the mean of 400 data, whose error is 0.01
    assert digits([block_of(off, start=2)], sharp) is None and digits([], sharp) is None


@pytest.mark.parametrize(("loss", "shared"), [(0.0, 0.0), (0.015, 0.0), (0.0, 0.006)], ids=["none", "each", "mean"])
def test_many_data_show_what_each_of_them_hides(loss, shared):
    """A loss below the 4 errors of each datum: rms and mean are right within 4 standard errors, over 100 data."""
    generator = torch.Generator().manual_seed(0)
    sign, noise = (torch.randn(100, generator=generator, dtype=torch.float64) for _ in range(2))
    off = shared + loss * sign.sign() + 0.01 * noise
    found = digits([block_of(off, 0.01)], torch.full((100,), 1e-3).double())
    assert found.num_lost == 0 and found.lost == bool(loss or shared)
    assert abs(found.mean - shared - loss * float(sign.sign().mean())) < 4 * found.mean_se == pytest.approx(4e-3)
    truth = loss**2 + shared**2 + 2 * loss * shared * float(sign.sign().mean())
    se = (2 * 0.01**4 + 4 * 0.01**2 * truth) ** 0.5 / 10  # of the mean of squares of normals about what is lost
    assert abs(found.rms**2 - truth) < 4 * se


def large_counts(family):
    """Fifty counts of some 50,000, and a narrow guide about the truth."""
    generator = torch.Generator().manual_seed(0)
    slope, z = 0.02 * torch.randn(50, generator=generator), torch.randn(60, generator=generator)
    x = torch.poisson((10.8 + z[:, None] * slope).exp(), generator=generator)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", family(10.8 + z[..., None] * slope.to(z.dtype)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(z.to(x.dtype), 0.05))

    return model, guide, x


@pytest.mark.parametrize("num_particles", [50, 400])
def test_what_large_counts_lose_is_told_as_it_is(num_particles):
    """The estimate by 16 draws is that of all draws within 40 %, and the loss is not passed over at few particles."""
    model, guide, x = large_counts(lambda log_rate: dist.Poisson(log_rate.exp()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told = account(model, guide, x, num_particles=num_particles, method="importance").digits
    with isolated(model, guide):
        particles = Particles(model, guide, (x,))
        own, wide = _twice(particles, lambda: particles.traces(400), 400)
    off = log_evidence(sum_by_role(own).log_weight) - log_evidence(sum_by_role(wide).log_weight)
    measured = float(off.square().mean().sqrt())
    assert measured > 0.02 and told.lost and told.rms == pytest.approx(measured, rel=0.4)
    assert abs(told.mean - float(off.mean())) < 4 * told.mean_se


@pytest.mark.parametrize(
    "family",
    [Poisson, lambda log_rate: NegativeBinomial(log_rate, torch.tensor(2.0).to(log_rate))],
    ids=["poisson", "negative binomial"],
)
def test_families_of_counts_lose_nothing_there(family):
    model, guide, x = large_counts(family)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pv.LostDigits)
        found = account(model, guide, x, num_particles=50, method="importance").digits
    assert not found.lost and found.rms < 1e-3


def test_digits_come_back_from_a_file(tmp_path):
    report = account(overdispersed(1e3, dist.Poisson))
    report.save(tmp_path / "report.json")
    assert pv.Report.load(tmp_path / "report.json").digits == report.digits
    assert report.to_dict()["digits"]["site"] == report.digits.site


def wide_normal(shift=0.0):
    """A likelihood of 200,000 pixels, whose sum is rounded by some 0.02 nat, otherwise for each draw."""
    slope = 1e-4 * torch.randn(2, 200_000, generator=torch.Generator().manual_seed(0))

    class Shifted(dist.Normal):
        def log_prob(self, value):
            found = super().log_prob(value)
            return found + (shift / 200_000 if value.dtype == torch.float32 else 0.0)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", Shifted(z @ slope.to(z.dtype), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))

    return model, guide, torch.randn(8, 200_000, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_rounding_that_averages_out_is_not_lost_and_what_all_draws_share_is(shift):
    """The part of the noise is 4 standard errors of 4 draws: a false alarm for one of 8 data in 2,000, or fewer."""
    model, guide, x = wide_normal(shift)
    torch.manual_seed(0)
    with isolated(model, guide):
        found = compared(Particles(model, guide, (x,)), 0)
    lost = digits([found], torch.zeros(8).double())
    assert lost.lost == (shift > 0) and lost.site == "x"
    assert (found.surely < 0.005).all() if shift == 0 else ((found.off - shift).abs() < 0.2).all()


def test_digits_are_judged_on_the_cpu_where_tensors_are_made_elsewhere(monkeypatch):
    found = block_of(torch.ones(3, dtype=torch.float64))
    monkeypatch.setattr("pyrovae.evidence.numerics.digits.compared", lambda *_: found)
    with torch.device("meta"), pytest.warns(pv.LostDigits, match="site 'x' differs most"):
        warn_of_lost_digits(None)


def test_programs_that_hold_much_are_not_doubled_for_a_comparison():
    table, seen = torch.zeros(2**24 + 1), []  # float32: just above 64 MB
    family = overdispersed(1e7)

    def model(x):
        seen.append(table.dtype)
        family(x)

    assert account(model, x=COUNTS[:3], num_particles=10).digits is None
    assert set(seen) == {torch.float32} == {table.dtype}
    account(model, x=COUNTS[:3], num_particles=10, dtype="float64")
    assert seen[-1] == torch.float64 and table.dtype == torch.float32
