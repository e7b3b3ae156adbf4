"""The record of an iterative fit."""

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.base.steps import SHOWN, Step, Steps


def steps(num):
    return [
        Step({"a": torch.tensor([1.0, -2.0]) / (t + 1)}, {"r": torch.ones(3, 2)}, -5.0 / (t + 1)) for t in range(num)
    ]


def test_gains_and_changes_are_differences():
    record = Steps.of("a toy", torch.zeros(3, 2), steps(3))
    torch.testing.assert_close(record.gain[1:], torch.tensor([2.5, 5 / 6]).double())
    torch.testing.assert_close(record.change[1:].float(), torch.tensor([1.0, 1 / 3]))
    assert record.gain[0].isnan() and record.posterior["r"].shape == (3, 3, 2)
    assert record.to_dict()["log_evidence"] == {"first": -5.0, "last": pytest.approx(-5 / 3)}


def test_a_long_one_is_told_by_its_first_steps_and_its_last():
    lines = Steps.of("a toy", torch.zeros(3, 2), steps(50)).summary().splitlines()
    assert len(lines) == 3 + SHOWN + 1
    assert lines[-1].startswith("step 49") and lines[-2].startswith("...")


def test_one_step_is_a_record_too():
    assert "step 0" in Steps.of("a toy", torch.zeros(3, 2), steps(1)).summary()


def test_no_step_is_none():
    with pytest.raises(InputError, match="expected steps of a fit, got none"):
        Steps.of("a toy", torch.zeros(3, 2), [])
