r"""information(): what entries that are not known would tell of others, by conditional mutual information.

.. math:: I(x_c ; x_y \mid x_o) = E_{p(x_c, x_y \mid x_o)} \log
    \frac{p(x_c, x_y, x_o) \, p(x_o)}{p(x_c, x_o) \, p(x_y, x_o)}

Draws are those of :func:`~pyrovae.conditional`; each of the four evidences is routed by itself, as every evidence is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.base.arguments import checked
from pyrovae.base.errors import InputError, whole
from pyrovae.base.memory import blocks_of
from pyrovae.base.random import seed_of
from pyrovae.data.missing.masks import as_entries, hide
from pyrovae.data.split import Split, as_split
from pyrovae.evidence.comparisons.hidden import check_data_alone, hidden
from pyrovae.evidence.evaluate import routed
from pyrovae.evidence.plan import Plan
from pyrovae.pairs.traces import Program
from pyrovae.posteriors.missing.completion import Completion
from pyrovae.posteriors.missing.conditional import conditional
from pyrovae.posteriors.missing.questions import Information, ranking

AT_ONCE = 20_000  # evidences that are held together
FEW = 3  # entries that are called by their names


class Question(NamedTuple):
    """Which entries of data (N, *shape) are asked about, given, and candidates to be asked for; booleans."""

    about: Tensor  # (N, *shape)
    given: Tensor  # (N, *shape)
    names: list[str]  # of the candidates
    candidates: Tensor  # (C, N, *shape), without what is given

    @property
    def asked(self) -> Tensor:
        """Which candidates have an entry that is not given, (C, N)."""
        return self.candidates.flatten(2).any(2)

    @property
    def sets(self) -> Tensor:
        """Entries whose evidence is needed: y o, then c o and then c y o of each candidate: (1 + 2 C, N, *shape)."""
        alone = self.candidates | self.given
        return torch.cat([(self.about | self.given)[None], alone, alone | self.about])

    def of(self, rows: slice) -> "Question":
        """The same of some data."""
        return Question(self.about[rows], self.given[rows], self.names, self.candidates[:, rows])


@checked
def information(
    model: Program,
    guide: Program,
    data: Any,
    *,
    about: Any,
    given: Any = None,
    of: Any = None,
    names: Sequence[str] = (),
    num_draws: int = 100,
    num_particles: int = 1000,
    method: str = "auto",
    budget: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    plate: str | None = None,
    progress: bool = True,
) -> Information:
    """I(x_c ; x_y | x_o) of each datum and each candidate c, in nats: the next question is the one that tells most.

    An estimate may lie below zero by its error. Its cost is L (2 C + 1) evidences for each datum.

    Args:
        model: program of p(x, z), with one plate over the data, for complete data.
        guide: program of q(z|x); where it does not read missing entries (NaN), it is given a guess of them.
        data: a :class:`~pyrovae.data.Split`, a tensor (N, ...), or a tuple of tensors passed on as arguments. Of its
            first tensor only what is given counts.
        about: y, booleans (N, *shape) or (*shape); or a name, or a list of names of entries.
        given: o, likewise; what is NaN in the data is not given. None is the empty set: the information is that of
            blocks of columns, and where the data have no other arguments one number answers for all of them.
        of: the candidates: name -> entries as those of ``about``, or a list of these; what is given of one is left
            out. None takes each entry that is neither in y nor given in all data.
        names: of the entries of a datum, such as ``table.columns.names``; their numbers where there are none.
        num_draws: L, of x_c and x_y given x_o.
        num_particles: K, draws for each datum and each evidence.
        method: how an evidence is found, see :func:`~pyrovae.evaluate`.
        budget: decoder passes for each evidence at most.
        seed: of all draws.
        batch_size: data in a block.
        plate: name of the data plate, where several plates hold all sites.
        progress: show a bar for what takes over two seconds (never into a pipe).

    Returns:
        The :class:`Information`. Its errors are the draws' spread over their effective number, in which the noise of
        their evidences is, and the stated error of log p(x_o).

    Raises:
        InputError: for names that are not there, entries that are both given and asked about, a candidate that shares
            entries with y, nothing that is left to ask; and as :func:`~pyrovae.log_density`.

    Warns:
        UntrustedPosterior: if nothing vouches for the draws of more than 5 % of the data.

    References:
        Ma, Tschiatschek, Palla, Hernandez-Lobato, Nowozin and Zhang (2019), EDDI: Efficient dynamic discovery of
        high-value information with partial VAE, ICML, arXiv:1809.11142.
        Lindley (1956), On a measure of the information provided by an experiment, Annals of Mathematical Statistics 27.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.factor_analysis(4, 1)
        >>> x, _ = oracle.draw(1, seed=0)
        >>> first = torch.tensor([True, False, False, False])
        >>> found = information(oracle.model, oracle.guide, x, about="3", given=first, num_draws=20, progress=False)
        >>> found.names, found.value.shape, found.num_given.tolist()
        (['1', '2'], torch.Size([1, 2]), [1.0])
    """
    if whole("num_draws", num_draws) < 2:
        raise InputError(f"num_draws must be at least 2, so that there is an error; got {num_draws}")
    plan = Plan(num_particles, seed, batch_size, plate=plate, compile=False, method=method, budget=budget)
    split = as_split(data).drawn(seed)
    check_data_alone(model, split)
    question = _asked(split, about, given, of, names)
    label = _label(question.about, _names(split, names))
    if len(split.columns) == 1 and _is_alike(question):
        split, question = split[:1], question.of(slice(1))
    x, *others = split.tensors
    how: dict[str, Any] = {"num_particles": num_particles, "method": method, "budget": budget, "plate": plate}
    how |= {"batch_size": batch_size, "seed": seed, "progress": progress}
    seen = split.replaced([hide(x, question.given), *others])
    drawn = conditional(model, guide, seen, num_draws=num_draws, **how)
    terms, doubted = _terms(model, guide, drawn.draws, others, question, plan, progress)
    return Information(
        question.names,
        label,
        *_estimated(terms, drawn, question.given.flatten(1).any(1)),
        torch.where(question.asked, doubted.double().mean(1), 0.0).T,
        drawn.unreliable,
        question.given.flatten(1).sum(1).double(),
        num_draws,
        num_particles,
        method,
        seed,
        seen.protocol,
    )


# ---------------------------------------------------------------------------------------------------- what is asked


def _asked(split: Split, about: Any, given: Any, of: Any, names: Sequence[str]) -> Question:
    """The question, checked."""
    shape, known = split.columns[0].shape, ~split.tensors[0].isnan().cpu()
    called = _names(split, names)
    y = as_entries(about, shape, "about", called).cpu()
    o = torch.zeros_like(y) if given is None else as_entries(given, shape, "given", called).cpu() & known
    if not bool(y.flatten(1).any(1).all()):
        raise InputError("about= names no entry of some data: there is nothing that could be told of them")
    if bool((both := y & o).any()):
        rows = int(both.flatten(1).any(1).sum())
        raise InputError(
            f"about= and given= share {_label(both, called)} in {rows:,} of {len(y):,} data: hide it there"
        )
    candidates = _candidates(of, y, o, called)
    for name, one in candidates.items():
        if bool((one & y).any()):
            raise InputError(f"candidate '{name}' shares {_label(one & y, called)} with about=: leave that out of one")
        if not bool((one & ~o).any()):
            raise InputError(f"candidate '{name}' is given in all data: nothing of it is left to ask")
    if not candidates:
        raise InputError("nothing is left to ask: every entry is given or in about=")
    return Question(y, o, list(candidates), torch.stack([*candidates.values()]) & ~o)


def _names(split: Split, names: Sequence[str]) -> list[str]:
    """What the entries of a datum are called: as given, or by their numbers."""
    if not names:
        places = torch.ones(split.shape).nonzero().tolist()
        return [",".join(map(str, place)) for place in places]
    if len(names) != math.prod(split.shape) or len(set(names)) < len(names):
        raise InputError(f"names: expected {math.prod(split.shape)} different ones, got {len(names)}: {list(names)}")
    return list(names)


def _candidates(of: Any, about: Tensor, given: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Name -> entries (N, *shape)."""
    if of is None:
        left = ~(about.any(0) | given.all(0)).flatten()
        single = torch.eye(len(names), dtype=torch.bool)[left].reshape(-1, 1, *about.shape[1:])
        chosen = [name for name, one in zip(names, left.tolist(), strict=True) if one]
        return dict(zip(chosen, single.expand(-1, *about.shape), strict=True))
    if isinstance(of, Mapping):
        return {str(name): _entries(one, about, names) for name, one in of.items()}
    if not isinstance(of, list | tuple) or not of:
        raise InputError("of= is name -> entries, or a list of entries (booleans or names), one for each candidate")
    found = [_entries(one, about, names) for one in of]
    return {_label(one, names): one for one in found}


