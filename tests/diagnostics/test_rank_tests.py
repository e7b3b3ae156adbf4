"""The rank test against what is known of exchangeable draws, and of draws that are wrong in a known direction."""

import json

import pytest
import torch
from scipy.stats import binom

from pyrovae.base.errors import InputError
from pyrovae.diagnostics.rank_tests import pointwise_tails, rank_members, rank_test

S, L = 200, 49


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def ranked(values, *, seed=0, **options):
    """The test of values (L + 1, S, D) or (L + 1, S), the truth first."""
    values = values.reshape(*values.shape[:2], -1)
    names = [f"z[{d}]" for d in range(values.shape[-1])]
    table = rank_members(values, generator=generator(seed))
    return rank_test(table, names, generator=generator(seed + 1), **options)


class TestRankMembers:
    def test_without_ties_it_counts_the_smaller_members(self):
        values = normals(9, 4, 3)
        smaller = (values[None] < values[:, None]).sum(1)
        assert torch.equal(rank_members(values), smaller)

    def test_ties_are_broken_evenly(self):
        # Each of 3 equal members gets each rank with probability 1/3: 4 standard errors of 9,000 draws.
        ranks = rank_members(torch.zeros(3, 9000), generator=generator())
        shares = torch.stack([(ranks == rank).double().mean(1) for rank in range(3)])
        assert (shares - 1 / 3).abs().max() < 4 * (2 / 9 / 9000) ** 0.5
        assert torch.equal(ranks.sort(0).values, torch.arange(3)[:, None].expand(3, 9000))

    def test_unequal_members_keep_their_order_among_ties(self):
        ranks = rank_members(torch.tensor([1.0, 0.0, 1.0, 2.0, 1.0]), generator=generator())
        assert ranks[1] == 0 and ranks[3] == 4

    def test_infinite_values_have_a_rank(self):
        assert rank_members(torch.tensor([torch.inf, -torch.inf, 0.0])).tolist() == [2, 0, 1]


def test_tails_are_those_of_the_binomial():
    counts, tails = torch.arange(S + 1), pointwise_tails(S, L)
    for step in (0, 20, L - 1):
        exact = binom(S, (step + 1) / (L + 1))
        smaller = torch.tensor(2 * exact.cdf(counts)).minimum(torch.tensor(2 * exact.sf(counts - 1)))
        torch.testing.assert_close(tails[step], smaller.clamp(max=1), rtol=1e-9, atol=1e-14)


class TestLevel:
    REPETITIONS = 600

    @pytest.mark.parametrize("noise", [0.0, 3.0], ids=["equal", "unlike"])
    def test_exchangeable_draws_pass_at_the_level(self, noise):
        # Eight quantities. Taken as independent, equal ones would fail 0.5% of the time (measured); taken one by one,
        # unlike ones would fail about 30%.
        failed = 0
        for seed in range(self.REPETITIONS):
            values = normals(10, 30, 1, seed=seed) + noise * normals(10, 30, 8, seed=seed + 10_000)
            failed += not ranked(values, seed=seed).passed
        assert abs(failed / self.REPETITIONS - 0.05) < 4 * (0.05 * 0.95 / self.REPETITIONS) ** 0.5

    @pytest.mark.parametrize("level", [0.5, 0.8, 0.95, 0.99, 0.999])
    def test_verdict_p_value_and_bands_agree(self, level):
        for seed in range(20):
            test = ranked(normals(10, 40, 2, seed=seed), seed=seed, level=level)
            assert test.passed == (test.p_value > 1 - level + 1e-12)
            inside = (test.ecdf >= test.low[:, None]) & (test.ecdf <= test.high[:, None])
            assert inside.all(0).tolist() == [name not in test.verdicts for name in test.names]

    @pytest.mark.parametrize("seed", range(5))
    def test_the_p_value_is_the_level_that_just_fails(self, seed):
        values = normals(10, 40, 2, seed=seed)
        p_value = ranked(values).p_value
        assert not ranked(values, level=1 - p_value).passed
        assert ranked(values, level=1 - p_value + 0.001).passed

    @pytest.mark.parametrize("level", [0.0, 1.0, 0.9995, -1.0])
    def test_a_level_that_replicates_cannot_tell_is_refused(self, level):
        with pytest.raises(InputError, match=r"level must be above 0 and at most 0\.999"):
            ranked(normals(10, 40), level=level)


