"""What one run shows: masks, base measures and auxiliary draws that leave no weight are refused by name."""

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import pyrovae as pv
from pyrovae.base.errors import InputError

X = torch.linspace(-1, 1, 6)
KEEP = torch.tensor([True, True, False, True, False, True])


def kept(x, moved=0):
    return (torch.arange(len(x)) - moved) % 3 != 2


def pair(prior, guide, likelihood=lambda z: dist.Normal(z.float(), 1.0)):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", likelihood(z), obs=x)

    def q(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide(x))

    return model, q


def normal(x):
    return dist.Normal(torch.zeros(len(x)), 1.0)


def exact(x):
    return dist.Normal(x / 2, 0.5**0.5)


def coin(x):
    return dist.Bernoulli(torch.full((len(x),), 0.4))


MASKS = {
    "model alone": (
        lambda x: normal(x).mask(kept(x)),
        exact,
        r"in the model at (2 of 6|33 of 100) places and in the guide at 0 of",
    ),
    "guide alone": (
        normal,
        lambda x: exact(x).mask(kept(x)),
        r"in the model at 0 of .* places and in the guide at (2 of 6|33 of 100)",
    ),
    "unlike places": (
        lambda x: normal(x).mask(kept(x)),
        lambda x: exact(x).mask(kept(x, 1)),
        r"in the model at (2 of 6|33 of 100) places and in the guide at (2 of 6|34 of 100)",
    ),
    "by a bool": (lambda x: normal(x).mask(False), exact, r"in the model at (6 of 6|100 of 100) places"),
}


@pytest.mark.parametrize(("prior", "guide", "where"), MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("measure", [pv.evaluate, pv.annealed_evidence, pv.surgery, pv.gaps, pv.calibrate])
def test_masks_that_differ_are_refused(prior, guide, where, measure):
    with pytest.raises(InputError, match=f"site 'z' is masked {where}"):
        measure(*pair(prior, guide), X)


def test_a_latent_that_is_partly_observed_needs_its_mask_in_both():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(x), obs=x, obs_mask=KEEP)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x_unobserved", normal(x))

    def masked(x):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=~KEEP):
            pyro.sample("x_unobserved", normal(x))

    with pytest.raises(InputError, match="site 'x_unobserved' is masked in the model at 4 of 6"):
        pv.evaluate(model, guide, X, num_particles=50)
    report = pv.evaluate(model, masked, X, num_particles=50)
    expected = torch.where(KEEP, normal(X).log_prob(X), 0.0).double()
    torch.testing.assert_close(report.log_evidence, expected, rtol=0, atol=1e-6)


MEASURES = {
    "relaxed": (
        coin,
        lambda x: dist.RelaxedBernoulli(torch.tensor(0.5), torch.full((len(x),), 0.4)),
        "a mass.*a density",
    ),
    "normal": (coin, exact, "Bernoulli in the model has a mass, Normal in the guide a density.*Relax the model too"),
    "one-hot": (
        lambda x: dist.OneHotCategorical(torch.ones(len(x), 3)),
        lambda x: dist.RelaxedOneHotCategorical(torch.tensor(0.5), torch.ones(len(x), 3)),
        "OneHotCategorical in the model has a mass",
    ),
    "the reverse": (normal, coin, "Normal in the model has a density, Bernoulli in the guide a mass"),
}


@pytest.mark.parametrize(("prior", "guide", "words"), MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize("measure", [pv.evaluate, pv.surgery, pv.calibrate])
def test_a_density_for_a_mass_is_refused(prior, guide, words, measure):
    likelihood = lambda z: dist.Normal(z.float() if z.dim() < 2 or z.shape[-1] != 3 else z.sum(-1), 1.0)  # noqa: E731
    with pytest.raises(InputError, match=f"site 'z': .*{words}"):
        measure(*pair(prior, guide, likelihood), X)


def with_draw(draw, latent):
    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", draw(x), infer={"is_auxiliary": True})
            pyro.sample("z", latent(x, a))

    return pair(normal, exact)[0], guide


UNKNOWN = {
    "a class": with_draw(lambda x: dist.Categorical(torch.ones(len(x), 3)), lambda x, a: dist.Normal(a.float(), 1.0)),
    "a width": with_draw(lambda x: dist.Gamma(torch.ones(len(x)), 1.0), lambda x, a: dist.Normal(x / 2, a)),
    "two for one": with_draw(
        lambda x: dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1), lambda x, a: dist.Delta(a.sum(-1))
    ),
}


