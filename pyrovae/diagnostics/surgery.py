r"""ELBO surgery: the KL to the prior, averaged over a data set, taken apart; and which latent dimensions are in use.

With the aggregate posterior q(z) = 1/N sum_n q(z|x_n) of the whole data set,

.. math::
    \frac1N \sum_n \mathrm{KL}(q(z \mid x_n) \,\|\, p(z)) = I_q(x; z) + \mathrm{KL}(q(z) \,\|\, p(z)), \qquad
    \mathrm{KL}(q(z) \,\|\, p(z)) = \mathrm{KL}(q(z) \,\|\, \prod_j q(z_j)) + \sum_j \mathrm{KL}(q(z_j) \,\|\, p(z_j))

the second where prior and guide factorise. I_q(x; z), what a code says of whose it is, is at most log N.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, check_at_least_one, whole
from pyrovae.base.forms.tables import TextTable, quantities
from pyrovae.base.random import stream
from pyrovae.base.records import Record
from pyrovae.data.protocol import Protocol
from pyrovae.data.split import as_split
from pyrovae.diagnostics.aggregate_posterior import Aggregate, Aggregation, join_aggregates, mean_variances
from pyrovae.diagnostics.decomposition import COLLAPSED, UNDEFINED, Dimension, Estimate, dimensions, estimates, terms
from pyrovae.diagnostics.factorization import Drawn, join
from pyrovae.diagnostics.priors import better
from pyrovae.evidence.blocks import Block, Blocks, Pair, block_by_block
from pyrovae.evidence.reliability import ERRORS_GIVEN_FIT
from pyrovae.pairs.traces import Program

QUERIES_AT_ONCE = 500  # scored against all data, before the next ones are drawn
MOST_QUERIES = 10_000  # data whose draws are scored, where the caller does not say
SATURATED = 0.95  # fraction of log N from which the mutual information says no more than that it is large
_SHOWN = 20  # dimensions in a summary

_ACCOUNT = (
    ("rate        KL(q(z|x) || p(z))", "kl_prior"),
    ("  = mutual information  I_q(x; z)", "mutual_information"),
    ("  + marginal KL  KL(q(z) || p(z))", "marginal_kl"),
    ("      = total correlation", "total_correlation"),
    ("      + dimension-wise KL", "dimension_wise_kl"),
    ("distortion  -E_q log p(x|z)", "distortion"),
)


@dataclass(frozen=True, eq=False, repr=False)
class Surgery(Record):
    """What the KL of a pair to its prior consists of on N data, in nats per datum.

    ``kl_prior = mutual_information + marginal_kl`` and ``marginal_kl = total_correlation + dimension_wise_kl`` on the
    same draws; the latter two are NaN where ``reason`` says why prior or guide does not factorise.
    """

    kl_prior: Estimate
    mutual_information: Estimate
    marginal_kl: Estimate
    total_correlation: Estimate
    dimension_wise_kl: Estimate
    distortion: Estimate  # -E_q log p(x|z)
    dimensions: tuple[Dimension, ...]
    reason: str | None
    per_datum: dict[str, Tensor]  # the terms above of each query, (M,) each, and its "row"
    num_data: int  # N, which make the aggregate posterior
    num_draws: int  # S, of each of the M queries
    threshold: float  # of the variance of an active dimension's mean
    seed: int
    protocol: Protocol
    prior_gain: Estimate = UNDEFINED  # at least, by a better prior; see ``priors.better``

    def __len__(self) -> int:
        return self.num_data

    def __repr__(self) -> str:
        parts = f"{self.kl_prior.mean:.3f} = {self.mutual_information.mean:.3f} + {self.marginal_kl.mean:.3f}"
        return f"Surgery(N={len(self)}, KL {parts} nats, {self.active_units} of {len(self.dimensions)} active)"

    @property
    def rate(self) -> Estimate:
        """E KL(q(z|x) || p(z)), the nats that the code costs: ``kl_prior``; -ELBO = rate + distortion."""
        return self.kl_prior

    @property
    def num_queries(self) -> int:
        """M, data whose draws were scored."""
        return len(self.per_datum["row"])

    @property
    def log_num_data(self) -> float:
        """log N, the most that the mutual information can be on N data."""
        return math.log(self.num_data)

    @property
    def saturated(self) -> bool:
        """Whether the mutual information is within 5 % of log N: the true one cannot be read from this data set."""
        return self.mutual_information.mean > SATURATED * self.log_num_data

    @property
    def active_units(self) -> int:
        """Dimensions whose mean under q(z|x) varies over the data by more than the threshold (Burda et al. 2016)."""
        return sum(dimension.active for dimension in self.dimensions)

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Names of the dimensions that the code ignores; empty where prior or guide does not factorise."""
        return tuple(dimension.name for dimension in self.dimensions if dimension.collapsed)

    def table(self) -> dict[str, Tensor]:
        """What each query adds to the terms, in nats, and its row among the data: (M,) each."""
        return self.per_datum

    def numbers(self) -> dict[str, Any]:
        """What else the numbers say of the code, in nats per datum."""
        names = ("num_queries", "log_num_data", "saturated", "active_units", "collapsed")
        return {"unit": "nats per datum"} | {name: getattr(self, name) for name in names}

    def lines(self) -> list[str | TextTable]:
        queries = "" if self.num_queries == self.num_data else f", of M = {self.num_queries} of them"
        remarks = {"mutual_information": f"   of at most log N = {self.log_num_data:.3f}"}
        rows = [(label, getattr(self, name)._asdict(), remarks.get(name, "")) for label, name in _ACCOUNT]
        if math.isfinite(self.prior_gain.mean):
            rows.append(("a mixture as prior would buy, at least", self.prior_gain._asdict(), ""))
        return [
            str(self.protocol),
            f"S = {self.num_draws} draws for each of N = {self.num_data} data{queries}; nats per datum",
            "",
            quantities(41, rows),
            "",
            *self._dimension_lines(),
            "",
            *self._verdict(),
        ]

    def _dimension_lines(self) -> list[str | TextTable]:
        """The dimensions by the variance of their means, the largest first."""
        ranked = sorted(self.dimensions, key=lambda d: 0.0 if math.isnan(d.mean_variance) else -d.mean_variance)
        width = max(10, *(len(d.name) for d in ranked[:_SHOWN]))
        columns = [("dimension", f"<{width}", ""), ("KL(q(z_j|x)||p)", ">17", "z.3f"), ("MC SE", ">10", "z.4f")]
        columns += [("KL(q(z_j)||p)", ">15", "z.3f"), ("Var E[z_j|x]", ">14", "z.4f")]
        marks = ["   collapsed" if d.collapsed else "   inactive" * (d.mean_variance <= self.threshold) for d in ranked]
        rows = [
            (d.name, d.kl.mean, d.kl.mc_se, d.marginal_kl.mean, d.mean_variance, mark)
            for d, mark in zip(ranked[:_SHOWN], marks, strict=False)
        ]
        more = [f"and {len(ranked) - _SHOWN} more that vary less"] if len(ranked) > _SHOWN else []
        return [TextTable(columns, rows), *more]

    def _verdict(self) -> list[str]:
        """What the numbers say of collapse, and how far they can be trusted."""
        all_of, without = len(self.dimensions), sum(math.isnan(d.mean_variance) for d in self.dimensions)
        missing = f"; {without} have no mean" if without else ""
        lines = [f"active: {self.active_units} of {all_of} dimensions (Var E[z_j|x] > {self.threshold:g}){missing}"]
        if self.reason:
            lines += [f"KL per dimension, total correlation and collapse are not defined: {self.reason}"]
        else:
            named = f": {', '.join(self.collapsed[:_SHOWN])}" if self.collapsed else ""
            lines += [f"collapsed: {len(self.collapsed)} of {all_of} (KL < {COLLAPSED:g} nat and inactive){named}"]
        if self.saturated:
            lines += [
                "WARNING: the mutual information is within 5% of log N, its ceiling: the true one cannot be read from "
                "this data set, and the marginal KL is too high by as much; take more data"
            ]
        return [*lines, ERRORS_GIVEN_FIT]


