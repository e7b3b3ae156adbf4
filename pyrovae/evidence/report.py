"""Report: the account of log p(x), datum by datum, with every error beside its number."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pyrovae.base.errors import UntrustedEvidence
from pyrovae.base.forms.tables import TextTable, quantities, text
from pyrovae.base.records import Record, mean_and_se, number, spread
from pyrovae.data.protocol import Protocol
from pyrovae.evidence import estimators
from pyrovae.evidence.ladder.climbed import MODE, ROUTES
from pyrovae.evidence.numerics.digits import Digits
from pyrovae.evidence.reliability import (
    ERRORS_GIVEN_FIT,
    FEWEST_EFFECTIVE,
    UNRELIABLE_FRACTION,
    UNRESOLVED,
    WHERE_DRAWN,
    effective_size,
    evidence_and_errors,
    fraction_skewed,
    is_unreliable,
    skewed_errors,
)

QUANTITIES = ("log_evidence", "elbo", "reconstruction", "kl_prior", "kl_posterior")
NOT_AVERAGED = ("ess", "pareto_k", "resolution", "num_weights", "route", "cost")
EXACT = "exact"  # found so: all weights of each datum are one and the same
BY_GUIDE = "log_evidence_importance"  # by the guide's own draws, whatever the route
CORRECTED = ("log_evidence_jackknife", "log_evidence_psis")  # beside the raw evidence, never in its place


@dataclass(frozen=True, eq=False, repr=False)
class Report(Record):
    """What a pair gives each of N data, in nats; every column is (N,), float64, on the CPU.

    ``columns`` holds what ``evaluate.COLUMNS`` names, each of which is an attribute too: ``report.elbo``.
    ``log_evidence = elbo + kl_posterior`` and ``elbo = reconstruction - kl_prior`` on the same draws; the error of each
    is ``mc_se_<name>``, NaN for K = 1, and ``skewness_<name>`` of its terms says what that is worth (``skewed``).
    ``log_evidence_jackknife`` and ``log_evidence_psis`` are corrected evidence, ``ess`` is the effective sample size.
    ``pareto_k`` is -inf where the guide is exact, inf where weights span more than doubles do and NaN where k-hat is
    undefined; ``kl_prior_analytic`` is NaN where KL(q(z|x) || p(z)) has no closed form. With ``defensive`` > 0 the
    guide of all columns is its mixture with that fraction of the prior.

    ``to_datatree`` gives the columns, as a report keeps no draws: those of the guide, with all their log densities, are
    in :func:`pyrovae.posterior`, those of the posterior by the same routes in :func:`pyrovae.conditional`.
    """

    columns: dict[str, Tensor]
    num_particles: int
    seed: int
    strategy: str  # how the programs were run: "vectorized", "tiled", "looped" or "one by one"
    measure: dict[str, str]  # observed site -> "mass" or "density"
    protocol: Protocol | None = None
    defensive: float = 0.0  # fraction of the draws that are from the prior
    digits: Digits | None = None  # how far from double precision; None where it is that, or cannot be compared
    method: str = "importance"  # how far data could climb, see ``evaluate``
    budget: int | None = None  # decoder passes for each datum, at most
    staying: str | None = None  # why data stayed at the encoder that could have climbed: all, or those of a block
    beyond: str | None = None  # why the ELBO of every datum is minus infinity, whatever its K draws show

    categories: ClassVar = {"route": ROUTES}

    def __getattr__(self, name: str) -> Tensor:
        if name in (columns := self.__dict__.get("columns", {})):
            return columns[name]
        raise AttributeError(f"a report has no '{name}'; its columns are {', '.join(columns)}")

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self.columns]

    def __len__(self) -> int:
        return len(self.log_evidence)

    def __repr__(self) -> str:
        mean = self.log_evidence.mean().item()
        return f"Report(N={len(self)}, K={self.num_particles}, log p(x) {mean:.3f} nats per datum)"

    def table(self) -> dict[str, Tensor]:
        return dict(self.columns)

    def shown(self) -> dict[str, Tensor]:
        return self.columns | {"unreliable": self.unreliable}

    @property
    def found_by(self) -> str:
        """By what the evidence was found, and by how many draws; "exact" where the guide is the posterior."""
        if (self.pareto_k == -math.inf).all() and not (self._route > 0).any():
            return EXACT
        how = "importance" if self.staying and not (self._route > 0).any() else self.method
        how = f"defensive {self.defensive:g}" if self.defensive else how
        within = f", budget {self.budget:,}" if self.budget is not None and how != "importance" else ""
        return f"{how}, K = {self.num_particles:,}{within}"

    @property
    def num_draws(self) -> int:
        """Draws that the evidence of a datum rests on: K, or the chains where all data are annealed."""
        num_weights = self.columns.get("num_weights", torch.full_like(self.log_evidence, self.num_particles)).unique()
        return int(num_weights) if len(num_weights) == 1 else self.num_particles

    @property
    def pareto_k_threshold(self) -> float:
        """The k-hat above which so many draws are not enough for a datum."""
        return estimators.pareto_k_threshold(self.num_draws)

    @property
    def route(self) -> list[str]:
        """By what the evidence of each datum was found: "encoder" or a better proposal, see ``evaluate``."""
        return [ROUTES[int(number)] for number in self._route.tolist()]

    @property
    def _route(self) -> Tensor:
        return self.columns.get("route", torch.zeros_like(self.log_evidence))

    @property
    def unreliable(self) -> Tensor:
        """Whether nothing vouches for the evidence of a datum, (N,): its k-hat above its threshold, or undefined.

        Or if fewer than five effective draws carry it, of which k-hat tells little; or, of annealed data, if the
        weights of their few chains are too skewed for the error that is stated.
        """
        num_weights = self.columns.get("num_weights", torch.full_like(self.pareto_k, self.num_particles))
        annealed = self._route == ROUTES.index("annealed")
        skewness = self.columns.get("skewness_log_evidence", torch.zeros_like(self.pareto_k))
        return is_unreliable(self.pareto_k, self.ess, num_weights, skewness, annealed)

    @property
    def fraction_unreliable(self) -> float:
        """Fraction of the data whose evidence nothing vouches for: k-hat above its threshold, or undefined."""
        return self.unreliable.double().mean().item()

    @property
    def doubt(self) -> tuple[float, float]:
        """What speaks against it: its unreliable data, then its error (that of one particle is unknown)."""
        se = float(self.mc_se_log_evidence.square().sum())
        return self.fraction_unreliable, math.inf if math.isnan(se) else se

    @property
    def num_empty(self) -> int:
        """How many data have a log p(x|z) of 0 nats at every draw of z, as those of which nothing is observed."""
        return int(((self.reconstruction == 0) & ~(self.mc_se_reconstruction > 0)).sum())

    def routes(self) -> dict[str, dict[str, Any]]:
        """Route -> how many data took it, how many of these are unreliable, and their decoder passes on average."""
        found = {}
        for code, name in enumerate(ROUTES):
            taken = self._route == code
            if taken.any() or code == 0:
                cost = number(self.columns["cost"][taken].mean()) if "cost" in self.columns else None
                found[name] = {
                    "num_data": int(taken.sum()),
                    "num_unreliable": int(self.unreliable[taken].sum()),
                    "cost": cost,
                }
        return found

    @property
    def fraction_unresolved(self) -> float:
        """Fraction of the data whose k-hat is undefined as rounding in the programs' dtype may be all that it sees."""
        if self.num_particles < estimators.FEWEST_WEIGHTS or "resolution" not in self.columns:
            return 0.0
        return (self.pareto_k.isnan() & (self.resolution > estimators.FINE)).double().mean().item()

    @property
    def skewed(self) -> dict[str, float]:
        """Quantity -> fraction of the data whose Monte-Carlo error may be too small: K < 25 G^2 (Cochran 1977).

        Where it is above 5 %, +-1.96 errors hold the truth in fewer than 93 of 100 cases, and the summary says so; that
        of the ELBO stands for those of its parts, reconstruction and KL to the prior.
        """
        kinds = {name: self.columns.get(f"skewness_{name}") for name in QUANTITIES}
        found = {
            name: fraction_skewed(skewness, self.num_particles, self.pareto_k)
            for name, skewness in kinds.items()
            if skewness is not None
        }
        if "log_evidence" in found and (self._route == ROUTES.index("annealed")).all():
            few = estimators.is_skewed_for_few(self.skewness_log_evidence, self.columns["num_weights"])
            found["log_evidence"] = few.double().mean().item()
        return found

    def numbers(self) -> dict[str, Any]:
        """Means over data with their errors, in nats per datum, of every column; and of its diagnostics."""
        means = {
            name: mean_and_se(column, self.columns.get(f"mc_se_{name}"))
            for name, column in self.columns.items()
            if not name.startswith(("mc_se_", "skewness_")) and name not in NOT_AVERAGED
        }
        if self.kl_prior_analytic.isnan().all():
            del means["kl_prior_analytic"]
        means["log_evidence"] = evidence_and_errors(self.log_evidence, self.mc_se_log_evidence)
        tail = {
            "threshold": self.pareto_k_threshold,
            "fraction_above": (self.unreliable & ~self.pareto_k.isnan()).double().mean().item(),
            "fraction_unreliable": self.fraction_unreliable,
            "fraction_undefined": self.pareto_k.isnan().double().mean().item(),
            "fraction_unresolved": self.fraction_unresolved,
            "fraction_exact": (self.pareto_k == -math.inf).double().mean().item(),
        }
        checks = {"ess": spread(self.ess), "pareto_k": tail, "skewed": self.skewed, "routes": self.routes()}
        return {"unit": "nats per datum", "num_data": len(self), **means, **checks}

    def lines(self) -> list[str | TextTable]:
        account = self.numbers()
        measures = ", ".join(f"{site}: {measure}" for site, measure in self.measure.items())
        return [
            *([str(self.protocol)] if self.protocol else []),
            f"K = {self.num_particles} particles for each of N = {len(self)} data; nats per datum ({measures})",
            "",
            quantities(38, self._rows(account)),
            *self._empty(),
            "",
            *self._climb(account),
            *self._reliability(account),
        ]

    def _rows(self, account: dict[str, Any]) -> list[tuple[str, dict[str, Any], str] | str]:
        labels = _LABELS | _OF_MIXTURE if self.defensive else _LABELS
        worse = " or far worse, see k-hat" if self.fraction_unreliable > UNRELIABLE_FRACTION else ""
        remarks = {"log_evidence": f"   bias {text(account['log_evidence']['bias'], '.4f')}{worse}"}
        rows: list[Any] = [
            (label, account[name], remarks.get(name, "")) for name, label in labels.items() if name in account
        ]
        if self.fraction_unreliable <= UNRELIABLE_FRACTION:  # where weights run away, both move away from the truth
            jackknife, psis = (text(account[name]["mean"], ".3f") for name in CORRECTED)
            rows.insert(1, f"    jackknife-corrected {jackknife}, Pareto-smoothed {psis}")
        if (self._route > 0).any():
            by_guide = text(account[BY_GUIDE]["mean"], ".3f")
            short = float((self.log_evidence - self.columns[BY_GUIDE]).mean())
            is_short = not short <= 2 * (account["log_evidence"]["mc_se"] or 0.0)
            rows.insert(1, f"    by the guide's own draws {by_guide}{', too low' if is_short else ''}")
        if self.protocol and self.protocol.log_jacobian and "density" in self.measure.values():
            of_source = text((account["log_evidence"]["mean"] or math.nan) + self.protocol.log_jacobian, ".3f")
            rows.insert(1, f"    in the unit of the source rows {of_source}")
        if self.protocol and self.protocol.dequantized != "none" and "density" in self.measure.values():
            rows.insert(2, "    in expectation at most the log mass of the whole numbers (dequantized)")
        others = [name for name in self.columns if "data_se" in account.get(name, ()) and name not in labels]
        return rows + [(_WORDS.get(n, n), account[n], "") for n in others if n not in (*CORRECTED, BY_GUIDE)]

    def _empty(self) -> list[str]:
        """What to say of data that tell nothing, which pull the means towards 0."""
        if not self.num_empty:
            return []
        of = f"{self.num_empty} of {len(self)} data"
        return [f"{of} have log p(x|z) = 0 at every draw, as where nothing is observed, and count so in the means"]

    def _climb(self, account: dict[str, Any]) -> list[str | TextTable]:
        """Which data took which route; nothing where none was offered."""
        climbed = bool((self._route > 0).any())
        said = [f"{'some' if climbed else 'all'} data stay at the encoder: {self.staying}"] if self.staying else []
        if self.method == "importance" or (not climbed and said):
            return list[str | TextTable](said)
        return [route_table(account["routes"]), *said, ""]

    def _reliability(self, account: dict[str, Any]) -> list[str]:
        tail, above = account["pareto_k"], ""
        if tail["fraction_undefined"] < 1:
            above = f"above {text(tail['threshold'], '.2f')}: {tail['fraction_above']:.1%} of data; "
        lines: list[str] = [
            effective_size(str(self.num_draws), account["ess"]),
            f"Pareto k-hat {above}undefined: {tail['fraction_undefined']:.1%}; "
            f"proposal exact: {tail['fraction_exact']:.1%}",
        ]
        if tail["fraction_above"] > 0:
            more = "; method='auto' looks for better proposals" if self.method in ("importance", "laplace") else ""
            few = f"  above it, or by fewer than {FEWEST_EFFECTIVE} effective draws"
            lines += [f"{few}, evidence is off by an unknown amount, most often too low{more}"]
        if tail["fraction_unresolved"] > 0:
            lines += [f"  {tail['fraction_unresolved']:.1%}: {UNRESOLVED}"]
        if tail["fraction_undefined"] > tail["fraction_unresolved"]:
            lines += ["  undefined (fewer than 25 particles, or discrete latents): nothing vouches for the evidence"]
        if self.digits is not None and self.digits.lost:
            lines += [f"digits lost: {self.digits.said}"]
        lines += skewed_errors(self.skewed, f"K = {self.num_particles}")
        lines += [self.beyond] if self.beyond else []
        if self.strategy in ("tiled", "looped"):
            lines += [f"particles were run {self.strategy}: the programs do not take a particle dimension"]
        if self.strategy == "one by one":
            lines += ["particles were run one by one, as vectorize=False asks; a closed-form KL was not looked for"]
        if self.defensive:
            lines += [f"defensive: q(z|x) above is {1 - self.defensive:g} guide + {self.defensive:g} prior"]
        if self.fraction_unreliable <= UNRELIABLE_FRACTION:
            lines += [WHERE_DRAWN]
        return [*lines, ERRORS_GIVEN_FIT]

    @classmethod
    def _from_older(cls, account: Mapping[str, Any], columns: dict[str, Tensor]) -> "Report":
        none = torch.full_like(columns["log_evidence"], math.nan)
        return cls(
            columns=columns | {name: none for name in CORRECTED if name not in columns},  # which the oldest lack
            num_particles=account["num_particles"],
            seed=account["seed"],
            strategy=account["way"],
            measure=account["measure"],
            protocol=Protocol.from_dict(account["protocol"]) if account["protocol"] else None,
            defensive=account.get("defensive", 0.0),
        )


