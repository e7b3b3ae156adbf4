"""Continuity and completeness as numbers: what fits decode from gaps between codes, lines, walks and the prior.

A code is continuous where near codes decode to like data, and complete where every code that the prior draws decodes to
something real. Fits of the same networks, an autoencoder's and a VAE's, are held against the same judges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, check_at_least_one
from pyrovae.base.forms.tables import TextTable
from pyrovae.base.random import stream
from pyrovae.base.records import Record, number
from pyrovae.data.protocol import Protocol
from pyrovae.data.split import Split, as_split
from pyrovae.diagnostics.codes.geometry import Attribute, arc, direction, gaps, ink, line
from pyrovae.diagnostics.codes.realism import Judges, Scores, mean_and_error
from pyrovae.pairs.traces import Program
from pyrovae.posteriors.draws import decode, reconstruct, sample
from pyrovae.posteriors.means import as_latents, as_vectors, posterior_means

PARTS = {  # what is decoded, in words
    "reconstruction": "codes of test data",
    "gaps": "midpoints of two codes, the farthest from any code",
    "linear": "straight lines between two classes, their ends apart",
    "spherical": "arcs between two classes, their ends apart",
    "walk": "codes moved along the attribute",
    "prior": "draws of the prior",
}
SHOWN = 8  # rows of images that are kept
REACH = 2.0  # standard deviations of the attribute, to both sides, that a walk goes


@dataclass(frozen=True, eq=False, repr=False)
class Continuity(Record):
    """What F fits decode, judged alike; tensors are float64, on the CPU.

    Attributes:
        names: of the fits.
        scores: name -> part -> the scores of its images.
        data: the scores of test data as they are.
        images: name -> part -> a few of them, (R, T, *shape); of lines and walks each row is one.
        attribute: name -> of each walk what it asked of the attribute, and what the images show, (M, T, 2).
        squared_error: name -> that of reconstructions per value, of training and of test data, (n,) each.
        weights: of the end of a line, (T,).
        about: what the attribute is.
    """

    names: list[str]
    scores: dict[str, dict[str, Scores]]
    data: Scores
    images: dict[str, dict[str, Tensor]]
    attribute: dict[str, Tensor]
    squared_error: dict[str, dict[str, Tensor]]
    weights: Tensor
    about: str
    seed: int
    protocol: Protocol

    def __repr__(self) -> str:
        return f"Continuity({', '.join(self.names)}; {', '.join(PARTS)})"

    def row_names(self) -> Sequence[str]:
        return ["test data", *(f"{name}: {part}" for name in self.names for part in PARTS)]

    def table(self) -> dict[str, Tensor]:
        """One row for the test data and one for each part of each fit: means and their standard errors."""
        each = [self.data, *(self.scores[name][part] for name in self.names for part in PARTS)]
        rows = [[value for column in scores for value in mean_and_error(column)] for scores in each]
        columns = torch.tensor(rows, dtype=torch.float64).unbind(1)
        names = [f"{error}{column}" for column in Scores._fields for error in ("", "se_")]
        return dict(zip(names, columns, strict=True))

    def slope(self, name: str) -> tuple[float, float]:
        """How far the attribute moves of what a walk asks, 1 where it does as asked: mean and SE over walks."""
        asked, shown = self.attribute[name].unbind(-1)
        away = asked - asked.mean(1, keepdim=True)
        return mean_and_error(((away * shown).sum(1) / away.square().sum(1))[:, None])

    def overfit(self, name: str) -> dict[str, float]:
        """Root mean squared errors of reconstructions, and test less training with the SE of that difference.

        The difference is one of mean squared errors.
        """
        train, test = (self.squared_error[name][part] for part in ("train", "test"))
        se = (train.var() / len(train) + test.var() / len(test)).sqrt()
        ends = {"train": float(train.mean().sqrt()), "test": float(test.mean().sqrt())}
        return ends | {"gap": float(test.mean() - train.mean()), "se_gap": float(se)}

    def numbers(self) -> dict[str, Any]:
        """The table, row by row, and what walks and reconstructions show."""
        rows = {name: {key: number(value) for key, value in row.items()} for name, row in self.named_rows().items()}
        walks = {name: dict(zip(("slope", "se_slope"), self.slope(name), strict=True)) for name in self.names}
        return {"parts": rows, "walks": walks, "overfit": {name: self.overfit(name) for name in self.names}}

    def lines(self) -> list[str | TextTable]:
        width = max(map(len, self.row_names())) + 2
        columns = [("", f"<{width}", ""), ("distance", ">10", ".3g"), ("SE", ">8", ".2g")]
        columns += [("confidence", ">12", ".3f"), ("SE", ">8", ".3f"), ("log p", ">11", ".2f"), ("SE", ">8", ".2f")]
        columns += [("class kept", ">12", ".1%"), ("SE", ">8", ".1%")]
        rows = [(name, *row.values()) for name, row in self.named_rows().items()]
        return [
            str(self.protocol),
            "images that are decoded, by the distance to the nearest training datum, a classifier's confidence and "
            "log p under another model (nats); SE over starts",
            "",
            TextTable(columns, rows),
            "",
            *(self._told(name) for name in self.names),
        ]

    def _told(self, name: str) -> str:
        found, (slope, se) = self.overfit(name), self.slope(name)
        return (
            f"{name}: walks move {self.about} by {slope:.2f} (SE {se:.2f}) of what they ask; reconstructions are off "
            f"by {found['train']:.3g} a value on training data and {found['test']:.3g} on test data, mean squared "
            f"error higher by {found['gap']:.3g} (SE {found['se_gap']:.2g})"
        )


@checked
def continuity(
    fits: Mapping,
    train: Any,
    test: Any,
    *,
    density: Any = None,
    classifier: Any = None,
    attribute: Attribute = ink,
    between: Sequence | None = None,
    num: int = 200,
    num_steps: int = 7,
    seed: int = 0,
) -> Continuity:
    """What fits decode from where no datum has its code, and how real it is.

    Lines go between codes of test data of two classes. A walk moves the code of a test datum along the direction in
    which training codes move with the attribute, all else fixed, from 2 standard deviations of the attribute below
    where it is to 2 above.

    Args:
        fits: name -> anything with a ``model`` and a ``guide``: a :class:`~pyrovae.Fit`, a VAE, an autoencoder.
        train: the Split that they were fitted to, with labels.
        test: another, with labels.
        density: images (n, *shape) -> log p in nats, (n,), of an independent model: ``pv.baseline(...).log_prob``.
        classifier: fitted, with ``predict_proba`` on rows; None fits a forest of 100 trees to the training data.
        attribute: images (n, *shape) -> a number for each, as :func:`~pyrovae.diagnostics.codes.geometry.stroke_width`.
        between: two labels that lines go between; None takes pairs of any two.
        num: M, of each part.
        num_steps: T, on each line and walk, at least 3.
        seed: of all choices and draws.

    Returns:
        The :class:`Continuity`, which ``figures.continuity`` draws.

    Raises:
        InputError: for no fit, data without labels, or a likelihood without a mean.

    References:
        White (2016), Sampling generative networks, arXiv:1609.04468 (arcs, attribute vectors).
        Ghosh, Sajjadi, Vergari, Black and Schölkopf (2020), From variational to deterministic autoencoders, ICLR.
    """
    check_at_least_one(num=num, num_steps=num_steps)
    split, held_out = as_split(train).drawn(seed), as_split(test).drawn(seed)
    if not fits or split.labels is None or held_out.labels is None or num_steps < 3:
        raise InputError("expected fits by name, training and test data that have labels, and three steps or more")
    judges = Judges(split.x.cpu(), split.labels, classifier=classifier, density=density, seed=seed)
    runs = {name: _Run(fit.model, fit.guide, split, held_out, seed) for name, fit in fits.items()}
    chosen = _choices(held_out.labels.cpu(), between, num, seed)
    weights = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    found = {name: _decoded(run, judges, chosen, weights, attribute, seed) for name, run in runs.items()}
    inner = {"linear": slice(1, -1), "spherical": slice(1, -1)}  # ends are reconstructions
    return Continuity(
        names=list(fits),
        scores={
            name: {
                part: judges(each[:, inner.get(part, slice(None))], of_walks=part == "walk")
                for part, each in parts.items()
            }
            for name, (parts, _) in found.items()
        },
        data=judges(held_out.x[chosen[0]][:, None].cpu()),
        images={
            name: {part: each[:SHOWN].double() for part, each in parts.items()} for name, (parts, _) in found.items()
        },
        attribute={name: walked for name, (_, walked) in found.items()},
        squared_error={name: run.squared_errors() for name, run in runs.items()},
        weights=weights,
        about=getattr(attribute, "__name__", "the attribute").replace("_", " "),
        seed=seed,
        protocol=held_out.protocol,
    )


class _Run:
    """A pair with the codes of its training and its test data."""

    def __init__(self, model: Program, guide: Program, train: Split, test: Split, seed: int) -> None:
        self.model, self.guide, self.train, self.test, self.seed = model, guide, train, test, seed
        self.like = posterior_means(model, guide, train, seed)
        self.codes = as_vectors(self.like).double()
        self.test_codes = as_vectors(posterior_means(model, guide, test, seed)).double()

    def decoded(self, z: Tensor) -> Tensor:
        """Means of data at codes, (M, T, D) -> (M, T, *shape)."""
        latents = as_latents(z.flatten(0, 1), self.like)
        return _mean(decode(self.model, self.test[:1], latents, seed=self.seed).means).unflatten(0, z.shape[:2])

    def sampled(self, num: int) -> Tensor:
        """Means of data at draws of the prior, (M, 1, *shape)."""
        drawn = sample(self.model, self.test, num_samples=num, seed=self.seed)
        observed = {name: mean for name, mean in drawn.means.items() if name not in self.like}
        return _mean(observed)[:, None]

    def squared_errors(self) -> dict[str, Tensor]:
        """Of reconstructions per value: (n,) of training and of test data."""
        found = {}
        for part, split in (("train", self.train), ("test", self.test)):
            mean = _mean(reconstruct(self.model, self.guide, split, seed=self.seed).means)
            found[part] = (mean - split.x.cpu()).double().square().flatten(1).mean(1)
        return found


def _mean(means: Mapping[str, Tensor]) -> Tensor:
    if not means:
        raise InputError("the likelihood has no mean to show: continuity judges means of p(x|z)")
    return next(iter(means.values()))


def _choices(labels: Tensor, between: Sequence | None, num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of test data where lines begin and end, (M,) each, of unlike classes."""
    noise = stream("continuity", seed)
    is_start, is_end = ((labels == label) for label in between or (labels, labels))
    if not (is_start.any() and is_end.any()):
        raise InputError(f"between: expected two labels of test data, which are {labels.unique().tolist()}")
    starts = _drawn_rows(is_start.nonzero()[:, 0], num, noise)
    others = [is_end & (labels != label) for label in labels[starts]]
    return starts, torch.cat([_drawn_rows(each.nonzero()[:, 0], 1, noise) for each in others])


