r"""What a better prior would buy: how much denser a density fitted to other data's codes is at the codes of a datum.

.. math:: G = \frac1N \sum_n E_{q(z \mid x_n)} [\log f_{-n}(z) - \log p(z)]

f_{-n} is a Gaussian mixture fitted to draws of q(z|x) of the half of the data that n is not in. In the place of the
prior it raises the ELBO of data that it has not seen by G: in expectation a lower bound on what the best prior would
buy. The marginal KL of the data at hand is an upper one, which tells little where few data tell all codes apart.
"""

import math
import warnings

import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.random import stream
from pyrovae.diagnostics.factorization import Drawn
from pyrovae.pairs.latents import Latents, Values

COMPONENTS = (1, 3, 10)  # numbers that are tried, of which the smallest BIC decides
FEWEST, MOST = 100, 4000  # data whose codes are fitted: fewer tell nothing, more take long


def gains(drawn: Drawn, *, seed: int) -> Tensor:
    """log f(z) - log p(z) at S draws for each of M data, f fitted to the other half of the data: (S, M) nats.

    NaN where there are fewer than 100 data.
    """
    codes = flat(drawn.values).double().cpu()
    log_prior = drawn.log_prior.sum(-1).cpu()
    found = torch.full_like(log_prior, math.nan)
    order = torch.randperm(codes.shape[1], generator=stream("better prior", seed), device="cpu")
    halves = order.chunk(2)
    if len(order) < FEWEST:
        return found
    for fitted, other in (halves, halves[::-1]):
        found[:, other] = _log_density(codes[0, fitted[:MOST]], codes[:, other], seed) - log_prior[:, other]
    return found


def flat(values: Values) -> Tensor:
    """Draws site -> (S, M, ...) side by side, (S, M, D)."""
    return torch.cat([value.reshape(*value.shape[:2], -1) for value in values.values()], -1)


def on_real_line(latents: Latents) -> bool:
    """Whether every latent ranges over all real numbers, so that densities on them have one base measure."""
    values = latents.draw(1)
    try:
        free = latents.unconstrain(values)
    except (InputError, NotImplementedError):  # a site without a bijection: discrete, circular
        return False
    own = flat({name: values[name] for name in latents.sites})
    return own.is_floating_point() and free.shape == own.shape and bool((free == own).all())


def _log_density(codes: Tensor, at: Tensor, seed: int) -> Tensor:
    """The log density at (S, M, D) of the mixture that fits codes (n, D) best by BIC: (S, M) nats."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    rows = codes.numpy()
    floor = 1e-4 * float(rows.var(0).mean())
    sizes = [size for size in COMPONENTS if 10 * size <= len(rows)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fit that is not done is a density all the same
        fits = [GaussianMixture(k, reg_covar=floor, max_iter=50, random_state=seed).fit(rows) for k in sizes]
    best = min(fits, key=lambda one: one.bic(rows))
    return torch.from_numpy(best.score_samples(at.flatten(0, 1).numpy())).reshape(at.shape[:2])
