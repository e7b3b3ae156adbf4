"""evaluate(): the account of log p(x) for any pair on any data, datum by datum, with every error beside its number."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import LostDigits, warn
from pyrovae.base.memory import keep_freed_memory
from pyrovae.data.split import Protocol, as_split
from pyrovae.evidence import estimators
from pyrovae.evidence.blocks import Block, Blocks, Pair, block_by_block
from pyrovae.evidence.importance import Evaluation, Weights, in_slices, put_draws
from pyrovae.evidence.ladder.climbed import ROUTES, Climbed
from pyrovae.evidence.numerics.digits import digits
from pyrovae.evidence.plan import Plan, data_at_once, elements_at_once
from pyrovae.evidence.report import Report, untrusted
from pyrovae.pairs.checks.data import not_finite
from pyrovae.pairs.context import double_precision, own_scope
from pyrovae.pairs.traces import Program


@checked
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
    dtype: str | torch.dtype | None = None,
    method: str = "auto",
    budget: int | None = None,
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
            table of their weights does not grow with K, and fewer where one run takes much memory for each of them.
        particle_batch: particles in a block; None finds a number by itself, such that a run of the programs holds 150
            MB at most on the CPU (found by runs of two and of one), and halves it where memory runs out all
            the same: the numbers then are those of the smaller block.
        plate: name of the data plate, where several plates hold all sites.
        vectorize: False runs one particle of one datum at a time, for programs whose draws steer control flow.
        defensive: draw from the prior with this probability, else from the guide, and weigh by the mixture's density:
            a guide that is too narrow somewhere then does no harm there (about twice the time).
        compile: whether a block's draws and densities are traced once and replayed as compiled kernels, with the same
            noise and to rounding the same numbers. "auto" does so on CUDA, and on the CPU from ten million decoder
            passes (N K) on, which repays the compiler's seconds; where the programs cannot be traced it runs them as
            they are and warns, where True raises.
        dtype: None runs the programs as they are; "float64" runs them in double precision: parameters, buffers, tensors
            that they hold, values of the parameter store and data are converted while it lasts. The draws are others.
        method: how the evidence of a datum is found if a pilot shows that the guide's draws do not vouch for it:
            "importance" leaves it as it is; "laplace" and "adaptive" climb to better proposals, and "auto" to annealing
            from the best of them; "annealed" anneals all. The ELBO and its parts are those of the guide all the same.
        budget: decoder passes for each datum at most, all draws counted (a gradient as three); None sets no limit.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        The :class:`Report`. Nothing else changes: parameter store, random state and train/eval modes are kept.

    Raises:
        InputError: naming the site, for a pair without per-datum weights, data outside the support of the
            likelihood, K or a block size below 1, more memory than there is, or programs that write down a dtype
            where another is needed.
        FloatingPointError: naming the site, where a log density is NaN or a weight infinite.
        Interrupted: after Ctrl-C, with the report on the blocks that were done as ``partial``.

    Warns:
        UntrustedEvidence: if k-hat is above its threshold or undefined for more than 5 % of the data, or if all draws
            of a datum have weight zero.
        LostDigits: if a few draws of the first block, scored in double precision too, have another evidence there: by
            more than its stated error and 0.01 nat for a datum, or by more than the stated error of the mean (and
            0.01 / sqrt(n) nat) in the mean of the n data compared. Programs that hold more than 64 MB, or write down a
            dtype, are not compared (the report's ``digits`` is None).
    """
    of_draws = num_particles, seed, batch_size, particle_batch, plate, vectorize, defensive, compile, _name(dtype)
    plan = Plan(*of_draws, method, budget)
    report, _ = routed(model, guide, data, plan, progress=progress)
    if report.digits is not None and report.digits.lost:
        warn(LostDigits(report.digits.said))
    if (warning := untrusted(report)) is not None:
        warn(warning)
    return report


