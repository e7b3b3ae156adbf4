r"""Predictive checks: do data replicated by a pair look like the data that it was given?

For a statistic T, and z ~ p(z) (prior predictive) or z ~ q(z|x) (posterior predictive), x_rep ~ p(x|z):

.. math:: p = P(T(x_{rep}) \ge T(x)), \qquad u = P(x_{rep} < x) + v \, P(x_{rep} = x), \quad v \sim U(0, 1)

Under the prior predictive of a right model x and its replications are exchangeable, so that on data which the model
was not fitted to p-values and the randomised PIT u are uniform, and what is extreme accuses the model alone.
The posterior predictive uses x twice, to draw z and to be compared. With the exact posterior its p-values gather
about 1/2 (they are conservative); with a guide, the guide's error enters as well. An extreme one accuses the pair,
model or guide; an unremarkable one acquits neither.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.base.forms import datatree
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.records import Record, number
from pyrovae.data.protocol import Protocol
from pyrovae.data.split import as_split
from pyrovae.diagnostics.replications import KINDS, Checked, Part, Replicator, check_block
from pyrovae.diagnostics.statistics import Statistic, ks_band, ks_distance, ks_p_value, p_value
from pyrovae.evidence.blocks import Block, Blocks, Pair, block_by_block
from pyrovae.pairs.traces import Program

EXTREME = 0.025  # a p-value this near to 0 or 1 is outside the central 95 %


class Replicated(NamedTuple):
    """A statistic of one kind of replications against that of the data."""

    mean: Tensor  # (N,): mean over the S replications of each datum
    p_value: Tensor  # (N,): mid-p value of each datum
    data_set: Tensor  # (S,): mean over data of each replicated data set
    data_set_p_value: float  # mid-p value of the mean over data

    def to_dict(self) -> dict[str, float | None]:
        """Means over data as plain values; the fraction counts data whose p-value is outside the central 95 %."""
        p = self.p_value[~self.p_value.isnan()]
        return {
            "mean": number(self.data_set.mean()),
            "sd": number(self.data_set.std(correction=0)),
            "p_value": self.data_set_p_value,
            "fraction_extreme": number(((p - 0.5).abs() > 0.5 - EXTREME).double().mean()),
        }


class Comparison(NamedTuple):
    """A statistic of the data against that of both kinds of replications."""

    observed: Tensor  # (N,)
    prior: Replicated
    posterior: Replicated


@dataclass(frozen=True, eq=False, repr=False)
class PredictiveCheck(Record):
    """What S replications of each kind say of N data; tensors are float64, on the CPU, NaN where data are masked.

    ``pit`` is under the prior predictive. Its columns are those of one datum, so they depend on each other while
    its rows do not: each coordinate has its own Kolmogorov-Smirnov distance over its rows, and the smallest
    p-value is multiplied by the number of coordinates (Bonferroni).
    """

    site: str
    statistics: dict[str, Comparison]
    pit: Tensor  # (N, *event): uniform for a right model
    ks: Tensor  # (*event): its distance from uniformity
    ks_p_value: Tensor  # (*event)
    num_draws: int
    seed: int
    protocol: Protocol

    def __len__(self) -> int:
        return len(self.pit)

    def __repr__(self) -> str:
        p = ", ".join(f"{name} p {one.prior.data_set_p_value:.3f}" for name, one in self.statistics.items())
        return f"PredictiveCheck(N={len(self)}, S={self.num_draws}, prior predictive: {p})"

    def table(self) -> dict[str, Tensor]:
        """The per-datum columns by name, (N,) each: every statistic and its two p-values."""
        columns: dict[str, Tensor] = {}
        for name, one in self.statistics.items():
            columns |= {name: one.observed} | {f"{name}_p_{kind}": getattr(one, kind).p_value for kind in KINDS}
        return columns

    def groups(self) -> datatree.Groups:
        """Statistics of whole data sets, replicated and observed; and those of each datum, with their p-values."""

        def replicated(kind: str) -> dict[str, datatree.Variable]:
            of_data_sets = {name: getattr(one, kind).data_set for name, one in self.statistics.items()}
            return datatree.draws(datatree.one_chain(of_data_sets))

        means = {name: one.observed.nanmean() for name, one in self.statistics.items()}
        return {
            "posterior_predictive": replicated("posterior"),
            "prior_predictive": replicated("prior"),
            "observed_data": datatree.data(means),
            "constant_data": {**super().groups()["constant_data"], **datatree.data({"pit": self.pit}, "datum")},
        }

    def numbers(self) -> dict[str, Any]:
        """Means over data, and the PIT's distance from uniformity."""
        statistics = {
            name: {"observed": one.observed.nanmean().item()} | {kind: getattr(one, kind).to_dict() for kind in KINDS}
            for name, one in self.statistics.items()
        }
        return {"num_data": len(self), "statistics": statistics, "pit": self._pit()}

    def _pit(self) -> dict[str, float | None]:
        p = self.ks_p_value[~self.ks_p_value.isnan()]
        u = self.pit[~self.pit.isnan()]
        return {
            "num_coordinates": len(p),
            "ks": number(self.ks[~self.ks.isnan()].max()),
            "band": ks_band(len(self)),
            "p_value": number((p.min() * len(p)).clamp_max(1)),
            "fraction_beyond": number((p < 0.05).double().mean()),
            "mean": number(u.mean()),
            "sd": number(u.std(correction=0)),
        }

    def lines(self) -> list[str | TextTable]:
        account = self.numbers()
        return [
            str(self.protocol),
            f"site '{self.site}': S = {self.num_draws} replications of each kind of N = {len(self)} data",
            "p = P(T(x_rep) >= T(x)); *: outside the central 95 %, and the fraction of data that are so by themselves",
            "",
            TextTable(_COLUMNS, [row for name, one in account["statistics"].items() for row in _rows(name, one)]),
            "",
            *_pit_lines(account["pit"]),
            "",
            "prior: p and PIT are uniform for a right model on data it was not fitted to; extremes accuse the model",
            "posterior: x is used twice and the guide's error enters; extremes accuse model or guide, the rest acquit "
            "neither",
        ]


