r"""The anatomy of the gap between evidence and ELBO: what the guide's family loses, and what its encoder loses.

.. math::
    \log p(x) - L[q] = \underbrace{\log p(x) - L[q^*]}_{\text{approximation gap}}
    + \underbrace{L[q^*] - L[q]}_{\text{amortization gap}}

with q* the best member of the guide's own family for that datum alone (Cremer, Li and Duvenaud 2018). Best members
of richer families beside it say what such a guide would buy, before one is trained.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, UntrustedEvidence, check_at_least_one, warn
from pyrovae.base.forms.tables import TextTable, quantities, text
from pyrovae.base.records import Record, mean_and_se, spread
from pyrovae.data.protocol import Protocol
from pyrovae.data.split import as_split
from pyrovae.evidence import estimators
from pyrovae.evidence.blocks import Block, Blocks, Pair, block_by_block
from pyrovae.evidence.proposals.families import Plan, measure
from pyrovae.evidence.proposals.multiple import Account
from pyrovae.evidence.reliability import (
    UNRELIABLE_FRACTION,
    effective_size,
    evidence_and_errors,
    fraction_skewed,
    fraction_unreliable,
    skewed_errors,
)
from pyrovae.pairs.traces import Program


@dataclass(frozen=True, eq=False, repr=False)
class Gaps(Record):
    """What evidence and ELBO of each of N data have between them, in nats; tensors are (N,), float64, on the CPU.

    ``elbo`` and ``gap`` have the key "guide", for the guide as it is, and one for each family that was fitted, for its
    best member; ``gap = log_evidence - elbo`` on the same draws. An error is NaN for K = 1. ``ess`` and ``pareto_k``
    are those of the weights of all proposals together.
    """

    log_evidence: Tensor
    mc_se_log_evidence: Tensor
    elbo: dict[str, Tensor]
    mc_se_elbo: dict[str, Tensor]
    gap: dict[str, Tensor]
    mc_se_gap: dict[str, Tensor]
    skewness_log_evidence: Tensor  # of the terms of each mean: what its error is worth, see ``skewed``
    skewness_elbo: dict[str, Tensor]
    skewness_gap: dict[str, Tensor]
    ess: Tensor
    pareto_k: Tensor
    num_particles: int  # K, draws of each proposal
    num_steps: int
    num_draws: int
    seed: int
    strategy: str  # how the programs were run: "vectorized", "tiled" or "looped"
    measure: dict[str, str]  # observed site -> "mass" or "density"
    protocol: Protocol

    def __len__(self) -> int:
        return len(self.log_evidence)

    def __repr__(self) -> str:
        return f"Gaps(N={len(self)}, log p(x) - L[q] {self.gap['guide'].mean().item():.3f} nats per datum)"

    @property
    def approximation(self) -> Tensor:
        """log p(x) - L[q*], what the guide's family cannot reach: (N,)."""
        return self.gap[self._own]

    @property
    def mc_se_approximation(self) -> Tensor:
        """Its Monte-Carlo standard error: (N,)."""
        return self.mc_se_gap[self._own]

    @property
    def amortization(self) -> Tensor:
        """L[q*] - L[q], what the encoder loses within the guide's family: (N,)."""
        return self.gain(self._own, over="guide")[0]

    @property
    def mc_se_amortization(self) -> Tensor:
        """Its Monte-Carlo standard error: (N,)."""
        return self.gain(self._own, over="guide")[1]

    def gain(self, name: str, *, over: str) -> tuple[Tensor, Tensor]:
        """L[q_name] - L[q_over] and its Monte-Carlo standard error, (N,) each; the two have independent draws."""
        return self.elbo[name] - self.elbo[over], torch.hypot(self.mc_se_elbo[name], self.mc_se_elbo[over])

    @property
    def _own(self) -> str:
        if "own" not in self.elbo:
            raise InputError("the gap was not split, as 'own' was not among the families; measure it with 'own'")
        return "own"

    @property
    def skewed(self) -> dict[str, float]:
        """Quantity -> fraction of the data whose Monte-Carlo error may be too small: K < 25 G^2 (Cochran 1977)."""
        skewness = self._skewness().items()
        return {name: fraction_skewed(one, self.num_particles, self.pareto_k) for name, one in skewness}

    def _skewness(self) -> dict[str, Tensor]:
        """That of the terms of each mean, by the name of the mean."""
        kinds = {"elbo": self.skewness_elbo, "gap": self.skewness_gap}
        found = {_column(kind, name): one for kind, each in kinds.items() for name, one in each.items()}
        return {"log_evidence": self.skewness_log_evidence, **found}

    def _estimates(self) -> dict[str, tuple[Tensor, Tensor]]:
        """All that was measured in nats: name -> values and their Monte-Carlo standard errors."""
        found = {"log_evidence": (self.log_evidence, self.mc_se_log_evidence)}
        found |= {_column("elbo", name): (self.elbo[name], self.mc_se_elbo[name]) for name in self.elbo}
        found["gap"] = (self.gap["guide"], self.mc_se_gap["guide"])
        if "own" in self.elbo:
            found["approximation"] = (self.approximation, self.mc_se_approximation)
            found["amortization"] = (self.amortization, self.mc_se_amortization)
        over = "own" if "own" in self.elbo else "guide"  # what the gains of richer families are told over
        return found | {_column("gain", name): self.gain(name, over=over) for name in self._richer}

    @property
    def _richer(self) -> list[str]:
        return [name for name in self.elbo if name not in ("guide", "own")]

    def table(self) -> dict[str, Tensor]:
        """The per-datum columns by name, (N,) each; gains of richer families are over the best of the guide's own."""
        estimates = self._estimates()
        values = {name: value for name, (value, _) in estimates.items()}
        errors = {f"mc_se_{name}": se for name, (_, se) in estimates.items()}
        skewness = {f"skewness_{name}": one for name, one in self._skewness().items()}
        return {**values, **errors, **skewness, "ess": self.ess, "pareto_k": self.pareto_k}

    def numbers(self) -> dict[str, Any]:
        """Means over data with their errors, in nats per datum."""
        means = {name: mean_and_se(*estimate) for name, estimate in self._estimates().items()}
        means["log_evidence"] = evidence_and_errors(self.log_evidence, self.mc_se_log_evidence)
        return {
            "unit": "nats per datum",
            "num_data": len(self),
            "families": [name for name in self.elbo if name != "guide"],
            **means,
            "ess": spread(self.ess),
            "pareto_k": {"threshold": self.pareto_k_threshold, "fraction_unreliable": self.fraction_unreliable},
            "skewed": self.skewed,
        }

    @property
    def found_by(self) -> str:
        """By what the evidence was found, and by how many draws."""
        return f"gaps, K = {self.num_particles * len(self.elbo):,}"

    @property
    def pareto_k_threshold(self) -> float:
        """The k-hat above which the draws of all proposals together are not enough for a datum."""
        return estimators.pareto_k_threshold(self.num_particles * len(self.elbo))

    @property
    def fraction_unreliable(self) -> float:
        """Fraction of the data whose evidence nothing vouches for: k-hat above its threshold, or undefined."""
        return fraction_unreliable(self.pareto_k, self.num_particles * len(self.elbo))

    def lines(self) -> list[str | TextTable]:
        account = self.numbers()
        bias = {"log_evidence": f"   bias {text(account['log_evidence']['bias'], '.4f')}"}
        return [
            str(self.protocol),
            f"K = {self.num_particles} draws of each of {len(self.elbo)} proposals for each of N = {len(self)} data, "
            f"each family fitted in {self.num_steps} steps of {self.num_draws} draws; nats per datum",
            "",
            quantities(52, [(label, account[name], bias.get(name, "")) for name, label in self._labels().items()]),
            "",
            *self._reliability(account),
        ]

    def _labels(self) -> dict[str, str]:
        labels = {"log_evidence": "evidence  log p(x)"}
        labels |= {_column("elbo", name): f"  ELBO of the best {name}, datum by datum" for name in self._richer[::-1]}
        if "own" in self.elbo:
            labels["elbo_own"] = "  ELBO of the best of the guide's own family, L[q*]"
        labels |= {"elbo_guide": "  ELBO of the guide, L[q]", "gap": "gap  log p(x) - L[q]"}
        if "own" in self.elbo:
            labels["approximation"] = "  = approximation gap  log p(x) - L[q*]"
            labels["amortization"] = "  + amortization gap  L[q*] - L[q]"
        return labels | {_column("gain", name): f"a {name} would buy, at best" for name in self._richer}

    def _reliability(self, account: dict[str, Any]) -> list[str]:
        threshold, unreliable = account["pareto_k"].values()
        lines = [
            effective_size(str(self.num_particles * len(self.elbo)), account["ess"]),
            f"Pareto k-hat above {text(threshold, '.2f')} or undefined: {unreliable:.1%} of data",
        ]
        if unreliable > 0:
            lines += ["  there evidence, and so the approximation gap, is off by an unknown amount, most often too low"]
        lines += skewed_errors(self.skewed, f"K = {self.num_particles}")
        if "own" in self.elbo:
            lines += ["an optimisation that has not come to its end makes amortization too small: raise num_steps"]
        return lines


