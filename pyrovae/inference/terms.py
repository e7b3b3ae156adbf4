r"""The table: any pair of programs in, three log densities out for every particle and datum.

.. math:: \log p(x_n \mid z_{kn}), \quad \log p(z_{kn}), \quad \log q(z_{kn} \mid x_n), \qquad z_{kn} \sim q(z \mid x_n)

A program is run under Pyro's handlers, and its densities are read off the trace. Whatever the model is, the
ELBO, the evidence and the KL terms are short functions of this table (:mod:`pyrovae.inference.estimators`).
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.inference.pairs import Program, home_device, num_rows, on_device, own_scope, plain_traces, sites
from pyrovae.inference.structure import Structure, describe, inspect_pair


class LogTerms(NamedTuple):
    """Log densities in nats, each (K, N): K particles of the guide for N data."""

    log_likelihood: Tensor
    log_prior: Tensor
    log_guide: Tensor

    @property
    def log_weight(self) -> Tensor:
        """log w = log p(x|z) + log p(z) - log q(z|x): (K, N), float64."""
        return self.log_likelihood.double() + self.log_prior.double() - self.log_guide.double()

    @property
    def resolution(self) -> Tensor:
        """What rounding can make of equal weights, in nats: (N,)."""
        size = sum(torch.where(term.isfinite(), term.double().abs(), 0.0).amax(0) for term in self)
        return 32 * torch.finfo(self.log_likelihood.dtype).eps * torch.as_tensor(size)


def log_terms(
    model: Program,
    guide: Program,
    *args: Any,
    num_particles: int,
    plate: str | None = None,
    vectorize: bool = True,
) -> LogTerms:
    """The table of a pair on a batch, all K x N at once.

    Args:
        model: program of p(x, z), with one plate over the data.
        guide: program of q(z|x), with the same plate.
        args: what both are called with; the first dimension of the first tensor is the datum (N).
        num_particles: K.
        plate: name of the data plate, where several plates hold all sites.
        vectorize: False runs the programs for one particle of one datum at a time: slow, and right also where
            sampled values steer Python control flow.

    Returns:
        log p(x|z), log p(z) and log q(z|x), each (K, N), differentiable. ``poutine.scale`` is ignored (a tempered
        density is not evidence), ``poutine.mask`` is honoured.

    Raises:
        InputError: naming the site, if the pair has no per-datum weights (see :func:`inspect_pair`).

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.oracles.ppca(5, 2)
        >>> x, _ = oracle.draw(3, seed=0)
        >>> terms = log_terms(oracle.model, oracle.guide, x, num_particles=4)
        >>> bool((terms.log_weight - oracle.log_evidence(x)).abs().max() < 1e-10)  # the guide is exact
        True
    """
    check_num_particles(num_particles)
    with own_scope(model, guide) as (model, guide, _), on_device(home_device(model, guide)):
        structure = inspect_pair(model, guide, args if vectorize else one_row(args, 0), plate=plate)
        with pyro.validation_enabled(False):  # it would refuse the masked values that were let through above
            way = choose_way(model, guide, args, structure) if vectorize else "one by one"
            return sum_by_role(WAYS[way](model, guide, args, structure, num_particles))


def check_num_particles(num_particles: int) -> None:
    """Raises InputError unless it is a whole number, at least one."""
    if not isinstance(num_particles, int):
        raise InputError(f"num_particles must be a whole number, got {num_particles!r}")
    if num_particles < 1:
        raise InputError(f"num_particles must be at least 1, got {num_particles}")


class SiteTerms(NamedTuple):
    """Per-site log densities, site -> (K, N), by the role of the site."""

    likelihood: dict[str, Tensor]
    prior: dict[str, Tensor]
    guide: dict[str, Tensor]


def sum_by_role(terms: SiteTerms) -> LogTerms:
    """Adds up the sites of each role: (K, N) each; zeros for a pair without latent sites."""
    none = torch.zeros_like(next(iter(terms.likelihood.values())))
    return LogTerms(*(reduce(torch.add, role.values()) if role else none for role in terms))


# ------------------------------------------------------------------------------- four ways to fill the table


def _vectorized(model: Program, guide: Program, args: Sequence[Any], s: Structure, num_particles: int) -> SiteTerms:
    # One more plate outside all others: every draw gains a dimension of K on its left.
    model_trace, guide_trace = _vectorized_traces(model, guide, args, s, num_particles)
    return _read(model_trace, guide_trace, lambda log_prob: to_table(log_prob, s, num_particles, num_rows(args)))


def _tiled(model: Program, guide: Program, args: Sequence[Any], s: Structure, num_particles: int) -> SiteTerms:
    # K copies of the batch as one batch of K n rows: the programs see nothing unusual.
    rows = num_rows(args)
    model_trace, guide_trace = plain_traces(model, guide, tiled_args(args, num_particles))
    return _read(model_trace, guide_trace, lambda log_prob: to_rows(log_prob, s.dim).reshape(num_particles, rows))


def _looped(model: Program, guide: Program, args: Sequence[Any], s: Structure, num_particles: int) -> SiteTerms:
    # K runs on the batch as it is.
    runs = [plain_traces(model, guide, args) for _ in range(num_particles)]
    tables = [_read(*run, lambda log_prob: to_rows(log_prob, s.dim)[None]) for run in runs]
    return SiteTerms(
        *({name: torch.cat([t[role][name] for t in tables]) for name in tables[0][role]} for role in range(3))
    )


def _one_by_one(model: Program, guide: Program, args: Sequence[Any], s: Structure, num_particles: int) -> SiteTerms:
    # One particle of one datum in each run, so a draw may decide which sites there are: only sums compare.
    rows = num_rows(args)
    data = [one_row(args, row) for row in range(rows)]
    table = torch.stack([_one_draw(model, guide, datum, s.plate) for _ in range(num_particles) for datum in data])
    columns = table.reshape(num_particles, rows, 3).unbind(-1)
    return SiteTerms(*({"all sites": column} for column in columns))


WAYS: dict[str, Callable[..., SiteTerms]] = {
    "vectorized": _vectorized,
    "tiled": _tiled,
    "looped": _looped,
    "one by one": _one_by_one,
}


def choose_way(model: Program, guide: Program, args: Sequence[Any], structure: Structure) -> str:
    """The fastest way that these programs can be run: "vectorized", "tiled" or "looped".

    A program may take the extra particle dimension without an error and yet confuse it with another one, so
    two vectorized particles are compared with plain runs on the same draws.
    """
    failures = []
    for way in ("vectorized", "tiled", "looped"):
        try:
            if way != "vectorized":
                WAYS[way](model, guide, args, structure, 2)
                return way
            if _vectorizes(model, guide, args, structure):
                return way
        except MemoryError:
            raise
        except Exception as error:
            if "allocate memory" in str(error) or isinstance(error, torch.OutOfMemoryError):
                raise
            failures.append(f"{way}: {(str(error).strip() or type(error).__name__).splitlines()[0]}")
    raise InputError(
        "the programs cannot be run on a batch of several particles (" + "; ".join(failures) + "). "
        "If sampled values steer their control flow, use vectorize=False"
    )


def _vectorizes(model: Program, guide: Program, args: Sequence[Any], s: Structure) -> bool:
    model_trace, guide_trace = _vectorized_traces(model, guide, args, s, 2)
    rows = num_rows(args)
    table = sum_by_role(_read(model_trace, guide_trace, lambda log_prob: to_table(log_prob, s, 2, rows)))
    for particle in range(2):
        _, plain_guide = plain_traces(model, guide, args)
        for name, site in sites(plain_guide).items():
            site["value"] = _particle(guide_trace.nodes[name], s.depth, particle, site["value"])
        again = poutine.trace(poutine.replay(guide, trace=plain_guide)).get_trace(*args)
        replayed = poutine.trace(poutine.replay(model, trace=again)).get_trace(*args)
        plain = sum_by_role(_read(replayed, again, lambda log_prob: to_rows(log_prob, s.dim)[None]))
        if not all(_close(a[particle], b[0]) for a, b in zip(table, plain, strict=True)):
            return False
    return True


def _vectorized_traces(
    model: Program, guide: Program, args: Sequence[Any], s: Structure, num_particles: int
) -> tuple[Trace, Trace]:
    def particles(program: Program) -> Program:
        return pyro.plate("_particles", num_particles, dim=-s.depth - 1)(program)

    return plain_traces(particles(model), particles(guide), args)


def _one_draw(model: Program, guide: Program, args: Sequence[Any], plate: str) -> Tensor:
    traces = plain_traces(model, guide, args)
    dim = describe(*traces, 1, plate=plate).dim
    table = _read(*traces, lambda log_prob: to_rows(log_prob, dim)[None])
    return torch.stack([term.reshape(()) for term in sum_by_role(table)])


# ------------------------------------------------------------------------------------- reading a trace


def _read(model_trace: Trace, guide_trace: Trace, reduce: Callable[[Tensor], Tensor]) -> SiteTerms:
    model_sites, guide_sites = sites(model_trace), sites(guide_trace)
    observed = {name: reduce(site_log_prob(site)) for name, site in model_sites.items() if site["is_observed"]}
    latent = {name: reduce(site_log_prob(site)) for name, site in model_sites.items() if not site["is_observed"]}
    drawn = {name: reduce(site_log_prob(site)) for name, site in guide_sites.items()}
    return SiteTerms(observed, latent, drawn)


def site_log_prob(site: dict) -> Tensor:
    """Log density of a site, of its batch shape: with its mask and without its scale."""
    log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    mask = site["mask"]
    return log_prob if mask is None else torch.where(torch.as_tensor(mask, device=log_prob.device), log_prob, 0.0)


def to_table(log_prob: Tensor, s: Structure, num_particles: int, rows: int) -> Tensor:
    """Sums over every plate but those of particles and data: (K, ..., N, ...) -> (K, N)."""
    log_prob = log_prob.reshape((1,) * (s.depth + 1 - log_prob.dim()) + log_prob.shape)
    others = [dim for dim in range(-s.depth, 0) if dim != s.dim]
    return (log_prob.sum(others) if others else log_prob).expand(num_particles, rows)


def to_rows(log_prob: Tensor, dim: int) -> Tensor:
    """Sums over every plate but that of the data: (..., N, ...) -> (N,)."""
    others = [d for d in range(-log_prob.dim(), 0) if d != dim]
    return log_prob.sum(others) if others else log_prob


def _particle(site: Any, depth: int, particle: int, like: Tensor) -> Tensor:
    """The draws of one particle at a site of a vectorized trace, in the shape of a plain run's."""
    return site["value"].select(-depth - 1 - len(site["fn"].event_shape), particle).reshape(like.shape)


def one_row(args: Sequence[Any], row: int) -> list[Any]:
    """The arguments for one datum: batches of one."""
    rows = num_rows(args)
    return [arg[row : row + 1] if _batched(arg, rows) else arg for arg in args]


def tiled_args(args: Sequence[Any], num_particles: int) -> list[Any]:
    """The arguments for K copies of the batch, one after the other, as one batch."""
    rows = num_rows(args)
    return [arg.repeat(num_particles, *[1] * (arg.dim() - 1)) if _batched(arg, rows) else arg for arg in args]


def _batched(arg: Any, rows: int) -> bool:
    return isinstance(arg, Tensor) and arg.dim() > 0 and len(arg) == rows


def _close(a: Tensor, b: Tensor) -> bool:
    tolerance = 1e-8 if a.dtype == torch.float64 else 1e-4
    return torch.allclose(a, b, rtol=tolerance, atol=10 * tolerance, equal_nan=True)
