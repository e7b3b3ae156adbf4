"""Widened and shifted guides: each family against its formula, any guide against the evidence that it must not change."""

import math

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as transforms
import pytest
import torch
from examples.exact import close
from examples.zoo import ZOO
from programs.guides.test_guides import made
from torch import nn

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.evidence.evaluate import evaluate
from pyrovae.evidence.proposals.widened import widened
from pyrovae.pairs.context import Scoped, modules_of
from pyrovae.pairs.table import log_terms
from pyrovae.pairs.traces import sites
from pyrovae.programs.distributions.exponential import Bernoulli
from pyrovae.programs.guides import GUIDES
from pyrovae.programs.oracles import ppca
from pyrovae.programs.oracles.mixtures import FiniteMixture

ORACLE = ppca(20, 3)
X, _ = ORACLE.draw(60, seed=1)
EXACT = ORACLE.log_evidence(X)
C = 1.7


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def account(guide, x=X, *, model=ORACLE.model, **options):
    return evaluate(model, guide, x, **{"num_particles": 1000, "progress": False, "method": "importance", **options})


def one_draw(fn):
    """The site of a guide that draws from ``fn``."""

    def guide():
        pyro.sample("z", fn)

    return guide


def wide(fn, factor=C, shift=0.0):
    """The distribution that a widened guide draws from."""
    trace = pyro.poutine.trace(widened(one_draw(fn), factor, shift=shift)).get_trace()
    return sites(trace)["z"]["fn"]


# -------------------------------------------------------------------------------------------- families

LOC, SCALE = doubles(4), doubles(4, seed=1).exp()
ROOT = torch.eye(4).double() + doubles(4, 4, seed=2).tril(-1)
FACTOR, LOGITS = doubles(4, 2, seed=3), doubles(5, 4, seed=4)

SCALED = {  # name: (distribution, its centre): z = centre + c (y - centre), with y from the guide
    "normal": (dist.Normal(LOC, SCALE), LOC),
    "half-normal": (dist.HalfNormal(SCALE), 0.0),
    "laplace": (dist.Laplace(LOC, SCALE), LOC),
    "cauchy": (dist.Cauchy(LOC, SCALE), LOC),
    "half-cauchy": (dist.HalfCauchy(SCALE), 0.0),
    "student-t": (dist.StudentT(3.0, LOC, SCALE), LOC),
    "multivariate-normal": (dist.MultivariateNormal(LOC, scale_tril=ROOT), LOC),
    "multivariate-normal-of-a-precision": (dist.MultivariateNormal(LOC, precision_matrix=ROOT @ ROOT.T), LOC),
    "low-rank-normal": (dist.LowRankMultivariateNormal(LOC, FACTOR, SCALE), LOC),
}


@pytest.mark.parametrize("case", SCALED.values(), ids=SCALED)
def test_scales(case):
    fn, centre = case
    y = fn.sample((50,))
    z = centre + C * (y - centre)
    wider = wide(fn)
    assert type(wider) is type(fn) and wider.has_rsample == fn.has_rsample
    expected = fn.log_prob(y) - math.log(C) * fn.event_shape.numel()
    torch.testing.assert_close(wider.log_prob(z), expected, rtol=1e-9, atol=1e-9)


def test_log_normal():
    y = doubles(50, 4)
    expected = dist.Normal(LOC, C * SCALE).log_prob(y) - y
    torch.testing.assert_close(wide(dist.LogNormal(LOC, SCALE)).log_prob(y.exp()), expected)


TEMPERED = {  # name: distribution: its density to the power 1 / c^2, normalised
    "normal": dist.Normal(LOC, SCALE),
    "multivariate-normal": dist.MultivariateNormal(LOC, scale_tril=ROOT),
    "low-rank-normal": dist.LowRankMultivariateNormal(LOC, FACTOR, SCALE),
    "von-mises": dist.VonMises(LOC, SCALE),
    "bernoulli": dist.Bernoulli(torch.sigmoid(LOC)),
    "our-bernoulli": Bernoulli(logits=LOC),
    "categorical": dist.Categorical(LOGITS.softmax(-1)),
    "one-hot": dist.OneHotCategorical(logits=LOGITS),
}


