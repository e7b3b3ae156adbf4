"""Records as tests alter them."""

from dataclasses import replace

import pytest
import torch
from examples import fits_of_codes, labelled

import pyrovae as pv


def with_columns(report, **columns):
    """The report with other values in some of its columns."""
    return replace(report, columns={**report.columns, **columns})


def classified(quiet):
    oracle = pv.oracles.bernoulli_mixture(6, 3)
    x, z = oracle.draw(8, seed=0)
    return pv.classification(oracle.model, oracle.guide, x, z.long(), site="k", num_particles=2, **quiet)


def counterfactual():
    vae = pv.ConditionalVAE(labelled.Standard(), labelled.decoder, labelled.encoder)
    return pv.counterfactual(vae.model, vae.guide, labelled.draw(4), y=1, num_draws=3, num_particles=10)


def diverse():
    vae = pv.ConditionalVAE(labelled.Standard(), labelled.decoder, labelled.encoder)
    return pv.diversity(vae.model, labelled.draw(20))


def continuous():
    fits = {"autoencoder, <b>": fits_of_codes.autoencoder()}
    digits = fits_of_codes.DIGITS
    return pv.continuity(fits, digits.train[:50], digits.test[:20], num=3, num_steps=3)


def by_chains(pair, x, quiet):
    """Of chains of few steps, which say little of how they mix, and take little time."""
    how = {"num_draws": 4, "method": "gibbs", "num_warmup": 5, "num_chains": 2, **quiet}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyrovae.posteriors.missing.gibbs.LEAST_STEPS", 40)
        return pv.conditional(*pair, x, x < 1, **how)


def every_record():
    """Name -> what measures a small record of its kind, with undefined and infinite numbers among them."""
    oracle, line = pv.oracles.ppca(5, 2), pv.oracles.ppca(4, 1)
    x, one = oracle.draw(8, seed=0)[0], line.draw(1, seed=0)[0]
    model, guide = oracle.model, pv.widened(oracle.guide, 1.5, shift=0.3)
    pair, quiet = (model, guide), {"progress": False}
    counted = {"num_draws": 19, "num_particles": 40, **quiet}
    path = {"num_temperatures": 2, "num_chains": 3, **quiet}

    def report(num_particles=30, guide=guide):
        return pv.evaluate(model, guide, x, num_particles=num_particles, **quiet)

    def exact(pair, datum, **options):
        return pv.reference_posterior(*pair, datum, num_draws=8, **options, **quiet)

    return {
        "report": report,
        "report of one particle": lambda: report(1),
        "report of an exact guide": lambda: report(30, oracle.guide),
        "convergence": lambda: pv.convergence(*pair, x, num_particles=25, **quiet),
        "annealed": lambda: pv.annealed_evidence(*pair, x, **path),
        "bidirectional": lambda: pv.bidirectional(*pair, x, num_data=4, num_particles=5, **path),
        "gaps": lambda: pv.gaps(*pair, x, num_particles=30, num_steps=2, **quiet),
        "surgery": lambda: pv.surgery(*pair, x, num_queries=5, **quiet),
        "surgery without factors": lambda: pv.surgery(model, oracle.guide, x, **quiet),
        "calibration": lambda: pv.calibrate(*pair, x, num_simulations=60, **counted),
        "rank test": lambda: pv.calibrate(model, pv.widened(oracle.guide, 0.3), x, num_simulations=60, **counted).guide,
        "classification": lambda: classified(quiet),
        "predictive check": lambda: pv.predictive_check(*pair, x, num_draws=9, **quiet),
        "posterior on a grid": lambda: exact((line.model, line.guide), one),
        "posterior by NUTS": lambda: exact(pair, x[:1], method="nuts", num_warmup=5, num_chains=2),
        "posterior resampled": lambda: exact(pair, x[:1], method="resampled", num_particles=20),
        "completion": lambda: pv.conditional(*pair, x, x < 1, num_draws=3, num_particles=50, **quiet),
        "completion by chains": lambda: by_chains(pair, x[:3], quiet),
        "restoration": lambda: pv.restore(
            *pair,
            x,
            pv.operators.linear(torch.eye(x.shape[1]).to(x), noise=0.5),
            truth=x,
            num_draws=3,
            num_particles=50,
            **quiet,
        ),
        "conditional density": lambda: pv.log_density(*pair, x, of=x < 0, num_particles=30, **quiet),
        "information": lambda: pv.information(
            *pair,
            x[:2],
            about="4",
            given=torch.arange(5) < torch.tensor([[1], [0]]),
            of=["0", "a <b>"],
            names=[*"012", "a <b>", "4"],
            num_draws=4,
            num_particles=30,
            **quiet,
        ),
        "pooled": lambda: pv.pool([[1.0, 2.0], [3.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]], names=["a <b>", "c"]),
        "counterfactual": counterfactual,
        "diversity": diverse,
        "latent panels": lambda: pv.latent_panels({"exact, <b>": oracle}, x, num_particles=30, **quiet),
        "continuity": continuous,
        "steps": lambda: pv.baselines.Steps.of("factors", x, pv.baselines.factor_analysis_steps(x, 2, num_steps=3)),
        "draws": lambda: pv.posterior(*pair, x, num_draws=2),
        "comparison": lambda: pv.compare({"wide": report(), "exact, <b>": report(20, oracle.guide)}),
        "over seeds": lambda: pv.compare_seeds(
            {"wide, <b>": [report(), report(20)], "exact": [report(20, oracle.guide)]},
            beside={"fit, s": {"wide, <b>": [1.0, 2.0], "exact": [3.0]}},
            notes=["left out: a <b>"],
        ),
    }
