r"""pool(): one estimate and its error from those on several completed data sets, by Rubin's rules.

.. math:: \bar Q = \tfrac1M \sum_m Q_m, \quad T = \bar U + (1 + \tfrac1M) B, \quad
    \bar U = \tfrac1M \sum_m U_m, \quad B = \tfrac{1}{M - 1} \sum_m (Q_m - \bar Q)^2
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.records import Record


@dataclass(frozen=True, eq=False, repr=False)
class Pooled(Record):
    """Estimates of P quantities from M completed data sets, (P,) float64 each."""

    names: list[str]
    estimate: Tensor
    se: Tensor  # square root of the total variance T
    df: Tensor  # degrees of freedom of Student's t
    low: Tensor  # ends of the interval
    high: Tensor
    fraction_missing: Tensor  # of the information, for what is missing
    relative_increase: Tensor  # of the variance, for what is missing: (1 + 1/M) B / U
    num_imputations: int  # M
    level: float

    def __repr__(self) -> str:
        return f"Pooled({len(self.names)} estimates, M={self.num_imputations})"

    def row_names(self) -> list[str]:
        return self.names

    def numbers(self) -> dict[str, Any]:
        """The table, row by row."""
        return {"estimates": self.named_rows()}

    def lines(self) -> list[str | TextTable]:
        width = max(8, *map(len, self.names)) + 2
        interval = f"{self.level:.0%} interval"
        columns = [("", f"<{width}", ""), ("estimate", ">11", ".4g"), ("SE", ">10", ".3g"), ("df", ">9", ".1f")]
        columns += [(interval, ">13", ".4g"), ("", ">11", ".4g"), ("missing", ">9", ".1%")]
        kept = ("estimate", "se", "df", "low", "high", "fraction_missing")
        rows = [(name, *(row[key] for key in kept)) for name, row in self.named_rows().items()]
        about = "missing: the fraction of the information that is missing, by Rubin's rules"
        return [TextTable(columns, rows), f"M = {self.num_imputations} completed data sets; {about}"]


@checked
def pool(
    estimates: Any,
    variances: Any,
    *,
    complete_df: float | None = None,
    names: Sequence[str] = (),
    level: float = 0.95,
) -> Pooled:
    r"""Pools estimates, such as regression coefficients, over completed data sets.

    With \lambda = (1 + 1/M) B / T, the degrees of freedom are those of Rubin, (M - 1) / \lambda^2, or where it is known
    how many complete data would leave, those of Barnard and Rubin, which are never more.

    Args:
        estimates: Q, (M,) or (M, P): one of each completed data set.
        variances: U, their squared standard errors, of the same shape.
        complete_df: degrees of freedom that complete data would leave, as n - p of a regression.
        names: of the P quantities.
        level: of the interval.

    Returns:
        The :class:`Pooled` record.

    Raises:
        InputError: for fewer than two completed data sets, shapes that differ, or variances that are not positive.

    References:
        Rubin (1987), Multiple Imputation for Nonresponse in Surveys, Wiley, section 3.1.
        Barnard and Rubin (1999), Small-sample degrees of freedom with multiple imputation, Biometrika 86:948.

    Example:
        >>> pooled = pool([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
        >>> round(pooled.estimate.item(), 3), round(pooled.se.item(), 3), round(pooled.df.item(), 2)
        (2.0, 1.528, 6.12)
    """
    q, u = (_table(name, given) for name, given in (("estimates", estimates), ("variances", variances)))
    if q.shape != u.shape:
        raise InputError(f"estimates and variances must have one shape, got {tuple(q.shape)} and {tuple(u.shape)}")
    if not bool((u > 0).all()) or not bool(q.isfinite().all()):
        raise InputError("estimates must be finite, and variances, which are squared standard errors, positive")
    if not 0 < level < 1:
        raise InputError(f"level is that of an interval, between 0 and 1; got {level}")
    num_imputations, num_estimates = q.shape
    labels = list(names) or [f"estimate {number + 1}" for number in range(num_estimates)]
    if len(labels) != num_estimates:
        raise InputError(f"names: expected {num_estimates}, got {len(labels)}")
    within, between = u.mean(0), (1 + 1 / num_imputations) * q.var(0)
    total = within + between
    part = between / total
    df = _degrees(part, num_imputations, complete_df)
    increase = between / within
    # Of the information, not the variance: Student's t has less of it than a normal.
    missing = torch.where(df.isfinite(), part + (1 - part) * 2 / (df + 3), part)
    half = _student(df, level) * total.sqrt()
    mean = q.mean(0)
    return Pooled(
        labels, mean, total.sqrt(), df, mean - half, mean + half, missing, increase, num_imputations, float(level)
    )


def _table(name: str, given: Any) -> Tensor:
    try:
        found = torch.as_tensor(given, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be numbers (M,) or (M, P), got {type(given).__name__}") from error
    found = found[:, None] if found.dim() == 1 else found
    if found.dim() != 2 or len(found) < 2:
        raise InputError(
            f"{name} must be those of M completed data sets, at least two, (M,) or (M, P); got shape "
            f"{tuple(torch.as_tensor(given).shape)}"
        )
    return found


def _degrees(part: Tensor, num_imputations: int, complete_df: float | None) -> Tensor:
    old = (num_imputations - 1) / part.square()  # infinite where nothing is missing
    if complete_df is None:
        return old
    if not complete_df > 0:
        raise InputError(f"complete_df must be positive, got {complete_df}")
    observed = (complete_df + 1) / (complete_df + 3) * complete_df * (1 - part)
    return 1 / (1 / old + 1 / observed)


def _student(df: Tensor, level: float) -> Tensor:
    """The quantile of Student's t that leaves half of what is outside of the level above it."""
    from scipy.special import ndtri, stdtrit  # which scikit-learn brings

    upper = (1 + level) / 2
    finite = torch.from_numpy(stdtrit(df.clamp(max=1e9).numpy(), upper))
    return torch.where(df < 1e9, finite, float(ndtri(upper)))