@pytest.mark.parametrize("fn", TEMPERED.values(), ids=TEMPERED)
def test_tempering(fn):
    values = fn.sample((50,))
    ratio = wide(fn).log_prob(values) - fn.log_prob(values) / C**2
    torch.testing.assert_close(ratio, ratio[:1].expand(ratio.shape), rtol=1e-6, atol=1e-6)  # the same for every value
    if fn.has_enumerate_support:
        assert torch.allclose(wide(fn).log_prob(fn.enumerate_support()).exp().sum(0), torch.ones(1).double())


CENTRED = {  # name: (distribution, how its variance grows, for c = 1.7)
    "gamma": (dist.Gamma(3 * SCALE, SCALE), C**2),
    "beta": (dist.Beta(3 * SCALE, 2 * SCALE), None),
    "dirichlet": (dist.Dirichlet(5 * SCALE), None),
}


@pytest.mark.parametrize("case", CENTRED.values(), ids=CENTRED)
def test_means_are_kept(case):
    fn, growth = case
    wider = wide(fn)
    torch.testing.assert_close(wider.mean, fn.mean)
    ratio = wider.variance / fn.variance
    assert ((ratio > 1.1) & (ratio <= C**2 + 1e-9)).all()
    if growth is not None:
        torch.testing.assert_close(ratio, torch.full_like(ratio, growth))


NORMAL, MASK = dist.Normal(LOC, SCALE), torch.tensor([True, False, True, True])
WRAPPED = {
    "independent": (NORMAL.to_event(1), dist.Normal(LOC, C * SCALE).to_event(1)),
    "expanded": (NORMAL.expand([3, 4]), dist.Normal(LOC, C * SCALE).expand([3, 4])),
    "expanded-by-a-wrapper": (
        dist.torch_distribution.ExpandedDistribution(NORMAL, (3, 4)),
        dist.Normal(LOC, C * SCALE).expand([3, 4]),
    ),
    "masked": (NORMAL.mask(MASK), dist.Normal(LOC, C * SCALE).mask(MASK)),
    "all": (
        NORMAL.mask(MASK).expand([3, 4]).to_event(1),
        dist.Normal(LOC, C * SCALE).mask(MASK).expand([3, 4]).to_event(1),
    ),
}


@pytest.mark.parametrize("case", WRAPPED.values(), ids=WRAPPED)
def test_wrappers(case):
    fn, expected = case
    wider = wide(fn)
    value = fn.sample()
    assert wider.batch_shape == fn.batch_shape and wider.event_shape == fn.event_shape
    torch.testing.assert_close(wider.log_prob(value), expected.log_prob(value))


def test_what_transforms_make_of_noise_is_made_of_wider_noise():
    fn = dist.TransformedDistribution(NORMAL, [transforms.ExpTransform(), transforms.AffineTransform(1.0, 3.0)])
    expected = dist.TransformedDistribution(dist.LogNormal(LOC + 0.4 * SCALE, C * SCALE), fn.transforms[1:])
    values = expected.sample((50,))
    torch.testing.assert_close(wide(fn, C, 0.4).log_prob(values), expected.log_prob(values))


def drawn_by(name):
    """What a guide of this name draws from, for six data."""
    return made(name)(doubles(6, 4, seed=5))


@pytest.mark.parametrize("name", GUIDES)
def test_every_guide_by_name_is_widened_within_its_family(name):
    fn = drawn_by(name)
    wider = wide(fn)
    assert type(wider) is type(fn) or name == "bernoulli"  # ours sums over an event by itself
    assert (wider.has_rsample, wider.batch_shape) == (fn.has_rsample, fn.batch_shape)
    assert wider.event_shape == fn.event_shape
    value = fn.sample((20,))
    same = wide(fn, 1.0).log_prob(value)
    torch.testing.assert_close(same, fn.log_prob(value))
    assert (wider.log_prob(value) - same).abs().mean() > 0.1  # it is another