@checked
def surgery(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_draws: int = 2,
    num_queries: int | None = None,
    seed: int = 0,
    batch_size: int = 500,
    threshold: float = 0.01,
    plate: str | None = None,
    progress: bool = True,
) -> Surgery:
    """Takes the KL to the prior apart, and tells which latent dimensions a pair uses.

    The S draws z ~ q(z|x_m) of each of M queries are scored by the guide of *all* N data, so that q(z) is exact there
    and every part a mean over draws without bias: log q(z|x_m) - log q(z), log q(z) - log p(z), and so on. Its
    Monte-Carlo error is given the N data (see ``decomposition.estimates``); its data SE is right to first order also
    where q(z) itself depends on the data, as the derivative of these parts in q(z) is what they are means of, up to a
    constant. No error tells how far the mutual information is below that of the population: on N data it is never
    above log N.

    It takes M S N densities of the guide, and 2 M S runs of the model on one datum.

    Args:
        model: program of p(x, z), with one plate over the data.
        guide: program of q(z|x), with the same plate.
        data: a :class:`~pyrovae.data.Split`, a tensor (N, ...), or a tuple of tensors passed on as arguments.
        num_draws: S, draws for each query; at least 2.
        num_queries: M, how many of the data, chosen at random, have their draws scored against all N; None takes all
            up to 10,000.
        seed: of the queries and of the draws.
        batch_size: data whose guide is run at once; it changes nothing but memory and rounding.
        threshold: a dimension is active if the variance of E[z_j|x_n] over data is above it; where that mean is not
            known in closed form, it is taken from 100 further draws for each query, less their noise.
        plate: name of the data plate, where several plates hold all sites.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        The :class:`Surgery`. Nothing else changes: parameter store, random state and train/eval modes are kept.

    Raises:
        InputError: naming the site, for a pair without per-datum weights, a guide without a density or outside the
            support of the prior, a masked latent, a prior that is not the same for all data; for too few data, draws
            or queries.
        FloatingPointError: naming the site, where a log density is NaN or infinite.

    References:
        Hoffman and Johnson (2016), ELBO surgery: yet another way to carve up the variational evidence lower bound,
        NIPS workshop on advances in approximate Bayesian inference.
        Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, arXiv:1509.00519 (active units).
        Chen, Li, Grosse and Duvenaud (2018), Isolating sources of disentanglement in VAEs, arXiv:1802.04942.
        Tomczak and Welling (2018), VAE with a VampPrior, arXiv:1705.07120 (the best prior is the aggregate posterior).
        Alemi et al. (2018), Fixing a broken ELBO, arXiv:1711.00464 (rate and distortion).

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(50, seed=0)
        >>> account = surgery(oracle.model, oracle.mean_field_guide(), x)
        >>> parts = account.mutual_information.mean + account.marginal_kl.mean
        >>> abs(round(parts - account.kl_prior.mean, 10)), account.active_units, account.collapsed
        (0.0, 2, ())
    """
    split = as_split(data).drawn(seed)
    num_queries = min(len(split), MOST_QUERIES) if num_queries is None else num_queries
    check_at_least_one(batch_size=batch_size)
    _check_numbers(len(split), num_draws, num_queries)
    rows = torch.randperm(len(split), generator=stream("surgery", seed), device="cpu")[:num_queries]

    def begin(pair: Pair) -> Callable[[Block], tuple[Drawn, Aggregate]]:
        run = Aggregation(pair, split.to(pair.device), seed=seed)
        return lambda block: _drawn_and_scored(run, block, rows[block.rows].to(pair.device), num_draws, batch_size)

    def record(done: Sequence[tuple[Drawn, Aggregate]], pair: Pair) -> Surgery:
        drawn, aggregate = join([block for block, _ in done]), join_aggregates([block for _, block in done])
        queried = rows[: drawn.log_likelihood.shape[1]].to(pair.device)
        run = Aggregation(pair, split.to(pair.device), seed=seed)
        mean_variance = mean_variances(run, queried, drawn.values, aggregate.means, reruns=drawn.reruns)
        columns = terms(drawn, aggregate)
        if better.on_real_line(pair.latents(run.source.batch(queried[:2]))):
            columns["prior_gain"] = better.gains(drawn, seed=seed).to(columns["kl_prior"])
        return Surgery(
            **_parts(columns, queried, len(split)),
            dimensions=dimensions(drawn, aggregate, mean_variance, num_data=len(split), threshold=threshold),
            reason=drawn.reason,
            num_data=len(split),
            num_draws=num_draws,
            threshold=threshold,
            seed=seed,
            protocol=split.protocol,
        )

    memory = "{num_data} data and what they are told apart from: lower batch_size"
    blocks = Blocks(num_queries, QUERIES_AT_ONCE, ("surgery", seed), memory, num_steps=len(split))
    return block_by_block(model, guide, blocks, begin, record, plate=plate, progress=progress)


