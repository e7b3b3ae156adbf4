"""Findings: their consequence in nats, held against what is known of the pair; and a new measurement adds its own."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

import pyrovae as pv
from pyrovae.base.records import Record
from pyrovae.reports.html import findings
from pyrovae.reports.html.findings import FINDINGS, Finding, TrainAndTest, divergence_from_uniform, ranked
from pyrovae.reports.html.sections import SECTIONS, section_of

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def oracle():
    return pv.oracles.ppca(6, 2)


@pytest.fixture(scope="module")
def x(oracle):
    return oracle.draw(60, seed=0)[0]


def rows(split, level, oracle, x):
    """A report that says to be of a split, every evidence at one level."""
    report = pv.evaluate(oracle.model, oracle.guide, x, num_particles=50, **QUIET)
    columns = {**report.columns, "log_evidence": report.log_evidence + level}
    return replace(report, columns=columns, protocol=replace(report.protocol, split=split))


def test_every_kind_that_is_found_has_a_section():
    assert set(FINDINGS) - {TrainAndTest} <= set(SECTIONS)


def test_the_gap_between_elbo_and_evidence_is_the_divergence_from_the_posterior(oracle, x):
    """4 standard errors of the mean KL, which the oracle knows."""
    guide = oracle.mean_field_guide(0.7, 0.3)
    report = pv.evaluate(oracle.model, guide, x, num_particles=2000, **QUIET)
    exact = float((oracle.log_evidence(x) - report.elbo).mean())
    found = next(one for one in ranked([report]) if "below log p(x)" in one.sentence)
    assert found.nats == pytest.approx(exact, abs=4 * report.to_dict()["log_evidence"]["mc_se"] + 1e-3)
    assert findings.elbo_falls_short(pv.evaluate(oracle.model, oracle.guide, x, num_particles=50, **QUIET)) is None


def test_unreliable_rows_are_counted_with_what_they_are_worth(oracle, x):
    poor = pv.widened(oracle.guide, 0.3, shift=1.0)
    report = pv.evaluate(oracle.model, poor, x, num_particles=100, method="importance", **QUIET)
    found = findings.unreliable_rows(report)
    assert report.fraction_unreliable > 0.1 and found.sentence.startswith(f"{report.fraction_unreliable:.0%}"[:-1])
    moved = (report.log_evidence_psis - report.log_evidence).abs()[report.unreliable].sum() / len(report)
    assert found.nats >= float(moved) > 0
    good = findings.unreliable_rows(pv.evaluate(oracle.model, oracle.guide, x, num_particles=50, **QUIET))
    assert good.nats == 0 and "reliable" in good.sentence


def test_what_one_draw_cannot_tell_is_unknown_and_stands_first(oracle, x):
    report = pv.evaluate(oracle.model, oracle.mean_field_guide(), x, num_particles=1, method="importance", **QUIET)
    first = ranked([report])[0]
    assert first.nats == math.inf and "too few draws" in first.sentence


def test_one_row_tells_nothing_of_overfitting(oracle, x):
    assert findings.overfitting(TrainAndTest(rows("train", 5.0, oracle, x[:1]), rows("test", 0.0, oracle, x))) is None


@pytest.mark.parametrize("num_ranks", [2, 8, 50, 97, 100])
def test_ranks_that_are_evenly_spread_tell_of_no_divergence(num_ranks):
    levels = (torch.arange(num_ranks).repeat(100).double() + 0.5) / num_ranks
    assert divergence_from_uniform(levels, findings.even_bins(num_ranks)) < 1e-6


def test_what_better_proposals_found_is_told_with_its_cost(oracle, x):
    report = pv.evaluate(oracle.model, pv.widened(oracle.guide, 0.3, shift=1.0), x, num_particles=200, **QUIET)
    found = findings.guide_too_narrow(report)
    short = float((report.log_evidence - report.log_evidence_importance).mean())
    assert found.nats == pytest.approx(short) and "decoder passes" in found.sentence
    assert findings.guide_too_narrow(pv.evaluate(oracle.model, oracle.guide, x, num_particles=50, **QUIET)) is None


def test_overfitting_beyond_its_error_alone_is_called_so(oracle, x):
    train, test = rows("train", 5.0, oracle, x), rows("test", 0.0, oracle, x)
    found = findings.overfitting(TrainAndTest(train, test))
    assert found.nats == pytest.approx(5.0) and found.sentence.startswith("Over-fitting")
    same = findings.overfitting(TrainAndTest(rows("train", 0.1, oracle, x), test))
    assert same.sentence.startswith("No over-fitting seen")


def fit_with(valid, best_epoch=None):
    history = [{"epoch": e, "elbo": -90.0, "valid_elbo": v} for e, v in enumerate(valid, 1)]
    return pv.Fit(None, None, history, best_epoch=best_epoch)


def test_a_fit_past_its_best_says_what_it_lost():
    lost = findings.past_its_best(fit_with([-100, -95, *[-93.0 - i for i in range(10)]]))
    assert lost.nats == pytest.approx(9) and "best at epoch 3 of 12" in lost.sentence
    rising = findings.past_its_best(fit_with([-100.0 + i for i in range(20)]))
    assert rising.nats == pytest.approx(2) and "more epochs may find more" in rising.sentence
    assert findings.past_its_best(fit_with([-100, -95, -99] * 5, best_epoch=2)) is None
    gap = findings.training_gap(fit_with([-100.0, -95.0, -97.0], best_epoch=2))
    assert gap.nats == pytest.approx(5) and "epoch 2" in gap.sentence


def test_calibration_is_off_by_at_most_the_true_divergence(oracle, x):
    """Ranks cannot see more of KL(posterior || guide) than there is; 500 simulations, bias taken off."""
    scale = 0.5
    exact = 2 * (math.log(scale) - 0.5 + 0.5 / scale**2)  # of two coordinates, in whatever direction
    record = pv.calibrate(oracle.model, pv.widened(oracle.guide, scale), x, num_simulations=500, **QUIET)
    found = findings.miscalibration(record)
    assert 0.05 < found.nats < exact and "too narrow" in found.sentence
    passed = pv.calibrate(oracle.model, oracle.guide, x, num_simulations=300, num_draws=49, num_particles=50, **QUIET)
    assert findings.miscalibration(passed).nats == 0


def test_the_divergence_of_a_histogram_is_unbiased_where_it_is_zero():
    """The mean of 400 of them, before what is below 0 is cut off, is within 4 standard errors of 0."""
    torch.manual_seed(0)
    bins, size = 10, 300
    values = []
    for _ in range(400):
        levels = torch.rand(size, dtype=torch.float64)
        share = torch.histc(levels, bins, 0, 1) / size
        values.append(float(torch.special.xlogy(share, share * bins).sum()) - (bins - 1) / (2 * size))
        assert divergence_from_uniform(levels) == max(values[-1], 0.0)
    values = torch.tensor(values)
    assert abs(float(values.mean())) < 4 * float(values.std()) / 20 + 5e-4
    half = 0.5 * torch.rand(20_000, dtype=torch.float64)
    assert divergence_from_uniform(half) == pytest.approx(math.log(2), abs=0.01)


def test_a_misfit_is_at_most_the_true_divergence(oracle, x):
    """Data that are half again as wide as the model's: no coordinate can show more than its own KL."""
    record = pv.predictive_check(oracle.model, oracle.guide, 2.0 * oracle.draw(400, seed=3)[0], num_draws=99, **QUIET)
    found = findings.misfit(record)
    one = 0.5 * (2.0**2 - 1) - math.log(2.0)  # KL(N(0, 4 s^2) || N(0, s^2))
    assert 0.1 < found.nats < one and "misfits" in found.sentence


