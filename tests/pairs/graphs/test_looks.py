"""What looks at the value of a tensor is refused by its line; what only seems to look is traced."""

import pytest
import torch

from pyrovae.pairs.graphs.graph import trace
from pyrovae.pairs.graphs.looks import Untraceable

LOOKS = {
    "item": lambda x: x * x.sum().item(),
    "if": lambda x: x if x.sum() > 0 else -x,
    "of a live tensor": lambda x: x * LIVE.item(),
    "float": lambda x: x * float(LIVE),
    "nonzero": lambda x: x[x > 0],
    "equal": lambda x: x if torch.equal(x, LIVE) else -x,
}
LIVE = torch.tensor(2.0)


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_at_a_value_is_refused_by_its_line(name):
    with pytest.raises(Untraceable, match=r"test_looks\.py, line \d+ \(.*lambda x.*\)"):
        trace(LOOKS[name], torch.ones(3))


def test_an_error_of_the_function_itself_names_its_line():
    with pytest.raises(Untraceable, match=r"test_looks\.py, line \d+ .*must match"):
        trace(lambda x: x + torch.ones(4), torch.ones(3))


def test_classes_as_vectors_are_traced():
    classes = torch.tensor([2, 0, 1])
    graph = trace(lambda index: torch.nn.functional.one_hot(index, 4), classes)
    assert torch.equal(graph(classes.flip(0)), torch.nn.functional.one_hot(classes.flip(0), 4))