def _drawn_and_scored(
    run: Aggregation, block: Block, rows: Tensor, num_draws: int, batch_size: int
) -> tuple[Drawn, Aggregate]:
    drawn = run.draw(rows, num_draws, key=block.index)
    return drawn, run.score(drawn, batch_size=batch_size, tick=block.tick)


def _parts(columns: dict[str, Tensor], queried: Tensor, num_data: int) -> dict[str, Any]:
    """Each part of the account with its errors, and its means over the draws of each query, by the number of its row.

    Args:
        columns: part -> (S, M) nats.
        queried: rows, (M,).
        num_data: N.
    """
    order = queried.argsort()
    per_datum = {"row": queried[order].cpu()} | {name: c.mean(0)[order].cpu() for name, c in columns.items()}
    parts = {name: estimates(column[..., None], num_data)[0] for name, column in columns.items()}
    return {**parts, "per_datum": per_datum}


def _check_numbers(num_data: int, num_draws: int, num_queries: int) -> None:
    if num_data < 2:
        raise InputError(f"surgery needs at least 2 data, got {num_data}: a code of one datum tells nothing apart")
    if whole("num_draws", num_draws) < 2:
        raise InputError(f"num_draws must be at least 2, got {num_draws}: errors come from what draws differ by")
    if not 2 <= whole("num_queries", num_queries) <= num_data:
        raise InputError(f"num_queries must be from 2 to the {num_data} data there are, got {num_queries}")