def _entries(one: Any, about: Tensor, names: list[str]) -> Tensor:
    return as_entries(one, about.shape, "of", names).cpu()


def _label(mask: Tensor, names: list[str]) -> str:
    """Entries (N, *shape) in words."""
    some = mask.any(0).flatten().tolist()
    chosen = [name for name, one in zip(names, some, strict=True) if one]
    return ", ".join(chosen) if len(chosen) <= FEW else f"{len(chosen)} entries from {chosen[0]} to {chosen[-1]}"


def _is_alike(question: Question) -> bool:
    """Whether nothing is given and all data are asked the same."""
    about, candidates = question.about, question.candidates
    return not question.given.any() and bool((about == about[:1]).all() and (candidates == candidates[:, :1]).all())


# ----------------------------------------------------------------------------------------------------- what is found


def _terms(
    model: Program,
    guide: Program,
    draws: Tensor,
    others: Sequence[Tensor],
    question: Question,
    plan: Plan,
    progress: bool,
) -> tuple[Tensor, Tensor]:
    """log p(x_c, x_y, x_o) - log p(x_c, x_o) - log p(x_y, x_o) at draws (L, N, ...), and whether one is unreliable.

    Both are (C, L, N), the first NaN where a candidate has no entry left.
    """
    num_sets, parts = 1 + 2 * len(question.names), []
    for index, rows in enumerate(blocks_of(draws.shape[1], max(1, AT_ONCE // (num_sets * len(draws))))):
        part = question.of(rows)
        needed = torch.cat([part.asked.any(0)[None], part.asked, part.asked])
        how = replace(plan, seed=seed_of("information", plan.seed, index))
        here = [other[rows] for other in others]
        parts.append(_log_densities(model, guide, draws[:, rows], here, part.sets, needed, how, progress))
    found, unreliable = (torch.cat(each, -1) for each in zip(*parts, strict=True))
    sizes = [1, len(question.names), len(question.names)]
    (of_about, alone, joint), doubts = found.split(sizes), unreliable.split(sizes)
    return joint - alone - of_about, doubts[0] | doubts[1] | doubts[2]


def _log_densities(
    model: Program,
    guide: Program,
    draws: Tensor,
    others: Sequence[Tensor],
    sets: Tensor,
    needed: Tensor,
    plan: Plan,
    progress: bool,
) -> tuple[Tensor, Tensor]:
    """Evidence of sets of entries (S, n, ...) at draws (L, n, ...), and whether it is unreliable: (S, L, n) each.

    NaN where it is not needed, (S, n).
    """
    place, row = needed.nonzero(as_tuple=True)
    num_draws = len(draws)
    values = [draws[:, row], *(other.cpu()[row].expand(num_draws, len(row), *other.shape[1:]) for other in others)]
    masks = sets[place, row].expand(num_draws, len(row), *sets.shape[2:])
    rows = as_split(tuple(value.flatten(0, 1) for value in values))
    pair = hidden(model, guide, rows, masks.flatten(0, 1), plan, search=False)
    report, _ = routed(pair.model, pair.guide, pair.split, plan, progress=progress)
    found = torch.full((len(sets), num_draws, sets.shape[1]), math.nan, dtype=torch.float64)
    unreliable = torch.zeros_like(found, dtype=torch.bool)
    found[place, :, row] = report.log_evidence.unflatten(0, (num_draws, -1)).T
    unreliable[place, :, row] = report.unreliable.unflatten(0, (num_draws, -1)).T
    return found, unreliable


def _estimated(terms: Tensor, drawn: Completion, has_given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Information and its error, (N, C) each; the lead of the best candidate and its error, (N,) each.

    Draws that were resampled from few effective ones count as these; of nothing, log p is 0.
    """
    report = drawn.report
    assert report is not None
    is_exact = torch.tensor([route == "summed" for route in report.route])
    per_draw = 1 / len(drawn.draws) + torch.where(is_exact, 0.0, 1 / report.ess)  # (N,)
    of_given, error = (torch.where(has_given, one, 0.0) for one in (report.log_evidence, report.mc_se_log_evidence))
    value = (terms.mean(1) + of_given).T
    mc_se = (terms.var(1) * per_draw + error.square()).sqrt().T
    if len(terms) == 1:
        return value, mc_se, *torch.full((2, len(value)), math.nan, dtype=torch.float64)
    first, second = ranking(value)[:, :2].T
    rows = torch.arange(len(value))
    ahead = terms[first, :, rows] - terms[second, :, rows]  # (N, L): what both share is gone
    return value, mc_se, ahead.mean(1), (ahead.var(1) * per_draw).sqrt()
