"""The aggregate posterior against tables by hand, for programs of every style and in blocks of any size."""

import math

import pytest
import torch
from examples.codes import CODES, SHIFT, A, doubles, hanging, two_sites_model
from examples.zoo import ZOO

from pyrovae.data.split import as_split
from pyrovae.diagnostics import aggregate_posterior as aggregate
from pyrovae.diagnostics import aggregate_posterior as posterior_means
from pyrovae.diagnostics.aggregate_posterior import Aggregation
from pyrovae.diagnostics.surgery import surgery
from pyrovae.evidence.blocks import Pair
from pyrovae.pairs.context import isolated


def has_foreign_table(name):
    case = ZOO[name]()
    return case.table is not None and name not in {"auto-normal", "masked-rows", "arguments"}


@pytest.mark.parametrize("name", [name for name in ZOO if has_foreign_table(name)])
def test_aggregate_is_the_mean_of_densities_by_hand(name):
    """log q(z_m|x_n) for all m and n, from the table by hand of latents handed on from datum to datum."""
    case = ZOO[name]()
    torch.manual_seed(0)
    with isolated(case.model, case.guide) as (program, guide, device):
        tensors = tuple(arg for arg in case.args if isinstance(arg, torch.Tensor))
        run = Aggregation(Pair(program, guide, device, case.plate), as_split(tensors), seed=0)
        drawn = run.draw(torch.arange(len(tensors[0])), 3)
        scored = run.score(drawn, batch_size=len(tensors[0]))
        values = {site: without_ones(value) for site, value in drawn.values.items()}
        by_hand = [
            case.table(**{site: value.roll(step, 1) for site, value in values.items()})[2].roll(-step, 1)
            for step in range(len(tensors[0]))
        ]
        prior = case.table(**values)[1]
    tolerance = 1e-10 if tensors[0].dtype == torch.float64 else 1e-4
    expected = torch.stack(by_hand).double().logsumexp(0) - math.log(len(by_hand))
    torch.testing.assert_close(scored.log_density, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(drawn.log_guide.sum(-1), by_hand[0].double(), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(drawn.log_prior.sum(-1), prior.double(), rtol=tolerance, atol=tolerance)


def without_ones(value):
    """Without the dimensions of plates that a site is not in."""
    return value.reshape(*value.shape[:2], *[size for size in value.shape[2:] if size > 1])


def test_variance_of_means_from_draws_is_free_of_their_noise(monkeypatch):
    """Two draws would add 0.15 or more to the variance of their means; 1,000 data leave an error of 0.03."""
    monkeypatch.setattr(posterior_means, "MEAN_DRAWS", 2)
    x = doubles(1000, 2)
    with isolated(two_sites_model, hanging) as (program, guide, device):
        run = Aggregation(Pair(program, guide, device, None), as_split(x), seed=0)
        variances = posterior_means.mean_variances(run, torch.arange(1000), ["a", "b"], {}, reruns=True)
    exact = (x @ A.T + SHIFT).var(0)
    assert (variances - exact).abs().max() < 0.1


@pytest.mark.parametrize("name", CODES)
def test_blocks_change_nothing_but_rounding(name, monkeypatch):
    program, guide, _ = CODES[name]
    x = doubles(130, 2)
    whole = surgery(program, guide, x)
    monkeypatch.setattr(aggregate, "IN_CACHE", 300)
    monkeypatch.setattr(aggregate, "ELEMENTS_AT_ONCE", 2**16)
    blocked = surgery(program, guide, x, batch_size=17)
    for term, values in whole.per_datum.items():
        torch.testing.assert_close(blocked.per_datum[term], values, rtol=1e-10, atol=1e-10, equal_nan=True)