def test_a_prior_whose_worth_is_not_known_has_no_number(oracle, x):
    record = pv.surgery(oracle.model, oracle.guide, x, **QUIET)
    mutual = record.mutual_information._replace(mean=record.log_num_data)
    unknown = record.prior_gain._replace(mean=math.nan)
    found = findings.prior_mismatch(replace(record, mutual_information=mutual, prior_gain=unknown))
    assert found.nats is None and "ceiling" in found.sentence
    known = record.prior_gain._replace(mean=1.25, data_se=0.1)
    found = findings.prior_mismatch(replace(record, mutual_information=mutual, prior_gain=known))
    assert found.nats == 1.25 and "at least 1.25 nats" in found.sentence


def test_a_new_measurement_adds_its_own(monkeypatch):
    @dataclass(frozen=True)
    class RowCount(Record):
        """How many rows there are.

        And more.
        """

        count: int

        def lines(self):
            return [f"{self.count} rows"]

    monkeypatch.setitem(FINDINGS, RowCount, [lambda one: Finding(one.count / 10, "There are rows", "row-count")])
    record = RowCount(7)
    assert ranked([record]) == [Finding(0.7, "There are rows", "row-count")]
    section = section_of(record, "p")
    assert section[:3] == ("row-count", "Row count", "How many rows there are.") and section.blocks == ("7 rows",)
    text = record.to_html()
    assert 'href="#p1-row-count"' in text and "There are rows." in text and "0.7 nat<" in text
