"""Streams of random numbers: one for each key, and none of them disturbs the caller's."""

from contextlib import nullcontext

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.base.random import (
    categories,
    common_random_numbers,
    is_common,
    noise,
    one_by_one,
    preserve_rng_state,
    seed_everything,
    seed_of,
    stream,
)


def test_keys_of_unlike_length_are_unlike_seeds():
    def draw(*key):
        seed_everything("evaluation", *key)
        return torch.rand(()).item()

    with preserve_rng_state():
        draws = [draw(*key) for key in [(0,), (0, 0), (0, 0, 0), (1,), (1, 0), (0, 1), (2**32,), (1, 0, 0)]]
    assert len(set(draws)) == len(draws)


def test_seeds_are_by_purpose_and_key_and_stay_what_they_are():
    assert len({seed_of(purpose, *key) for purpose in ("gaps", "surgery") for key in [(0,), (1,), (0, 1)]}) == 6
    assert seed_of("evaluation", 0, 3) == 6848902540536605361
    with pytest.raises(InputError, match="a seed must not be negative, got -2"):
        seed_of("evaluation", 0, -2)


@pytest.mark.parametrize("seed", [1.0, "1", None])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(InputError, match="a seed must be a whole number, got"):
        seed_of("evaluation", seed)


@pytest.mark.parametrize("error", [None, ZeroDivisionError], ids=["done", "raised"])
def test_the_callers_stream_goes_on_as_if_nothing_had_been_drawn(error):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(error) if error else nullcontext(), preserve_rng_state():
        seed_everything("evaluation", 0)
        torch.rand(7)
        if error:
            raise error
    assert torch.equal(torch.rand(3), expected)


def test_a_stream_is_its_own():
    before = torch.get_rng_state()
    draws = {key: torch.rand(2, generator=stream(*key)) for key in [("split", 0), ("split", 1), ("order", 0)]}
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draws["split", 0], torch.rand(2, generator=stream("split", 0)))
    assert len({tuple(drawn.tolist()) for drawn in draws.values()}) == 3


# -------------------------------------------------------------------------------------- common random numbers


@pytest.mark.parametrize("data", [0, 1])
def test_noise_is_the_data_s_own_unless_it_is_common(data):
    torch.manual_seed(0)
    own = noise(torch.randn, 5, 4, 3, data=data).movedim(data, 0)
    with common_random_numbers():
        assert is_common()
        common = noise(torch.randn, 5, 4, 3, data=data).movedim(data, 0)
        few = noise(torch.randn, *([5, 2, 3] if data else [2, 4, 3]), data=data)
    assert not is_common()
    assert (common == common[:1]).all() and not (own == own[:1]).all()
    assert few.shape == ((5, 2, 3) if data else (2, 4, 3))


def test_common_draws_of_categories_have_their_probabilities():
    """4 standard errors of 4,000 draws; a datum of the same weights has the same draws."""
    log_weight = torch.tensor([[0.2, 0.7, 0.2], [0.5, 0.3, 0.5], [0.3, 0.0, 0.3]]).log() + torch.tensor([0.0, 5.0, 1.0])
    for common in (nullcontext, common_random_numbers):
        with common():
            drawn = categories(log_weight, 4000)
        found = torch.stack([(drawn == c).double().mean(0) for c in range(3)])
        p = log_weight.double().softmax(0)
        assert drawn.shape == (4000, 3)
        assert ((found - p).abs() <= 4 * (p * (1 - p) / 4000).sqrt()).all()
    assert (drawn[:, 0] == drawn[:, 2]).all()


def test_what_one_datum_takes_is_nothing_to_the_next():
    def draw(row):
        return {"u": torch.rand(3 + row)[:3, None]}

    def two(num_data):
        torch.manual_seed(0)
        return one_by_one(draw, num_data, 1)["u"], torch.rand(())

    (few, after), (many, later) = two(1), two(4)
    assert many.shape == (3, 4) and (many == few).all() and after == later
