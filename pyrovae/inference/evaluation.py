r"""The importance weights of any pair on any data, block by block, and a report's columns from them.

Of everything that K particles of n data leave behind, the log weights alone are kept as a table (K, n): what is only
averaged over particles is summed up as it comes, so that memory hardly grows with K.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.errors import InputError
from pyrovae.inference import blocks, estimators
from pyrovae.inference.blocks import EVALUATION, check_finite, memory_advice, seed_everything, undisturbed
from pyrovae.inference.defensive import Defended
from pyrovae.inference.pairs import Program, plain_traces, sites
from pyrovae.inference.plain import blocks_of
from pyrovae.inference.structure import Structure, describe, support_of
from pyrovae.inference.supports import refuse_narrow_guide
from pyrovae.inference.terms import WAYS, LogTerms, SiteTerms, check_num_particles, choose_way, one_row, sum_by_role
from pyrovae.progress import bar, kept_on_interrupt
from pyrovae.splits import Protocol, Split, as_split

DOUBTFUL_SHARE = 0.05  # of data whose k-hat is too high or undefined, above which their mean is not to be trusted
MEMORY = "lower particle_batch, then batch_size (the number of particles itself need not change)"
FEWER = "lower batch_size or num_particles"
WEIGHTS_AT_ONCE = 2**18  # in one temporary table of the estimators: 2 MB
WHERE_DRAWN = (  # said under diagnostics that find nothing
    "k-hat and ESS see only where draws fall: a mode the guide misses shows in defensive=, calibrate, bidirectional"
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the particles of an evaluation are drawn: the arguments of :func:`~pyrovae.evaluate`, checked.

    Raises:
        InputError: for numbers that no evaluation can use.
    """

    num_particles: int
    seed: int
    batch_size: int
    particle_batch: int | None
    plate: str | None
    vectorize: bool
    defensive: float

    def __post_init__(self) -> None:
        check_num_particles(self.num_particles)
        if self.batch_size < 1 or (self.particle_batch is not None and self.particle_batch < 1):
            raise InputError(
                f"block sizes must be at least 1, got batch_size={self.batch_size}, "
                f"particle_batch={self.particle_batch}"
            )
        if not 0 <= self.defensive < 1:
            raise InputError(f"defensive is the prior's share of the draws, from 0 to below 1; got {self.defensive}")
        if self.defensive and not self.vectorize:
            raise InputError("defensive= runs many particles of many data at once: leave vectorize=False out")