def _column(kind: str, family: str) -> str:
    return f"{kind}_{family}".replace(" ", "_")


@checked
def gaps(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_particles: int = 1000,
    num_steps: int = 1000,
    num_draws: int = 8,
    families: Sequence[str] = ("own", "full covariance", "mixture"),
    seed: int = 0,
    batch_size: int = 100,
    plate: str | None = None,
    progress: bool = True,
) -> Gaps:
    """The gap between evidence and ELBO, taken apart datum by datum.

    Each family is fitted to every datum alone (``local.best``); the guide and the best members
    are then the proposals of one multiple importance sampling, with draws that no fit has seen: the evidence is better
    than the guide's alone, and L[q*] is unbiased for the q* that was found. What the optimisation has missed of L[q*]
    counts as approximation gap.

    Args:
        model: program of p(x, z), with one plate over the data; its latents are continuous.
        guide: program of q(z|x), with the same plate.
        data: a :class:`~pyrovae.data.Split`, a tensor (N, ...), or a tuple of tensors passed on as arguments.
        num_particles: K, draws from each proposal for each datum.
        num_steps: of the optimisation of each family.
        num_draws: of z for each datum in a step.
        families: any of "own" (the guide's own, as ``evidence.proposals.guide_family`` fits it), and, in unconstrained
            space, "full covariance" (one Gaussian) and "mixture" (of four Gaussians without covariances).
        seed: of all draws; the noise is keyed by (seed, data block, family or proposal).
        batch_size: data in a block, which are fitted at once.
        plate: name of the data plate, where several plates hold all sites.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        The :class:`Gaps`. Nothing else changes: parameters and their gradients, random state and modes are kept. The
        same on training and on test data tells how each gap generalises. What a refit of the encoder takes of the
        amortization gap is the difference of two: ``gaps`` of the pair, then
        ``fit(model, guide, data, valid=held_out, only="guide", objective=HalfAsleep(), patience=100, epochs=2000)``,
        then ``gaps`` again; the model is the same, and so are log p(x) and L[q*].

    Raises:
        Interrupted: after Ctrl-C, with the record of the blocks that were done as ``partial``.
        InputError: naming the site, for a pair without per-datum weights, discrete, masked or auxiliary latents, a
            guide of another support than the prior's, or one whose own family cannot be freed.
        FloatingPointError: naming site or family, where a density is NaN or a fit runs into it.

    Warns:
        UntrustedEvidence: if k-hat is above its threshold or undefined for more than 5 % of the data.

    References:
        Cremer, Li and Duvenaud (2018), Inference suboptimality in variational autoencoders, arXiv:1801.03558.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> found = gaps(oracle.model, oracle.mean_field_guide(shift=1.0), x, num_steps=200, families=["own"])
        >>> exact = oracle.kl_mean_field(shift=1.0) - oracle.kl_mean_field()  # what its encoder loses
        >>> bool(abs(found.amortization.mean() - exact) < 4 * found.mc_se_amortization.max())
        True
    """
    plan = Plan(num_particles, num_steps, num_draws, tuple(families), seed)
    check_at_least_one(batch_size=batch_size)
    split = as_split(data).drawn(seed)

    def begin(pair: Pair) -> Callable[[Block], Account]:
        source = split.to(pair.device)
        return lambda block: measure(pair.latents(source.batch(block.rows)), plan, block.index, block.tick)

    def record(done: Sequence[Account], pair: Pair) -> Gaps:
        columns = _columns(done, plan.names)
        protocol = split[: len(columns["ess"])].protocol
        return Gaps(**columns, **plan.settings(), strategy=pair.strategy, measure=pair.measure, protocol=protocol)

    memory = "{num_data} data at once: lower batch_size"
    blocks = Blocks(len(split), batch_size, ("gaps", seed), memory, plan.num_ticks)
    found = block_by_block(model, guide, blocks, begin, record, plate=plate, progress=progress)
    if found.fraction_unreliable > UNRELIABLE_FRACTION:
        warn(
            UntrustedEvidence(
                f"the Pareto k-hat of all proposals together is above {found.pareto_k_threshold:.2f} or undefined for "
                f"{found.fraction_unreliable:.0%} of {len(found)} data, so their evidence, and each gap, may be too "
                "small by an unknown amount: raise num_steps and num_particles, or add a richer family"
            )
        )
    return found


def _columns(blocks: Sequence[Account], names: Sequence[str]) -> dict[str, Any]:
    """Columns over all data, on the CPU; of what there is for each proposal, one by name."""
    whole = Account(*(torch.cat(parts, -1).cpu() for parts in zip(*blocks, strict=True)))
    return {
        field: column if column.dim() == 1 else dict(zip(names, column.unbind(), strict=True))
        for field, column in whole._asdict().items()
    }