def _drawn_rows(rows: Tensor, num: int, noise: torch.Generator) -> Tensor:
    if not len(rows):
        raise InputError("lines go between data of two classes: the test data are of one")
    return rows[torch.randint(len(rows), (num,), generator=noise)]


def _decoded(
    run: _Run, judges: Judges, chosen: tuple[Tensor, Tensor], weights: Tensor, attribute: Attribute, seed: int
) -> tuple[dict[str, Tensor], Tensor]:
    """The images of each part, (M, T, *shape); and of walks what is asked of the attribute and shown, (M, T, 2)."""
    start, end = (run.test_codes[rows] for rows in chosen)
    empty = gaps(run.codes, len(start), stream("gaps", seed))
    values = attribute(run.train.x.cpu()).double()
    moves = REACH * (2 * weights - 1) * values.std()
    codes = {
        "reconstruction": start[:, None],
        "gaps": empty[:, None],
        "linear": line(start, end, weights),
        "spherical": arc(start, end, weights),
        "walk": start[:, None] + moves[:, None] * direction(run.codes, values),
    }
    means = {part: run.decoded(z) for part, z in codes.items()} | {"prior": run.sampled(len(start))}
    images = {part: judges.image(mean) for part, mean in means.items()}
    walk = images["walk"]
    shown = attribute(walk.flatten(0, 1)).double().view(walk.shape[:2])
    return images, torch.stack([moves.expand(shown.shape), shown], -1)