@pytest.mark.parametrize(("model", "guide"), UNKNOWN.values(), ids=UNKNOWN)
@pytest.mark.parametrize("measure", [pv.evaluate, pv.annealed_evidence, pv.surgery, pv.calibrate])
def test_draws_that_the_model_does_not_know_are_refused(model, guide, measure):
    with pytest.raises(InputError, match="site 'a' is drawn by the guide and unknown to the model"):
        measure(model, guide, X)


@pytest.mark.parametrize("measure", ["log_evidence", "annealed"])
def test_an_automatic_guide_is_one_like_others(measure):
    """A positive latent under AutoNormal: log p(x) by quadrature, within 4 standard errors of each datum."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Exponential(torch.ones(len(x))))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    grid = (torch.arange(40_000).double() + 0.5) / 1000
    exact = (dist.Normal(grid[:, None], 1.0).log_prob(X.double()) - grid[:, None]).logsumexp(0) - torch.log(
        torch.tensor(1000.0)
    )
    torch.manual_seed(0)
    with pyro.get_param_store().scope():
        guide = AutoNormal(model, init_scale=1.0)
        guide(X)
        if measure == "annealed":
            found = pv.annealed_evidence(model, guide, X, num_temperatures=60, num_chains=64)
        else:
            found = pv.evaluate(model, guide, X, num_particles=20_000)
    assert ((found.log_evidence - exact).abs() < 4 * found.mc_se_log_evidence).all()


@pytest.mark.parametrize("jacobian", [0.0, None], ids=["without its Jacobian", "with it"])
def test_a_point_needs_the_jacobian_of_its_move(jacobian):
    """z = a / 2 is a draw of N(0, 1/2) if the Delta says so; otherwise every weight is off by log 2."""
    log_density = torch.log(torch.tensor(2.0)) if jacobian is None else torch.tensor(jacobian)
    model, guide = with_draw(
        lambda x: dist.Normal(torch.zeros(len(x)), 2.0), lambda x, a: dist.Delta(a / 2, log_density=log_density)
    )
    if jacobian is None:
        report = pv.evaluate(model, guide, X, num_particles=2000)
        exact = dist.Normal(0.0, 2**0.5).log_prob(X)
        assert ((report.log_evidence - exact).abs() < 4 * report.mc_se_log_evidence).all()
    else:
        with pytest.raises(InputError, match=r"site 'z' of the guide .*Jacobian"):
            pv.evaluate(model, guide, X, num_particles=2000)


def test_a_transformed_guide_is_no_auxiliary_one():
    def guide(x):
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros(len(x)), 1.0)
            pyro.sample("z", dist.TransformedDistribution(base, [T.AffineTransform(0.0, 1.0)]))

    assert pv.evaluate(pair(normal, exact)[0], guide, X, num_particles=5).log_evidence.isfinite().all()


def test_a_latent_may_read_the_auxiliary_draw_of_another():
    """u ~ N(x/2, 1/2), s = exp(u), z ~ N(u, 1) in the guide: the weights are those of s ~ LogNormal and z ~ N(log s, 1)."""

    def model(x):
        with pyro.plate("data", len(x)):
            s = pyro.sample("s", dist.LogNormal(torch.zeros(len(x)), 1.0))
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, s + 0.5), obs=x)

    def moving(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(x / 2, 0.5), infer={"is_auxiliary": True})
            pyro.sample("s", dist.Delta(u.exp(), log_density=-u))
            pyro.sample("z", dist.Normal(u, 1.0))

    def plain(x):
        with pyro.plate("data", len(x)):
            s = pyro.sample("s", dist.LogNormal(x / 2, 0.5))
            pyro.sample("z", dist.Normal(s.log(), 1.0))

    a, b = (pv.evaluate(model, guide, X, num_particles=4000) for guide in (moving, plain))
    torch.testing.assert_close(a.log_evidence, b.log_evidence, rtol=0, atol=1e-4)
    a, b = (
        pv.gaps(model, guide, X, families=["full covariance"], num_particles=500, num_steps=20)
        for guide in (moving, plain)
    )
    torch.testing.assert_close(a.elbo["guide"], b.elbo["guide"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("measure", [pv.evaluate, lambda m, g, x: pv.fit(m, g, x, epochs=1, progress=False)])
def test_a_move_with_another_density_than_its_own_is_refused(measure):
    def model(x):
        with pyro.plate("data", len(x)):
            s = pyro.sample("s", dist.LogNormal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(s, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(loc + 0 * x, 0.5), infer={"is_auxiliary": True})
            pyro.sample("s", dist.Delta(u.exp(), log_density=-5.0))

    with pytest.raises(InputError, match=r"site 's' of the guide .* Jacobian"):
        measure(model, guide, X)


NO_DENSITY = {
    "two to one": (
        lambda x: dist.HalfNormal(torch.ones(len(x))),
        lambda x: dist.TransformedDistribution(normal(x), [T.AbsTransform()]),
        "AbsTransform is not one to one",
    ),
    "a square": (
        lambda x: dist.Chi2(torch.ones(len(x))),
        lambda x: dist.TransformedDistribution(normal(x), [T.PowerTransform(torch.tensor(2.0))]),
        "PowerTransform is not one to one on what Normal draws",
    ),
}


@pytest.mark.parametrize(("prior", "guide", "words"), NO_DENSITY.values(), ids=NO_DENSITY)
@pytest.mark.parametrize("measure", [pv.evaluate, pv.annealed_evidence, pv.surgery])
def test_transforms_that_cannot_be_undone_are_refused(prior, guide, words, measure):
    with pytest.raises(InputError, match=f"site 'z' of the guide: {words}"):
        measure(*pair(prior, guide), X)


@pytest.mark.parametrize("seed", range(5))
def test_a_mask_that_depends_on_a_draw_is_looked_at_on_many(seed):
    def model(x):
        with pyro.plate("data", len(x)):
            on = pyro.sample("on", dist.Bernoulli(torch.tensor(0.3))).bool()
            b = pyro.sample("b", dist.Normal(torch.zeros(()), 2.0))
            pyro.sample("x", dist.Normal(torch.where(on, 0 * b, b), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            on = pyro.sample("on", dist.Bernoulli(torch.full((len(x),), 0.375))).bool()
            with pyro.poutine.mask(mask=~on):
                pyro.sample("b", dist.Normal(0.8 * x, 0.9))

    with pytest.raises(InputError, match="site 'b' is masked in the model at 0 of"):
        pv.evaluate(model, guide, torch.ones(1), num_particles=50, seed=seed)


COUNTED = torch.tensor([0.0, 1.0, 3.0, 5.0])


def animals(guide):
    """Of Poisson(4) animals each is seen by one half: x ~ Poisson(2), and so is what is unseen given x."""
    prior = lambda x: dist.Poisson(torch.full((len(x),), 4.0))  # noqa: E731
    return pair(prior, guide, lambda n: dist.Binomial(n, torch.tensor(0.5)))


def moved_counts(x, scale=1.0):
    rate = torch.full((len(x),), 2.0)
    return dist.TransformedDistribution(dist.Poisson(rate), [T.AffineTransform(x, scale)])


def test_counts_that_are_moved_are_counts():
    report = pv.evaluate(*animals(moved_counts), COUNTED, num_particles=30, progress=False)
    torch.testing.assert_close(report.log_evidence.float(), dist.Poisson(2.0).log_prob(COUNTED))
    assert report.elbo.isfinite().all()


def test_counts_that_are_scaled_are_refused():
    """Torch would take log 2 off their mass."""
    with pytest.raises(
        InputError, match=r"site 'z' of the guide: .*Jacobian of AffineTransform off the log mass of Po"
    ):
        pv.evaluate(*animals(lambda x: moved_counts(x, 2.0)), COUNTED, num_particles=30, progress=False)
