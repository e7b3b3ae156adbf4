"""The pilot that finds steps and temperatures, and leaves the measured chains alone."""

import torch

import pyrovae as pv
from pyrovae.evidence.annealing.ais import annealed_evidence
from pyrovae.evidence.annealing.paths import Route, from_prior, walk
from pyrovae.evidence.annealing.tuning import tune
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents


def test_the_pilot_is_apart_from_the_measured_chains():
    """Frozen: the chains that are weighed never touch the kernels, and the same key gives the same bits."""
    oracle = pv.oracles.ppca(6, 2)
    x, _ = oracle.draw(5, seed=0)
    with isolated(oracle.model, oracle.mean_field_guide()) as (model, guide, _):
        latents = Latents(model, guide, (x,))
        torch.manual_seed(0)
        tuning = tune(from_prior(latents), num_temperatures=20, num_leapfrog=3)
        before = [part.clone() for part in (tuning.step, tuning.scale)]
        path = from_prior(latents)
        walk(Route.of(path, tuning.kernel, tuning.lengths.schedule(20)), path.draw(4))
    assert torch.equal(before[0], tuning.step) and torch.equal(before[1], tuning.scale)
    runs = [annealed_evidence(oracle.model, oracle.mean_field_guide(), x, num_temperatures=20) for _ in range(2)]
    assert torch.equal(runs[0].log_evidence, runs[1].log_evidence)


def test_schedules_go_from_zero_to_one_and_spend_steps_where_the_ratio_varies():
    oracle = pv.oracles.ppca(20, 3)
    x, _ = oracle.draw(5, seed=0)
    with isolated(oracle.model, oracle.mean_field_guide()) as (model, guide, _):
        torch.manual_seed(0)
        tuning = tune(from_prior(Latents(model, guide, (x,))), num_temperatures=40, num_leapfrog=3)
    for num_temperatures in (1, 2, 7, 100):
        schedule = torch.tensor(tuning.lengths.schedule(num_temperatures), dtype=torch.float64)
        assert len(schedule) == num_temperatures + 1 and schedule[0] == 0 and schedule[-1] == 1
        assert (schedule.diff() > 0).all()
    assert (schedule < 0.1).sum() > 30  # evenly spaced, 10 would be
