"""What is computed beforehand: posteriors on grids of their own, held against a pair whose evidence is known."""

import numpy as np
import torch

import pyrovae as pv
from pyrovae.apps.explorer import precomputed
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents
from pyrovae.reports.explorer.plane import Plane


def test_posteriors_of_a_linear_model_give_its_evidence():
    loadings = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    oracle = pv.oracles.LinearGaussian(loadings, torch.tensor(0.3), torch.tensor(0.7))
    (x, _), plane = oracle.draw(6, seed=0), Plane(np.zeros(2), np.eye(2)[::-1].copy(), ["b", "a"])
    with isolated(oracle.model, oracle.guide) as (model, guide, _):
        latents = Latents(model, guide, (x,))
        stored = precomputed.of_guide(latents, plane)
        found = precomputed.posteriors(latents, plane.coordinates(stored["draws"]), plane, (-4.0, 4.0, -4.0, 4.0))
    log, boxes = found["log"], found["boxes"]
    cell = np.log((boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) / (precomputed.NODES - 1) ** 2)
    evidence = np.logaddexp.reduce(log.reshape(6, -1), 1) + cell
    exact = oracle.log_evidence(x).numpy()
    np.testing.assert_allclose(evidence, exact, atol=2e-3)
    np.testing.assert_allclose(stored["evidence"], exact, atol=1e-4)  # the guide is the posterior
    posterior = oracle.posterior(x)
    np.testing.assert_allclose(stored["mean"], posterior.mean, atol=0.2)
    covariance = posterior.covariance_matrix
    swapped = np.stack([covariance[:, 1, 1], covariance[:, 0, 1], covariance[:, 0, 0]], -1)
    np.testing.assert_allclose(stored["covariance"], swapped, atol=0.3 * float(covariance.abs().max()))


def test_values_as_bytes_keep_their_limits():
    assert precomputed.as_bytes(torch.tensor([-1.0, 0.0, 0.5, 2.0]), (0.0, 1.0)).tolist() == [0, 0, 128, 255]
