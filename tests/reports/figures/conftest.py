"""Records and fits that the tests of figures share, each made once."""

import functools

import pytest
from examples.drawing import QUIET, boxes, posterior
from examples.records import classified

import pyrovae as pv
from pyrovae.reports import figures


@pytest.fixture(scope="session")
def oracle():
    return pv.oracles.ppca(6, 2)


@pytest.fixture(scope="session")
def x(oracle):
    return oracle.draw(12, seed=0)[0]


@pytest.fixture(scope="session")
def pair(oracle):
    return oracle.model, oracle.mean_field_guide(1.3, 0.4)


@pytest.fixture(scope="session")
def curve(pair, x):
    return pv.convergence(*pair, x, num_particles=200, **QUIET)


@pytest.fixture(scope="session")
def annealed(pair, x):
    return pv.annealed_evidence(*pair, x, num_temperatures=4, num_chains=4, **QUIET)


@pytest.fixture(scope="session")
def bounds(pair, x):
    sizes = {"num_data": 10, "num_chains": 3, "num_particles": 20}
    return {t: pv.bidirectional(*pair, x, num_temperatures=t, **sizes, **QUIET) for t in (6, 2)}


@pytest.fixture(scope="session")
def gaps(pair, x):
    return pv.gaps(*pair, x, num_particles=30, num_steps=20, **QUIET)


@pytest.fixture(scope="session")
def surgery(pair, x):
    return pv.surgery(*pair, x, **QUIET)


@pytest.fixture(scope="session")
def undivided(oracle, x):
    return pv.surgery(oracle.model, oracle.guide, x, **QUIET)


@pytest.fixture(scope="session")
def calibration(oracle, x):
    sizes = {"num_simulations": 200, "num_draws": 19, "num_particles": 200}
    return pv.calibrate(oracle.model, pv.widened(oracle.guide, 0.5), x, **sizes, **QUIET)


@pytest.fixture(scope="session")
def plane(oracle):
    return posterior(oracle)


@pytest.fixture(scope="session")
def line():
    return posterior(pv.oracles.ppca(5, 1), num_draws=500)


@pytest.fixture(scope="session")
def many():
    """Nine coordinates, by resampling; the guide misses much, and the record says so."""
    with pytest.warns(pv.UntrustedPosterior):
        return posterior(pv.oracles.ppca(12, 9), 0.5, 1.0, method="resampled", num_particles=300, num_draws=300)


@pytest.fixture(scope="session")
def check(oracle, x):
    return pv.predictive_check(oracle.model, oracle.guide, 1.5 * x, num_draws=40, **QUIET)


@pytest.fixture(scope="session")
def digits():
    return pv.data.load("digits")


@pytest.fixture(scope="session")
def fits(digits):
    """Number of latents -> a fit of two epochs."""

    def fit(num_latents):
        vae = pv.VAE(
            prior=pv.priors.StandardNormal(num_latents),
            decoder=pv.Conditional(pv.families.binomial(16), digits.shape, pv.networks.mlp(num_latents, 20, seed=0)),
            encoder=pv.Conditional(pv.families.normal(), (num_latents,), pv.networks.mlp(digits.shape, 20, seed=1)),
        )
        return pv.fit(vae.model, vae.guide, digits.train[:200], valid=digits.valid[:50], epochs=2, progress=False)

    return {num_latents: fit(num_latents) for num_latents in (1, 2, 4)}


@pytest.fixture(scope="session")
def reports(fits, digits):
    return {
        f"{num_latents} latents": pv.evaluate(fit.model, fit.guide, digits.test[:40], num_particles=50, progress=False)
        for num_latents, fit in fits.items()
    }


@pytest.fixture(scope="session")
def laid_out(every):
    """Name -> the figure and the boxes of its texts, drawn once, which lays it out."""
    return functools.cache(lambda name: (every[name], boxes(every[name])))


@pytest.fixture(scope="session")
def every(
    curve, annealed, bounds, gaps, surgery, undivided, calibration, plane, line, many, check, fits, reports, digits
):
    """Every figure once, and each kind of it."""
    fit, test = fits[2], digits.test[:30]
    pair = (fit.model, fit.guide, test)
    return {
        "convergence": figures.convergence(curve),
        "convergence beside annealing": figures.convergence(curve, annealed=annealed),
        "annealed": figures.annealed(annealed),
        "bounds": figures.bounds(bounds),
        "bounds of one": figures.bounds(bounds[6]),
        "gaps": figures.gaps({"train": gaps, "a much longer name for the test data": gaps}),
        "anatomy": figures.anatomy(surgery),
        "anatomy undivided": figures.anatomy(undivided),
        "calibration": figures.calibration(calibration),
        "posterior in a plane": figures.posterior_of_one(plane),
        "posterior on a line": figures.posterior_of_one(line),
        "posterior of many": figures.posterior_of_one(many),
        "classification": figures.classification(classified(QUIET)),
        "predictive check": figures.predictive_check(check),
        "training_curves": figures.training_curves(fit.history),
        "reconstructions": figures.reconstructions(*pair),
        "prior_samples": figures.prior_samples(fit.model, test, num=10),
        "latent_means": figures.latent_means(*pair),
        "manifold": figures.manifold(fit.model, test, num=5),
        "interpolation": figures.interpolation(*pair, pairs=2, steps=3),
        "account": figures.account(reports),
        "evidence_histogram": figures.evidence_histogram(reports["2 latents"]),
        "comparison": figures.comparison(pv.compare(reports)),
    }
