"""What baselines are fitted to, and the pair that each becomes: without a latent, so that its evidence is exact."""

import math

import pyro.distributions as dist
import pytest
import torch
from examples.baselines import rows_of

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.programs.baselines.rows import Baseline, best_size, check_density

GAPS = torch.tensor([[0.0, 1.0], [math.nan, 2.0], [3.0, 4.0], [1.0, math.nan]], dtype=torch.float64)


def test_rows_with_gaps_are_left_out_and_counted():
    rows = rows_of(GAPS)
    assert torch.equal(rows.complete(), GAPS[[0, 2]])
    assert rows.gaps() == "; fitted without 2 rows that have gaps" and rows_of(GAPS[[0, 2]]).gaps() == ""
    with pytest.raises(InputError, match="1 of 2 training rows have no missing entry, too few"):
        rows_of(GAPS[:2]).complete()


def test_a_pair_without_a_latent_has_exact_evidence():
    standard = Baseline("standard", lambda x: {"x": (dist.Normal(0.0, 1.0).expand([2]).to_event(1), x)})
    x = torch.randn(7, 1, 2, generator=torch.Generator().manual_seed(0))
    report = pv.evaluate(standard.model, standard.guide, (x, torch.arange(7)), num_particles=25)
    torch.testing.assert_close(report.log_evidence, standard.log_prob(x), rtol=1e-12, atol=0)
    torch.testing.assert_close(report.log_evidence, dist.Normal(0, 1).log_prob(x.double()).sum((1, 2)))
    assert report.found_by == "exact" and report.fraction_unreliable == 0
    assert float(report.mc_se_log_evidence.max()) == 0 and float(report.kl_prior.abs().max()) == 0


def test_no_density_of_masses_or_of_what_is_constant():
    with pytest.raises(InputError, match=r"'normal' is a density, and 1 of the 2 columns of rows are masses \(count\)"):
        check_density(rows_of(GAPS, ("real", "count"), is_table=True), "normal")
    with pytest.raises(InputError, match="1 of 2 values are constant in the training rows of rows"):
        check_density(rows_of(torch.tensor([[1.0, 2.0], [1.0, 3.0]])), "normal")


SIZES = {
    "in between": (6, 100, 6, [1, 2, 3, 4, 6, 8, 12]),
    "the most": (40, 9, 8, [1, 2, 3, 4, 6, 8]),
    "the least": (1, 100, 1, [1, 2, 3]),
    "one alone": (4, 0, 1, [1]),
}


@pytest.mark.parametrize(("best", "most", "expected", "sizes"), SIZES.values(), ids=SIZES)
def test_sizes_rise_until_two_gain_nothing_for_the_validation_rows(best, most, expected, sizes):
    tried = []

    def fit(size):
        tried.append(size)
        gain = torch.tensor(-abs(math.log2(size / best)))
        return Baseline(str(size), lambda x: {"x": (dist.Delta(torch.zeros(1), gain, event_dim=1), x)})

    assert best_size(fit, torch.zeros(3, 1), most).about == str(expected)
    assert tried == sizes
