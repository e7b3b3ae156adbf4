"""Models of which entries are observed: slopes of known and unknown sign, and what is refused."""

import pytest
import torch

from pyrovae.base.errors import InputError
from pyrovae.programs.missingness import self_masking


@pytest.mark.parametrize("sign", [1, -1])
def test_a_known_sign_stays(sign):
    module = self_masking(3, sign=sign)
    module.raw_slope.data.fill_(-2.0)
    assert (sign * module.slope > 0).all()
    large, small = module(torch.full((3,), 5.0)), module(torch.full((3,), -5.0))
    seen = torch.ones(3)
    assert sign * (small.log_prob(seen) - large.log_prob(seen)) > 0  # what is large is seen less often


def test_an_unknown_sign_is_learned():
    module = self_masking((2, 2))
    module.raw_slope.data.fill_(-1.0)
    assert (module.slope == -1).all()
    assert module(torch.zeros(7, 2, 2)).batch_shape == (7,)


def test_another_sign_is_refused():
    with pytest.raises(InputError, match="sign is 1 where large values are missing"):
        self_masking(3, sign=2)
