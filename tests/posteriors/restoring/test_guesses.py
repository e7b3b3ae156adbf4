"""A guess of x for guides that were trained on it: near what is known of x, and left out where a guide reads NaN."""

import torch

import pyrovae as pv
from pyrovae.data.split import as_split
from pyrovae.evidence.plan import Plan
from pyrovae.pairs.missing.completing import LEAPS, NUM_GUESSES
from pyrovae.posteriors.restoring.guesses import shown

PLAN = Plan(100, 0, method="auto")


def test_a_guess_is_near_the_mean_of_x_given_y():
    oracle = pv.oracles.ppca(6, 2, noise=0.5)
    x, _ = oracle.draw(100, seed=0)
    operator = pv.operators.linear(torch.eye(6).double()[:4], noise=0.1)
    pair, _ = shown(oracle.model, oracle.guide, as_split(operator.apply(x)), operator, PLAN)
    guess = pair.split.tensors[1]
    assert pair.is_filled and guess.shape == x.shape
    assert (guess - x)[:, :4].square().mean() < 0.1**2 * 4
    # What is open is guessed better than by the mean of all: its explained part is most of its variance here.
    assert (guess - x)[:, 4:].square().mean() < 0.5 * (x - oracle.bias)[:, 4:].square().mean()


def test_a_guide_that_reads_missing_entries_reads_them():
    oracle = pv.oracles.missing_entries(6, 2)
    x, _ = oracle.complete.draw(10, seed=0)
    operator = pv.operators.entries(torch.tensor([1, 1, 1, 0, 0, 0]).bool())
    pair, _ = shown(oracle.complete.model, oracle.guide, as_split(operator.apply(x)), operator, PLAN)
    assert not pair.is_filled and len(pair.split.tensors) == 1


def test_latents_of_many_guesses_are_more_than_a_search_from_the_prior_could_use():
    for num_latents, method, there in ((5, "auto", True), (2, "auto", False), (5, "importance", False)):
        oracle = pv.oracles.ppca(8, num_latents)
        x, _ = oracle.draw(7, seed=0)
        operator = pv.operators.linear(torch.eye(8).double()[:6], noise=0.1)
        _, starts = shown(oracle.model, oracle.guide, as_split(operator.apply(x)), operator, Plan(9, 0, method=method))
        assert (starts is not None) == there
        if starts is not None:
            assert starts["z"].shape == (NUM_GUESSES * LEAPS, 7, num_latents) and starts["z"].isfinite().all()
