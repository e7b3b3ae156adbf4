r"""A pair as a classifier: the class by the guide, q(y | x), and by the model, p(y | x), with every class tried.

.. math:: p(y \mid x) = \frac{p(x, y)}{\sum_{y'} p(x, y')}, \qquad
    p(x, y) \approx \frac{1}{K} \sum_k \frac{p(x, y, z_k)}{q(z_k \mid x, y)}, \qquad z_k \sim q(z \mid x, y)

log p(x) is the sum over all classes, exact in y. A classifier is calibrated where of the data to which it gives its
class the probability p a fraction p is of that class; the expected calibration error is the mean distance, over bins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.base.forms.tables import TextTable, text
from pyrovae.base.records import Record, mean_and_se, number
from pyrovae.data.protocol import Protocol
from pyrovae.data.split import Split, as_split
from pyrovae.evidence import estimators
from pyrovae.evidence.blocks import Block, Blocks, Pair, block_by_block
from pyrovae.pairs.discrete.runs import AtEveryValue, Table
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.terms import read_terms, sum_by_role
from pyrovae.pairs.traces import Program, TracePair

UNKNOWN = -1


class Reliability(NamedTuple):
    """Data by the probability that was given to the class chosen, (B,) each; NaN where there are none."""

    num_data: Tensor
    confidence: Tensor  # mean probability of the class chosen
    right: Tensor  # fraction of data of that class


@dataclass(frozen=True, eq=False, repr=False)
class Classification(Record):
    """What a pair says of the classes of N data; tensors are float64, on the CPU."""

    site: str
    labels: Tensor  # (N,): the truth
    guide: Tensor  # (N, C): q(y | x)
    model: Tensor  # (N, C): p(y | x)
    log_evidence: Tensor  # (N,): log p(x), summed over classes, nats
    mc_se_log_evidence: Tensor  # (N,)
    num_particles: int
    num_bins: int
    seed: int
    protocol: Protocol

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        errors = ", ".join(f"{name} {self.wrong(name).mean():.2%}" for name in CLASSIFIERS)
        return f"Classification(N={len(self)}, C={self.guide.shape[1]}, wrong: {errors})"

    def wrong(self, by: str) -> Tensor:
        """Where the most probable class is not the label's, by "guide" or "model": (N,), 0 or 1."""
        return (getattr(self, by).argmax(1) != self.labels).double()

    def of_truth(self, by: str) -> Tensor:
        """The probability of the label, (N,)."""
        return getattr(self, by).gather(1, self.labels.long()[:, None])[:, 0]

    def reliability(self, by: str) -> Reliability:
        """How often it is right, in bins of equal width of the probability that it gives the class chosen."""
        confidence, right = getattr(self, by).amax(1), 1 - self.wrong(by)
        places = (confidence * self.num_bins).ceil().long().sub(1).clamp(0, self.num_bins - 1)
        zeros = torch.zeros(self.num_bins, dtype=torch.float64)
        count, *sums = (zeros.index_add(0, places, one) for one in (torch.ones_like(right), confidence, right))
        return Reliability(count, *(one / count for one in sums))

    def calibration_error(self, by: str) -> float:
        """The expected calibration error; few data in a bin make it too large."""
        count, confidence, right = self.reliability(by)
        return float((count * (confidence - right).abs()).nansum() / count.sum())

    def table(self) -> dict[str, Tensor]:
        """The per-datum columns by name, (N,) each."""
        columns = {"labels": self.labels}
        for by in CLASSIFIERS:
            probs = getattr(self, by)
            columns |= {f"{by}_class": probs.argmax(1).double(), f"{by}_confidence": probs.amax(1)}
            columns |= {f"{by}_of_truth": self.of_truth(by)}
        return columns | {"log_evidence": self.log_evidence, "mc_se_log_evidence": self.mc_se_log_evidence}

    def numbers(self) -> dict[str, Any]:
        """Error, log loss, Brier score and calibration of both classifiers, and log p(x)."""
        return {
            "num_data": len(self),
            **{by: self._account(by) for by in CLASSIFIERS},
            "log_evidence": mean_and_se(self.log_evidence, self.mc_se_log_evidence),
        }

    def _account(self, by: str) -> dict[str, Any]:
        probs, reliability = getattr(self, by), self.reliability(by)
        truth = torch.nn.functional.one_hot(self.labels.long(), probs.shape[1])
        return {
            "error": mean_and_se(self.wrong(by)),
            "log_loss": mean_and_se(-self.of_truth(by).clamp_min(torch.finfo(torch.float32).tiny).log()),
            "brier": mean_and_se((probs - truth).square().sum(1)),
            "confidence": number(probs.amax(1).mean()),
            "calibration_error": self.calibration_error(by),
            "reliability": {
                name: list(map(number, column)) for name, column in zip(Reliability._fields, reliability, strict=True)
            },
        }

    def lines(self) -> list[str | TextTable]:
        account = self.numbers()
        evidence = account["log_evidence"]
        return [
            str(self.protocol),
            f"site '{self.site}': {self.guide.shape[1]} classes, N = {len(self)} data; K = {self.num_particles} draws "
            "of all else for each class",
            "",
            TextTable(_COLUMNS, [_row(CLASSIFIERS[by], account[by]) for by in CLASSIFIERS]),
            "",
            f"data by the probability of the class chosen, in {self.num_bins} bins of equal width",
            TextTable(_BINS, [row for by in CLASSIFIERS for row in _bins(CLASSIFIERS[by], self.reliability(by))]),
            "",
            f"log p(x), summed over classes: {evidence['mean']:.3f} nats per datum "
            f"(MC SE {text(evidence['mc_se'], '.4f')}); evaluate says how far it is to be trusted",
        ]


