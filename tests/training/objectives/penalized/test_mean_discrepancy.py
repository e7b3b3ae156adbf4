"""The discrepancy by loops over pairs of points, without bias; and what it does to a guide."""

import math

import pytest
import torch
from examples.bounds import assert_same, built, evaluated, trained
from examples.zoo import K, N, X, doubles

from pyrovae.base.errors import InputError
from pyrovae.evidence.proposals.widened import widened
from pyrovae.pairs.context import own_scope
from pyrovae.programs.oracles import ppca
from pyrovae.training.objectives.elbo import SampledELBO
from pyrovae.training.objectives.penalized.mean_discrepancy import MMD, squared_mmd
from pyrovae.training.objectives.penalized.weighted import ReconstructionOnly


def by_loops(z, y):
    def distance(a, b):
        return sum((a[d] - b[d]) ** 2 for d in range(len(a)))

    num = len(z)
    unlike = [(i, j) for i in range(num) for j in range(num) if i != j]
    width = sum(distance(y[i], y[j]) for i, j in unlike) / len(unlike)

    def mean(a, b):
        return sum(math.exp(-distance(a[i], b[j]) / width) for i, j in unlike) / len(unlike)

    return mean(z, z) + mean(y, y) - 2 * mean(z, y)


def test_it_is_a_loop_over_pairs():
    z, y = doubles(6, 3, seed=1), 2 * doubles(6, 3, seed=2) + 0.5
    assert squared_mmd(z, y).item() == pytest.approx(by_loops(z.tolist(), y.tolist()), rel=1e-10)


def test_it_has_no_bias():
    """Zero on average where both are one distribution, to 4 standard errors; more where they are not."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randn(4000, 2, 10, 2, generator=generator).double()
    same = torch.stack([squared_mmd(z, y) for z, y in pairs])
    assert same.mean().abs() < 4 * same.std() / len(same) ** 0.5
    assert torch.stack([squared_mmd(z + 1, y) for z, y in pairs]).mean() > 0.1


@pytest.mark.parametrize("name", ["trained", "chain", "auto-normal"])
@pytest.mark.parametrize("vectorize", [True, False], ids=["at once", "looped"])
def test_the_loss_is_the_elbos_and_the_penalty(name, vectorize):
    case = built(name)
    with own_scope(case.model, case.guide, fresh=True), torch.no_grad():
        losses = []
        for weight in (0.0, 2.0, 5.0):
            objective = MMD(weight, num_particles=K, vectorize_particles=vectorize)
            objective.prepare(case.model, case.guide, *case.args)
            torch.manual_seed(4)
            losses.append(objective.bound(case.model, case.guide, *case.args))
    zero, two, five = (bound.loss for bound in losses)
    torch.testing.assert_close(zero, losses[0].kl_prior - losses[0].reconstruction, check_dtype=False)
    torch.testing.assert_close((five - zero) / 5, (two - zero) / 2)
    assert (two - zero).abs() > 1e-3


def test_its_value_by_hand():
    """The draws of the run, and of the prior after it."""
    case, objective = trained(), MMD(3.0)
    with own_scope(case.model, case.guide, fresh=True), torch.no_grad():
        objective.prepare(case.model, case.guide, X)
        torch.manual_seed(4)
        bound = objective.bound(case.model, case.guide, X)
        torch.manual_seed(4)
        (run,) = objective.runs(case.model, case.guide, X)
        prior = torch.distributions.Normal(torch.zeros(N, 2).double(), 1.0).sample()
    expected = bound.kl_prior - bound.reconstruction + N * 3.0 * squared_mmd(run.drawn["z"]["value"], prior)
    assert bound.loss.item() == pytest.approx(expected.item(), rel=1e-10)


def test_no_weight_is_the_elbo_and_no_beta_the_reconstruction():
    assert_same(evaluated(MMD(0.0), trained()), evaluated(SampledELBO(), trained()))
    assert_same(evaluated(MMD(0.0, beta=0.0), trained()), evaluated(ReconstructionOnly(), trained()))


def test_rows_of_a_part_of_the_data_stand_for_others():
    assert_same(evaluated(MMD(3.0), built("trained-on-a-part")), evaluated(MMD(3.0), trained()), 1000 / N)


def test_a_guide_beside_the_prior_costs_more():
    """On data of the model, the exact posterior's q(z) is the prior."""
    oracle = ppca(6, 2)
    x, _ = oracle.draw(300, seed=0)
    torch.manual_seed(1)
    penalties = []
    for guide in (oracle.guide, widened(oracle.guide, 1.0, shift=3.0)):
        bound = MMD(1.0, num_particles=4).bound(oracle.model, guide, x)
        penalties.append((bound.loss - (bound.kl_prior - bound.reconstruction)).item() / len(x))
    assert abs(penalties[0]) < 0.01 < penalties[1]


@pytest.mark.parametrize(
    ("name", "message"),
    [("discrete", "cannot be reparameterized"), ("trained-weighted", "site 'z' has another scale")],
)
def test_pairs_that_are_refused(name, message):
    case = built(name)
    with own_scope(case.model, case.guide), pytest.raises(InputError, match=message):
        MMD().loss(case.model, case.guide, *case.args)


def test_one_datum_has_no_other():
    case = trained()
    with own_scope(case.model, case.guide), pytest.raises(InputError, match="a batch of two or more"):
        MMD().loss(case.model, case.guide, X[:1])


@pytest.mark.parametrize("given", [(-1.0,), (1.0, math.nan)])
def test_what_is_no_weight(given):
    with pytest.raises(InputError, match="weight and beta must be numbers, 0 or more"):
        MMD(*given)
