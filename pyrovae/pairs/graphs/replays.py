"""A function of tensors that is asked again and again: run as it is at first, then traced once and replayed.

A replay does to tensors what the function does, bit for bit, without the Python that says so and without what is the
same at each call, which is done once: where the programs are small, in a third to a sixth of the time.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.func import functionalize
from torch.fx import Graph as Nodes
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from pyrovae.base.random import preserve_rng_state
from pyrovae.pairs.graphs.graph import Graph, is_random, trace
from pyrovae.pairs.graphs.looks import Untraceable

REPAID = 100  # calls: a trace takes as long as 40 to 80 of them, the first of a process a second more


class Replays:
    """A function of tensors, (*points) -> (values, ...), that no gradient goes through.

    What it reaches by itself, parameters and data, is taken to stay as it is. What no graph can hold, or what a replay
    does not give as the function gives it, goes on being run as it is.

    Args:
        function: to be asked.
        repaid: calls with points of the same shapes after which it is traced.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], repaid: int = REPAID) -> None:
        self.function, self.repaid = function, repaid
        self.calls: dict[Any, int] = {}
        self.graphs: dict[Any, Graph] = {}
        self.fails = False

    def __call__(self, *points: Tensor) -> tuple[Tensor, ...]:
        """What the function gives there."""
        points = tuple(one.contiguous() for one in points)  # strides are part of a graph
        key = tuple((one.shape, one.dtype, one.device) for one in points)
        count = self.calls[key] = self.calls.get(key, 0) + 1
        if count > self.repaid + 1 and not self.fails:
            return self.graphs[key](*points)
        if count == self.repaid and not self.fails:
            self._trace(key, *points)
        if count == self.repaid + 1 and not self.fails:  # not where it was traced, for what was looked at shows here
            return self._checked(key, *points)
        return self.function(*points)

    def _trace(self, key: Any, *points: Tensor) -> None:
        try:
            with preserve_rng_state():
                self.graphs[key] = settled(trace(lambda *points: self.function(*points), *points), *points)
        except Untraceable:
            self.fails = True

    def _checked(self, key: Any, *points: Tensor) -> tuple[Tensor, ...]:
        with preserve_rng_state():
            found = self.graphs[key](*points)
        expected = self.function(*points)
        self.fails = not all(map(_same, found, expected))
        return expected


def _same(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-4, atol=1e-6, equal_nan=True)


_BY_SHAPE = (torch.ops.aten.ones_like.default, torch.ops.aten.zeros_like.default)  # whatever the values are
_KEPT = ("placeholder", "output")
_RESHAPES = (torch.ops.aten.view.default, torch.ops.aten.expand.default)


def settled(graph: Graph, *points: Tensor) -> Graph:
    """The graph without what gives the same at each call, given that its live tensors stay as they are.

    Raises:
        Untraceable: for a graph that writes into a live tensor.
    """
    try:
        return _settled(graph)
    except Untraceable:  # of what it writes into, tensors of its own can be told from those that stay
        return _settled(trace(functionalize(graph), *points))


def _settled(graph: Graph) -> Graph:
    nodes = list(graph.module.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    known: dict[Node, Any] = dict(zip(inputs, graph.live, strict=False))
    for node in nodes:
        if node.op != "call_function" or is_random(node):
            continue
        if all(one in known for one in node.all_input_nodes) and not _spoils(node, known, graph.live):
            args, kwargs = map_arg((node.args, node.kwargs), known.__getitem__)
            known[node] = node.target(*args, **kwargs)
        elif node.target in _BY_SHAPE:
            like = node.all_input_nodes[0].meta["val"]
            empty = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=like.device)
            known[node] = node.target(empty, **node.kwargs)
        elif any(one in known for one in _written(node)):
            raise Untraceable(f"the programs write into a tensor that stays ({node.target})")
    return _of_what_is_left(graph, inputs[len(graph.live) :], known)


def _of_what_is_left(graph: Graph, inputs: list[Node], known: dict[Node, Any]) -> Graph:
    """The operations whose values are not known; those that they use become the live tensors."""
    left, nodes = Nodes(), graph.module.graph.nodes
    used = [node for node in known if isinstance(known[node], Tensor) and any(user not in known for user in node.users)]
    copies: dict[Node, Any] = {node: left.placeholder(node.name) for node in (*used, *inputs)}
    writes = any(_written(node) for node in nodes if node not in known)  # then no tensor has two names
    for node in nodes:
        if node not in known and node not in copies:
            nothing = not writes and _does_nothing(node)
            copies[node] = copies[node.args[0]] if nothing else left.node_copy(node, copies.__getitem__)
    left.eliminate_dead_code(
        lambda node: node.op in ("placeholder", "output") or is_random(node) or bool(_written(node))
    )
    return Graph(GraphModule(torch.nn.Module(), left), [known[node] for node in used], graph.tolerance, graph.draws)


def _does_nothing(node: Node) -> bool:
    """Whether it gives what it is given, where no gradient is asked for."""
    if node.target in _RESHAPES:
        return node.all_input_nodes[0].meta["val"].shape == node.meta["val"].shape
    return node.target is torch.ops.aten.detach.default


def _spoils(node: Node, known: dict[Node, Any], live: Iterable[Tensor]) -> bool:
    """Whether it writes into a live tensor."""
    places = {known[one].untyped_storage().data_ptr() for one in _written(node)}
    return any(tensor.untyped_storage().data_ptr() in places for tensor in live)


def _written(node: Node) -> list[Node]:
    """The tensors that an operation writes into."""
    schema = getattr(node.target, "_schema", None)
    arguments = () if schema is None or not schema.is_mutable else schema.arguments
    given = dict(zip((one.name for one in arguments), node.args, strict=False)) | node.kwargs
    found = [given[one.name] for one in arguments if one.alias_info and one.alias_info.is_write and one.name in given]
    return [one for each in found for one in (each if isinstance(each, list | tuple) else [each])]
