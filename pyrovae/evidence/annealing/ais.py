r"""Annealed importance sampling: log p(x) where the guide's draws alone do not reach.

Along a path from a normalised density f_0 to f_1 = p(x, z), with transitions that leave each f_t as it is,

.. math::
    \log w = \sum_{i=1}^{T} (t_i - t_{i-1}) \, [\log f_1(u_{i-1}) - \log f_0(u_{i-1})], \qquad E[w] = p(x)

so the log of the mean of K weights is a lower bound on log p(x) in expectation, as for importance sampling (T = 1).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, UntrustedEvidence, check_at_least_one, warn
from pyrovae.base.forms.tables import TextTable, text
from pyrovae.base.random import seed_everything
from pyrovae.base.records import Record, spread
from pyrovae.data.protocol import Protocol
from pyrovae.data.split import as_split
from pyrovae.evidence import estimators
from pyrovae.evidence.annealing.paths import Path, Route, Walk, from_guide, walk
from pyrovae.evidence.annealing.tuning import num_transitions, tune
from pyrovae.evidence.blocks import Block, Blocks, Pair, block_by_block
from pyrovae.evidence.reliability import (
    UNRELIABLE_FRACTION,
    effective_size,
    evidence_and_errors,
    finds_more,
    skewed_errors,
)
from pyrovae.pairs.latents import Latents
from pyrovae.pairs.terms import check_finite
from pyrovae.pairs.traces import Program

Start = Callable[[Latents], Path]
MEMORY = "{} chains of {{num_data}} data at once: lower num_chains or batch_size"
ELSEWHERE = 100  # draws of the guide, and of the prior, that may find what chains miss
ADVICE = "take more temperatures or chains, or start from the prior (from_prior)"


@dataclass(frozen=True)
class Plan:
    """How to anneal: the settings that every block of data shares."""

    num_temperatures: int
    num_chains: int
    num_leapfrog: int
    start: Start
    seed: int

    def __post_init__(self) -> None:
        numbers = ("num_temperatures", "num_chains", "num_leapfrog")
        check_at_least_one(**{name: getattr(self, name) for name in numbers})

    def settings(self) -> dict[str, Any]:
        """As a record keeps them, the start by its name."""
        name = getattr(self.start, "__name__", "start").removeprefix("from_")
        return {**asdict(self), "start": name}

    def route(self, latents: Latents, block: Block) -> Route:
        """The path of one block, with the frozen kernels and the temperatures that a pilot found for it."""
        latents.require_bijection("annealed importance sampling")
        path = self.start(latents)
        seed_everything("annealing pilot", self.seed, block.index)
        tuning = tune(path, self.num_temperatures, self.num_leapfrog, block.tick)
        return Route.of(path, tuning.kernel, tuning.lengths.schedule(self.num_temperatures))

    def forward(self, latents: Latents, route: Route, block: Block) -> Walk:
        """The chains of one block, from the start to p(x, z)."""
        seed_everything("annealing chains", self.seed, block.index)
        try:
            found = walk(route, route.draw(self.num_chains), block.tick)
        except FloatingPointError as error:
            try:
                check_finite(latents.particles.log_terms(self.num_chains))
            except FloatingPointError as named:
                raise FloatingPointError(f"{error}: {named}") from error
            raise
        latents.warn_of_edges(found.u, "annealing")
        return found


@dataclass(frozen=True, eq=False, repr=False)
class Annealed(Record):
    """Annealed log p(x) of N data, in nats; every tensor is (N,), float64, on the CPU."""

    log_evidence: Tensor
    mc_se_log_evidence: Tensor  # by the delta method, times what few chains lack: estimators.log_evidence_se_of_few
    skewness_log_evidence: Tensor  # of the weights of the K chains: what that error is worth, see ``skewed``
    ess: Tensor  # of the K chains
    acceptance: Tensor  # mean probability over the path
    num_temperatures: int
    num_chains: int
    num_leapfrog: int
    start: str  # where the path begins: "prior" or "guide"
    seed: int
    measure: dict[str, str]  # observed site -> "mass" or "density"
    protocol: Protocol | None = None
    missed: Tensor | None = None  # 1 where draws of guide and prior find more than the chains do, else 0

    def __len__(self) -> int:
        return len(self.log_evidence)

    def __repr__(self) -> str:
        return f"Annealed(N={len(self)}, T={self.num_temperatures}, log p(x) {self.log_evidence.mean():.3f} nats)"

    @property
    def found_by(self) -> str:
        """By what the evidence was found, and by how many draws."""
        return f"AIS, {self.num_temperatures:,} x {self.num_chains}"

    @property
    def fraction_unreliable(self) -> float:
        """Fraction of the data whose evidence rests on less than a quarter of the chains or on none, or is too low."""
        bad = ~(self.ess >= self.num_chains / 4)
        return (bad if self.missed is None else bad | (self.missed > 0)).double().mean().item()

    @property
    def fraction_missed(self) -> float:
        """Fraction of the data of which draws of guide and prior find more than the chains do, beyond both errors."""
        return 0.0 if self.missed is None else self.missed.double().mean().item()

    @property
    def skewed(self) -> float:
        """Fraction of the data whose Monte-Carlo error may be too small, as the weights of their chains are too skewed.

        Where it is at most 5 %, +-1.96 errors hold log p(x) in 93 to 97 of 100 cases.
        """
        return estimators.is_skewed_for_few(self.skewness_log_evidence, self.num_chains).double().mean().item()

    def numbers(self) -> dict[str, Any]:
        """Means over data with their errors, in nats per datum, and how the chains fared."""
        return {
            "unit": "nats per datum",
            "method": "annealed importance sampling",
            "num_data": len(self),
            "log_evidence": evidence_and_errors(self.log_evidence, self.mc_se_log_evidence),
            "skewed": self.skewed,
            "missed": self.fraction_missed,
            "ess": spread(self.ess),
            "acceptance": spread(self.acceptance),
        }

    def lines(self) -> list[str | TextTable]:
        values, fraction = self.numbers(), self.fraction_unreliable
        evidence, acceptance = values["log_evidence"], values["acceptance"]
        unreliable, missed = fraction > UNRELIABLE_FRACTION, self.fraction_missed
        return [
            *([str(self.protocol)] if self.protocol else []),
            f"annealed importance sampling from the {self.start}: {self.num_temperatures} temperatures, "
            f"{self.num_chains} chains for each of N = {len(self)} data; nats per datum",
            f"log p(x)  {text(evidence['mean'], '.3f')}   data SE {text(evidence['data_se'], '.3f')}   "
            f"MC SE {text(evidence['mc_se'], '.4f')}   bias about {text(evidence['bias'], '.4f')}"
            + (" or far worse, see below" if unreliable else ""),
            effective_size(f"{self.num_chains} chains", values["ess"]),
            f"acceptance of the transitions: mean {text(acceptance['mean'], '.2f')}, "
            f"least {text(acceptance['min'], '.2f')}",
            *(
                [f"few chains carry the weight of {fraction:.0%} of data, or too little: {ADVICE}"]
                if unreliable
                else []
            ),
            *([f"draws of guide and prior find more for {missed:.0%} of data: chains miss a mode"] if missed else []),
            *skewed_errors({"log_evidence": self.skewed}, f"{self.num_chains} chains"),
            "a lower bound in expectation, blind to modes that no chain reaches; bidirectional bounds (bdmc) tell on",
            "simulated data how far below it may be",
        ]


@checked
def annealed_evidence(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_temperatures: int = 300,
    num_chains: int = 16,
    num_leapfrog: int = 5,
    start: Start = from_guide,
    seed: int = 0,
    batch_size: int = 100,
    plate: str | None = None,
    progress: bool = True,
) -> Annealed:
    """log p(x) by annealed importance sampling, datum by datum, for any pair with continuous latents.

    Step sizes, scales and the schedule of temperatures are found in a pilot run with chains of its own, and then
    frozen: adapting them to the measured chains would make the weights biased.

    Args:
        model: program of p(x, z), with one plate over the data.
        guide: program of q(z|x), with the same plate.
        data: a :class:`~pyrovae.data.Split`, a tensor (N, ...), or a tuple of tensors passed on as arguments.
        num_temperatures: T, steps of the path; at 1 it is plain importance sampling from the start.
        num_chains: K, independent chains for each datum.
        num_leapfrog: leapfrog steps, a gradient of both programs each, in one transition.
        start: where the path begins, :func:`~pyrovae.evidence.annealing.paths.from_guide` or
            :func:`~pyrovae.evidence.annealing.paths.from_prior` (longer, and owing nothing to the guide).
        seed: of the draws; the noise is keyed by (seed, data block).
        batch_size: data in a block.
        plate: name of the data plate, where several plates hold all sites.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        :class:`Annealed`. Nothing else changes: parameter store, random state and train/eval modes are kept.

    Raises:
        InputError: naming the site, for discrete latents, a pair without per-datum weights, or a number below 1.
        FloatingPointError: where a density is NaN on the way.
        Interrupted: after Ctrl-C, with the record of the blocks that were done as ``partial``.

    Warns:
        EdgeOfSupport: where a posterior reaches the edge of a support, beyond what its numbers hold.
        UntrustedEvidence: if a quarter of the chains carries the weight for more than 5 % of the data, or none for
            one; or a few draws of guide and prior find more than the chains, which then miss a mode.

    References:
        Neal (2001), Annealed importance sampling, Statistics and Computing 11:125, arXiv:physics/9803008.
        Wu, Burda, Salakhutdinov and Grosse (2017), On the quantitative analysis of decoder-based generative models,
        arXiv:1611.04273.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> annealed = annealed_evidence(oracle.model, oracle.guide, x, num_temperatures=4, num_chains=2)
        >>> bool((annealed.log_evidence - oracle.log_evidence(x)).abs().max() < 1e-10)  # the guide is exact
        True
    """
    plan = Plan(num_temperatures, num_chains, num_leapfrog, start, seed)
    check_at_least_one(batch_size=batch_size)
    split = as_split(data).drawn(seed)

    def begin(pair: Pair) -> Callable[[Block], dict[str, Tensor]]:
        source = split.to(pair.device)

        def anneal(block: Block) -> dict[str, Tensor]:
            latents = pair.latents(source.batch(block.rows))
            columns = _columns(plan.forward(latents, plan.route(latents, block), block))
            return columns | _missed(latents, plan, block, columns)

        return anneal

    def record(done: Sequence[dict[str, Tensor]], pair: Pair) -> Annealed:
        columns: Any = {name: torch.cat([block[name] for block in done]).cpu() for name in done[0]}
        protocol = split[: len(columns["ess"])].protocol
        return Annealed(**columns, **plan.settings(), measure=pair.measure, protocol=protocol)

    memory, num_steps = MEMORY.format(num_chains), num_transitions(num_temperatures)
    blocks = Blocks(len(split), batch_size, ("annealing", seed), memory, num_steps)
    annealed = block_by_block(model, guide, blocks, begin, record, plate=plate, progress=progress)
    if (doubt := _doubt(annealed)) is not None:
        warn(UntrustedEvidence(doubt))
    return annealed


def _doubt(annealed: Annealed) -> str | None:
    """Why the evidence is not to be trusted, and what to do; None where chains enough carry it."""
    num_chains, lost = annealed.num_chains, annealed.log_evidence == -math.inf
    if lost.any():
        return (
            f"all {num_chains} chains end where the model has no density for {int(lost.sum())} of {len(annealed)} "
            f"data, the first is row {int(lost.nonzero()[0])}, so log p(x) is -inf there: draw in the guide what datum "
            "and prior allow, or take more chains"
        )
    if annealed.fraction_unreliable > UNRELIABLE_FRACTION:
        return (
            f"the annealed evidence of {annealed.fraction_unreliable:.0%} of {len(annealed)} data rests on less than a "
            f"quarter of their {num_chains} chains, or draws of guide and prior find more (for "
            f"{annealed.fraction_missed:.0%}), and may be too low: {ADVICE}"
        )
    return None


def _missed(latents: Latents, plan: Plan, block: Block, columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whether a few draws of the guide and of the prior, by the density of both, find more than the chains of a block.

    Nothing for a guide whose density at given latents is not known.
    """
    try:
        latents.require_guide_density()
    except InputError:
        return {}
    seed_everything("annealing, elsewhere", plan.seed, block.index)
    parts = []
    for draw in (latents.draw, latents.draw_prior):
        for values in latents.in_parts(draw, ELSEWHERE):
            joint = latents.log_joint(values)
            density = torch.logaddexp(joint.log_prior, latents.log_guide(values)).double() - math.log(2)
            weight = joint.log_likelihood.double() + joint.log_prior.double() - density
            parts.append(torch.where(joint.log_prior == -math.inf, -math.inf, weight))
    elsewhere = torch.cat(parts).nan_to_num(-math.inf)
    more = finds_more(elsewhere, columns["log_evidence"], columns["mc_se_log_evidence"])
    return {"missed": more.double()}


def _columns(walk: Walk) -> dict[str, Tensor]:
    return {
        "log_evidence": estimators.log_evidence(walk.log_weight),
        "mc_se_log_evidence": estimators.log_evidence_se_of_few(walk.log_weight),
        "skewness_log_evidence": estimators.skewness(estimators.relative_weight(walk.log_weight)),
        "ess": estimators.ess(walk.log_weight),
        "acceptance": walk.acceptance.mean(0),
    }
