"""What further runs of a pair show: densities are functions of x and z, and those of a datum of its own row alone.

The programs are run again on draws that they have made, and log densities are compared site by site: under other
noise, with every second row of the batch, draws and data, taken from its neighbour, and with half of the rows alone.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import pyro
import torch
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.memory import out_of_memory
from pyrovae.base.random import preserve_rng_state
from pyrovae.pairs.checks.weights import is_function
from pyrovae.pairs.context import MOST_DOUBLED, double_precision, in_double, is_narrow
from pyrovae.pairs.handlers import Placed
from pyrovae.pairs.structure import Shown, Structure
from pyrovae.pairs.supports import to_support
from pyrovae.pairs.terms import SiteTerms, read_terms, to_rows
from pyrovae.pairs.traces import Program, TracePair, each_batched, num_rows, site_log_prob, sites, sites_of, traced

CHANGES = (
    "site '{name}' of the {program}: its log density changes from run to run at the same draws, so it is not the "
    "density that they were drawn from. Is it random beyond its sample sites (dropout that is left on, noise of "
    "torch.randn)? Make such noise a sample site, or turn it off"
)
BOTH = ("model", "guide")
T = TypeVar("T")
NUM_FRESH = 8  # draws of other rows beside each half of those that may be known by their places
NUM_MOVES = 8  # draws of each datum at which a move is looked at again


class Looks(NamedTuple):
    """What two runs on every second row taken from its neighbour showed."""

    leaning: str | None  # a site whose density at a row changes with the rows beside it
    placed: str | None  # one whose density is not that of the row's own values: of its place, or of the whole batch
    repeated: bool = True  # whether each density of each row's own came again, in runs under other noise


def check_repeatable(shown: Shown) -> None:
    """Runs the pair again on the same draws.

    Raises:
        InputError: naming the site, if its log density there is another: it is random beyond the sites.
    """
    terms, again = _terms(shown), _terms_at(shown, shown.run.draws)
    if again is None:
        return
    for role in ("guide", "prior", "likelihood"):
        name = _differing(getattr(terms, role), getattr(again, role), slice(None), slice(None))
        if name is not None:
            raise InputError(CHANGES.format(name=name, program="guide" if role == "guide" else "model"))


def look_across_rows(shown: Shown) -> Looks:
    """Tells whether rows lean on each other, and whether programs know one by its place: a parameter for each datum."""
    found = _looks(shown)
    # Rounding goes with a row's place too, by whole nats where densities are differences of large numbers.
    clean = found.leaning is None and found.placed is None
    return found if clean else _in_double(shown) or found


def _in_double(shown: Shown) -> Looks | None:
    """The same in double precision; None where the programs run in it already, or cannot."""
    if not any(is_narrow(table) for role in _terms(shown) for table in role.values()):
        return None
    draws = dict(zip(shown.run.draws, in_double([*shown.run.draws.values()]), strict=True))
    try:
        with double_precision(shown.model, shown.guide, MOST_DOUBLED):
            wide = shown._replace(args=in_double(shown.args))
            run = _run_at(wide, draws)
            return None if run is None else _looks(wide._replace(run=run))
    except (InputError, MemoryError):  # TorchScript, or programs that hold much
        return None


def _looks(shown: Shown) -> Looks:
    args, rows = shown.args, num_rows(shown.args)
    terms, leaning, placed, repeated = _terms(shown), None, None, rows > 1
    for kept, taken, index in _neighbours(rows):
        exchanged = each_batched(args, lambda arg: arg[index.to(arg.device)])  # noqa: B023
        draws = _taken(shown, index)
        others = _terms_at(shown._replace(args=exchanged), draws)
        if others is None:
            repeated = False
            continue
        by_guide = others.guide
        if _differing(terms.guide, by_guide, kept, kept):
            # A guide may read the data of all rows: whatever it makes of them is a proposal for each. Draws it may not.
            beside = _terms_at(shown, draws, ("guide",))
            if beside is None:
                repeated = False
                continue
            by_guide = beside.guide
        for before, after in zip(terms, (others.likelihood, others.prior, by_guide), strict=True):
            leaning = leaning or _differing(before, after, kept, kept)
        for before, after in zip(terms, others, strict=True):
            placed = placed or _differing(before, after, index[taken], taken)
    if placed:  # each row at its place
        with preserve_rng_state():
            for _, taken, _ in _neighbours(rows) * NUM_FRESH:
                leaning = leaning or _beside_others(shown, taken)
    for half in _halves(rows, placed=placed is not None):  # a program may read how many rows there are
        few = each_batched(args, lambda arg: arg[half.to(arg.device)])  # noqa: B023
        alone = _terms_at(shown._replace(args=few), _taken(shown, half), ("model",))
        for before, after in zip(terms[:2], alone[:2] if alone else (), strict=alone is not None):
            leaning = leaning or _differing(before, after, half, slice(None))
    return Looks(leaning, placed, repeated and leaning is None)


def _beside_others(shown: Shown, taken: Tensor) -> str | None:
    """A site whose density at a row changes where the rows ``taken`` beside it are drawn anew."""
    fresh = _run_at(shown, {})
    if fresh is None:
        return None
    draws, rows = {}, taken.to(next(iter(shown.run.draws.values())).device)
    for name, (value, dim) in _rows_of(shown).items():
        draws[name] = value.index_copy(dim, rows, fresh.draws[name].index_select(dim, rows))
    beside = _terms_at(shown, draws)
    kept = [row for row in range(num_rows(shown.args)) if row not in set(taken.tolist())]
    pairs = zip(_terms(shown), beside, strict=True) if beside else ()
    return next(filter(None, (_differing(before, after, kept, kept) for before, after in pairs)), None)


def check_rows_independent(looks: Looks) -> None:
    """Raises InputError, naming the site, if the density of a row changes with the rows beside it."""
    if looks.leaning is not None:
        raise InputError(
            f"site '{looks.leaning}': the log density of a row changes with the other rows of its batch, so log p(x) "
            "of a datum would change with the size of a block. Is there a mean over the batch, batch norm without "
            "running statistics, attention or a Gaussian process across rows? Let each row be read alone, or make "
            "what leans on each other one datum; a single datum needs a leading dimension, x[None]"
        )


def check_rows_exchangeable(looks: Looks, purpose: str) -> None:
    """Raises InputError, naming the site, if programs know a row by its place in the batch or by its neighbours."""
    if looks.placed is not None:
        raise InputError(
            f"site '{looks.placed}': its log density goes with the place of a row in its batch, or with the rows "
            f"beside it (a parameter for each datum, a mean over the batch?), but {purpose} puts rows into batches of "
            "its own. Use a guide that reads the row alone, an encoder"
        )


def check_moves(shown: Shown) -> None:
    r"""Compares what points of the guide say of their density with the Jacobian of their move from auxiliary draws a.

    .. math:: \log q(z) = \log q(a) - \log |\det \partial z / \partial a|

    A move that is one to one has a determinant of one sign, wherever a datum's draws are.

    Raises:
        InputError: naming the site, where the ``log_density`` of the Deltas is not the second term, or a move folds.
    """
    run, guide, extra = shown.run, shown.guide, shown.run.auxiliary
    names = [name for name in run.latent if extra and is_function(run.drawn[name])]
    if not names:
        return
    site = f"site '{names[0]}' of the guide is a point that is moved from '{extra[0]}', but"
    first = _move(shown)
    if not torch.allclose(first.stated, first.log_density, rtol=1e-3, atol=1e-2):
        raise InputError(
            f"{site} the log_density of its Delta is not minus the log determinant of the Jacobian of that move: "
            "log q would be off. Draw it from a TransformedDistribution, or state Delta(value, log_density=...)"
        )
    for _ in range(NUM_MOVES):
        again = TracePair(run.model, traced("guide", guide, guide, shown.args))
        if bool((_move(shown._replace(run=again)).sign != first.sign).any()):
            raise InputError(
                f"{site} not one to one: several draws of '{extra[0]}' give one '{names[0]}', whose density is the sum "
                f"over them. Draw '{names[0]}' from a family of its own support (FoldedDistribution for an absolute "
                "value)"
            )


class _Move(NamedTuple):
    """What a move from auxiliary draws to latents does at one draw of each datum: (N,) each."""

    stated: Tensor  # log density that the Deltas add
    log_density: Tensor  # that they should add
    sign: Tensor  # of the determinant


def _move(shown: Shown) -> _Move:
    run, structure, extra = shown.run, shown.structure, shown.run.auxiliary
    names = [name for name in run.latent if is_function(run.drawn[name])]
    draws = {name: run.drawn[name]["value"].detach().requires_grad_() for name in extra}
    with torch.enable_grad(), pyro.validation_enabled(False):
        found = sites_of(Placed(draws)(shown.guide), *shown.args)
        reals, log_jacobians = [], []
        for name in names:
            move, value = to_support(run.latent[name]["fn"]), found[name]["value"]
            real = move.inv(value)
            reals.append(_by_datum(real, found[name], structure))
            each = _by_datum(move.log_abs_det_jacobian(real, value), found[name], structure)
            log_jacobians.append(each.sum(-1))
        points = torch.cat(reals, -1)
        rows = [torch.autograd.grad(u.sum(), [*draws.values()], retain_graph=True) for u in points.unbind(-1)]
    columns = [[_by_datum(g, run.drawn[n], structure) for g, n in zip(row, extra, strict=True)] for row in rows]
    sign, log_det = torch.linalg.slogdet(torch.stack([torch.cat(row, -1) for row in columns], -2).double())
    stated = torch.stack([to_rows(site_log_prob(found[name]), structure.dim) for name in names]).sum(0)
    return _Move(stated.detach().double(), -log_det - torch.stack(log_jacobians).sum(0).detach(), sign)


def _by_datum(value: Tensor, site: Any, structure: Structure) -> Tensor:
    """A value of a site's batch shape and more, (*batch, ...) -> (N, D)."""
    dim = len(site["fn"].batch_shape) + structure.dim
    return value.movedim(dim, 0).flatten(1) if value.dim() > 1 else value[:, None]


