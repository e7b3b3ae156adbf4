"""Streams of random numbers: one for each key, and none of them disturbs the caller's."""

from contextlib import nullcontext

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.base.random import preserve_rng_state, seed_everything, seed_of, stream


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
