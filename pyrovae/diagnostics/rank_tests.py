r"""Rank tests: is a true value one more draw among its L draws, in all D quantities of S simulations at once?

Under the null, truth and draws are exchangeable given x, so each rank is uniform on 0..L, and of each simulation any
of the L + 1 members could have been the truth. With R_l of the S ranks at most l, the statistic of a quantity is the
smallest pointwise tail of its ECDF, and the test takes the smallest over all quantities:

.. math::
    \gamma = \min_{0 \le l < L} 2 \min\{P(B_l \le R_l),\; P(B_l \ge R_l)\}, \qquad
    B_l \sim \mathrm{Binomial}\left(S, \tfrac{l + 1}{L + 1}\right)

Its null distribution comes from the same members, another of them as the truth of each simulation, in all quantities
at once: however these hang together, the test has its level. Nothing here knows Pyro or a model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Binomial

from pyrovae.base.errors import InputError
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.records import Record

NUM_REPLICATES = 999  # of the null distribution
_RANKS_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False, repr=False)
class RankTest(Record):
    """Where S true values rank among their L draws, in each of D quantities."""

    names: tuple[str, ...]  # of the D quantities
    ranks: Tensor  # (S, D): how many of the L draws lie below the truth
    num_draws: int  # L
    level: float  # of the bands, for all points of all quantities together
    gamma: Tensor  # (D,): the smallest pointwise tail of each quantity
    threshold: float  # the gamma below which a quantity leaves the bands
    p_values: Tensor  # (D,): each adjusted for all the quantities
    low: Tensor  # (L,): the band of every ECDF, at each point of the grid
    high: Tensor  # (L,)

    def __repr__(self) -> str:
        return f"RankTest(S={len(self.ranks)}, L={self.num_draws}, D={len(self.names)}, {self.verdict})"

    @property
    def p_value(self) -> float:
        """Of the test of all quantities together."""
        return self.p_values.min().item()

    @property
    def passed(self) -> bool:
        """Whether no quantity leaves its bands; exactly where ``p_value > 1 - level``."""
        return not self.verdicts

    @property
    def grid(self) -> Tensor:
        """The points of the ECDF, (l + 1) / (L + 1) for l = 0..L-1, which it equals in expectation: (L,)."""
        return _grid(self.num_draws)

    @property
    def ecdf(self) -> Tensor:
        """Fraction of ranks at most l = 0..L-1: (L, D)."""
        return _counts(self.ranks[None], self.num_draws + 1)[0].T.double() / len(self.ranks)

    @property
    def verdicts(self) -> dict[str, str]:
        """What is wrong with the draws, by quantity; of those that leave their bands alone."""
        failed = (self.gamma < self.threshold).nonzero().flatten().tolist()
        return {self.names[d]: _direction(self.ranks[:, d].double(), self.num_draws) for d in failed}

    @property
    def verdict(self) -> str:
        """One phrase: "too narrow at z[3], z[5]", or "no miscalibration seen in 500 simulations"."""
        verdicts = self.verdicts
        if not verdicts:
            return f"no miscalibration seen in {len(self.ranks)} simulations"
        kinds = dict.fromkeys(verdicts.values())
        named = {kind: [name for name, other in verdicts.items() if other == kind] for kind in kinds}
        return "; ".join(f"{kind} at {_listed(names)}" for kind, names in named.items())

    def row_names(self) -> Sequence[str]:
        return self.names

    def table(self) -> dict[str, Tensor]:
        """Of each quantity, (D,) each: mean rank, spread and p-value.

        A mean of rank / L is half if calibrated; a spread, the standard deviation of the ranks relative to that of
        uniform ones, is above 1 where the truth falls in the tails.
        """
        ranks, uniform = self.ranks.double(), math.sqrt(_moments(self.num_draws)[0])
        columns = {"mean_rank": ranks.mean(0) / self.num_draws, "spread": ranks.std(0, correction=0) / uniform}
        return columns | {"p_value": self.p_values}

    def numbers(self) -> dict[str, Any]:
        """The verdict, and the numbers of each quantity."""
        verdicts = self.verdicts
        quantities = {name: row | {"verdict": verdicts.get(name)} for name, row in self.named_rows().items()}
        return {"passed": self.passed, "p_value": self.p_value, "verdict": self.verdict, "quantities": quantities}

    def lines(self) -> list[str | TextTable]:
        return [f"{self.verdict} (p = {self.p_value:.3f})", *self.failures()]

    def failures(self) -> list[TextTable]:
        """One table of the quantities that leave their bands; none if none does."""
        verdicts, numbers = self.verdicts, self.named_rows()
        width = max([10, *map(len, verdicts)]) + 2
        columns = [("", f"<{width}", ""), ("", ">22", ""), ("mean rank", ">11", ".3f")]
        columns += [("spread", ">8", ".3f"), ("p", ">8", ".3f")]
        rows = [(f"  {name}", verdict, *numbers[name].values()) for name, verdict in verdicts.items()]
        return [TextTable(columns, rows)] if rows else []


def rank_members(values: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Rank of each of M members among all M, ties broken at random.

    Args:
        values: (M, ...), ranked along the first dimension.
        generator: of the ties; torch's default generator when None.

    Returns:
        (M, ...), whole numbers 0..M-1, all different along the first dimension.

    Example:
        >>> rank_members(torch.tensor([0.3, 0.1, 0.2]))
        tensor([2, 0, 1])
    """
    shuffled = torch.rand(values.shape, generator=generator, device=values.device).argsort(0)
    ascending = values.gather(0, shuffled).argsort(dim=0, stable=True)
    return shuffled.gather(0, ascending).argsort(0)


