"""scikit-learn's estimator: all of its checks, and the company that it keeps: pipelines, searches, other densities."""

import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pyrovae as pv
from pyrovae.base.errors import InputError

VAE = pv.sklearn.VAE
TINY = {"hidden_layer_sizes": (8,), "max_iter": 2, "n_particles": 100}
QUICK = TINY | {"method": "importance"}  # what two epochs leave is not worth a repair


@parametrize_with_checks([VAE(**TINY), VAE(**QUICK, missing="observed")])
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def table(num_rows=200, seed=0):
    """Three columns that a curve runs through, in units far apart."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(-2, 2, num_rows)
    columns = [t + 0.2 * rng.normal(size=num_rows), t**2 + 0.2 * rng.normal(size=num_rows), rng.normal(size=num_rows)]
    return np.stack(columns, 1) * [1.0, 100.0, 0.01] + [0.0, 5000.0, 7.0]


@pytest.fixture(scope="module")
def fitted():
    how = {"hidden_layer_sizes": (30,), "max_iter": 200}
    return VAE(2, **how, n_particles=200).fit(table())


@pytest.fixture(scope="module")
def later():
    return table(40, seed=1)


# ----------------------------------------------------------------------------------------------- what the numbers are


def test_scores_are_those_of_the_report_in_the_unit_of_x(fitted, later):
    # 4 standard errors of both, of rows and of their mean, whose noise is shared.
    report = fitted.evidence(later)
    score, scale = fitted.score_samples(later), torch.tensor(fitted.columns_.scale).log().sum()
    expected, se = report.log_evidence - scale, 1.5 * report.mc_se_log_evidence + 1e-6
    assert ((torch.from_numpy(score) - expected).abs() < 4 * se).double().mean() > 0.95
    assert abs(fitted.score(later) - score.mean()) < 1e-12
    assert abs(score.mean() - expected.mean()) < 4 * se.mean()
    elbo = fitted.elbo(later)
    assert ((elbo - (report.elbo - scale).numpy()) / report.mc_se_elbo.numpy()).std() < 3
    assert elbo.mean() < score.mean() and (elbo < score + 0.1).all()


def test_a_unit_is_worth_its_logarithm(later):
    """Rows times c have log densities lower by the sum of log c: the fit inside is the same."""
    units = np.array([10.0, 0.5, 3.0])
    one, other = (VAE(1, **QUICK).fit(table() * c).score_samples(later * c) for c in (np.ones(3), units))
    np.testing.assert_allclose(other, one - np.log(units).sum(), atol=2e-4)


def test_a_density_on_the_line_integrates_to_one():
    """By the trapezoid rule over a range that holds all of it; 2 %: the errors of all rows are one error."""
    x = np.random.default_rng(0).normal(3.0, 2.0, (150, 1))
    vae = VAE(1, hidden_layer_sizes=(10,), max_iter=15, n_particles=400).fit(x)
    grid = np.linspace(-30, 36, 100)
    assert abs(np.trapezoid(np.exp(vae.score_samples(grid[:, None])), grid) - 1) < 0.02


def test_the_number_of_a_row_is_its_own(fitted, later):
    later = later[:15]
    order = np.random.default_rng(0).permutation(len(later))
    for method in (fitted.score_samples, fitted.elbo, fitted.transform):
        whole = method(later)
        np.testing.assert_allclose(method(later[order]), whole[order], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(np.concatenate([method(later[i : i + 1]) for i in range(3)]), whole[:3], atol=1e-9)


def test_it_is_better_than_a_straight_line_at_what_is_curved(fitted, later):
    """The exact densities of PCA and FactorAnalysis on the same rows; 2 standard errors of the paired difference."""
    for other in (PCA(1), FactorAnalysis(1)):
        difference = fitted.score_samples(later) - other.fit(table()).score_samples(later)
        assert difference.mean() > 2 * difference.std() / math.sqrt(len(later))


def test_codes_go_back_to_rows(fitted, later):
    codes = fitted.transform(later)
    back = fitted.inverse_transform(codes)
    assert codes.shape == (40, 2) and back.shape == later.shape
    spread = ((back - later) / later.std(0)).std(0)
    assert (spread[:2] < 0.6).all()  # the two that are one curve
    assert fitted.transform(later.astype(np.float32)).dtype == np.float32


def test_simulated_rows_are_in_the_unit_of_x(fitted):
    # 5 standard errors of a mean over 2,000, and what a short fit leaves.
    drawn, x = fitted.sample(2000), table()
    assert drawn.shape == (2000, 3)
    assert (np.abs(drawn.mean(0) - x.mean(0)) < (0.3 + 5 / math.sqrt(2000)) * x.std(0)).all()
    assert (drawn == fitted.sample(2000)).all() and (drawn != fitted.sample(2000, random_state=1)).any()


# ------------------------------------------------------------------------------------------------- beside the others


def test_one_metric_for_all_densities(fitted, later):
    beside = [PCA(1), FactorAnalysis(1), GaussianMixture(3, random_state=0), VAE(1, **QUICK)]
    means = [cross_val_score(one, table(60), cv=2).mean() for one in beside]
    assert np.isfinite(means).all()


def test_a_search_over_what_can_be_swapped():
    found = GridSearchCV(VAE(1, **QUICK), {"prior": ["normal", "mixture:3"]}, cv=2).fit(table(40))
    assert found.best_params_["prior"] in ("normal", "mixture:3") and math.isfinite(found.best_score_)


def test_a_pipeline_with_names_of_frames(later):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table(), columns=["a", "b", "c"])
    pipe = make_pipeline(StandardScaler(), VAE(2, **QUICK)).set_output(transform="pandas").fit(frame)
    codes = pipe.transform(pandas.DataFrame(later, columns=["a", "b", "c"]))
    assert list(codes.columns) == ["vae0", "vae1"] and list(pipe[-1].feature_names_in_) == ["a", "b", "c"]
    assert math.isfinite(pipe.score(frame))


def test_a_pickle_gives_the_same_numbers(fitted, later):
    back = pickle.loads(pickle.dumps(fitted))  # noqa: S301
    np.testing.assert_array_equal(back.score_samples(later), fitted.score_samples(later))
    np.testing.assert_array_equal(back.sample(5), fitted.sample(5))
    assert back.history_ == fitted.history_


def test_its_rows_and_programs_go_into_every_other_function(fitted, later):
    gaps = pv.surgery(*fitted.pair, fitted.split(later), progress=False)
    assert len(gaps) == 40


def test_another_seed_is_another_fit():
    a, b, again = (VAE(1, **QUICK, random_state=seed).fit(table(40)).score(table(40)) for seed in (0, 1, 0))
    assert a == again != b


def test_patience_ends_a_fit_and_keeps_the_best():
    vae = VAE(1, hidden_layer_sizes=(8,), max_iter=200, learning_rate=0.05, n_iter_no_change=3).fit(table(60))
    assert 4 <= vae.n_iter_ < 200 and "valid_elbo" in vae.history_[0]


# -------------------------------------------------------------------------------------------------- frames and kinds


def mixed(num_rows=120, seed=0):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(seed)
    t = rng.normal(size=num_rows)
    level = np.digitize(t, [-0.5, 0.5])
    return pandas.DataFrame(
        {
            "length": 10 + 3 * t + rng.normal(size=num_rows),
            "colour": np.array(["red", "green", "blue"])[level],
            "size": pandas.Categorical(np.array(["S", "M", "L"])[level], categories=["S", "M", "L"], ordered=True),
            "visits": rng.poisson(np.exp(1 + 0.5 * t)),
        }
    )


def test_a_frame_with_text_categories_and_counts():
    frame = mixed()
    vae = VAE(1, **QUICK, columns={"visits": "count"}).fit(frame)
    assert [one.kind for one in vae.columns_] == ["real", "categorical", "ordinal", "count"]
    assert vae.likelihood_.startswith("mixed(")
    drawn = vae.sample(50)
    assert set(drawn[:, 1]) <= {"red", "green", "blue"} and set(drawn[:, 2]) <= {"S", "M", "L"}
    back = vae.inverse_transform(vae.transform(frame))
    assert back.shape == (120, 4) and set(back[:, 1]) <= {"red", "green", "blue"}
    assert np.isfinite(vae.score_samples(frame)).all()
    with pytest.raises(ValueError, match="feature names"):
        vae.score_samples(frame[["colour", "length", "size", "visits"]])


def test_missing_cells_are_refused_unless_they_may_be():
    frame = mixed()
    frame.loc[3, "length"] = np.nan
    frame.loc[5, "colour"] = None
    with pytest.raises(InputError, match="missing='observed' leaves them out"):
        VAE(1, **QUICK).fit(frame)
    vae = VAE(1, **QUICK, missing="observed").fit(frame)
    assert np.isfinite(vae.score_samples(frame)).all() and not any(cell != cell for cell in vae.sample(5)[:, 0])


def test_a_row_has_the_density_of_what_was_observed():
    """A row without anything seen has density 1; a unit counts for the columns that are there."""
    x = table()
    x[::7, 1] = np.nan
    later = np.array([[np.nan] * 3, [1.0, np.nan, np.nan], [1.0, 5100.0, np.nan]])
    one, other = (
        VAE(1, **TINY, missing="observed").fit(x * c).score_samples(later * c)
        for c in (np.ones(3), np.array([1.0, 10.0, 1.0]))
    )
    assert abs(one[0]) < 1e-9
    np.testing.assert_allclose(one - other, [0, 0, math.log(10)], atol=2e-4)


def test_counts_and_bits_are_taken_as_they_are_found():
    rng = np.random.default_rng(0)
    bits = (rng.random((80, 6)) < 0.3).astype(float)
    vae = VAE(1, **TINY, likelihood="bernoulli").fit(bits)
    assert vae.columns_ is None and vae.score(bits) < 0
    every = np.array([[(i >> d) & 1 for d in range(6)] for i in range(64)], float)
    assert abs(np.exp(vae.score_samples(every)).sum() - 1) < 0.05  # a mass; 100 particles, errors of all one error
    assert VAE(1, **QUICK, standardize=False).fit(bits).likelihood_ == "bernoulli"
    assert "negative_binomial" in VAE(1, **QUICK, columns="count").fit(rng.poisson(3.0, (50, 2))).likelihood_


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"prior": "vmap"}, "unknown prior 'vmap'.*vamp"),
        ({"n_components": 0}, "n_components must be a whole number from 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"missing": "mean"}, "missing is one of error, observed, got 'mean'"),
        ({"columns": {"x0": "ignored"}}, "select columns before"),
        ({"columns": "count"}, 'column "x0" is count'),
        ({"n_iter_no_change": 2, "validation_fraction": 1.5}, "validation_fraction must be between 0 and 1"),
    ],
)
def test_what_is_wrong_is_said_in_fit(wrong, says):
    with pytest.raises(InputError, match=says):
        VAE(**{**QUICK, **wrong}).fit(table())


def test_a_constant_column_has_no_density():
    x = table()
    x[:, 2] = 1.0
    with pytest.raises(InputError, match='column "x2" is constant'):
        VAE(1, **QUICK).fit(x)


def test_codes_of_another_width(fitted):
    with pytest.raises(InputError, match="expected codes of 2 numbers each, got 3"):
        fitted.inverse_transform(np.zeros((1, 3)))


def test_parameters_are_plain_and_cloned():
    vae = VAE(3, prior="vamp:5", hidden_layer_sizes=(7, 7))
    assert clone(vae).get_params() == vae.get_params() and "prior='vamp:5'" in repr(vae)
