"""A classifier's loss beside an objective: its value and gradient by hand, what it does, and what is refused."""

import pytest
import torch
from examples import labelled
from torch.fx.experimental.proxy_tensor import make_fx

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope

DIGITS = pv.data.load("digits").train
SOME = DIGITS.with_labels(100)


def test_it_adds_the_mean_log_mass_of_the_labels_for_each_datum():
    vae, inner = labelled.networks(), pv.objectives.SummedELBO()
    objective = pv.objectives.Classifying(inner, SOME, weight=0.5, batch_size=100)
    x, y = SOME.tensors
    with own_scope(vae.model, vae.guide) as (model, guide, _):
        losses = []
        for one in (objective, inner):
            one.prepare(model, guide, x[:20], y[:20])
            torch.manual_seed(0)
            losses.append(one.bound(model, guide, x[:20], y[:20]))
    known = y >= 0
    by_hand = vae.classifier(x[known]).log_prob(y[known]).mean()
    torch.testing.assert_close(losses[0].loss, losses[1].loss - 0.5 * 20 * by_hand.double())
    assert losses[0][1:] == losses[1][1:]  # the terms of the ELBO are without it


def test_with_it_a_hundred_labels_teach_the_classes():
    error = {}
    for weight in (0.0, 20.0):
        vae = labelled.networks(width=64)
        objective = pv.objectives.Classifying(pv.objectives.SummedELBO(), SOME, weight=weight)
        pv.fit(vae.model, vae.guide, SOME, objective=objective, epochs=12, seed=0, progress=False)
        right = vae.classifier(DIGITS.x).logits.argmax(-1) == DIGITS.labels
        error[weight] = 1 - right.double().mean()
    assert error[20.0] < 0.35 < error[0.0]


def test_a_traced_step_is_the_step():
    vae = labelled.networks(width=8)
    objective = pv.objectives.Classifying(pv.objectives.SummedELBO(), SOME, batch_size=16)
    first, other = (SOME[torch.arange(start, start + 20)].tensors for start in (0, 20))
    with own_scope(vae.model, vae.guide) as (model, guide, _):
        objective.prepare(model, guide, *first)

        def step(x, y):
            loss = objective.bound(model, guide, x, y).loss
            return loss, *torch.autograd.grad(loss, [*vae.parameters()])

        graph = make_fx(step)(*first)  # where a value would be looked at, this fails
        torch.manual_seed(7)
        expected = step(*other)
        torch.manual_seed(7)
        torch.testing.assert_close(graph(*other), expected)


def test_a_run_says_what_it_was_trained_by():
    vae = labelled.networks(width=8)
    objective = pv.objectives.Classifying(pv.objectives.SummedELBO(), SOME, batch_size=16)
    told = pv.fit(vae.model, vae.guide, SOME, objective=objective, epochs=1, progress=False).settings["objective"]
    assert told.startswith("Classifying(batch_size=16") and "of=SummedELBO, site=y" in told and "weight=500.0" in told


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"weight": -1.0}, "weight must be a number, 0 or more"),
        ({"data": DIGITS.with_labels(0)}, "no datum has a label"),
        ({"data": DIGITS}, "the last tensor of the data is the labels"),
        ({"objective": "summed"}, "objective is one of pyrovae.objectives"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_what_means_nothing_is_refused(given, match):
    given = {"objective": pv.objectives.SummedELBO(), "data": SOME, **given}
    with pytest.raises(InputError, match=match):
        pv.objectives.Classifying(given.pop("objective"), given.pop("data"), **given)


def test_a_site_that_the_guide_does_not_draw_is_named():
    vae = labelled.networks()
    objective = pv.objectives.Classifying(pv.objectives.SummedELBO(), SOME, site="class")
    with own_scope(vae.model, vae.guide) as (model, guide, _):
        with pytest.raises(InputError, match="site 'class' is not drawn by the guide, which draws y, z"):
            objective.bound(model, guide, *SOME[torch.arange(3)].tensors)