def with_truth(change):
    """Draws from N(0, 1) under a truth that is a function of N(0, 1) noise."""
    values = normals(L + 1, S, seed=5)
    values[0] = change(values[0])
    return values


WRONG = {
    "narrow": (lambda z: 2 * z, "too narrow"),
    "very narrow": (lambda z: 1000 * z, "too narrow"),
    "wide": (lambda z: z / 2, "too wide"),
    "up": (lambda z: z - 0.5, "shifted up"),
    "far up": (lambda z: z - 1000, "shifted up"),
    "down": (lambda z: z + 0.5, "shifted down"),
    "up and narrow": (lambda z: 3 * z - 0.3, "too narrow"),
}


class TestVerdict:
    @pytest.mark.parametrize("change, expected", WRONG.values(), ids=WRONG.keys())
    def test_direction(self, change, expected):
        test = ranked(with_truth(change))
        assert test.verdicts == {"z[0]": expected}
        assert test.verdict == f"{expected} at z[0]"
        assert test.p_value == pytest.approx(0.001)

    def test_neither_mean_nor_spread(self):
        # Three places with mean 1/2 and the variance 1/12 of uniform ranks.
        truth = torch.full((S,), 0.5)
        truth[: int(0.2 * S)], truth[-int(0.2 * S) :] = 0.045, 0.955
        values = torch.cat([truth[None], torch.rand(L, S, generator=generator())])
        assert ranked(values).verdict == "of another shape at z[0]"

    def test_only_what_leaves_its_bands_is_named(self):
        values = torch.stack([normals(L + 1, S, seed=1), with_truth(lambda z: 2 * z), with_truth(lambda z: z - 1)], -1)
        test = ranked(values)
        assert test.verdict == "too narrow at z[1]; shifted up at z[2]"
        (failures,) = test.failures()
        assert len(str(failures).splitlines()) == 3  # with its head
        assert not test.passed

    def test_many_are_counted(self):
        values = with_truth(lambda z: 2 * z)[..., None].expand(-1, -1, 11)
        assert ranked(values).verdict.endswith("z[6], z[7] and 3 more")

    def test_nothing_seen(self):
        test = ranked(normals(L + 1, S, 3, seed=3))
        assert test.passed and test.verdict == f"no miscalibration seen in {S} simulations" and test.failures() == []
        mean, spread, _ = test.table().values()
        assert (mean - 0.5).abs().max() < 0.1 and (spread - 1).abs().max() < 0.1

    def test_a_single_draw_sees_shifts(self):
        values = normals(2, S, seed=6)
        assert ranked(values).passed
        values[0] += 1
        assert ranked(values).verdict == "shifted down at z[0]"


def test_record():
    test = ranked(with_truth(lambda z: 2 * z))
    assert torch.equal(test.ranks, (with_truth(lambda z: 2 * z)[1:] < with_truth(lambda z: 2 * z)[0]).sum(0)[:, None])
    assert test.ecdf.shape == (L, 1) and test.grid.shape == test.low.shape == test.high.shape == (L,)
    assert (test.low <= test.grid).all() and (test.grid <= test.high).all()
    counted = (test.ranks <= torch.arange(L)).double().mean(0)
    assert torch.equal(test.ecdf[:, 0], counted)
    written = json.loads(json.dumps(test.to_dict(), allow_nan=False))
    assert written["quantities"]["z[0]"]["verdict"] == "too narrow" and written["passed"] is False
    assert repr(test) == f"RankTest(S={S}, L={L}, D=1, too narrow at z[0])"


def test_large_tables_are_tested_in_parts(monkeypatch):
    values = normals(20, 50, 3)
    whole = ranked(values)
    monkeypatch.setattr("pyrovae.diagnostics.rank_tests._RANKS_AT_ONCE", 1000)
    assert ranked(values).p_values.tolist() == whole.p_values.tolist()
