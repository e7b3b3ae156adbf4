"""evaluate(): the account of log p(x) for any pair on any data, datum by datum, with every error beside its number."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import kl_divergence
from tqdm.auto import tqdm

from pyrovae.data import Protocol, Split, as_split
from pyrovae.errors import InputError
from pyrovae.inference import estimators
from pyrovae.inference.pairs import (
    Program,
    Structure,
    describe,
    evaluation_mode,
    home_device,
    modules_of,
    own_scope,
    plain_traces,
    quiet_numerics,
    sites,
)
from pyrovae.inference.terms import WAYS, LogTerms, SiteTerms, check_num_particles, choose_way, sum_by_role

QUANTITIES = ("log_evidence", "elbo", "reconstruction", "kl_prior", "kl_posterior")
ELEMENTS_AT_ONCE = 2**21  # numbers drawn or scored in one run of the programs, where the caller does not say


@dataclass(frozen=True, eq=False)
class Report:
    """What a pair gives each of N data, in nats; every tensor is (N,), float64, on the CPU.

    ``log_evidence = elbo + kl_posterior`` and ``elbo = reconstruction - kl_prior`` on the same draws. An error is
    NaN for K = 1; ``pareto_k`` is -inf where the guide is exact and NaN where k-hat is undefined;
    ``kl_prior_analytic`` is NaN where KL(q(z|x) || p(z)) has no closed form.
    """

    log_evidence: Tensor
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

    def __len__(self) -> int:
        return len(self.log_evidence)

    def to_dict(self) -> dict[str, Any]:
        """The account as plain values for JSON: means over data with their errors, in nats per datum."""
        quantities: dict[str, Any] = {name: self._quantity(name) for name in QUANTITIES}
        quantities["log_evidence"]["bias"] = _number(estimators.log_evidence_bias(self.mc_se_log_evidence).mean())
        if not self.kl_prior_analytic.isnan().all():
            quantities["kl_prior_analytic"] = _mean_and_se(self.kl_prior_analytic)
        return {
            "unit": "nats per datum",
            "num_data": len(self),
            "num_particles": self.num_particles,
            "seed": self.seed,
            "way": self.way,
            "measure": self.measure,
            "protocol": self.protocol.to_dict() if self.protocol else None,
            **quantities,
            "ess": {
                "mean": _number(self.ess.mean()),
                "median": _number(self.ess.median()),
                "min": _number(self.ess.min()),
            },
            "pareto_k": self._pareto(),
        }

    def _quantity(self, name: str) -> dict[str, float | None]:
        se = getattr(self, f"mc_se_{name}")
        return {**_mean_and_se(getattr(self, name)), "mc_se": _number(se.square().sum().sqrt() / len(self))}

    def _pareto(self) -> dict[str, float | None]:
        threshold = estimators.pareto_k_threshold(self.num_particles)
        return {
            "threshold": _number(threshold),
            "share_above": (self.pareto_k > threshold).double().mean().item(),
            "share_undefined": self.pareto_k.isnan().double().mean().item(),
            "share_exact": (self.pareto_k == -math.inf).double().mean().item(),
        }

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
        lines += [_row(label, account[name]) for label, name in _ACCOUNT]
        if "kl_prior_analytic" in account:
            lines.insert(-1, _row("        the same in closed form", account["kl_prior_analytic"]))
        return "\n".join([*lines, "", *self._reliability(account)])

    def _reliability(self, account: dict[str, Any]) -> list[str]:
        size, tail = account["ess"], account["pareto_k"]
        least = f"median {_text(size['median'], 1)}, least {_text(size['min'], 1)}"
        lines = [f"effective sample size of {self.num_particles}: {least}"]
        lines += [
            f"Pareto k-hat above {_text(tail['threshold'], 2)}: {tail['share_above']:.1%} of data; "
            f"undefined: {tail['share_undefined']:.1%}; guide exact: {tail['share_exact']:.1%}"
        ]
        if tail["share_above"] > 0:
            lines += ["  above it, evidence is too low by an unknown amount: raise num_particles, or widen the guide"]
        if self.way != "vectorized":
            lines += [f"particles were run {self.way}: the programs do not take a particle dimension"]
        return [*lines, "all errors are given this one fit; data SE holds the Monte-Carlo noise already"]

    def table(self) -> dict[str, Tensor]:
        """The per-datum columns by name, (N,) each."""
        return {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}

    def to_dataframe(self) -> Any:
        """The per-datum table as a pandas DataFrame (needs pandas)."""
        import pandas

        return pandas.DataFrame({name: column.numpy() for name, column in self.table().items()})

    def save(self, path: str | Path) -> None:
        """Writes the account to ``path`` (JSON) and the per-datum table beside it, with the suffix ``.csv``."""
        path = Path(path)
        path.with_suffix(".csv").write_text(self.to_csv())
        path.write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")

    def to_csv(self) -> str:
        """The per-datum table as text; numbers read back exactly, an undefined one is empty."""
        columns = self.table()
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        lines = [",".join("" if math.isnan(value) else repr(value) for value in row) for row in rows]
        return "\n".join([",".join(columns), *lines]) + "\n"

    @classmethod
    def load(cls, path: str | Path) -> "Report":
        """Reads what :meth:`save` wrote.

        Raises:
            InputError: if a file is missing or is not a report.
        """
        path = Path(path)
        try:
            account = json.loads(path.read_text())
            rows = list(csv.DictReader(path.with_suffix(".csv").read_text().splitlines()))
            columns = {name: [float(row[name] or "nan") for row in rows] for name in rows[0]}
            protocol = Protocol.from_dict(account["protocol"]) if account["protocol"] else None
            kept = {name: account[name] for name in ("num_particles", "seed", "way", "measure")}
            tensors = {name: torch.tensor(column, dtype=torch.float64) for name, column in columns.items()}
            return cls(**tensors, **kept, protocol=protocol)
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise InputError(f"{path}: not a report of pyrovae with its table beside it ({error})") from error


_ACCOUNT = (
    ("evidence  log p(x)", "log_evidence"),
    ("  = ELBO", "elbo"),
    ("      = reconstruction E_q log p(x|z)", "reconstruction"),
    ("      - KL(q(z|x) || prior p(z))", "kl_prior"),
    ("  + KL(q(z|x) || posterior p(z|x))", "kl_posterior"),
)


def evaluate(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_particles: int = 1000,
    seed: int = 0,
    batch_size: int = 100,
    particle_batch: int | None = None,
    plate: str | None = None,
    vectorize: bool = True,
    progress: bool = True,
) -> Report:
    """Evidence, ELBO and both KL terms of a pair, for every datum.

    Args:
        model: program of p(x, z), with one plate over the data.
        guide: program of q(z|x), with the same plate.
        data: a :class:`~pyrovae.data.Split`, a tensor (N, ...), or a tuple of tensors passed on as arguments.
        num_particles: K, draws from the guide for each datum.
        seed: of the draws; the noise is keyed by (seed, data block, particle block).
        batch_size: data in a block.
        particle_batch: particles in a block; None finds a number that keeps memory near 100 MB.
        plate: name of the data plate, where several plates hold all sites.
        vectorize: False runs one particle of one datum at a time, for programs whose draws steer control flow.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        The :class:`Report`. Nothing else changes: parameter store, random state and train/eval modes are kept.

    Raises:
        InputError: naming the site, for a pair without per-datum weights, data outside the support of the
            likelihood, K or a block size below 1, or more memory than there is.
        FloatingPointError: naming the site, where a log density is NaN or a weight infinite.
    """
    split = as_split(data)
    check_num_particles(num_particles)
    if batch_size < 1 or (particle_batch is not None and particle_batch < 1):
        raise InputError(
            f"block sizes must be at least 1, got batch_size={batch_size}, particle_batch={particle_batch}"
        )
    with own_scope(model, guide) as (model, guide, _), quiet_numerics(), kept_rng():
        with evaluation_mode(modules_of(model, guide)):
            source = split.to(home_device(model, guide))
            blocks = [slice(i, min(i + batch_size, len(split))) for i in range(0, len(split), batch_size)]
            run = _Run(model, guide, num_particles, seed, particle_batch, plate, vectorize)
            with tqdm(total=len(split), desc="evidence", unit="x", delay=2, disable=None if progress else True) as bar:
                columns = [run.block(source, index, rows, bar) for index, rows in enumerate(blocks)]
    tables: Any = {name: torch.cat([block[name] for block in columns]).cpu() for name in columns[0]}
    return Report(
        **tables,
        num_particles=num_particles,
        seed=seed,
        way=run.way,
        measure=run.measure,
        protocol=split.protocol,
    )


class _Run:
    """One evaluation: what stays the same from block to block."""

    def __init__(
        self,
        model: Program,
        guide: Program,
        num_particles: int,
        seed: int,
        particle_batch: int | None,
        plate: str | None,
        vectorize: bool,
    ) -> None:
        self.model, self.guide, self.num_particles, self.seed = model, guide, num_particles, seed
        self.particle_batch, self.plate, self.vectorize = particle_batch, plate, vectorize
        self.measure: dict[str, str] = {}
        self.way = "one by one"
        self.ways: dict[int, str] = {}  # data in a block -> how the programs take it

    def block(self, split: Split, index: int, rows: slice, bar: tqdm) -> dict[str, Tensor]:
        """The report's columns for one block of data."""
        seed_everything(self.seed, index)
        args = split.batch(rows)
        num_data = rows.stop - rows.start
        structure, kl = self._inspect(args, num_data) if self.vectorize else (None, torch.full((num_data,), math.nan))
        size = self.particle_batch or self._particle_batch(args, num_data)
        tables = []
        for number, start in enumerate(range(0, self.num_particles, size)):
            seed_everything(self.seed, index, number)
            with memory_advice(num_data, size):
                terms = WAYS[self.way](self.model, self.guide, args, structure, min(size, self.num_particles - start))
            check_finite(terms)
            tables.append(sum_by_role(terms))
            bar.update(num_data * len(tables[-1].log_prior) / self.num_particles)
        return account(LogTerms(*(torch.cat(parts) for parts in zip(*tables, strict=True))), kl)

    def _inspect(self, args: Sequence[Any], num_data: int) -> tuple[Structure, Tensor]:
        traces = plain_traces(self.model, self.guide, args)
        structure = describe(*traces, num_data, plate=self.plate)
        self.measure = structure.observed
        if num_data not in self.ways:
            self.ways[num_data] = choose_way(self.model, self.guide, args, structure)
        self.way = self.ways[num_data]
        return structure, analytic_kl(*traces, structure, num_data)

    def _particle_batch(self, args: Sequence[Any], num_data: int) -> int:
        width = sum(arg[0].numel() for arg in args if isinstance(arg, Tensor) and arg.dim() > 0)
        return max(1, min(self.num_particles, ELEMENTS_AT_ONCE // (num_data * max(width, 64))))


def account(terms: LogTerms, kl_prior_analytic: Tensor) -> dict[str, Tensor]:
    """A report's columns, (N,) each, from a table of log densities (K, N)."""
    log_weight = terms.log_weight
    kl_terms = terms.log_guide.double() - terms.log_prior.double()
    evidence, elbo = estimators.log_evidence(log_weight), estimators.elbo(log_weight)
    return {
        "log_evidence": evidence,
        "elbo": elbo,
        "reconstruction": estimators.mean(terms.log_likelihood),
        "kl_prior": estimators.mean(kl_terms),
        "kl_posterior": evidence - elbo,
        "mc_se_log_evidence": estimators.log_evidence_se(log_weight),
        "mc_se_elbo": estimators.mean_se(log_weight),
        "mc_se_reconstruction": estimators.mean_se(terms.log_likelihood),
        "mc_se_kl_prior": estimators.mean_se(kl_terms),
        "mc_se_kl_posterior": estimators.kl_posterior_se(log_weight),
        "kl_prior_analytic": kl_prior_analytic.double(),
        "ess": estimators.ess(log_weight),
        "pareto_k": estimators.pareto_k(log_weight, terms.resolution),
    }


def analytic_kl(model_trace: Any, guide_trace: Any, structure: Structure, num_data: int) -> Tensor:
    """KL(q(z|x) || p(z)) in closed form, (N,) nats; NaN where torch has none or there are several latent sites."""
    unknown = torch.full((num_data,), math.nan)
    drawn = sites(guide_trace)
    if len(structure.latents) != 1 or list(drawn) != list(structure.latents):
        return unknown
    prior, guide = model_trace.nodes[structure.latents[0]], drawn[structure.latents[0]]
    if prior["mask"] is not None or guide["mask"] is not None:
        return unknown
    try:
        kl = kl_divergence(guide["fn"], prior["fn"])
    except (NotImplementedError, ValueError, RuntimeError):
        return unknown
    others = [dim for dim in range(-kl.dim(), 0) if dim != structure.dim]
    return (kl.sum(others) if others else kl).expand(num_data)


def check_finite(terms: SiteTerms) -> None:
    """Raises FloatingPointError, naming the site, where a density is NaN or a weight would be infinite."""
    for role, tables in terms._asdict().items():
        for name, table in tables.items():
            bad = table.isnan() | (table == (-math.inf if role == "guide" else math.inf))
            if bad.any():
                value = table[bad][0].item()
                raise FloatingPointError(
                    f"site '{name}': log density in the {'guide' if role == 'guide' else 'model'} is {value} "
                    f"for {int(bad.any(0).sum())} of {table.shape[1]} data; look at its parameters there"
                )


@contextmanager
def memory_advice(num_data: int, num_particles: int) -> Iterator[None]:
    """Turns running out of memory into an InputError that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise InputError(
            f"not enough memory for {num_particles} particles of {num_data} data at once: "
            "lower particle_batch, then batch_size (the number of particles itself need not change)"
        ) from error


@contextmanager
def kept_rng() -> Iterator[None]:
    """Leaves torch's random state, on the CPU and on CUDA, as it was."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=list(devices)):
        yield


def seed_everything(*key: int) -> None:
    """Seeds torch, on every device, from a key of whole numbers."""
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


def _mean_and_se(values: Tensor) -> dict[str, float | None]:
    se = values.std() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": _number(values.mean()), "data_se": _number(se)}


def _number(value: Tensor | float) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None


def _row(label: str, cell: dict[str, float | None]) -> str:
    bias = f"   bias about {_text(cell['bias'], 4)}" if "bias" in cell else ""
    mc_se = _text(cell["mc_se"], 4) if "mc_se" in cell else ""
    return f"{label:38}{_text(cell['mean'], 3):>12}{_text(cell['data_se'], 3):>10}{mc_se:>10}{bias}"


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
