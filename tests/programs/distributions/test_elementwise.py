"""What distributions of several parameters share: one shape, any type of data, and supports that are checked."""

import pytest
import torch

from pyrovae.programs.distributions.counts import NegativeBinomial


def test_parameters_are_broadcast_and_expanded():
    q = NegativeBinomial(torch.zeros(3, 1), torch.zeros(4))
    assert q.batch_shape == (3, 4) and q.log_dispersion.shape == (3, 4)
    wide = q.expand((2, 3, 4))
    assert wide.batch_shape == (2, 3, 4) and wide.sample((5,)).shape == (5, 2, 3, 4)
    assert torch.equal(wide.log_prob(torch.ones(3, 4)), q.log_prob(torch.ones(3, 4)).expand(2, 3, 4))


def test_values_outside_are_refused_where_they_are_checked():
    checked = NegativeBinomial(torch.zeros(2), torch.zeros(2), validate_args=True)
    with pytest.raises(ValueError, match="support"):
        checked.log_prob(torch.tensor([0.5, 1.0]))
    assert checked.log_prob(torch.tensor([0, 1])).dtype == torch.float32
