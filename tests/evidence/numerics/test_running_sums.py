"""What is summed up particle block by particle block against the same on a whole table."""

import math

import pytest
import torch

from pyrovae.evidence import estimators
from pyrovae.evidence.numerics.running_sums import Totals, mean_and_error, merged, moments, tally
from pyrovae.pairs.terms import SiteTerms, sum_by_role


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_blocks(table, sizes):
    totals, squares = zip(*map(moments, table.split(sizes)), strict=True)
    return mean_and_error(len(table), *merged(sizes, torch.stack(totals), torch.stack(squares)))


SPLITS = {"whole": [100], "even": [50, 50], "uneven": [1, 70, 29], "one-by-one": [1] * 100}


@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("offset", [0.0, -1e6])
def test_a_mean_of_blocks_is_that_of_the_whole(sizes, offset):
    table = doubles(100, 7) + offset
    mean = in_blocks(table, sizes)
    torch.testing.assert_close(mean.mean, estimators.mean(table), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(mean.se, estimators.mean_se(table), rtol=1e-8, atol=0)


def test_a_mean_of_one_has_no_error():
    mean = in_blocks(doubles(1, 3), [1])
    assert torch.equal(mean.mean, doubles(1, 3)[0]) and mean.se.isnan().all()


@pytest.mark.parametrize("where", [0, 40, 99])
def test_a_mean_keeps_a_density_of_zero(where):
    table = doubles(100, 2)
    table[where, 0] = -math.inf
    mean = in_blocks(table, [30, 30, 40])
    assert mean.mean[0] == -math.inf and mean.mean[1].isfinite()
    assert mean.se.isnan().tolist() == [True, False]


def sites(count, *, dtype=torch.float64, seed=0):
    """Densities of two observed sites, two latents and one auxiliary draw, (count, 5) each."""
    tables = doubles(5, count, 5, seed=seed).to(dtype).unbind()
    return SiteTerms({"x": tables[0], "y": tables[1]}, {"z": tables[2]}, {"z": tables[3], "a": tables[4]})


def part(terms, rows):
    return SiteTerms(*({name: table[rows] for name, table in role.items()} for role in terms))


@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS)
def test_totals_are_those_of_the_whole_table(sizes):
    terms, totals, start = sites(100), Totals(100, 5), 0
    for size in sizes:
        totals.add(tally(part(terms, slice(start, start + size))))
        start += size
    whole = sum_by_role(terms)
    assert torch.equal(totals.log_weight, whole.log_weight)
    expected = torch.stack([whole.log_likelihood, whole.log_guide - whole.log_prior], 1)
    torch.testing.assert_close(totals.terms.mean, expected.mean(0))
    torch.testing.assert_close(totals.terms.se, expected.std(0) / 10)
    torch.testing.assert_close(totals.resolution, whole.resolution)
    densities = torch.stack([whole.log_guide, whole.log_prior], 1)
    assert all(map(torch.equal, totals.merge()[4:8].split(2), (densities.amin(0), densities.amax(0))))


def test_single_precision_is_summed_in_double():
    terms = SiteTerms(
        {"x": torch.full((100_000, 1), 0.1)}, {"z": torch.zeros(100_000, 1)}, {"z": torch.zeros(100_000, 1)}
    )
    totals = Totals(100_000, 1)
    totals.add(tally(terms))
    torch.testing.assert_close(totals.terms.mean[0], torch.tensor([0.1]).double(), rtol=1e-12, atol=0)


def test_a_tally_may_be_overwritten_once_it_is_taken_in():
    totals, first = Totals(4, 5), tally(sites(2, seed=1))
    totals.add(first)
    kept = [totals.log_weight[:2].clone(), totals.terms.mean.clone(), totals.resolution.clone(), *totals.merge()[4:8]]
    second = tally(sites(2, seed=2))
    for own, fresh in zip(first, second, strict=True):
        own.copy_(fresh)
    found = [totals.log_weight[:2], totals.terms.mean, totals.resolution, *totals.merge()[4:8]]
    assert all(torch.equal(a, b) for a, b in zip(kept, found, strict=True))


def test_equal_draws_have_no_resolution():
    terms = sites(10)
    same = {name: {k: v[:1].expand(10, 5).clone() for k, v in role.items()} for name, role in terms._asdict().items()}
    totals = Totals(10, 5)
    totals.add(tally(SiteTerms(**same)))
    assert totals.resolution_of_distinct.isnan().all() and totals.resolution.isfinite().all()
