"""Independent values: counted and averaged by hand, column by column."""

import math

import pyro.distributions as dist
import pytest
import torch
from examples.baselines import rows_of

from pyrovae.base.errors import InputError
from pyrovae.programs.baselines.independent import independent

NAN = math.nan


def mixed():
    """A count, a real, a positive, a proportion and an ordinal column, with gaps."""
    train = torch.tensor(
        [[0, 1.0, 1.0, 0.2, 2], [3, 2.0, 4.0, 0.5, NAN], [NAN, NAN, 2.0, 0.9, 0], [0, 4.0, NAN, NAN, 2]],
        dtype=torch.float64,
    )
    kinds = ("count", "real", "positive", "proportion", "ordinal")
    sites = {"x.count": [0], "x.real": [1], "x.positive": [2], "x.proportion": [3], "x.ordinal4": [4]}
    return rows_of(train, kinds, is_table=True)._replace(sites=sites, num_levels=(6, 0, 0, 0, 4))


def test_each_column_has_its_own_distribution():
    x = torch.tensor([[3, 3.0, 2.0, 0.25, 1], [0, NAN, NAN, NAN, 3]], dtype=torch.float64)
    found = independent(mixed())
    real, log, logit = torch.tensor([1.0, 2, 4]), torch.tensor([1.0, 4, 2]).log(), torch.tensor([0.2, 0.5, 0.9]).logit()
    count = math.log(1.5 / (3 + 3)) + math.log(0.5 / (3 + 2))  # 3 was seen once of 3; level 1 of 4 never
    normals = [dist.Normal(each.mean(), each.std(correction=0)) for each in (real, log, logit)]
    density = normals[0].log_prob(torch.tensor(3.0)) + normals[1].log_prob(torch.tensor(2.0).log()) - math.log(2)
    density += normals[2].log_prob(torch.tensor(0.25).logit()) - math.log(0.25 * 0.75)
    expected = [count + float(density), math.log(2.5 / 6) + math.log(0.5 / 5)]
    torch.testing.assert_close(found.log_prob(x), torch.tensor(expected).double(), rtol=1e-5, atol=1e-5)
    assert list(found.sites(x)) == ["x.count", "x.real", "x.positive", "x.proportion", "x.ordinal4"]


def test_masses_sum_to_one_over_the_levels_of_each_column():
    train = torch.tensor([[0, 1], [2, 1], [2, 0]], dtype=torch.float64)
    rows = rows_of(train, ("count", "count"))._replace(num_levels=(4, 2))
    pairs = torch.cartesian_prod(torch.arange(4.0), torch.arange(2.0)).double()
    mass = independent(rows).log_prob(pairs).exp()
    torch.testing.assert_close(mass.sum(), torch.tensor(1.0).double())
    assert (mass > 0).all()


def test_columns_without_values_or_without_spread_are_refused():
    with pytest.raises(InputError, match="rows: a column has no value in the training rows"):
        independent(rows_of(torch.tensor([[NAN, 1.0], [NAN, 2.0]])))
    with pytest.raises(InputError, match="1 of 2 real values are constant"):
        independent(rows_of(torch.tensor([[3.0, 1.0], [3.0, 2.0]])))