_LABELS = {
    "log_evidence": "evidence  log p(x)",
    "elbo": "  = ELBO",
    "reconstruction": "      = reconstruction E_q log p(x|z)",
    "kl_prior": "      - KL(q(z|x) || prior p(z))",
    "kl_prior_analytic": "        the same in closed form",
    "kl_posterior": "  + KL(q(z|x) || posterior p(z|x))",
}

_WORDS = {"log_jacobian": "log |Jacobian| of the scaling"}

_OF_MIXTURE = {  # with defensive draws, q is not the guide
    "elbo": "  = ELBO of the mixture with the prior",
    "reconstruction": "      = its reconstruction",
    "kl_prior": "      - KL(mixture || prior p(z))",
    "kl_posterior": "  + KL(mixture || posterior p(z|x))",
}


def route_table(routes: Mapping[str, Mapping[str, Any]]) -> TextTable:
    """Which data took which route, at what cost: what :meth:`Report.routes` tells."""
    columns = [("route", "<12", ""), ("data", ">8", ",d"), ("of them unreliable", ">22", ",d")]
    columns += [("decoder passes per datum", ">28", ",.0f")]
    return TextTable(columns, [(name, *route.values()) for name, route in routes.items()])


def untrusted(report: Report) -> UntrustedEvidence | None:
    """What to warn of: k-hat high or undefined for more than 5 % of the data, or all weights of a datum zero."""
    lost = (report.log_evidence == -math.inf).nonzero().flatten()
    if report.fraction_unreliable <= UNRELIABLE_FRACTION and not len(lost):
        return None
    if len(lost):
        return UntrustedEvidence(
            f"all {report.num_particles} draws have weight zero for {len(lost)} of {len(report)} data, the first is "
            f"row {lost[0]}: prior or likelihood rule out all that the guide draws there, so log p(x) is -inf. "
            "Draw in the guide what they allow, or some particles from the prior (defensive=0.1)"
        )
    if report.fraction_unresolved > UNRELIABLE_FRACTION:
        return UntrustedEvidence(f"for {report.fraction_unresolved:.0%} of {len(report)} data {UNRESOLVED}")
    if report.num_draws < estimators.FEWEST_WEIGHTS:
        return UntrustedEvidence(
            f"the Pareto k-hat of {report.fraction_unreliable:.0%} of {len(report)} data is undefined for fewer than "
            f"{estimators.FEWEST_WEIGHTS} particles, so nothing vouches for their evidence: raise num_particles (here "
            f"{report.num_particles})"
        )
    return UntrustedEvidence(
        f"the Pareto k-hat of {report.fraction_unreliable:.0%} of {len(report)} data is above "
        f"{report.pareto_k_threshold:.2f} or undefined, so their evidence may be off by an unknown amount, most often "
        f"too low: {_advice(report)}"
    )


def _advice(report: Report) -> str:
    """What helps, of what was not done already."""
    if report.staying and report.staying != MODE:
        return f"no better proposal could be found, as {report.staying}; raise num_particles"
    if report.method in ("importance", "laplace", "adaptive"):
        return "leave method='auto', which looks for better proposals and anneals where none is good enough"
    if report.budget is not None:
        return f"raise budget (here {report.budget} decoder passes for each datum), or num_particles"
    return "raise num_particles, or compare with annealed_evidence at more temperatures"
