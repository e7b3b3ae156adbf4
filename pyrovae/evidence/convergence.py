r"""convergence(): how the evidence grows with the number of particles, from one nested set of draws per datum.

Of K_max log weights, B = K_max // K disjoint blocks of K give the estimate at each K:

.. math:: L_K = \frac1B \sum_{b=1}^{B} \log \frac1K \sum_{k=1}^{K} w_{bk}, \qquad
    E[L_1] = \mathrm{ELBO} \le E[L_{10}] \le E[L_{100}] \le \dots \le \log p(x)

Where the curve still climbs at K_max, the evidence has not been reached.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import LostDigits, warn
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.records import Record
from pyrovae.data.protocol import Protocol
from pyrovae.evidence import estimators
from pyrovae.evidence.evaluate import measure
from pyrovae.evidence.importance import Evaluation, in_slices
from pyrovae.evidence.numerics.digits import digits
from pyrovae.evidence.plan import Plan
from pyrovae.evidence.reliability import (
    UNRELIABLE_FRACTION,
    WHERE_DRAWN,
    fraction_skewed,
    fraction_unreliable,
    skewed_errors,
)
from pyrovae.pairs.traces import Program


@dataclass(frozen=True, eq=False, repr=False)
class Convergence(Record):
    """Evidence at C numbers of particles for N data, in nats, float64, on the CPU; all from the same draws.

    ``mc_se`` is from the spread of the blocks, by the delta method where there is one block, and NaN for K_max = 1.
    """

    num_particles: tuple[int, ...]  # K = 1, 10, 100, ..., K_max
    log_evidence: Tensor  # (C, N): L_K, a lower bound in expectation
    mc_se: Tensor  # (C, N)
    jackknife: Tensor  # (C, N): the same blocks without the 1/K term of their bias; NaN for K = 1
    pareto_k: Tensor  # (N,), of all K_max weights
    skewness: Tensor  # (N,), of them: what the error at K_max is worth
    seed: int
    defensive: float  # fraction of the draws that are from the prior
    protocol: Protocol

    def __len__(self) -> int:
        return len(self.pareto_k)

    def __repr__(self) -> str:
        return f"Convergence(N={len(self)}, K={list(self.num_particles)})"

    @property
    def fraction_unreliable(self) -> float:
        """Fraction of the data whose k-hat at K_max is above its threshold, or undefined."""
        return fraction_unreliable(self.pareto_k, self.num_particles[-1])

    @property
    def skewed(self) -> float:
        """Fraction of the data whose Monte-Carlo error at K_max may be too small: K_max < 25 G^2 (Cochran 1977)."""
        return fraction_skewed(self.skewness, self.num_particles[-1], self.pareto_k)

    def table(self) -> dict[str, Tensor]:
        """Means over data by name, (C,) each, in nats per datum.

        ``step`` is the rise since the K before, NaN at first; its error is that of a mean of paired differences.
        """
        step = self.log_evidence.diff(dim=0, prepend=torch.full_like(self.log_evidence[:1], math.nan))
        return {
            "num_particles": torch.tensor(self.num_particles),
            "log_evidence": self.log_evidence.mean(1),
            "data_se": estimators.mean_se(self.log_evidence.T),
            "mc_se": self.mc_se.square().sum(1).sqrt() / len(self),
            "step": step.mean(1),
            "step_se": estimators.mean_se(step.T),
            "jackknife": self.jackknife.mean(1),
        }

    def numbers(self) -> dict[str, Any]:
        """The curve at each number of particles, in nats per datum, and how far its end is to be trusted."""
        curve = {name: column.tolist() for name, column in self.table().items()}
        quality = {"fraction_unreliable": self.fraction_unreliable}
        account = {"unit": "nats per datum", "num_data": len(self), "curve": curve, "pareto_k": quality}
        return account | {"skewed": self.skewed}

    def lines(self) -> list[str | TextTable]:
        last, unreliable = self.num_particles[-1], self.fraction_unreliable
        source = f"{1 - self.defensive:g} guide + {self.defensive:g} prior" if self.defensive else "the guide"
        rows = zip(*(column.tolist() for column in self.table().values()), strict=True)
        return [
            str(self.protocol),
            f"N = {len(self)} data, one nested set of draws from {source}; nats per datum",
            "",
            TextTable(_COLUMNS, list(rows)),
            "",
            f"each row is a mean over all blocks of K that the {last:,} draws are cut into, and MC SE is of that mean",
            f"Pareto k-hat at K = {last} above {estimators.pareto_k_threshold(last):.2f} or undefined: "
            f"{unreliable:.1%} of data",
            *skewed_errors({"log_evidence": self.skewed}, f"K = {last}"),
            *([WHERE_DRAWN] if unreliable <= UNRELIABLE_FRACTION else []),
        ]


_COLUMNS = [
    ("K", ">8", ".0f"),
    ("log p(x)", ">12", ".3f"),
    ("data SE", ">10", ".3f"),
    ("MC SE", ">10", ".4f"),
    ("step", ">10", ".4f"),
    ("step SE", ">10", ".4f"),
    ("jackknife", ">12", ".3f"),
]


@checked
def convergence(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_particles: int = 10_000,
    seed: int = 0,
    batch_size: int | None = None,
    particle_batch: int | None = None,
    plate: str | None = None,
    vectorize: bool = True,
    defensive: float = 0.0,
    progress: bool = True,
) -> Convergence:
    """Evidence at 1, 10, 100, ... and ``num_particles`` draws, for every datum, from one nested set of draws.

    Args:
        model: program of p(x, z), with one plate over the data.
        guide: program of q(z|x), with the same plate.
        data: a :class:`~pyrovae.data.Split`, a tensor (N, ...), or a tuple of tensors passed on as arguments.
        num_particles: K_max.
        seed: of the draws, which are those of :func:`~pyrovae.evaluate` with the same arguments.
        batch_size: data in a block; None finds a number, fewer for more particles.
        particle_batch: particles in a block; None finds a number by itself, as for evaluate.
        plate: name of the data plate, where several plates hold all sites.
        vectorize: False runs one particle of one datum at a time.
        defensive: fraction of the draws that are from the prior, as in :func:`~pyrovae.evaluate`.
        progress: show a bar for what takes over two seconds.

    Returns:
        The :class:`Convergence`; its last row is the evidence that ``evaluate`` gives.

    Raises:
        InputError: as :func:`~pyrovae.evaluate` does.
        FloatingPointError: naming the site, where a log density is NaN or a weight infinite.

    Warns:
        LostDigits: as :func:`~pyrovae.evaluate` does.

    References:
        Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, arXiv:1509.00519.
        Nowozin (2018), Debiasing evidence approximations, arXiv:1806.04542.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> curve = convergence(oracle.model, oracle.guide, x, num_particles=200)
        >>> curve.num_particles
        (1, 10, 100, 200)
        >>> bool((curve.log_evidence - oracle.log_evidence(x)).abs().max() < 1e-10)  # the guide is exact
        True
    """
    plan = Plan(num_particles, seed, batch_size, particle_batch, plate, vectorize, defensive)

    def build(columns: dict[str, Any], run: Evaluation, protocol: Protocol) -> Convergence:
        lost = digits(run.compared, columns["mc_se"][-1])
        if lost is not None and lost.lost:
            warn(LostDigits(lost.said))
        return Convergence(rungs(num_particles), **columns, seed=seed, defensive=defensive, protocol=protocol)

    return measure(model, guide, data, plan, lambda block: in_slices(ladder, block), build, progress=progress)


def rungs(num_particles: int) -> tuple[int, ...]:
    """1, 10, 100, ... below K_max, and K_max itself.

    Example:
        >>> rungs(2500)
        (1, 10, 100, 1000, 2500)
    """
    powers = (10**i for i in range(len(str(num_particles))))
    return tuple(sorted({*powers, num_particles}))


def ladder(log_weight: Tensor, resolution: Tensor) -> dict[str, Tensor]:
    """The columns of a :class:`Convergence` from log weights (K_max, n): (C, n) each, and k-hat (n,)."""
    steps = [_rung(log_weight, num_particles) for num_particles in rungs(len(log_weight))]
    names = ("log_evidence", "mc_se", "jackknife")
    columns = {name: torch.stack(values) for name, values in zip(names, zip(*steps, strict=True), strict=True)}
    skewness = estimators.skewness(estimators.relative_weight(log_weight))
    return columns | {"pareto_k": estimators.pareto_k(log_weight, resolution), "skewness": skewness}


def _rung(log_weight: Tensor, num_particles: int) -> tuple[Tensor, Tensor, Tensor]:
    """Evidence, its error and its jackknife from disjoint blocks of K of the draws: (n,) each."""
    num_blocks, num_data = len(log_weight) // num_particles, log_weight.shape[1]
    blocks = log_weight[: num_blocks * num_particles].unflatten(0, (num_blocks, num_particles)).movedim(0, 1)
    blocks = blocks.flatten(1)  # (K, B n): every block of a datum is a datum of its own to the estimators
    evidence = estimators.log_evidence(blocks).unflatten(0, (num_blocks, num_data))
    jackknife = estimators.log_evidence_jackknife(blocks).unflatten(0, (num_blocks, num_data))
    error = estimators.mean_se(evidence) if num_blocks > 1 else estimators.log_evidence_se(blocks)
    return estimators.mean(evidence), error, estimators.mean(jackknife)