@pytest.mark.parametrize("name", GUIDES)
def test_what_is_narrower_is_a_density_too(name):
    """Its ratio to the guide, bounded as it is narrower, has the mean one; 5 standard errors."""
    with torch.no_grad():
        fn = drawn_by(name)
        z = fn.sample((5000,))
        ratio = (wide(fn, 0.8).log_prob(z) - fn.log_prob(z)).exp()
    assert ((ratio.mean(0) - 1).abs() < 5 * ratio.std(0) / math.sqrt(5000)).all()


@pytest.mark.parametrize("name", ["full-normal", "mixture", "iaf", "top-down", "low-rank-normal"])
def test_guides_of_one_real_vector_are_shifted(name):
    fn = drawn_by(name)
    torch.manual_seed(3)
    before = fn.sample((20_000,))
    torch.manual_seed(3)
    after = wide(fn, 1.0, 0.5).sample((20_000,))
    moved = (after - before).mean(0)
    assert (moved > 0.1 * before.std(0)).all() or (name == "full-normal" and (moved.abs() > 0).all())


def test_a_direction_cannot_be_shifted():
    with pytest.raises(InputError, match=r"site 'z': no shifted PowerSpherical is known, got shift=0\.5"):
        wide(drawn_by("power-spherical"), 1.0, 0.5)


UNKNOWN = {
    "exponential": (dist.Exponential(1.0), "Exponential"),
    "of transforms": (dist.Gumbel(LOC, SCALE), "Gumbel"),
    "noise of a flow": (
        dist.TransformedDistribution(dist.Uniform(0 * LOC, SCALE), [transforms.ExpTransform()]),
        "Uniform",
    ),
    "inside": (dist.Poisson(SCALE).to_event(1), "Poisson"),
}


@pytest.mark.parametrize("case", UNKNOWN.values(), ids=UNKNOWN)
def test_another_family_is_refused_by_name(case):
    fn, family = case
    with pytest.raises(InputError, match=f"site 'z': no wider {family} is known.*defensive=0.1"):
        wide(fn)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan])
def test_a_factor_must_be_positive(factor):
    with pytest.raises(InputError, match=r"factor must be (positive and finite|a real number)"):
        widened(ORACLE.guide, factor)


@pytest.mark.parametrize("shift", [math.inf, math.nan])
def test_a_shift_must_be_finite(shift):
    with pytest.raises(InputError, match=r"shift (finite; got 1\.0 and|must be a real number)"):
        widened(ORACLE.guide, 1.0, shift=shift)


# ------------------------------------------------------------------------------------- shifted families


def scale_tril(*batch):
    return torch.tensor([[1.5, 0.0], [0.9, 0.4]], dtype=torch.float64).expand(*batch, 2, 2)


def mixture():
    components = dist.MultivariateNormal(doubles(5, 3, 2), scale_tril=scale_tril(5, 3))
    return dist.MixtureSameFamily(dist.Categorical(logits=doubles(5, 3)), components)


MOMENTS = {  # the mean and standard deviation of each draw are moved, exactly
    "normal": lambda: dist.Normal(doubles(5), doubles(5, seed=1).exp()),
    "independent": lambda: dist.Normal(doubles(5, 3, 2), doubles(5, 3, 2).exp()).to_event(2),
    "multivariate": lambda: dist.MultivariateNormal(doubles(5, 2), scale_tril=scale_tril(5)),
    "low-rank": lambda: dist.LowRankMultivariateNormal(doubles(5, 2), doubles(5, 2, 1), doubles(5, 2).exp()),
    "laplace": lambda: dist.Laplace(doubles(5), doubles(5, seed=1).exp()),
    "gamma": lambda: dist.Gamma(2 + doubles(5, 3).exp(), doubles(5, 3).exp()).to_event(1),
}
ALL = {
    **MOMENTS,
    "log-normal": lambda: dist.LogNormal(doubles(5), doubles(5, seed=1).exp()),
    "cauchy": lambda: dist.Cauchy(doubles(5), doubles(5, seed=1).exp()),
    "student-t": lambda: dist.StudentT(3.0, doubles(5), doubles(5, seed=1).exp()),
    "beta": lambda: dist.Beta(2 + doubles(5, 3).exp(), 2 + doubles(5, 3, seed=1).exp()).to_event(1),
    "mixture": mixture,
    "bernoulli": lambda: dist.Bernoulli(logits=doubles(5, 3)),
    "categorical": lambda: dist.Categorical(logits=doubles(5, 3)),
    "one-hot": lambda: dist.OneHotCategorical(logits=doubles(5, 3)),
}


