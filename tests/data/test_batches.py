"""Any batch of a fit can be had again from seed, epoch and place, wherever its rows are kept."""

import threading
import time

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.data import batches as module
from pyrovae.data import load
from pyrovae.data.batches import Batches, prefetch
from pyrovae.data.split import Split, as_split

BYTES = np.random.RandomState(0).randint(0, 256, (60, 5, 3)).astype(np.uint8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=["resident", "in a file"])
def dynamic(request, tmp_path):
    """56 rows of probabilities, of which every batch is a new draw."""
    rows = np.random.default_rng(0).integers(256, size=(70, 5), dtype=np.uint8)
    np.save(tmp_path / "rows.npy", rows)
    options = {"binarization": "dynamic", "divisor": 255, "mmap": request.param == "in a file"}
    return pv.data.load(tmp_path / "rows.npy", **options).train


def epoch(batches, number, first=0):
    with batches.epoch(number, first) as coming:
        return [tuple(tensor.clone() for tensor in batch) for batch in coming]


def test_an_epoch_holds_every_row_once_and_each_epoch_has_its_own_order():
    x, label = torch.arange(23.0)[:, None].expand(23, 3), torch.arange(23)
    batches = Batches(as_split((x, label)), 5, seed=3)
    first, second = epoch(batches, 0), epoch(batches, 1)
    assert [len(batch[0]) for batch in first] == [5, 5, 5, 5, 3] and batches.steps == 5
    for order in (first, second):
        rows, labels = (torch.cat(column) for column in zip(*order, strict=True))
        assert torch.equal(labels.sort().values, label) and torch.equal(rows, x[labels])
    assert not torch.equal(first[0][1], second[0][1])
    assert torch.equal(batches.example(1)[1], second[0][1])
    assert [len(batch[0]) for batch in batches.of_each_size()] == [5, 3]
    assert batches.of_last_rows()[1].tolist() == [22, 21, 20, 19, 18]


def test_one_batch_of_all_rows_keeps_their_order():
    rows = torch.arange(9.0)[:, None]
    for batch_size in (9, 20):
        batches = Batches(as_split(rows), batch_size, seed=3)
        assert [batch.tolist() for (batch,) in epoch(batches, 0)] == [rows.tolist()]


@pytest.mark.parametrize("ahead", [1, 2, 100])
def test_an_epoch_goes_on_from_any_step_with_the_same_draws(dynamic, ahead, monkeypatch):
    monkeypatch.setattr(module, "AHEAD", {"cpu": ahead * 8 * 5})
    batches = Batches(dynamic, 8, seed=1)
    assert batches.ahead == ahead
    whole, noise = epoch(batches, 2), torch.get_rng_state()
    for first in range(batches.steps + 1):
        rest = epoch(Batches(dynamic, 8, seed=1), 2, first)
        assert len(rest) == batches.steps - first
        assert all(torch.equal(a, b) for (a,), (b,) in zip(rest, whole[first:], strict=True))
    assert torch.equal(noise, torch.get_rng_state())
    drawn = torch.cat([x for (x,) in whole])
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    again = torch.cat([x for (x,) in epoch(batches, 3)])
    assert not torch.equal(drawn.sum(0), again.sum(0))


def test_each_row_is_drawn_with_its_own_probabilities(tmp_path):
    certain = np.random.default_rng(1).integers(2, size=(60, 30)).astype(np.float64)  # drawn, these are themselves
    np.save(tmp_path / "rows.npy", np.concatenate([certain, np.full((60, 1), 0.3)], 1))
    split = pv.data.load(tmp_path / "rows.npy", binarization="dynamic").train
    batches, drawn = Batches(split, 8, seed=1), []
    for number in range(100):
        x = torch.cat([x for (x,) in epoch(batches, number)])
        drawn.append(x[:, -1])
        rows = x[:, :-1].unique(dim=0)
        assert torch.equal(rows, split.x[:, :-1].unique(dim=0)) and len(rows) == len(split)
    share, size = torch.stack(drawn).mean().item(), len(split) * 100
    assert abs(share - 0.3) < 4 * (0.21 / size) ** 0.5


def test_looking_at_batches_leaves_every_random_state_alone(dynamic):
    batches, before = Batches(dynamic, 8, seed=1), torch.get_rng_state()
    for look in (batches.of_each_size, batches.of_last_rows, lambda: batches.example(1)):
        look()
        assert torch.equal(torch.get_rng_state(), before)


