r"""The latents of a pair for one block of data: drawn, scored at any value, and moved to the real line.

For K particles of n data every value is a tensor (K, n, ...), and with z = T(u) the transform of each site's
support, a density on the real line carries the Jacobian of the move:

.. math:: \log p_u(u) = \log p_z(T(u)) + \log |\det \partial T / \partial u|

Annealing, gaps, surgery, calibration and posteriors of single data are written on this; none of them reads a trace.
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

from pyrovae.errors import InputError
from pyrovae.inference.blocks import ELEMENTS_AT_ONCE
from pyrovae.inference.pairs import Program, num_rows, plain_traces, sites
from pyrovae.inference.structure import Structure, describe
from pyrovae.inference.supports import refuse_narrow_guide
from pyrovae.inference.terms import WAYS, choose_way, site_log_prob, sum_by_role, tiled_args, to_rows, to_table

Values = dict[str, Tensor]  # latent site -> (K, n, *plates inside a datum, *event)


class Joint(NamedTuple):
    """What the model says of some latents, each density (K, n) in nats."""

    log_likelihood: Tensor
    log_prior: Tensor
    log_jacobian: Tensor  # of the move from the real line; zero where values were given as they are
    values: Values


class Site(NamedTuple):
    """One latent site, as a plain run of the model shows it."""

    batch_dim: int  # dimensions of plates that its values have
    event_dim: int
    shape: torch.Size  # of one particle of one datum on the real line: (*plates inside a datum, *event)
    is_discrete: bool
    family: str


class Latents:
    """The latents of a pair for the n data in ``args``; for use inside ``blocks.undisturbed``.

    Args:
        model: program of p(x, z).
        guide: program of q(z|x).
        args: what both are called with, n rows.
        plate: name of the data plate, where several plates hold all sites.
        way: how the programs take particles ("vectorized", "tiled" or "looped"), where it is known from a block of
            the same size; None finds out.

    Raises:
        InputError: naming the site, if the pair has no per-datum weights or cannot be run on several particles.
    """

    def __init__(
        self, model: Program, guide: Program, args: Sequence[Any], *, plate: str | None = None, way: str | None = None
    ) -> None:
        self.model, self.guide, self.args = model, guide, args
        self.num_data = num_rows(args)
        model_trace, guide_trace = plain_traces(model, guide, args)
        self.structure: Structure = describe(model_trace, guide_trace, self.num_data, plate=plate)
        self.way = way or choose_way(model, guide, args, self.structure)
        found = sites(model_trace)
        self.sites = {name: _describe_site(found[name], self.structure) for name in self.structure.latents}
        if not self.sites:
            raise InputError("the model has no latent site: log p(x) is its log density, and there is nothing to infer")

    # ---------------------------------------------------------------------------------------- as the programs draw them

    def draw(self, num_particles: int) -> Values:
        """z ~ q(z|x), site -> (K, n, ...)."""
        return self._values(self.guide, num_particles)

    def draw_prior(self, num_particles: int) -> Values:
        """z ~ p(z), site -> (K, n, ...)."""
        return self._values(self.model, num_particles)

    def log_weight(self, num_particles: int) -> Tensor:
        """log p(x|z) + log p(z) - log q(z|x) of draws from the guide: (K, n) nats, float64; not all scored at once."""
        width = sum(arg[0].numel() for arg in self.args if isinstance(arg, Tensor) and arg.dim() > 0)
        size = max(1, ELEMENTS_AT_ONCE // (self.num_data * max(width, 64)))
        sizes = [min(size, num_particles - start) for start in range(0, num_particles, size)]
        pair = (self.model, self.guide, self.args, self.structure)
        return torch.cat([sum_by_role(WAYS[self.way](*pair, part)).log_weight for part in sizes])

    def lifted(self, values: Values) -> Values:
        """Latents as a plain run of the model holds them -> (1, n, ...)."""
        run = _Run(self, 1, vectorized=False)
        return {name: run.lift(values[name], site) for name, site in self.sites.items()}

    def log_joint(self, values: Values) -> Joint:
        """log p(x|z) and log p(z) at any latents (K, n, ...)."""
        return self._score_model(values, _Placed)

    def log_guide(self, values: Values) -> Tensor:
        """log q(z|x) at any latents: (K, n, ...) -> (K, n) nats.

        Raises:
            InputError: if the guide draws auxiliary sites, whose density is not a function of the latents.
        """
        return sum(self.site_log_guide(values).values())  # type: ignore[return-value]

    def site_log_guide(self, values: Values) -> dict[str, Tensor]:
        """log q of each site at any latents: site -> (K, n) nats."""
        self.refuse_auxiliary()
        return self._by_particles(
            values, lambda run, part: {n: run.table(site_log_prob(s)) for n, s in sites(self._at(run, part)).items()}
        )

    # ----------------------------------------------------------------------------------------------- on the real line

    @property
    def num_dims(self) -> int:
        """Real coordinates of one particle of one datum, all sites together."""
        return sum(site.shape.numel() for site in self.sites.values())

    def to_real(self, values: Values) -> Tensor:
        """Latents as one real vector each: (K, n, ...) -> (K, n, num_dims)."""
        moved = self._by_particles(values, self._moved)
        return torch.cat([moved[name].reshape(len(moved[name]), self.num_data, -1) for name in self.sites], -1)

    def split_real(self, u: Tensor) -> Values:
        """The coordinates of each site: (K, n, num_dims) -> site -> (K, n, *shape)."""
        parts = u.split([site.shape.numel() for site in self.sites.values()], -1)
        return {
            name: part.unflatten(-1, site.shape) if site.shape else part.squeeze(-1)
            for (name, site), part in zip(self.sites.items(), parts, strict=True)
        }

    def log_joint_real(self, u: Tensor) -> Joint:
        """The model's densities at points (K, n, num_dims) of the real line, and the values that they stand for."""
        return self._score_model(self.split_real(u), _OnRealLine)

    def refuse_discrete(self, purpose: str) -> None:
        """Raises InputError, naming the site, if a latent is discrete and so has no place on the real line."""
        for name, site in self.sites.items():
            if site.is_discrete:
                raise InputError(
                    f"site '{name}' is discrete ({site.family}): {purpose} moves latents along gradients. "
                    f"Use evaluate (importance sampling), which takes discrete latents, or sum out '{name}'"
                )

    def refuse_narrow_guide(self) -> None:
        """Raises InputError, naming the site, if the guide cannot draw all that the prior can."""
        refuse_narrow_guide(*plain_traces(self.model, self.guide, self.args), self.structure)

    def refuse_auxiliary(self) -> None:
        """Raises InputError, naming the site, if the guide has no density that is a function of the latents alone."""
        extra = [name for name in self.structure.drawn if name not in self.sites]
        if extra:
            raise InputError(
                f"site '{extra[0]}' of the guide is auxiliary: the guide's density at given latents is not known. "
                "Draw the latent sites themselves in the guide"
            )

    # --------------------------------------------------------------------------------------------------------- inside

    def _values(self, program: Program, num_particles: int) -> Values:
        def read(run: _Run, _: Values) -> Values:
            drawn = sites(run.trace(program))
            return {name: run.lift(drawn[name]["value"], site) for name, site in self.sites.items()}

        return self._by_particles({}, read, num_particles)

    def _at(self, run: "_Run", values: Values) -> Trace:
        return run.trace(_Placed(run.place_all(values, self.sites))(self.guide))

    def _score_model(self, given: Values, handler: type["_Placed"]) -> Joint:
        def read(run: _Run, part: Values) -> dict[str, Tensor]:
            placed = handler(run.place_all(part, self.sites))
            found = sites(run.trace(placed(self.model)))
            none = self.zeros(run.num_particles)
            terms = {True: none, False: none, "jacobian": none}
            for site in found.values():
                terms[site["is_observed"]] = terms[site["is_observed"]] + run.table(site_log_prob(site))
            for log_jacobian in placed.log_jacobians:
                terms["jacobian"] = terms["jacobian"] + run.table(log_jacobian)
            values = {f"value {name}": run.lift(found[name]["value"], site) for name, site in self.sites.items()}
            return {"likelihood": terms[True], "prior": terms[False], "jacobian": terms["jacobian"], **values}

        table = self._by_particles(given, read)
        values = {name: table[f"value {name}"] for name in self.sites}
        return Joint(table["likelihood"], table["prior"], table["jacobian"], values)

    def _moved(self, run: "_Run", values: Values) -> Values:
        found = sites(run.trace(_Placed(run.place_all(values, self.sites))(self.model)))
        return {
            name: run.lift(to_support(found[name]["fn"]).inv(found[name]["value"]), site)
            for name, site in self.sites.items()
        }

    def _by_particles(
        self,
        values: Values,
        read: Callable[["_Run", Values], dict[str, Tensor]],
        num_particles: int | None = None,
    ) -> dict[str, Tensor]:
        """What ``read`` makes of one run of K particles, or of K runs of one where the programs are looped."""
        num_particles = num_particles or len(next(iter(values.values())))
        if self.way != "looped":
            return read(_Run(self, num_particles), values)
        parts = [read(_Run(self, 1), {n: v[k : k + 1] for n, v in values.items()}) for k in range(num_particles)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def zeros(self, num_particles: int) -> Tensor:
        """A table (K, n) of zeros, float64, where the data are."""
        device = next(arg.device for arg in self.args if isinstance(arg, Tensor))
        return torch.zeros(num_particles, self.num_data, dtype=torch.float64, device=device)


class _Run:
    """One run of a program on K particles of n data: how they lie in its tensors."""

    def __init__(self, latents: Latents, num_particles: int, *, vectorized: bool = True) -> None:
        self.structure, self.num_data, self.num_particles = latents.structure, latents.num_data, num_particles
        self.vectorized, self.args = vectorized and latents.way == "vectorized", latents.args
        if not self.vectorized:
            self.args = tiled_args(latents.args, num_particles)

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


class _Placed(Messenger):
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


class _OnRealLine(_Placed):
    """Latent sites take the images of points on the real line; the Jacobians of the moves are kept."""

    def value(self, fn: Any, given: Tensor) -> Tensor:
        transform = to_support(fn)
        value = transform(given)
        log_jacobian = transform.log_abs_det_jacobian(given, value)
        inner = len(fn.event_shape) - transform.codomain.event_dim  # dimensions that the transform takes one by one
        self.log_jacobians.append(log_jacobian.sum(tuple(range(-inner, 0))) if inner else log_jacobian)
        return value


def to_support(fn: Any) -> Any:
    """The transform from the real line onto the support of a distribution."""
    support = fn.support
    if hasattr(support, "base_constraint") and type(support).__name__ == "MixtureSameFamilyConstraint":
        support = support.base_constraint  # components share it; torch knows no transform of the mixture's own
    return biject_to(support)


def _describe_site(site: Any, structure: Structure) -> Site:
    fn, value = site["fn"], site["value"]
    is_discrete = bool(getattr(fn.support, "is_discrete", False))
    real = value if is_discrete else to_support(fn).inv(value)
    event_dim = len(fn.event_shape)
    batch_dim = value.dim() - event_dim
    shape = list(real.shape)
    del shape[batch_dim + structure.dim]
    inner = torch.Size([1] * (structure.depth - batch_dim) + shape)
    return Site(batch_dim, event_dim, inner, is_discrete, type(fn).__name__)