def rank_test(
    table: Tensor, names: Sequence[str], *, level: float = 0.95, generator: torch.Generator | None = None
) -> RankTest:
    """Tests whether the first member is exchangeable with the others, in all quantities at once.

    The test is exact if the S simulations are independent of each other: an exact null is rejected with probability
    at most 1 - level, for any L and S and any dependence between quantities.

    Args:
        table: (L + 1, S, D), ranks of the members of each simulation as of :func:`rank_members`; the truth is first.
        names: of the D quantities.
        level: of the bands, from 0 to 0.999.
        generator: of the replicates that make the null distribution; torch's default generator when None.

    Returns:
        The :class:`RankTest`.

    Raises:
        InputError: if the level is not between 0 and 0.999.

    References:
        Säilynoja, Bürkner and Vehtari (2022), Graphical test for discrete uniformity, arXiv:2103.10522.

    Example:
        >>> values = torch.randn(20, 200, 1, generator=torch.Generator().manual_seed(0))
        >>> values[0] *= 3
        >>> rank_test(rank_members(values), ["z"]).verdict
        'too narrow at z'
    """
    check_level(level)
    num_simulations, num_draws = table.shape[1], len(table) - 1
    tails = pointwise_tails(num_simulations, num_draws)
    null = _null(table, tails, generator).sort().values
    threshold = null[math.floor((1 - level) * (NUM_REPLICATES + 1) + 1e-9) - 1].item()
    gamma = _gammas(table[:1], tails)[0]
    inside = (tails >= threshold).double()
    return RankTest(
        names=tuple(names),
        ranks=table[0].long(),
        num_draws=num_draws,
        level=level,
        gamma=gamma,
        threshold=threshold,
        p_values=(1 + torch.searchsorted(null, gamma, right=True).double()) / (NUM_REPLICATES + 1),
        low=inside.argmax(1).double() / num_simulations,
        high=(num_simulations - inside.flip(1).argmax(1)).double() / num_simulations,
    )


def check_level(level: float) -> None:
    """Raises InputError unless the replicates can tell this level."""
    if not 0 < level <= NUM_REPLICATES / (NUM_REPLICATES + 1):
        raise InputError(f"level must be above 0 and at most 0.999 ({NUM_REPLICATES} replicates), got {level}")


def pointwise_tails(num_simulations: int, num_draws: int) -> Tensor:
    """Two-sided tail probability of each count of an ECDF of uniform ranks: (L, S + 1), float64."""
    counts = torch.arange(num_simulations + 1, dtype=torch.float64)
    mass = Binomial(num_simulations, _grid(num_draws)[:, None]).log_prob(counts).exp()
    at_most, at_least = mass.cumsum(1), mass.flip(1).cumsum(1).flip(1)
    return (2 * torch.minimum(at_most, at_least)).clamp(max=1)


# ----------------------------------------------------------------------------------------- the statistic


def _grid(num_draws: int) -> Tensor:
    return torch.arange(1, num_draws + 1, dtype=torch.float64) / (num_draws + 1)


def _null(table: Tensor, tails: Tensor, generator: torch.Generator | None) -> Tensor:
    """The smallest gamma over all quantities, with a random member as the truth of each simulation: (R,)."""
    num_members, num_simulations, num_quantities = table.shape
    at_once = max(1, _RANKS_AT_ONCE // (num_simulations * num_quantities))
    shape = (NUM_REPLICATES, num_simulations)
    truths = torch.randint(num_members, shape, generator=generator, device=table.device)
    simulations = torch.arange(num_simulations, device=table.device)
    return torch.cat([_gammas(table[part, simulations], tails).amin(1) for part in truths.split(at_once)])


def _gammas(ranks: Tensor, tails: Tensor) -> Tensor:
    """The smallest pointwise tail of each quantity: ranks (R, S, D) -> (R, D)."""
    counts = _counts(ranks, len(tails) + 1)
    return tails[torch.arange(len(tails)), counts].amin(-1)


def _counts(ranks: Tensor, num_members: int) -> Tensor:
    """How many ranks are at most l = 0..L-1: (R, S, D) -> (R, D, L)."""
    rows, _, columns = ranks.shape
    first = num_members * torch.arange(rows * columns, device=ranks.device).reshape(rows, 1, columns)
    found = (ranks + first).flatten().bincount(minlength=rows * columns * num_members)
    return found.reshape(rows, columns, num_members).cumsum(-1)[..., :-1]


# ----------------------------------------------------------------------------------------- the direction


def _moments(num_draws: int) -> tuple[float, float]:
    """Second and fourth central moment of the uniform distribution on 0..L."""
    square = (num_draws + 1) ** 2
    return (square - 1) / 12, (square - 1) * (3 * square - 7) / 240


def _direction(ranks: Tensor, num_draws: int) -> str:
    """What is wrong by mean and variance of the ranks (S,) against those of uniform ones, in standard errors."""
    second, fourth = _moments(num_draws)
    root, error = math.sqrt(len(ranks)), math.sqrt(fourth - second**2)  # which is 0 for L = 1, where the mean says all
    mean = (ranks.mean().item() - num_draws / 2) * root / math.sqrt(second)
    spread = (ranks.var(correction=0).item() - second) * root / error if num_draws > 1 else 0.0
    if max(abs(mean), abs(spread)) < 2:
        return "of another shape"
    if abs(spread) >= abs(mean):
        return "too narrow" if spread > 0 else "too wide"
    return "shifted down" if mean > 0 else "shifted up"  # a truth above its draws: they lie too low


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
