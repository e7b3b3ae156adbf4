"""Data completed in the type that they came in, by means and by draws."""

import math

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.apps import recipes
from pyrovae.base.errors import InputError
from pyrovae.posteriors.missing.imputation import completed_frame


@pytest.fixture(scope="module")
def pair(problem):
    return problem.oracle.complete.model, problem.oracle.guide


@pytest.fixture(scope="module")
def x(problem):
    return pv.hide(problem.x[:20], problem.observed[:20])


def test_the_mean_is_that_of_the_conditional(problem, pair, x):
    whole = pv.impute(*pair, x)
    for row in range(20):
        exact = problem.exact(row)
        # 4 standard errors of 1,000 draws of latents.
        assert (
            (whole[row][exact.missing] - exact.mean).abs() < 4 * exact.covariance.diagonal().sqrt() / 1000**0.5
        ).all()
    assert torch.equal(whole[~x.isnan()], x[~x.isnan()])


TYPES = {
    "tensor": lambda x: x,
    "array": lambda x: x.numpy(),
    "tuple": lambda x: (x, torch.arange(len(x))),
    "split": pv.data.as_split,
}


@pytest.mark.parametrize("kind", ["mean", "draws"])
@pytest.mark.parametrize("name", TYPES)
def test_data_come_back_in_their_type(pair, x, name, kind):
    model, guide = ((lambda x, *_, of=of: of(x)) for of in pair)
    given = TYPES[name](x)
    found = pv.impute(model, guide, given, kind=kind, num_imputations=3, num_particles=100)
    found = found if kind == "draws" else [found]
    assert len(found) == (3 if kind == "draws" else 1)
    read = {"tensor": lambda d: d, "array": torch.as_tensor, "tuple": lambda d: d[0], "split": lambda d: d.x}[name]
    for one in found:
        assert type(one) is type(given)
        assert read(one).isfinite().all() and torch.equal(read(one)[~x.isnan()], x[~x.isnan()])
    if name == "array":
        assert found[0].dtype == np.float64
    if kind == "draws":
        assert not torch.equal(read(found[0]), read(found[1]))


def test_complete_data_stay_as_they_are(problem, pair):
    x = problem.x[:4]
    assert torch.equal(pv.impute(*pair, x), x)
    assert all(torch.equal(one, x) for one in pv.impute(*pair, x, kind="draws", num_imputations=2))


def test_frames_keep_their_categories_units_and_types():
    pandas = pytest.importorskip("pandas")
    rng = np.random.RandomState(0)
    size = rng.choice(["small", "large"], 120)
    frame = pandas.DataFrame(
        {
            "height": np.where(size == "large", 180.0, 150.0) + rng.randn(120),
            "size": pandas.Categorical(size, categories=["small", "large"], ordered=True),
            "visits": rng.poisson(np.where(size == "large", 40.0, 4.0)).astype(float),
            "colour": rng.choice(["red", "green", "blue"], 120),
            "smokes": rng.choice([0.0, 1.0], 120),
        }
    )
    gone = rng.rand(*frame.shape) < 0.2
    gone[:, 0] &= ~gone[:, 1]
    holed = frame.mask(gone)
    dataset = pv.data.load(holed)
    recipe = {"prior": "normal", "likelihood": "mixed", "guide": "normal", "network": "mlp"}
    vae = recipes.build({**recipe, "latent": 2, "hidden": [20], "seed": 0}, dataset)
    fitted = pv.fit(vae.model, vae.guide, dataset.train, epochs=150, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))
    mean = pv.impute(fitted.model, fitted.guide, holed, like=dataset, num_particles=200)
    draws = pv.impute(
        fitted.model, fitted.guide, holed, like=dataset, kind="draws", num_imputations=2, num_particles=200
    )
    for whole in (mean, *draws):
        assert list(whole.columns) == list(frame.columns) and (whole.dtypes == frame.dtypes).all()
        assert not whole.isna().any().any()
        assert whole.mask(gone).equals(holed)
        assert set(whole["colour"]) <= {"red", "green", "blue"} and set(whole["smokes"]) <= {0.0, 1.0}
        assert (whole["visits"] % 1 == 0).all()
    missing = gone[:, 0]
    assert (mean["height"][missing] - frame["height"][missing]).abs().mean() < 8  # of 15 from the mean of all


def test_a_mean_in_a_column_of_whole_numbers_is_no_whole_number():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": pandas.array([1, None, 3] * 20, "Int64"), "name": ["a", "", "b"] * 20})
    columns = pv.data.load(frame, columns={"age": "real"}).columns
    x = torch.tensor([[0.0, 0.0], [0.25, 1.0], [0.0, 0.0]]).repeat(20, 1)
    whole = completed_frame(frame, columns, x)
    age, name = columns.decoded(x[1:2]).values()
    assert not float(age[0]).is_integer()
    assert whole["age"].tolist() == [1, age[0], 3] * 20 and whole["name"].tolist() == ["a", name[0], "b"] * 20


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"kind": "median"}, "kind is one of mean, draws, got 'median'"),
        ({"num_imputations": 0}, "num_imputations must be at least 1"),
        ({"like": pv.data.load("digits")}, "like= is for frames alone"),
    ],
)
def test_what_does_not_fit_is_refused(pair, x, how, message):
    with pytest.raises(InputError, match=message):
        pv.impute(*pair, x, **how)


def test_a_frame_needs_the_data_set_that_was_fitted(pair):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(
        InputError, match="a frame is imputed in the columns of the data set that was fitted: give like="
    ):
        pv.impute(*pair, pandas.DataFrame({"a": [1.0, math.nan]}))
