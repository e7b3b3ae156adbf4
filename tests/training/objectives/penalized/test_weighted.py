"""Weighted terms against programs that a handler weighs, against their table, and by quadrature."""

import math

import pytest
import torch
from examples.bounds import (
    BETA,
    PAIRS,
    WITH_TABLE,
    assert_same,
    bound_and_table,
    built,
    evaluated,
    tolerance_of,
    trained,
)
from examples.gradients import PAIRS as EXACT
from examples.gradients import assert_unbiased, estimates, exact
from examples.zoo import K, no_latents

from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope
from pyrovae.pairs.handlers import tempered
from pyrovae.training.objectives.elbo import SampledELBO
from pyrovae.training.objectives.penalized.weighted import KLOnly, ReconstructionOnly, WeightedELBO

UNSCALED = sorted(set(WITH_TABLE) - {"subsample-given", "scaled-model", "scaled-guide", "scaled-by-data"})
MAKERS = {
    "beta": (lambda *given, **named: WeightedELBO(2.5, *given, **named), 1, 2.5),
    "reconstruction": (ReconstructionOnly, 1, 0),
    "kl": (KLOnly, 0, 1),
}


@pytest.mark.parametrize("name", PAIRS)
def test_it_is_the_elbo_of_tempered_programs(name):
    """Discrete draws, and their scores, too."""
    case = built(name)
    model, guide = (tempered(program, BETA) for program in (case.model, case.guide))
    expected = evaluated(SampledELBO(plate=case.plate), case._replace(model=model, guide=guide))
    assert_same(evaluated(WeightedELBO(0.3, plate=case.plate), built(name)), expected, **tolerance_of(name))


@pytest.mark.parametrize("vectorize", [True, False], ids=["at once", "looped"])
@pytest.mark.parametrize("which", MAKERS)
@pytest.mark.parametrize("name", UNSCALED)
def test_terms_by_their_weights(name, which, vectorize):
    make, of_reconstruction, of_kl = MAKERS[which]
    case = built(name)
    bound, table = bound_and_table(make(K, plate=case.plate, vectorize_particles=vectorize), case)
    factor = 8 if name == "convolution-on-a-part" else 1
    value = of_reconstruction * table[0] - of_kl * (table[2] - table[1])
    assert bound.loss.item() == pytest.approx(-factor * value.mean(0).sum().item(), rel=1e-10)
    assert bound.reconstruction.item() == pytest.approx(table[0].mean(0).sum().item(), rel=1e-10)
    assert bound.kl_prior.item() == pytest.approx((table[2] - table[1]).mean(0).sum().item(), rel=1e-10)


@pytest.mark.parametrize("which", MAKERS)
@pytest.mark.parametrize("name", ["one latent", "chain"])
def test_mean_gradients_are_exact(name, which):
    make, of_reconstruction, of_kl = MAKERS[which]
    pair = EXACT[name]()

    def per_datum(p, z):
        kl = pair.log_guide(p, z) - pair.log_prior(p, z)
        return (of_reconstruction * pair.log_likelihood(p, z) - of_kl * kl)[:, 0]

    assert_unbiased(estimates(make(), pair), exact(pair, per_datum, 1))


def test_handlers_multiply():
    both = trained(lambda program: tempered(program, torch.tensor(0.5).double()))
    assert_same(evaluated(WeightedELBO(0.6), both), evaluated(WeightedELBO(0.3), trained()))


def test_no_kl_without_latents():
    case = no_latents()
    with own_scope(case.model, case.guide), pytest.raises(InputError, match="no latent site: there is no KL"):
        KLOnly().loss(case.model, case.guide, *case.args)


@pytest.mark.parametrize("beta", [-1.0, math.nan, math.inf])
def test_what_is_no_weight(beta):
    with pytest.raises(InputError, match="beta must be a number, 0 or more"):
        WeightedELBO(beta)
