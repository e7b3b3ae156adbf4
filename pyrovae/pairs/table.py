"""The table of a pair on a batch, for whoever wants it by itself: log p(x|z), log p(z) and log q(z|x), (K, N) each."""

from collections.abc import Sequence
from typing import Any

import pyro
import torch

from pyrovae.base import memory
from pyrovae.base.arguments import checked
from pyrovae.base.errors import check_at_least_one
from pyrovae.base.random import preserve_rng_state
from pyrovae.pairs.checks import inverses, looks, parameters
from pyrovae.pairs.checks.sites import require_no_codes
from pyrovae.pairs.context import evaluation_mode, home_device, modules_of, on_device, own_scope
from pyrovae.pairs.handlers import scorable
from pyrovae.pairs.particles import ONE_BY_ONE, Particles, one_row
from pyrovae.pairs.terms import LogTerms, sum_by_role
from pyrovae.pairs.traces import Program, num_rows, plain_traces


@checked
def log_terms(
    model: Program,
    guide: Program,
    *args: Any,
    num_particles: int,
    plate: str | None = None,
    vectorize: bool = True,
) -> LogTerms:
    """The table of a pair on a batch, all K x N at once.

    Args:
        model: program of p(x, z), with one plate over the data.
        guide: program of q(z|x), with the same plate.
        args: what both are called with; the first dimension of the first tensor is the datum (N).
        num_particles: K.
        plate: name of the data plate, where several plates hold all sites.
        vectorize: False runs the programs for one particle of one datum at a time: slow, and right also where
            sampled values steer Python control flow.

    Returns:
        log p(x|z), log p(z) and log q(z|x), each (K, N), differentiable. ``poutine.scale`` is ignored (a tempered
        density is not evidence), ``poutine.mask`` is honoured; modules keep their modes (dropout that is on stays on).

    Raises:
        InputError: naming the site, if the pair has no per-datum weights.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> terms = log_terms(oracle.model, oracle.guide, x, num_particles=4)
        >>> bool((terms.log_weight - oracle.log_evidence(x)).abs().max() < 1e-10)  # the guide is exact
        True
    """
    check_at_least_one(num_particles=num_particles)
    num_rows(args)  # refused where there are none
    with own_scope(model, guide) as (model, guide, _), on_device(home_device(model, guide)):
        with torch.no_grad(), evaluation_mode(modules_of(model, guide)), preserve_rng_state():
            _validated(scorable(model), guide, args if vectorize else one_row(args, 0))
            with pyro.validation_enabled(False):
                particles = Particles(model, guide, args, plate=plate, strategy=None if vectorize else ONE_BY_ONE)
                require_no_codes(particles.structure.codes)
                looks.check_edges(particles.shown)
        inverses.check_batch_norm_of_flows(particles.example)
        advice = f"{num_particles} particles of {particles.num_data} data at once: lower num_particles"
        with pyro.validation_enabled(False), memory.explain_out_of_memory(advice):
            return sum_by_role(particles.log_terms(num_particles))


def _validated(model: Program, guide: Program, args: Sequence[Any]) -> None:
    try:
        plain_traces(model, guide, args)
    except ValueError as error:
        if named := parameters.explained(error, model, guide, args):
            raise named from error
        raise
