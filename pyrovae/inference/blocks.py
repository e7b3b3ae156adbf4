"""One block of data of an evaluation: its noise, its table of log densities, and a report's columns from that table."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.errors import InputError
from pyrovae.inference import estimators
from pyrovae.inference.pairs import (
    Program,
    evaluation_mode,
    home_device,
    modules_of,
    on_device,
    own_scope,
    plain_traces,
    quiet_numerics,
    sites,
)
from pyrovae.inference.structure import Structure, describe, inspect_pair
from pyrovae.inference.terms import WAYS, LogTerms, SiteTerms, choose_way, one_row, sum_by_role
from pyrovae.splits import Split

# What random numbers are for: the first part of every key, so that no two uses share a stream.
FIT, ORDER, BINARIZATION, VALIDATION, EVALUATION, DRAWING = range(6)

ELEMENTS_AT_ONCE = 2**21  # numbers drawn or scored in one run of the programs, where the caller does not say


MEMORY = "lower particle_batch, then batch_size (the number of particles itself need not change)"


class Evaluation:
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
        self.ways: dict[int, str] = {}  # data in a block -> how the programs take it

    @property
    def way(self) -> str:
        """How the programs were run; the slowest way where blocks of unlike size differed."""
        return max(self.ways.values(), key=list(WAYS).index)

    def block(self, split: Split, index: int, rows: slice, bar: Any) -> dict[str, Tensor]:
        """The report's columns for one block of data."""
        seed_everything(EVALUATION, self.seed, index)
        args = split.batch(rows)
        num_data = rows.stop - rows.start
        structure, kl = self._inspect(args, num_data)
        size = self.particle_batch or self._particle_batch(args, num_data)
        tables = []
        for number, start in enumerate(range(0, self.num_particles, size)):
            seed_everything(EVALUATION, self.seed, index, number)
            with memory_advice(f"{size} particles of {num_data} data at once: {MEMORY}"):
                count = min(size, self.num_particles - start)
                terms = WAYS[self.ways[num_data]](self.model, self.guide, args, structure, count)
            check_finite(terms)
            tables.append(sum_by_role(terms))
            bar.update(num_data * len(tables[-1].log_prior) / self.num_particles)
        with memory_advice(f"{self.num_particles} weights of {num_data} data: lower batch_size or num_particles"):
            return account(LogTerms(*(torch.cat(parts) for parts in zip(*tables, strict=True))), kl)

    def _inspect(self, args: Sequence[Any], num_data: int) -> tuple[Structure, Tensor]:
        if self.vectorize:
            traces = plain_traces(self.model, self.guide, args)
            structure = describe(*traces, num_data, plate=self.plate)
            kl = analytic_kl(*traces, structure, num_data)
        else:
            structure = inspect_pair(self.model, self.guide, one_row(args, 0), plate=self.plate)
            kl = torch.full((num_data,), math.nan)
        self.measure = structure.observed
        if num_data not in self.ways:
            way = choose_way(self.model, self.guide, args, structure) if self.vectorize else "one by one"
            self.ways[num_data] = way
        return structure, kl

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
def memory_advice(advice: str) -> Iterator[None]:
    """Turns running out of memory into an InputError that says for what it was not enough, and what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(f"not enough memory for {advice}") from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU or on CUDA."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


@contextmanager
def undisturbed(model: Program, guide: Program) -> Iterator[tuple[Program, Program, torch.device]]:
    """A pair as it is measured: in its own scope and eval mode, without gradients; all else is put back.

    Yields (model, guide, device), the programs unwrapped, the device that of their parameters.
    """
    with own_scope(model, guide) as (model, guide, _), quiet_numerics(), kept_rng():
        device = home_device(model, guide)
        with evaluation_mode(modules_of(model, guide)), on_device(device):
            yield model, guide, device


@contextmanager
def kept_rng() -> Iterator[None]:
    """Leaves torch's random state, on the CPU and on CUDA, as it was."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=list(devices)):
        yield


def seed_of(*key: int) -> int:
    """One seed from a key of whole numbers; keys of unlike length are unlike seeds."""
    if min(key) < 0:
        raise InputError(f"a seed must not be negative, got {min(key)}")
    sequence = np.random.SeedSequence((len(key), *key))  # by itself it takes (1, 2) and (1, 2, 0) for the same
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def seed_everything(*key: int) -> None:
    """Seeds torch, on every device, from a key of whole numbers."""
    torch.manual_seed(seed_of(*key))
