r"""The latents of a pair for one block of data: drawn, scored at any value, and moved to the real line.

For K particles of n data every value is a tensor (K, n, ...), and with z = T(u) the transform of each site's
support, a density on the real line carries the Jacobian of the move:

.. math:: \log p_u(u) = \log p_z(T(u)) + \log |\det \partial T / \partial u|

Annealing, gaps, surgery, calibration and posteriors of single data are written on this; none of them reads a trace.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.base.errors import InputError
from pyrovae.base.memory import ELEMENTS_AT_ONCE
from pyrovae.pairs.handlers import filled_under_mask
from pyrovae.pairs.particles import WAYS, OnRealLine, Placed, Run, Values, choose_way, describe_site, to_support
from pyrovae.pairs.structure import Structure, describe, refuse_narrow_guide
from pyrovae.pairs.terms import sum_by_role
from pyrovae.pairs.traces import Program, num_rows, plain_traces, site_log_prob, sites


class Joint(NamedTuple):
    """What the model says of some latents, each density (K, n) in nats."""

    log_likelihood: Tensor
    log_prior: Tensor
    log_jacobian: Tensor  # of the move from the real line; zero where values were given as they are
    values: Values


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
        self.model, self.guide, self.args = filled_under_mask(model), guide, args  # or NaN gradients under masks
        self.num_data = num_rows(args)
        model_trace, guide_trace = plain_traces(model, guide, args)
        self.structure: Structure = describe(model_trace, guide_trace, self.num_data, plate=plate)
        self.way = way or choose_way(model, guide, args, self.structure)
        found = sites(model_trace)
        self.sites = {name: describe_site(found[name], self.structure) for name in self.structure.latents}
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
        pair = (self.model, self.guide, self.args, self.structure)
        parts = [WAYS[self.way](*pair, size) for size in self.part_sizes(num_particles)]
        return torch.cat([sum_by_role(part).log_weight for part in parts])

    def part_sizes(self, num_particles: int) -> list[int]:
        """How many particles of these data to run at once, so that memory stays flat: whole numbers that sum to K."""
        width = sum(arg.numel() for arg in self.args if isinstance(arg, Tensor))
        at_once = max(1, ELEMENTS_AT_ONCE // max(width, 64 * self.num_data))
        return [min(at_once, num_particles - start) for start in range(0, num_particles, at_once)]

    def lifted(self, values: Values) -> Values:
        """Latents as a plain run of the model holds them -> (1, n, ...)."""
        run = self._run(1, vectorized=False)
        return {name: run.lift(values[name], site) for name, site in self.sites.items()}

    def log_joint(self, values: Values) -> Joint:
        """log p(x|z) and log p(z) at any latents (K, n, ...)."""
        return self._score_model(values, Placed)

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
        return self._score_model(self.split_real(u), OnRealLine)

    def refuse_immovable(self, purpose: str) -> None:
        """Raises InputError, naming the site, if a latent has no place on the real line: a class, an angle."""
        for name, site in self.sites.items():
            if not site.is_movable:
                kind = "is discrete" if site.is_discrete else "has no bijection with the real line"
                raise InputError(
                    f"site '{name}' {kind} ({site.family}): {purpose} moves latents along gradients. "
                    f"Use evaluate (importance sampling), which takes it as it is, or sum out '{name}'"
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
        def read(run: Run, _: Values) -> Values:
            drawn = sites(run.trace(program))
            return {name: run.lift(drawn[name]["value"], site) for name, site in self.sites.items()}

        return self._by_particles({}, read, num_particles)

    def _at(self, run: Run, values: Values) -> Trace:
        return run.trace(Placed(run.place_all(values, self.sites))(self.guide))

    def _score_model(self, given: Values, handler: type[Placed]) -> Joint:
        def read(run: Run, part: Values) -> dict[str, Tensor]:
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

    def _moved(self, run: Run, values: Values) -> Values:
        found = sites(run.trace(Placed(run.place_all(values, self.sites))(self.model)))
        return {
            name: run.lift(to_support(found[name]["fn"]).inv(found[name]["value"]), site)
            for name, site in self.sites.items()
        }

    def _by_particles(
        self,
        values: Values,
        read: Callable[[Run, Values], dict[str, Tensor]],
        num_particles: int | None = None,
    ) -> dict[str, Tensor]:
        """What ``read`` makes of one run of K particles, or of K runs of one where the programs are looped."""
        num_particles = num_particles or len(next(iter(values.values())))
        if self.way != "looped":
            return read(self._run(num_particles), values)
        parts = [read(self._run(1), {n: v[k : k + 1] for n, v in values.items()}) for k in range(num_particles)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _run(self, num_particles: int, *, vectorized: bool = True) -> Run:
        return Run(self.structure, self.args, num_particles, vectorized=vectorized and self.way == "vectorized")

    def zeros(self, num_particles: int) -> Tensor:
        """A table (K, n) of zeros, float64, where the data are."""
        device = next(arg.device for arg in self.args if isinstance(arg, Tensor))
        return torch.zeros(num_particles, self.num_data, dtype=torch.float64, device=device)


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
