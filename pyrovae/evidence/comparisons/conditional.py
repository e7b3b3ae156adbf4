r"""log_density(): the density of some entries of each datum given others, as a difference of two evidences.

.. math:: \log p(x_a \mid x_b) = \log p(x_a, x_b) - \log p(x_b)

Each is routed by itself and has its own k-hat; the errors of both add up, as their draws are independent.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError
from pyrovae.base.forms.tables import TextTable, quantities
from pyrovae.base.records import Record, mean_and_se
from pyrovae.data.missing.masks import as_mask
from pyrovae.data.split import Split, as_split
from pyrovae.evidence import estimators
from pyrovae.evidence.comparisons.hidden import check_data_alone, hidden
from pyrovae.evidence.evaluate import routed
from pyrovae.evidence.ladder.climbed import ROUTES
from pyrovae.evidence.plan import Plan
from pyrovae.evidence.reliability import ERRORS_GIVEN_FIT
from pyrovae.evidence.report import Report
from pyrovae.pairs.traces import Program


@dataclass(frozen=True, eq=False, repr=False)
class ConditionalDensity(Record):
    """log p(x_a | x_b) of each of N data, in nats, and the two evidences that it is the difference of."""

    joint: Report  # log p(x_a, x_b)
    given: Report | None  # log p(x_b); None where nothing is given: it is 0
    num_entries: Tensor  # (N,) float64: of x_a

    categories: ClassVar = {"route_joint": ROUTES, "route_given": ROUTES}

    def __repr__(self) -> str:
        return f"ConditionalDensity(N={len(self.num_entries)}, {self.log_density.mean().item():.3f} nats per datum)"

    def __len__(self) -> int:
        return len(self.num_entries)

    @property
    def log_density(self) -> Tensor:
        """log p(x_a | x_b), (N,); exactly 0 where a datum has no entry in a."""
        given = 0.0 if self.given is None else self.given.log_evidence
        return torch.where(self.num_entries == 0, 0.0, self.joint.log_evidence - given)

    @property
    def mc_se_log_density(self) -> Tensor:
        """Its Monte-Carlo standard error, (N,)."""
        return torch.where(self.num_entries == 0, 0.0, self._error[0])

    @property
    def _error(self) -> tuple[Tensor, Tensor]:
        both = [(one.mc_se_log_evidence, one.skewness_log_evidence) for one in self._reports]
        return both[0] if len(both) == 1 else estimators.difference_of_independent(*both)

    @property
    def _reports(self) -> list[Report]:
        return [self.joint] if self.given is None else [self.joint, self.given]

    @property
    def unreliable(self) -> Tensor:
        """Whether nothing vouches for one of the two evidences, (N,)."""
        found = torch.stack([report.unreliable for report in self._reports]).any(0)
        return found & (self.num_entries > 0)

    @property
    def fraction_unreliable(self) -> float:
        """Fraction of the data for which nothing vouches."""
        return self.unreliable.double().mean().item()

    def table(self) -> dict[str, Tensor]:
        columns = {
            "log_density": self.log_density,
            "mc_se_log_density": self.mc_se_log_density,
            "num_entries": self.num_entries,
            "unreliable": self.unreliable.double(),
        }
        for name, report in zip(("joint", "given"), self._reports, strict=False):
            kept = {f"{key}_{name}": report.columns[key] for key in ("log_evidence", "pareto_k", "ess", "route")}
            columns |= kept
        return columns

    def numbers(self) -> dict[str, Any]:
        """Means over data with their errors, in nats per datum and per entry; and how reliable they are."""
        total = float(self.num_entries.sum())
        per_entry = float(self.log_density.sum()) / total if total else None
        error = float(self.mc_se_log_density.square().sum().sqrt()) / total if total else None
        return {
            "unit": "nats per datum",
            "num_data": len(self),
            "log_density": mean_and_se(self.log_density, self.mc_se_log_density),
            "nats_per_entry": {"mean": per_entry, "mc_se": error, "num_entries": int(total)},
            "fraction_unreliable": self.fraction_unreliable,
            "routes": {name: one.routes() for name, one in zip(("joint", "given"), self._reports, strict=False)},
        }

    def lines(self) -> list[str | TextTable]:
        account = self.numbers()
        rows: list[Any] = [("log p(x_a | x_b)", account["log_density"], "")]
        names = ("  = log p(x_a, x_b)", "  - log p(x_b)")
        for name, one in zip(names, self._reports, strict=False):
            rows.append((name, mean_and_se(one.log_evidence, one.mc_se_log_evidence), ""))
        entries = account["nats_per_entry"]
        lines: list[str | TextTable] = [quantities(22, rows), ""]
        if entries["num_entries"]:
            each = f"{entries['mean']:.4f} nats, MC SE {entries['mc_se']:.4f}"
            lines.append(f"per entry of {entries['num_entries']:,}: {each}")
        told = [
            f"{name}: " + ", ".join(f"{route} {of['num_data']:,}" for route, of in routes.items() if of["num_data"])
            for name, routes in account["routes"].items()
        ]
        lines += [f"routes of data, {'; '.join(told)}"]
        lines += [f"unreliable (k-hat of either): {account['fraction_unreliable']:.1%} of {len(self)} data"]
        return [*lines, ERRORS_GIVEN_FIT]


@checked
def log_density(
    model: Program,
    guide: Program,
    data: Any,
    *,
    of: Any,
    given: Any = None,
    num_particles: int = 1000,
    method: str = "auto",
    budget: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    plate: str | None = None,
    progress: bool = True,
) -> ConditionalDensity:
    """log p(x_a | x_b) of each datum, for any two sets of entries of the first tensor of the data.

    Sums and differences of it are the information that blocks of columns hold of each other: the mean over data of
    log p(x_a | x_b) - log p(x_a) estimates the mutual information of a and b under the model, where data are its draws;
    ``pyrovae.information`` makes these draws.

    Args:
        model: program of p(x, z), with one plate over the data.
        guide: program of q(z|x); where it does not read missing entries (NaN), it is given a guess of them.
        data: a :class:`~pyrovae.data.Split`, a tensor (N, ...), or a tuple of tensors passed on as arguments. NaN is
            neither in a nor in b.
        of: a, booleans (N, *shape) or (*shape).
        given: b, likewise; None is the empty set. What is in both is given.
        num_particles: K, draws for each datum and each of the two evidences.
        method: how the evidence of a datum is found, see :func:`~pyrovae.evaluate`.
        budget: decoder passes for each datum and evidence at most.
        seed: of the draws.
        batch_size: data in a block.
        plate: name of the data plate, where several plates hold all sites.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        The :class:`ConditionalDensity`.

    Raises:
        InputError: for masks of another shape; naming the site, for a pair without per-datum weights, and where a part
            of an event is asked for whose family has no density of a part; for a model of what is missing
            (:func:`~pyrovae.with_missingness`), to which another mask is other data.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(4, 1)
        >>> x, _ = oracle.draw(5, seed=0)
        >>> first = torch.tensor([True, True, False, False])
        >>> later = log_density(oracle.model, oracle.guide, x, of=first, given=~first)
        >>> earlier = log_density(oracle.model, oracle.guide, x, of=~first)
        >>> bool((later.log_density + earlier.log_density - oracle.log_evidence(x)).abs().max() < 0.02)
        True
    """
    plan = Plan(num_particles, seed, batch_size, plate=plate, compile=False, method=method, budget=budget)
    split = as_split(data)
    shape = split.columns[0].shape
    a = as_mask(of, shape, "of")
    b = torch.zeros_like(a) if given is None else as_mask(given, shape, "given")
    known = ~split.drawn(seed).tensors[0].isnan().cpu()
    num_entries = (a & ~b & known).flatten(1).sum(1).double()
    if not bool(num_entries.any()):
        raise InputError("of= names no entry that is known and not given: there is no density to be told")
    return density_of(model, guide, split, a | b, b if bool((b & known).any()) else None, num_entries, plan, progress)


def density_of(
    model: Program,
    guide: Program,
    split: Split,
    joint: Tensor | None,
    given: Tensor | Report | None,
    num_entries: Tensor,
    plan: Plan,
    progress: bool,
) -> ConditionalDensity:
    """The difference of the evidences of two sets of entries, of which the second may be known; draws are apart.

    Raises:
        InputError: if the model is one of what is missing too, so that what is hidden would count as missing.
    """
    check_data_alone(model, split)

    def evidence(mask: Tensor | None, how: Plan) -> Report:
        pair = hidden(model, guide, split, mask, how)
        report, _ = routed(pair.model, pair.guide, pair.split, replace(how, starts=pair.starts), progress=progress)
        return report

    known = given if given is None or isinstance(given, Report) else evidence(given, plan)
    return ConditionalDensity(evidence(joint, plan.apart()), known, num_entries)
