"""Finite mixtures: of normals by scikit-learn, of independent masses by the EM of this package."""

import math
import warnings

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.programs.baselines.em import fit_mixture
from pyrovae.programs.baselines.gaussians import of_normals
from pyrovae.programs.baselines.rows import Baseline, Rows, best_size, check_density
from pyrovae.programs.oracles.mixtures import MeanFamily

NUM_STARTS = 3
LEAST_VARIANCE = 1e-4  # added to that of each value within a component, of its variance in all rows
BYTES = 100  # counts above are levels of grey, no numbers of trials


def mixture(rows: Rows, num_components: int | None = None, *, seed: int = 0) -> Baseline:
    """A mixture by expectation-maximisation, the best of three starts.

    Of real columns its components are normals of full covariance; of counts up to a largest value they are independent
    binomials, of binary columns Bernoullis, of a table's counts Poissons.

    Args:
        rows: what it is fitted to.
        num_components: C; None takes the best of 1, 2, 4, ... by the validation rows.
        seed: of the starts.

    Raises:
        InputError: if columns are of several kinds, ordinal or categorical, or C is not in 1..N.
    """
    train = rows.complete()

    def fit(size: int) -> Baseline:
        check_at_least_one(num_components=size)
        if size > len(train):
            raise InputError(f"num_components must be at most {len(train)}, the training rows, got {size}")
        return (_of_normals if rows.of_densities else _of_masses)(rows, train, size, seed)

    if num_components is not None:
        return fit(num_components)
    return best_size(fit, rows.valid, len(train) // (train.shape[1] + 1 if rows.of_densities else 1))


def _of_normals(rows: Rows, train: Tensor, size: int, seed: int) -> Baseline:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    check_density(rows, "mixture")
    centre, scale = train.mean(0), train.std(0, correction=0)
    options = {"reg_covar": LEAST_VARIANCE, "n_init": NUM_STARTS, "max_iter": 1000, "random_state": seed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # more components than distinct rows: the rest is empty
        found = GaussianMixture(size, **options).fit(((train - centre) / scale).numpy())
    weight, means, covariances = map(torch.from_numpy, (found.weights_, found.means_, found.covariances_))
    loc, covariance = centre + scale * means, covariances * scale.outer(scale)
    return Baseline(f"mixture of {size} normals{rows.gaps()}", lambda x: of_normals(weight, loc, covariance, x))


def _of_masses(rows: Rows, train: Tensor, size: int, seed: int) -> Baseline:
    what, family, maximum = _family(rows)
    if train.isnan().any() or len(train) < len(rows.train) or rows.valid.isnan().any():
        raise InputError(f"baseline 'mixture' of {what} takes no missing entries; take 'independent'")
    found = fit_mixture(train, size, family, maximum=maximum, num_restarts=NUM_STARTS, seed=seed)
    return Baseline(f"mixture of {size} x independent {what}", lambda x: {"x": (found.evidence(), x)})


def _family(rows: Rows) -> tuple[str, MeanFamily, float]:
    """Of masses: what components are called, their family, and the largest mean."""
    largest, kinds = max(rows.num_levels) - 1, set(rows.kinds)
    if kinds == {"binary"}:
        return "Bernoullis", lambda mean: dist.Bernoulli(mean).to_event(1), 1.0
    if kinds == {"count"} and rows.is_table:
        return "Poissons", lambda mean: dist.Poisson(mean).to_event(1), math.inf
    if kinds == {"count"} and largest <= BYTES:
        return "binomials", lambda mean: dist.Binomial(largest, probs=mean / largest).to_event(1), float(largest)
    held = "levels of grey" if kinds == {"count"} else f"columns of the kinds {', '.join(sorted(kinds))}"
    raise InputError(f"baseline 'mixture': {rows.name} holds {held}, of which it has no component; take 'independent'")
