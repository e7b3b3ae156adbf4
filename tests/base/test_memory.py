"""How much memory there is, what is done at once, and words for when it was too much."""

import pytest
import torch

from pyrovae.base import memory
from pyrovae.base.errors import InputError
from pyrovae.base.memory import blocks_of, explain_out_of_memory, machine_memory, of_device


def test_the_memory_of_a_container(tmp_path, monkeypatch):
    limits = tmp_path / "memory.max", tmp_path / "limit_in_bytes"
    monkeypatch.setattr("pyrovae.base.memory.CONTAINER_LIMITS", limits)
    whole = machine_memory()
    assert whole > 2**20
    limits[0].write_text("max\n")
    assert machine_memory() == whole
    limits[1].write_text("4096\n")
    assert machine_memory() == 4096


SHORTAGES = {
    "cpu": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    "python": MemoryError(),
}


@pytest.mark.parametrize("error", SHORTAGES.values(), ids=SHORTAGES)
def test_a_shortage_is_said_in_words(error):
    with pytest.raises(InputError, match=r"^not enough memory for 9 data at once: lower batch_size$") as caught:
        with explain_out_of_memory("9 data at once: lower batch_size"):
            raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), KeyError("x")], ids=["of its kind", "of another"])
def test_other_errors_are_left_as_they_are(error):
    with pytest.raises(type(error)) as caught, explain_out_of_memory("nothing"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(("num_data", "sizes"), [(7, [3, 3, 1]), (6, [3, 3]), (2, [2]), (0, [])])
def test_every_row_is_in_one_block(num_data, sizes):
    blocks = blocks_of(num_data, 3)
    assert [rows.stop - rows.start for rows in blocks] == sizes
    assert [row for rows in blocks for row in range(num_data)[rows]] == list(range(num_data))


def test_a_size_by_device():
    sizes = {"cpu": 1, "cuda": 2}
    assert [of_device(sizes, torch.device(name)) for name in ("cpu", "cuda", "cuda:1", "meta")] == [1, 2, 2, 1]


def test_growth_counts_what_is_alive_at_one_time():
    kept = torch.ones(1000)

    def run(size):
        constant = kept * 2  # 4,000 bytes in both
        first = torch.ones(size, 100) + 1  # two of 400 bytes each, the first of which goes
        for _ in range(10):
            first = first * 2  # two at a time
        return first.sum() + constant.sum() + kept.view(10, 100).t().sum()

    assert memory.Growth(run)() == 800


def test_growth_of_runs_in_a_loop():
    def run(size):
        return torch.stack([torch.ones(100) * 2 for _ in range(size)])

    assert 400 <= memory.Growth(run)() <= 1600


def test_growth_is_not_looked_at_closely_where_a_bound_of_it_is_enough():
    sizes = []

    def run(size):
        sizes.append(size)
        return torch.ones(250).sum() + torch.ones(size, 100)

    found = [memory.Growth(run)(enough) for enough in (10**6, 10, -1)]
    assert found[0] >= found[1] == found[2] and sizes == [2, 2, 1, 2, 1]
    two = memory.Storages.of(run, 2)
    sizes.clear()
    assert [memory.Growth(run, two)(enough) for enough in (10**6, 10)] == found[:2] and sizes == [1]


def test_growth_leaves_random_numbers_alone():
    before = torch.random.get_rng_state()
    memory.Growth(lambda size: torch.randn(size, 3))()
    assert torch.equal(before, torch.random.get_rng_state())