def _neighbours(rows: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Twice (rows kept, rows replaced, which row stands at each place): odd rows by even ones, and the reverse."""
    every = torch.arange(rows)
    even, odd = every[0::2], every[1::2]
    by_even = every - every % 2
    by_odd = torch.where(every + 1 - every % 2 < rows, every + 1 - every % 2, every - 1)
    return [(even, odd, by_even), (odd, even, by_odd)] if rows > 1 else []


def _halves(rows: int, *, placed: bool) -> list[Tensor]:
    """Both halves of the rows in their order, without a pattern that groups of rows could have too.

    Of rows that may be known by their places the first half alone: those keep them.
    """
    if rows < 2 or placed:
        return [torch.arange((rows + 1) // 2)] if rows > 1 else []
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    return [half.sort().values for half in order.tensor_split([(rows + 1) // 2])]


def _rows_of(shown: Shown) -> dict[str, tuple[Tensor, int]]:
    """All that the guide drew, and the dimension of each draw that counts the rows."""
    found = sites(shown.run.guide, moved=True)
    dims = {n: site["value"].dim() - len(site["fn"].event_shape) + shown.structure.dim for n, site in found.items()}
    return {name: (site["value"], dims[name]) for name, site in found.items()}


def _taken(shown: Shown, index: Tensor) -> dict[str, Tensor]:
    """All that the guide drew, the draws of other rows at each row."""
    return {name: value.index_select(dim, index.to(value.device)) for name, (value, dim) in _rows_of(shown).items()}


def _terms_at(shown: Shown, draws: dict[str, Tensor], roles: Sequence[str] = BOTH) -> SiteTerms | None:
    """The densities of a run of programs on given draws; None where one of them scores its own draws alone."""
    run = _run_at(shown, draws, roles)
    return None if run is None else _where_it_runs(lambda: _terms(shown._replace(run=run)))


def _run_at(shown: Shown, draws: dict[str, Tensor], roles: Sequence[str] = BOTH) -> TracePair | None:
    """A run of programs on given draws, without the sites of one that is left out; None where they do not run so."""

    def run(role: str, program: Program) -> Trace:
        return traced(role, program, Placed(draws)(program), shown.args) if role in roles else Trace()

    return _where_it_runs(lambda: TracePair(run("model", shown.model), run("guide", shown.guide)))


def _where_it_runs(act: Callable[[], T]) -> T | None:
    try:
        with pyro.validation_enabled(False):
            return act()
    except Exception as error:
        if out_of_memory(error):
            raise
        return None


def _terms(shown: Shown) -> SiteTerms:
    return read_terms(shown.run, lambda log_prob: to_rows(log_prob, shown.structure.dim))


def _differing(before: dict[str, Tensor], after: dict[str, Tensor], rows: Any, others: Any) -> str | None:
    """The first site whose terms at some rows are not those of other rows in another run."""
    for name in dict.fromkeys([*before, *after]):
        first, *second = [run[name][at] for run, at in ((before, rows), (after, others)) if name in run]
        # A run may have fewer sites, steps up to its longest row: they count for nothing.
        other = second[0] if second else torch.zeros_like(first)
        tolerance = 1e-10 if first.dtype == torch.float64 else 1e-5
        if not torch.allclose(first, other, rtol=tolerance, atol=10 * tolerance, equal_nan=True):
            return name
    return None
