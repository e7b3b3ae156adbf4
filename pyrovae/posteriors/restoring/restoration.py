r"""Restoration: what a pair says of x given what an operator shows of it, with the nats of the truth.

.. math:: z_l \sim p(z \mid y), \qquad x_l \sim p(x \mid y, z_l), \qquad
    E[x \mid y] \approx \tfrac1L \sum_l E[x \mid y, z_l]
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from pyrovae.base.forms.tables import TextTable, quantities
from pyrovae.base.records import Record, mean_and_se, spread
from pyrovae.data.protocol import Protocol
from pyrovae.evidence import estimators
from pyrovae.evidence.ladder.climbed import ROUTES
from pyrovae.evidence.reliability import ERRORS_GIVEN_FIT
from pyrovae.evidence.report import Report, route_table
from pyrovae.pairs.latents import Values


@dataclass(frozen=True, eq=False, repr=False)
class Restoration(Record):
    """What a pair says of N data given y; every tensor is on the CPU."""

    values: Values  # latent site -> (L, N, ...): draws of the posterior given y
    draws: Tensor  # (L, N, *shape): of x given y
    mean: Tensor  # (N, *shape) of each number of x given y; the most frequent draw where there is no mean
    sd: Tensor  # (N, *shape) likewise; NaN where there is none
    observed: Tensor  # (N, *of_shape): y
    picture: Tensor  # (N, *shape): y in the shape of x, to be looked at; NaN where a mask hides
    num_hidden: Tensor  # (N,) float64: how many numbers of x are open, given y
    report: Report  # log p(y), by which route and how reliable
    truth: Tensor | None  # (N, *shape): x, where it is known
    evidence: Report | None  # log p(x) of the truth
    log_likelihood: Tensor | None  # (N,): log p(y | x) of the truth
    operator: str
    seed: int
    protocol: Protocol

    categories: ClassVar = {"route_observed": ROUTES, "route_truth": ROUTES}

    def __repr__(self) -> str:
        return f"Restoration(N={len(self)}, L={len(self.draws)}, {self.operator})"

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def route(self) -> list[str]:
        """By what the latents of each datum were drawn."""
        return self.report.route

    @property
    def unreliable(self) -> Tensor:
        """Whether nothing vouches for the draws of a datum, (N,)."""
        return self.report.unreliable

    @property
    def fraction_unreliable(self) -> float:
        """Fraction of the data for whose draws nothing vouches."""
        return self.unreliable.double().mean().item()

    @property
    def log_density(self) -> Tensor | None:
        """log p(x | y) of the truth, (N,) nats; None where it is not known."""
        if self.evidence is None or self.log_likelihood is None:
            return None
        return self.evidence.log_evidence + self.log_likelihood - self.report.log_evidence

    @property
    def mc_se_log_density(self) -> Tensor | None:
        """Its Monte-Carlo standard error, (N,)."""
        if self.evidence is None:
            return None
        both = [(one.mc_se_log_evidence, one.skewness_log_evidence) for one in (self.evidence, self.report)]
        return estimators.difference_of_independent(*both)[0]

    @property
    def density_unreliable(self) -> Tensor:
        """Whether nothing vouches for one of the two evidences of log p(x | y), (N,)."""
        found = self.report.unreliable
        return found if self.evidence is None else found | self.evidence.unreliable

    def table(self) -> dict[str, Tensor]:
        columns = {"num_hidden": self.num_hidden, "unreliable": self.unreliable.double()}
        for name, report in (("observed", self.report), ("truth", self.evidence)):
            if report is not None:
                kept = ("log_evidence", "mc_se_log_evidence", "pareto_k", "ess", "route")
                columns |= {f"{key}_{name}": report.columns[key] for key in kept}
        density, error = self.log_density, self.mc_se_log_density
        if density is not None and error is not None:
            columns |= {"log_density": density, "mc_se_log_density": error}
            columns |= {"density_unreliable": self.density_unreliable.double()}
        return columns

    def numbers(self) -> dict[str, Any]:
        """The nats of y and of the truth given y, and how reliable both are."""
        report = self.report
        found: dict[str, Any] = {
            "operator": self.operator,
            "num_data": len(self),
            "num_draws": len(self.draws),
            "num_hidden": float(self.num_hidden.sum()),
            "fraction_unreliable": self.fraction_unreliable,
            "log_evidence_observed": mean_and_se(report.log_evidence, report.mc_se_log_evidence),
            "routes": report.routes(),
            "ess": spread(report.ess),
        }
        density, error = self.log_density, self.mc_se_log_density
        if density is not None and error is not None:
            total = float(self.num_hidden.sum())
            each = float(density.sum()) / total if total else None
            each_error = float(error.square().sum().sqrt()) / total if total else None
            found["log_density"] = mean_and_se(density, error)
            found["nats_per_hidden"] = {"mean": each, "mc_se": each_error}
            found["fraction_density_unreliable"] = self.density_unreliable.double().mean().item()
        return found

    def lines(self) -> list[str | TextTable]:
        account = self.numbers()
        lines: list[str | TextTable] = [str(self.protocol)]
        lines.append(f"seen through {self.operator}, {len(self.draws)} draws of each of {len(self):,} data")
        rows: list[Any] = [("observed  log p(y)", account["log_evidence_observed"], "")]
        if "log_density" in account:
            each = account["nats_per_hidden"]
            said = f"   {each['mean']:.4f} per number left open" if each["mean"] is not None else ""
            rows.append(("truth     log p(x | y)", account["log_density"], said))
        lines += ["", quantities(24, rows), ""]
        lines.append(route_table(account["routes"]))
        lines.append(
            f"unreliable draws (k-hat above its threshold or undefined): {self.fraction_unreliable:.1%} of data"
        )
        if "log_density" in account:
            doubt = account["fraction_density_unreliable"]
            lines.append(f"unreliable log p(x | y) (k-hat of either evidence): {doubt:.1%} of data")
        return [*lines, ERRORS_GIVEN_FIT]
