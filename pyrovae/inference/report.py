"""evaluate(): the account of log p(x) for any pair on any data, datum by datum, with every error beside its number."""

import csv
import json
import math
import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.errors import InputError, UntrustedEvidence
from pyrovae.base.records import Tabulated, mean_and_se, number, text
from pyrovae.data.split import Protocol
from pyrovae.inference import estimators
from pyrovae.inference.evaluation import DOUBTFUL_SHARE, WHERE_DRAWN, Measured, Plan, account, measure
from pyrovae.inference.pairs import Program

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


def evaluate(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_particles: int = 1000,
    seed: int = 0,
    batch_size: int | None = None,
    particle_batch: int | None = None,
    plate: str | None = None,
    vectorize: bool = True,
    defensive: float = 0.0,
    compile: bool | str = "auto",
    progress: bool = True,
) -> Report:
    """Evidence, ELBO and both KL terms of a pair, for every datum.

    Args:
        model: program of p(x, z), with one plate over the data.
        guide: program of q(z|x), with the same plate.
        data: a :class:`~pyrovae.data.Split`, a tensor (N, ...), or a tuple of tensors passed on as arguments.
        num_particles: K, draws from the guide for each datum.
        seed: of the draws; the noise is keyed by (seed, data block, particle block).
        batch_size: data in a block; None takes 100 (on CUDA 1000), fewer from some thousand particles on, so that the
            table of their weights does not grow with K.
        particle_batch: particles in a block; None finds a number by itself (on the CPU memory stays near 100 MB), and
            halves it where memory runs out all the same: the numbers then are those of the smaller block.
        plate: name of the data plate, where several plates hold all sites.
        vectorize: False runs one particle of one datum at a time, for programs whose draws steer control flow.
        defensive: draw from the prior with this probability, else from the guide, and weigh by the mixture's density:
            a guide that is too narrow somewhere then does no harm there (about twice the time).
        compile: whether a block's draws and densities are traced once and replayed as compiled kernels, with the same
            noise and to rounding the same numbers. "auto" does so on CUDA, and on the CPU from ten million decoder
            passes (N K) on, which repays the compiler's seconds; where the programs cannot be traced it runs them as
            they are and warns, where True raises.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        The :class:`Report`. Nothing else changes: parameter store, random state and train/eval modes are kept.

    Raises:
        InputError: naming the site, for a pair without per-datum weights, data outside the support of the
            likelihood, K or a block size below 1, or more memory than there is.
        FloatingPointError: naming the site, where a log density is NaN or a weight infinite.
        Interrupted: after Ctrl-C, with the report on the blocks that were done as ``partial``.

    Warns:
        UntrustedEvidence: if k-hat is above its threshold or undefined for more than 5 % of the data.
    """
    plan = Plan(
        num_particles=num_particles,
        seed=seed,
        batch_size=batch_size,
        particle_batch=particle_batch,
        plate=plate,
        vectorize=vectorize,
        defensive=defensive,
        compile=compile,
    )

    def build(measured: Measured) -> Report:
        columns: Any = measured.columns
        origin: Any = {"way": measured.way, "measure": measured.measure, "protocol": measured.protocol}
        return Report(**columns, **origin, num_particles=num_particles, seed=seed, defensive=defensive)

    report = measure(model, guide, data, plan, account, build, progress=progress)
    if report.share_doubtful > DOUBTFUL_SHARE:
        warnings.warn(_untrusted(report), stacklevel=2)
    return report


def _untrusted(report: Report) -> UntrustedEvidence:
    above = f"above {report.pareto_k_threshold:.2f} or undefined"
    return UntrustedEvidence(
        f"the Pareto k-hat of {report.share_doubtful:.0%} of {len(report)} data is "
        f"{above if report.num_particles > 1 else 'undefined for one particle'}, so their evidence may be too low by "
        f"an unknown amount: raise num_particles (here {report.num_particles}), evaluate widened(guide, 1.2), draw "
        "some particles from the prior (defensive=0.1), or use annealed_evidence"
    )


def _row(label: str, cell: dict[str, float | None], doubtful: bool) -> str:
    bias = f"   bias {text(cell['bias'], 4)}{' or far worse, see k-hat' if doubtful else ''}" if "bias" in cell else ""
    mc_se = text(cell["mc_se"], 4) if "mc_se" in cell else ""
    return f"{label:38}{text(cell['mean'], 3):>12}{text(cell['data_se'], 3):>10}{mc_se:>10}{bias}"
