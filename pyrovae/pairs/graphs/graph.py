"""A function of tensors as one graph: run once under a tracer, then replayed without the Python that made it.

Tensors that the function reaches by itself (parameters, the optimizer's state, a learning rate) stay the caller's
own: they become inputs of the graph, read and written in place at each replay. What is not a tensor is fixed for
good, so a function that looks at a tensor's value cannot be traced, and is refused by the line that looks.
"""

import importlib.util
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae.base.errors import InputError, first_line
from pyrovae.base.memory import out_of_memory
from pyrovae.pairs.graphs.looks import OneHot, Unseen, Untraceable, line_of


@dataclass(frozen=True)
class Graph:
    """What a function does to tensors, ``(*inputs) -> outputs``; its live tensors are read and written in place.

    A compiled result may differ, relative to its size, by ``tolerance``: kernels sum in an order of their own, and
    where a sum is rounded to bfloat16 it may come out as its neighbour.
    """

    module: Any  # (*live, *inputs) -> outputs: torch.fx's graph, or what a compiler made of it
    live: list[Tensor]  # that the function reached by itself
    tolerance: float = 1e-4
    draws: str = "nothing"  # the operations that draw, in words

    def __call__(self, *inputs: Tensor) -> Any:
        return self.module(*self.live, *inputs)

    def compiled(self, *inputs: Tensor) -> "Graph":
        """The same, as kernels that the inductor compiler makes for inputs of these shapes.

        Random numbers are drawn as torch draws them, so that a replay gives the draws of the function itself. On CUDA
        without Triton the graph stays as it is: captured, torch's own kernels are replayed as well.

        Raises:
            Untraceable: where the machine lacks what the compiler needs, or the compiler fails.
        """
        if reason := compiler_missing(inputs[0].device):
            if inputs[0].is_cuda:
                return self
            raise Untraceable(reason)
        try:
            with _quiet():
                kernels = _kernels(self.module, [*self.live, *inputs])
        except Exception as error:
            raise Untraceable(f"the compiler failed: {first_line(error)}") from error
        return replace(self, module=kernels)


def trace(function: Callable[..., Any], *inputs: Tensor) -> Graph:
    """Runs ``function`` once on ``inputs``, with all that it does to tensors, and returns that as a graph.

    Raises:
        Untraceable: naming the line, if the function looks at the value of a tensor.
    """
    try:
        with _one_fake_mode():
            module = make_fx(Unseen()(OneHot()(function)), decomposition_table=_AS_DRAWN)(*inputs)
    except Exception as error:
        if isinstance(error, Untraceable) or out_of_memory(error):
            raise
        raise Untraceable(f"{line_of(error)}: {first_line(error)}") from error
    return _lift(module)


def captured(run: Callable[..., Any], *inputs: Tensor) -> Callable[..., None]:
    """What ``run`` does on CUDA to ``inputs``, recorded as one CUDA graph; a replay costs one launch.

    Returns:
        A function of inputs of the same shapes, which it copies to where the graph reads them.

    Raises:
        Untraceable: if ``run`` waits for the device, or does what a CUDA graph cannot hold.
    """
    held, stream = [tensor.clone() for tensor in inputs], torch.cuda.Stream()
    try:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # lets the libraries choose their kernels and take their memory
                run(*held)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run(*held)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise Untraceable(f"CUDA cannot capture it: {first_line(error)}") from error

    def replay(*fresh: Tensor) -> None:
        for own, tensor in zip(held, fresh, strict=True):
            own.copy_(tensor, non_blocking=True)
        graph.replay()

    return replay


@contextmanager
def first_run(graph: Graph) -> Iterator[None]:
    """What fails as compiled kernels run for the first time is the reason why they cannot stand for the programs."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError | FloatingPointError) or out_of_memory(error):
            raise
        how = f"{type(error).__name__}: {first_line(error)}"
        raise Untraceable(f"the compiled kernels fail ({how}); they draw by {graph.draws}") from error


def _bernoulli(probs: Tensor, *, generator: Any = None) -> Any:
    """Binary draws in float64 as torch makes them on the CPU; the compiler's own compare numbers in float32."""
    if probs.is_cuda or probs.dtype != torch.float64:
        return NotImplemented
    return (torch.rand(probs.shape, dtype=probs.dtype, device=probs.device) < probs).to(probs.dtype)


_AS_DRAWN: dict[Any, Callable[..., Any]] = {torch.ops.aten.bernoulli.default: _bernoulli}


def is_random(node: Any) -> bool:
    """Whether an operation of a graph draws."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _kernels(module: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """What the inductor compiler makes of a module.

    torch's private names: ``compile`` takes a graph as it is, where ``torch.compile`` would trace it anew and guard
    each call, for 3 to 14 % of a step (test_a_graph_is_compiled_as_it_is); ``fallback_random`` draws as torch draws
    (test_a_compiled_graph_draws_the_same_noise); the compiler's cache asks for fake tensors with a ``ShapeEnv``
    (test_what_this_machine_compiled_once_is_found_again).
    """
    from torch._inductor import compile
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    fake = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    shapes: list[Any] = [fake.from_tensor(tensor, static_shapes=True) for tensor in inputs]
    # Shapes are those of the trace; to assert them at each call would cost 2 us.
    return compile(module, shapes, {"fallback_random": True, "size_asserts": False, "alignment_asserts": False})


def compiler_missing(device: torch.device) -> str | None:
    """What the inductor compiler lacks for a device, in words; None if nothing."""
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "there is no Triton for this device"
    if any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        return None
    return "there is no C++ compiler here (g++ or clang++)"


def _lift(module: GraphModule) -> Graph:
    """Turns the tensors that a traced module holds into its first inputs, one for each memory."""
    graph = module.graph
    live: dict[Any, tuple[Tensor, Any]] = {}
    first = next(iter(graph.nodes))
    for node in list(graph.nodes):
        if node.op == "get_attr":
            tensor = attrgetter(node.target)(module)
            if (key := place_of(tensor)) not in live:
                with graph.inserting_before(first):
                    live[key] = (tensor, graph.placeholder(f"live_{len(live)}"))
            node.replace_all_uses_with(live[key][1])
            graph.erase_node(node)
    rounded = any(getattr(node.meta.get("val"), "dtype", None) == torch.bfloat16 for node in graph.nodes)
    tensors = [tensor.detach() for tensor, _ in live.values()]
    draws = ", ".join(sorted({str(node.target).split(".")[1] for node in graph.nodes if is_random(node)}))
    return Graph(GraphModule(torch.nn.Module(), graph), tensors, 5e-3 if rounded else 1e-4, draws or "nothing")


def place_of(tensor: Tensor) -> tuple[Any, ...]:
    """Tells tensors apart that do not lie in the same memory in the same way."""
    return tensor.device, tensor.dtype, tensor.data_ptr(), tensor.shape, tensor.stride()


def _one_fake_mode() -> AbstractContextManager[Any]:
    """Lets the tracer describe all tensors in one mode: without, it makes one for each, for half of a trace's time."""
    from torch._guards import TracingContext, tracing
    from torch._subclasses import FakeTensorMode

    return tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remark on a CUDA toolkit that has no device, and its warnings to itself as it lowers a graph."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        logger.setLevel(before)
