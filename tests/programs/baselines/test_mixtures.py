"""Mixture baselines: of normals as scikit-learn has them, of masses as the EM of this package."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from examples.baselines import rows_of
from sklearn.mixture import GaussianMixture

from pyrovae.base.errors import InputError
from pyrovae.programs.baselines.em import fit_mixture
from pyrovae.programs.baselines.mixtures import mixture


@pytest.fixture(scope="module")
def two():
    """Two groups of real rows, on scales of 1 and of 1000."""
    noise = torch.randn(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (noise + 6 * (torch.arange(400) % 2)[:, None]) * torch.tensor([1.0, 1000.0])
    return rows_of(x[:300])._replace(valid=x[300:])


def test_of_real_columns_it_is_scikit_learns(two):
    centre, scale = two.train.mean(0), two.train.std(0, correction=0)
    oracle = GaussianMixture(2, reg_covar=1e-4, n_init=3, max_iter=1000, random_state=5)
    oracle.fit(((two.train - centre) / scale).numpy())
    expected = oracle.score_samples(((two.valid - centre) / scale).numpy()) - float(scale.log().sum())
    np.testing.assert_allclose(mixture(two, 2, seed=5).log_prob(two.valid), expected, rtol=1e-9)


def test_its_size_is_chosen_by_the_validation_rows(two):
    assert mixture(two).about == "mixture of 2 normals"


MASSES = {
    "binary": (1, {"num_levels": (2,) * 4}, "Bernoullis"),
    "count": (5, {"num_levels": (6,) * 4}, "binomials"),
    "count of a table": (5, {"num_levels": (6,) * 4, "is_table": True}, "Poissons"),
}


@pytest.mark.parametrize(("maximum", "changed", "what"), MASSES.values(), ids=MASSES)
def test_of_masses_it_is_the_em_of_this_package(maximum, changed, what):
    chance = torch.linspace(0.1, 0.9, 4) * torch.ones(200, 4)
    x = torch.stack([torch.bernoulli(chance, generator=torch.Generator().manual_seed(seed)) for seed in range(maximum)])
    rows = rows_of(x.sum(0).double(), ["binary" if maximum == 1 else "count"] * 4)._replace(**changed)
    found = mixture(rows, 2, seed=3)
    assert found.about == f"mixture of 2 x independent {what}"
    families = {
        "Bernoullis": (lambda mean: dist.Bernoulli(mean).to_event(1), 1.0),
        "binomials": (lambda mean: dist.Binomial(5, probs=mean / 5).to_event(1), 5.0),
        "Poissons": (lambda mean: dist.Poisson(mean).to_event(1), float("inf")),
    }
    family, largest = families[what]
    by_hand = fit_mixture(rows.train, 2, family, maximum=largest, num_restarts=3, seed=3)
    assert torch.equal(found.log_prob(rows.train), by_hand.log_evidence(rows.train))


def test_what_it_has_no_component_for_is_refused():
    counts = torch.arange(40.0).reshape(20, 2).double()
    grey = rows_of(counts, ("count", "count"))._replace(num_levels=(256, 256))
    with pytest.raises(InputError, match="rows holds levels of grey, of which it has no component"):
        mixture(grey, 2)
    levels = rows_of(counts, ("count", "ordinal"), is_table=True)._replace(num_levels=(40, 40))
    with pytest.raises(InputError, match="columns of the kinds count, ordinal, of which it has no component"):
        mixture(levels, 2)
    gaps = torch.cat([counts, torch.full((1, 2), float("nan")).double()])
    with pytest.raises(InputError, match="of Poissons takes no missing entries"):
        mixture(rows_of(gaps, ("count", "count"), is_table=True)._replace(num_levels=(41, 41)), 2)
    with pytest.raises(InputError, match="num_components must be at most 20, the training rows, got 21"):
        mixture(rows_of(counts), 21)
