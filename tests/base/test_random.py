"""Streams of random numbers: one for each key, and none of them disturbs the caller's."""

import torch

from pyrovae.base.random import preserve_rng_state, seed_everything


def test_keys_of_unlike_length_are_unlike_seeds():
    def draw(*key):
        seed_everything("evaluation", *key)
        return torch.rand(()).item()

    with preserve_rng_state():
        draws = [draw(*key) for key in [(0,), (0, 0), (0, 0, 0), (1,), (1, 0), (0, 1), (2**32,), (1, 0, 0)]]
    assert len(set(draws)) == len(draws)
