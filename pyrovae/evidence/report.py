"""Report: the account of log p(x), datum by datum, with every error beside its number."""

import csv
import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.records import Tabulated, mean_and_se, number, text
from pyrovae.data.split import Protocol
from pyrovae.evidence import estimators

DOUBTFUL_SHARE = 0.05  # of data whose k-hat is too high or undefined, above which their mean is not to be trusted

WHERE_DRAWN = (  # said under diagnostics that find nothing
    "k-hat and ESS see only where draws fall: a mode the guide misses shows in defensive=, calibrate, bidirectional"
)

QUANTITIES = ("log_evidence", "elbo", "reconstruction", "kl_prior", "kl_posterior")
CORRECTED = ("log_evidence_jackknife", "log_evidence_psis")  # beside the raw evidence, never in its place


@dataclass(frozen=True, eq=False, repr=False)
class Report(Tabulated):
    """What a pair gives each of N data, in nats; every tensor is (N,), float64, on the CPU.

    ``log_evidence = elbo + kl_posterior`` and ``elbo = reconstruction - kl_prior`` on the same draws. An error is
    NaN for K = 1; ``pareto_k`` is -inf where the guide is exact, inf where weights span more than doubles do and
    NaN where k-hat is undefined; ``kl_prior_analytic`` is NaN where KL(q(z|x) || p(z)) has no closed form. With
    ``defensive`` > 0 the guide of all columns is its mixture with that share of the prior.
    """

    log_evidence: Tensor
    log_evidence_jackknife: Tensor
    log_evidence_psis: Tensor
    elbo: Tensor
    reconstruction: Tensor
    kl_prior: Tensor
    kl_posterior: Tensor
    mc_se_log_evidence: Tensor
    mc_se_elbo: Tensor
    mc_se_reconstruction: Tensor
    mc_se_kl_prior: Tensor
    mc_se_kl_posterior: Tensor
    kl_prior_analytic: Tensor
    ess: Tensor
    pareto_k: Tensor
    num_particles: int
    seed: int
    way: str  # how the programs were run: "vectorized", "tiled", "looped" or "one by one"
    measure: dict[str, str] = field(default_factory=dict)  # observed site -> "mass" or "density"
    protocol: Protocol | None = None
    defensive: float = 0.0  # share of the draws that are from the prior

    def __len__(self) -> int:
        return len(self.log_evidence)

    def __repr__(self) -> str:
        mean = self.log_evidence.mean().item()
        return f"Report(N={len(self)}, K={self.num_particles}, log p(x) {mean:.3f} nats per datum)"

    def __str__(self) -> str:
        return self.summary()

    def to_dict(self) -> dict[str, Any]:
        """The account as plain values for JSON: means over data with their errors, in nats per datum."""
        quantities: dict[str, Any] = {name: self._quantity(name) for name in QUANTITIES}
        quantities["log_evidence"]["bias"] = number(estimators.log_evidence_bias(self.mc_se_log_evidence).mean())
        quantities |= {name: mean_and_se(getattr(self, name)) for name in CORRECTED}
        if not self.kl_prior_analytic.isnan().all():
            quantities["kl_prior_analytic"] = mean_and_se(self.kl_prior_analytic)
        return {
            "unit": "nats per datum",
            "num_data": len(self),
            "num_particles": self.num_particles,
            "seed": self.seed,
            "way": self.way,
            "defensive": self.defensive,
            "measure": self.measure,
            "protocol": self.protocol.to_dict() if self.protocol else None,
            **quantities,
            "ess": {
                "mean": number(self.ess.mean()),
                "median": number(self.ess.median()),
                "min": number(self.ess.min()),
            },
            "pareto_k": self._pareto(),
        }

    def _quantity(self, name: str) -> dict[str, float | None]:
        se = getattr(self, f"mc_se_{name}")
        return {**mean_and_se(getattr(self, name)), "mc_se": number(se.square().sum().sqrt() / len(self))}

    def _pareto(self) -> dict[str, float | None]:
        threshold = self.pareto_k_threshold
        return {
            "threshold": number(threshold),
            "share_above": (self.pareto_k > threshold).double().mean().item(),
            "share_undefined": self.pareto_k.isnan().double().mean().item(),
            "share_exact": (self.pareto_k == -math.inf).double().mean().item(),
        }

    @property
    def pareto_k_threshold(self) -> float:
        """The k-hat above which K particles are not enough for a datum."""
        return estimators.pareto_k_threshold(self.num_particles)

    @property
    def share_doubtful(self) -> float:
        """Share of the data whose evidence nothing vouches for: k-hat above its threshold, or undefined."""
        doubtful = (self.pareto_k > self.pareto_k_threshold) | self.pareto_k.isnan()
        return doubtful.double().mean().item()

    def summary(self) -> str:
        """The account as text: evidence, what it is made of, and whether to trust it."""
        account = self.to_dict()
        lines = [str(self.protocol)] if self.protocol else []
        measures = ", ".join(f"{site}: {measure}" for site, measure in self.measure.items())
        lines += [
            f"K = {self.num_particles} particles for each of N = {len(self)} data; nats per datum ({measures})",
            "",
        ]
        lines += [f"{'':38}{'mean':>12}{'data SE':>10}{'MC SE':>10}"]
        rows = [
            _row(label, account[name], self.share_doubtful > DOUBTFUL_SHARE) for name, label in self._labels().items()
        ]
        jackknife, psis = (text(account[name]["mean"], 3) for name in CORRECTED)
        rows.insert(1, f"    jackknife-corrected {jackknife}, Pareto-smoothed {psis}")
        if "kl_prior_analytic" in account:
            rows.insert(-1, _row("        the same in closed form", account["kl_prior_analytic"], False))
        return "\n".join([*lines, *rows, "", *self._reliability(account)])

    def _labels(self) -> dict[str, str]:
        return _ACCOUNT | _OF_MIXTURE if self.defensive else _ACCOUNT

    def _reliability(self, account: dict[str, Any]) -> list[str]:
        size, tail = account["ess"], account["pareto_k"]
        least = f"median {text(size['median'], 1)}, least {text(size['min'], 1)}"
        lines = [f"effective sample size of {self.num_particles}: {least}"]
        lines += [
            f"Pareto k-hat above {text(tail['threshold'], 2)}: {tail['share_above']:.1%} of data; "
            f"undefined: {tail['share_undefined']:.1%}; guide exact: {tail['share_exact']:.1%}"
        ]
        if tail["share_above"] > 0:
            lines += ["  above it, evidence is too low by an unknown amount: raise num_particles, or widen the guide"]
        if tail["share_undefined"] > 0:
            lines += ["  undefined (fewer than 25 particles, or discrete latents): nothing vouches for the evidence"]
        if self.way in ("tiled", "looped"):
            lines += [f"particles were run {self.way}: the programs do not take a particle dimension"]
        if self.way == "one by one":
            lines += ["particles were run one by one, as vectorize=False asks; a closed-form KL was not looked for"]
        if self.defensive:
            lines += [f"defensive: q(z|x) above is {1 - self.defensive:g} guide + {self.defensive:g} prior"]
        if self.share_doubtful <= DOUBTFUL_SHARE:
            lines += [WHERE_DRAWN]
        return [*lines, "all errors are given this one fit; data SE holds the Monte-Carlo noise already"]

    def table(self) -> dict[str, Tensor]:
        """The per-datum columns by name, (N,) each."""
        return {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}

    def to_dataframe(self) -> Any:
        """The per-datum table as a pandas DataFrame (needs pandas)."""
        import pandas

        return pandas.DataFrame({name: column.numpy() for name, column in self.table().items()})

    @classmethod
    def load(cls, path: str | Path) -> "Report":
        """Reads what :meth:`save` wrote.

        Raises:
            InputError: if a file is missing or is not a report.
        """
        path = Path(path)
        try:
            return cls.parse(path.read_text(), path.with_suffix(".csv").read_text(), what=str(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read with its table beside it ({error})") from error

    @classmethod
    def parse(cls, account: str, table: str, *, what: str) -> "Report":
        """The report of :meth:`to_json` and :meth:`to_csv`.

        Raises:
            InputError: naming ``what``, if they are anything else.
        """
        try:
            values = json.loads(account)
            rows = list(csv.DictReader(table.splitlines()))
            columns = {name: [float(row[name] or "nan") for row in rows] for name in rows[0]}
            columns = {name: [math.nan] * len(rows) for name in CORRECTED} | columns  # older reports lack these
            protocol = Protocol.from_dict(values["protocol"]) if values["protocol"] else None
            kept = {name: values[name] for name in ("num_particles", "seed", "way", "measure")}
            tensors: Any = {name: torch.tensor(column, dtype=torch.float64) for name, column in columns.items()}
            return cls(**tensors, **kept, protocol=protocol, defensive=values.get("defensive", 0.0))
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise InputError(f"{what}: not a report of pyrovae ({error})") from error


_ACCOUNT = {
    "log_evidence": "evidence  log p(x)",
    "elbo": "  = ELBO",
    "reconstruction": "      = reconstruction E_q log p(x|z)",
    "kl_prior": "      - KL(q(z|x) || prior p(z))",
    "kl_posterior": "  + KL(q(z|x) || posterior p(z|x))",
}

_OF_MIXTURE = {  # with defensive draws, q is not the guide
    "elbo": "  = ELBO of the mixture with the prior",
    "reconstruction": "      = its reconstruction",
    "kl_prior": "      - KL(mixture || prior p(z))",
    "kl_posterior": "  + KL(mixture || posterior p(z|x))",
}


def _row(label: str, cell: dict[str, float | None], doubtful: bool) -> str:
    bias = f"   bias {text(cell['bias'], 4)}{' or far worse, see k-hat' if doubtful else ''}" if "bias" in cell else ""
    mc_se = text(cell["mc_se"], 4) if "mc_se" in cell else ""
    return f"{label:38}{text(cell['mean'], 3):>12}{text(cell['data_se'], 3):>10}{mc_se:>10}{bias}"