CLASSIFIERS = {"guide": "guide, q(y|x)", "model": "model, p(y|x)"}
_COLUMNS = [
    ("", "<16", ""),
    ("wrong", ">9", ".2%"),
    ("SE", ">8", ".2%"),
    ("-log q(truth)", ">15", ".3f"),
    ("SE", ">8", ".3f"),
    ("Brier", ">8", ".3f"),
    ("confidence", ">12", ".1%"),
    ("calibration error", ">19", ".2%"),
]
_BINS = [("", "<16", ""), ("data", ">8", ".0f"), ("confidence", ">12", ".1%"), ("right", ">9", ".1%")]


def _row(title: str, account: dict[str, Any]) -> tuple[Any, ...]:
    error, loss = account["error"], account["log_loss"]
    of_all = account["brier"]["mean"], account["confidence"], account["calibration_error"]
    return title, error["mean"], error["data_se"], loss["mean"], loss["data_se"], *of_all


def _bins(title: str, found: Reliability) -> list[tuple[Any, ...]]:
    rows = [row for row in zip(*(column.tolist() for column in found), strict=True) if row[0]]
    return [(title if i == 0 else "", *row) for i, row in enumerate(rows)]


@checked
def classification(
    model: Program,
    guide: Program,
    data: Any,
    labels: Tensor | None = None,
    *,
    site: str = "y",
    num_particles: int = 100,
    num_bins: int = 10,
    seed: int = 0,
    batch_size: int = 100,
    plate: str | None = None,
    progress: bool = True,
) -> Classification:
    """How well a pair with a latent class tells classes, by its guide and by its model, and log p(x).

    Args:
        model: program of p(x, y, z), with one plate over the data.
        guide: program of q(y, z | x), with the same plate.
        data: a Split with labels or a tuple of tensors, the last of them the labels (N,): the programs are given -1,
            unknown, in their place. Or, with ``labels``, the data as the programs take them.
        labels: the truth, (N,) class numbers, of programs that take no labels.
        site: the latent that is the class.
        num_particles: K, draws of all other latents for each class and datum.
        num_bins: of the reliability table.
        seed: of the draws.
        batch_size: data in a block.
        plate: name of the data plate, where several plates hold all sites.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        The :class:`Classification`.

    Raises:
        InputError: naming the site, where it is no discrete latent; for labels that are unknown or no class.

    References:
        Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks, arXiv:1706.04599.
        Kingma, Mohamed, Rezende and Welling (2014), Semi-supervised learning with deep generative models,
        arXiv:1406.5298.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.bernoulli_mixture(6, 3)
        >>> x, z = oracle.draw(200, seed=0)
        >>> found = classification(oracle.model, oracle.guide, x, z.long(), site="k")
        >>> bool((found.guide - found.model).abs().max() < 1e-10)  # the guide is exact
        True
    """
    check_at_least_one(num_particles=num_particles, num_bins=num_bins, batch_size=batch_size)
    given = as_split(data).drawn(seed)
    split, truth = _apart(given, labels)

    def begin(pair: Pair) -> Callable[[Block], _Found]:
        source = split.to(pair.device)
        return lambda block: _of_block(pair.particles(source.batch(block.rows)), site, num_particles, block)

    def record(done: Sequence[_Found], pair: Pair) -> Classification:
        joined = _Found(*(torch.cat(parts).cpu() for parts in zip(*done, strict=True)))
        known = truth[: len(joined.guide)]
        if int(known.max()) >= joined.guide.shape[1]:
            raise InputError(
                f"labels are the classes 0..{joined.guide.shape[1] - 1} of '{site}', got {int(known.max())}"
            )
        return Classification(
            site=site,
            labels=known.double(),
            **joined._asdict(),
            num_particles=num_particles,
            num_bins=num_bins,
            seed=seed,
            protocol=given[: len(known)].protocol,
        )

    blocks = Blocks(len(split), batch_size, ("classes", seed), "all classes of {num_data} data: lower batch_size")
    return block_by_block(model, guide, blocks, begin, record, plate=plate, progress=progress)