def routed(
    model: Program, guide: Program, data: Any, plan: Plan, *, progress: bool
) -> tuple[Report, dict[str, Tensor]]:
    """The report on all data, and of each as many draws of its posterior as the plan keeps.

    Returns:
        The report; and the draws, latent site -> (L, N, *plates inside a datum, *event), none where none are kept.
    """
    data, draws = as_split(data), dict[str, Tensor]()
    jacobians = data.log_jacobians()

    def reduce(block: Weights) -> dict[str, Tensor]:
        return account(block) | {f"{KEPT}{name}": value.movedim(1, -1) for name, value in (block.draws or {}).items()}

    def build(columns: dict[str, Tensor], run: Evaluation, protocol: Protocol) -> Report:
        kept = [name for name in columns if name.startswith(KEPT)]
        draws.update({name.removeprefix(KEPT): columns.pop(name).movedim(-1, 1).contiguous() for name in kept})
        for climbed in run.repair.late:
            _put(columns, climbed, plan.num_particles)
            put_draws(draws, climbed)
        if jacobians is not None:
            columns["log_jacobian"] = jacobians[: len(columns["log_evidence"])]
        lost = digits(run.compared, columns["mc_se_log_evidence"])
        how, num_particles = run.pair, plan.num_particles
        said = columns, num_particles, plan.seed, how.strategy, how.measure, protocol, plan.defensive, lost
        return Report(*said, plan.method, plan.budget, run.repair.staying, run.beyond)

    return measure(model, guide, data, plan, reduce, build, progress=progress), draws


def _name(dtype: str | torch.dtype | None) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")


KEPT = "draws of "  # before the name of a site, among the columns of blocks
Record = TypeVar("Record")


def measure(
    model: Program,
    guide: Program,
    data: Any,
    plan: Plan,
    reduce: Callable[[Weights], dict[str, Tensor]],
    build: Callable[[dict[str, Tensor], Evaluation, Protocol], Record],
    *,
    progress: bool,
) -> Record:
    """Draws the particles of all data, and reduces the weights of each block to columns (..., n).

    Returns:
        What ``build`` makes of the columns over all data, on the CPU, of the evaluation and of the data's protocol.
    """
    split, runs = as_split(data).drawn(plan.seed), list[Evaluation]()

    def begin(pair: Pair) -> Callable[[Block], dict[str, Tensor]]:
        keep_freed_memory()
        source = split.to(pair.device)
        if plan.vectorize and not plan.batch_size:
            most = data_at_once(plan.num_particles, pair.device)
            enough = pair.enough(most, elements_at_once(pair.device))
            pair.weigh_rows(source, most, double=plan.dtype is not None, enough=enough)
        run = Evaluation(pair, plan, len(split))
        runs.append(run)

        def work(block: Block) -> dict[str, Tensor]:
            batch = source.batch(block.rows)
            try:
                return reduce(run.block(batch, block))
            except FloatingPointError as error:
                raise not_finite(batch[0], start=block.rows.start) or error from error

        return work

    def record(done: Sequence[dict[str, Tensor]], _: Pair) -> Record:
        whole = {name: torch.cat([block[name] for block in done], -1).cpu() for name in done[0]}
        num_data = next(iter(whole.values())).shape[-1]
        return build(whole, runs[0], split[:num_data].protocol)

    memory = f"{plan.num_particles} weights of {{num_data}} data: lower batch_size or num_particles"
    blocks = Blocks(len(split), plan.rows, ("evaluation", plan.seed), memory)
    with _in_dtype(plan.dtype, model, guide) as pair:
        return block_by_block(*pair, blocks, begin, record, plate=plan.plate, progress=progress)


@contextmanager
def _in_dtype(dtype: str | None, model: Program, guide: Program) -> Iterator[tuple[Program, Program]]:
    """The pair as it is, or in double precision."""
    if dtype is None:
        yield model, guide
        return
    with own_scope(model, guide) as (model, guide, _), double_precision(model, guide):
        yield model, guide


