"""A traced function does what the function does, on the caller's own tensors; one that looks at values is refused."""

import importlib.util
import random
import shutil

import pytest
import torch

from pyrovae.pairs.graphs import graph as tracing
from pyrovae.pairs.graphs.graph import trace
from pyrovae.pairs.graphs.looks import Untraceable

needs_compiler = pytest.mark.skipif(
    tracing.compiler_missing(torch.device("cpu")) is not None, reason="needs a C++ compiler"
)


def counter():
    """A function with tensors of its own: it adds to a total, with noise, and returns the mean."""
    total, weight = torch.zeros(3), torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def add(x):
        gradient = torch.autograd.grad((weight * x).square().sum(), weight)[0]
        with torch.no_grad():
            total.add_(gradient + torch.randn(3))
        return x.mean()

    return total, weight, add


def run_twice(graph, total, seed):
    total.zero_()
    torch.manual_seed(seed)
    means = [graph(torch.full((4, 3), value)) for value in (1.0, 2.0)]
    return total.clone(), torch.stack(means)


def test_a_graph_reads_and_writes_the_callers_tensors_at_each_call():
    total, weight, add = counter()
    graph = trace(add, torch.ones(4, 3))
    expected = run_twice(add, total, 7)
    got = run_twice(graph, total, 7)
    torch.testing.assert_close(got, expected)
    with torch.no_grad():
        weight.mul_(2)  # seen by the graph, as it is the tensor itself
    torch.testing.assert_close(run_twice(graph, total, 7), run_twice(add, total, 7))


@needs_compiler
def test_a_compiled_graph_draws_the_same_noise():
    total, _, add = counter()
    graph = trace(add, torch.ones(4, 3)).compiled(torch.ones(4, 3))
    torch.testing.assert_close(run_twice(graph, total, 3), run_twice(add, total, 3))


@needs_compiler
def test_a_graph_is_compiled_as_it_is():
    from torch._dynamo.utils import counters

    counters.clear()
    graph = trace(lambda x: x.exp(), torch.ones(4, 3)).compiled(torch.ones(4, 3))
    torch.testing.assert_close(graph(torch.zeros(4, 3)), torch.ones(4, 3))
    assert not counters["frames"]  # none was traced again


@needs_compiler
def test_what_this_machine_compiled_once_is_found_again():
    from torch._dynamo.utils import counters

    x, factor = torch.ones(4, 3), random.SystemRandom().random()  # no earlier run compiled this
    found = []
    for _ in range(2):
        counters["inductor"].clear()
        graph = trace(lambda x: (x * factor, x.exp()), x).compiled(x)
        torch.testing.assert_close(graph(x), (x * factor, x.exp()))
        found.append({name: counters["inductor"][f"fxgraph_cache_{name}"] for name in ("miss", "hit")})
    assert found == [{"miss": 1, "hit": 0}, {"miss": 0, "hit": 1}]


def test_a_machine_without_a_compiler_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Untraceable, match="no C"):
        trace(lambda x: x + 1, torch.ones(3)).compiled(torch.ones(3))


def test_a_cuda_machine_without_triton_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert tracing.compiler_missing(torch.device("cuda")) == "there is no Triton for this device"


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_binary_draws_are_those_of_torch(dtype):
    probs = torch.linspace(0, 1, 101, dtype=dtype)
    graph = trace(torch.bernoulli, probs).compiled(probs)
    torch.manual_seed(3)
    expected = torch.bernoulli(probs)
    torch.manual_seed(3)
    assert torch.equal(graph(probs), expected) and graph.draws != "nothing"
