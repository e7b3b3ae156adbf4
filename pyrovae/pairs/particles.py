r"""The table: any pair of programs in, three log densities out for every particle and datum.

.. math:: \log p(x_n \mid z_{kn}), \quad \log p(z_{kn}), \quad \log q(z_{kn} \mid x_n), \qquad z_{kn} \sim q(z \mid x_n)

A program is run under Pyro's handlers, and its densities are read off the trace. Whatever the model is, the
ELBO, the evidence and the KL terms are short functions of this table (:mod:`pyrovae.evidence.estimators`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from pyrovae.base.errors import InputError
from pyrovae.pairs.context import home_device, on_device, own_scope
from pyrovae.pairs.structure import Structure, describe, inspect_pair
from pyrovae.pairs.supports import layers
from pyrovae.pairs.terms import LogTerms, SiteTerms, read_terms, sum_by_role, to_rows, to_table
from pyrovae.pairs.traces import Program, num_rows, plain_traces, sites


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


# ------------------------------------------------------------------------------- four ways to fill the table


def _vectorized(model: Program, guide: Program, args: Sequence[Any], s: Structure, num_particles: int) -> SiteTerms:
    # One more plate outside all others: every draw gains a dimension of K on its left.
    model_trace, guide_trace = _vectorized_traces(model, guide, args, s, num_particles)
    return read_terms(model_trace, guide_trace, lambda log_prob: to_table(log_prob, s, num_particles, num_rows(args)))


def _tiled(model: Program, guide: Program, args: Sequence[Any], s: Structure, num_particles: int) -> SiteTerms:
    # K copies of the batch as one batch of K n rows: the programs see nothing unusual.
    rows = num_rows(args)
    model_trace, guide_trace = plain_traces(model, guide, tiled_args(args, num_particles))
    return read_terms(model_trace, guide_trace, lambda log_prob: to_rows(log_prob, s.dim).reshape(num_particles, rows))


def _looped(model: Program, guide: Program, args: Sequence[Any], s: Structure, num_particles: int) -> SiteTerms:
    # K runs on the batch as it is.
    runs = [plain_traces(model, guide, args) for _ in range(num_particles)]
    tables = [read_terms(*run, lambda log_prob: to_rows(log_prob, s.dim)[None]) for run in runs]
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
    table = sum_by_role(read_terms(model_trace, guide_trace, lambda log_prob: to_table(log_prob, s, 2, rows)))
    for particle in range(2):
        _, plain_guide = plain_traces(model, guide, args)
        for name, site in sites(plain_guide).items():
            site["value"] = _particle(guide_trace.nodes[name], s.depth, particle, site["value"])
        again = poutine.trace(poutine.replay(guide, trace=plain_guide)).get_trace(*args)
        replayed = poutine.trace(poutine.replay(model, trace=again)).get_trace(*args)
        plain = sum_by_role(read_terms(replayed, again, lambda log_prob: to_rows(log_prob, s.dim)[None]))
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
    table = read_terms(*traces, lambda log_prob: to_rows(log_prob, dim)[None])
    return torch.stack([term.reshape(()) for term in sum_by_role(table)])


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


Values = dict[str, Tensor]  # latent site -> (K, n, *plates inside a datum, *event)


class Site(NamedTuple):
    """One latent site, as a plain run of the model shows it."""

    batch_dim: int  # dimensions of plates that its values have
    event_dim: int
    shape: torch.Size  # of one particle of one datum on the real line: (*plates inside a datum, *event)
    is_movable: bool  # whether there is a transform from the real line
    is_discrete: bool
    family: str


class Run:
    """One run of a program on K particles of n data: how they lie in its tensors."""

    def __init__(self, structure: Structure, args: Sequence[Any], num_particles: int, *, vectorized: bool) -> None:
        self.structure, self.num_data, self.num_particles = structure, num_rows(args), num_particles
        self.vectorized, self.args = vectorized, args if vectorized else tiled_args(args, num_particles)

    def trace(self, program: Program) -> Trace:
        if self.vectorized:
            program = pyro.plate("_particles", self.num_particles, dim=-self.structure.depth - 1)(program)
        return poutine.trace(program).get_trace(*self.args)

    def table(self, log_prob: Tensor) -> Tensor:
        """Sums over all plates but those of particles and data: -> (K, n)."""
        if self.vectorized:
            return to_table(log_prob, self.structure, self.num_particles, self.num_data)
        return to_rows(log_prob, self.structure.dim).reshape(self.num_particles, self.num_data)

    def lift(self, value: Tensor, site: Site) -> Tensor:
        """A value as the program holds it -> (K, n, ...)."""
        depth = self.structure.depth + self.vectorized
        batch_dim = depth if self.vectorized else site.batch_dim
        value = value.reshape((1,) * (depth - batch_dim) + value.shape)
        value = value.movedim(depth + self.structure.dim, int(self.vectorized))
        return value if self.vectorized else value.unflatten(0, (self.num_particles, self.num_data))

    def place_all(self, values: Values, described: Mapping[str, Site]) -> Values:
        """Values (K, n, ...) -> as the program holds them."""
        return {name: self._place(value, described[name]) for name, value in values.items()}

    def _place(self, value: Tensor, site: Site) -> Tensor:
        depth = self.structure.depth + self.vectorized
        value = value if self.vectorized else value.flatten(0, 1)
        value = value.movedim(int(self.vectorized), depth + self.structure.dim)
        return value if self.vectorized else value.reshape(value.shape[depth - site.batch_dim :])


class Placed(Messenger):
    """Latent sites take the values given here instead of draws."""

    def __init__(self, values: Values) -> None:
        super().__init__()
        self.values = values
        self.log_jacobians: list[Tensor] = []

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"] = self.value(msg["fn"], self.values[msg["name"]])
            msg["done"] = True

    def value(self, fn: Any, given: Tensor) -> Tensor:
        return given


class OnRealLine(Placed):
    """Latent sites take the images of points on the real line; the Jacobians of the moves are kept."""

    def value(self, fn: Any, given: Tensor) -> Tensor:
        transform = to_support(fn)
        value = transform(given)
        log_jacobian = transform.log_abs_det_jacobian(given, value)
        inner = len(fn.event_shape) - transform.codomain.event_dim  # dimensions that the transform takes one by one
        self.log_jacobians.append(log_jacobian.sum(tuple(range(-inner, 0))) if inner else log_jacobian)
        return value


def to_support(fn: Any) -> Any:
    """The transform from the real line onto the support of a distribution.

    Raises:
        NotImplementedError: if there is none, as for classes, directions and angles.
    """
    support = fn.support
    if type(support).__name__ == "MixtureSameFamilyConstraint":
        support = support.base_constraint  # components share it; torch knows no transform of the mixture's own
    if isinstance(layers(fn)[-1], torch.distributions.VonMises):
        raise NotImplementedError("an angle is on the real line more than once, though torch calls its support real")
    return biject_to(support)


def describe_site(site: Any, structure: Structure) -> Site:
    """What a plain run shows of a latent site."""
    fn, value = site["fn"], site["value"]
    try:
        real, is_movable = to_support(fn).inv(value), True
    except NotImplementedError:
        real, is_movable = value, False
    event_dim = len(fn.event_shape)
    batch_dim = value.dim() - event_dim
    shape = list(real.shape)
    del shape[batch_dim + structure.dim]
    inner = torch.Size([1] * (structure.depth - batch_dim) + shape)
    is_discrete = bool(getattr(fn.support, "is_discrete", False))
    return Site(batch_dim, event_dim, inner, is_movable, is_discrete, type(layers(fn)[-1]).__name__)
