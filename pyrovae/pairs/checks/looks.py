"""What every measurement asks of a pair before it trusts its numbers; each look is at one run, and at a few more.

The plain looks are those of each :class:`~pyrovae.pairs.particles.Particles`; supports and edges are looked at by
whoever needs them.
"""

from functools import partial

from pyrovae.base.errors import InputError, first_line
from pyrovae.base.memory import out_of_memory
from pyrovae.base.random import preserve_rng_state
from pyrovae.pairs.checks import coverage, data, parameters, runs
from pyrovae.pairs.structure import Shown
from pyrovae.pairs.supports import may_miss
from pyrovae.pairs.traces import PER_DATUM, TracePair, plain_traces, sites_of


def check_weights(shown: Shown) -> str | None:
    """Runs the pair a few times more to see that log w is the log weight of a draw, for each datum.

    Returns:
        A site that goes with the place of a row in its batch, if there is one.

    Raises:
        InputError: naming the site, if a density changes from run to run or with the other rows of a batch, is
            not that of a point that the guide moves, or is of data that are computed from latents; naming the
            parameter too, if one of the model's distributions is beyond its bounds.
        FloatingPointError: naming both, if it is NaN.
    """
    looks = _across_rows(shown)
    if not looks.repeated:
        runs.check_repeatable(shown)
    runs.check_moves(shown)
    runs.check_rows_independent(looks)
    data.check_given(shown.run, partial(sites_of, shown.model, *shown.args))
    _check_model_parameters(shown)
    return looks.placed


def check_supports(shown: Shown, num_draws: int = coverage.NUM_DRAWS) -> None:
    """Raises InputError, naming the site, if the guide cannot draw all that the prior can, or draws on an edge.

    Args:
        shown: the pair.
        num_draws: of each site, over all data, that are looked at.
    """
    check_edges(shown, num_draws)
    coverage.check_guide_covers(shown, num_draws)


def check_edges(shown: Shown, num_draws: int = coverage.NUM_DRAWS) -> None:
    """Raises InputError, naming the site, if draws of the guide pile up on the edge of their support.

    Likewise where they leave the circle of an angle, and by this its posterior.
    """
    coverage.check_off_edges(shown.run, shown.structure, num_draws)
    coverage.check_angles_wrap(shown)


def check_inside(shown: Shown) -> None:
    """Raises InputError, naming the site, if the guide draws what the prior cannot."""
    coverage.check_guide_inside(shown.run, shown.structure, partial(_again, shown))


def check_trainable(shown: Shown) -> None:
    """Raises InputError, naming the site, for what no ELBO can be trained on, or no evidence measured with."""
    check_weights(shown)
    check_supports(shown)
    check_inside(shown)
    if any(may_miss(site["fn"]) for site in shown.run.observed.values()):
        for _ in range(-(-coverage.NUM_DRAWS // shown.num_data)):
            data.check_possible(_again(shown), shown.structure.dim)


def require_exchangeable(shown: Shown, purpose: str) -> None:
    """Raises InputError, naming the site, if programs know a row by its place in the batch."""
    runs.check_rows_exchangeable(_across_rows(shown), purpose)


def _check_model_parameters(shown: Shown) -> None:
    """Names a number of the model's that no draw of its own mends: one beyond its bounds, or NaN at the guide's."""
    try:
        with preserve_rng_state():
            own = sites_of(shown.model, *shown.args)
    except Exception as error:  # what the guide draws may be all that the model can run on
        if out_of_memory(error):
            raise
        return
    try:
        parameters.check_parameters("model", own, shown.structure.dim)
    except FloatingPointError:  # a wide prior may overflow where no guide draws
        parameters.check_parameters("model", shown.run.joint, shown.structure.dim)


def _across_rows(shown: Shown) -> runs.Looks:
    try:
        return runs.look_across_rows(shown)
    except (ValueError, RuntimeError, IndexError) as error:
        if isinstance(error, InputError) or out_of_memory(error):
            raise
        line = first_line(error)
        raise InputError(f"the programs do not run once rows are exchanged: {line}. {PER_DATUM}") from error


def _again(shown: Shown) -> TracePair:
    return plain_traces(shown.model, shown.guide, shown.args)
