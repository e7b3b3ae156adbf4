"""The curve of the evidence in K: against the exact evidence, against evaluate, and against sums by hand."""

import dataclasses
import math
from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.evidence import estimators
from pyrovae.evidence.convergence import Convergence, convergence, ladder, rungs
from pyrovae.evidence.evaluate import evaluate
from pyrovae.evidence.proposals.widened import widened
from pyrovae.evidence.reliability import WHERE_DRAWN
from pyrovae.programs.oracles import ppca

N = 100
ORACLE = ppca(20, 3)
X, _ = ORACLE.draw(N, seed=1)
EXACT = ORACLE.log_evidence(X)
OPTIONS = {"num_particles": 2500, "progress": False}


def curve_of(guide, x=X, *, model=ORACLE.model, **options):
    return convergence(model, guide, x, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def curve():
    return curve_of(widened(ORACLE.guide, 1.5, shift=0.5), batch_size=40)


def test_it_rises_and_stays_below_the_truth(curve):
    # Each step, and the end, are held to 3 standard errors of a mean over 100 data.
    gap = EXACT - curve.log_evidence
    error = estimators.mean_se(gap.T)
    table = curve.table()
    assert (table["step"][1:] > -3 * table["step_se"][1:]).all()
    assert gap.mean(1)[0] > 0.5 and gap.mean(1)[1] > 0.05 and gap.mean(1)[-1] > -3 * error[-1]
    assert abs(float(gap.mean(1)[-1])) < 0.01
    assert (table["step"][1:].diff() < 0).all()  # by less and less


def test_the_errors_cover_the_truth():
    # Over 100 data at K = 1000, biased by 0.0004: 4 standard errors for the mean, and each within 4.5.
    curve = curve_of(widened(ORACLE.guide, 1.3), num_particles=10_000)
    rung = curve.num_particles.index(1000)
    for error in (curve.log_evidence[rung] - EXACT, curve.jackknife[rung] - EXACT):
        ratio = error / curve.mc_se[rung]
        assert abs(float(error.sum() / curve.mc_se[rung].square().sum().sqrt())) < 4
        assert 0.7 < float(ratio.square().mean().sqrt()) < 1.5  # nine degrees of freedom each


def test_the_end_is_what_evaluate_gives(curve):
    report = evaluate(
        ORACLE.model, widened(ORACLE.guide, 1.5, shift=0.5), X, batch_size=40, method="importance", **OPTIONS
    )
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(curve.log_evidence[-1], report.log_evidence, **close)
    torch.testing.assert_close(curve.jackknife[-1], report.log_evidence_jackknife, **close)
    torch.testing.assert_close(curve.mc_se[-1], report.mc_se_log_evidence, **close)
    torch.testing.assert_close(curve.pareto_k, report.pareto_k, **close)
    torch.testing.assert_close(curve.log_evidence[0], report.elbo, **close)  # K = 1 is the ELBO, all draws used
    torch.testing.assert_close(curve.mc_se[0], report.mc_se_elbo, **close)


def test_every_rung_by_hand():
    table = 2 * torch.randn(250, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    columns = ladder(table, torch.zeros(3))
    assert rungs(250) == (1, 10, 100, 250)
    for rung, num_particles in enumerate(rungs(250)):
        blocks = [table[i : i + num_particles] for i in range(0, 250 - num_particles + 1, num_particles)]
        assert len(blocks) == 250 // num_particles
        evidence = torch.stack([estimators.log_evidence(block) for block in blocks])
        jackknife = torch.stack([estimators.log_evidence_jackknife(block) for block in blocks])
        one = estimators.log_evidence_se(blocks[0])
        error = evidence.std(0) / math.sqrt(len(blocks)) if len(blocks) > 1 else one
        for name, value in (("log_evidence", evidence.mean(0)), ("mc_se", error), ("jackknife", jackknife.mean(0))):
            torch.testing.assert_close(columns[name][rung], value, rtol=1e-12, atol=1e-12, equal_nan=True)
    assert torch.equal(columns["pareto_k"], estimators.pareto_k(table))


def test_the_jackknife_is_ahead_of_the_bound():
    # At K = 10 the bias is 0.08 nat; a third of it may be left.
    curve = curve_of(widened(ORACLE.guide, 1.5, shift=0.5))
    raw, corrected = (float((column[1] - EXACT).mean()) for column in (curve.log_evidence, curve.jackknife))
    assert raw < -0.05 and abs(corrected) < abs(raw) / 3
    assert curve.jackknife[0].isnan().all()


@pytest.mark.parametrize(
    "num_particles, expected",
    [(1, (1,)), (2, (1, 2)), (10, (1, 10)), (99, (1, 10, 99)), (100, (1, 10, 100)), (2500, (1, 10, 100, 1000, 2500))],
)
def test_rungs(num_particles, expected):
    assert rungs(num_particles) == expected


def test_an_exact_guide_is_flat():
    curve = curve_of(ORACLE.guide, num_particles=50)
    assert (curve.log_evidence - EXACT).abs().max() < 1e-10 and (curve.jackknife[1:] - EXACT).abs().max() < 1e-10
    assert (curve.pareto_k == -math.inf).all() and (curve.mc_se < 1e-10).all()


def test_equal_draws_of_a_discrete_guide_are_not_exact():
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.5 * torch.ones(())))
            pyro.sample("x", dist.Normal(5 * k, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Bernoulli(torch.tensor(1e-6)))

    curve = curve_of(guide, torch.zeros(3), model=model, num_particles=100)
    assert curve.pareto_k.isnan().all() and "undefined: 100.0%" in curve.summary()
    assert WHERE_DRAWN not in curve.summary()


def test_one_particle():
    curve = curve_of(ORACLE.guide, X[:3], num_particles=1)
    assert curve.num_particles == (1,) and curve.mc_se.isnan().all() and "-" in curve.summary()


def test_defensive_draws():
    heavy = ppca(20, 3, collinearity=0.9)
    x, _ = heavy.draw(N, seed=1)
    ends = [
        float((curve_of(heavy.mean_field_guide(), x, model=heavy.model, defensive=share).log_evidence[-1]).mean())
        for share in (0.0, 0.1)
    ]
    exact = float(heavy.log_evidence(x).mean())
    assert ends[0] < exact - 0.05 and abs(ends[1] - exact) < 0.05
    assert "0.9 guide + 0.1 prior" in curve_of(ORACLE.guide, num_particles=20, defensive=0.1).summary()


def test_the_table_by_hand(curve):
    table = curve.table()
    assert table["num_particles"].tolist() == [1, 10, 100, 1000, 2500] == list(curve.num_particles)
    for rung, (below, above) in enumerate(pairwise(curve.log_evidence.numpy()), start=1):
        step = above - below
        assert float(table["step"][rung]) == pytest.approx(step.mean(), rel=1e-10)
        assert float(table["step_se"][rung]) == pytest.approx(step.std(ddof=1) / math.sqrt(N), rel=1e-10)
        assert float(table["data_se"][rung]) == pytest.approx(above.std(ddof=1) / math.sqrt(N), rel=1e-10)
        mc_se = math.sqrt((curve.mc_se[rung].numpy() ** 2).sum()) / N
        assert float(table["mc_se"][rung]) == pytest.approx(mc_se, rel=1e-10)
    assert table["step"][0].isnan() and table["step_se"][0].isnan()


def test_the_summary(curve):
    lines = curve.summary().splitlines()
    assert "user's tensor" in lines[0] and "nats per datum" in lines[1] and "N = 100 data" in lines[1]
    rows = lines[4:9]
    assert [int(row.split()[0]) for row in rows] == list(curve.num_particles)
    assert [row.split()[1] for row in rows] == [f"{value:.3f}" for value in curve.log_evidence.mean(1).tolist()]
    assert "Pareto k-hat at K = 2500 above 0.70 or undefined" in lines[-2] and lines[-1] == WHERE_DRAWN
    assert str(curve) == curve.summary() and "N=100" in repr(curve)


def test_the_record_is_frozen_and_full(curve):
    assert curve.log_evidence.shape == curve.mc_se.shape == curve.jackknife.shape == (5, N)
    assert curve.pareto_k.shape == (N,) and curve.log_evidence.dtype == torch.float64
    with pytest.raises(dataclasses.FrozenInstanceError):
        curve.seed = 1
    assert isinstance(curve, Convergence) and curve.protocol.num_data == N


def test_bad_numbers():
    with pytest.raises(InputError, match="num_particles must be at least 1, got 0"):
        curve_of(ORACLE.guide, num_particles=0)


def test_nothing_is_left_behind():
    state = torch.get_rng_state()
    curve_of(ORACLE.guide, X[:3], num_particles=5)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_error_from_too_skewed_weights_is_told():
    """Posteriors of strong correlation under a guide without: a few of 100 weights carry the mean."""
    oracle = ppca(20, 3, collinearity=0.9)
    x, _ = oracle.draw(20, seed=0)
    curve = convergence(oracle.model, oracle.mean_field_guide(), x, num_particles=100, progress=False)
    assert curve.skewed > 0.05 and "MC SE may be too small, as terms are too skewed for K = 100" in curve.summary()
    exact = convergence(oracle.model, oracle.guide, x, num_particles=100, progress=False)
    assert exact.skewed == 0 and "MC SE may be too small" not in exact.summary()
