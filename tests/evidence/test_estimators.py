"""Estimators against closed cases, and their own spread over repetitions."""

import math
import warnings

import pytest
import torch

from pyrovae.evidence import estimators as est

LIMIT = {"rtol": 1e-12, "atol": 1e-12}


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def log_weights(num_particles, num_data, width, seed=0, dim=3):
    """Posterior N(0, I), guide N(0, width^2 I): log p / q, (K, N)."""
    eps = doubles(num_particles, num_data, dim, seed=seed)
    return (dim * math.log(width) + (eps**2 - (width * eps) ** 2).sum(-1) / 2).double()


def same(actual, expected):
    expected = torch.as_tensor(expected, dtype=torch.float64).expand(actual.shape)
    torch.testing.assert_close(actual, expected, equal_nan=True, **LIMIT)


# ----------------------------------------------------------------------------------------- closed cases


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


TWO = column(0, 2).log()  # the weights 0 and 2: mean 1
EQUAL = torch.full((7, 2), -3.5)

CLOSED = {  # name: (function, table, value)
    "mean": (est.mean, column(1, 2, 6), 3.0),
    "mean-se": (est.mean_se, column(1, 3), 1.0),
    "elbo": (est.elbo, column(0, 2), 1.0),
    "elbo-of-a-zero-weight": (est.elbo, TWO, -math.inf),
    "evidence": (est.log_evidence, TWO, 0.0),
    "evidence-equal": (est.log_evidence, EQUAL, -3.5),
    "evidence-one-particle": (est.log_evidence, column(4), 4.0),
    "evidence-se": (est.log_evidence_se, TWO, 1.0),
    "evidence-se-equal": (est.log_evidence_se, EQUAL, 0.0),
    "evidence-bias": (est.log_evidence_bias, column(0.2)[0], -0.02),
    "kl-posterior-equal": (est.kl_posterior, EQUAL, 0.0),
    "kl-posterior": (est.kl_posterior, column(1, 3).log(), math.log(2) - math.log(3) / 2),
    "kl-posterior-se": (est.kl_posterior_se, column(1, 3).log(), (math.log(3) - 1) / 2),
    "kl-posterior-se-equal": (est.kl_posterior_se, EQUAL, 0.0),
    "relative-weight": (lambda table: est.relative_weight(table)[1], TWO, 2.0),
    "jackknife": (est.log_evidence_jackknife, column(1, 3).log(), 2 * math.log(2) - math.log(3) / 2),
    "jackknife-equal": (est.log_evidence_jackknife, EQUAL, -3.5),
    "jackknife-one-particle": (est.log_evidence_jackknife, column(4), math.nan),
    "jackknife-of-zero-weights": (est.log_evidence_jackknife, column(0, 0, 0).log(), -math.inf),
    "jackknife-of-one-weight-that-is-not-zero": (est.log_evidence_jackknife, TWO, math.inf),
    "jackknife-se": (est.log_evidence_jackknife_se, column(1, 3).log(), math.log(3) / 2),
    "jackknife-se-equal": (est.log_evidence_jackknife_se, EQUAL, 0.0),
    "psis-of-few": (est.log_evidence_psis, TWO, 0.0),
    "skewness": (est.skewness, column(0, 0, 3), math.sqrt(0.5)),
    "skewness-equal": (est.skewness, EQUAL, 0.0),
    "skewness-of-strata": (lambda table: est.skewness(torch.stack([table, 0 * table], 1)), column(0, 0, 3), 0.5**0.5),
    "few-draws-equal": (est.few_draws_factor, EQUAL, 1 + (1.96**2 + 1) / 4 / 5),
    "mean-se-of-few": (est.mean_se_of_few, column(1, 2, 6), math.sqrt(7 / 3) * 2.3729956863751216),
    "evidence-se-of-few-equal": (est.log_evidence_se_of_few, EQUAL, 0.0),
    "ess-equal": (est.ess, EQUAL, 7.0),
    "ess-one": (est.ess, column(1, 0, 0, 0).log(), 1.0),
    "ess-two-of-three": (est.ess, column(1, 1, 0).log(), 2.0),
}


@pytest.mark.parametrize("case", CLOSED.values(), ids=CLOSED)
def test_closed_cases(case):
    function, table, value = case
    same(function(table), value)


NEEDS_TWO = {
    "mean": est.mean_se,
    "evidence": est.log_evidence_se,
    "jackknife": est.log_evidence_jackknife_se,
    "kl-posterior": est.kl_posterior_se,
}