@checked
def predictive_check(
    model: Program,
    guide: Program,
    data: Any,
    *,
    statistics: Mapping[str, Statistic] | None = None,
    num_draws: int = 200,
    site: str | None = None,
    seed: int = 0,
    batch_size: int = 100,
    plate: str | None = None,
    progress: bool = True,
) -> PredictiveCheck:
    r"""Compares data with replications from the prior and from the posterior predictive of a pair.

    Every datum has its own S replications of each kind, made with its own labels or covariates: rows stay
    independent, and the randomised PIT is the rank of an observed value among its S replications, which for a right
    model is exactly uniform for every S and every likelihood. (An average of S conditional distribution functions is
    not: where data share these draws, their common error passes for misfit.)

    Args:
        model: program of p(x, z), with one plate over the data.
        guide: program of q(z|x), with the same plate; the prior predictive does not use it.
        data: a :class:`~pyrovae.data.Split`, a tensor (N, ...), or a tuple of tensors passed on as arguments.
            Held-out data: parameters that were fitted to the same rows make every p-value conservative.
        statistics: name -> function (N, \*event) -> (N,), each row by itself, of float64 values that are NaN where
            masked. None compares the mean of each datum and, by the support, its standard deviation, share of
            zeros, least and greatest value (:func:`~pyrovae.diagnostics.statistics.default_statistics`).
        num_draws: S; the least p-value is 1 / (2 S + 2).
        site: the observed site, where there are several.
        seed: of the draws; the noise is keyed by (seed, data block).
        batch_size: data in a block.
        plate: name of the data plate, where several plates hold all sites.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        The :class:`PredictiveCheck`. Classes count as the whole numbers that label them. A likelihood that reads
        the observed x (an autoregressive decoder) is replicated one step ahead, not as a whole.

    Raises:
        InputError: naming the site or the statistic, for a pair without per-datum weights, a model with a factor,
            data outside the support or all masked, a statistic of another shape or not finite, and sizes below 1.
        FloatingPointError: naming the site, where the model draws what is not finite.

    References:
        Box (1980), Sampling and Bayes' inference in scientific modelling and robustness, doi:10.2307/2982063.
        Meng (1994), Posterior predictive p-values, doi:10.1214/aos/1176325622.
        Gelman, Meng and Stern (1996), Posterior predictive assessment of model fitness, Statistica Sinica 6, 733-807.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> check = predictive_check(oracle.model, oracle.guide, oracle.draw(50, seed=0)[0])
        >>> list(check.statistics), check.pit.shape
        (['mean', 'sd', 'min', 'max'], torch.Size([50, 5]))
    """
    split = as_split(data).drawn(seed)
    check_at_least_one(batch_size=batch_size, num_draws=num_draws)

    def begin(pair: Pair) -> Callable[[Block], Checked]:
        source = split.to(pair.device)
        return lambda block: check_block(
            Replicator(pair.particles(source.batch(block.rows)), site=site), block, statistics, num_draws, seed
        )

    def record(done: Sequence[Checked], pair: Pair) -> PredictiveCheck:
        pit = torch.cat([block.pit for block in done]).cpu()
        if pit.isnan().all():
            raise InputError(
                f"site '{done[0].site}': every value is masked, so there is nothing to check; look at the mask"
            )
        ks = ks_distance(pit)
        return PredictiveCheck(
            site=done[0].site,
            statistics={name: _comparison(name, done) for name in done[0].observed},
            pit=pit,
            ks=ks,
            ks_p_value=ks_p_value(ks, (~pit.isnan()).sum(0)),
            num_draws=num_draws,
            seed=seed,
            protocol=split[: len(pit)].protocol,
        )

    memory = "replications of {num_data} data: lower batch_size"
    blocks = Blocks(len(split), batch_size, ("checks", seed), memory)
    return block_by_block(model, guide, blocks, begin, record, plate=plate, progress=progress)


