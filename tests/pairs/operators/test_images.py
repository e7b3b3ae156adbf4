"""Operators on images by name, what each of them shows, and what is refused."""

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.pairs.operators.images import MASKS, TASKS, blur, coarse, grey, named

FRACTIONS = {
    "lower-half": 0.5,
    "upper-half": 0.5,
    "left": 0.5,
    "right": 0.5,
    "quadrant": 0.75,
    "centre": 0.25,
    "random:0.25": 0.25,
}


@pytest.mark.parametrize("name", FRACTIONS)
@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (3, 8, 8)])
def test_a_mask_observes_its_fraction_in_all_channels_alike(name, shape):
    seen = ~named(name, shape).apply(torch.rand(2, *shape)).isnan()
    assert seen.float().mean() == FRACTIONS[name]
    channels = seen.reshape(-1, 8, 8)
    assert torch.equal(channels, channels[:1].expand_as(channels))


def test_every_mask_is_named():
    assert {name.partition(":")[0] for name in FRACTIONS} == set(MASKS)


def test_names_say_what_is_hidden():
    x = torch.arange(16.0).view(1, 4, 4)
    shown = {name: named(name, (4, 4)).apply(x)[0] for name in ("lower-half", "left", "quadrant", "centre")}
    assert shown["lower-half"][2:].isnan().all() and shown["left"][:, :2].isnan().all()
    assert shown["quadrant"].isnan().nonzero().tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
    assert (~shown["centre"].isnan()).nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_grey_weighs_the_channels():
    x = torch.rand(2, 3, 4, 5)
    exact = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    torch.testing.assert_close(grey((3, 4, 5)).apply(x), exact)


def test_coarse_pictures_are_means_of_blocks():
    x = torch.rand(2, 3, 4, 8)
    torch.testing.assert_close(coarse((3, 4, 8), 4).apply(x), torch.nn.functional.avg_pool2d(x, 4))


def test_a_blur_leaves_one_colour_as_it_is():
    y = blur((1, 6, 6), 1.5, 1e-6).apply(torch.ones(2, 1, 6, 6))
    torch.testing.assert_close(y, torch.ones(2, 1, 6, 6), atol=1e-4, rtol=0)
    spread = blur((9, 9), 1.0, 1e-6).apply(torch.zeros(1, 9, 9).index_fill(1, torch.tensor([4]), 1.0))
    assert spread[0, 4, 4] > spread[0, 3, 4] > spread[0, 0, 4]


@pytest.mark.parametrize("name", TASKS)
def test_noise_is_drawn_by_its_seed(name):
    shape = (3, 4, 4)
    operator, x = named({"grey": "grey:0.1", "coarse": "coarse:2,0.1"}.get(name, name), shape), torch.rand(2, *shape)
    assert torch.equal(operator.apply(x, seed=1), operator.apply(x, seed=1))
    assert not torch.equal(operator.apply(x, seed=1), operator.apply(x, seed=2))


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("lower-halv", (8, 8), "expected one of lower-half, .*, got 'lower-halv'.*lower-half"),
        ("lower-half", (8,), r"a mask: expected images \(H, W\) or \(C, H, W\), got data of shape \(8,\)"),
        ("lower-half:3", (8, 8), "'lower-half:3': expected lower-half, or numbers after it"),
        ("random:2", (8, 8), r"random: expected the fraction that is observed, in \(0, 1\), got 2.0"),
        ("coarse:3", (8, 8), "coarse: blocks of 3 x 3 do not divide images of 8 x 8"),
        ("coarse:x", (8, 8), "'coarse:x': expected coarse, or numbers after it as in coarse:0.5, got 'x'"),
        ("grey", (1, 8, 8), r"grey: expected images \(3, H, W\), got data of shape \(1, 8, 8\)"),
        ("blur:0", (8, 8), "blur: expected a positive width and positive noise, got 0.0 and 0.05"),
    ],
)
def test_what_does_not_fit_is_refused(text, shape, message):
    with pytest.raises(InputError, match=message):
        named(text, shape)
