"""Rubin's rules by hand, their limits, coverage where data are normal, and what is refused."""

import math

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.posteriors.missing.pooling import Pooled, pool


def test_the_rules_by_hand():
    pooled = pool([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0]], [[1.0, 4.0], [2.0, 4.0], [3.0, 4.0]], names=["slope", "other"])
    between, within = (1 + 1 / 3) * 1.0, 2.0
    assert pooled.estimate.tolist() == [2.0, 5.0]
    assert math.isclose(pooled.se[0], math.sqrt(within + between))
    assert math.isclose(pooled.df[0], 2 / (between / (within + between)) ** 2)
    assert math.isclose(pooled.relative_increase[0], between / within)
    # Nothing is missing of what does not vary: the interval is a normal's.
    assert pooled.df[1] == math.inf and pooled.fraction_missing[1] == 0
    assert math.isclose(pooled.high[1] - 5.0, 1.959964 * 2.0, rel_tol=1e-6)
    assert "slope" in pooled.summary() and pooled.named_rows()["other"]["estimate"] == 5.0


def test_the_degrees_of_freedom_of_small_samples_are_never_more_than_complete_data_leave():
    few = pool([1.0, 1.1, 0.9], [1.0, 1.0, 1.0], complete_df=20)
    assert few.df < 20
    part = (1 + 1 / 3) * 0.01 / ((1 + 1 / 3) * 0.01 + 1)
    old, observed = 2 / part**2, 21 / 23 * 20 * (1 - part)
    assert math.isclose(few.df, old * observed / (old + observed), rel_tol=1e-12)


def test_intervals_cover_the_truth():
    """A mean of 40 normals, half of them missing and drawn anew from their posterior predictive: 400 times."""
    noise, covered, num_repetitions = torch.Generator().manual_seed(0), 0, 400
    for _ in range(num_repetitions):
        seen = torch.randn(20, generator=noise, dtype=torch.float64)
        estimates, variances = [], []
        for _ in range(10):
            scale = ((seen - seen.mean()).square().sum() / torch._standard_gamma(torch.tensor(9.5), noise) / 2).sqrt()
            center = seen.mean() + scale * torch.randn(1, generator=noise).double() / 20**0.5
            whole = torch.cat([seen, center + scale * torch.randn(20, generator=noise).double()])
            estimates.append(whole.mean())
            variances.append(whole.var() / 40)
        pooled = pool(torch.stack(estimates), torch.stack(variances), complete_df=39)
        covered += bool(pooled.low <= 0 <= pooled.high)
    # 4 standard errors of a proportion of 0.95.
    assert abs(covered / num_repetitions - 0.95) < 4 * math.sqrt(0.95 * 0.05 / num_repetitions)


def test_it_comes_back_from_files(tmp_path):
    pooled = pool([1.0, 2.0], [1.0, 1.0])
    pooled.save(tmp_path / "pooled.json")
    assert Pooled.load(tmp_path / "pooled.json").summary() == pooled.summary()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([1.0], [1.0]), "estimates must be those of M completed data sets, at least two"),
        (([1.0, 2.0], [1.0, 2.0, 3.0]), "must have one shape"),
        (([1.0, 2.0], [1.0, -1.0]), "which are squared standard errors, positive"),
        ((["a", "b"], [1.0, 1.0]), "estimates must be numbers"),
    ],
)
def test_what_cannot_be_pooled_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        pool(*given)
    with pytest.raises(InputError, match="names: expected 1, got 2"):
        pool([1.0, 2.0], [1.0, 1.0], names=["a", "b"])
    with pytest.raises(InputError, match="complete_df must be positive"):
        pool([1.0, 2.0], [1.0, 1.0], complete_df=0.0)