@pytest.mark.parametrize("make", MOMENTS.values(), ids=MOMENTS)
@pytest.mark.parametrize(("scale", "shift"), [(1.3, 0.3), (0.7, -0.5), (1.0, 0.0)])
def test_mean_and_standard_deviation_are_moved(make, scale, shift):
    before = make()
    after = wide(before, scale, shift)
    close(after.mean, before.mean + shift * before.variance.sqrt())
    close(after.variance, scale**2 * before.variance)
    assert type(after) is type(before)


@pytest.mark.parametrize(("scale", "shift"), [(1.3, 0.3), (0.7, -0.5), (1.0, 0.0)])
def test_the_mean_of_a_beta_is_moved_and_its_concentration_divided(scale, shift):
    before = ALL["beta"]()
    after = wide(before, scale, shift)
    close(after.mean, before.mean + shift * before.variance.sqrt())
    totals = [fn.base_dist.concentration1 + fn.base_dist.concentration0 for fn in (before, after)]
    close(totals[1], totals[0] / scale**2)
    # Of a mean m and a concentration n the variance is m (1 - m) / (n + 1).
    close(after.variance, after.mean * (1 - after.mean) / (totals[0] / scale**2 + 1))
    assert type(after) is type(before)


@pytest.mark.parametrize("name", ["log-normal", "cauchy", "student-t"])
def test_what_may_have_no_deviation_moves_by_its_scale(name):
    before = ALL[name]()
    after = wide(before, 1.3, 0.3)
    close(after.loc, before.loc + 0.3 * before.scale)
    close(after.scale, 1.3 * before.scale)


def test_the_axes_of_a_normal_are_kept():
    before = MOMENTS["multivariate"]()
    close(wide(before, 1.3, 0.3).covariance_matrix, 1.69 * before.covariance_matrix)


def test_each_component_of_a_mixture_is_moved():
    before = mixture()
    after = wide(before, 1.3, 0.3)
    close(after.mixture_distribution.logits, before.mixture_distribution.logits)
    expected = wide(before.component_distribution, 1.3, 0.3)
    close(after.component_distribution.mean, expected.mean)
    close(after.component_distribution.variance, 1.69 * before.component_distribution.variance)


@pytest.mark.parametrize("name", ["categorical", "one-hot"])
def test_classes_are_tempered_and_mixed(name):
    before = ALL[name]()
    powers = before.probs ** (1 / 2.0**2)
    close(wide(before, 2.0, 0.0).probs, powers / powers.sum(-1, keepdim=True))
    close(wide(before, 1.0, 0.3).probs, 0.7 * before.probs + 0.1)
    close(wide(before, 2.0, 1.0).probs, torch.full((5, 3), 1 / 3, dtype=torch.float64))


