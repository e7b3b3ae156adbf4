"""Any batch of a fit can be had again from seed, epoch and place, wherever its rows are kept."""

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.data import batches as module
from pyrovae.data.batches import Batches
from pyrovae.data.split import as_split


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