def account(block: Weights) -> dict[str, Tensor]:
    """A report's columns, (n,) each, from the weights of a block."""
    num_particles = len(block.log_weight)
    columns = {
        **in_slices(importance_sampling, block),
        **dict(zip(("reconstruction", "kl_prior"), block.terms.mean, strict=True)),
        **dict(zip(("mc_se_reconstruction", "mc_se_kl_prior"), block.terms.se, strict=True)),
        "kl_prior_analytic": block.kl_prior_analytic,
        "resolution": block.resolution,
    }
    every = torch.ones_like(columns["elbo"])
    columns |= {"num_weights": num_particles * every, "route": 0 * every}
    columns["cost"] = num_particles * every
    columns["log_evidence_importance"] = columns["log_evidence"].clone()  # by the guide's own draws
    for climbed in block.climbed:
        _put(columns, climbed, num_particles)
    return columns


def _put(columns: dict[str, Tensor], climbed: Climbed, num_particles: int) -> None:
    """Puts the evidence by a better proposal in place of the guide's, and with it KL(q || posterior)."""
    rows = climbed.rows
    columns["cost"][rows] = climbed.cost.to(columns["cost"])
    for name, column in climbed.columns.items():
        columns[name][rows] = column.to(columns[name])
    if climbed.route == ROUTES[0]:  # they stay at the encoder
        return
    columns["route"][rows] = float(ROUTES.index(climbed.route))
    of_both = [(columns[f"mc_se_{name}"][rows], columns[f"skewness_{name}"][rows]) for name in ("log_evidence", "elbo")]
    of_both[0] = of_both[0][0], of_both[0][1] * (num_particles / columns["num_weights"][rows]).sqrt()  # as of K draws
    se, skewness = estimators.difference_of_independent(*of_both)
    columns["kl_posterior"][rows] = columns["log_evidence"][rows] - columns["elbo"][rows]
    columns["mc_se_kl_posterior"][rows], columns["skewness_kl_posterior"][rows] = se, skewness


# Name of a report's column -> what it is of the log weights (K, n) and of their Pareto tail: (n,).
COLUMNS: dict[str, Callable[[Tensor, estimators.ParetoTail], Tensor]] = {
    "log_evidence": lambda log_weight, _: estimators.log_evidence(log_weight),
    "log_evidence_jackknife": lambda log_weight, _: estimators.log_evidence_jackknife(log_weight),
    "log_evidence_psis": lambda log_weight, tail: estimators.log_evidence(tail.smooth(log_weight)),
    "elbo": lambda log_weight, _: estimators.elbo(log_weight),
    "kl_posterior": lambda log_weight, _: estimators.kl_posterior(log_weight),
    "mc_se_log_evidence": lambda log_weight, _: estimators.log_evidence_se(log_weight),
    "mc_se_elbo": lambda log_weight, _: estimators.mean_se(log_weight),
    "mc_se_kl_posterior": lambda log_weight, _: estimators.kl_posterior_se(log_weight),
    "skewness_log_evidence": lambda log_weight, _: estimators.skewness(estimators.relative_weight(log_weight)),
    "skewness_elbo": lambda log_weight, _: estimators.skewness(log_weight),
    "skewness_kl_posterior": lambda log_weight, _: estimators.skewness(
        estimators.relative_weight(log_weight) - log_weight
    ),
    "ess": lambda log_weight, _: estimators.ess(log_weight),
    "pareto_k": lambda _, tail: tail.shape,
}


def importance_sampling(log_weight: Tensor, resolution: Tensor) -> dict[str, Tensor]:
    """What a report's columns owe to the log weights: (K, n) and their resolution (n,) -> (n,) each."""
    tail = estimators.pareto_tail(log_weight, resolution)
    return {name: column(log_weight, tail) for name, column in COLUMNS.items()}