def test_bits_are_tempered_and_mixed():
    before = ALL["bernoulli"]()
    close(wide(before, 2.0, 0.0).logits, before.logits / 4)
    close(wide(before, 1.0, 0.3).probs, 0.7 * before.probs + 0.15)
    close(wide(before, 2.0, 1.0).probs, torch.full((5, 3), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_at_one_and_zero_nothing_changes(make):
    before = make()
    value = before.sample()
    after = wide(before, 1.0, 0.0)
    assert (after.batch_shape, after.event_shape) == (before.batch_shape, before.event_shape)
    close(after.log_prob(value), before.log_prob(value))


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        (dist.Gamma(torch.tensor([0.01, 4.0]), 1.0), "1 of 2 gamma distributions have none .* 1.3 times .* by -0.5"),
        (dist.Beta(torch.tensor(0.1), 10.0), "1 of 1 beta distributions have none"),
        (dist.Exponential(3.0), "no wider Exponential is known"),
        (dist.HalfNormal(1.0), "no shifted HalfNormal is known, got shift=-0.5"),
        (dist.HalfCauchy(1.0), "no shifted HalfCauchy is known"),
        (dist.Dirichlet(torch.ones(3)), "no shifted Dirichlet is known"),
        (dist.VonMises(0.0, 1.0), "no shifted VonMises is known"),
        (dist.Categorical(torch.ones(3)), r"a fraction in \[0, 1\] of the uniform distribution, got -0.5"),
    ],
    ids=lambda case: type(case).__name__,
)
def test_what_cannot_be_shifted_is_refused_by_name(distribution, message):
    with pytest.raises(InputError, match=f"site 'z': .*{message}"):
        wide(distribution, 1.3, -0.5)


# ------------------------------------------------------------------------------------------- any guide


def chain_guide(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(x, 1.0))
        pyro.sample("b", dist.Normal(a, 2.0))


def test_every_draw_of_a_guide_is_moved_given_those_before():
    x = doubles(4)
    trace = pyro.poutine.trace(widened(chain_guide, 1.5, shift=0.5)).get_trace(x)
    a, b = (trace.nodes[name]["fn"] for name in "ab")
    close(a.mean, x + 0.5)
    close(b.mean, trace.nodes["a"]["value"] + 1.0)
    close(a.stddev.expand(4), torch.full((4,), 1.5, dtype=torch.float64))
    assert (b.stddev == 3.0).all()
    assert trace.nodes["data"]["value"].tolist() == [0, 1, 2, 3]  # the rows of the plate are no draws to move


def test_second_moment_of_the_weights_is_known():
    # E_q[(w / p(x))^2] of a Normal: r^2 / sqrt(2 r^2 - 1) * exp(shift^2 / (2 r^2 - 1)), r the scale; 5 standard errors.
    oracle, scale, shift = ppca(4, 1), 1.2, 0.4
    x, _ = oracle.draw(1, seed=0)
    torch.manual_seed(0)
    log_w = log_terms(oracle.model, widened(oracle.guide, scale, shift=shift), x, num_particles=20_000).log_weight
    squares = (2 * (log_w - oracle.log_evidence(x))).exp()
    spread = 2 * scale**2 - 1
    expected = scale**2 / math.sqrt(spread) * math.exp(shift**2 / spread)
    assert abs(squares.mean() - expected) < 5 * squares.std() / math.sqrt(20_000)


def test_widened_to_the_exact_posterior():
    report = account(widened(widened(ORACLE.guide, 0.5), 2.0), num_particles=50)
    assert (report.log_evidence - EXACT).abs().max() < 1e-10
    assert (report.pareto_k == -math.inf).all()


def test_widened_twice():
    report = account(widened(widened(widened(ORACLE.guide, 0.5), 4.0), 0.5), num_particles=50)
    assert (report.log_evidence - EXACT).abs().max() < 1e-10


def test_it_mends_a_guide_that_is_too_narrow():
    heavy = ppca(20, 3, collinearity=0.9)
    x, _ = heavy.draw(200, seed=1)
    guides = (heavy.mean_field_guide(), widened(heavy.mean_field_guide(), 2.5))
    reports = [account(guide, x, model=heavy.model) for guide in guides]
    errors = [float((report.log_evidence - heavy.log_evidence(x)).mean()) for report in reports]
    assert errors[0] < -0.1 and abs(errors[1]) < 0.01
    assert reports[0].fraction_unreliable > 0.5 and reports[1].fraction_unreliable == 0


def test_discrete_latents():
    means = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)).double()
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    mixture = FiniteMixture(weights, means, lambda mean: dist.Bernoulli(mean).to_event(1))
    x, _ = mixture.draw(200, seed=1)
    report = account(widened(mixture.guide, 1.3), x, model=mixture.model, num_particles=2000)
    error = report.log_evidence - mixture.log_evidence(x)
    assert float(error.abs().mean()) > 1e-4  # it is not the exact guide any more
    assert abs(float(error.sum() / report.mc_se_log_evidence.square().sum().sqrt())) < 4  # standard errors


