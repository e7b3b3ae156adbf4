"""Information that entries would give, where it is known: of normals, and of binary entries whose values are few."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError

ORACLE = pv.oracles.missing_entries(5, 2, seed=3)
LINEAR = ORACLE.complete
X, _ = LINEAR.draw(3, seed=0)
GIVEN = torch.tensor([[True, False, False, False, False], [True, True, False, False, False], [False] * 5])
QUIET = {"progress": False}


def of_normal(candidate, about, given):
    """I(x_c ; x_y | x_o), half the log of a ratio of determinants."""
    covariance = LINEAR.loadings @ LINEAR.loadings.T + LINEAR.noise_scale.square().diag()

    def log_det(*places):
        return torch.logdet(covariance[places, :][:, places]) if places else torch.zeros(()).double()

    c, y, o = ([*map(int, places)] for places in (candidate, about, given))
    return (log_det(*c, *o) + log_det(*y, *o) - log_det(*c, *y, *o) - log_det(*o)) / 2


def exact_of(about, given, candidates):
    """(N, C), NaN where all of a candidate is given."""
    found = torch.full((len(given), len(candidates)), math.nan).double()
    for row, o in enumerate(given):
        seen = o.nonzero().flatten().tolist()
        for column, candidate in enumerate(candidates):
            if left := [place for place in candidate if place not in seen]:
                found[row, column] = of_normal(left, about, seen)
    return found


@pytest.fixture(scope="module")
def found():
    how = {"num_draws": 200, "method": "importance", **QUIET}
    return pv.information(LINEAR.model, ORACLE.guide, X, about="4", given=GIVEN, **how)


def test_it_is_that_of_normals(found):
    assert found.names == ["0", "1", "2", "3"] and found.about == "4"
    exact = exact_of([4], GIVEN, [[0], [1], [2], [3]])
    assert torch.equal(found.value.isnan(), exact.isnan())
    away = ((found.value - exact) / found.mc_se)[found.asked]
    assert away.abs().max() < 4  # standard errors
    assert not found.unreliable.any() and found.fraction_unreliable == 0


def test_the_lead_has_the_error_of_paired_draws(found):
    exact = exact_of([4], GIVEN, [[0], [1], [2], [3]])
    for row, (best, second) in enumerate(zip(found.best, found.second, strict=True)):
        places = found.names.index(best), found.names.index(second)
        torch.testing.assert_close(found.lead[row], found.value[row, places[0]] - found.value[row, places[1]])
        lead = exact[row, places[0]] - exact[row, places[1]]
        assert abs(found.lead[row] - lead) < 4 * found.mc_se_lead[row]  # standard errors
    # Draws of x_y are shared, and log p(x_y, x_o) cancels; two informations that were apart would have more error.
    order = found.value.nan_to_num(-math.inf).argsort(descending=True)
    apart = found.mc_se.gather(1, order[:, :2]).square().sum(1).sqrt()
    assert (found.mc_se_lead < 1.2 * apart).all()


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_guide_of_known_error_gives_the_same(factor):
    guide = pv.widened(ORACLE.guide, factor)
    found = pv.information(LINEAR.model, guide, X[:1], about="4", given=GIVEN[:1], of=["1", "2"], num_draws=60, **QUIET)
    exact = exact_of([4], GIVEN[:1], [[1], [2]])
    assert ((found.value - exact).abs() < 4 * found.mc_se).all()  # standard errors
    assert not found.unreliable.any()


def test_few_effective_draws_have_more_error():
    """A guide that is not repaired: the draws are resampled from few, and say so."""
    how = {"about": "4", "given": GIVEN[:1], "of": ["1", "2"], "num_draws": 200, "num_particles": 50, **QUIET}
    fine = pv.information(LINEAR.model, ORACLE.guide, X[:1], method="importance", **how)
    with pytest.warns(pv.UntrustedPosterior):
        poor = pv.information(LINEAR.model, pv.widened(ORACLE.guide, 0.2), X[:1], method="importance", **how)
    assert poor.mc_se[0, 0] > 2 * fine.mc_se[0, 0]
    assert poor.unreliable.all() and poor.fraction_unreliable == 1 and not poor.is_clear.any()
    assert "unreliable (draws, or over 5% of evidences): 100.0%" in poor.summary()


def test_blocks_of_columns_that_share_a_given_entry():
    of = {"both": ["0", "1"], "mask": torch.tensor([False, False, True, True, False])}
    how = {"num_draws": 300, "method": "importance", **QUIET}
    found = pv.information(LINEAR.model, ORACLE.guide, X[:1], about=["4"], given="0", of=of, **how)
    assert found.names == ["both", "mask"]
    exact = exact_of([4], GIVEN[:1], [[0, 1], [2, 3]])
    assert ((found.value - exact).abs() < 4 * found.mc_se).all()  # standard errors


def test_nothing_given_is_the_information_of_columns_and_one_answer():
    how = {"num_draws": 200, "method": "importance", **QUIET}
    found = pv.information(LINEAR.model, ORACLE.guide, X, about=["3", "4"], **how)
    assert len(found) == 1 and found.names == ["0", "1", "2"] and found.num_given.tolist() == [0.0]
    exact = exact_of([3, 4], GIVEN[2:], [[0], [1], [2]])
    assert ((found.value - exact).abs() < 4 * found.mc_se).all()  # standard errors
    values = torch.full_like(X[:1], math.nan)  # which do not count
    again = pv.information(LINEAR.model, ORACLE.guide, values, about=["3", "4"], given=GIVEN[0], **how)
    assert torch.equal(again.value, found.value)


def test_binary_entries_whose_values_are_few():
    oracle = pv.oracles.bernoulli_mixture(6, 3)
    x, _ = oracle.draw(12, seed=0)
    given = pv.data.mcar(x.shape, 0.5, seed=1)
    given[:, 5] = False
    found = pv.information(oracle.model, oracle.guide, x, about="5", given=given, num_draws=60, **QUIET)
    exact = torch.full_like(found.value, math.nan)
    for row, column in found.asked.nonzero().tolist():
        exact[row, column] = by_every_value(oracle, x[row], given[row], column)
    away = ((found.value - exact) / found.mc_se)[found.asked]
    assert away.abs().max() < 4 and 0.6 < away.square().mean() < 1.6  # standard errors, and of their size
    error = found.mc_se.square().nansum(0).sqrt() / found.asked.sum(0)
    means = [found.numbers()["candidates"][name] for name in found.names]
    torch.testing.assert_close(torch.tensor([one["mc_se"] for one in means]).double(), error)
    assert (
        sum(one["best_of"] for one in means) == 12 and [one["num_data"] for one in means] == found.asked.sum(0).tolist()
    )


def by_every_value(oracle, x, given, column):
    """The information of two binary entries, by a sum over classes and over their four values."""
    entries = dist.Bernoulli(oracle.means[:, given]).log_prob(x[given]).sum(-1)
    classes = (oracle.weights.log() + entries).softmax(0)
    one, other = (torch.stack([1 - oracle.means[:, d], oracle.means[:, d]]) for d in (column, 5))  # (2, C) each
    joint = torch.einsum("k,ik,jk->ij", classes, one, other)
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return (joint * (joint / apart).log()).sum()


def test_an_entry_that_tells_all_is_the_next_question_and_one_that_tells_nothing_is_not():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = torch.stack([z[..., 0], z[..., 0], z[..., 1]], -1)
            pyro.sample("x", dist.Normal(loc, 0.3).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    found = pv.information(
        model, guide, torch.zeros(1, 3), about="0", num_draws=60, names=["0", "twin", "other"], **QUIET
    )
    assert found.best == ["twin"] and found.second == ["other"] and found.is_clear.all()
    exact = -math.log(1 - (1 / 1.09) ** 2) / 2
    assert abs(found.value[0, 0] - exact) < 4 * found.mc_se[0, 0]
    assert "datum 0: ask twin" in found.summary() and "not clear" not in found.summary()


def test_data_of_which_one_question_is_left_or_none():
    given = torch.tensor([[True, True, True, True, False], [True, True, True, False, False]])
    found = pv.information(
        LINEAR.model, ORACLE.guide, X[:2], about="4", given=given, num_draws=50, method="importance", **QUIET
    )
    assert found.names == ["3"] and found.best == ["", "3"] and found.second == ["", ""]
    assert found.value[0].isnan().all() and found.lead.isnan().all() and found.is_clear.tolist() == [False, True]
    text = found.summary()
    assert "datum 0: nothing is left to ask" in text and "datum 1: ask 3, as nothing else is left" in text


def test_other_arguments_go_with_their_rows():
    def model(x, scale):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = torch.stack([z, z], -1)
            pyro.sample("x", dist.Normal(loc, scale[:, None]).to_event(1), obs=x)

    def guide(x, scale):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(x)]))

    x, scale = torch.zeros(2, 2), torch.tensor([0.5, 2.0])
    found = pv.information(model, guide, (x, scale), about="1", num_draws=100, **QUIET)
    exact = -(1 - (1 / (1 + scale.double() ** 2)) ** 2).log() / 2
    assert len(found) == 2 and ((found.value[:, 0] - exact).abs() < 4 * found.mc_se[:, 0]).all()  # standard errors


def test_blocks_of_data_do_not_change_what_is_asked(found, monkeypatch):
    monkeypatch.setattr("pyrovae.posteriors.missing.information.AT_ONCE", 1)
    how = {"num_draws": 200, "method": "importance", **QUIET}
    again = pv.information(LINEAR.model, ORACLE.guide, X, about="4", given=GIVEN, **how)
    # The draws are the same and the guide is exact: only rounding differs.
    torch.testing.assert_close(again.value, found.value, rtol=0, atol=1e-9, equal_nan=True)


THREE = torch.tensor([False, False, False, True, False])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"about": torch.ones(5)}, "about must hold booleans"),
        ({"about": torch.ones(4).bool()}, "about must have the shape of the data"),
        ({"about": ~torch.ones(5).bool()}, "about= names no entry of some data"),
        ({"about": "4", "given": ["0", "4"]}, "about= and given= share 4 in 3 of 3 data"),
        ({"about": "4", "of": ["0", ["3", "4"]]}, "candidate '3, 4' shares 4 with about="),
        ({"about": "4", "given": ["0", "1"], "of": ["1"]}, "candidate '1' is given in all data"),
        ({"about": ["0", "1", "2", "4"], "given": THREE}, "nothing is left to ask"),
        ({"about": "4", "of": []}, "of= is name -> entries, or a list of entries"),
        (
            {"about": "wight", "names": ["age", "sex", "weight", "a", "b"]},
            'about: no column "wight"; did you mean "weight"',
        ),
        ({"about": "x"}, 'about: no column "x"; there are 0, 1, 2, 3, 4'),
        ({"about": "4", "given": "5"}, 'given: no column "5"; '),
        ({"about": "4", "names": ["a", "a", "b", "c", "d"]}, "names: expected 5 different ones, got 5"),
        ({"about": "4", "num_draws": 1}, "num_draws must be at least 2, so that there is an error; got 1"),
        ({"about": "4", "method": "gibbs"}, "method"),
    ],
)
def test_what_does_not_fit_is_refused(how, message):
    with pytest.raises(InputError, match=message) as caught:
        pv.information(LINEAR.model, ORACLE.guide, X, **how)
    assert "\n" not in str(caught.value)


def test_a_model_of_what_is_missing_is_refused():
    pair = pv.with_missingness(LINEAR.model, ORACLE.guide, pv.self_masking(5, sign=1).double())
    with pytest.raises(InputError, match="ask the pair without the mechanism"):
        pv.information(*pair, X, about="4")
