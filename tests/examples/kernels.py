"""Which graphs the suite compiles: a few of each kind, as the compiler takes seconds for each; the others on demand."""

import pytest


def in_kernels(*few, of):
    """Names beside what their graphs become, parameters of a test: kernels of a few, the others as traced.

    Kernels of the others are marked, and left to ``make combinations``.
    """
    marks = [pytest.mark.combinations]
    compiled = [pytest.param(name, "kernels", id=name, marks=[] if name in few else marks) for name in of]
    return [*compiled, *(pytest.param(name, "as traced", id=f"{name}, as traced") for name in of if name not in few)]
