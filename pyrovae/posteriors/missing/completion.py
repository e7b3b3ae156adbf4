r"""Completion: data completed by a model, with draws of latents and of missing entries, and what they are worth.

.. math:: z_l \sim p(z \mid x_o), \qquad x_{m,l} \sim p(x_m \mid x_o, z_l), \qquad
    E[x_m \mid x_o] \approx \tfrac1L \sum_l E[x_m \mid x_o, z_l]
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pyrovae.base.forms import datatree
from pyrovae.base.forms.tables import TextTable, quantities, text
from pyrovae.base.records import Record, mean_and_se, number, spread
from pyrovae.data.protocol import Protocol
from pyrovae.evidence.comparisons.conditional import ConditionalDensity
from pyrovae.evidence.ladder.climbed import ROUTES
from pyrovae.evidence.report import Report, route_table
from pyrovae.pairs.latents import Values

MOST_RHAT = 1.05  # of a few hundred steps, which tell chains apart no better
GUESSED = "the guide does not read missing entries: it proposes latents for data completed by a guess of these"


@dataclass(frozen=True, eq=False)
class Mixing:
    """How chains mixed, each (N,)."""

    acceptance: Tensor  # mean probability
    rhat: Tensor  # split R-hat of log p(x_o, z)
    ess: Tensor  # effective sample size of all chains together, of the same
    num_chains: int
    num_steps: int  # after the warm-up

    def lines(self) -> list[str]:
        """What to say of them."""
        worst, least = float(self.rhat.nan_to_num(math.inf).max()), float(self.ess.min())
        return [
            f"Metropolis-within-Gibbs, chains of each datum: {self.num_chains}, steps {self.num_steps}; acceptance "
            f"{float(self.acceptance.mean()):.2f} on average, {float(self.acceptance.min()):.2f} at least",
            f"R-hat of log p(x_o, z): largest {worst:.3f}, above {MOST_RHAT} for "
            f"{float((self.rhat > MOST_RHAT).double().mean()):.1%} of data; least effective sample size {least:.0f}",
        ]


@dataclass(frozen=True, eq=False, repr=False)
class Completion(Record):
    """What a pair says of the missing entries of N data; every tensor is on the CPU."""

    values: Values  # latent site -> (L, N, ...): draws of the posterior given what was observed
    draws: Tensor  # (L, N, *shape): the first tensor of the data, complete
    mean: Tensor  # (N, *shape) of each entry; the observed as they are; the most frequent draw where there is no mean
    sd: Tensor  # (N, *shape) likewise; 0 where observed, NaN where there is none
    observed: Tensor  # (N, *shape) booleans
    report: Report | None  # log p(x_o), by which route and how reliable; None where chains found the draws
    density: ConditionalDensity | None  # log p(x_m | x_o) of the hidden entries that are known; None where none is
    by_draws: Tensor | None  # (N,): the same by these draws alone, log mean p(x_m | x_o, z_l): a rough check, too low
    mixing: Mixing | None  # of chains; None where draws are weighted ones
    method: str
    seed: int
    is_filled: bool  # whether the guide reads data completed by a guess
    protocol: Protocol

    categories: ClassVar = {"route": (*ROUTES, "gibbs")}

    def __repr__(self) -> str:
        return f"Completion(N={len(self)}, L={len(self.draws)}, {self.num_missing:,} entries, {self.method})"

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def num_missing(self) -> int:
        """Entries that were not observed."""
        return int((~self.observed).sum())

    @property
    def route(self) -> list[str]:
        """By what the latents of each datum were drawn."""
        return ["gibbs"] * len(self) if self.report is None else self.report.route

    @property
    def unreliable(self) -> Tensor:
        """Whether nothing vouches for the draws of a datum, (N,): k-hat, or chains that disagree."""
        if self.report is not None:
            return self.report.unreliable
        assert self.mixing is not None
        return ~(self.mixing.rhat <= MOST_RHAT)

    @property
    def fraction_unreliable(self) -> float:
        """Fraction of the data for whose draws nothing vouches."""
        return self.unreliable.double().mean().item()

    def table(self) -> dict[str, Tensor]:
        columns = {
            "num_missing": (~self.observed).flatten(1).sum(1).double(),
            "route": torch.tensor([float(self.categories["route"].index(one)) for one in self.route]).double(),
            "unreliable": self.unreliable.double(),
        }
        if self.report is not None:
            found = self.report.columns
            columns |= {"log_evidence_observed": found["log_evidence"]}
            columns |= {"mc_se_log_evidence_observed": found["mc_se_log_evidence"]}
            columns |= {name: found[name] for name in ("pareto_k", "ess")}
        if self.mixing is not None:
            columns |= {"acceptance": self.mixing.acceptance, "rhat": self.mixing.rhat, "ess": self.mixing.ess}
        if self.density is not None:
            columns |= {"log_density": self.density.log_density, "mc_se_log_density": self.density.mc_se_log_density}
        return columns | ({} if self.by_draws is None else {"log_density_by_draws": self.by_draws})

    def groups(self) -> datatree.Groups:
        """Draws of latents and of completed data given what was observed, that (NaN where missing), and the table."""
        seen = torch.where(self.observed, self.mean, math.nan)
        return {
            "posterior": datatree.draws(datatree.one_chain(self.values), "datum"),
            "posterior_predictive": {"x": datatree.Variable(self.draws[None], ("chain", "draw", *self._dims))},
            "observed_data": {"x": datatree.Variable(seen, self._dims)},
            "constant_data": {
                **super().groups()["constant_data"],
                "observed": datatree.Variable(self.observed, self._dims),
            },
        }

    @property
    def _dims(self) -> tuple[str, ...]:
        return datatree.data({"x": self.mean}, "datum")["x"].dims

    def numbers(self) -> dict[str, Any]:
        """How much is missing, the nats of what was observed and of what was hidden, and how reliable draws are."""
        found: dict[str, Any] = {
            "num_data": len(self),
            "num_missing": self.num_missing,
            "fraction_missing": number((~self.observed).double().mean()),
            "num_draws": len(self.draws),
            "fraction_unreliable": self.fraction_unreliable,
        }
        if self.report is not None:
            report = self.report
            found["log_evidence_observed"] = mean_and_se(report.log_evidence, report.mc_se_log_evidence)
            found |= {"routes": report.routes(), "ess": spread(report.ess)}
        if self.by_draws is not None:
            found["log_density_by_draws"] = mean_and_se(self.by_draws)
        return found | ({"log_density": self.density.numbers()} if self.density is not None else {})

    def lines(self) -> list[str | TextTable]:
        lines: list[str | TextTable] = [str(self.protocol)]
        part = text(100 * (~self.observed).double().mean().item(), ".1f")
        lines.append(
            f"{self.num_missing:,} of {self.observed.numel():,} entries missing ({part} %), in "
            f"{int((~self.observed).flatten(1).any(1).sum()):,} of {len(self):,} data; {len(self.draws)} draws of each"
        )
        lines += [GUESSED] if self.is_filled else []
        lines += self.mixing.lines() if self.mixing is not None else []
        lines += ["", *self._nats()]
        who = "k-hat above its threshold or undefined" if self.report is not None else f"R-hat above {MOST_RHAT}"
        return [*lines, f"unreliable draws ({who}): {self.fraction_unreliable:.1%} of data"]

    def _nats(self) -> list[str | TextTable]:
        rows: list[Any] = []
        if self.report is not None:
            found = self.numbers()["log_evidence_observed"]
            rows.append(("observed  log p(x_o)", found, ""))
        if self.density is not None:
            account = self.density.numbers()
            entries = account["nats_per_entry"]
            doubt = f"   {account['fraction_unreliable']:.1%} unreliable" if account["fraction_unreliable"] else ""
            each = f"   {entries['mean']:.4f} per entry" if entries["mean"] is not None else ""
            rows.append(("hidden    log p(x_m | x_o)", account["log_density"], each + doubt))
        if self.by_draws is not None:
            rows.append(("    by these draws alone", mean_and_se(self.by_draws), "   too low, as a mean of few"))
        lines: list[str | TextTable] = [quantities(28, rows), ""] if rows else []
        if self.report is not None:
            lines += [route_table(self.report.routes())]
        return lines