@pytest.mark.parametrize("function", NEEDS_TWO.values(), ids=NEEDS_TWO)
def test_one_particle_has_no_error(function):
    assert function(doubles(1, 5)).isnan().all()


def test_identities():
    likelihood, prior, guide = (100 * doubles(50, 30, seed=seed) for seed in range(3))
    log_weight = likelihood + prior - guide
    same(est.elbo(log_weight), est.mean(likelihood) - est.mean(guide - prior))
    same(est.log_evidence(log_weight), est.elbo(log_weight) + est.kl_posterior(log_weight))
    assert (est.kl_posterior(log_weight) >= 0).all()
    assert ((est.ess(log_weight) >= 1 - 1e-12) & (est.ess(log_weight) <= 50 + 1e-9)).all()


SHIFTED = (est.elbo, est.log_evidence, est.log_evidence_jackknife, est.log_evidence_psis)
UNSHIFTED = (est.log_evidence_se, est.log_evidence_jackknife_se, est.kl_posterior_se, est.ess, est.pareto_k)


@pytest.mark.parametrize("seed", range(200))
def test_a_constant_only_shifts(seed):
    table, constant = doubles(200, 5, seed=seed), [-1e6, -1e4, 1e4, 100.0][seed % 4] * (1 + seed / 200)
    for function in SHIFTED:
        torch.testing.assert_close(function(table + constant), function(table) + constant, rtol=1e-14, atol=1e-9)
    for function in UNSHIFTED:
        torch.testing.assert_close(function(table + constant), function(table), rtol=1e-7, atol=1e-7)


def test_all_weights_zero():
    table = torch.full((100, 2), -math.inf)
    assert all((function(table) == -math.inf).all() for function in SHIFTED)
    assert est.pareto_k(table).isnan().all()


@pytest.mark.parametrize("function", SHIFTED)
def test_a_nan_is_never_dropped(function):
    table = doubles(100, 3)
    table[50, 1] = math.nan
    assert function(table).isnan().tolist() == [False, True, False]


def test_float32_tables_are_summed_in_float64():
    table = torch.full((100_000, 1), 0.1)
    same(est.mean(table), torch.tensor(0.1).double())


# -------------------------------------------------------------------------------------------- jackknife


def left_out(table):
    """L_{K-1} without each weight in turn, (K, N), each by a sum of its own."""
    rest = [torch.cat([table[:k], table[k + 1 :]]) for k in range(len(table))]
    return torch.stack([est.log_evidence(part) for part in rest])


