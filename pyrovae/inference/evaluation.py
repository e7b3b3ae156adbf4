r"""The importance weights of any pair on any data, block by block, and a report's columns from them.

Of everything that K particles of n data leave behind, the log weights alone are kept as a table (K, n), of fewer data
where K is larger; what is only averaged over particles is summed up as it comes. So memory hardly grows with K.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from pyrovae.base.memory import blocks_of, memory_advice, of_device
from pyrovae.base.progress import bar, kept_on_interrupt
from pyrovae.data.split import Protocol, as_split
from pyrovae.inference import estimators
from pyrovae.inference.blocks import undisturbed
from pyrovae.inference.pairs import Program
from pyrovae.inference.weighing import WEIGHTS_AT_ONCE, Evaluation, Plan, Weights

DOUBTFUL_SHARE = 0.05  # of data whose k-hat is too high or undefined, above which their mean is not to be trusted
FEWER = "lower batch_size or num_particles"
WHERE_DRAWN = (  # said under diagnostics that find nothing
    "k-hat and ESS see only where draws fall: a mode the guide misses shows in defensive=, calibrate, bidirectional"
)


Record = TypeVar("Record")


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
        keep_freed_memory()
        source, run = split.to(device), Evaluation(model, guide, plan, len(split), device)
        with bar(shown=progress, total=len(split), desc="evidence", unit="x", delay=2) as shown:
            for index, rows in enumerate(blocks_of(len(split), run.batch_size)):
                with memory_advice(f"{plan.num_particles} weights of {rows.stop - rows.start} data: {FEWER}"):
                    columns.append(reduce(run.block(source, index, rows, shown)))
    return record()


def keep_freed_memory() -> None:
    """Lets glibc keep what is freed in blocks below 32 MB: given back, each page of it is cleared at its next use.

    Freeing one block of that size, untouched, raises its threshold; other allocators take no notice.
    """
    torch.empty(2**25 - 2**14, dtype=torch.uint8, device="cpu")


def account(block: Weights) -> dict[str, Tensor]:
    """A report's columns, (n,) each, from the weights of a block."""
    return {
        **in_slices(importance_sampling, block),
        **dict(zip(("reconstruction", "kl_prior"), block.terms.mean, strict=True)),
        **dict(zip(("mc_se_reconstruction", "mc_se_kl_prior"), block.terms.se, strict=True)),
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
    width = max(1, of_device(WEIGHTS_AT_ONCE, block.log_weight.device) // len(block.log_weight))
    slices = zip(block.log_weight.split(width, 1), block.resolution.split(width), strict=True)
    parts = [reduce(*part) for part in slices]
    return {name: torch.cat([part[name] for part in parts], -1) for name in parts[0]}
