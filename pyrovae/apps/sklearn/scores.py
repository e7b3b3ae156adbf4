r"""Numbers of single rows that depend on nothing but the row: log p(x) and ELBO in the unit of the rows as given.

.. math:: \log p(s) = \log p(x) - \sum_d \log c_d, \qquad x_d = (s_d - m_d) / c_d

Each row is scored with the same noise, in double precision, so that neither its place nor the rows beside it matter.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.errors import UntrustedEvidence, warn
from pyrovae.base.random import common_random_numbers
from pyrovae.data.split import Split
from pyrovae.evidence.evaluate import routed
from pyrovae.evidence.plan import Plan
from pyrovae.evidence.reliability import UNRELIABLE_FRACTION
from pyrovae.evidence.report import Report

# Method -> what of it is done for all rows together: temperatures of chains would be those of all.
TOGETHER = {"auto": "adaptive"}


def log_evidence(vae: Any, rows: Split, plan: Plan, *, progress: bool = False) -> Tensor:
    """log p(x) of each row by the route that vouches for it, (N,) nats, float64, in the unit of the source rows.

    What no proposal vouches for is annealed, each row by itself.

    Args:
        vae: with ``model`` and ``guide``.
        rows: N of them.
        plan: as :func:`plan_of` gives it.
        progress: show a bar for what takes over two seconds.

    Warns:
        UntrustedEvidence: if nothing vouches for more than 5 % of the rows.
    """
    found, unreliable, again = _together(vae, rows, plan, progress)
    for row in again.nonzero().flatten().tolist():
        alone = common(vae, rows[row : row + 1], plan, False)
        found[row], unreliable[row] = in_source_unit(alone.log_evidence, alone)[0], alone.unreliable[0]
    if unreliable.double().mean() > UNRELIABLE_FRACTION:
        warn(
            UntrustedEvidence(
                f"nothing vouches for log p(x) of {int(unreliable.sum())} of {len(rows)} rows, which may be too low by "
                "an unknown amount: evidence(X) says more; raise n_particles, or leave method='auto'"
            )
        )
    return found


def _together(vae: Any, rows: Split, plan: Plan, progress: bool) -> tuple[Tensor, Tensor, Tensor]:
    """log p(x) of all rows, which of them are unreliable, and which are to be scored by themselves: (N,) each."""
    if plan.method == "annealed":
        every = torch.ones(len(rows), dtype=torch.bool)
        return torch.zeros(len(rows), dtype=torch.float64), every, every
    method = TOGETHER.get(plan.method, plan.method)
    report = common(vae, rows, replace(plan, method=method), progress)
    again = report.unreliable & (method != plan.method)
    if report.staying and len(rows) > 1:  # for an error in one row, its whole block does
        again = torch.ones_like(again)
    return in_source_unit(report.log_evidence, report), report.unreliable, again


def elbo(vae: Any, rows: Split, plan: Plan) -> Tensor:
    """The ELBO of each row, (N,) nats, float64, in the unit of the source rows."""
    report = common(vae, rows, plan, False)
    return in_source_unit(report.elbo, report)


def plan_of(num_particles: int, seed: int, method: str) -> Plan:
    """An evaluation whose draws are made alike for any number of rows."""
    whole = {"particle_batch": num_particles, "compile": False, "dtype": "float64"}
    return Plan(num_particles, seed, method=method, **whole)  # type: ignore[arg-type]


def common(vae: Any, rows: Split, plan: Plan, progress: bool) -> Report:
    """The report on rows that share their noise."""
    with common_random_numbers():
        return routed(vae.model, vae.guide, rows, plan, progress=progress)[0]


def in_source_unit(nats: Tensor, report: Report) -> Tensor:
    """Log densities (N,) of rows as served -> of the rows as they were given."""
    assert report.protocol is not None
    return nats + report.columns.get("log_jacobian", report.protocol.log_jacobian)