SOME = [
    "functions",
    "params",
    "pyro-module",
    "auto-normal",
    "pixels-right",
    "two-observed",
    "convolution",
    "hard-wired",
]


@pytest.mark.parametrize("name", SOME)
def test_programs_of_every_style(name):
    # Two widths, independent draws: 4.5 standard errors of the difference for each of 5 data.
    case = ZOO[name]()
    options = {"model": case.model, "plate": case.plate, "num_particles": 1000 if case.way == "looped" else 4000}
    a, b = (
        account(widened(case.guide, width), case.args, seed=seed, **options) for width, seed in ((1.6, 0), (2.0, 1))
    )
    se = (a.mc_se_log_evidence.square() + b.mc_se_log_evidence.square()).sqrt()
    assert ((a.log_evidence - b.log_evidence).abs() < 4.5 * se).all()
    assert (a.elbo != b.elbo).all() and a.strategy == b.strategy == case.way


# --------------------------------------------------------------------------------------- modules and scopes


class Small(nn.Module):
    """A pair whose guide drops half of its inputs in train mode."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Dropout(0.5), nn.Linear(20, 3)).double()

    def guide(self, x):
        pyro.module("small", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


def test_modules_are_found_and_put_into_eval_mode():
    small, seen = Small(), []
    small.encoder[0].register_forward_hook(lambda module, *_: seen.append(module.training))
    for guide in (widened(small.guide, 1.2), widened(widened(small.guide, 1.2), 1.2), widened(small.forward, 1.2)):
        assert modules_of(guide) == [small]
    account(widened(small.guide, 1.2), num_particles=30)
    assert seen and not any(seen) and small.training


def scoped(loc):
    """A pair in a scope of its own, where the parameter ``loc`` is what is given."""

    def model(x):
        ORACLE.model(x)

    def guide(x):
        shift = pyro.param("shift", torch.tensor(0.0).double())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(ORACLE.posterior(x).mean + shift, 0.3).to_event(1))

    with pyro.get_param_store().scope() as scope:
        pyro.param("shift", torch.tensor(loc).double())
    return Scoped(model, scope), Scoped(guide, scope)


def test_a_fit_keeps_its_scope():
    model, guide = scoped(0.5)
    here, there = account(widened(guide, 1.0), model=model), account(widened(scoped(0.0)[1], 1.0))
    assert torch.equal(here.elbo, account(guide, model=model).elbo)
    assert (here.elbo < there.elbo - 1).all()  # at a shift of its own, not at that of the global store
    assert isinstance(widened(guide, 1.2), Scoped) and widened(guide, 1.2).scope is guide.scope
    shifted = account(widened(guide, 1.0, shift=0.5), model=model)
    assert (shifted.elbo != here.elbo).all()
    assert not list(pyro.get_param_store().keys())


def test_two_fits_are_not_mixed():
    with pytest.raises(InputError, match="two different fits"):
        account(widened(scoped(0.0)[1], 1.2), model=scoped(0.0)[0])


def test_a_fitted_pair():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        decoder=pv.Conditional(pv.families.bernoulli(), (6,), pv.networks.mlp(2, 8)),
        encoder=pv.Conditional(pv.families.normal(), (2,), pv.networks.mlp(6, 8)),
    )
    x = (doubles(40, 6) > 0).float()
    fit = pv.fit(vae.model, vae.guide, x, epochs=1, batch_size=20, seed=0, progress=False)
    fitted = account(widened(fit.guide, 1.5), x, model=fit.model)
    assert torch.equal(fitted.elbo, account(widened(vae.guide, 1.5), x, model=vae.model).elbo)
    torch.manual_seed(0)
    terms = log_terms(fit.model, widened(fit.guide, 1.5), x, num_particles=3)
    assert terms.log_weight.shape == (3, 40)
