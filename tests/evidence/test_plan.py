"""What an evaluation is asked to do: whether it compiles, and how much it does at once."""

import pytest
import torch

from pyrovae.base import memory
from pyrovae.evidence import plan as planning
from pyrovae.evidence.plan import Plan, elements_at_once

CPU = torch.device("cpu")


def plan(**options):
    settings = {"num_particles": 100, "seed": 0, "batch_size": 100, "particle_batch": None, "plate": None}
    return Plan(**{**settings, "vectorize": True, "defensive": 0.0, **options})


def test_auto_compiles_what_repays_it(monkeypatch):
    monkeypatch.setattr(planning, "compiler_missing", lambda device: None)
    cuda = torch.device("cuda")
    assert not plan().compiles(10, CPU) and plan().compiles(10**5, CPU) and plan().compiles(10, cuda)
    assert plan(compile=True).compiles(1, CPU) and not plan(compile=False).compiles(10**9, cuda)
    assert not plan(defensive=0.1).compiles(10**9, cuda) and not plan(vectorize=False).compiles(10**9, cuda)
    monkeypatch.setattr(planning, "compiler_missing", lambda device: "no compiler")
    assert not plan().compiles(10**9, CPU)


GIB = 2**30
FREE = {
    "plenty": (139 * GIB, planning.ON_CUDA),
    "eight": (8 * GIB, 2**26),
    "little": (0.1 * GIB, 2**19),
    "none": (0, 1),
}


@pytest.mark.parametrize("case", FREE.values(), ids=FREE)
def test_the_block_on_cuda_follows_the_free_memory(monkeypatch, case):
    free, expected = case
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free), 0))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    assert elements_at_once(torch.device("cuda")) == expected
    assert elements_at_once(CPU) == memory.ELEMENTS_AT_ONCE
