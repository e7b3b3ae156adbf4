"""A draw of particles as two graphs: what the noise does not touch, run once for each block of data, and the rest.

The rest (the decoder's passes and every density) is compiled, on CUDA captured too, and replayed for each block of
particles; the encoder's pass is paid once for each datum.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.func import functionalize
from torch.fx import Graph as Nodes
from torch.fx import GraphModule, Node

from pyrovae.evidence.numerics.running_sums import Tally, tally
from pyrovae.pairs.graphs.graph import Graph, captured, first_run, is_random, trace
from pyrovae.pairs.graphs.looks import Untraceable
from pyrovae.pairs.terms import SiteTerms

Replay = Callable[[], Tally | None]
_EMPTY = (torch.ops.aten.empty.memory_format, torch.ops.aten.empty_like.default, torch.ops.aten.new_empty.default)
_ANEW = {
    torch.ops.aten.normal_.default: torch.ops.aten.normal_functional.default,
    torch.ops.aten.exponential_.default: torch.ops.aten.exponential.default,
}


class Replayed:
    """The tally of k particles of n data, traced and compiled.

    Args:
        draw: what the programs do: data, (n, ...) each -> tables of k particles.
        data: an example; others must have these shapes.

    Raises:
        Untraceable: saying why, for programs that no graph can hold, or that change from run to run.
    """

    def __init__(self, draw: Callable[..., SiteTerms], *data: Tensor) -> None:
        def run(*data: Tensor) -> tuple[Tensor, ...]:
            sites = draw(*data)
            return (_all_finite(sites), *tally(sites))

        # First by itself: functionalize takes no torch.autograd.Function (Dirichlet).
        operations = _drawn_anew(trace(run, *data))
        if any(_writes(node) for node in operations.module.graph.nodes):
            operations = trace(functionalize(operations), *data)
        self.before, each = apart(operations)
        self.found: tuple[Tensor, ...] = ()
        kept, cuda = self.before(*data), data[0].is_cuda
        if not kept:
            raise Untraceable("no density depends on the data")
        each = each.compiled(*kept)

        def replay(*kept: Tensor) -> None:
            self.found = each(*kept)

        self.replay = captured(replay, *kept) if cuda else replay
        if not cuda:  # what CUDA draws in a captured graph is not compared
            self._check(draw, each, *data)

    def of(self, *data: Tensor) -> Replay:
        """What replays the draw for these data.

        Returns:
            A function of nothing; each call draws with torch's random state as it is. It returns None where a density
            is NaN or a weight infinite; a tally lasts until the next call.
        """
        kept = self.before(*data)

        def replay() -> Tally | None:
            self.replay(*kept)
            finite, *parts = self.found
            return Tally(*parts) if finite else None

        return replay

    def _check(self, draw: Callable[..., SiteTerms], each: Graph, *data: Tensor) -> None:
        noise = torch.get_rng_state()
        expected, again = (_same_noise(noise, lambda: tally(draw(*data)).log_weight) for _ in range(2))
        with first_run(each):
            _same_noise(noise, lambda: self.replay(*self.before(*data)))
        if not _agree(expected, again, each.tolerance):
            raise Untraceable("the programs change from run to run: with the same noise they give other weights")
        if not _agree(expected, Tally(*self.found[1:]).log_weight, each.tolerance):
            raise Untraceable(
                f"with the same noise a replay gives other weights than the programs (drawn by {each.draws})"
            )


def _same_noise(noise: Tensor, run: Callable[[], Any]) -> Any:
    torch.set_rng_state(noise)
    return run()


def _agree(expected: Tensor, found: Tensor, tolerance: float) -> bool:
    """Whether log weights are the same, but for single draws of discrete sites that rounding may turn."""
    equal = torch.isclose(found, expected, rtol=tolerance, atol=1e-3, equal_nan=True)
    return bool(equal.double().mean() >= 0.99)


def _all_finite(sites: SiteTerms) -> Tensor:
    """Whether ``terms.check_finite`` finds nothing, a boolean scalar; NaN compares false."""
    model = [table < torch.inf for role in (sites.likelihood, sites.prior) for table in role.values()]
    return torch.stack([*model, *(table > -torch.inf for table in sites.guide.values())]).all()


def apart(graph: Graph) -> tuple[Graph, Graph]:
    """Cuts a graph in two: ``graph(*inputs)`` is ``rest(*before(*inputs))``.

    Returns:
        (before, rest): what depends on no random number and is not yet widened over particles, and the rest.

    Raises:
        Untraceable: for a graph that writes into a tensor, which must happen as often as it says.
    """
    nodes = list(graph.module.graph.nodes)
    for node in nodes:
        if _writes(node):
            raise Untraceable(f"the programs write into a tensor of their own ({node.target})")
    drawn: set[Node] = set()
    for node in nodes:
        if node.op == "output" or is_random(node) or _widens(node) or drawn.intersection(node.all_input_nodes):
            drawn.add(node)
    inputs = [node for node in nodes if node.op == "placeholder"]
    live = dict(zip(inputs, graph.live, strict=False))
    needed = [node for node in nodes if node not in drawn and drawn.intersection(node.users)]
    kept = [node for node in needed if node not in live]
    own = [node for node in needed if node in live]
    before = _copied(inputs, (node for node in nodes if node not in drawn), kept)
    rest = _copied([*own, *kept], (node for node in nodes if node in drawn), None)
    return Graph(before, graph.live), Graph(rest, [live[node] for node in own], graph.tolerance, graph.draws)


def _drawn_anew(graph: Graph) -> Graph:
    """The graph with draws into empty memory as draws of a new tensor, the same noise: most need no second trace."""
    for node in graph.module.graph.nodes:
        if node.target in _ANEW and node.args[0].target in _EMPTY and len(node.args[0].users) == 1:
            node.target = _ANEW[node.target]
    graph.module.recompile()
    return graph


def _writes(node: Node) -> bool:
    """Whether it writes into a tensor that is there."""
    return getattr(getattr(node.target, "_schema", None), "is_mutable", False)


def _widens(node: Node) -> bool:
    """Whether it repeats a tensor without a copy; what follows from that costs less anew than written down."""
    if node.target is not torch.ops.aten.expand.default:
        return False
    source = node.all_input_nodes[0].meta.get("val")
    return source is None or node.meta["val"].numel() > source.numel()


def _copied(inputs: list[Node], nodes: Iterable[Node], outputs: list[Node] | None) -> GraphModule:
    """A graph of these nodes; its outputs are those named, or what the node "output" among them says."""
    graph = Nodes()
    copies = {node: graph.placeholder(node.name) for node in inputs}
    for node in nodes:
        if node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    if outputs is not None:
        graph.output(tuple(copies[node] for node in outputs))
    return GraphModule(torch.nn.Module(), graph)