TABLES = {  # name: log weights (K, N)
    "alike": 1e-6 * doubles(30, 4),
    "spread": doubles(30, 4),
    "two": doubles(2, 4),
    "one-outweighs-the-rest": torch.cat([doubles(20, 3), torch.tensor([[30.0, 50.0, 900.0]]).double()]),
    "two-outweigh-the-rest": torch.cat([doubles(20, 1), torch.tensor([[40.0], [40.5]]).double()]),
    "some-are-zero": torch.where(doubles(20, 2) > 0, -math.inf, doubles(20, 2, seed=1)),
    "far-from-one": doubles(25, 3) - 1e4,
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_jackknife_is_that_of_the_definition(table):
    pseudo = len(table) * est.log_evidence(table) - (len(table) - 1) * left_out(table)
    close = {"rtol": 1e-11, "atol": 1e-10}
    torch.testing.assert_close(est.log_evidence_jackknife(table), pseudo.mean(0), **close)
    torch.testing.assert_close(est.log_evidence_jackknife_se(table), est.mean_se(pseudo), **close)


@pytest.mark.parametrize("num_particles", [20, 50, 100])
def test_jackknife_cuts_the_bias(num_particles):
    # The evidence is 1. 20,000 repetitions, with the mean weight as control variate (its mean is 1, without bias);
    # the bias that is left is held to a tenth, plus 4 of its standard errors, which are under a fiftieth.
    table = log_weights(num_particles, 20_000, 1.5, seed=num_particles)
    raw, corrected = est.log_evidence(table), est.log_evidence_jackknife(table)
    control = raw.exp() - 1
    bias, left = float((raw - control).mean()), float((corrected - control).mean())
    se = float((corrected - control).std()) / math.sqrt(len(control))
    assert bias < 0 and se < abs(bias) / 50
    assert abs(left) < 0.1 * abs(bias) + 4 * se


# ------------------------------------------------------------------------- errors against repetitions

REPETITIONS = 400
ERRORS = {  # name: (estimate, its standard error, how far the mean error may be from the sd of 400 repetitions)
    "elbo": (est.elbo, est.mean_se, 0.15),
    "log-evidence": (est.log_evidence, est.log_evidence_se, 0.15),
    "jackknife": (est.log_evidence_jackknife, est.log_evidence_jackknife_se, 0.15),
    "kl-posterior": (est.kl_posterior, est.kl_posterior_se, 0.15),
}


@pytest.mark.parametrize("width", [0.95, 1.3])
@pytest.mark.parametrize("case", ERRORS.values(), ids=ERRORS)
def test_standard_errors(case, width):
    # An sd of 400 repetitions is known to 1/sqrt(800) = 3.5 %: 15 % is 4 standard errors.
    estimate, error, tolerance = case
    table = log_weights(1000, REPETITIONS, width, seed=5)
    assert float(error(table).mean() / estimate(table).std()) == pytest.approx(1, abs=tolerance)


def coverage(estimate, error, truth, where=slice(None)):
    return float(((estimate - truth).abs() <= 1.96 * error)[where].double().mean())


@pytest.mark.parametrize("num_draws", [2, 3, 4, 8, 16, 50])
def test_few_draws_without_skewness_are_students(num_draws):
    # Of 40,000 repetitions: 4 standard errors of a coverage are 0.45 %; the next order in 1/K is allowed 1 / K^2.
    table = doubles(num_draws, 40_000, seed=num_draws)
    wider = est.mean_se(table) * est.few_draws_factor(table)
    assert coverage(est.mean(table), wider, 0.0) == pytest.approx(0.95, abs=0.0045 + 1 / num_draws**2)


@pytest.mark.parametrize("spread", [0.1, 0.3, 0.5])
def test_error_of_the_evidence_from_sixteen_weights(spread):
    # Log-normal weights, as chains have them; 40,000 repetitions.
    table = spread * doubles(16, 40_000, seed=3) - spread**2 / 2
    evidence, of_few = est.log_evidence(table), est.log_evidence_se_of_few(table)
    assert 0.93 < coverage(evidence, of_few, 0.0) < 0.97
    assert coverage(evidence, est.log_evidence_se(table), 0.0) < 0.935


SKEWED = {  # name: (log weights, whether more than 5 % of 4000 repetitions must be called skewed for elbo, KL, evidence)
    "wide, many": (lambda: log_weights(1000, 4000, 1.2, seed=1), (False, False, False)),
    "wide, few": (lambda: log_weights(100, 4000, 1.2, seed=2), (None, True, False)),
    "narrow": (lambda: log_weights(1000, 4000, 0.75, seed=3), (False, True, True)),
}


@pytest.mark.parametrize(("table", "expected"), SKEWED.values(), ids=SKEWED)
def test_what_is_not_called_skewed_covers(table, expected):
    table = table()
    relative = est.relative_weight(table)
    means = {
        "elbo": (est.elbo(table), est.mean_se(table), float(table.mean()), table),
        "kl": (est.kl_posterior(table), est.kl_posterior_se(table), -float(table.mean()), relative - table),
        "evidence": (est.log_evidence(table), est.log_evidence_se(table), 0.0, relative),
    }
    for (value, error, truth, terms), skewed in zip(means.values(), expected, strict=True):
        found = float(est.is_skewed(est.skewness(terms), len(table)).double().mean()) > 0.05
        assert skewed is None or found == skewed
        if not found:  # 4 standard errors of a coverage over 4000 repetitions are 1.4 %
            assert 0.93 - 0.006 < coverage(value, error, truth) < 0.97


def test_what_cannot_be_told_is_skewed():
    assert est.is_skewed_for_few(torch.tensor([0.0, math.nan]), 15).all()
    assert est.is_skewed_for_few(torch.tensor([2.0, -2.5, math.nan]), 16).tolist() == [False, True, True]
    assert est.is_skewed(torch.tensor([0.0, math.nan]), 15).all()
    assert est.is_skewed(torch.tensor([0.0, math.nan]), 16).tolist() == [False, True]


def test_bias_of_the_evidence():
    # The mean error of 20,000 repetitions at K = 50, in 4 standard errors plus 15 % for the next order in 1/K.
    table = log_weights(50, 20_000, 1.5, seed=6)
    error = est.log_evidence(table)  # the evidence is 1
    predicted = float(est.log_evidence_bias(est.log_evidence_se(table)).mean())
    se = float(error.std()) / math.sqrt(len(error))
    assert float(error.mean()) < -4 * se  # there is something to predict
    assert abs(float(error.mean()) - predicted) < 4 * se + 0.15 * abs(predicted)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
