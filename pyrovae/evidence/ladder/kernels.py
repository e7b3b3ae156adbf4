"""What is asked of the densities of a block of data again and again, point after point: as compiled kernels.

A function of latents and of K points of them is run as it is, a few points at a time; where an evaluation compiles,
and most rows of a block climb, it is traced once and replayed for every block, its last rows and points repeated.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pyrovae.base.errors import NotCompiled, warn
from pyrovae.pairs.graphs.graph import Graph, first_run, trace
from pyrovae.pairs.graphs.looks import Untraceable
from pyrovae.pairs.latents import Latents
from pyrovae.pairs.traces import each_batched

AT_ONCE = 2500  # points that kernels take, of all data: what is larger leaves the processor's cache
LEAST = 0.6  # of the rows of a block, for which kernels cost no more than the programs
Function = Callable[[Latents, Tensor], Tensor]  # latents of n data and points (K, n, D) -> (K, n, ...)


class Kernels:
    """Functions of latents, compiled for blocks of one size.

    Args:
        num_data: in a block.

    Attributes:
        at_once: points of each datum that they take.
    """

    def __init__(self, num_data: int) -> None:
        self.num_data, self.at_once = num_data, max(1, AT_ONCE // num_data)
        self.graphs: dict[Function, Graph] = {}
        self.failed = False

    def of(self, function: Function, latents: Latents) -> Callable[[Tensor], Tensor] | None:
        """What replays a function of ``at_once`` points for these data, or fewer; None where it is to run as it is."""
        num_data = latents.num_data
        if self.failed or not LEAST * self.num_data <= num_data <= self.num_data:
            return None
        rows = torch.arange(self.num_data) % num_data
        args = each_batched(latents.args, lambda arg: arg[rows.to(arg.device)])

        def replay(u: Tensor) -> Tensor:
            points = torch.arange(self.at_once) % len(u)
            found = self.graphs[function](u[points][:, rows], *args)
            return found[: len(u), :num_data]

        if function not in self.graphs:
            try:
                whole = latents if num_data == self.num_data else Latents.of(latents.particles.by_rows(rows))
                self.graphs[function] = _compiled(function, whole, self.at_once)
            except Untraceable as error:
                warn(NotCompiled(f"better proposals are not compiled, and so slower to find: {error}"))
                self.failed = True
                return None
        return replay


def _compiled(function: Function, latents: Latents, num_points: int) -> Graph:
    """The kernels of a function, which give what it gives.

    Raises:
        Untraceable: saying why, for programs that no graph can hold.
    """
    if latents.particles.strategy == "looped":
        raise Untraceable("the programs take one particle at a time")
    latents.require_guide_density()  # which looks at values, once
    u = latents.unconstrain(latents.draw(num_points))
    graph = trace(lambda u, *args: function(latents.on(args), u), u, *latents.args).compiled(u, *latents.args)
    with first_run(graph):
        found, expected = graph(u, *latents.args), function(latents, u)
    if not torch.allclose(found, expected, rtol=graph.tolerance, atol=1e-3, equal_nan=True):
        raise Untraceable("a replay gives other densities than the programs")
    return graph


def by_parts(function: Function, latents: Latents, u: Tensor, *, fewer: int = 1) -> Tensor:
    """A function of points (K, n, D), a few of them at a time.

    Args:
        function: to be run.
        latents: of n data.
        u: points.
        fewer: so many times fewer at once than can be scored, where gradients are asked for too.
    """
    if (replay := latents.kernels.of(function, latents) if latents.kernels else None) is not None:
        return torch.cat([replay(part) for part in u.split(latents.kernels.at_once)])
    return torch.cat([function(latents, part) for part in u.split(latents.part_sizes(len(u), fewer))])