def _comparison(name: str, blocks: Sequence[Checked]) -> Comparison:
    observed = torch.cat([block.observed[name] for block in blocks]).cpu()
    return Comparison(observed, *(_joined([block.parts[kind][name] for block in blocks], observed) for kind in KINDS))


def _joined(parts: Sequence[Part], observed: Tensor) -> Replicated:
    data_set = torch.stack([part.total for part in parts]).sum(0).cpu() / (~observed.isnan()).sum()
    return Replicated(
        mean=torch.cat([part.mean for part in parts]).cpu(),
        p_value=torch.cat([part.p_value for part in parts]).cpu(),
        data_set=data_set,
        data_set_p_value=p_value(data_set, observed.nanmean()).item(),
    )


# -------------------------------------------------------------------------------------------------- as text


_COLUMNS = [
    ("mean over data of", "<29", ""),
    ("observed", ">12", ".4g"),
    ("replicated", ">12", ".4g"),
    ("sd", ">10", ".2g"),
    ("p", ">9", ""),
    ("data *", ">9", ".1%"),
]


def _rows(name: str, account: dict[str, Any]) -> list[tuple[Any, ...]]:
    rows = []
    for kind, title, observed in zip(KINDS, (name, ""), (account["observed"], ""), strict=True):
        mean, sd, p, fraction_extreme = account[kind].values()
        mark = "*" if abs(p - 0.5) > 0.5 - EXTREME else " "
        rows.append((f"{title:19}{kind}", observed, mean, sd, f"{p:.3f}{mark}", fraction_extreme))
    return rows


def _pit_lines(pit: dict[str, Any]) -> list[str]:
    return [
        f"PIT of {pit['num_coordinates']} coordinates under the prior predictive, each against uniform:",
        f"  largest KS distance {pit['ks']:.3f} (one coordinate stays below {pit['band']:.3f} in 95 %), "
        f"p = {pit['p_value']:.2g} after Bonferroni",
        f"  beyond its own 95 % band: {pit['fraction_beyond']:.1%} of coordinates",
        f"  all together: mean {pit['mean']:.3f} (0.5), sd {pit['sd']:.3f} (0.289; more: the model is too narrow, "
        "less: too wide)",
    ]