class RunningMean:
    """Mean over particles and its standard error, from one block of particles after another; (n,) is all it keeps."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, values: Tensor) -> None:
        """Takes in k more particles, (k, n); the squares about the mean are merged, as sums of squares would cancel."""
        values, count = values.double(), len(values)
        total = values.sum(0)
        squares = (values - total / count).square().sum(0)
        if self.count:
            gap = total / count - self.mean
            squares += self.squares + gap.square() * (count * self.count / (count + self.count))
            total += self.total
        self.count, self.total, self.squares = self.count + count, total, squares

    @property
    def mean(self) -> Tensor:
        """(n,), float64."""
        return self.total / self.count

    @property
    def se(self) -> Tensor:
        """sd over particles / sqrt(K), (n,); NaN for K = 1."""
        return (self.squares / (self.count - 1) / self.count).sqrt()


class Resolution:
    """What rounding can make of equal weights, from one block of particles after another; (n,) is all it keeps."""

    def __init__(self) -> None:
        self.nats, self.low, self.high = torch.zeros(()), torch.tensor(math.inf), torch.tensor(-math.inf)

    def add(self, terms: LogTerms) -> None:
        """Takes in k more particles, (k, n)."""
        densities = torch.stack([terms.log_guide, terms.log_prior]).double()
        self.nats = torch.maximum(self.nats, terms.resolution)
        self.low = torch.minimum(self.low, densities.amin(1))
        self.high = torch.maximum(self.high, densities.amax(1))

    @property
    def of_distinct(self) -> Tensor:
        """(n,) nats; NaN where neither log q nor log p(z) differs between draws: all may be one and the same value."""
        differ = (self.high - self.low > self.nats).any(0)
        return torch.where(differ, self.nats, math.nan)


Record = TypeVar("Record")


class Weights(NamedTuple):
    """What K particles of the n data of one block leave behind; one table alone grows with K."""

    log_weight: Tensor  # (K, n), float64
    reconstruction: RunningMean  # of log p(x|z)
    kl_prior: RunningMean  # of log q(z|x) - log p(z)
    resolution: Tensor  # (n,): what rounding can make of equal weights, in nats; NaN where those say nothing
    kl_prior_analytic: Tensor  # (n,)


class Measured(NamedTuple):
    """What :func:`measure` gives: columns over all data, on the CPU, and how they came about."""

    columns: dict[str, Tensor]  # each (..., N)
    way: str
    measure: dict[str, str]
    protocol: Protocol


def measure(
    model: Program,
    guide: Program,
    data: Any,
    plan: Plan,
    reduce: Callable[[Weights], dict[str, Tensor]],
    build: Callable[[Measured], Record],
    *,
    progress: bool,
) -> Record:
    """Draws the particles of all data, reduces the weights of each block to columns (..., n), and builds a record.

    Raises:
        Interrupted: after Ctrl-C, with the record of the blocks that were done as ``partial``.
    """
    split = as_split(data).drawn(plan.seed)
    columns: list[dict[str, Tensor]] = []

    def record() -> Record:
        whole = {name: torch.cat([block[name] for block in columns], -1).cpu() for name in columns[0]}
        num_data = next(iter(whole.values())).shape[-1]
        return build(Measured(whole, run.way, run.measure, split[:num_data].protocol))

    with undisturbed(model, guide) as (model, guide, device), kept_on_interrupt(columns, record):
        source, run = split.to(device), Evaluation(model, guide, plan)
        with bar(shown=progress, total=len(split), desc="evidence", unit="x", delay=2) as shown:
            for index, rows in enumerate(blocks_of(len(split), plan.batch_size)):
                with memory_advice(f"{plan.num_particles} weights of {rows.stop - rows.start} data: {FEWER}"):
                    columns.append(reduce(run.block(source, index, rows, shown)))
    return record()


class Evaluation:
    """One evaluation: what stays the same from block to block."""

    def __init__(self, model: Program, guide: Program, plan: Plan) -> None:
        self.model, self.guide, self.plan = model, guide, plan
        self.measure: dict[str, str] = {}
        self.ways: dict[int, str] = {}  # data in a block -> how the programs take it

    @property
    def way(self) -> str:
        """How the programs were run; the slowest way where blocks of unlike size differed."""
        return max(self.ways.values(), key=list(WAYS).index)

    def block(self, split: Split, index: int, rows: slice, shown: Any) -> Weights:
        """The weights of one block of data."""
        seed_everything(EVALUATION, self.plan.seed, index)
        args, num_data, num_particles = split.batch(rows), rows.stop - rows.start, self.plan.num_particles
        structure, kl, discrete = self._inspect(args, num_data)
        draw = self._draw(args, structure, num_data)
        size = self.plan.particle_batch or self._particle_batch(args, num_data)
        log_weight = torch.empty(num_particles, num_data, dtype=torch.float64)
        reconstruction, kl_prior, resolution = RunningMean(), RunningMean(), Resolution()
        for number, start in enumerate(range(0, num_particles, size)):
            seed_everything(EVALUATION, self.plan.seed, index, number)
            count = min(size, num_particles - start)
            with memory_advice(f"{size} particles of {num_data} data at once: {MEMORY}"):
                sites = draw(count)
            check_finite(sites)
            terms = sum_by_role(sites)
            log_weight[start : start + count] = terms.log_weight
            reconstruction.add(terms.log_likelihood)
            kl_prior.add(terms.log_guide.double() - terms.log_prior.double())
            resolution.add(terms)
            shown.update(num_data * count / num_particles)
        # Discrete draws may all be equal, and so their weights, however wrong the guide is.
        nats = resolution.of_distinct if discrete else resolution.nats
        return Weights(log_weight, reconstruction, kl_prior, nats, kl.double())

    def _inspect(self, args: Sequence[Any], num_data: int) -> tuple[Structure, Tensor, bool]:
        """The pair's structure, KL(q || prior) where it has a closed form, and whether some latent is discrete."""
        plan = self.plan
        if plan.vectorize:
            traces = plain_traces(self.model, self.guide, args)
            structure = describe(*traces, num_data, plate=plan.plate)
            refuse_narrow_guide(*traces, structure)
            kl = analytic_kl(*traces, structure, num_data)
        else:
            traces = plain_traces(self.model, self.guide, one_row(args, 0))
            structure = describe(*traces, 1, plate=plan.plate)
        if not plan.vectorize or plan.defensive:
            kl = torch.full((num_data,), math.nan)
        self.measure = structure.observed
        if num_data not in self.ways:
            way = choose_way(self.model, self.guide, args, structure) if plan.vectorize else "one by one"
            self.ways[num_data] = way
        return structure, kl, any_discrete(*traces)

    def _draw(self, args: Sequence[Any], structure: Structure, num_data: int) -> Callable[[int], SiteTerms]:
        """What draws so many particles of these data: from the guide, or from its defensive mixture with the prior."""
        way = self.ways[num_data]
        if self.plan.defensive:
            return Defended(self.model, self.guide, args, self.plan.defensive, plate=structure.plate, way=way).draw
        return lambda count: WAYS[way](self.model, self.guide, args, structure, count)

    def _particle_batch(self, args: Sequence[Any], num_data: int) -> int:
        width = sum(arg[0].numel() for arg in args if isinstance(arg, Tensor) and arg.dim() > 0)
        return max(1, min(self.plan.num_particles, blocks.ELEMENTS_AT_ONCE // (num_data * max(width, 64))))


def account(block: Weights) -> dict[str, Tensor]:
    """A report's columns, (n,) each, from the weights of a block."""
    return {
        **in_slices(importance_sampling, block),
        "reconstruction": block.reconstruction.mean,
        "kl_prior": block.kl_prior.mean,
        "mc_se_reconstruction": block.reconstruction.se,
        "mc_se_kl_prior": block.kl_prior.se,
        "kl_prior_analytic": block.kl_prior_analytic,
    }


def importance_sampling(log_weight: Tensor, resolution: Tensor) -> dict[str, Tensor]:
    """What a report's columns owe to the log weights: (K, n) and their resolution (n,) -> (n,) each."""
    evidence, elbo = estimators.log_evidence(log_weight), estimators.elbo(log_weight)
    tail = estimators.pareto_tail(log_weight, resolution)
    return {
        "log_evidence": evidence,
        "log_evidence_jackknife": estimators.log_evidence_jackknife(log_weight),
        "log_evidence_psis": estimators.log_evidence(tail.smooth(log_weight)),
        "elbo": elbo,
        "kl_posterior": evidence - elbo,
        "mc_se_log_evidence": estimators.log_evidence_se(log_weight),
        "mc_se_elbo": estimators.mean_se(log_weight),
        "mc_se_kl_posterior": estimators.kl_posterior_se(log_weight),
        "ess": estimators.ess(log_weight),
        "pareto_k": tail.shape,
    }


def in_slices(reduce: Callable[[Tensor, Tensor], dict[str, Tensor]], block: Weights) -> dict[str, Tensor]:
    """Applies a function of log weights (K, m) and their resolution (m,) to a few data at a time."""
    width = max(1, WEIGHTS_AT_ONCE // len(block.log_weight))
    slices = zip(block.log_weight.split(width, 1), block.resolution.split(width), strict=True)
    parts = [reduce(*part) for part in slices]
    return {name: torch.cat([part[name] for part in parts], -1) for name in parts[0]}


def any_discrete(model_trace: Any, guide_trace: Any) -> bool:
    """Whether a latent or auxiliary site has a discrete support."""
    drawn = [*sites(guide_trace).values(), *(s for s in sites(model_trace).values() if not s["is_observed"])]
    return any(bool(getattr(support_of(site["fn"]), "is_discrete", False)) for site in drawn)


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
