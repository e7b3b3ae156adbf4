r"""The latents of a pair for one block of data: drawn, scored at any value, and moved to unconstrained space.

For K particles of n data every value is a tensor (K, n, ...), and with z = T(u) the transform of each site's
support, a density in unconstrained space carries the Jacobian of the move:

.. math:: \log p_u(u) = \log p_z(T(u)) + \log |\det \partial T / \partial u|

Annealing, gaps, surgery, calibration and posteriors of single data are written on this; none of them reads a trace.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyrovae.base.errors import EdgeOfSupport, InputError, warn
from pyrovae.base.random import is_common, one_by_one, preserve_rng_state
from pyrovae.pairs.checks import looks
from pyrovae.pairs.checks.inverses import check_density_at
from pyrovae.pairs.checks.sites import require_no_codes
from pyrovae.pairs.handlers import Placed, Reached, Unconstrained
from pyrovae.pairs.particles import Particles
from pyrovae.pairs.structure import Structure
from pyrovae.pairs.supports import base_measure, layers, may_miss, to_support, whole_line
from pyrovae.pairs.terms import latent_log_prob, proper_log_prob, sum_by_role
from pyrovae.pairs.traces import Program, Sites, site_log_prob

NUM_DRAWS = 200  # of latents, at which a likelihood is looked at
MOVED_AWAY, CHANGE = 0.02, 0.03  # part of points, moved onto a support and back, that may change by so many nats
Values = dict[str, Tensor]  # latent site -> (K, n, *plates inside a datum, *event)


class Site(NamedTuple):
    """One latent site, as a plain run of the model shows it."""

    batch_dim: int  # dimensions of plates that its values have
    shape: torch.Size  # of one particle of one datum in unconstrained space: (*plates inside a datum, *event)
    has_bijection: bool  # whether there is a transform from unconstrained space
    is_discrete: bool
    family: str


class Joint(NamedTuple):
    """What the model says of some latents, each density (K, n) in nats."""

    log_likelihood: Tensor
    log_prior: Tensor
    log_jacobian: Tensor  # of the move from unconstrained space; zero where values were given as they are
    values: Values

    @property
    def log_density(self) -> Tensor:
        """log p(x, u) in the space that the latents were given in, (K, n)."""
        return self.log_likelihood + self.log_prior + self.log_jacobian


class Latents:
    """The latents of a pair for the n data in ``args``; for use inside ``isolated``.

    What it is made of is what :class:`~pyrovae.pairs.particles.Particles` are made of.

    Raises:
        InputError: naming the site, if the pair has no per-datum weights or cannot be run on several particles; for a
            model without latent sites.
    """

    num_values = 1  # runs of the model that one point takes

    def __init__(self, model: Program, guide: Program, args: Sequence[Any], **known: str | None) -> None:
        self._look_at(Particles(model, guide, args, **known))
        require_no_codes(self.structure.codes)

    @classmethod
    def of(cls, particles: Particles) -> "Latents":
        """Those of a pair that was looked at."""
        latents = cls.__new__(cls)
        latents._look_at(particles)
        return latents

    def _look_at(self, particles: Particles) -> None:
        self.particles, self.model, self.guide = particles, particles.model, particles.guide
        self.args, self.num_data, self.structure = particles.args, particles.num_data, particles.structure
        self.every_site = {n: _describe(site, self.structure) for n, site in particles.example.latent.items()}
        self.sites: dict[str, Site] = self.every_site
        if not self.sites:
            raise InputError("the model has no latent site: log p(x) is its log density, and there is nothing to infer")
        self.rows: Tensor | None = None  # of the data, where these are the latents of some alone
        self.kernels: Any = None  # what replays functions of them, where an evaluation compiles
        self._guide_has_density = False  # until it was looked at
        self._prior_mean: Tensor | None = None

    def only(self, rows: Tensor) -> "Latents":
        """Those of some of the data, which the programs go on to meet among all others."""
        return self._with(rows=rows if self.rows is None else self.rows[rows], num_data=len(rows))

    def on(self, args: Sequence[Any]) -> "Latents":
        """Those of other data, as many of them, without another look."""
        return self._with(args=args, particles=self.particles.on(args))

    def by(self, strategy: str) -> "Latents":
        """The same by another strategy."""
        return self._with(particles=self.particles.by(strategy))

    def _with(self, **changed: Any) -> "Latents":
        other = copy.copy(self)
        vars(other).update(changed, _prior_mean=None)
        return other

    # ---------------------------------------------------------------------------------------- as the programs draw them

    def draw(self, num_particles: int) -> Values:
        """z ~ q(z|x), site -> (K, n, ...)."""
        return self._draws_of(self.guide, num_particles)

    def draw_prior(self, num_particles: int) -> Values:
        """z ~ p(z), site -> (K, n, ...)."""
        return self._draws_of(self.model, num_particles)

    def in_parts(self, draw: Callable[[int], Values], num_particles: int) -> Iterator[Values]:
        """Draws by :meth:`draw` or :meth:`draw_prior`, so many at once as can be scored."""
        if not is_common():
            yield from map(draw, self.part_sizes(num_particles))
            return
        whole, start = draw(num_particles), 0  # not drawn in parts, of which there are more for more data
        for size in self.part_sizes(num_particles):
            yield {name: value[start : start + size] for name, value in whole.items()}
            start += size

    def _draws_of(self, program: Program, num_particles: int) -> Values:
        def run(latents: Latents) -> Values:
            return latents._at({}, program, lambda found, *_: latents._of_run(found), num_particles=num_particles)

        if not is_common():
            return run(self)
        rows = range(self.num_data) if self.rows is None else self.rows.tolist()
        alone = [self._with(rows=None, num_data=1, particles=self.particles.alone(row)) for row in rows]
        return one_by_one(lambda number: run(alone[number]), self.num_data, 1)

    def log_weight(self, num_particles: int) -> Tensor:
        """log p(x|z) + log p(z) - log q(z|x) of draws from the guide: (K, n) nats, float64; not all scored at once."""
        parts = [self.particles.log_terms(size) for size in self.part_sizes(num_particles)]
        return torch.cat([sum_by_role(part).log_weight for part in parts])

    def draw_weighted(self, num_particles: int) -> tuple[Values, Tensor]:
        """K draws of the guide, site -> (K, n, ...), and their log weights (K, n); not all scored at once."""
        parts = [self._drawn(size) for size in self.part_sizes(num_particles)]
        values = {name: torch.cat([value[name] for value, _ in parts]) for name in parts[0][0]}
        return values, torch.cat([log_weight for _, log_weight in parts])

    def _drawn(self, num_particles: int) -> tuple[Values, Tensor]:
        particles = self.particles
        runs = particles.traces(num_particles)
        each = [
            {
                name: particles.from_program(run.latent[name]["value"], site.batch_dim)
                for name, site in self.every_site.items()
            }
            for run in runs
        ]
        values = {name: torch.cat([one[name] for one in each]) for name in each[0]}
        return values, sum_by_role(particles.read(runs, num_particles)).log_weight

    def part_sizes(self, num_particles: int, fewer: int = 1) -> list[int]:
        """How many particles of these data to run at once, so that memory stays flat: whole numbers that sum to K.

        Args:
            num_particles: K.
            fewer: so many times fewer than can be scored, where gradients are asked for too.
        """
        at_once = max(1, self.particles.at_once() // fewer)
        return [min(at_once, num_particles - start) for start in range(0, num_particles, at_once)]

    def lifted(self, values: Values) -> Values:
        """Latents as a plain run of the model holds them -> (1, n, ...)."""
        return {name: self.lifted_one(name, values[name]) for name in self.sites}

    def lifted_one(self, name: str, value: Tensor) -> Tensor:
        """The value of one site as a plain run holds it -> (1, n, ...)."""
        return self.particles.by("looped").from_program(value, self.every_site[name].batch_dim)

    def log_joint(self, values: Values) -> Joint:
        """log p(x|z) and log p(z) at any latents (K, n, ...)."""
        return self._score_model(values)

    def log_guide(self, values: Values) -> Tensor:
        """log q(z|x) at any latents: (K, n, ...) -> (K, n) nats.

        Raises:
            InputError: if the guide draws auxiliary sites, whose density is not a function of the latents.
        """
        return sum(self.site_log_guide(values).values())  # type: ignore[return-value]

    def site_log_guide(self, values: Values) -> dict[str, Tensor]:
        """log q of each site at any latents: site -> (K, n) nats."""
        self.require_guide_density()

        def read(found: Sites, _: Any, count: int) -> dict[str, Tensor]:
            return {name: self.particles.table(proper_log_prob(site), count) for name, site in found.items()}

        return self._at(values, self.guide, read)

    def observed_by(self, program: Program, values: Values, read: Callable[[Any], Tensor]) -> dict[str, Tensor]:
        """What a program like the model shows at the sites that it observes, at any latents (K, n, ...).

        Args:
            program: the model under a handler.
            values: of all latents.
            read: site -> a tensor of the shape of its value.

        Returns:
            Site -> (K, n, *plates inside a datum, *event).
        """

        def found(sites: Sites, _: Any, count: int) -> dict[str, Tensor]:
            shown = {name: site for name, site in sites.items() if site["is_observed"]}
            dims = {name: site["value"].dim() - len(site["fn"].event_shape) for name, site in shown.items()}
            return {name: self._for_particles(read(site), dims[name], count) for name, site in shown.items()}

        return self._at(values, program, found)

    def _for_particles(self, value: Tensor, batch_dim: int, count: int) -> Tensor:
        """A value as a run holds it, or of an observation that no particle changes -> (K, n, ...)."""
        if self.particles.is_vectorized:
            value = value[(None,) * (self.particles.structure.depth + 1 - batch_dim)]
            value = value.expand(count, *value.shape[1:])
        return self.particles.from_program(value, batch_dim)

    # ----------------------------------------------------------------------------------------- in unconstrained space

    @property
    def num_dims(self) -> int:
        """Real coordinates of one particle of one datum, all sites together."""
        return sum(site.shape.numel() for site in self.sites.values())

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of each site of one particle of one datum."""
        return tuple(tuple(site.shape) for site in self.sites.values())

    def prior_mean(self) -> Tensor:
        """Where the mean of each prior lies, (n, num_dims); 0 where it is not known, or depends on other latents."""
        if self._prior_mean is None:
            with preserve_rng_state():
                each = self._at({}, self.model, lambda found, *_: self._of_run(found, _real_mean), num_particles=2)
            one, other = self._real_vector(each)
            self._prior_mean = torch.where((one == other) & one.isfinite(), one, 0.0)
        return self._prior_mean

    def unconstrain(self, values: Values) -> Tensor:
        """Latents as one real vector each: (K, n, ...) -> (K, n, num_dims)."""

        def read(found: Sites, *_: Any) -> Values:
            return self._of_run(found, _real)

        return self._real_vector(self._at(values, self.model, read))

    def _real_vector(self, reals: Values) -> Tensor:
        return torch.cat([reals[name].reshape(len(reals[name]), self.num_data, -1) for name in self.sites], -1)

    def split_sites(self, u: Tensor) -> Values:
        """The coordinates of each site: (K, n, num_dims) -> site -> (K, n, *shape)."""
        parts = u.split([site.shape.numel() for site in self.sites.values()], -1)
        return {
            name: part.unflatten(-1, site.shape) if site.shape else part.squeeze(-1)
            for (name, site), part in zip(self.sites.items(), parts, strict=True)
        }

    def log_joint_unconstrained(self, u: Tensor) -> Joint:
        """The model's densities at unconstrained points (K, n, num_dims), and the values that they stand for."""
        return self._score_model(self.split_sites(u), Unconstrained)

    def values_at(self, u: Tensor) -> Values:
        """The latents that points (K, n, num_dims) stand for, site -> (K, n, ...)."""
        return self.log_joint_unconstrained(u).values

    def moved(self, values: Values) -> tuple[Tensor, Joint]:
        """Latents (K, n, ...) as points of unconstrained space (K, n, num_dims), and the model's densities there."""
        joint = self._score_model(values, Reached)
        return self._real_vector(joint.values), joint._replace(values=values)

    def rounds_away(self, u: Tensor) -> Tensor:
        """The part of points (K, n, num_dims) whose density changes when they are moved onto their supports and back.

        There the number format of a support ends, and no density is right: (n,).
        """
        if all(whole_line(site["fn"]) for site in self.particles.example.latent.values()):
            return torch.zeros(self.num_data, dtype=torch.float64)
        joint = self.log_joint_unconstrained(u)
        before, after = joint.log_density, self.moved(joint.values)[1].log_density
        allowed = CHANGE + 32 * torch.finfo(u.dtype).eps * before.abs()
        return (~((after - before).abs() <= allowed) & (before > -math.inf)).double().mean(0)

    def warn_of_edges(self, u: Tensor, purpose: str) -> None:
        """Warns (EdgeOfSupport) where two draws of a posterior (K, n, num_dims), and 2 %, lie where its numbers end."""
        lost = self.rounds_away(u) > max(MOVED_AWAY, 1.5 / len(u))
        if lost.any():
            warn(
                EdgeOfSupport(
                    f"posteriors of {int(lost.sum())} of {self.num_data} data reach the edge of a support, where "
                    f"numbers of {str(u.dtype).removeprefix('torch.')} end, and what lies beyond is lost to {purpose}: "
                    "run the programs in float64, or draw that site on the unconstrained scale"
                )
            )

    def require_bijection(self, purpose: str) -> None:
        """Raises InputError, naming the site, if a latent has no bijection with the reals: a class, an angle."""
        for name, site in self.sites.items():
            if not site.has_bijection:
                kind = "is discrete" if site.is_discrete else "has no bijection with unconstrained space"
                raise InputError(
                    f"site '{name}' {kind} ({site.family}): {purpose} moves latents along gradients. "
                    f"Use evaluate (importance sampling), which takes it as it is, or sum out '{name}'"
                )

    def check_guide_support(self) -> None:
        """Raises InputError, naming the site, if guide and prior do not draw in the same places."""
        looks.check_supports(self.particles.shown)
        looks.check_inside(self.particles.shown)

    def require_possible(self, draw: Callable[[int], Values], whose: str, advice: str) -> None:
        """Demands that each datum is possible under latents, where the support of a likelihood may move with them.

        Args:
            draw: draws K latents, as :meth:`draw` does.
            whose: they are, in words.
            advice: what to do.

        Raises:
            InputError: naming the site, if log p(x|z) is minus infinity at a draw.
        """
        missing = [name for name, site in self.particles.example.observed.items() if may_miss(site["fn"])]
        if missing:
            impossible = (self.log_joint(draw(NUM_DRAWS)).log_likelihood == -math.inf).double().mean(0)
            if impossible.any():
                raise InputError(
                    f"site '{missing[0]}': under {impossible.mean():.1%} of the draws of {whose} a datum is impossible "
                    f"(of {int((impossible > 0).sum())} of {self.num_data} data): log p(x|z) is minus infinity there. "
                    f"{advice}"
                )

    def require_guide_density(self) -> None:
        """Raises InputError, naming the site, if the guide has no density that is a function of the latents alone."""
        extra = [name for name in self.structure.drawn if name not in self.every_site]
        if extra:
            raise InputError(
                f"site '{extra[0]}' of the guide is auxiliary: the guide's density at given latents is not known. "
                "Draw the latent sites themselves in the guide"
            )
        if not self._guide_has_density:
            for name, site in self.particles.example.drawn.items():
                check_density_at(name, site)
            self._guide_has_density = True

    # --------------------------------------------------------------------------------------------------------- inside

    def _score_model(self, given: Values, handler: type[Placed] = Placed) -> Joint:
        def read(found: Sites, log_jacobians: list[Tensor], count: int) -> dict[str, Tensor]:
            log_probs = {"likelihood": list[Tensor](), "prior": list[Tensor](), "jacobian": log_jacobians}
            for site in found.values():
                role, log_prob = ("likelihood", site_log_prob) if site["is_observed"] else ("prior", latent_log_prob)
                log_probs[role].append(log_prob(site))
            tables = {
                role: sum((self.particles.table(each, count) for each in parts), start=self._all_zeros(count))
                for role, parts in log_probs.items()
            }
            kept = self._of_run(found, _real) if handler is Reached else self._of_run(found)
            return tables | {f"value {name}": value for name, value in kept.items()}

        table = self._at(given, self.model, read, handler)
        values = {name: table[f"value {name}"] for name in self.sites}
        return Joint(table["likelihood"], table["prior"], table["jacobian"], values)

    def _at(
        self,
        values: Values,
        program: Program,
        read: Callable[[Sites, list[Tensor], int], dict[str, Tensor]],
        handler: type[Placed] = Placed,
        num_particles: int | None = None,
    ) -> dict[str, Tensor]:
        """What ``read`` makes of one run with these latents, or of K runs of one particle where they are looped."""

        def run(part: Values, count: int) -> dict[str, Tensor]:
            part = self._among_all(part, handler)
            described = {n: self.particles.to_program(value, self.every_site[n].batch_dim) for n, value in part.items()}
            if program is self.guide:
                moves = ((name, *move) for name, move in self.particles.moves.items() if name in described)
                described |= {draw: to_support(prior).inv(described[name]) for name, draw, prior in moves}
            placed = handler(described)
            found = read(self.particles.sites(placed(program), count), placed.log_jacobians, count)
            return found if self.rows is None else {name: value[:, self.rows] for name, value in found.items()}

        count = num_particles or len(next(iter(values.values())))
        if self.particles.strategy != "looped":
            return run(values, count)
        parts = [run({name: value[k : k + 1] for name, value in values.items()}, 1) for k in range(count)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _among_all(self, values: Values, handler: type[Placed]) -> Values:
        """Latents of some of the data among those that the guide drew for the others: (K, m, ...) -> (K, n, ...)."""
        if self.rows is None or not values:
            return values
        found = {}
        for name, value in values.items():
            site = self.particles.example.latent[name]
            moved = handler is Unconstrained and not self.every_site[name].is_discrete
            others = self.lifted_one(name, _real(site) if moved else site["value"])
            found[name] = others.expand(len(value), *others.shape[1:]).to(value).index_copy(1, self.rows, value)
        return found

    def _of_run(self, found: Sites, read: Callable[[Any], Tensor] = lambda site: site["value"]) -> Values:
        """What a run holds at the latent sites, their values say -> (K, n, ...)."""
        return {
            name: self.particles.from_program(read(found[name]), site.batch_dim) for name, site in self.sites.items()
        }

    def zeros(self, num_particles: int) -> Tensor:
        """A table (K, n) of zeros, float64, where the data are."""
        return self._all_zeros(num_particles)[:, : self.num_data]

    def _all_zeros(self, num_particles: int) -> Tensor:
        device = next(arg.device for arg in self.args if isinstance(arg, Tensor))
        return torch.zeros(num_particles, self.particles.num_data, dtype=torch.float64, device=device)


def _real(site: Any) -> Tensor:
    """The value of a site in unconstrained space."""
    return to_support(site["fn"]).inv(site["value"])


def _real_mean(site: Any) -> Tensor:
    """The mean of the prior of a site in unconstrained space, as of its value; NaN where it is not known."""
    real = _real(site)
    try:
        return to_support(site["fn"]).inv(site["fn"].mean.to(real)).expand_as(real)
    except (NotImplementedError, AttributeError):
        return torch.full_like(real, math.nan)


def _describe(site: Any, structure: Structure) -> Site:
    """What a plain run shows of a latent site."""
    fn, value = site["fn"], site["value"]
    try:
        real, has_bijection = to_support(fn).inv(value), True
    except NotImplementedError:
        real, has_bijection = value, False
    batch_dim = value.dim() - len(fn.event_shape)
    shape = list(real.shape)
    del shape[batch_dim + structure.dim]
    inner = torch.Size([1] * (structure.depth - batch_dim) + shape)
    return Site(batch_dim, inner, has_bijection, base_measure(fn) == "mass", type(layers(fn)[-1]).__name__)


def coordinates(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """A name for each coordinate of each site of a datum, by the site's shape: "z[3]", or the site's own for one alone.

    Example:
        >>> coordinates({"mu": (), "theta": (1, 2)})
        ['mu', 'theta[0]', 'theta[1]']
    """
    places = {name: np.ndindex(*(size for size in shape if size > 1)) for name, shape in shapes.items()}
    return [
        name + (f"[{','.join(map(str, place))}]" if place else "")
        for name, of_site in places.items()
        for place in of_site
    ]
