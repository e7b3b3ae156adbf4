"""Devices by name."""

import pytest
import torch

from pyrovae.base.device import resolve_device


def test_auto_is_cuda_where_there_is_one():
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu0", "unknown device 'gpu0'; use auto, cpu, cuda or cuda:N"),
        pytest.param(
            "cuda:0",
            "'cuda:0' was asked for, but there is no CUDA device here; use auto or cpu",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
    ],
)
def test_a_device_that_is_not_there_is_an_error_that_says_what_to_do(name, message):
    with pytest.raises(ValueError, match=message):
        resolve_device(name)