class _Found(NamedTuple):
    guide: Tensor
    model: Tensor
    log_evidence: Tensor
    mc_se_log_evidence: Tensor


def _apart(split: Split, labels: Tensor | None) -> tuple[Split, Tensor]:
    """Data as the programs take them, their labels unknown, and the labels."""
    if labels is None:
        *others, labels = split.tensors
        if not others or labels.dim() != 1 or labels.is_floating_point():
            raise InputError("the last tensor of the data is the labels, (N,) whole numbers; or give labels=")
        split = as_split((*others, torch.full_like(labels, UNKNOWN)))
    labels = torch.as_tensor(labels).cpu()
    if labels.shape != (len(split),) or labels.min() < 0:
        raise InputError(f"expected the class of each of {len(split)} data, from 0, got {tuple(labels.shape)} labels")
    return split, labels


def _of_block(particles: Particles, site: str, num_particles: int, block: Block) -> _Found:
    at = AtEveryValue(particles, num_particles)
    if site not in at.discrete or at.discrete[site][0].numel() != 1:
        raise InputError(f"site '{site}' is no class of a datum; discrete latents: {', '.join(at.discrete) or 'none'}")
    runs = [run.score() for run in at.runs(particles)]
    mass = at.tables(particles, runs, at.log_mass).exp().mean(1)  # (M, N)
    log_weight = at.tables(particles, runs, lambda run, table: _log_weight(at, run, table)).movedim(1, 0)
    log_joint, se = estimators.log_evidence(log_weight.flatten(1)), estimators.log_evidence_se(log_weight.flatten(1))
    log_joint, se = (one.view_as(mass) for one in (log_joint, se.nan_to_num()))
    by_class = [at.discrete[site].flatten() == value for value in at.discrete[site].unique()]
    block.tick(block.num_data)
    return _Found(
        torch.stack([mass[rows].sum(0) for rows in by_class], 1),
        torch.stack([log_joint[rows].logsumexp(0) for rows in by_class], 1).softmax(1),
        log_joint.logsumexp(0),
        (log_joint.softmax(0) * se).square().sum(0).sqrt(),
    )


def _log_weight(at: AtEveryValue, run: TracePair, table: Table) -> Tensor:
    """log p(x, y, z) - log q(z | x, y)."""
    return sum_by_role(read_terms(run, table)).log_weight + at.log_mass(run, table)
