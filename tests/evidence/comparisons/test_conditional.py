"""Densities of some entries given others: the chain rule, closed forms, information between columns, bad input."""

import math

import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.evidence.comparisons.conditional import ConditionalDensity

ORACLE = pv.oracles.factor_analysis(4, 2)
X, _ = ORACLE.draw(40, seed=0)
A, B = torch.tensor([True, False, False, True]), torch.tensor([False, True, False, False])


def normal(of):
    covariance = ORACLE.loadings @ ORACLE.loadings.T + ORACLE.noise_scale.square().diag()
    return torch.distributions.MultivariateNormal(ORACLE.bias[of], covariance[of][:, of]).log_prob(X[:, of])


@pytest.fixture(scope="module")
def found():
    return pv.log_density(ORACLE.model, ORACLE.guide, X, of=A, given=B)


def test_it_is_the_difference_of_two_normals(found):
    exact = normal(A | B) - normal(B)
    assert ((found.log_density - exact).abs() < 4 * found.mc_se_log_density + 1e-9).all()  # 4 standard errors
    assert found.fraction_unreliable == 0 and (found.num_entries == 2).all()


def test_nothing_is_given_where_none_is(found):
    alone = pv.log_density(ORACLE.model, ORACLE.guide, X, of=A)
    assert alone.given is None
    assert ((alone.log_density - normal(A)).abs() < 4 * alone.mc_se_log_density + 1e-9).all()
    # What b tells of a, by the pair's own data: 4 standard errors of a mean of 40.
    information = found.log_density - alone.log_density
    exact = normal(A | B) - normal(A) - normal(B)
    torch.testing.assert_close(information, exact, rtol=0, atol=0.05)


def test_entries_of_neither_and_of_both():
    known = X.clone()
    known[0, 0] = math.nan
    found = pv.log_density(ORACLE.model, ORACLE.guide, known, of=A, given=torch.tensor([False, False, False, True]))
    assert found.num_entries.tolist() == [0.0] + [1.0] * 39
    assert found.log_density[0] == found.mc_se_log_density[0] == 0


def test_the_record_says_how_reliable_it_is_and_comes_back_from_files(found, tmp_path):
    assert "unreliable (k-hat of either): 0.0% of 40 data" in found.summary()
    assert "per entry of 80" in found.summary()
    found.save(tmp_path / "found.json")
    again = ConditionalDensity.load(tmp_path / "found.json")
    assert torch.equal(again.log_density, found.log_density) and again.summary() == found.summary()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"of": torch.ones(4)}, "of must hold booleans"),
        ({"of": A, "given": torch.ones(3).bool()}, "given must have the shape of the data"),
        ({"of": ~torch.ones(4).bool()}, "of= names no entry that is known and not given"),
        ({"of": A, "given": A}, "of= names no entry that is known and not given"),
    ],
)
def test_what_does_not_fit_is_refused(how, message):
    with pytest.raises(InputError, match=message):
        pv.log_density(ORACLE.model, ORACLE.guide, X, **how)


def test_a_model_of_what_is_missing_has_no_such_density():
    oracle = pv.oracles.factor_analysis(4, 2)
    x, _ = oracle.draw(5, seed=0)
    pair = pv.with_missingness(oracle.model, oracle.guide, pv.self_masking(4, sign=1).double())
    mask = torch.tensor([True, True, False, False])
    with pytest.raises(pv.InputError, match="to hide one is another datum to it"):
        pv.log_density(*pair, x, of=mask, given=~mask)
    found = pv.conditional(*pair, x, mask, num_draws=5, num_particles=100, progress=False)
    assert found.density is None and found.by_draws is None
