"""Draws taken anew by their weights."""

from pyrovae.evidence.proposals.widened import widened
from pyrovae.posteriors.reference import reference_posterior


def test_equal_draws_stand_side_by_side(ppca):
    oracle, x = ppca
    guide = widened(oracle.guide, 1.5, shift=1.0)
    draws = reference_posterior(oracle.model, guide, x, method="resampled", num_particles=500, progress=False).values[
        "z"
    ][0]
    runs = 1 + (draws.diff(dim=0) != 0).any(1).sum()
    assert runs == len(draws.unique(dim=0)) < 2000