def test_seeds_epochs_and_pieces_draw_differently(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "AHEAD", {"cpu": 2 * 10 * 50})
    np.save(tmp_path / "even.npy", np.full((60, 50), 0.5))
    even = pv.data.load(tmp_path / "even.npy", binarization="dynamic").train
    draws = [torch.cat(epoch(Batches(even, 10, seed=seed), number)[0]) for seed in (0, 1) for number in (0, 1)]
    draws += [torch.cat(epoch(Batches(even, 10, seed=0), 0)[2])]  # of the second piece
    assert all(0.3 < x.mean() < 0.7 for x in draws)
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])
    label = torch.arange(40)
    split = as_split((label[:, None], label))
    orders = [torch.cat([labels for _, labels in epoch(Batches(split, 10, seed=seed), 0)]) for seed in (0, 1)]
    assert not torch.equal(*orders)


def test_batches_are_laid_out_alike_wherever_they_come_from():
    x = torch.randn(6, 20).t()
    batches = Batches(as_split(x), 5, seed=0)
    for batch in (*epoch(batches, 0), *batches.of_each_size(), batches.of_last_rows(), batches.example(0)):
        assert batch[0].is_contiguous()


# ------------------------------------------------------------------------------------------- prefetch


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


PREFETCHED = {
    "mapped": {"divisor": 255, "mmap": True},
    "mapped and drawn": {"divisor": 255, "binarization": "dynamic", "mmap": True},
    "binarized once": {"divisor": 255, "binarization": "static", "mmap": True},
    "in memory": {"divisor": 255},
}


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("options", PREFETCHED.values(), ids=PREFETCHED)
def test_prefetched_batches_are_the_splits(options, depth, rows_file, monkeypatch):
    monkeypatch.setattr(module, "READY", depth)
    split = load(rows_file(BYTES), **options).train
    order = torch.randperm(len(split), generator=generator()).split(7)
    ours, theirs = generator(1), generator(1)
    with prefetch(split, iter(order), ours) as coming:
        for rows, batch in zip(order, coming, strict=True):
            (own,) = split.batch(rows, theirs)
            assert batch[0].dtype == own.dtype
            assert torch.equal(batch[0], own)
    assert not workers()


def test_prefetched_with_labels():
    split = load("digits").train.with_labels()
    with prefetch(split, [torch.tensor([5, 2])]) as coming:
        assert all(map(torch.equal, next(coming), split.batch(torch.tensor([5, 2]))))


class Watched:
    """A column that notes who gathers which rows."""

    def __init__(self, column):
        self.column, self.gathered, self.seconds = column, [], 0.0

    def __len__(self):
        return len(self.column)

    @property
    def shape(self):
        return self.column.shape

    @property
    def device(self):
        return self.column.device

    def decode(self, kept):
        return self.column.decode(kept)

    def to(self, device):
        return self

    def gather(self, rows):
        self.gathered.append((threading.current_thread().name, rows.tolist()))
        time.sleep(self.seconds)
        if rows[0] == 13:
            raise InputError("row 13 is not to be had")
        return self.column.gather(rows)


def watched():
    split = as_split(torch.arange(100.0))
    column = Watched(split.columns[0])
    return column, Split((column,), split.protocol)


def test_batches_are_gathered_ahead_in_one_thread(monkeypatch):
    monkeypatch.setattr(module, "READY", 3)
    column, split = watched()
    asked = []

    def batches():
        for row in range(10):
            asked.append(row)
            yield torch.tensor([row])

    with prefetch(split, batches()) as coming:
        assert asked == [0, 1, 2]
        assert next(coming)[0].tolist() == [0.0]
        assert asked == [0, 1, 2, 3]
        assert [x.item() for (x,) in coming] == list(range(1, 10))
    assert {name for name, _ in column.gathered} == {"prefetch_0"}


def test_an_error_in_the_thread_is_raised_where_the_batch_is_taken():
    _, split = watched()
    taken = []
    with pytest.raises(InputError, match="row 13 is not to be had"):
        with prefetch(split, torch.arange(11, 20).split(1)) as coming:
            for (x,) in coming:
                taken.append(x.item())
    assert not workers()
    assert taken == [11.0, 12.0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, None])
def test_leaving_ends_the_thread(error, monkeypatch):
    monkeypatch.setattr(module, "READY", 50)
    column, split = watched()
    column.seconds = 0.02
    try:
        with prefetch(split, torch.arange(20, 90).split(1)) as coming:
            next(coming)
            if error:
                raise error
    except (KeyboardInterrupt, ValueError):
        pass
    assert not workers()
    assert len(column.gathered) < 40
