"""Rows and places go one into the other, whatever dimension the data have, with and without particles."""

import pytest
import torch

from pyrovae.programs.guides.layout import Layout

PLACES = {"data alone": (-1, {}), "members before data": (-1, {-2: 3}), "steps behind data": (-2, {-1: 4, -3: 2})}


@pytest.mark.parametrize("particles", [(), (7,)], ids=["plain", "particles"])
@pytest.mark.parametrize("name", PLACES)
def test_rows_and_back(name, particles):
    dim, plates = PLACES[name]
    layout = Layout(dim, depth=3)
    sizes = layout.sizes(plates)
    own = max(-dim, *(-at for at in plates), 1)
    batch = [plates.get(at, 1) for at in range(-own, 0)]
    batch[dim] = 5
    lead = (*particles, *[1] * (3 - own)) if particles else ()
    value = torch.randn(*lead, *batch, 2)
    rows = layout.to_rows(value, sizes)
    assert rows.shape == (*particles, 5, sizes.numel() * 2)
    assert torch.equal(layout.from_rows(rows, sizes, own), value)


def test_a_row_holds_one_datum():
    layout = Layout(dim=-1, depth=2)
    value = torch.arange(5.0).expand(3, 5)[..., None]
    assert torch.equal(layout.to_rows(value, layout.sizes({-2: 3})), torch.arange(5.0)[:, None].expand(5, 3))
