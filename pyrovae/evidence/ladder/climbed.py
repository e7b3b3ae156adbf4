"""What became of the data of a block that were to climb: by which route, at what cost, and what their weights say."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.evidence.ladder.summed import Summed
from pyrovae.evidence.reliability import is_unreliable
from pyrovae.pairs.latents import Latents, Values

ROUTES = ("encoder", "Laplace", "Newton", "moments", "mixture", "annealed", "summed")
EDGE = (
    "posteriors of some reach the edge of a support, where numbers of the programs' dtype end and what lies beyond is "
    "lost; use dtype='float64', or draw that site on the unconstrained scale"
)
MODE = "their best proposals do not draw a mode that other draws led to"
NAN = "a density is NaN at draws of better proposals for some of them"


class Climbed(NamedTuple):
    """What became of some data of a block: what a report says of their weights, each (m,), and how they came by it.

    Those that stay at the encoder have no columns, or an undefined k-hat, but a cost; and a reason where something
    failed.
    """

    rows: Tensor  # (m,), of the block
    columns: dict[str, Tensor]
    route: str
    cost: Tensor  # (m,), decoder passes
    reason: str | None = None
    draws: Values | None = None  # latents by their weights, site -> (L, m, ...), where they are asked for

    @classmethod
    def stayed(cls, rows: Tensor, cost: Tensor | float, reason: str | None = None) -> "Climbed":
        """Rows that stay at the encoder, each at a cost."""
        return cls(rows, {}, ROUTES[0], torch.as_tensor(cost, dtype=torch.float64).expand(len(rows)), reason)

    @property
    def unvouched(self) -> Tensor:
        """Whether draws say that they are not to be trusted, (m,), where they say anything."""
        found, annealed = self.columns, torch.full_like(self.cost, self.route == "annealed").bool()
        rule = found["pareto_k"], found["ess"], found["num_weights"], found["skewness_log_evidence"], annealed
        return is_unreliable(*rule) & ~found["pareto_k"].isnan()

    def doubted(self, those: Tensor, reason: str) -> "Climbed":
        """With an undefined k-hat for those, (m,), that weights say nothing of, and the reason."""
        if not those.any():
            return self
        pareto_k = self.columns["pareto_k"]
        columns = self.columns | {"pareto_k": torch.where(those.to(pareto_k.device), math.nan, pareto_k)}
        return self._replace(columns=columns, reason=reason)

    def doubted_if_stayed(self, those: Tensor) -> "list[Climbed]":
        """With an undefined k-hat for those of the block, (n,), that stay at the encoder and are known to miss some."""
        those = those[self.rows]
        if self.columns or not those.any():
            return [self]
        missing = Climbed.stayed(self.rows[those], self.cost[those], self.reason)
        missing = missing._replace(columns={"pareto_k": torch.full_like(missing.cost, math.nan)})
        return [Climbed.stayed(self.rows[~those], self.cost[~those], self.reason), missing]

    def among(self, rows: Tensor) -> "Climbed":
        """As of rows of all data, on the CPU."""
        columns = {name: column.cpu() for name, column in self.columns.items()}
        draws = self.draws and {name: value.cpu() for name, value in self.draws.items()}
        return self._replace(rows=rows[self.rows].cpu(), columns=columns, cost=self.cost.cpu(), draws=draws)

    def parted(self) -> list["Climbed"]:
        """Those at whose draws no density was NaN; the others keep what the encoder gave."""
        fine = ~self.columns["log_evidence"].isnan() if self.columns else torch.ones(len(self.rows), dtype=torch.bool)
        if fine.all():
            return [self]
        columns = {name: column[fine] for name, column in self.columns.items()}
        draws = self.draws and {name: value[:, fine] for name, value in self.draws.items()}
        known = self._replace(rows=self.rows[fine], columns=columns, cost=self.cost[fine], draws=draws)
        return [known, Climbed.stayed(self.rows[~fine], self.cost[~fine], NAN)]


def summed(latents: Latents, rows: Tensor, cost: Tensor, num_kept: int = 0) -> Climbed:
    """The sum over all values of discrete latents: log p(x) itself; and so many draws of the posterior."""
    assert isinstance(latents, Summed)
    log_evidence = latents.log_evidence()
    nothing, exact = torch.zeros_like(log_evidence), torch.full_like(log_evidence, -math.inf)
    columns = dict.fromkeys(("log_evidence", "log_evidence_jackknife", "log_evidence_psis"), log_evidence)
    columns |= {"mc_se_log_evidence": nothing, "skewness_log_evidence": nothing, "pareto_k": exact}
    columns |= dict.fromkeys(("ess", "num_weights"), nothing + latents.num_values)
    draws = latents.draw_posterior(num_kept) if num_kept else None
    return Climbed(rows, columns, "summed", nothing + cost + latents.num_values, draws=draws)
