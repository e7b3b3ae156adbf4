"""VIMCO against its definition, and its mean gradient against sums over all draws of a class."""

import pyro
import pytest
import torch
from examples import classes
from examples.bounds import WITH_TABLE, bound_and_table, built
from examples.gradients import PAIRS, STANDARD_ERRORS, assert_unbiased, estimates, exact, one_latent
from examples.zoo import K, doubles

from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
from pyrovae.training.objectives.many_particles.vimco import VIMCO, log_mean_without
from pyrovae.training.objectives.many_particles.weighing import log_mean_exp
from pyrovae.training.objectives.paths import held_traces


@pytest.mark.parametrize("size", [1.0, 300.0])
def test_the_mean_without_each_is_a_loop(size):
    log_weight = size * doubles(5, 3, seed=2)
    for k in range(5):
        others = torch.cat([log_weight[:k], log_weight[k + 1 :]])
        expected = log_mean_exp(torch.cat([others, others.mean(0, keepdim=True)]))
        torch.testing.assert_close(log_mean_without(log_weight)[k], expected)


@pytest.mark.parametrize("name", PAIRS)
def test_the_mean_gradient_is_that_of_iwae(name):
    pair = PAIRS[name]()
    assert_unbiased(estimates(VIMCO(2), pair), exact(pair, lambda p, z: log_mean_exp(pair.log_weight(p, z), 1), 2))


@pytest.mark.parametrize("vectorize", [True, False], ids=["at once", "looped"])
def test_the_mean_gradient_over_classes_is_exact(vectorize):
    """The sum over all draws of chance times bound, its gradient by autograd."""
    expected = classes.exact(lambda joint, drawn: drawn.sum().exp() * log_mean_exp(joint - drawn), K)
    assert_each_unbiased(estimates(VIMCO(K, vectorize_particles=vectorize), PAIR), expected)


PAIR = one_latent()._replace(model=classes.model, guide=classes.guide)


def assert_each_unbiased(found, expected):
    assert found.keys() == expected.keys()
    for name, rows in found.items():
        error = STANDARD_ERRORS * rows.std(0) / len(rows) ** 0.5
        assert (rows.mean(0) - expected[name]).abs().lt(error + 1e-9).all(), (name, rows.mean(0), expected[name])
        assert expected[name].abs().max() > 0.02


def test_what_others_say_lowers_the_noise():
    """Against the score times the bound itself, whose mean is the same."""
    with_others = estimates(VIMCO(10), PAIR)["logits"].std(0)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(classes.LOGITS.softmax(0), 10 * 20_000, True, generator=generator).reshape(10, -1)
    log_joint, log_guide = classes.tables(classes.MEANS, classes.LOGITS)
    score = (torch.nn.functional.one_hot(drawn, 3) - classes.LOGITS.softmax(0)).sum(0)
    plain = (log_mean_exp((log_joint - log_guide)[drawn])[:, None] * score).std(0)
    assert (with_others < plain / 4).all()


UNSCALED = sorted(set(WITH_TABLE) - {"scaled-model", "scaled-guide", "scaled-by-data"})


@pytest.mark.parametrize("name", UNSCALED)
def test_its_value_is_that_of_iwae(name):
    case = built(name)
    bound, table = bound_and_table(VIMCO(K, plate=case.plate), case)
    each = log_mean_exp(table[0] + table[1] - table[2])
    factor = {"subsample-given": 200.0, "convolution-on-a-part": 8.0}.get(name, 1.0)
    assert bound.loss.item() == pytest.approx(-factor * each.sum().item(), rel=1e-10)


def test_scores_are_those_of_all_sites_of_a_datum():
    """Discrete ones in an inner plate too: by hand, at the draws of the run itself."""
    case, objective = built("discrete"), VIMCO(K)
    with own_scope(case.model, case.guide, fresh=True):
        objective.prepare(case.model, case.guide, *case.args)
        torch.manual_seed(3)
        loss = objective.differentiable_loss(case.model, case.guide, *case.args)
        named = dict(pyro.get_param_store().named_parameters())
        found = torch.autograd.grad(loss, list(named.values()))
        torch.manual_seed(3)
        weighed = objective.weighed(case.model, case.guide, case.args, held_traces)
        (run,) = weighed.runs
        log_q = sum(site["fn"].log_prob(site["value"]).sum(-1) for site in run.drawn.values())  # over the inner plate
        log_p = sum(site["fn"].log_prob(site["value"]).sum(-1) for site in run.joint.values())
        log_weight = (log_p - log_q).detach()
        signal = log_mean_exp(log_weight) - log_mean_without(log_weight)
        surrogate = (log_weight.softmax(0) * (log_p - log_q) + signal * log_q).sum()
        expected = torch.autograd.grad(-surrogate, list(named.values()))
    for name, a, b in zip(named, found, expected, strict=True):
        torch.testing.assert_close(a, b, msg=name)
        assert b.abs().max() > 1e-3


def test_one_particle_has_no_others():
    with pytest.raises(InputError, match="VIMCO compares each particle with the others"):
        VIMCO(1)
